//! Destinations that refuse, break, forget, lose answers and hold other people's objects.

use std::sync::Arc;

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::bucket::Quirks;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Rule;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio_rustls::rustls;

use crate::world::FIRST;
use crate::world::PART;
use crate::world::Plan;
use crate::world::World;
use crate::world::sha256;

/// A body of two parts and a byte.
const PARTS: ByteSize = ByteSize::bytes(2 * PART + 1);

/// A body that fits into one request.
const SMALL: ByteSize = ByteSize::mib(1);

/// Some bytes into a request's body.
const SOME: u64 = 100_000;

/// The kinds of store that the faults are met with.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Filled parts.
    Generic,
    /// Frames passed through.
    Aws,
    /// Equal parts, and a completion that fails ends the upload.
    R2,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Generic, Kind::Aws, Kind::R2];

    fn plan(self, size: ByteSize) -> Plan {
        let mut plan = Plan::files_of(size);
        let name = match self {
            Kind::Generic => "generic",
            Kind::Aws => "aws",
            Kind::R2 => {
                plan.bucket.quirks = Quirks::r2();
                "r2"
            }
        };
        plan.store = format!("quirks = {name:?}");
        plan
    }
}

/// One store that misbehaves.
struct Row {
    name: &'static str,
    size: ByteSize,
    faults: Vec<Fault>,
}

fn row(name: &'static str, size: ByteSize, faults: impl Into<Vec<Fault>>) -> Row {
    Row {
        name,
        size,
        faults: faults.into(),
    }
}

/// Archives one video with each row's faults at each of these kinds of store, each in a world of its own.
async fn check_archived(kinds: &[Kind], rows: Vec<Row>) {
    let at_each = |row| kinds.iter().map(move |kind| (row, *kind));
    let cases = rows.iter().flat_map(at_each);
    let runs = cases.map(|(row, kind)| async move {
        let world = World::new(kind.plan(row.size)).await;
        for fault in &row.faults {
            world.bucket.plant(fault.clone());
        }
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        let (name, left) = (row.name, world.bucket.faults_waiting());
        println!("{name} at {kind:?}: {:?}", records[0].assets[0].error);
        world.assert_all_archived(&records);
        assert_eq!(left, 0, "{name} at {kind:?}: a fault did not strike");
        assert_eq!(world.bucket.count(Operation::DeleteObject), 0);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_store_that_is_busy_or_breaks_gets_every_byte_in_the_end() {
    use Operation::*;
    let slow = |operation| Fault::new(operation, Effect::SLOW_DOWN);
    let broken = |operation, after| Fault::new(operation, Effect::Break(after));
    check_archived(
        &[Kind::Generic, Kind::Aws],
        vec![
            row("busy at put", SMALL, [slow(PutObject)]),
            row("busy at create", PARTS, [slow(CreateMultipartUpload)]),
            row("busy at a part", PARTS, [slow(UploadPart).from(2).times(2)]),
            row("busy at all parts", PARTS, [slow(UploadPart).times(3)]),
            row("busy at complete", PARTS, [slow(CompleteMultipartUpload)]),
            row("busy at head", PARTS, [slow(HeadObject)]),
            row("busy at the second head", PARTS, [slow(HeadObject).from(2)]),
            row("broken in a put", SMALL, [broken(PutObject, SOME)]),
            row(
                "broken in parts",
                PARTS,
                [broken(UploadPart, SOME).times(2)],
            ),
            row(
                "broken at complete",
                PARTS,
                [broken(CompleteMultipartUpload, 0)],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_object() {
    use Operation::*;
    let lost = |operation| Fault::new(operation, Effect::LoseAnswer);
    let error = |operation| Fault::new(operation, Effect::DoneButAnswer(500, "InternalError"));
    check_archived(
        &[Kind::Aws, Kind::R2],
        vec![
            row("of put", SMALL, [lost(PutObject)]),
            row("of create", PARTS, [lost(CreateMultipartUpload)]),
            row("of a part", PARTS, [lost(UploadPart).from(2)]),
            row("of complete", PARTS, [lost(CompleteMultipartUpload)]),
            row("500 for put", SMALL, [error(PutObject)]),
            row("500 for create", PARTS, [error(CreateMultipartUpload)]),
            row("500 for complete", PARTS, [error(CompleteMultipartUpload)]),
            row(
                "lost, and no head",
                PARTS,
                [
                    lost(CompleteMultipartUpload),
                    Fault::new(HeadObject, Effect::SLOW_DOWN).from(2),
                ],
            ),
            row(
                "lost put, and no head",
                SMALL,
                [
                    lost(PutObject),
                    Fault::new(HeadObject, Effect::SLOW_DOWN).from(2),
                ],
            ),
            row(
                "200 with an error",
                PARTS,
                [Fault::new(CompleteMultipartUpload, Effect::ErrorIn200)],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_upload_that_is_gone_is_begun_anew() {
    use Operation::*;
    let gone = |operation| Fault::new(operation, Effect::NO_SUCH_UPLOAD);
    let conflict = |operation| Fault::new(operation, Effect::CONFLICT);
    let taken = |operation| Fault::new(operation, Effect::PRECONDITION_FAILED);
    check_archived(
        &[Kind::Aws, Kind::R2],
        vec![
            row("412 without an object at put", SMALL, [taken(PutObject)]),
            row(
                "412 without an object at complete",
                PARTS,
                [taken(CompleteMultipartUpload)],
            ),
            row("at a part", PARTS, [gone(UploadPart).from(2)]),
            row("at complete", PARTS, [gone(CompleteMultipartUpload)]),
            row(
                "conflict at complete",
                PARTS,
                [conflict(CompleteMultipartUpload)],
            ),
            row("conflict at put", SMALL, [conflict(PutObject)]),
        ],
    )
    .await;
}

#[tokio::test]
async fn no_object_is_ever_overwritten_or_deleted() {
    let runs = Kind::ALL.map(|kind| async move {
        for size in [SMALL, PARTS] {
            let theirs = World::new(kind.plan(size)).await;
            let ids = theirs.submit(1).await;
            theirs.run_to_the_end().await;
            let before = theirs.bucket.objects();

            let change = Rule::file(FileFault::Change(None)).task(&ids[0]);
            theirs.simulator.plant(change);
            let ours = theirs.beside().await;
            ours.announce(&ids).await;
            let records = ours.run_to_the_end().await;
            let asset = &records[0].assets[0];
            assert_eq!(asset.state, AssetState::Refused);
            let error = asset.error.as_deref().unwrap_or_default();
            assert!(
                error.contains("the key is taken by another object"),
                "{error}"
            );
            assert_eq!(theirs.bucket.objects(), before);
            assert!(theirs.bucket.open_uploads().is_empty());
            assert_eq!(theirs.bucket.count(Operation::DeleteObject), 0);
        }
    });
    futures::future::join_all(runs).await;
}

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
async fn a_destination_that_denies_access_costs_no_attempt() {
    let world = World::new(Kind::Generic.plan(SMALL)).await;
    let denied = Fault::new(Operation::PutObject, Effect::ACCESS_DENIED);
    world.bucket.plant(denied.times(1000));
    world.submit(1).await;
    let has_error = |records: &[TaskRecord]| {
        let assets = records.iter().flat_map(|record| &record.assets);
        assets.clone().count() == 1 && assets.clone().all(|asset| asset.error.is_some())
    };
    let records = world.run_until(has_error).await;
    let asset = &records[0].assets[0];
    let error = asset.error.as_deref().unwrap_or_default();
    assert!(
        error.contains("403 AccessDenied to s3:PutObject on videos"),
        "{error}"
    );
    assert_eq!((asset.state, asset.attempts), (AssetState::Due, 0));
    assert!(asset.due_at.is_some());
    assert_eq!(world.bucket.count(Operation::PutObject), 1);
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

/// Whether a part of an asset is recorded.
fn has_parts(records: &[TaskRecord]) -> bool {
    let assets = records.iter().flat_map(|record| &record.assets);
    assets
        .flat_map(|asset| &asset.objects)
        .any(|object| object.parts > 0)
}

/// A certificate for 127.0.0.1, and the authority that vouches for it.
fn certificate() -> (Arc<rustls::ServerConfig>, String) {
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
