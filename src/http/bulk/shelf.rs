//! Connections that wait for their next request, by origin, each for a short while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Waker;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Position;
use url::Url;

use super::line::Line;

/// CDNs close idle connections after 5 to 60 s; one that is closed while a request goes out costs another one.
const IDLE: Duration = Duration::from_secs(15);

/// Connections kept for one origin: as many as there can be looks under way at tasks of one provider. The widest
/// configuration has half as many transfers in flight.
const LINES_MAX: usize = 128;

/// The shelf of one client.
#[derive(Clone)]
pub(super) struct Shelf(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    lines: HashMap<String, Vec<(Instant, Line)>>,
    /// Whether a task clears the shelf, which it does while there is something on it. That one has ended is seen too late.
    is_clearing: bool,
    clearing: JoinSet<()>,
}

/// Where a connection goes after its answer.
pub(super) struct Home {
    shelf: Shelf,
    origin: String,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Takes the connection to the origin of `url` that was used last and is still open.
    pub(super) fn take(&self, url: &Url) -> Option<Line> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = waiting.lines.get_mut(origin(url))?;
        while let Some((since, mut line)) = lines.pop() {
            // What the peer has sent meanwhile, its goodbye above all, is read here.
            line.drive(&mut Context::from_waker(Waker::noop()));
            if since.elapsed() < IDLE && line.is_ready() {
                return Some(line);
            }
        }
        None
    }

    pub(super) fn home(&self, url: &Url) -> Home {
        Home {
            shelf: self.clone(),
            origin: origin(url).to_owned(),
        }
    }
}

impl Home {
    /// Lays `line` down, if there is room.
    pub(super) fn lay_down(&self, line: Line) {
        let mut waiting = self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
        let laid = (Instant::now(), line);
        match waiting.lines.get_mut(&self.origin) {
            Some(lines) if lines.len() < LINES_MAX => lines.push(laid),
            Some(_) => {}
            None => drop(waiting.lines.insert(self.origin.clone(), vec![laid])),
        }
        if !waiting.is_clearing {
            waiting.is_clearing = true;
            while waiting.clearing.try_join_next().is_some() {}
            let shelf = Arc::downgrade(&self.shelf.0);
            waiting.clearing.spawn(async move {
                loop {
                    tokio::time::sleep(IDLE).await;
                    let Some(shelf) = shelf.upgrade() else {
                        return;
                    };
                    let mut waiting = shelf.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.clear_old();
                    waiting.is_clearing = !waiting.lines.is_empty();
                    if !waiting.is_clearing {
                        return;
                    }
                }
            });
        }
    }
}

impl Waiting {
    fn clear_old(&mut self) {
        self.lines.retain(|_, lines| {
            lines.retain(|(since, _)| since.elapsed() < IDLE);
            !lines.is_empty()
        });
    }
}

/// Scheme, host and port.
fn origin(url: &Url) -> &str {
    // The guard lets credentials through only where it lets everything through; they are sent with each request.
    &url[..Position::BeforePath]
}
