//! The S3 verbs against a scripted endpoint on loopback: what goes over the wire, and what each answer becomes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::http::roots::Roots;
use crate::model::asset::AssetIndex;
use crate::model::digest::Crc64;
use crate::model::key::ObjectKey;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::store::BrokenSource;
use crate::store::Config;
use crate::store::FinishedPart;
use crate::store::Identity;
use crate::store::NewObject;
use crate::store::PartBody;
use crate::store::PartSlot;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Total;
use crate::store::Written;
use crate::store::WrittenPart;
use crate::units::Span;

mod answers;
mod wire;

/// A request as the endpoint saw it.
#[derive(Debug)]
struct Seen {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    /// `None` when it broke off.
    body: Option<Bytes>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An answer as the script has it.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    fn new(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn error(status: u16, code: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
        Self::new(status, &body)
    }

    fn begun() -> Self {
        Self::new(
            200,
            "<InitiateMultipartUploadResult><UploadId>up/1</UploadId></InitiateMultipartUploadResult>",
        )
    }

    fn part() -> Self {
        Self::new(200, "").with("etag", "\"p1\"")
    }

    fn completed() -> Self {
        Self::new(
            200,
            "<CompleteMultipartUploadResult><ETag>\"done-1\"</ETag></CompleteMultipartUploadResult>",
        )
    }
}

/// An endpoint that gives scripted answers, 500 when there is none left, and remembers what it was asked.
struct Endpoint {
    address: SocketAddr,
    scheme: &'static str,
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
}

impl Endpoint {
    async fn start(answers: Vec<Answer>) -> Self {
        Self::serve(answers, None).await
    }

    async fn serve(answers: Vec<Answer>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script {
            answers: Mutex::new(answers.into()),
            seen: Mutex::default(),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&script)));
        Self {
            address,
            scheme,
            script,
            _tasks: tasks,
        }
    }

    /// A client of this endpoint; `more` goes into its section of the configuration.
    async fn store(&self, more: &str) -> Store {
        self.store_trusting(more, &[]).await
    }

    async fn store_trusting(&self, more: &str, roots: &[u8]) -> Store {
        let roots = Roots::load(roots).unwrap();
        let http = Store::http_client(Span::from_secs(5), &roots).unwrap();
        connect(&format!("{}://{}", self.scheme, self.address), more, http).await
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.script.seen.lock().unwrap())
    }

    /// The one request that there was.
    fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

async fn connect(
    endpoint: &str,
    more: &str,
    http: aws_smithy_runtime_api::client::http::SharedHttpClient,
) -> Store {
    let keys = "access_key = { env = 'KEY' }\nsecret_key = { env = 'KEY' }\n";
    let section = format!("[s3]\nbucket = 'films'\nendpoint = '{endpoint}'\n{keys}{more}");
    let config: Config = toml::from_str(&section).unwrap();
    let env = |_: &str| Some("canary".to_owned());
    Store::connect("main".parse().unwrap(), &config, &env, http)
        .await
        .unwrap()
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, script) = (tls.clone(), Arc::clone(&script));
        connections.spawn(async move {
            match tls {
                None => converse(stream, script).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, script).await;
                    }
                }
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, script: Arc<Script>) {
    let service = service_fn(|request| answer(request, Arc::clone(&script)));
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that breaks off is part of the tests.
    drop(connection);
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Script>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .ok()
        .map(http_body_util::Collected::to_bytes);
    script.seen.lock().unwrap().push(Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    });
    let next = script.answers.lock().unwrap().pop_front();
    let next = next.unwrap_or_else(|| Answer::error(500, "ScriptIsOver"));
    let mut response = Response::builder().status(next.status);
    for (name, value) in next.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(next.body)).unwrap())
}

// What the tests write.

const VIDEO: &[u8] = b"ftypisom moov mdat";

fn key() -> ObjectKey {
    "a/b c.mp4".parse().unwrap()
}

fn identity() -> Identity {
    Identity {
        provider: "evolink".parse().unwrap(),
        task_id: "task-1".parse().unwrap(),
        index: AssetIndex(2),
        nonce: "0f1e".to_owned(),
    }
}

fn upload() -> UploadId {
    UploadId("up/1".to_owned())
}

const SLOT: PartSlot = PartSlot {
    number: PartNumber(1),
    offset: 0,
};

/// The video in two frames, passed through.
fn streamed() -> PartBody {
    let (head, tail) = VIDEO.split_at(7);
    PartBody::Stream {
        length: u64::try_from(VIDEO.len()).unwrap(),
        frames: stream::iter([Ok(Bytes::from_static(head)), Ok(Bytes::from_static(tail))]).boxed(),
    }
}

/// The video in two frames, all there.
fn filled() -> PartBody {
    let (head, tail) = VIDEO.split_at(7);
    PartBody::Filled {
        frames: vec![Bytes::from_static(head), Bytes::from_static(tail)],
        crc64nvme: Crc64::of(VIDEO),
    }
}

async fn put(store: &Store, body: PartBody) -> Result<Written, StoreError> {
    let (key, identity) = (key(), identity());
    store.put(&object(&key, &identity), body).await
}

async fn begin(store: &Store) -> Result<UploadId, StoreError> {
    let (key, identity) = (key(), identity());
    store.begin(&object(&key, &identity)).await
}

async fn put_part(store: &Store, body: PartBody) -> Result<WrittenPart, StoreError> {
    store.put_part(&key(), &upload(), SLOT, body).await
}

/// Finishes with two parts, given in the wrong order.
async fn finish(store: &Store) -> Result<Written, StoreError> {
    let (key, identity) = (key(), identity());
    let part = |number, etag: &str, bytes| FinishedPart {
        number: PartNumber(number),
        etag: ETag(etag.to_owned()),
        crc64nvme: Crc64::of(bytes),
    };
    let parts = [
        part(2, "\"p2\"", &VIDEO[7..]),
        part(1, "\"p1\"", &VIDEO[..7]),
    ];
    let total = Total {
        length: u64::try_from(VIDEO.len()).unwrap(),
        crc64nvme: Crc64::of(VIDEO),
    };
    store
        .finish(&object(&key, &identity), &upload(), &parts, &total)
        .await
}

fn object<'a>(key: &'a ObjectKey, identity: &'a Identity) -> NewObject<'a> {
    NewObject {
        key,
        content_type: "video/mp4",
        identity,
    }
}

fn broken() -> PartBody {
    let frames = [
        Ok(Bytes::from_static(&VIDEO[..7])),
        Err(BrokenSource::new("reset by the CDN")),
    ];
    PartBody::Stream {
        length: u64::try_from(VIDEO.len()).unwrap(),
        frames: stream::iter(frames).boxed(),
    }
}
