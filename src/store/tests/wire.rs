//! What goes over the wire, for each kind of store.

use std::collections::HashMap;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::model::digest::Sha256Digester;
use crate::store::Place;
use crate::store::upload::CRC32S_MAX;

use super::*;

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

fn sha256(bytes: &[u8]) -> String {
    let mut digester = Sha256Digester::new();
    digester.update(bytes);
    digester.value().to_string()
}

/// Nothing that R2 and others refuse, and the bare bytes.
#[track_caller]
fn check_bare(seen: &Seen) {
    for name in [
        "content-md5",
        "content-encoding",
        "transfer-encoding",
        "x-amz-trailer",
        "x-amz-decoded-content-length",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-checksum-crc32c",
        "x-amz-checksum-sha256",
        "expect",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.body.as_deref(), Some(VIDEO));
    assert_eq!(seen.header("content-length"), Some("18"));
}

#[track_caller]
fn check_identity(seen: &Seen) {
    assert_eq!(seen.header("content-type"), Some("video/mp4"));
    for (name, value) in [
        ("x-amz-meta-reelvault-provider", "evolink"),
        ("x-amz-meta-reelvault-task", "task-1"),
        ("x-amz-meta-reelvault-asset", "2"),
        ("x-amz-meta-reelvault-nonce", "0f1e"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
}

/// What a body carries, by the configuration that it is sent under.
async fn check_body(
    more: &str,
    body: fn() -> PartBody,
    sha256: &str,
    crc64: Option<&str>,
    crc32: Option<&str>,
) {
    let answers = vec![Answer::part(), Answer::part()];
    let endpoint = Endpoint::start(answers).await;
    let store = endpoint.store(more).await;
    put(&store, body()).await.unwrap();
    put_part(&store, body()).await.unwrap();
    let seen = endpoint.seen();
    for seen in &seen {
        check_bare(seen);
        assert_eq!(seen.header("x-amz-content-sha256"), Some(sha256), "{more}");
        assert_eq!(seen.header("x-amz-checksum-crc64nvme"), crc64, "{more}");
        assert_eq!(seen.header("x-amz-checksum-crc32"), crc32, "{more}");
    }
    assert_eq!(seen[0].method, Method::PUT);
    assert_eq!(seen[0].path, "/films/a/b%20c.mp4");
    check_identity(&seen[0]);
    let condition = (!more.contains("plain")).then_some("*");
    assert_eq!(seen[0].header("if-none-match"), condition);
    assert!(seen[1].query.contains("partNumber=1") && seen[1].query.contains("uploadId=up%2F1"));
    assert_eq!(seen[1].header("if-none-match"), None);
}

#[tokio::test]
async fn bodies_are_bare_and_carry_the_proof_that_the_store_checks() {
    let signed = sha256(VIDEO);
    let crc64 = crate::store::body::in_base64(Crc64::of(VIDEO));
    let crc64 = Some(crc64.as_str());
    let crc32 = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, VIDEO);
    let crc32 = aws_smithy_types::base64::encode(u32::try_from(crc32).unwrap().to_be_bytes());
    let crc32 = Some(crc32.as_str());
    check_body("quirks = 'aws'", streamed, UNSIGNED, None, None).await;
    check_body("quirks = 'aws'", filled, UNSIGNED, None, None).await;
    check_body("quirks = 'r2'", streamed, UNSIGNED, None, None).await;
    check_body("quirks = 'r2'", filled, &signed, None, None).await;
    check_body("quirks = 'generic'", filled, &signed, None, None).await;
    check_body("quirks = 'plain'", filled, &signed, None, None).await;
    let declared = "quirks = 'aws'\nchecksum = 'crc64nvme'";
    check_body(declared, filled, UNSIGNED, crc64, None).await;
    check_body("checksum = 'crc32'", filled, UNSIGNED, None, crc32).await;
    check_body("checksum = 'none'", streamed, UNSIGNED, None, None).await;
}

#[tokio::test]
async fn uploads_declare_only_what_every_part_carries() {
    for (more, declared) in [
        ("quirks = 'aws'", None),
        ("quirks = 'r2'", None),
        ("checksum = 'crc64nvme'", Some("CRC64NVME")),
        ("checksum = 'crc32'", Some("CRC32")),
    ] {
        let endpoint = Endpoint::start(vec![Answer::begun()]).await;
        let begun = begin(&endpoint.store(more).await).await;
        assert_eq!(begun.unwrap(), upload());
        let seen = endpoint.only();
        assert_eq!(
            (seen.method.as_str(), seen.query.as_str()),
            ("POST", "uploads")
        );
        assert_eq!(seen.header("x-amz-checksum-algorithm"), declared, "{more}");
        assert_eq!(seen.header("x-amz-storage-class"), None);
        assert_eq!(seen.header("x-amz-server-side-encryption"), None);
        assert_eq!(seen.header("x-amz-tagging"), None);
        check_identity(&seen);
    }
}

#[tokio::test]
async fn new_objects_take_class_encryption_and_tags() {
    let endpoint = Endpoint::start(vec![Answer::begun(), Answer::part()]).await;
    let more = "quirks = 'aws'\nstorage_class = 'INTELLIGENT_TIERING'\n\
                encryption = { kms = 'alias/archive' }\ntags = { app = 'reel&vault', b = 'ä' }";
    let store = endpoint.store(more).await;
    begin(&store).await.unwrap();
    put(&store, streamed()).await.unwrap();
    for seen in endpoint.seen() {
        assert_eq!(
            seen.header("x-amz-storage-class"),
            Some("INTELLIGENT_TIERING")
        );
        assert_eq!(seen.header("x-amz-server-side-encryption"), Some("aws:kms"));
        let kms_key = seen.header("x-amz-server-side-encryption-aws-kms-key-id");
        assert_eq!(kms_key, Some("alias/archive"));
        assert_eq!(
            seen.header("x-amz-tagging"),
            Some("app=reel%26vault&b=%C3%A4")
        );
    }
}

/// The completion's headers and body under `more`.
async fn completion(more: &str, before: Vec<Answer>) -> (Seen, String) {
    let answers = before.into_iter().chain([Answer::completed()]);
    let endpoint = Endpoint::start(answers.collect()).await;
    let store = endpoint.store(more).await;
    let written = finish(&store).await.unwrap();
    assert_eq!(written.etag, Some(ETag("\"done-1\"".to_owned())));
    let seen = endpoint.seen().pop().unwrap();
    let body = String::from_utf8(seen.body.clone().unwrap().to_vec()).unwrap();
    let first = body.find("<PartNumber>1<").unwrap();
    assert!(first < body.find("<PartNumber>2<").unwrap(), "{body}");
    assert!(body.contains("p1") && body.contains("p2"));
    (seen, body)
}

/// What a HEAD is answered where nothing stands.
fn free() -> Answer {
    Answer::new(404, "")
}

#[tokio::test]
async fn completions_name_parts_in_order_and_never_overwrite() {
    let (seen, body) = completion("quirks = 'aws'", Vec::new()).await;
    assert_eq!(seen.header("if-none-match"), Some("*"));
    assert_eq!(seen.header("x-amz-mp-object-size"), Some("18"));
    assert_eq!(seen.header("x-amz-checksum-crc64nvme"), None);
    assert!(!body.contains("Checksum"));

    let (seen, body) = completion("quirks = 'r2'", Vec::new()).await;
    assert_eq!(seen.header("if-none-match"), Some("*"));
    assert_eq!(seen.header("x-amz-mp-object-size"), None);
    assert!(!body.contains("Checksum"));

    let (seen, _) = completion("quirks = 'b2'", vec![free()]).await;
    assert_eq!(seen.header("if-none-match"), None);

    let (seen, body) = completion("checksum = 'crc64nvme'", vec![free()]).await;
    let whole = crate::store::body::in_base64(Crc64::of(VIDEO));
    assert_eq!(
        seen.header("x-amz-checksum-crc64nvme"),
        Some(whole.as_str())
    );
    let first = crate::store::body::in_base64(Crc64::of(&VIDEO[..7]));
    assert!(
        body.contains(&format!("<ChecksumCRC64NVME>{first}<")),
        "{body}"
    );

    let list = "<ListPartsResult><IsTruncated>false</IsTruncated>\
        <Part><PartNumber>1</PartNumber><ETag>p1</ETag><Size>7</Size><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>\
        <Part><PartNumber>2</PartNumber><ETag>p2</ETag><Size>2</Size><ChecksumCRC32>AAAAAQ==</ChecksumCRC32></Part>\
        </ListPartsResult>";
    let (_, body) = completion("checksum = 'crc32'", vec![free(), Answer::new(200, list)]).await;
    assert!(body.contains("<ChecksumCRC32>AAAAAA==<"), "{body}");
}

#[tokio::test]
async fn the_crc32s_of_uploads_that_others_ended_are_forgotten() {
    let endpoint = Endpoint::start(vec![Answer::part(), Answer::part()]).await;
    let store = endpoint.store("checksum = 'crc32'").await;
    let Place::Bucket(bucket) = &store.0.place else {
        panic!("no bucket")
    };
    let stray = |n: usize| (UploadId(n.to_string()), HashMap::new());
    *bucket.crc32s.lock().unwrap() = (1..CRC32S_MAX).map(stray).collect();
    put_part(&store, filled()).await.unwrap();
    assert_eq!(bucket.crc32s.lock().unwrap().len(), CRC32S_MAX);
    let (key, other) = (key(), UploadId("other".to_owned()));
    let sent = store.put_part(&key, &other, SLOT, filled()).await;
    sent.unwrap();
    let known = bucket.crc32s.lock().unwrap();
    assert_eq!(known.keys().collect::<Vec<_>>(), [&other]);
}

#[tokio::test]
async fn over_tls_the_same_bytes_go_out_and_strangers_are_not_trusted() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let endpoint = Endpoint::serve(vec![Answer::part(), Answer::part()], Some(tls)).await;

    let pem = made.cert.pem();
    let store = endpoint
        .store_trusting("quirks = 'aws'", pem.as_bytes())
        .await;
    put(&store, streamed()).await.unwrap();
    put_part(&store, filled()).await.unwrap();
    for seen in endpoint.seen() {
        check_bare(&seen);
        assert_eq!(seen.header("x-amz-content-sha256"), Some(UNSIGNED));
    }

    let stranger = endpoint.store("quirks = 'aws'").await;
    let error = put_part(&stranger, filled()).await.unwrap_err();
    assert_eq!(error.kind, crate::store::StoreErrorKind::Transient);
    assert!(error.message.contains("certificate"), "{error}");
    assert!(endpoint.seen().is_empty());
}
