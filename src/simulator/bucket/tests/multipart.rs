//! Objects that come in parts: what is assembled, what is refused, and how open uploads are listed.

use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_sdk_s3::types::ChecksumMode;
use aws_sdk_s3::types::ChecksumType;

use super::*;
use crate::simulator::bucket::OpenUpload;

async fn passes_through(bucket: Bucket, client: Client) {
    let whole = bytes(12 << 20, 5);
    let (first, second) = whole.split_at(6 << 20);
    let mut sending = Sending::open(&client, "clip.mp4").await;
    sending.send(1, first).await;
    sending.send(2, second).await;
    let size = i64::try_from(whole.len()).unwrap();
    let complete = sending.complete().if_none_match("*").mpu_object_size(size);
    let complete = complete.send().await.unwrap();
    assert!(complete.e_tag().unwrap().ends_with("-2\""));

    let head = client.head_object().bucket(BUCKET).key("clip.mp4");
    let head = head
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(size));
    assert_eq!(head.checksum_crc64_nvme(), Some(crc64(&whole).as_str()));
    assert_eq!(head.e_tag(), complete.e_tag());
    assert_eq!(head.parts_count(), Some(2));
    assert_eq!(bucket.bytes("clip.mp4").unwrap(), whole);
    assert_eq!(bucket.open_uploads(), []);
    bucket.shutdown().await;
}

#[tokio::test]
async fn parts_pass_through_over_plain_http() {
    let bucket = start(Config::new(BUCKET)).await.unwrap();
    let client = client(&bucket, None);
    assert!(bucket.endpoint().starts_with("http://127.0.0.1:"));
    passes_through(bucket, client).await;
}

#[tokio::test]
async fn parts_pass_through_over_tls() {
    let (tls, authority) = certificate();
    let mut config = Config::new(BUCKET);
    config.tls = Some(tls);
    let bucket = start(config).await.unwrap();
    assert!(bucket.endpoint().starts_with("https://127.0.0.1:"));
    let stranger = client(&bucket, None);
    let refused = stranger.head_bucket().bucket(BUCKET).send().await;
    assert!(refused.is_err_and(|error| error.as_service_error().is_none()));
    let client = client(&bucket, Some(&authority));
    passes_through(bucket, client).await;
}

#[tokio::test]
async fn complete_refuses_what_did_not_arrive_that_way() {
    let (bucket, client) = small(Quirks::aws()).await;
    let mut sending = Sending::open(&client, "k").await;
    let none = sending.complete().send().await;
    assert_eq!(refusal(none), refused(400, "MalformedXML"));
    sending.send(1, &bytes(999, 1)).await;
    sending.send(2, &bytes(10, 2)).await;
    let small = sending.complete().send().await;
    assert_eq!(refusal(small), refused(400, "EntityTooSmall"));

    let again = sending
        .part(1, passing(&bytes(1_000, 1)))
        .send()
        .await
        .unwrap();
    let stale = sending.complete().send().await;
    assert_eq!(refusal(stale), refused(400, "InvalidPart"));
    sending.done.remove(0);
    sending.list(1, again.e_tag().unwrap());
    let unordered = sending.complete().send().await;
    assert_eq!(refusal(unordered), refused(400, "InvalidPartOrder"));
    sending.done.reverse();
    let size = sending.complete().mpu_object_size(1_011).send().await;
    assert_eq!(refusal(size), refused(400, "InvalidRequest"));

    sending
        .complete()
        .mpu_object_size(1_010)
        .send()
        .await
        .unwrap();
    let repeated = sending.complete().send().await;
    assert_eq!(refusal(repeated), refused(404, "NoSuchUpload"));
    assert_eq!(bucket.object("k").unwrap().length, 1_010);
}

#[tokio::test]
async fn a_part_belongs_to_an_open_upload_of_its_key() {
    let (_bucket, client) = small(Quirks::aws()).await;
    let sending = Sending::open(&client, "k").await;
    let other = Sending::of(&client, "other", sending.id.clone());
    let part = other.part(1, passing(b"x")).send().await;
    assert_eq!(refusal(part), refused(404, "NoSuchUpload"));
    let part = sending.part(10_001, passing(b"x")).send().await;
    assert_eq!(refusal(part), refused(400, "InvalidArgument"));
    let abort = || {
        let abort = client.abort_multipart_upload().bucket(BUCKET);
        abort.key("k").upload_id(&sending.id).send()
    };
    abort().await.unwrap();
    assert_eq!(refusal(abort().await), refused(404, "NoSuchUpload"));
    let part = sending.part(1, passing(b"x")).send().await;
    assert_eq!(refusal(part), refused(404, "NoSuchUpload"));
}

#[tokio::test]
async fn complete_does_not_replace_what_exists() {
    for (quirks, uploads_left) in [(Quirks::aws(), 1), (Quirks::r2(), 0)] {
        let (bucket, client) = small(quirks).await;
        client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .body(passing(b"old"))
            .send()
            .await
            .unwrap();
        let mut sending = Sending::open(&client, "k").await;
        sending.send(1, b"new").await;
        let complete = sending.complete().if_none_match("*").send().await;
        assert_eq!(refusal(complete), refused(412, "PreconditionFailed"));
        assert_eq!(bucket.bytes("k").unwrap(), b"old");
        assert_eq!(bucket.open_uploads().len(), uploads_left);
    }
}

#[tokio::test]
async fn r2_wants_equal_parts_and_drops_the_upload_otherwise() {
    for (lengths, accepted) in [
        (vec![1_000, 1_000, 10], true),
        (vec![1_000, 1_000, 1_000], true),
        (vec![1_000, 1_001, 10], false),
        (vec![1_000, 1_001], false),
        (vec![10], true),
    ] {
        let (bucket, client) = small(Quirks::r2()).await;
        let mut sending = Sending::open(&client, "k").await;
        for (number, length) in (1..).zip(&lengths) {
            sending.send(number, &bytes(*length, 6)).await;
        }
        let complete = sending.complete().send().await;
        assert_eq!(complete.is_ok(), accepted, "{lengths:?}");
        if !accepted {
            assert_eq!(refusal(complete), refused(400, "InvalidPart"));
        }
        assert_eq!(bucket.open_uploads(), []);
    }
}

#[tokio::test]
async fn a_declared_checksum_is_on_every_part_and_its_total_agrees() {
    let (bucket, client) = small(Quirks::r2()).await;
    let create = client.create_multipart_upload().bucket(BUCKET).key("k");
    let create = create.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let id = create.send().await.unwrap().upload_id.unwrap();
    let mut sending = Sending::of(&client, "k", id);
    let (one, two) = (bytes(1_000, 7), bytes(500, 8));

    let bare = sending.part(1, passing(&one)).send().await;
    assert_eq!(refusal(bare), refused(400, "InvalidRequest"));
    let other = sending
        .part(1, passing(&one))
        .checksum_crc32("AAAAAA==")
        .send()
        .await;
    assert_eq!(refusal(other), refused(400, "BadDigest"));
    for (number, part) in [(1, &one), (2, &two)] {
        let sent = sending
            .part(number, passing(part))
            .checksum_crc64_nvme(crc64(part));
        let sent = sent.send().await.unwrap();
        assert_eq!(sent.checksum_crc64_nvme(), Some(crc64(part).as_str()));
        sending.list(number, sent.e_tag().unwrap());
    }
    let whole = [one, two].concat();
    let complete = sending.complete().checksum_crc64_nvme(crc64(&whole));
    let complete = complete
        .checksum_type(ChecksumType::FullObject)
        .send()
        .await
        .unwrap();
    assert_eq!(complete.checksum_crc64_nvme(), Some(crc64(&whole).as_str()));
    assert_eq!(bucket.bytes("k").unwrap(), whole);
}

#[tokio::test]
async fn a_wrong_total_makes_no_object() {
    let (bucket, client) = small(Quirks::aws()).await;
    let create = client.create_multipart_upload().bucket(BUCKET).key("k");
    let create = create.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let id = create.send().await.unwrap().upload_id.unwrap();
    let mut sending = Sending::of(&client, "k", id);
    let sent = sending
        .part(1, passing(b"x"))
        .checksum_crc64_nvme(crc64(b"x"));
    sending.list(1, sent.send().await.unwrap().e_tag().unwrap());
    let complete = sending
        .complete()
        .checksum_crc64_nvme(crc64(b"y"))
        .send()
        .await;
    assert_eq!(refusal(complete), refused(400, "BadDigest"));
    assert_eq!(bucket.objects(), []);
    assert_eq!(bucket.open_uploads().len(), 1);
}

#[tokio::test]
async fn an_undeclared_checksum_is_refused_on_parts_and_in_complete() {
    let (_bucket, client) = small(Quirks::aws()).await;
    let mut sending = Sending::open(&client, "k").await;
    let part = sending
        .part(1, passing(b"x"))
        .checksum_crc64_nvme(crc64(b"x"));
    assert_eq!(refusal(part.send().await), refused(400, "InvalidRequest"));
    sending.send(1, b"x").await;
    let complete = sending
        .complete()
        .checksum_crc64_nvme(crc64(b"x"))
        .send()
        .await;
    assert_eq!(refusal(complete), refused(400, "InvalidRequest"));
    sending.complete().send().await.unwrap();
}

#[tokio::test]
async fn a_composite_needs_each_parts_checksum_again() {
    let (_bucket, client) = small(Quirks::aws()).await;
    let create = client.create_multipart_upload().bucket(BUCKET).key("k");
    let create = create.checksum_algorithm(ChecksumAlgorithm::Crc32);
    let id = create.send().await.unwrap().upload_id.unwrap();
    let mut sending = Sending::of(&client, "k", id);
    let sent = sending
        .part(1, passing(b"123456789"))
        .checksum_crc32("y/Q5Jg==");
    sending.list(1, sent.send().await.unwrap().e_tag().unwrap());
    let complete = sending.complete().send().await;
    assert_eq!(refusal(complete), refused(400, "InvalidRequest"));
    sending.done[0].checksum_crc32 = Some("y/Q5Jg==".to_owned());
    let complete = sending.complete().send().await.unwrap();
    assert!(complete.checksum_crc32().unwrap().ends_with("-1"));
    assert_eq!(complete.checksum_type(), Some(&ChecksumType::Composite));
}

#[tokio::test]
async fn parts_are_listed_by_page() {
    let (bucket, client) = small(Quirks::aws()).await;
    let mut sending = Sending::open(&client, "k").await;
    for number in [1, 2, 5] {
        sending
            .send(number, &bytes(usize::try_from(number).unwrap(), 9))
            .await;
    }
    let list = || {
        let list = client.list_parts().bucket(BUCKET).key("k");
        list.upload_id(&sending.id).max_parts(2)
    };
    let first = list().send().await.unwrap();
    assert_eq!(first.is_truncated(), Some(true));
    let second = list().set_part_number_marker(first.next_part_number_marker.clone());
    let second = second.send().await.unwrap();
    assert_eq!(second.is_truncated(), Some(false));
    let parts = [first.parts(), second.parts()].concat();
    let parts: Vec<_> = parts
        .iter()
        .map(|part| (part.part_number(), part.size()))
        .collect();
    assert_eq!(parts, [1, 2, 5].map(|n| (Some(n), Some(i64::from(n)))));
    let upload_id = sending.id.clone();
    assert_eq!(
        bucket.open_uploads(),
        [OpenUpload {
            key: "k".to_owned(),
            upload_id,
            parts: vec![(1, 1), (2, 2), (5, 5)],
        }]
    );
}

#[tokio::test]
async fn open_uploads_are_listed_by_page_and_prefix() {
    let (_bucket, client) = small(Quirks::aws()).await;
    let mut opened = Vec::new();
    for key in ["a/1", "a/1", "a/1", "a/2", "b"] {
        opened.push((key.to_owned(), Sending::open(&client, key).await.id));
    }
    let mut listed = Vec::new();
    let (mut key, mut id) = (None, None);
    loop {
        let list = client
            .list_multipart_uploads()
            .bucket(BUCKET)
            .prefix("a/")
            .max_uploads(2);
        let list = list.set_key_marker(key).set_upload_id_marker(id);
        let page = list.send().await.unwrap();
        for upload in page.uploads() {
            listed.push((
                upload.key().unwrap().to_owned(),
                upload.upload_id().unwrap().to_owned(),
            ));
        }
        if page.is_truncated() == Some(false) {
            break;
        }
        (key, id) = (page.next_key_marker, page.next_upload_id_marker);
    }
    opened.retain(|(key, _)| key.starts_with("a/"));
    opened.sort();
    assert_eq!(listed, opened);
}
