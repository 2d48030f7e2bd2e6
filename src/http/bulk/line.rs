//! A connection: made under the guard, read in long strokes, driven by whoever waits for its answers.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper::client::conn::http1::Connection;
use hyper::client::conn::http1::SendRequest;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service as _;
use url::Host;
use url::Url;

use super::tls::TlsSocket;
use crate::http::HttpError;
use crate::http::client::ClientError;
use crate::http::client::HEADERS_MAX;
use crate::http::client::cause_of;
use crate::http::guard::Guard;
use crate::http::guard::GuardedResolver;
use crate::http::roots::Roots;
use crate::units::Span;

/// What hyper reads into, once a peer fills it: a frame is at most twice as long.
const BUFFER_MAX: usize = 64 * 1024;

/// A peer whose machine is gone is found out after a few of these, even where a time-out is long.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How many: what the kernel does by itself takes eleven minutes.
const KEEPALIVES: u32 = 4;

/// Either kind of socket.
trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

type Wire = TokioIo<Box<dyn Socket>>;

/// Why a body or a connection broke.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request.
pub(crate) type Payload = BoxBody<Bytes, Cause>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// No connection stands.
    #[error("no connection")]
    Dial(#[source] Cause),
    /// No connection stands yet.
    #[error("the connection took too long")]
    DialedTooLong,
    /// The connection broke, or the request's body did.
    #[error(transparent)]
    Broken(hyper::Error),
    /// The headers took too long.
    #[error("no answer in time")]
    Timeout,
}

/// Makes connections.
pub(super) struct Dialer {
    tcp: HttpConnector<GuardedResolver>,
    tls: Arc<rustls::ClientConfig>,
    timeout: Span,
}

impl Dialer {
    pub(super) fn new(guard: Guard, roots: &Roots, timeout: Span) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new_with_resolver(GuardedResolver::new(guard));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVES));
        // Of several addresses each has its share of this, or a dead one would hide the others.
        tcp.set_connect_timeout(Some(timeout.as_duration()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let built = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions();
        let built = built.map_err(|error| ClientError::Build(error.to_string()))?;
        let mut tls = built
            .with_root_certificates(roots.store())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tcp,
            tls: Arc::new(tls),
            timeout,
        })
    }

    /// Connects to the origin of `url`, which the guard has let through.
    pub(super) async fn dial(&self, url: &Url) -> Result<Line, LineError> {
        let dialed = tokio::time::timeout(self.timeout.as_duration(), self.connect(url)).await;
        let dialed = dialed.map_err(|_| LineError::DialedTooLong)?;
        dialed.map_err(LineError::Dial)
    }

    async fn connect(&self, url: &Url) -> Result<Line, Cause> {
        let tcp = self.tcp.clone().call(url.as_str().parse()?).await?;
        let tcp = tcp.into_inner();
        if url.scheme() != "https" {
            return Ok(Line::over(Box::new(tcp)).await?);
        }
        let socket = TlsSocket::connect(tcp, Arc::clone(&self.tls), server_name(url)?).await?;
        Ok(Line::over(Box::new(socket)).await?)
    }
}

fn server_name(url: &Url) -> io::Result<ServerName<'static>> {
    match url.host() {
        Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).map_err(io::Error::other),
        Some(Host::Ipv4(ip)) => Ok(ServerName::from(std::net::IpAddr::V4(ip))),
        Some(Host::Ipv6(ip)) => Ok(ServerName::from(std::net::IpAddr::V6(ip))),
        None => Err(io::Error::other("a URL without a host")),
    }
}

/// One connection, with nobody behind it: it moves only while something of it is polled.
pub(crate) struct Line {
    requests: SendRequest<Payload>,
    /// Nothing once the connection has ended. Boxed, since it goes from hand to hand with each request.
    connection: Option<Box<Connection<Wire, Payload>>>,
}

impl Line {
    async fn over(socket: Box<dyn Socket>) -> hyper::Result<Self> {
        let (requests, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .max_headers(HEADERS_MAX)
            // File names that are made of prompts end up in headers, whatever is in them: a line that cannot be read says
            // nothing of the body.
            .ignore_invalid_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(socket))
            .await?;
        Ok(Self {
            requests,
            connection: Some(Box::new(connection)),
        })
    }

    /// Sends `request`; the answer comes when its headers are there. A request of which nothing was sent comes back.
    pub(super) fn ask(
        &mut self,
        request: http::Request<Payload>,
    ) -> impl Future<Output = Result<http::Response<Incoming>, TrySendError<http::Request<Payload>>>>
    {
        let mut answer = Box::pin(self.requests.try_send_request(request));
        let connection = &mut self.connection;
        poll_fn(move |cx| {
            drive(connection, cx);
            answer.as_mut().poll(cx)
        })
    }

    /// Moves bytes as far as they go now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.connection, cx);
    }

    /// Whether it can take another request.
    pub(super) fn is_ready(&self) -> bool {
        self.connection.is_some() && self.requests.is_ready()
    }
}

/// An error of the connection is told to the request or the body as well, so the one here says nothing new.
fn drive(connection: &mut Option<Box<Connection<Wire, Payload>>>, cx: &mut Context<'_>) {
    if let Some(open) = connection
        && Pin::new(open).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// What hyper says of a broken exchange, in our terms.
pub(super) fn broken(host: &str, error: &hyper::Error) -> HttpError {
    HttpError::Broken {
        host: host.to_owned(),
        what: cause_of(error),
    }
}

/// Whether the peer closed the connection, and said nothing before where it should have.
pub(super) fn is_hang_up(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::UnexpectedEof)
}
