//! The listener: accepts connections and hands their requests to the routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinError;
use tokio::task::JoinSet;

use crate::simulator::Request;
use crate::simulator::line::Line;
use crate::simulator::line::Wire;
use crate::simulator::provider;
use crate::simulator::world::World;

/// More connections than this wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;

/// After a connection could not be accepted, the next is tried after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Accepts and serves connections for as long as it is polled.
pub(super) async fn accept(listener: TcpListener, world: Arc<World>) {
    let router = provider::router(Arc::clone(&world));
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS_MAX;
        // Both arms are cancel-safe.
        tokio::select! {
            Some(ended) = connections.join_next() => pass_panic(ended),
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone(), Arc::clone(&world)));
                }
                // The peer was gone again, or there are no file descriptors left until some connection ends.
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
}

async fn serve(stream: TcpStream, router: Router, world: Arc<World>) {
    let line = Arc::new(Line::default());
    let service = TowerToHyperService::new(router);
    let with_line = service_fn(|mut request: hyper::Request<Incoming>| {
        world.remember(Request::of(&request));
        request.extensions_mut().insert(Arc::clone(&line));
        service.call(request)
    });
    let nodelay = stream.set_nodelay(true);
    let wire = Wire::new(stream, Arc::clone(&line));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(wire), with_line);
    let served = (&mut connection).await;
    let ended = connection.into_parts().io.into_inner().end();
    // A connection that ends badly is what faults and impatient clients are about.
    tracing::debug!(?nodelay, ?served, ?ended, "connection ended");
}

impl Request {
    fn of(request: &hyper::Request<Incoming>) -> Self {
        let headers = request.headers();
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        Self {
            method: request.method().as_str().to_owned(),
            target: request
                .uri()
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            range: text(header::RANGE),
            if_range: text(header::IF_RANGE),
            user_agent: text(header::USER_AGENT),
            has_authorization: headers.contains_key(header::AUTHORIZATION),
        }
    }
}

/// A panic in one of our own tasks is a fault that no script asked for: whoever joins it goes down too.
pub(super) fn pass_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}
