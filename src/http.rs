//! Tools for HTTP. As a client: the transport, bodies, the pace of calls, and the guard against inside addresses. As a
//! server: how requests come in, and problems that go out. For both: signatures of webhooks.
//!
//! Ports never see a client library: they hold an [`Http`], which a simulation can own as well.

pub mod body;
pub mod bulk;
pub mod client;
pub mod framing;
pub mod guard;
pub mod pace;
pub mod problem;
pub mod request;
pub mod roots;
pub mod standard_webhooks;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::units::ByteSize;

/// The bytes of an answer as they come, each frame as the socket gave it.
pub type Body = BoxStream<'static, Result<Bytes, HttpError>>;

/// A request under way.
pub type Exchange = BoxFuture<'static, Result<http::Response<Body>, HttpError>>;

/// The most of a body that is read into memory where the transport cannot send it while it comes.
const STREAMED_BYTES_MAX: ByteSize = ByteSize::mib(16);

/// What sends one request and follows nothing: no redirect, no retry, no proxy.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`; the answer comes when its headers are there.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>>;

    /// Sends `request` while its body comes; a transport that cannot gives it back.
    fn send_streaming(
        &self,
        request: http::Request<Body>,
    ) -> Result<Exchange, Box<http::Request<Body>>> {
        Err(Box::new(request))
    }
}

/// A shared handle on a transport.
#[derive(Clone)]
pub struct Http(Arc<dyn Transport>);

impl Http {
    /// Wraps `transport`.
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(transport))
    }

    /// Sends `request`; the answer comes when its headers are there.
    pub async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, HttpError> {
        self.0.send(request).await
    }

    /// Sends `request` while its body comes. Its length is what `Content-Length` says; without that it goes in chunks.
    pub async fn send_streaming(
        &self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, HttpError> {
        match self.0.send_streaming(request) {
            Ok(exchange) => exchange.await,
            Err(request) => {
                let (head, body) = request.into_parts();
                let body = body::collect(body, STREAMED_BYTES_MAX).await?;
                self.0.send(http::Request::from_parts(head, body)).await
            }
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

/// Why a request or its body came to nothing. Never holds a URL's query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The guard refuses the address.
    #[error("{host} is not allowed: {why}")]
    Forbidden {
        /// The host in question.
        host: String,
        /// Which rule.
        why: &'static str,
    },
    /// No connection: name resolution, refusal, TLS.
    #[error("no connection to {host}: {what}")]
    Connect {
        /// The host in question.
        host: String,
        /// What failed.
        what: String,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for too long")]
    Timeout {
        /// The host in question.
        host: String,
    },
    /// The exchange broke off.
    #[error("{host} broke off: {what}")]
    Broken {
        /// The host in question.
        host: String,
        /// What broke.
        what: String,
    },
    /// A body over the bound that the caller gave.
    #[error("the answer is larger than {0}")]
    TooLarge(ByteSize),
}
