//! The sink: as much of S3 as movers need, which counts and checksums what it gets and forgets it.
//!
//! It must cost little, else it is what is measured; so it checks no signature and reads no request but its body.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use anyhow::Result;
use aws_smithy_types::base64;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http::response::Builder;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use reelvault::chance::Dice;
use reelvault::model::digest::Crc64;
use reelvault::model::digest::Crc64Digester;
use serde_json::json;

use crate::chunked::Chunks;
use crate::serve;
use crate::serve::Answer;
use crate::serve::Body;
use crate::serve::Listen;

/// Says what arrived. No bucket can have this name.
pub(crate) const REPORT: &str = "/-/report";

/// Forgets what arrived. The origin has it as well.
pub(crate) const RESET: &str = "/-/reset";

/// HEAD wants a date; nobody reads this one.
const LAST_MODIFIED: &str = "Mon, 30 Mar 2026 07:56:45 GMT";

#[derive(Default)]
struct Sink {
    held: Mutex<Held>,
    dice: Dice,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, Upload>,
}

struct Object {
    sum: Sum,
    /// Content type and metadata, as they came.
    label: HeaderMap,
}

struct Upload {
    label: HeaderMap,
    parts: BTreeMap<u32, Sum>,
}

/// What is left of a body.
#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    crc64: Crc64,
}

pub(crate) fn run(listen: &Listen) -> Result<()> {
    serve::run(listen, Sink::default())
}

impl Answer for Sink {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let key = head.uri.path().to_owned();
        match key.as_str() {
            REPORT => return self.report(),
            RESET => {
                *self.held() = Held::default();
                return done(Response::builder());
            }
            _ => {}
        }
        let query = Query(head.uri.query().unwrap_or_default());
        match (head.method, query.get("uploadId"), query.get("partNumber")) {
            (Method::PUT, Some(id), Some(number)) => {
                self.part(id, number, &head.headers, body).await
            }
            (Method::PUT, None, None) => self.whole(key, &head.headers, body).await,
            (Method::POST, Some(id), None) => self.complete(&key, id, body).await,
            (Method::POST, None, None) if query.has("uploads") => self.create(&key, &head.headers),
            (Method::DELETE, Some(id), None) => {
                self.held().uploads.remove(id);
                done(Response::builder().status(StatusCode::NO_CONTENT))
            }
            (Method::DELETE, None, None) => {
                self.held().objects.remove(&key);
                done(Response::builder().status(StatusCode::NO_CONTENT))
            }
            (Method::HEAD, None, None) => self.head(&key),
            (Method::GET, Some(id), None) => self.parts(id),
            (Method::GET, None, None) if query.has("uploads") => xml(
                "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
            ),
            (Method::GET, None, None) if query.has("list-type") => xml(
                "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>",
            ),
            _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        }
    }
}

impl Sink {
    async fn whole(&self, key: String, headers: &HeaderMap, body: Incoming) -> Response<Body> {
        // A bucket is made by a PUT as well, and needs nothing.
        if is_bucket(&key) {
            return done(Response::builder());
        }
        if headers.contains_key(header::IF_NONE_MATCH) && self.held().objects.contains_key(&key) {
            return refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let Some(sum) = Sum::of(headers, body).await else {
            return refused(StatusCode::BAD_REQUEST, "IncompleteBody");
        };
        let label = label_of(headers);
        self.held().objects.insert(key, Object { sum, label });
        done(Response::builder().header(header::ETAG, sum.etag()))
    }

    fn create(&self, key: &str, headers: &HeaderMap) -> Response<Body> {
        let id = self.dice.nonce();
        let label = label_of(headers);
        let parts = BTreeMap::new();
        self.held()
            .uploads
            .insert(id.clone(), Upload { label, parts });
        xml(&format!(
            "<InitiateMultipartUploadResult><Key>{key}</Key><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        ))
    }

    async fn part(
        &self,
        id: &str,
        number: &str,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Response<Body> {
        let sum = Sum::of(headers, body).await;
        let mut held = self.held();
        let Some(upload) = held.uploads.get_mut(id) else {
            return refused(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let Some((sum, number)) = sum.zip(number.parse().ok()) else {
            return refused(StatusCode::BAD_REQUEST, "IncompleteBody");
        };
        upload.parts.insert(number, sum);
        done(Response::builder().header(header::ETAG, sum.etag()))
    }

    /// Makes an object of all parts that arrived, whichever the request lists.
    async fn complete(&self, key: &str, id: &str, body: Incoming) -> Response<Body> {
        let read = Sum::of(&HeaderMap::new(), body).await;
        let mut held = self.held();
        let Some(upload) = held.uploads.remove(id).filter(|_| read.is_some()) else {
            return refused(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let sum = upload
            .parts
            .values()
            .fold(Sum::default(), |sum, part| sum.followed_by(*part));
        let label = upload.label;
        held.objects.insert(key.to_owned(), Object { sum, label });
        xml(&format!(
            "<CompleteMultipartUploadResult><Key>{key}</Key><ETag>{}</ETag>\
             </CompleteMultipartUploadResult>",
            sum.etag()
        ))
    }

    fn parts(&self, id: &str) -> Response<Body> {
        let held = self.held();
        let Some(upload) = held.uploads.get(id) else {
            return refused(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let parts = upload.parts.iter().map(|(number, sum)| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag><Size>{}</Size></Part>",
                sum.etag(),
                sum.bytes
            )
        });
        let parts: String = parts.collect();
        xml(&format!(
            "<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"
        ))
    }

    fn head(&self, key: &str) -> Response<Body> {
        if is_bucket(key) {
            return done(Response::builder());
        }
        let held = self.held();
        let Some(object) = held.objects.get(key) else {
            return done(Response::builder().status(StatusCode::NOT_FOUND));
        };
        let mut response = Response::builder()
            .header(header::CONTENT_LENGTH, object.sum.bytes)
            .header(header::ETAG, object.sum.etag())
            .header(header::LAST_MODIFIED, LAST_MODIFIED)
            .header(
                "x-amz-checksum-crc64nvme",
                base64::encode(object.sum.crc64.to_bytes()),
            )
            .header("x-amz-checksum-type", "FULL_OBJECT");
        if let Some(headers) = response.headers_mut() {
            headers.extend(object.label.clone());
        }
        done(response)
    }

    fn report(&self) -> Response<Body> {
        let held = self.held();
        let objects = held.objects.iter().map(|(key, object)| {
            json!({ "key": key, "bytes": object.sum.bytes, "crc64": object.sum.crc64 })
        });
        let report = json!(objects.collect::<Vec<_>>()).to_string();
        Response::new(Full::from(report).boxed())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    /// Reads a body to its end. `None` when it broke.
    async fn of(headers: &HeaderMap, mut body: Incoming) -> Option<Self> {
        let mut bytes = 0;
        let mut digester = Crc64Digester::new();
        let mut chunks = Chunks::of(headers);
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame.ok()?.into_data() else {
                continue;
            };
            while !data.is_empty() {
                let payload = chunks.next(&mut data)?;
                bytes += u64::try_from(payload.len()).ok()?;
                digester.update(&payload);
            }
        }
        let crc64 = digester.value();
        chunks.is_over().then_some(Self { bytes, crc64 })
    }

    fn followed_by(self, next: Sum) -> Self {
        Self {
            bytes: self.bytes + next.bytes,
            crc64: self.crc64.followed_by(next.crc64, next.bytes),
        }
    }

    fn etag(self) -> String {
        format!("\"{}\"", self.crc64)
    }
}

struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.0
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    }
}

fn is_bucket(path: &str) -> bool {
    let path = path.trim_matches('/');
    !path.contains('/')
}

/// The headers that HEAD gives back.
fn label_of(headers: &HeaderMap) -> HeaderMap {
    let kept = |name: &HeaderName| {
        name == header::CONTENT_TYPE || name.as_str().starts_with("x-amz-meta-")
    };
    let kept = headers.iter().filter(|(name, _)| kept(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn done(response: Builder) -> Response<Body> {
    let response = response.body(Full::default().boxed());
    response.expect("all headers are digits and letters, or came as headers")
}

fn xml(body: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    Response::new(Full::from(body).boxed())
}

fn refused(status: StatusCode, code: &str) -> Response<Body> {
    let mut response = xml(&format!(
        "<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    ));
    *response.status_mut() = status;
    response
}
