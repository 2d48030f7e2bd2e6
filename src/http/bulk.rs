//! The transport for large bodies: HTTP/1.1 over connections that whoever waits for the answer drives. [`Bulk`] asks
//! origins; `Lines`, which it is made of, is what the S3 clients talk over as well.
//!
//! The client of [`client`](crate::http::client) answers for task APIs. A body of gigabytes is dearer there than it has
//! to be: each record is a call to the kernel, since nothing can be put between its socket and TLS; a task of its own
//! serves each connection and hands every frame over, which wakes another thread; and its buffers grow to what the peer
//! sends. Here sockets are read in long strokes, one task does it all, and a connection holds little more than a frame.
//!
//! ```text
//! line    a connection: resolved, guarded, encrypted, spoken over
//! tls     the encryption
//! shelf   those that wait for their next request
//! flow    an answer's body as it comes, which lays its connection onto the shelf at the end
//! ```

mod flow;
mod line;
mod shelf;
mod tls;

use std::sync::Arc;

use aws_smithy_types::base64;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Method;
use http::header;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use url::Position;
use url::Url;

pub(crate) use self::flow::Flow;
pub(crate) use self::line::Cause;
use self::line::Dialer;
pub(crate) use self::line::LineError;
pub(crate) use self::line::Payload;
use self::line::broken;
use self::shelf::Shelf;
use crate::http::Body;
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::client::ClientConfig;
use crate::http::client::ClientError;
use crate::http::client::absolute;
use crate::http::client::bound_headers;
use crate::http::client::cause_of;
use crate::http::client::refusal;
use crate::http::guard::Guard;
use crate::http::roots::Roots;
use crate::units::Span;

/// Connections, each used again once its answer was read. Clones share them.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Pool>);

struct Pool {
    dialer: Dialer,
    shelf: Shelf,
}

impl Lines {
    /// Connections to what `guard` lets through, each standing within `connect_timeout`.
    pub(crate) fn new(
        guard: Guard,
        roots: &Roots,
        connect_timeout: Span,
    ) -> Result<Self, ClientError> {
        Ok(Self(Arc::new(Pool {
            dialer: Dialer::new(guard, roots, connect_timeout)?,
            shelf: Shelf::new(),
        })))
    }

    /// Sends `request`, which is in origin form, to the origin of `url`. The answer is there with its headers; without a
    /// `timeout`, these and each frame may take as long as they do.
    pub(crate) async fn send(
        &self,
        url: &Url,
        mut request: http::Request<Payload>,
        timeout: Option<Span>,
    ) -> Result<http::Response<Flow>, LineError> {
        let Pool { dialer, shelf } = &*self.0;
        let flowing = |answer: http::Response<_>, line| {
            let host = url.host_str().unwrap_or_default().to_owned();
            answer.map(|body| Flow::new(host, body, line, shelf.home(url), timeout))
        };
        if let Some(mut line) = shelf.take(url) {
            let again = repeated(&request);
            match within(timeout, line.ask(request)).await? {
                Ok(answer) => return Ok(flowing(answer, line)),
                // The peer hung up while the connection waited: what it has not seen, or only reads, is asked on another.
                Err(mut error) => match error.take_message().or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(LineError::Broken(error.into_error())),
                },
            }
        }
        let mut line = dialer.dial(url).await?;
        match within(timeout, line.ask(request)).await? {
            Ok(answer) => Ok(flowing(answer, line)),
            Err(error) => Err(LineError::Broken(error.into_error())),
        }
    }
}

async fn within<T>(timeout: Option<Span>, answer: impl Future<Output = T>) -> Result<T, LineError> {
    let Some(timeout) = timeout else {
        return Ok(answer.await);
    };
    let answer = tokio::time::timeout(timeout.as_duration(), answer).await;
    answer.map_err(|_| LineError::Timeout)
}

/// The same request once more, where it only reads.
fn repeated(request: &http::Request<Payload>) -> Option<http::Request<Payload>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || !request.body().is_end_stream() {
        return None;
    }
    let mut again = http::Request::new(Empty::new().map_err(|never| match never {}).boxed());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// A [`Transport`] over real sockets, for bodies too large to be held.
#[derive(Clone)]
pub struct Bulk(Arc<Inner>);

struct Inner {
    guard: Guard,
    lines: Lines,
    user_agent: HeaderValue,
    read_timeout: Span,
}

impl Bulk {
    /// Builds a client with connections of its own.
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let user_agent = HeaderValue::from_str(&config.user_agent);
        let user_agent = user_agent.map_err(|error| ClientError::Build(error.to_string()))?;
        let guard = config.guard.clone();
        Ok(Self(Arc::new(Inner {
            lines: Lines::new(guard.clone(), &config.roots, config.connect_timeout)?,
            guard,
            user_agent,
            read_timeout: config.read_timeout,
        })))
    }
}

#[cfg(test)]
impl Bulk {
    /// One that judges no URL, for tests of what stands behind that.
    pub(super) fn without_first_line(config: &ClientConfig) -> Self {
        let Some(mut inner) = Self::new(config).ok().and_then(|it| Arc::into_inner(it.0)) else {
            unreachable!("nobody else has it yet");
        };
        inner.guard = Guard::private();
        Self(Arc::new(inner))
    }
}

impl Transport for Bulk {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>> {
        let Self(inner) = self.clone();
        Box::pin(async move { inner.send(request).await })
    }
}

impl Inner {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, HttpError> {
        let url = absolute(request.uri())?;
        // The URL judged is the very value sent: a second parser might read the text in another way.
        self.guard.check(&url)?;
        let request = self.write_out(&url, request)?;
        let answer = self
            .lines
            .send(&url, request, Some(self.read_timeout))
            .await;
        let host = || url.host_str().unwrap_or_default().to_owned();
        match answer {
            Ok(answer) => {
                bound_headers(&host(), answer.headers())?;
                Ok(answer.map(futures::StreamExt::boxed))
            }
            Err(LineError::DialedTooLong) => Err(HttpError::Connect {
                host: host(),
                what: "it took too long".to_owned(),
            }),
            Err(LineError::Dial(cause)) => {
                Err(refusal(&*cause).unwrap_or_else(|| HttpError::Connect {
                    host: host(),
                    what: cause_of(&*cause),
                }))
            }
            Err(LineError::Broken(error)) => Err(broken(&host(), &error)),
            Err(LineError::Timeout) => Err(HttpError::Timeout { host: host() }),
        }
    }

    /// The request in the form in which HTTP/1.1 sends it to an origin, with what is always said.
    fn write_out(
        &self,
        url: &Url,
        request: http::Request<Bytes>,
    ) -> Result<http::Request<Payload>, HttpError> {
        let target = url[Position::BeforePath..Position::AfterQuery].parse();
        let target: http::Uri = target.map_err(|_| unsendable(url))?;
        let authority = &url[Position::BeforeHost..Position::AfterPort];
        let authority = HeaderValue::from_str(authority).map_err(|_| unsendable(url))?;
        let (mut parts, body) = request.into_parts();
        parts.uri = target;
        parts.version = http::Version::HTTP_11;
        let mut say = |name: header::HeaderName, value: HeaderValue| {
            parts.headers.entry(name).or_insert(value);
        };
        say(header::HOST, authority);
        say(header::USER_AGENT, self.user_agent.clone());
        say(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(credentials) = basic(url) {
            say(header::AUTHORIZATION, credentials);
        }
        let body = Full::new(body).map_err(|never| match never {});
        Ok(http::Request::from_parts(parts, body.boxed()))
    }
}

fn unsendable(url: &Url) -> HttpError {
    HttpError::Forbidden {
        host: url.host_str().unwrap_or_default().to_owned(),
        why: "not a URL that HTTP can send",
    }
}

/// What a URL with a name and a password in it stands for.
fn basic(url: &Url) -> Option<HeaderValue> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = url.password().map(decoded);
    if url.username().is_empty() && password.is_none() {
        return None;
    }
    let pair = format!(
        "{}:{}",
        decoded(url.username()),
        password.unwrap_or_default()
    );
    let value = format!("Basic {}", base64::encode(pair));
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
