//! How everything stands, read from the manifest by one reading at a time for all who ask, and kept for a while: however
//! many look at the page and scrape, it costs what one costs. A manifest that hangs delays nobody for long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::report::status::Status;
use crate::telemetry::metrics::number;
use crate::units::Span;

/// How long whoever asks waits for the manifest: well within the 10 s that Prometheus gives.
const PATIENCE: Duration = Duration::from_secs(2);

/// And for so many times what reading it took, so that a large manifest is not read all the time.
const REST: u32 = 20;

/// Over how long the rate of archiving is measured.
const RATE_OVER: Duration = Duration::from_mins(5);

/// Measurements of it that are kept.
const MEASUREMENTS: usize = 512;

/// How everything stands. A clone is the same.
#[derive(Clone)]
pub struct Overview(Arc<Inner>);

struct Inner {
    manifest: Manifest,
    clock: Clock,
    warn: Span,
    desk: Arc<Desk>,
    /// The one reading that may be under way. It ends by itself, whoever waits for it, and at the latest with us.
    running: Mutex<JoinSet<()>>,
}

/// Where what is known lies.
struct Desk {
    known: Mutex<Known>,
    /// Changes when a reading has ended.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    status: Option<(Arc<Status>, Instant)>,
    is_answering: bool,
    is_being_read: bool,
    /// How long the last reading took, and when it ended.
    last: Option<(Duration, Instant)>,
    /// When how many bytes were archived.
    archived: VecDeque<(Instant, u64)>,
}

/// What is known now.
#[derive(Clone)]
pub struct Seen {
    /// What the manifest said last, and how long ago that is; none before the first time.
    pub status: Option<(Arc<Status>, Duration)>,
    /// Whether it answered in time when it was last asked.
    pub is_answering: bool,
    /// Bytes that were archived in a second of the last minutes, by all machines together.
    pub bytes_a_second: f64,
}

impl Overview {
    /// Nothing is read yet. What dies within `warn` is at risk.
    pub fn new(manifest: Manifest, clock: Clock, warn: Span) -> Self {
        Self(Arc::new(Inner {
            manifest,
            clock,
            warn,
            desk: Arc::new(Desk {
                known: Mutex::default(),
                ended: watch::channel(0).0,
            }),
            running: Mutex::default(),
        }))
    }

    /// How everything stands, or stood at most `kept` ago; older where the manifest does not answer, or takes so long
    /// that it has to be spared.
    pub async fn see(&self, kept: Duration) -> Seen {
        let desk = &self.0.desk;
        let mut ended = desk.ended.subscribe();
        let is_fresh = {
            let mut known = desk.known();
            let is_fresh = known.is_fresh(kept);
            if !is_fresh && !known.is_being_read {
                known.is_being_read = true;
                self.begin_reading();
            }
            is_fresh
        };
        if !is_fresh
            && tokio::time::timeout(PATIENCE, ended.changed())
                .await
                .is_err()
        {
            desk.known().is_answering = false;
        }
        desk.known().seen()
    }

    fn begin_reading(&self) {
        let mut running = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The one before has ended, or this would not be wanted.
        while running.try_join_next().is_some() {}
        let (manifest, desk) = (self.0.manifest.clone(), Arc::clone(&self.0.desk));
        let (now, warn) = (self.0.clock.now(), self.0.warn);
        running.spawn(async move {
            let begun = Instant::now();
            let read = Status::read(&manifest, now, warn, true).await;
            desk.known().take(read, begun.elapsed());
            desk.ended
                .send_modify(|count| *count = count.wrapping_add(1));
        });
    }
}

impl Desk {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_fresh(&self, kept: Duration) -> bool {
        self.last
            .is_some_and(|(took, at)| at.elapsed() < kept.max(took.saturating_mul(REST)))
    }

    /// Takes what a reading brought that took so long.
    fn take(&mut self, read: Result<Status, ManifestError>, took: Duration) {
        let now = Instant::now();
        self.is_being_read = false;
        self.last = Some((took, now));
        self.is_answering = read.is_ok();
        let Ok(status) = read else { return };
        self.archived.push_back((now, status.tally.bytes_archived));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > RATE_OVER;
        // The one before the oldest that counts stays: the rate is measured from there.
        while self.archived.len() > MEASUREMENTS
            || self.archived.get(1).is_some_and(|(at, _)| is_old(at))
        {
            self.archived.pop_front();
        }
        self.status = Some((Arc::new(status), now));
    }

    fn seen(&self) -> Seen {
        let status = self.status.as_ref();
        Seen {
            status: status.map(|(status, at)| (Arc::clone(status), at.elapsed())),
            is_answering: self.is_answering,
            bytes_a_second: self.bytes_a_second(),
        }
    }

    /// How fast bytes were archived between the oldest measurement and the newest.
    fn bytes_a_second(&self) -> f64 {
        let (Some((from, before)), Some((to, now))) = (self.archived.front(), self.archived.back())
        else {
            return 0.0;
        };
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        if seconds > 0.0 {
            number(now.saturating_sub(*before)) / seconds
        } else {
            0.0
        }
    }
}
