//! What each answer, and each lack of one, becomes.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_sdk_s3::config::ProvideCredentials;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::upload_part::UploadPartError;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::http::HttpConnectorFuture;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::http::http_client_fn;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use futures::TryStreamExt as _;

use crate::clock::Timestamp;
use crate::http::roots::Roots;
use crate::store::OpenUpload;
use crate::store::StoreErrorKind;
use crate::store::StoredPart;
use crate::store::StoredParts;
use crate::store::body::Clock;
use crate::store::bucket::Bucket;
use crate::store::bucket::BucketParts;
use crate::store::bucket::WriteExtras;
use crate::store::failure::Verb;
use crate::store::quirks::Quirks;

use super::*;

/// One endpoint with one answer, and a client of it.
async fn answering(answer: Answer) -> (Endpoint, Store) {
    let endpoint = Endpoint::start(vec![answer]).await;
    let store = endpoint.store("quirks = 'aws'").await;
    (endpoint, store)
}

async fn failed_finish(answer: Answer) -> StoreError {
    let (endpoint, store) = answering(answer).await;
    let error = finish(&store).await.unwrap_err();
    assert_eq!(endpoint.seen().len(), 1, "retries are not decided here");
    error
}

#[tokio::test]
async fn a_completion_that_was_not_clearly_refused_is_in_doubt() {
    let ambiguous = StoreErrorKind::Ambiguous;
    assert_eq!(
        failed_finish(Answer::error(200, "InternalError"))
            .await
            .kind,
        ambiguous
    );
    assert_eq!(failed_finish(Answer::new(200, "")).await.kind, ambiguous);
    assert_eq!(
        failed_finish(Answer::new(200, "<html>")).await.kind,
        ambiguous
    );
    assert_eq!(
        failed_finish(Answer::error(500, "InternalError"))
            .await
            .kind,
        ambiguous
    );
    assert_eq!(
        failed_finish(Answer::error(503, "SlowDown")).await.kind,
        ambiguous
    );
    assert_eq!(
        failed_finish(Answer::new(502, "<html>no</html>"))
            .await
            .kind,
        ambiguous
    );

    let exists = failed_finish(Answer::error(412, "PreconditionFailed")).await;
    assert_eq!(exists.kind, StoreErrorKind::Exists);
    let conflict = failed_finish(Answer::error(409, "ConditionalRequestConflict")).await;
    assert_eq!(conflict.kind, StoreErrorKind::Conflict);
    let gone = failed_finish(Answer::error(404, "NoSuchUpload")).await;
    assert_eq!(gone.kind, StoreErrorKind::UploadGone);
    let denied = failed_finish(Answer::error(403, "AccessDenied")).await;
    assert_eq!(denied.kind, StoreErrorKind::Blocked);
    let unknown = failed_finish(Answer::error(501, "NotImplemented")).await;
    assert_eq!(unknown.kind, StoreErrorKind::Rejected);
    assert!(
        unknown
            .hint
            .as_ref()
            .unwrap()
            .contains("quirks = \"plain\"")
    );
}

#[tokio::test]
async fn errors_are_one_line_for_people() {
    let denied = Answer::error(403, "AccessDenied").with("x-amz-request-id", "R1");
    let (_endpoint, store) = answering(denied).await;
    let error = put(&store, streamed()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "destination main answers 403 AccessDenied to s3:PutObject on films: said so; \
         the key in use needs s3:PutObject (request R1)"
    );
    let moved = Answer::error(301, "PermanentRedirect").with("x-amz-bucket-region", "eu-west-1");
    let (_endpoint, store) = answering(moved).await;
    let error = begin(&store).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Blocked);
    assert_eq!(
        error.hint.as_deref(),
        Some("the bucket is in eu-west-1: set destination.main.s3.region = \"eu-west-1\"")
    );
    // A HEAD's answer has no body to say so.
    let moved = Answer::new(301, "").with("x-amz-bucket-region", "eu-west-1");
    let (_endpoint, store) = answering(moved).await;
    let error = store.find(&key()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Blocked);
    assert!(error.hint.as_ref().unwrap().contains("eu-west-1"));
}

#[tokio::test]
async fn a_body_that_breaks_is_not_the_stores_fault() {
    let endpoint = Endpoint::start(Vec::new()).await;
    let store = endpoint.store("quirks = 'aws'").await;
    for error in [
        put(&store, broken()).await.unwrap_err(),
        put_part(&store, broken()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, StoreErrorKind::Source, "{error}");
        assert!(error.message.contains("reset by the CDN"), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_passes_unless_an_object_is_at_stake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let http = Store::http_client(Span::from_secs(5), &Roots::load(&[]).unwrap()).unwrap();
    let store = connect(&format!("http://{address}"), "quirks = 'aws'", http).await;
    let transient = StoreErrorKind::Transient;
    assert_eq!(store.find(&key()).await.unwrap_err().kind, transient);
    assert_eq!(begin(&store).await.unwrap_err().kind, transient);
    assert_eq!(
        put_part(&store, filled()).await.unwrap_err().kind,
        transient
    );
    let error = put(&store, filled()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Ambiguous);
    assert!(error.to_string().contains("refused"), "{error}");
}

/// A transport that never answers.
#[derive(Debug)]
struct Silent;

impl HttpConnector for Silent {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(std::future::pending())
    }
}

#[tokio::test]
async fn silence_ends_every_verb() {
    let http = http_client_fn(|_, _| SharedHttpConnector::new(Silent));
    let keys = aws_sdk_s3::config::Credentials::new("key", "secret", None, None, "test");
    let bucket = bucket_of(http, SharedCredentialsProvider::new(keys));
    let (transient, ambiguous) = (StoreErrorKind::Transient, StoreErrorKind::Ambiguous);
    for (verb, kind) in [
        (Verb::Find, transient),
        (Verb::Put, ambiguous),
        (Verb::Begin, transient),
        (Verb::PutPart, transient),
        (Verb::Parts, transient),
        (Verb::Finish, ambiguous),
        (Verb::Abort, transient),
        (Verb::OpenUploads, transient),
        (Verb::Read, transient),
        (Verb::List, transient),
        (Verb::Remove, transient),
    ] {
        let request = bucket.client.head_object().bucket("films").key("a").send();
        let ended = bucket.within(verb, Span::from_millis(20), request).await;
        let error = ended.unwrap_err();
        assert_eq!(error.kind, kind, "{verb:?}");
        assert_eq!(error.message, "no answer within 20 ms");
    }
}

/// Tries of a body so small that it was handed over at once.
#[tokio::test(start_paused = true)]
async fn a_store_that_takes_long_to_answer_gets_more_time_for_small_bodies_too() {
    let http = http_client_fn(|_, _| SharedHttpConnector::new(Silent));
    let keys = aws_sdk_s3::config::Credentials::new("key", "secret", None, None, "test");
    let bucket = bucket_of(http, SharedCredentialsProvider::new(keys));
    let mut told = Vec::new();
    for _ in 0..3 {
        let clock = Clock::new();
        clock.gave(0);
        let answer = async {
            tokio::time::sleep(Duration::from_mins(1)).await;
            Ok::<_, SdkError<UploadPartError>>(())
        };
        let sent = bucket.send(Verb::PutPart, 1 << 10, clock, answer).await;
        told.push(sent.map_or_else(|error| error.message.clone(), |_| "taken".to_owned()));
    }
    assert_eq!(
        told,
        ["no answer within 20 s", "no answer within 40 s", "taken"]
    );
}

#[tokio::test]
async fn nothing_is_completed_where_nobody_knows_what_stands_at_the_key() {
    let check = async |more: &str, head: Answer, kind: Option<StoreErrorKind>| {
        let endpoint = Endpoint::start(vec![head, Answer::completed()]).await;
        let finished = finish(&endpoint.store(more).await).await;
        assert_eq!(finished.err().map(|error| error.kind), kind, "{more}");
        let seen = endpoint.seen();
        assert_eq!(seen.len(), if kind.is_none() { 2 } else { 1 }, "{seen:?}");
    };
    let taken = Answer::new(200, "").with("content-length", "5");
    let busy = Answer::new(503, "");
    // To whoever may not list.
    let denied = Answer::new(403, "");
    for (more, has_condition) in [("quirks = 'plain'", false), ("quirks = 'generic'", true)] {
        check(more, taken.clone(), Some(StoreErrorKind::Exists)).await;
        check(more, busy.clone(), Some(StoreErrorKind::Transient)).await;
        let kind = (!has_condition).then_some(StoreErrorKind::Blocked);
        check(more, denied.clone(), kind).await;
        check(more, Answer::new(404, ""), None).await;
    }
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::ready(Err(CredentialsError::not_loaded("no key anywhere")))
    }
}

fn bucket_of(http: SharedHttpClient, credentials: SharedCredentialsProvider) -> Bucket {
    Bucket::new(BucketParts {
        destination: "main".parse().unwrap(),
        bucket: "films".to_owned(),
        endpoint: Some("http://silent.invalid".to_owned()),
        region: Region::new("us-east-1"),
        path_style: true,
        credentials,
        extras: WriteExtras::default(),
        quirks: Quirks::r2(),
        http,
    })
}

#[tokio::test]
async fn without_credentials_the_destination_is_blocked() {
    let http = http_client_fn(|_, _| SharedHttpConnector::new(Silent));
    let bucket = bucket_of(http, SharedCredentialsProvider::new(NoCredentials));
    let error = bucket.find(&key()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Blocked);
    assert!(error.message.contains("no key anywhere"), "{error}");
}

#[tokio::test]
async fn head_tells_what_stands_there() {
    let head = Answer::new(200, "")
        .with("content-length", "5")
        .with("etag", "\"e\"")
        .with("x-amz-version-id", "v7")
        .with("x-amz-checksum-crc64nvme", "rosUhgp5mIg=")
        .with("x-amz-checksum-type", "FULL_OBJECT")
        .with("x-amz-meta-reelvault-nonce", "0f1e")
        .with("last-modified", "Mon, 30 Mar 2026 07:56:45 GMT");
    let (endpoint, store) = answering(head).await;
    let standing = store.find(&key()).await.unwrap().unwrap();
    assert_eq!(
        endpoint.only().header("x-amz-checksum-mode"),
        Some("ENABLED")
    );
    assert_eq!(standing.etag, Some(ETag("\"e\"".to_owned())));
    assert_eq!(standing.version_id.as_deref(), Some("v7"));
    assert_eq!(standing.crc64nvme, Some(Crc64::of(b"123456789")));
    assert_eq!(standing.nonce.as_deref(), Some("0f1e"));
    let modified = Timestamp::parse("2026-03-30T07:56:45Z");
    assert_eq!((standing.length, standing.last_modified), (5, modified));

    let (_endpoint, store) = answering(Answer::new(404, "")).await;
    assert_eq!(store.find(&key()).await, Ok(None));
    let (_endpoint, store) = answering(Answer::new(403, "")).await;
    let error = store.find(&key()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Blocked);
    assert!(
        error.hint.as_ref().unwrap().contains("s3:ListBucket"),
        "{error}"
    );
}

fn part_page(numbers: std::ops::Range<u32>, next: Option<u32>) -> Answer {
    let is_truncated = next.is_some();
    let next = next.map(|next| format!("<NextPartNumberMarker>{next}</NextPartNumberMarker>"));
    let parts: Vec<String> = numbers
        .map(|number| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>\"p{number}\"</ETag><Size>7</Size></Part>")
        })
        .collect();
    let page = format!(
        "<ListPartsResult><IsTruncated>{is_truncated}</IsTruncated>{}{}</ListPartsResult>",
        next.unwrap_or_default(),
        parts.concat(),
    );
    Answer::new(200, &page)
}

#[tokio::test]
async fn all_pages_of_parts_are_read_and_endless_lists_are_not() {
    let answers = vec![part_page(1..3, Some(2)), part_page(3..4, None)];
    let endpoint = Endpoint::start(answers).await;
    let store = endpoint.store("quirks = 'aws'").await;
    let StoredParts::Listed(parts) = store.parts(&key(), &upload()).await.unwrap() else {
        panic!("buckets list parts")
    };
    let expected = (1..4).map(|number| StoredPart {
        number: PartNumber(number),
        length: 7,
        etag: ETag(format!("\"p{number}\"")),
    });
    assert_eq!(parts, expected.collect::<Vec<_>>());
    let seen = endpoint.seen();
    assert!(!seen[0].query.contains("marker"));
    assert!(
        seen[1].query.contains("part-number-marker=2"),
        "{}",
        seen[1].query
    );

    let answers = vec![part_page(1..2, Some(1)), part_page(1..2, Some(1))];
    let endpoint = Endpoint::start(answers).await;
    let store = endpoint.store("quirks = 'aws'").await;
    let error = store.parts(&key(), &upload()).await.unwrap_err();
    assert!(error.message.contains("no end"), "{error}");
    let endpoint =
        Endpoint::start(vec![part_page(1..10_002, Some(1)), part_page(1..2, None)]).await;
    let store = endpoint.store("quirks = 'aws'").await;
    let error = store.parts(&key(), &upload()).await.unwrap_err();
    assert!(error.message.contains("no end"), "{error}");

    let (_endpoint, store) = answering(Answer::error(404, "NoSuchUpload")).await;
    let gone = store.parts(&key(), &upload()).await.unwrap_err();
    assert_eq!(gone.kind, StoreErrorKind::UploadGone);
}

#[tokio::test]
async fn only_uploads_of_exactly_this_key_are_listed() {
    let upload = |key: &str, id: &str| {
        format!(
            "<Upload><Key>{key}</Key><UploadId>{id}</UploadId>\
             <Initiated>2026-03-30T07:56:45.000Z</Initiated></Upload>"
        )
    };
    let page = |more: &str, uploads: String| {
        let body =
            format!("<ListMultipartUploadsResult>{more}{uploads}</ListMultipartUploadsResult>");
        Answer::new(200, &body)
    };
    let more = "<IsTruncated>true</IsTruncated><NextKeyMarker>a/b c.mp4</NextKeyMarker>\
                <NextUploadIdMarker>u1</NextUploadIdMarker>";
    let endpoint = Endpoint::start(vec![
        page(more, upload("a/b c.mp4", "u1")),
        page(
            "<IsTruncated>false</IsTruncated>",
            upload("a/b c.mp4.json", "u2") + &upload("a/b c.mp4", "u3"),
        ),
    ])
    .await;
    let store = endpoint.store("quirks = 'aws'").await;
    let open = store.open_uploads(&key()).await.unwrap();
    let initiated = Timestamp::parse("2026-03-30T07:56:45Z");
    let expected = ["u1", "u3"].map(|id| OpenUpload {
        id: UploadId(id.to_owned()),
        initiated,
    });
    assert_eq!(open, expected);
    let seen = endpoint.seen();
    assert!(
        seen[0].query.contains("prefix=a%2Fb%20c.mp4"),
        "{}",
        seen[0].query
    );
    assert!(
        seen[1].query.contains("upload-id-marker=u1"),
        "{}",
        seen[1].query
    );

    for answer in [
        Answer::error(501, "NotImplemented"),
        Answer::new(405, ""),
        Answer::new(404, ""),
    ] {
        let (_endpoint, store) = answering(answer).await;
        assert_eq!(store.open_uploads(&key()).await, Ok(Vec::new()));
    }
    let (_endpoint, store) = answering(Answer::error(404, "NoSuchBucket")).await;
    let error = store.open_uploads(&key()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Blocked);
}

#[tokio::test]
async fn an_upload_that_is_gone_is_aborted() {
    for answer in [
        Answer::new(204, ""),
        Answer::error(404, "NoSuchUpload"),
        Answer::new(404, ""),
    ] {
        let (_endpoint, store) = answering(answer).await;
        assert_eq!(store.abort(&key(), &upload()).await, Ok(()));
    }
    let (_endpoint, store) = answering(Answer::error(404, "NoSuchBucket")).await;
    let error = store.abort(&key(), &upload()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Blocked);
}

#[tokio::test]
async fn answers_without_what_they_are_for_are_not_believed() {
    let (_endpoint, store) = answering(Answer::new(200, "<InitiateMultipartUploadResult/>")).await;
    assert_eq!(
        begin(&store).await.unwrap_err().kind,
        StoreErrorKind::Transient
    );
    let (_endpoint, store) = answering(Answer::new(200, "")).await;
    let error = put_part(&store, filled()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Transient);
}

#[tokio::test]
async fn objects_are_read_back_and_cut_ones_are_errors() {
    let (_endpoint, store) = answering(Answer::new(200, "moov mdat")).await;
    let frames: Vec<Bytes> = store
        .read(&key())
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(frames.concat(), b"moov mdat");

    let cut = Answer::new(200, "moov").with("content-length", "9");
    let (_endpoint, store) = answering(cut).await;
    let read = match store.read(&key()).await {
        Ok(frames) => frames.try_collect::<Vec<Bytes>>().await,
        Err(error) => Err(error),
    };
    assert_eq!(read.unwrap_err().kind, StoreErrorKind::Transient);

    let (_endpoint, store) = answering(Answer::error(404, "NoSuchKey")).await;
    let error = store.read(&key()).await.err().unwrap();
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (StoreErrorKind::Rejected, Some("NoSuchKey"))
    );
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_it() {
    let endless = " ".repeat(9 << 20);
    let answers = [200, 400].map(|status| Answer::new(status, &endless));
    let endpoint = Endpoint::start(answers.to_vec()).await;
    let store = endpoint.store("").await;
    for _ in 0..2 {
        let error = begin(&store).await.unwrap_err();
        assert!(error.to_string().contains("length limit"), "{error}");
    }
}

#[tokio::test]
async fn an_endpoint_may_have_a_path() {
    let endpoint = Endpoint::start(vec![Answer::new(404, ""), Answer::new(404, "")]).await;
    let roots = Roots::load(&[]).unwrap();
    for path in ["/storage/v1/s3", "/storage/v1/s3/"] {
        let http = Store::http_client(Span::from_secs(5), &roots).unwrap();
        let address = format!("http://{}{path}", endpoint.address);
        let store = connect(&address, "", http).await;
        assert!(store.find(&key()).await.unwrap().is_none());
        assert_eq!(endpoint.only().path, "/storage/v1/s3/films/a/b%20c.mp4");
    }
}

#[tokio::test]
async fn a_probe_goes_through_all_verbs_and_removes_what_it_made() {
    let head = Answer::new(200, "")
        .with("content-length", "75")
        .with("x-amz-meta-reelvault-nonce", "n1");
    let none_open =
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";
    let endpoint = Endpoint::start(vec![
        Answer::begun(),
        Answer::part(),
        Answer::new(404, ""),
        part_page(1..2, None),
        Answer::completed(),
        head,
        Answer::error(412, "PreconditionFailed"),
        Answer::begun(),
        Answer::part(),
        Answer::error(412, "PreconditionFailed"),
        Answer::new(204, ""),
        Answer::new(200, none_open),
        Answer::new(204, ""),
    ])
    .await;
    let store = endpoint.store("quirks = 'aws'\nprefix = 'reels/'").await;
    let steps = store.probe("n1").await;
    for step in &steps {
        assert!(step.outcome.is_ok(), "{step:?}");
    }
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 13);
    let removals: Vec<&Seen> = seen
        .iter()
        .filter(|seen| {
            seen.method == Method::DELETE && seen.query.is_empty()
                || seen.query == "x-id=DeleteObject"
        })
        .collect();
    assert_eq!(removals.len(), 1);
    assert_eq!(removals[0].path, "/films/reels/.reelvault-probe-n1");

    // What was not finished is aborted, and nothing is removed.
    let answers = vec![
        Answer::begun(),
        Answer::error(403, "AccessDenied"),
        Answer::new(204, ""),
    ];
    let endpoint = Endpoint::start(answers).await;
    let store = endpoint.store("quirks = 'aws'").await;
    let steps = store.probe("n1").await;
    assert_eq!(steps.len(), 3);
    assert!(steps[1].outcome.is_err());
    let seen = endpoint.seen();
    assert!(seen[2].method == Method::DELETE && seen[2].query.contains("uploadId="));
}

#[tokio::test]
async fn a_probe_does_without_being_told_where_writes_have_a_condition() {
    for (quirks, is_told) in [("aws", true), ("plain", false)] {
        let answers = vec![Answer::begun(), Answer::part(), Answer::new(403, "")];
        let endpoint = Endpoint::start(answers).await;
        let store = endpoint.store(&format!("quirks = '{quirks}'")).await;
        let steps = store.probe("n1").await;
        assert_eq!(steps[2].name, "look at a free key");
        assert_eq!(steps[2].outcome.is_ok(), is_told, "{:?}", steps[2]);
    }
}
