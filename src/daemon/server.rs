//! The server: listens on TCP and on a unix socket, lets requests in, and hands them to the rooms that answer.
//!
//! Listeners outlive reloads, and what is behind them is replaced whole: a request that has begun is answered by what
//! was there when it began. Everything is bounded: connections, the time and the bytes of a head, and the time that a
//! peer takes to read its answer. A body is bounded by whoever reads it, since the gateway's pass through.

mod admit;
mod listen;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::admit::Entrance;
pub use self::admit::Rules;
use self::listen::Listener;
use self::listen::Stream;
use self::wire::Wire;
use crate::config::ServerConfig;

/// Connections of one listener at once; more wait in its backlog. Each costs a few KiB while it is idle.
const CONNECTIONS_MAX: usize = 1024;

/// The head of a request must be there after this, which is also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// Request line and headers. Keys and signed links of 2 KiB each have room.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Headers of one request.
const HEADERS_MAX: usize = 100;

/// What hyper buffers of a connection; a streamed body passes in pieces of at most this.
const BUFFER_BYTES_MAX: usize = 128 << 10;

/// A peer that takes nothing of its answer for this long is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// How long requests under way may take once the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// After a connection could not be accepted, the next is tried after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The listeners and what is behind them; clones share both.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listeners: Vec<Listener>,
    face: watch::Sender<Option<Arc<Face>>>,
}

/// What requests meet.
#[derive(Clone, Debug)]
pub struct Face {
    /// Who is let in.
    pub rules: Rules,
    /// What answers.
    pub routes: Router,
}

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {place}: {source}")]
pub struct ListenError {
    /// The key that names it.
    pub key: &'static str,
    /// What the key is set to.
    pub place: String,
    /// Why not.
    pub source: io::Error,
}

impl ListenError {
    /// Whether somebody else listens there.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether a file is in the socket's place.
    pub fn is_no_socket(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

impl Server {
    /// Opens the listeners that `config` names. Nobody is answered before [`Server::serve`].
    pub async fn bind(config: &ServerConfig) -> Result<Self, ListenError> {
        let mut listeners = Vec::new();
        if let Some(address) = config.listen {
            listeners.push(Listener::tcp("server.listen", address).await?);
        }
        if let Some(address) = config.hooks.listen {
            listeners.push(Listener::hooks("server.hooks.listen", address).await?);
        }
        if !config.socket.as_os_str().is_empty() {
            listeners.extend(Listener::unix("server.socket", &config.socket).await?);
        }
        Ok(Self::over(listeners))
    }

    /// A server without listeners, for a daemon that nobody talks to.
    pub fn deaf() -> Self {
        Self::over(Vec::new())
    }

    fn over(listeners: Vec<Listener>) -> Self {
        let (face, _) = watch::channel(None);
        Self(Arc::new(Inner { listeners, face }))
    }

    /// The address of the TCP listener for everything.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.listeners.iter().find_map(Listener::tcp_address)
    }

    /// The address of the TCP listener for webhooks alone.
    pub fn hooks_address(&self) -> Option<SocketAddr> {
        self.0.listeners.iter().find_map(Listener::hooks_address)
    }

    /// The path of the socket.
    pub fn socket(&self) -> Option<&Path> {
        self.0.listeners.iter().find_map(Listener::path)
    }

    /// Puts `face` before whoever comes from now on.
    pub fn show(&self, face: Face) {
        self.0.face.send_replace(Some(Arc::new(face)));
    }

    /// Serves until `stop`, then lets requests under way end for a short time. Waits for the first face.
    pub async fn serve(self, stop: CancellationToken) {
        let mut accepting = JoinSet::new();
        for index in 0..self.0.listeners.len() {
            accepting.spawn(accept(Arc::clone(&self.0), index, stop.clone()));
        }
        while let Some(ended) = accepting.join_next().await {
            pass_panic(ended);
        }
        // A daemon without listeners has a server all the same, which ends when it is told to.
        stop.cancelled().await;
        self.0.listeners.iter().for_each(Listener::remove);
    }
}

/// Accepts and serves the connections of one listener until `stop`.
async fn accept(inner: Arc<Inner>, index: usize, stop: CancellationToken) {
    let mut face = inner.face.subscribe();
    let Some(listener) = inner.listeners.get(index) else {
        return;
    };
    tokio::select! {
        shown = face.wait_for(Option::is_some) => if shown.is_err() { return },
        () = stop.cancelled() => return,
    }
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS_MAX;
        // Every arm is cancel-safe: a token, join_next, and accept.
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => pass_panic(ended),
            accepted = listener.accept(), if has_room => match accepted {
                Ok((Stream::Tcp(stream), entrance)) => {
                    connections.spawn(talk(stream, entrance, inner.face.subscribe(), stop.clone()));
                }
                Ok((Stream::Unix(stream), entrance)) => {
                    connections.spawn(talk(stream, entrance, inner.face.subscribe(), stop.clone()));
                }
                // The peer was gone again, or there are no file descriptors left until some connection ends.
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            pass_panic(ended);
        }
    };
    if tokio::time::timeout(STOP_GRACE, drain).await.is_err() {
        tracing::info!("requests under way are cut off");
    }
}

/// Serves one connection until it ends, or until `stop` and its request under way is answered.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    entrance: Entrance,
    face: watch::Receiver<Option<Arc<Face>>>,
    stop: CancellationToken,
) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let face = face.borrow().clone();
        answer(face, entrance, request.map(Body::new))
    });
    let wire = TokioIo::new(Wire::new(stream, WRITE_PATIENCE));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(wire, service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // What peers do to their connections is theirs to know.
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(
    face: Option<Arc<Face>>,
    entrance: Entrance,
    request: Request,
) -> Result<Response, Infallible> {
    let face = face.expect("nothing is accepted before the first face is shown");
    let (mut parts, body) = request.into_parts();
    match face.rules.admit(&parts, entrance) {
        Ok(admission) => {
            parts.extensions.insert(admission);
            let routes = TowerToHyperService::new(face.routes.clone());
            routes.call(Request::from_parts(parts, body)).await
        }
        Err(problem) => Ok(problem.into_response()),
    }
}

/// A panic in a handler is a fault of ours: whoever joins it goes down too, and is started anew.
fn pass_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}
