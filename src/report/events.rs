//! What happens, as it happens: a stream of server-sent events that a page or a program follows.
//!
//! What is in the outbox comes with its number, under which a stream that broke goes on (`Last-Event-ID`). Between such
//! events a nameless `moved` says at most every two seconds that something is on its way, so that who shows it looks anew.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::response::sse::Event as Sent;
use axum::response::sse::KeepAlive;
use axum::response::sse::Sse;
use axum::routing::get;
use futures::Stream;
use futures::stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::problem::Problem;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::event::Event;
use crate::manifest::row::event::EventFilter;
use crate::model::asset::AssetIndex;
use crate::model::event::EventKind;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;

/// Streams at once. Each looks at the manifest when something was written.
const STREAMS: usize = 64;

/// Events read at once: what a stream holds in memory.
const PAGE: usize = 100;

/// A stream looks again after this even if nothing was written here: another machine may have.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// And no more often than this, however much is written.
const LOOK_GAP: Duration = Duration::from_millis(250);

/// A line that says nothing goes out after this, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Numbers that are looked at again behind the last one: on a server, a lower number may be committed later.
const BEHIND: i64 = 64;

/// Tells whether bytes move now.
pub type IsMoving = Box<dyn Fn() -> bool + Send + Sync>;

/// What streams need.
pub struct Events {
    manifest: Manifest,
    clock: Clock,
    is_moving: IsMoving,
    stop: CancellationToken,
    room: Arc<Semaphore>,
}

/// One stream.
struct Follower {
    events: Arc<Events>,
    _room: OwnedSemaphorePermit,
    changes: tokio::sync::watch::Receiver<u64>,
    /// The highest number that was told.
    after: Option<i64>,
    /// Where it began: behind this number, and where it was given none at this instant.
    floor: i64,
    since: Option<Timestamp>,
    /// Numbers that were told and may be met again.
    told: BTreeSet<i64>,
    ready: std::vec::IntoIter<Sent>,
    looked_at: Option<Instant>,
}

/// An event as it is told.
#[derive(Debug, Serialize)]
pub struct Told {
    event: i64,
    kind: EventKind,
    at: Timestamp,
    provider: ProviderName,
    task_id: TaskId,
    asset: Option<AssetIndex>,
    reason: Option<String>,
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self {
            event: event.number,
            kind: event.kind,
            at: event.at,
            provider: event.task.provider,
            task_id: event.task.id,
            asset: event.index,
            reason: event.reason,
        }
    }
}

impl Events {
    /// Streams over `manifest` that end with `stop`.
    pub fn new(
        manifest: Manifest,
        clock: Clock,
        is_moving: IsMoving,
        stop: CancellationToken,
    ) -> Self {
        Self {
            manifest,
            clock,
            is_moving,
            stop,
            room: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}

/// The stream.
pub fn router(events: Events) -> Router {
    Router::new()
        .route("/api/v1/events", get(follow))
        .with_state(Arc::new(events))
}

async fn follow(
    State(events): State<Arc<Events>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = match headers.get("last-event-id") {
        None => None,
        Some(id) => {
            let number = id.to_str().ok().and_then(|id| id.parse::<i64>().ok());
            let number = number.filter(|number| *number >= 0);
            Some(
                number
                    .ok_or_else(|| Problem::bad_request(format!("{id:?} is no event's number")))?,
            )
        }
    };
    let follower = Follower::new(events, after)?;
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(follower.stream())
        .keep_alive(alive)
        .into_response())
}

impl Follower {
    /// A stream of what comes behind the event `after`, or of what happens from now on.
    fn new(events: Arc<Events>, after: Option<i64>) -> Result<Self, Problem> {
        let Ok(room) = Arc::clone(&events.room).try_acquire_owned() else {
            let what = format!("{STREAMS} streams are open already");
            return Err(Problem::unavailable(what));
        };
        Ok(Self {
            changes: events.manifest.changes(),
            since: after.is_none().then(|| events.clock.now()),
            events,
            _room: room,
            after,
            floor: after.unwrap_or(0),
            told: BTreeSet::new(),
            ready: Vec::new().into_iter(),
            looked_at: None,
        })
    }

    fn stream(self) -> impl Stream<Item = Result<Sent, Infallible>> {
        stream::unfold(self, async |mut follower| {
            let next = follower.next().await?;
            Some((Ok(next), follower))
        })
    }

    /// The next thing to tell; none when the daemon stops.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(sent) = self.ready.next() {
                return Some(sent);
            }
            if !self.wait().await {
                return None;
            }
            // Before the look, so that what is written meanwhile is a change.
            let has_changed = self.changes.has_changed().unwrap_or(false);
            self.changes.mark_unchanged();
            let mut ready = match self.look().await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::debug!(%error, "a stream of events is behind");
                    Vec::new()
                }
            };
            if ready.is_empty() && (has_changed || (self.events.is_moving)()) {
                ready.push(Sent::default().event("moved").data("{}"));
            }
            self.ready = ready.into_iter();
        }
    }

    /// Waits until there may be news. Whether the stream goes on.
    async fn wait(&mut self) -> bool {
        let stop = &self.events.stop;
        let Some(looked_at) = self.looked_at.replace(Instant::now()) else {
            return !stop.is_cancelled();
        };
        // Every arm is cancel-safe: a token, a watch, timers.
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep_until(looked_at + LOOK_EVERY) => {}
            _ = self.changes.changed() => {
                self.changes.mark_changed();
                tokio::select! {
                    () = stop.cancelled() => return false,
                    () = tokio::time::sleep_until(looked_at + LOOK_GAP) => {}
                }
            }
        }
        self.looked_at = Some(Instant::now());
        !stop.is_cancelled()
    }

    /// What was not told yet, a page at most.
    async fn look(&mut self) -> Result<Vec<Sent>, ManifestError> {
        let most = PAGE + usize::try_from(BEHIND).unwrap_or(PAGE);
        let behind = self.after.unwrap_or(0).saturating_sub(BEHIND);
        let filter = EventFilter {
            after: Some(behind.max(self.floor)),
            since: self.since,
            ..EventFilter::default()
        };
        let found = self.events.manifest.events(&filter, most).await?;
        if found.len() == most {
            // There is more: a stream that is behind waits for nothing but its reader.
            self.looked_at = None;
        }
        let mut ready = Vec::new();
        for event in found.into_iter().map(|record| record.event) {
            let number = event.number;
            if !self.told.insert(number) {
                continue;
            }
            self.after = self.after.max(Some(number));
            ready.push(sent(event));
        }
        let oldest = self.after.unwrap_or_default().saturating_sub(BEHIND);
        self.told = self.told.split_off(&oldest);
        Ok(ready)
    }
}

fn sent(event: Event) -> Sent {
    let number = event.number;
    let json =
        serde_json::to_string(&Told::from(event)).expect("words and numbers make a document");
    Sent::default().id(number.to_string()).data(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use crate::manifest::Access;
    use crate::manifest::row::NewTask;
    use crate::model::deadline::Deadline;
    use crate::model::deadline::DeadlineSource;
    use crate::model::task::LearnedVia;
    use crate::model::task::Tags;
    use crate::model::task::TaskKey;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_behind_waits_for_nothing() {
        const EVENTS: usize = 10 * PAGE;
        let folder = tempfile::tempdir().unwrap();
        let config = manifest::Config {
            url: format!("sqlite:{}/manifest.db", folder.path().display()),
            ..manifest::Config::of_tests()
        };
        let clock = Clock::new(|| Timestamp::EPOCH);
        let manifest = Manifest::open_inline(&config, &clock, Access::Daemon).unwrap();
        let task = |number: usize| NewTask {
            key: TaskKey {
                provider: "evolink".parse().unwrap(),
                id: format!("t-{number}").parse().unwrap(),
            },
            tags: Tags::new(),
            via: LearnedVia::Api,
            next_look_at: Timestamp::EPOCH,
            deadline: Deadline {
                at: Timestamp::EPOCH,
                from: DeadlineSource::Learned,
            },
            callback: None,
        };
        manifest
            .learn((0..EVENTS).map(task).collect())
            .await
            .unwrap();
        let stop = CancellationToken::new();
        let events = Events::new(manifest, clock, Box::new(|| false), stop.clone());
        let mut follower = Follower::new(Arc::new(events), Some(0)).unwrap();
        let began = Instant::now();
        for _ in 0..EVENTS {
            assert!(follower.next().await.is_some());
        }
        assert!(began.elapsed() < LOOK_EVERY);
        stop.cancel();
        assert!(follower.next().await.is_none());
    }
}
