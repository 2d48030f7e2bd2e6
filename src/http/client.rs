//! The transport of production: [`Reqwest`], guarded, bounded in time, following and retrying nothing.

mod exchange;

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
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::guard::Guard;
use crate::http::guard::GuardedResolver;
use crate::units::ByteSize;
use crate::units::Span;

/// Who we say we are. Some providers refuse clients that do not say, or say what they are not.
pub const USER_AGENT: &str = concat!("reelvault/", env!("CARGO_PKG_VERSION"));

/// The bound on an answer's headers: names and values together. Real ones take 1 to 4 KiB.
const HEADER_BYTES_MAX: ByteSize = ByteSize::bytes(64 * 1024);

/// The bound on the number of an answer's headers, which holds before they are counted in bytes.
const HEADERS_MAX: usize = 100;

/// Idle connections kept for one host: as many as the widest configuration has transfers in flight.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// The bound on what an error says of its cause: a peer chooses some of these words.
const CAUSE_CHARS_MAX: usize = 200;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// What may be asked.
    pub guard: Guard,
    /// Whether HTTP/2 is offered: good for many small answers, dearer than HTTP/1.1 for large ones.
    pub http2: bool,
    /// How long a connection may take to stand, name resolution and TLS included.
    pub connect_timeout: Span,
    /// How long the headers may take, and then each frame of the body.
    pub read_timeout: Span,
    /// The `User-Agent`; [`USER_AGENT`] unless a provider's configuration says otherwise.
    pub user_agent: String,
    /// Certificates (PEM) of further authorities to trust; may be empty.
    pub extra_roots: Vec<u8>,
}

/// A client that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The further authorities are not PEM certificates.
    #[error("the further certificate authorities are not PEM certificates: {0}")]
    Roots(String),
    /// The rest of the configuration does not do.
    #[error("no HTTP client can be made: {0}")]
    Build(String),
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
        let roots = Certificate::from_pem_bundle(&config.extra_roots);
        let roots = roots.map_err(|error| ClientError::Roots(cause(&error)))?;
        Ok(Self {
            client: build(config, roots)?,
            guard: Arc::new(config.guard.clone()),
        })
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

fn absolute(uri: &http::Uri) -> Result<Url, HttpError> {
    Url::parse(&uri.to_string()).map_err(|_| HttpError::Forbidden {
        host: uri.host().unwrap_or_default().to_owned(),
        why: "not an absolute URL",
    })
}

fn bound_headers(host: &str, headers: &http::HeaderMap) -> Result<(), HttpError> {
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

/// Builds with the machine's certificate authorities, or, where it has none at all, with those compiled in: without
/// any, a client cannot even be built for plain http.
fn build(config: &ClientConfig, extra: Vec<Certificate>) -> Result<reqwest::Client, ClientError> {
    let failed = |error: reqwest::Error| ClientError::Build(cause(&error));
    match builder(config).build() {
        Ok(client) if extra.is_empty() => Ok(client),
        Ok(_) => builder(config)
            .tls_certs_merge(extra)
            .build()
            .map_err(failed),
        Err(_) => {
            let mut roots = compiled_in_roots().map_err(failed)?;
            roots.extend(extra);
            builder(config)
                .tls_certs_only(roots)
                .build()
                .map_err(failed)
        }
    }
}

fn compiled_in_roots() -> Result<Vec<Certificate>, reqwest::Error> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    roots.map(|root| Certificate::from_der(root)).collect()
}

fn builder(config: &ClientConfig) -> ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(&config.user_agent)
        .https_only(!config.guard.allows_private())
        .dns_resolver(GuardedResolver::new(config.guard.clone()))
        // A proxy would connect in our stead, where the guard cannot see the address.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(config.connect_timeout.as_duration())
        .read_timeout(config.read_timeout.as_duration())
        .tcp_nodelay(true)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http1_max_headers(HEADERS_MAX)
        .http2_max_header_list_size(u32::try_from(HEADER_BYTES_MAX.as_u64()).unwrap_or(u32::MAX));
    if config.http2 {
        builder
    } else {
        builder.http1_only()
    }
}

/// The one place where the client library's errors become ours. Takes no text that holds a URL.
fn http_error(host: &str, error: &reqwest::Error) -> HttpError {
    let host = host.to_owned();
    if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>()) {
        refused.clone()
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

/// The causes behind `error`, the nearest first; not `error` itself, whose text holds the URL.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The innermost cause in one bounded line, without what follows a question mark.
fn cause(error: &reqwest::Error) -> String {
    let innermost = causes(error).last().map(ToString::to_string);
    let text = innermost.unwrap_or_else(|| "no cause is known".to_owned());
    let text = text.split('?').next().unwrap_or_default();
    let text = text.chars().take(CAUSE_CHARS_MAX);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
