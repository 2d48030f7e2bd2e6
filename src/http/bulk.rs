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
use std::sync::Mutex;
use std::sync::PoisonError;

use aws_smithy_types::base64;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::TryFutureExt as _;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Method;
use http::header;
use http::uri::Authority;
use http::uri::Scheme;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Full;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use url::Position;
use url::Url;

pub(crate) use self::flow::Flow;
pub(crate) use self::line::Cause;
use self::line::Dialer;
use self::line::Line;
pub(crate) use self::line::LineError;
pub(crate) use self::line::Payload;
use self::line::broken;
use self::shelf::Shelf;
use crate::http::Body;
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::client::ClientConfig;
use crate::http::client::ClientError;
use crate::http::client::bound_headers;
use crate::http::client::cause_of;
use crate::http::client::not_absolute;
use crate::http::client::refusal;
use crate::http::framing::is_framed;
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
    ///
    /// It is boxed: the future would carry room for it at each step, and be more than an allocator is quick with.
    pub(crate) async fn send(
        &self,
        url: &Url,
        mut request: Box<http::Request<Payload>>,
        timeout: Option<Span>,
    ) -> Result<http::Response<Flow>, LineError> {
        if let Some(mut line) = self.0.shelf.take(url) {
            let again = repeated(&request).map(Box::new);
            match within(timeout, line.ask(*request)).await? {
                Ok(answer) => return Ok(self.flowing(url, answer, line, timeout)),
                // The peer hung up while the connection waited: what it has not seen, or only reads, is asked on another.
                Err(mut error) => match error.take_message().map(Box::new).or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(LineError::Broken(error.into_error())),
                },
            }
        }
        // Boxed, or every request would carry the room that only the making of a connection needs.
        let anew = Box::pin(async {
            let mut line = self.0.dialer.dial(url).await?;
            match within(timeout, line.ask(*request)).await? {
                Ok(answer) => Ok(self.flowing(url, answer, line, timeout)),
                Err(error) => Err(LineError::Broken(error.into_error())),
            }
        });
        anew.await
    }

    fn flowing(
        &self,
        url: &Url,
        answer: http::Response<Incoming>,
        line: Line,
        timeout: Option<Span>,
    ) -> http::Response<Flow> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let (home, is_open_ended) = (self.0.shelf.home(url), !is_framed(answer.headers()));
        answer.map(|body| Flow::new(host, body, is_open_ended, line, home, timeout))
    }
}

/// Not an `async fn`, which would keep room for `answer` twice.
fn within<T>(
    timeout: Option<Span>,
    answer: impl Future<Output = T>,
) -> impl Future<Output = Result<T, LineError>> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout.as_duration(), answer)
            .map_err(|_| LineError::Timeout)
            .left_future(),
        None => answer.map(Ok).right_future(),
    }
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
    /// Whom the last request went to: the next most often goes there too.
    latest: Mutex<Option<Arc<Peer>>>,
}

/// Whom requests go to, let through by the guard.
struct Peer {
    scheme: Scheme,
    authority: Authority,
    /// The two above.
    url: Url,
    host: HeaderValue,
    credentials: Option<HeaderValue>,
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
            latest: Mutex::default(),
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
        let peer = match inner.peer(request.uri()) {
            Ok(peer) => peer,
            Err(error) => return futures::future::err(error).boxed(),
        };
        let request = inner.write_out(&peer, request);
        Box::pin(async move { inner.send(&peer.url, request).await })
    }
}

impl Inner {
    async fn send(
        &self,
        url: &Url,
        request: Box<http::Request<Payload>>,
    ) -> Result<http::Response<Body>, HttpError> {
        let answer = self.lines.send(url, request, Some(self.read_timeout)).await;
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

    /// Whom `uri` names, if the guard lets requests through to there.
    fn peer(&self, uri: &http::Uri) -> Result<Arc<Peer>, HttpError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = latest.as_ref().filter(|peer| peer.is_named_by(uri)) {
            return Ok(Arc::clone(peer));
        }
        let peer = Peer::read(uri).ok_or_else(|| not_absolute(uri))?;
        // The URL judged is the very value that is dialled: a second parser might read the text in another way.
        self.guard.check(&peer.url)?;
        Ok(Arc::clone(latest.insert(Arc::new(peer))))
    }

    /// The request in the form in which HTTP/1.1 sends it to `peer`, with what is always said.
    fn write_out(&self, peer: &Peer, request: http::Request<Bytes>) -> Box<http::Request<Payload>> {
        let (mut parts, body) = request.into_parts();
        let target = parts.uri.into_parts().path_and_query;
        parts.uri = target.map_or_else(http::Uri::default, http::Uri::from);
        parts.version = http::Version::HTTP_11;
        let mut say = |name: header::HeaderName, value: HeaderValue| {
            parts.headers.entry(name).or_insert(value);
        };
        say(header::HOST, peer.host.clone());
        say(header::USER_AGENT, self.user_agent.clone());
        say(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(credentials) = &peer.credentials {
            say(header::AUTHORIZATION, credentials.clone());
        }
        let body = Full::new(body).map_err(|never| match never {});
        Box::new(http::Request::from_parts(parts, body.boxed()))
    }
}

impl Peer {
    /// Nothing where `uri` names no host.
    fn read(uri: &http::Uri) -> Option<Self> {
        let (scheme, authority) = (uri.scheme()?, uri.authority()?);
        let url = Url::parse(&format!("{scheme}://{authority}")).ok()?;
        Some(Self {
            scheme: scheme.clone(),
            authority: authority.clone(),
            host: HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()?,
            credentials: basic(&url),
            url,
        })
    }

    fn is_named_by(&self, uri: &http::Uri) -> bool {
        uri.scheme() == Some(&self.scheme)
            // Not as host names are compared: names and passwords before them have capitals that count.
            && uri.authority().map(Authority::as_str) == Some(self.authority.as_str())
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
