//! Stores as they should be: what they already hold, TLS, checksums, several destinations, small memory.

use std::sync::Arc;

use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio_rustls::rustls;

use crate::faults::Kind;
use crate::faults::PARTS;
use crate::faults::SMALL;
use crate::faults::has_parts;
use crate::world::FIRST;
use crate::world::PART;
use crate::world::World;
use crate::world::sha256;

#[tokio::test]
async fn the_same_bytes_of_an_earlier_manifest_are_adopted() {
    let runs = Kind::ALL.map(|kind| async move {
        for size in [SMALL, PARTS] {
            let before = World::new(kind.plan(size)).await;
            let ids = before.submit(1).await;
            let records = before.run_to_the_end().await;
            let objects = before.bucket.objects();

            let after = before.beside().await;
            after.announce(&ids).await;
            let adopted = after.run_to_the_end().await;
            after.assert_all_archived(&adopted);
            assert_eq!(after.bucket.objects(), objects);
            assert_eq!(adopted[0].assets[0].sha256, records[0].assets[0].sha256);
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn an_upload_is_aborted_when_another_daemon_was_quicker() {
    let slow = World::new(Kind::Generic.plan(ByteSize::bytes(8 * PART))).await;
    let ids = slow.submit(1).await;
    let late = Effect::Delay(Span::from_millis(200));
    let late = Fault::new(Operation::UploadPart, late);
    slow.bucket.plant(late.from(2).times(2));
    slow.run_until(has_parts).await;
    assert_eq!(slow.bucket.open_uploads().len(), 1);

    let quick = slow.beside().await;
    quick.announce(&ids).await;
    quick.run_to_the_end().await;

    let records = slow.run_to_the_end().await;
    slow.assert_all_archived(&records);
}

#[tokio::test]
async fn bytes_arrive_through_tls() {
    let runs = [Kind::Generic, Kind::Aws].map(|kind| async move {
        for size in [SMALL, PARTS] {
            let mut plan = kind.plan(size);
            let (tls, authority) = certificate();
            plan.bucket.tls = Some(tls);
            plan.roots = authority.into_bytes();
            let world = World::new(plan).await;
            assert!(world.bucket.endpoint().starts_with("https://"));
            world.submit(1).await;
            let records = world.run_to_the_end().await;
            world.assert_all_archived(&records);
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn checksums_of_parts_are_sent_and_taken() {
    let runs = ["crc64nvme", "crc32", "none"].map(|checksum| async move {
        for (kind, size) in [
            (Kind::Generic, SMALL),
            (Kind::Generic, PARTS),
            (Kind::Aws, PARTS),
        ] {
            let mut plan = kind.plan(size);
            plan.store += &format!("\nchecksum = {checksum:?}");
            let world = World::new(plan).await;
            world.submit(1).await;
            let records = world.run_to_the_end().await;
            world.assert_all_archived(&records);
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn every_destination_gets_the_same_bytes() {
    let runs = [SMALL, PARTS].map(|size| async move {
        let mut plan = Kind::Generic.plan(size);
        let folder = "[destination.disk.fs]\npath = \"@folder/videos\"\nfree_min = \"0 B\"\n";
        plan.extra.push_str(folder);
        let world = World::new(plan).await;
        std::fs::create_dir(world.folder().join("videos")).unwrap();
        let busy = Fault::new(Operation::UploadPart, Effect::SLOW_DOWN);
        world.bucket.plant(busy.times(2));
        let ids = world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        let objects = &records[0].assets[0].objects;
        assert_eq!(objects.len(), 2);
        let disk = objects.iter().find(|it| it.destination.as_str() == "disk");
        let key = disk.unwrap().key.as_ref().unwrap();
        let path = world.folder().join("videos").join(key.as_str());
        let expected = world.simulator.expected_sha256(&ids[0], FIRST);
        assert_eq!(Some(sha256(&std::fs::read(path).unwrap())), expected);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_small_memory_is_enough_for_many_transfers() {
    let mut plan = Kind::Generic.plan(ByteSize::bytes(3 * PART));
    plan.extra.push_str("concurrent = 4\nmemory = \"14 MiB\"\n");
    let world = World::new(plan).await;
    let late = Effect::Delay(Span::from_millis(100));
    world
        .bucket
        .plant(Fault::new(Operation::UploadPart, late).times(12));
    world.submit(6).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}

/// Lanes that come up while parts wait for memory must not take what these wait for.
#[tokio::test]
async fn a_small_memory_is_enough_where_an_origin_is_slow() {
    let mut plan = Kind::Generic.plan(ByteSize::bytes(PART + 1));
    plan.extra
        .push_str("concurrent = 2\nmemory = \"7808 KiB\"\n");
    let world = World::new(plan).await;
    world.simulator.limit_rate(Some(ByteSize::mib(1)));
    let late = Effect::Delay(Span::from_millis(500));
    let late = Fault::new(Operation::CreateMultipartUpload, late);
    world.bucket.plant(late);
    world.submit(1).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}

#[tokio::test]
async fn no_request_is_longer_than_the_memory_that_sends_it_again() {
    let mut plan = Kind::Aws.plan(ByteSize::bytes(2 * PART - 1));
    plan.extra.push_str("concurrent = 1\nmemory = \"7 MiB\"\n");
    let world = World::new(plan).await;
    for operation in [Operation::PutObject, Operation::UploadPart] {
        let broken = Fault::new(operation, Effect::Break(1 << 20));
        world.bucket.plant(broken);
    }
    world.submit(1).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
    assert_eq!(records[0].assets[0].attempts, 0);
}

/// A certificate for 127.0.0.1, and the authority that vouches for it.
pub(crate) fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    (Arc::new(config.unwrap()), pem)
}
