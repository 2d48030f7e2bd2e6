//! Objects that are written at once, and how they are read, listed and deleted.

use aws_sdk_s3::types::ChecksumMode;
use aws_sdk_s3::types::ChecksumType;

use super::*;
use crate::simulator::bucket::Bodies;
use crate::simulator::bucket::Conditions;
use crate::simulator::bucket::Operation;

#[tokio::test]
async fn what_was_put_is_what_is_read() {
    let (bucket, client) = small(Quirks::aws()).await;
    let body = bytes(100_000, 1);
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("a/b c.mp4")
        .content_type("video/mp4");
    let put = put
        .metadata("upload-nonce", "n1")
        .if_none_match("*")
        .body(passing(&body));
    let put = put
        .customize()
        .disable_payload_signing()
        .send()
        .await
        .unwrap();

    let head = client.head_object().bucket(BUCKET).key("a/b c.mp4");
    let head = head
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(100_000));
    assert_eq!(head.content_type(), Some("video/mp4"));
    assert_eq!(head.metadata().unwrap()["upload-nonce"], "n1");
    assert_eq!(head.checksum_crc64_nvme(), Some(crc64(&body).as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(head.e_tag(), put.e_tag());
    assert_eq!(head.parts_count(), None);

    let got = client
        .get_object()
        .bucket(BUCKET)
        .key("a/b c.mp4")
        .send()
        .await
        .unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), body);
    let got = client
        .get_object()
        .bucket(BUCKET)
        .key("a/b c.mp4")
        .range("bytes=16000-65535");
    let got = got.send().await.unwrap();
    assert_eq!(got.content_range(), Some("bytes 16000-65535/100000"));
    assert_eq!(
        got.body.collect().await.unwrap().to_vec(),
        body[16_000..65_536]
    );
    let beyond = client
        .get_object()
        .bucket(BUCKET)
        .key("a/b c.mp4")
        .range("bytes=100000-");
    assert_eq!(refusal(beyond.send().await), refused(416, "InvalidRange"));

    let stored = bucket.object("a/b c.mp4").unwrap();
    assert_eq!((stored.length, stored.crc64), (100_000, Crc64::of(&body)));
    assert_eq!(stored.metadata["upload-nonce"], "n1");
    assert_eq!(bucket.bytes("a/b c.mp4").unwrap(), body);
    assert_eq!(bucket.objects(), [stored]);
    assert_eq!(bucket.count(Operation::PutObject), 1);
    assert_eq!(bucket.count(Operation::GetObject), 3);
    bucket.shutdown().await;
}

#[tokio::test]
async fn the_etag_of_a_whole_object_is_its_md5() {
    let (_bucket, client) = small(Quirks::aws()).await;
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"abc"));
    let etag = put.send().await.unwrap().e_tag;
    assert_eq!(
        etag.as_deref(),
        Some("\"900150983cd24fb0d6963f7d28e17f72\"")
    );
}

#[tokio::test]
async fn a_condition_is_honoured_ignored_or_unsupported() {
    for (conditions, expected) in [
        (
            Conditions::Honoured,
            Some(refused(412, "PreconditionFailed")),
        ),
        (Conditions::Ignored, None),
        (
            Conditions::Unsupported,
            Some(refused(501, "NotImplemented")),
        ),
    ] {
        let quirks = Quirks {
            conditions,
            ..Quirks::aws()
        };
        let (bucket, client) = small(quirks).await;
        let put = |body| {
            client
                .put_object()
                .bucket(BUCKET)
                .key("k")
                .body(passing(body))
        };
        put(b"old").send().await.unwrap();
        let second = put(b"new").if_none_match("*").send().await;
        let left = if expected.is_some() { "old" } else { "new" };
        assert_eq!(second.is_ok(), expected.is_none());
        if let Some(expected) = expected {
            assert_eq!(refusal(second), expected);
        }
        assert_eq!(bucket.bytes("k").unwrap(), left.as_bytes());
    }
}

#[tokio::test]
async fn a_checksum_is_verified_kept_and_told() {
    let (bucket, client) = small(Quirks::aws()).await;
    let put = |key: &str| {
        client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(passing(b"123456789"))
    };
    let right = put("k")
        .checksum_crc64_nvme(crc64(b"123456789"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        right.checksum_crc64_nvme(),
        Some(crc64(b"123456789").as_str())
    );
    let crc32 = put("crc32")
        .checksum_crc32("y/Q5Jg==")
        .send()
        .await
        .unwrap();
    assert_eq!(crc32.checksum_crc32(), Some("y/Q5Jg=="));
    let crc32c = put("crc32c")
        .checksum_crc32_c("4waSgw==")
        .send()
        .await
        .unwrap();
    assert_eq!(crc32c.checksum_crc32_c(), Some("4waSgw=="));

    let wrong = put("wrong")
        .checksum_crc64_nvme(crc64(b"other"))
        .send()
        .await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    let wrong = put("wrong")
        .checksum_sha256(base64::encode([0; 32]))
        .send()
        .await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    let wrong = put("wrong")
        .content_md5(base64::encode([0; 16]))
        .send()
        .await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    assert_eq!(bucket.object("wrong"), None);
}

#[tokio::test]
async fn a_store_that_computes_no_checksum_tells_none() {
    let (_bucket, client) = small(Quirks::r2()).await;
    client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(passing(b"x"))
        .send()
        .await
        .unwrap();
    let head = client.head_object().bucket(BUCKET).key("k");
    let head = head
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_crc64_nvme(), None);
    assert_eq!(head.checksum_type(), None);
}

#[tokio::test]
async fn the_sdks_own_trailers_are_verified_or_refused_as_chosen() {
    let (bucket, client) = small(Quirks::aws()).await;
    let chunked = |client: &Client| {
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .body(passing(&bytes(70_000, 2)));
        let supported = RequestChecksumCalculation::WhenSupported;
        let supported = aws_sdk_s3::Config::builder().request_checksum_calculation(supported);
        put.customize().config_override(supported)
    };
    let put = chunked(&client).send().await.unwrap();
    assert!(put.checksum_crc32().is_some());
    assert_eq!(bucket.bytes("k").unwrap(), bytes(70_000, 2));

    let (bucket, client) = small(Quirks::r2()).await;
    let put = chunked(&client).send().await;
    assert_eq!(refusal(put), refused(501, "NotImplemented"));
    assert_eq!(bucket.objects(), []);
}

#[tokio::test]
async fn a_checksum_that_is_named_must_be_there() {
    let (bucket, client) = small(Quirks::aws()).await;
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(passing(b"x"));
    let put = put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Crc32);
    assert_eq!(refusal(put.send().await), refused(400, "InvalidRequest"));
    assert_eq!(bucket.objects(), []);
}

#[tokio::test]
async fn signatures_are_checked() {
    let (bucket, _) = small(Quirks::aws()).await;
    let stranger = client_of(bucket.endpoint(), "not the secret", None);
    let put = stranger
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(passing(b"x"))
        .send()
        .await;
    assert_eq!(refusal(put), refused(403, "SignatureDoesNotMatch"));
    assert_eq!(bucket.objects(), []);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (bucket, client) = small(Quirks::aws()).await;
    let head = client.head_object().bucket(BUCKET).key("k").send().await;
    assert!(head.unwrap_err().into_service_error().is_not_found());
    let get = client.get_object().bucket(BUCKET).key("k").send().await;
    assert_eq!(refusal(get), refused(404, "NoSuchKey"));
    let put = client
        .put_object()
        .bucket("elsewhere")
        .key("k")
        .body(passing(b"x"));
    assert_eq!(refusal(put.send().await), refused(404, "NoSuchBucket"));
    assert!(
        client
            .head_bucket()
            .bucket("elsewhere")
            .send()
            .await
            .is_err()
    );

    client
        .create_bucket()
        .bucket("elsewhere")
        .send()
        .await
        .unwrap();
    client
        .head_bucket()
        .bucket("elsewhere")
        .send()
        .await
        .unwrap();
    client
        .put_object()
        .bucket("elsewhere")
        .key("k")
        .body(passing(b"x"))
        .send()
        .await
        .unwrap();
    assert_eq!(bucket.objects(), []);
}

#[tokio::test]
async fn objects_are_listed_by_page_and_deleted() {
    let (bucket, client) = small(Quirks::aws()).await;
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(passing(b"x"))
            .send()
            .await
            .unwrap();
    }
    let list = || {
        client
            .list_objects_v2()
            .bucket(BUCKET)
            .prefix("a/")
            .max_keys(2)
    };
    let first = list().send().await.unwrap();
    assert_eq!(first.is_truncated(), Some(true));
    let second = list().set_continuation_token(first.next_continuation_token.clone());
    let second = second.send().await.unwrap();
    assert_eq!(second.is_truncated(), Some(false));
    let contents = [first.contents(), second.contents()].concat();
    let keys: Vec<_> = contents.iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["a/1", "a/2", "a/3"]);

    client
        .delete_object()
        .bucket(BUCKET)
        .key("a/2")
        .send()
        .await
        .unwrap();
    client
        .delete_object()
        .bucket(BUCKET)
        .key("a/2")
        .send()
        .await
        .unwrap();
    assert_eq!(bucket.objects().len(), 3);
    assert!(bucket.remove("a/1") && !bucket.remove("a/1"));
}

#[tokio::test]
async fn kept_bodies_have_a_bound_and_give_their_room_back() {
    let mut config = Config::new(BUCKET);
    config.bodies = Bodies::Kept(ByteSize::bytes(100_000));
    let bucket = start(config).await.unwrap();
    let client = client(&bucket, None);
    let put = |key: &str| {
        client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(passing(&bytes(60_000, 3)))
    };
    put("one").send().await.unwrap();
    let second = put("two").send().await;
    assert_eq!(refusal(second), refused(403, "QuotaExceeded"));
    client
        .delete_object()
        .bucket(BUCKET)
        .key("one")
        .send()
        .await
        .unwrap();
    put("two").send().await.unwrap();
}

#[tokio::test]
async fn discarded_bodies_leave_length_and_checksum() {
    let mut config = Config::new(BUCKET);
    config.bodies = Bodies::Discarded;
    let bucket = start(config).await.unwrap();
    let client = client(&bucket, None);
    let body = bytes(60_000, 4);
    client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(passing(&body))
        .send()
        .await
        .unwrap();
    let stored = bucket.object("k").unwrap();
    assert_eq!((stored.length, stored.crc64), (60_000, Crc64::of(&body)));
    assert_eq!(bucket.bytes("k"), None);
    assert_eq!(bucket.sha256("k"), None);
    let get = client.get_object().bucket(BUCKET).key("k").send().await;
    assert_eq!(refusal(get), refused(501, "NotImplemented"));
}

#[tokio::test]
async fn metadata_has_a_bound() {
    let (_bucket, client) = small(Quirks::aws()).await;
    let put = |value: String| {
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .body(passing(b"x"));
        put.metadata("note", value)
    };
    put("n".repeat(2_044)).send().await.unwrap();
    let more = put("n".repeat(2_045)).send().await;
    assert_eq!(refusal(more), refused(400, "MetadataTooLarge"));
}
