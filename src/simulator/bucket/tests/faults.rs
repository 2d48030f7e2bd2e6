//! Each fault as a client meets it.

use super::*;
use crate::simulator::bucket::Effect;
use crate::simulator::bucket::Fault;
use crate::simulator::bucket::Operation;
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
