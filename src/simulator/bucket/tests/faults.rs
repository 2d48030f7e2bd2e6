//! Each fault as a client meets it.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use tokio::sync::mpsc;

use super::*;
use crate::model::digest::Sha256Digester;
use crate::simulator::bucket::Bodies;
use crate::simulator::bucket::Effect;
use crate::simulator::bucket::Fault;
use crate::simulator::bucket::Operation;
use crate::simulator::bucket::StoredPiece;
use crate::units::Span;

#[tokio::test]
async fn planted_answers_come_in_place_of_the_work() {
    for (effect, expected) in [
        (Effect::SLOW_DOWN, refused(503, "SlowDown")),
        (Effect::INTERNAL_ERROR, refused(500, "InternalError")),
        (Effect::ACCESS_DENIED, refused(403, "AccessDenied")),
        (Effect::CONFLICT, refused(409, "ConditionalRequestConflict")),
        (
            Effect::PRECONDITION_FAILED,
            refused(412, "PreconditionFailed"),
        ),
    ] {
        let (bucket, client) = small(Quirks::aws()).await;
        bucket.plant(Fault::new(Operation::PutObject, effect).on_key("clip"));
        let put = |key: &str| {
            client
                .put_object()
                .bucket(BUCKET)
                .key(key)
                .body(passing(&bytes(50_000, 7)))
        };
        put("other").send().await.unwrap();
        assert_eq!(bucket.faults_waiting(), 1);
        assert_eq!(refusal(put("clip").send().await), expected);
        assert_eq!(bucket.object("clip"), None);
        put("clip").send().await.unwrap();
        assert_eq!(bucket.faults_waiting(), 0);
        assert_eq!(bucket.count(Operation::PutObject), 3);
    }
}

#[tokio::test]
async fn an_upload_can_be_denied_though_it_is_open() {
    let (bucket, client) = small(Quirks::aws()).await;
    let mut sending = Sending::open(&client, "k").await;
    bucket.plant(Fault::new(Operation::UploadPart, Effect::NO_SUCH_UPLOAD).from(2));
    sending.send(1, b"x").await;
    let part = sending.part(2, passing(b"y")).send().await;
    assert_eq!(refusal(part), refused(404, "NoSuchUpload"));
    assert_eq!(bucket.open_uploads()[0].parts, [(1, 1)]);
}

#[tokio::test]
async fn a_connection_breaks_within_a_part() {
    let (bucket, client) = small(Quirks::aws()).await;
    let mut sending = Sending::open(&client, "k").await;
    bucket.plant(Fault::new(Operation::UploadPart, Effect::Break(64 << 10)));
    let part = bytes(8 << 20, 1);
    let broken = sending.part(1, passing(&part)).send().await.unwrap_err();
    assert!(matches!(broken, SdkError::DispatchFailure(_)), "{broken:?}");
    assert_eq!(bucket.open_uploads()[0].parts, []);
    sending.send(1, &part).await;
    sending.complete().send().await.unwrap();
    assert_eq!(bucket.bytes("k").unwrap(), part);
}

#[tokio::test]
async fn a_hang_ends_with_the_bucket() {
    for after in [0, 64 << 10, u64::MAX] {
        let (bucket, client) = small(Quirks::aws()).await;
        bucket.plant(Fault::new(Operation::PutObject, Effect::Hang(after)));
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .body(passing(&bytes(8 << 20, 1)));
        let (answer, ()) = tokio::join!(put.send(), async {
            bucket.reached(Operation::PutObject, 1).await;
            assert_eq!(bucket.objects(), []);
            bucket.shutdown().await;
        });
        assert!(
            matches!(answer, Err(SdkError::DispatchFailure(_))),
            "after {after}"
        );
    }
}

#[tokio::test]
async fn complete_answers_200_with_an_error_in_it() {
    let (bucket, client) = small(Quirks::aws()).await;
    let mut sending = Sending::open(&client, "k").await;
    sending.send(1, b"x").await;
    bucket.plant(Fault::new(
        Operation::CompleteMultipartUpload,
        Effect::ErrorIn200,
    ));
    let complete = sending.complete().send().await.unwrap_err();
    assert_eq!(complete.code(), Some("InternalError"));
    assert_eq!(bucket.objects(), []);
    assert_eq!(bucket.open_uploads().len(), 1);
}

#[tokio::test]
async fn an_answer_is_lost_after_the_work_was_done() {
    let (bucket, client) = small(Quirks::aws()).await;
    bucket.plant(Fault::new(Operation::PutObject, Effect::LoseAnswer));
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("put")
        .body(passing(b"x"))
        .send()
        .await;
    assert!(matches!(put, Err(SdkError::DispatchFailure(_))));
    assert_eq!(bucket.bytes("put").unwrap(), b"x");

    let mut sending = Sending::open(&client, "parts").await;
    sending.send(1, b"y").await;
    bucket.plant(Fault::new(
        Operation::CompleteMultipartUpload,
        Effect::LoseAnswer,
    ));
    let complete = sending.complete().send().await;
    assert!(matches!(complete, Err(SdkError::DispatchFailure(_))));
    let again = sending.complete().send().await;
    assert_eq!(refusal(again), refused(404, "NoSuchUpload"));
    assert_eq!(bucket.bytes("parts").unwrap(), b"y");
}

#[tokio::test]
async fn an_error_is_answered_after_the_work_was_done() {
    let (bucket, client) = small(Quirks::aws()).await;
    let effect = Effect::DoneButAnswer(500, "InternalError");
    bucket.plant(Fault::new(Operation::PutObject, effect));
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(passing(b"x"))
        .send()
        .await;
    assert_eq!(refusal(put), refused(500, "InternalError"));
    assert_eq!(bucket.bytes("k").unwrap(), b"x");
}

#[tokio::test]
async fn a_delayed_request_is_done_in_the_end() {
    let (bucket, client) = small(Quirks::aws()).await;
    let delay = Effect::Delay(Span::from_millis(50));
    bucket.plant(Fault::new(Operation::HeadBucket, delay));
    let asked = tokio::time::Instant::now();
    client.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn dropping_the_bucket_ends_its_connections() {
    let (bucket, client) = small(Quirks::aws()).await;
    bucket.plant(Fault::new(Operation::HeadBucket, Effect::Hang(0)));
    let head = client.head_bucket().bucket(BUCKET);
    let (answer, ()) = tokio::join!(head.send(), async {
        bucket.reached(Operation::HeadBucket, 1).await;
        drop(bucket);
    });
    assert!(matches!(answer, Err(SdkError::DispatchFailure(_))));
}

fn put(client: &Client, key: &str, body: &[u8]) -> PutObjectFluentBuilder {
    let put: PutObjectFluentBuilder = client.put_object().bucket(BUCKET).key(key);
    put.body(passing(body))
}

#[tokio::test]
async fn an_answer_comes_before_the_body_is_read() {
    let (bucket, client) = small(Quirks::aws()).await;
    let early = Effect::AnswerEarly(1_000, 400, "RequestTimeout");
    bucket.plant(Fault::new(Operation::PutObject, early));
    let (feed, body) = feeding(100_000);
    feed.send(Bytes::from(vec![0; 1_000])).await.unwrap();
    let answer = client.put_object().bucket(BUCKET).key("k").body(body);
    assert_eq!(refusal(answer.send().await), refused(400, "RequestTimeout"));
    assert_eq!(bucket.objects(), []);
}

#[tokio::test]
async fn a_body_is_read_slowly() {
    let (bucket, client) = small(Quirks::aws()).await;
    let slow = Effect::ReadSlowly(ByteSize::bytes(1_000_000));
    bucket.plant(Fault::new(Operation::PutObject, slow));
    let started = tokio::time::Instant::now();
    let body = bytes(100_000, 1);
    put(&client, "k", &body).send().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(bucket.bytes("k").unwrap(), body);
}

#[tokio::test]
async fn a_bit_turns_on_the_way_or_later() {
    let (bucket, client) = small(Quirks::aws()).await;
    let body = bytes(50_000, 1);
    let mut other = body.clone();
    other[0] ^= 1;
    bucket.plant(Fault::new(Operation::PutObject, Effect::Flip).on_key("way"));
    bucket.plant(Fault::new(Operation::PutObject, Effect::Damage).on_key("later"));
    for key in ["way", "later"] {
        put(&client, key, &body).send().await.unwrap();
        assert_eq!(bucket.bytes(key).unwrap(), other, "{key}");
        assert_eq!(bucket.object(key).unwrap().crc64, Crc64::of(&other));
    }
    bucket.plant(Fault::new(Operation::PutObject, Effect::Flip));
    let sum = crc64(&body);
    let checked = put(&client, "checked", &body).checksum_crc64_nvme(sum);
    assert_eq!(refusal(checked.send().await), refused(400, "BadDigest"));
}

#[tokio::test]
async fn answers_tell_what_is_not_so() {
    let (bucket, client) = small(Quirks::aws()).await;
    put(&client, "k", &bytes(5_000, 1)).send().await.unwrap();
    bucket.plant(Fault::new(Operation::HeadObject, Effect::TellLength(7)));
    let head = client.head_object().bucket(BUCKET).key("k");
    assert_eq!(head.send().await.unwrap().content_length, Some(7));

    let mut sending = Sending::open(&client, "parts").await;
    sending.send(1, b"x").await;
    let edit = Effect::Edit("<Size>1</Size>", "<Size>2</Size>");
    bucket.plant(Fault::new(Operation::ListParts, edit));
    let list = client.list_parts().bucket(BUCKET).key("parts");
    let listed = list.upload_id(&sending.id).send().await.unwrap();
    assert_eq!(listed.parts()[0].size, Some(2));

    let said = "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>";
    let said = Effect::DoneButSay(200, said);
    bucket.plant(Fault::new(Operation::CompleteMultipartUpload, said));
    let done = sending.complete().send().await.unwrap();
    assert_eq!(done.e_tag.as_deref(), Some(""));
    assert_eq!(bucket.bytes("parts").unwrap(), b"x");

    let elsewhere = Effect::Elsewhere(301, "PermanentRedirect", "eu-west-1");
    bucket.plant(Fault::new(Operation::PutObject, elsewhere));
    let refused = put(&client, "k", b"y").send().await.unwrap_err();
    let region = refused
        .raw_response()
        .unwrap()
        .headers()
        .get("x-amz-bucket-region");
    assert_eq!(
        (refused.code(), region),
        (Some("PermanentRedirect"), Some("eu-west-1"))
    );
}

#[tokio::test]
async fn more_requests_at_once_than_the_bound_are_told_to_slow_down() {
    let (bucket, client) = small(Quirks::aws()).await;
    bucket.limit_at_once(Some(2));
    let slow = Effect::Delay(Span::from_millis(100));
    bucket.plant(Fault::new(Operation::PutObject, slow).times(2));
    let [one, two, three] = ["1", "2", "3"].map(|key| put(&client, key, b"x").send());
    let three = async {
        bucket.reached(Operation::PutObject, 2).await;
        three.await
    };
    let (one, two, three) = tokio::join!(one, two, three);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(refusal(three), refused(503, "SlowDown"));
    assert_eq!(bucket.at_once_max(Operation::PutObject), 3);
    bucket.limit_at_once(None);
    put(&client, "3", b"x").send().await.unwrap();
}

#[tokio::test]
async fn hashes_are_kept_of_each_part() {
    let mut config = Config::new(BUCKET);
    config.bodies = Bodies::Hashed;
    let bucket = start(config).await.unwrap();
    let client = client(&bucket, None);
    let parts = [bytes(5 << 20, 1), bytes(1_000, 2)];
    let mut sending = Sending::open(&client, "k").await;
    for (number, part) in (1..).zip(&parts) {
        sending.send(number, part).await;
    }
    sending.complete().send().await.unwrap();
    let object = bucket.object("k").unwrap();
    assert_eq!(object.crc64, Crc64::of(&parts.concat()));
    let expected = parts.map(|part| {
        let mut digester = Sha256Digester::new();
        digester.update(&part);
        StoredPiece {
            length: length_of(&part),
            sha256: Some(digester.value()),
        }
    });
    assert_eq!(object.pieces, expected);
    assert_eq!(bucket.bytes("k"), None);
}

#[tokio::test]
async fn others_put_and_pages_are_as_short_as_the_store_likes() {
    let quirks = Quirks {
        page_entries_max: 1,
        ..Quirks::aws()
    };
    let (bucket, client) = small(quirks).await;
    bucket.replace("k", Bytes::from_static(b"theirs")).await;
    assert_eq!(bucket.bytes("k").unwrap(), b"theirs");
    let mut sending = Sending::open(&client, "k").await;
    for number in 1..=3 {
        sending.send(number, b"x").await;
    }
    let list = client.list_parts().bucket(BUCKET).key("k");
    let listed = list.upload_id(&sending.id).send().await.unwrap();
    assert_eq!((listed.parts().len(), listed.is_truncated), (1, Some(true)));
}

#[tokio::test]
async fn a_mended_store_and_uploads_of_others() {
    let (bucket, client) = small(Quirks::aws()).await;
    bucket.plant(Fault::new(Operation::PutObject, Effect::SLOW_DOWN).times(9));
    bucket.heal();
    put(&client, "k", b"x").send().await.unwrap();
    bucket.open_others("k", 3);
    let list = client.list_multipart_uploads().bucket(BUCKET).prefix("k");
    assert_eq!(list.send().await.unwrap().uploads().len(), 3);
    bucket.end_uploads();
    assert_eq!(bucket.open_uploads(), []);
}

/// A body of `length` bytes that comes as a test sends it.
fn feeding(length: u64) -> (mpsc::Sender<Bytes>, ByteStream) {
    let (feed, fed) = mpsc::channel(1);
    let body = Fed { fed, left: length };
    (feed, ByteStream::new(SdkBody::from_body_1_x(body)))
}

struct Fed {
    fed: mpsc::Receiver<Bytes>,
    left: u64,
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = std::task::ready!(self.fed.poll_recv(context));
        self.left -= frame.as_ref().map_or(0, |frame| length_of(frame));
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
