//! The endpoint's sockets: connections, plain or TLS, and the faults that strike between them and S3.

use std::collections::BTreeMap;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::header;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use s3s::Body;
use s3s::HttpResponse;
use s3s::StdError;
use s3s::service::S3Service;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::simulator::bucket::backend::Backend;
use crate::simulator::bucket::crowd::Crowd;
use crate::simulator::bucket::fault::Effect;
use crate::simulator::bucket::fault::Operation;
use crate::simulator::bucket::fault::Script;
use crate::simulator::bucket::tamper;

/// More connections than any test or demo opens; a client that leaks them is not accepted any more.
const CONNECTIONS_MAX: usize = 1_024;

/// A handshake takes milliseconds on loopback.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How many requests there were for each operation.
pub(super) type Counts = BTreeMap<Operation, u64>;

/// What all connections share.
pub(super) struct Server {
    pub(super) service: S3Service,
    pub(super) backend: Arc<Backend>,
    pub(super) crowd: Crowd,
    pub(super) script: Script,
    pub(super) counts: watch::Sender<Counts>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) refuse_aws_chunked: bool,
}

/// A connection that a fault broke.
#[derive(Debug, thiserror::Error)]
#[error("broken by a planted fault")]
struct Broken;

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(server: Arc<Server>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        // Both are cancel-safe: neither `accept` nor `join_next` loses anything when the other wins.
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(Arc::clone(&server).connection(stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Without it, answers wait for the peer's delayed acknowledgement. A socket that refuses is dead anyway.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = self.tls.clone() else {
            return self.talk(TokioIo::new(stream)).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream));
        if let Ok(Ok(stream)) = handshake.await {
            self.talk(TokioIo::new(stream)).await;
        }
    }

    async fn talk<I: hyper::rt::Read + hyper::rt::Write + Unpin>(self: Arc<Self>, io: I) {
        let service = service_fn(move |request| Arc::clone(&self).answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(io, service);
        // A broken connection is the client's matter, or a fault's.
        connection.await.ok();
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<HttpResponse, StdError> {
        let (operation, key) = Operation::of(request.method(), request.uri());
        self.counts
            .send_modify(|counts| *counts.entry(operation).or_default() += 1);
        let place = self.crowd.enter(operation);
        if place.is_one_too_many() {
            read_whole(request).await?;
            return error_answer(503, "SlowDown");
        }
        if self.refuse_aws_chunked && is_aws_chunked(&request) {
            read_whole(request).await?;
            return error_answer(501, "NotImplemented");
        }
        match self.script.meet(operation, &key) {
            None => self.s3(request).await,
            Some(Effect::Delay(span)) => {
                tokio::time::sleep(span.as_duration()).await;
                self.s3(request).await
            }
            Some(Effect::AnswerEarly(after, status, code)) => {
                drop(read(request, after).await?);
                error_answer(status, code)
            }
            Some(Effect::ReadSlowly(rate)) => self.serve(tamper::slowed(request, rate)).await,
            Some(Effect::Flip) => self.serve(tamper::flipped(request)).await,
            Some(Effect::Damage) => {
                let path = request.uri().path().trim_start_matches('/').to_owned();
                let answer = self.s3(request).await?;
                let bucket = path.split('/').next().unwrap_or_default();
                self.backend.damage(bucket, &key);
                Ok(answer)
            }
            Some(Effect::DoneButSay(status, text)) => {
                self.s3(request).await?;
                tamper::answer(status, text)
            }
            Some(Effect::Edit(from, to)) => tamper::edited(self.s3(request).await?, from, to).await,
            Some(Effect::TellLength(length)) => {
                let mut answer = self.s3(request).await?;
                if answer.status().is_success() {
                    let headers = answer.headers_mut();
                    headers.insert(header::CONTENT_LENGTH, length.into());
                }
                Ok(answer)
            }
            Some(Effect::Elsewhere(status, code, region)) => {
                read_whole(request).await?;
                let mut answer = error_answer(status, code)?;
                let region = HeaderValue::from_static(region);
                answer.headers_mut().insert("x-amz-bucket-region", region);
                Ok(answer)
            }
            Some(Effect::LoseAnswer) => {
                self.s3(request).await?;
                Err(Broken.into())
            }
            Some(Effect::DoneButAnswer(status, code)) => {
                self.s3(request).await?;
                error_answer(status, code)
            }
            Some(Effect::Answer(status, code)) => {
                read_whole(request).await?;
                error_answer(status, code)
            }
            Some(Effect::ErrorIn200) => {
                read_whole(request).await?;
                error_answer(200, "InternalError")
            }
            Some(Effect::Break(after)) => {
                drop(read(request, after).await?);
                Err(Broken.into())
            }
            Some(Effect::Hang(after)) => {
                // What is left of the body stays with us: dropped, it would be read and thrown away.
                let rest = read(request, after).await?;
                future::pending::<()>().await;
                drop(rest);
                Err(Broken.into())
            }
        }
    }

    async fn s3(&self, request: Request<Incoming>) -> Result<HttpResponse, StdError> {
        self.serve(request.map(Body::from)).await
    }

    async fn serve(&self, request: Request<Body>) -> Result<HttpResponse, StdError> {
        Ok(self.service.call(request).await?)
    }
}

/// Reads the body, so that the answer meets a client that listens.
async fn read_whole(request: Request<Incoming>) -> Result<(), StdError> {
    read(request, u64::MAX).await.map(drop)
}

/// Reads so many bytes of the body and gives back the rest.
async fn read(request: Request<Incoming>, bytes: u64) -> Result<Incoming, StdError> {
    let mut body = request.into_body();
    let mut left = bytes;
    while left > 0 {
        let Some(frame) = body.frame().await.transpose()? else {
            break;
        };
        let read = frame.data_ref().map_or(0, bytes::Bytes::len);
        left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(body)
}

fn is_aws_chunked(request: &Request<Incoming>) -> bool {
    let has = |name: &str, word: &str| {
        let value = request.headers().get(name).map(HeaderValue::as_bytes);
        value.is_some_and(|value| String::from_utf8_lossy(value).contains(word))
    };
    has("content-encoding", "aws-chunked") || has("x-amz-content-sha256", "STREAMING-")
}

fn error_answer(status: u16, code: &str) -> Result<HttpResponse, StdError> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>planted fault</Message><RequestId>0000000000000000</RequestId></Error>"
    );
    tamper::answer(status, body)
}
