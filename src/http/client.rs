//! The transport for task APIs: guarded, bounded in time, following and retrying nothing.

use std::error::Error as StdError;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use reqwest::Certificate;
use reqwest::ClientBuilder;
use url::Url;

use crate::http::Body;
use crate::http::Exchange;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::bulk::Bulk;
use crate::http::guard::Guard;
use crate::http::guard::GuardedResolver;
use crate::http::roots::Roots;
use crate::units::ByteSize;
use crate::units::Span;

/// Who we say we are. Some providers refuse clients that do not say, or say what they are not.
pub const USER_AGENT: &str = concat!("reelvault/", env!("CARGO_PKG_VERSION"));

/// The bound on an answer's headers: names and values together. Real ones take 1 to 4 KiB.
const HEADER_BYTES_MAX: ByteSize = ByteSize::bytes(64 * 1024);

/// The bound on the number of an answer's headers, which holds before they are counted in bytes.
pub(super) const HEADERS_MAX: usize = 256;

/// Idle connections kept for one host: as many as there can be looks under way at tasks of one provider. With fewer, each
/// burst of looks would begin with new connections.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// The bound on what an error says of its cause: a peer chooses some of these words.
const CAUSE_CHARS_MAX: usize = 200;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// What may be asked.
    pub guard: Guard,
    /// What it is for.
    pub traffic: Traffic,
    /// How long a connection may take to stand, name resolution and TLS included.
    pub connect_timeout: Span,
    /// How long the headers may take, and then each frame of the body.
    pub read_timeout: Span,
    /// The `User-Agent`; [`USER_AGENT`] unless a provider's configuration says otherwise.
    pub user_agent: String,
    /// Who is trusted.
    pub roots: Roots,
}

/// What a client is for, which decides how it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Answers that are read whole or passed on: [`Reqwest`], which offers HTTP/2.
    Answers,
    /// Many small answers: the same, and [`Bulk`] to peers that cannot speak HTTP/2.
    Looks,
    /// Large bodies: [`Bulk`]. HTTP/2 would cost more for its windows than the connections that it saves.
    Files,
}

/// A client that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration does not do.
    #[error("no HTTP client can be made: {0}")]
    Build(String),
}

/// Builds the client that `config` describes, with connections of its own.
pub fn connect(config: &ClientConfig) -> Result<Http, ClientError> {
    match config.traffic {
        Traffic::Answers => Ok(Http::new(Reqwest::new(config)?)),
        Traffic::Looks => Ok(Http::new(Looks {
            encrypted: Reqwest::new(config)?,
            plain: Bulk::new(config)?,
        })),
        Traffic::Files => Ok(Http::new(Bulk::new(config)?)),
    }
}

/// Without encryption no peer speaks HTTP/2. Over a connection for each request, to drive it in place takes a quarter less
/// than a client does with its pool and a task for each connection.
struct Looks {
    encrypted: Reqwest,
    plain: Bulk,
}

impl Transport for Looks {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>> {
        if request.uri().scheme() == Some(&http::uri::Scheme::HTTP) {
            self.plain.send(request)
        } else {
            self.encrypted.send(request)
        }
    }
}

/// A [`Transport`] over real sockets.
#[derive(Clone, Debug)]
pub struct Reqwest {
    client: reqwest::Client,
    guard: Arc<Guard>,
}

impl Reqwest {
    /// Builds a client with connections of its own.
    pub fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let client = builder(config)?.build();
        let client = client.map_err(|error| ClientError::Build(cause(&error)))?;
        Ok(Self {
            client,
            guard: Arc::new(config.guard.clone()),
        })
    }

    async fn exchange(
        self,
        request: http::Request<reqwest::Body>,
    ) -> Result<http::Response<Body>, HttpError> {
        let (parts, body) = request.into_parts();
        let url = absolute(&parts.uri)?;
        // The URL judged is the very value sent: a second parser might read the text in another way.
        self.guard.check(&url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = Some(body);
        let answer = self.client.execute(outgoing).await;
        let answer = answer.map_err(|error| http_error(&host, &error))?;
        bound_headers(&host, answer.headers())?;
        let answer = http::Response::<reqwest::Body>::from(answer);
        Ok(answer.map(|body| stream(host, body)))
    }
}

impl Transport for Reqwest {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>> {
        Box::pin(self.clone().exchange(request.map(Into::into)))
    }

    fn send_streaming(
        &self,
        request: http::Request<Body>,
    ) -> Result<Exchange, Box<http::Request<Body>>> {
        let request = request.map(reqwest::Body::wrap_stream);
        Ok(Box::pin(self.clone().exchange(request)))
    }
}

/// The URL of a request, if it is one that names its host.
fn absolute(uri: &http::Uri) -> Result<Url, HttpError> {
    Url::parse(&uri.to_string()).map_err(|_| not_absolute(uri))
}

/// The error for a URL that names no host.
pub(super) fn not_absolute(uri: &http::Uri) -> HttpError {
    HttpError::Forbidden {
        host: uri.host().unwrap_or_default().to_owned(),
        why: "not an absolute URL",
    }
}

pub(super) fn bound_headers(host: &str, headers: &http::HeaderMap) -> Result<(), HttpError> {
    let lengths = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    if lengths.sum::<usize>() <= HEADER_BYTES_MAX.as_usize() {
        Ok(())
    } else {
        Err(HttpError::Broken {
            host: host.to_owned(),
            what: format!("headers of more than {HEADER_BYTES_MAX}"),
        })
    }
}

/// The frames as the socket gave them, uncopied.
fn stream(host: String, body: reqwest::Body) -> Body {
    let frames = http_body_util::BodyDataStream::new(body);
    frames
        .map_err(move |error| http_error(&host, &error))
        .boxed()
}

fn builder(config: &ClientConfig) -> Result<ClientBuilder, ClientError> {
    let roots: Result<Vec<_>, _> = config
        .roots
        .iter()
        .map(|root| Certificate::from_der(root))
        .collect();
    let roots = roots.map_err(|error| ClientError::Build(cause(&error)))?;
    Ok(reqwest::Client::builder()
        .user_agent(&config.user_agent)
        .https_only(!config.guard.allows_private())
        .dns_resolver(GuardedResolver::new(config.guard.clone()))
        // A proxy would connect in our stead, where the guard cannot see the address.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // Both: the second spares a copy of each request, which the first would keep.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .referer(false)
        .connect_timeout(config.connect_timeout.as_duration())
        .read_timeout(config.read_timeout.as_duration())
        .tcp_nodelay(true)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http1_max_headers(HEADERS_MAX)
        .http2_max_header_list_size(u32::try_from(HEADER_BYTES_MAX.as_u64()).unwrap_or(u32::MAX))
        .tls_certs_only(roots))
}

/// The one place where the client library's errors become ours. Takes no text that holds a URL.
fn http_error(host: &str, error: &reqwest::Error) -> HttpError {
    let host = host.to_owned();
    if let Some(refused) = refusal(error) {
        refused
    } else if error.is_connect() {
        let what = if error.is_timeout() {
            "it took too long".to_owned()
        } else {
            cause(error)
        };
        HttpError::Connect { host, what }
    } else if error.is_timeout() {
        HttpError::Timeout { host }
    } else {
        let what = cause(error);
        HttpError::Broken { host, what }
    }
}

/// The guard's own words, where they are behind `error`.
pub(super) fn refusal(error: &(dyn StdError + 'static)) -> Option<HttpError> {
    causes(error).find_map(|cause| cause.downcast_ref().cloned())
}

/// What `error` says innermost. Not for an error whose own text holds a URL and that has no cause: see [`cause`].
pub(super) fn cause_of(error: &(dyn StdError + 'static)) -> String {
    one_line(&causes(error).last().unwrap_or(error).to_string())
}

/// The innermost cause; not the error itself, whose text holds the URL.
fn cause(error: &reqwest::Error) -> String {
    let innermost = causes(error).last().map(ToString::to_string);
    one_line(&innermost.unwrap_or_else(|| "no cause is known".to_owned()))
}

/// The causes behind `error`, the nearest first.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// One bounded line, without what follows a question mark.
fn one_line(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    let text = text.chars().take(CAUSE_CHARS_MAX);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
