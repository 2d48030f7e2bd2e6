//! The transport for large bodies: [`Bulk`], HTTP/1.1 over connections that whoever reads the body drives.
//!
//! The client of [`client`](crate::http::client) answers for task APIs. A body of gigabytes is dearer there than it has
//! to be: each record is a call to the kernel, since nothing can be put between its socket and TLS; a task of its own
//! reads each connection and hands every frame over; and its buffers grow to what the peer sends. Here sockets are read
//! in strokes of 128 KiB, one task does it all, and a connection holds no more than a stroke and a frame.
//!
//! ```text
//! line    a connection: resolved, guarded, encrypted, spoken over
//! shelf   those that wait for their next request
//! flow    the body as it comes, which lays its connection onto the shelf at the end
//! ```

mod flow;
mod line;
mod shelf;

use std::sync::Arc;

use aws_smithy_types::base64;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Method;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use url::Position;
use url::Url;

use self::flow::Flow;
use self::line::Dialer;
use self::line::Line;
use self::shelf::Shelf;
use crate::http::Body;
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::client::ClientConfig;
use crate::http::client::ClientError;
use crate::http::client::absolute;
use crate::http::guard::Guard;
use crate::units::Span;

/// What one call to the kernel reads at most: eight records of TLS. It is held by each connection.
const STROKE_BYTES: usize = 128 * 1024;

/// A [`Transport`] over real sockets, for bodies too large to be held.
#[derive(Clone)]
pub struct Bulk(Arc<Inner>);

struct Inner {
    guard: Guard,
    dialer: Dialer,
    shelf: Shelf,
    user_agent: HeaderValue,
    read_timeout: Span,
}

impl Bulk {
    /// Builds a client with connections of its own.
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let user_agent = HeaderValue::from_str(&config.user_agent);
        let user_agent = user_agent.map_err(|error| ClientError::Build(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            guard: config.guard.clone(),
            dialer: Dialer::new(config)?,
            shelf: Shelf::new(),
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
        let host = url.host_str().unwrap_or_default().to_owned();
        let request = self.write_out(&url, request)?;
        if let Some(mut line) = self.shelf.take(&url) {
            match line.ask(&host, request.clone(), self.read_timeout).await {
                Ok(answer) => return Ok(self.flowing(host, &url, answer, line)),
                // The peer hung up while the connection waited, and has not seen the request: asked on another one.
                Err(HttpError::Broken { .. }) if is_read(&request) => {}
                Err(error) => return Err(error),
            }
        }
        let mut line = self.dialer.dial(&url).await?;
        let answer = line.ask(&host, request, self.read_timeout).await?;
        Ok(self.flowing(host, &url, answer, line))
    }

    /// The request in the form in which HTTP/1.1 sends it to an origin, with what is always said.
    fn write_out(
        &self,
        url: &Url,
        request: http::Request<Bytes>,
    ) -> Result<http::Request<Full<Bytes>>, HttpError> {
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
        Ok(http::Request::from_parts(parts, Full::new(body)))
    }

    fn flowing(
        &self,
        host: String,
        url: &Url,
        answer: http::Response<Incoming>,
        line: Line,
    ) -> http::Response<Body> {
        let home = self.shelf.home(url);
        answer.map(|body| Flow::new(host, body, line, home, self.read_timeout).boxed())
    }
}

fn is_read(request: &http::Request<Full<Bytes>>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
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
