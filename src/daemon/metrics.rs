//! `/metrics`: what was counted, with what stands now read beside it.
//!
//! The manifest is asked by one reading at a time, for all who ask, and rests after it: however many scrape, it costs
//! what one costs. A manifest that hangs delays nobody for long. What it said last is told again, with its age.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::archive::gauge::Gauge;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::daemon::health::Refusals;
use crate::intake::gateway::Count;
use crate::intake::gateway::Counts;
use crate::intake::gateway::Gateway;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Tally;
use crate::manifest::row::machine::MachineRecord;
use crate::model::asset::AssetState;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::model::task::TaskState;
use crate::provider::Provider;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::Readings;
use crate::telemetry::metrics::names;
use crate::telemetry::metrics::number;
use crate::units::Span;
use crate::work::budget::Budget;
use crate::work::driver::Pulse;

/// How long a scrape waits for the manifest: well within the 10 s that Prometheus gives.
const PATIENCE: Duration = Duration::from_secs(2);

/// The manifest's numbers are good for this long.
const KEPT: Duration = Duration::from_secs(5);

/// And for so many times what reading them took, so that a large manifest is not read all the time.
const REST: u32 = 20;

/// Risks that are counted.
const RISKS_MAX: usize = 1000;

/// Machines with a series of their own. More are in the sum alone: where names are drawn anew at each start, they pile up.
const MACHINES_MAX: usize = 100;

/// Over how long the rate of archiving is measured.
const RATE_OVER: Duration = Duration::from_mins(5);

/// Measurements of it that are kept: one for each reading, while nobody reads more often than every [`KEPT`].
const MEASUREMENTS: usize = 61;

/// What a scrape reads.
pub(super) struct ScrapeParts {
    pub(super) metrics: Metrics,
    pub(super) manifest: Manifest,
    pub(super) providers: BTreeMap<ProviderName, Provider>,
    pub(super) destinations: Vec<DestinationName>,
    pub(super) refusals: Refusals,
    pub(super) gauge: Gauge,
    pub(super) budget: Budget,
    pub(super) gateway: Gateway,
    pub(super) submissions: Counts,
    /// `deadline.warn`
    pub(super) warn: Span,
    pub(super) clock: Clock,
}

/// What answers.
pub(super) struct Scrape {
    parts: ScrapeParts,
    pulses: Mutex<Vec<(&'static str, Pulse)>>,
    manifest: Arc<Desk>,
    /// The one reading that may be under way. It ends by itself, whoever waits for it, and at the latest with us.
    running: Mutex<JoinSet<()>>,
}

/// Where what is known of the manifest lies.
struct Desk {
    known: Mutex<Known>,
    /// Changes when a reading has ended.
    ended: watch::Sender<u64>,
}

/// What is known of the manifest.
#[derive(Default)]
struct Known {
    numbers: Option<(Numbers, Instant)>,
    /// Whether the last reading brought numbers, in time.
    is_answering: bool,
    is_being_read: bool,
    /// When the manifest may be read again.
    rests_until: Option<Instant>,
    /// When how many bytes were archived.
    archived: VecDeque<(Instant, u64)>,
}

/// What the manifest says.
struct Numbers {
    tally: Tally,
    at_risk: usize,
    machines: Vec<MachineRecord>,
}

/// `/metrics`.
pub(super) fn router(scrape: Scrape) -> Router {
    Router::new()
        .route("/metrics", get(tell))
        .with_state(Arc::new(scrape))
}

async fn tell(State(scrape): State<Arc<Scrape>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape.text().await)
}

impl Scrape {
    pub(super) fn new(parts: ScrapeParts) -> Self {
        for provider in parts.providers.keys() {
            parts.metrics.know_provider(provider);
        }
        Self {
            parts,
            pulses: Mutex::default(),
            manifest: Arc::new(Desk {
                known: Mutex::default(),
                ended: watch::channel(0).0,
            }),
            running: Mutex::default(),
        }
    }

    /// Tells which stages there are.
    pub(super) fn watch_over(&self, pulses: &[(&'static str, Pulse)]) {
        *self.pulses.lock().unwrap_or_else(PoisonError::into_inner) = pulses.to_vec();
    }

    async fn text(&self) -> String {
        self.ask_manifest().await;
        let mut readings = Readings::new();
        self.read_daemon(&mut readings);
        self.read_known(&mut readings);
        self.parts.metrics.text(&readings)
    }

    /// Has the manifest's numbers read, unless those that are known are good still; waits for it within bounds.
    async fn ask_manifest(&self) {
        let mut ended = self.manifest.ended.subscribe();
        {
            let mut known = self.manifest.known();
            let now = Instant::now();
            if known.rests_until.is_some_and(|until| now < until) {
                return;
            }
            if !known.is_being_read {
                known.is_being_read = true;
                self.begin_reading();
            }
        }
        if tokio::time::timeout(PATIENCE, ended.changed())
            .await
            .is_err()
        {
            self.manifest.known().is_answering = false;
        }
    }

    fn begin_reading(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // The one before has ended, or this would not be wanted.
        while running.try_join_next().is_some() {}
        let manifest = self.parts.manifest.clone();
        let before = self.parts.clock.now().plus(self.parts.warn);
        let desk = Arc::clone(&self.manifest);
        running.spawn(async move {
            let begun = Instant::now();
            let read = Numbers::read(&manifest, before).await;
            desk.known().take(read, begun.elapsed());
            desk.ended
                .send_modify(|count| *count = count.wrapping_add(1));
        });
    }

    /// What this daemon knows by itself.
    fn read_daemon(&self, readings: &mut Readings) {
        let parts = &self.parts;
        let mut moving: BTreeMap<String, u32> = BTreeMap::new();
        for transfer in parts.gauge.now() {
            *moving.entry(transfer.destination.to_string()).or_default() += 1;
        }
        let names = || parts.destinations.iter().map(ToString::to_string);
        let moved = names().map(|name| (name.clone(), moving.get(&name).copied().unwrap_or(0)));
        let moved = moved.map(|(name, count)| (name, f64::from(count)));
        readings.each(names::TRANSFERS_ACTIVE, "destination", moved);
        let taken = parts.budget.taken().as_u64();
        readings.one(names::BUFFER_BYTES, number(taken));

        let refusals: Vec<String> = (parts.refusals)()
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect();
        let closed = names().map(|name| (name.clone(), flag(refusals.contains(&name))));
        readings.each(names::DESTINATION_CLOSED, "destination", closed);
        let refused = parts.providers.iter();
        let refused = refused.map(|(name, it)| (name.to_string(), flag(it.refusal().is_some())));
        readings.each(names::PROVIDER_REFUSED, "provider", refused);

        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = pulses.iter().map(|(stage, pulse)| (*stage, pulse.beats()));
        readings.counted(names::STAGE_TURNS, "stage", turns);
        drop(pulses);
        let of = |count| parts.submissions.of(count);
        let submissions = [
            ("learned", of(Count::Learned)),
            ("deferred", of(Count::Deferred)),
            ("missed", of(Count::Missed)),
        ];
        readings.counted(names::GATEWAY_SUBMISSIONS, "outcome", submissions);
        let unlearned = u64::try_from(parts.gateway.waiting()).unwrap_or(u64::MAX);
        readings.one(names::GATEWAY_UNLEARNED, number(unlearned));
        let version = [(env!("CARGO_PKG_VERSION"), 1.0)];
        readings.each(names::BUILD, "version", version);
    }

    /// What the manifest said last.
    fn read_known(&self, readings: &mut Readings) {
        let known = self.manifest.known();
        readings.one(names::MANIFEST_ANSWERS, flag(known.is_answering));
        let Some((numbers, read_at)) = &known.numbers else {
            return readings.one(names::MANIFEST_AGE, f64::INFINITY);
        };
        readings.one(names::MANIFEST_AGE, read_at.elapsed().as_secs_f64());
        let tally = &numbers.tally;
        let tasks = TaskState::ALL.iter();
        let tasks = tasks.map(|state| (state.as_str(), number(tally.tasks_in(*state))));
        readings.each(names::TASKS, "state", tasks);
        let assets = AssetState::ALL.iter();
        let assets = assets.map(|state| (state.as_str(), number(tally.assets_in(*state))));
        readings.each(names::ASSETS, "state", assets);
        let at_risk = u64::try_from(numbers.at_risk).unwrap_or(u64::MAX);
        readings.one(names::ASSETS_AT_RISK, number(at_risk));
        readings.one(names::UPLOADS_ORPHANED, number(tally.orphans));
        let left = time_left(tally.next_deadline, self.parts.clock.now());
        readings.one(names::DEADLINE_NEXT, left);
        let backlog = backlog(tally);
        readings.one(names::BACKLOG_BYTES, backlog);
        let rate = known.bytes_a_second();
        readings.one(names::BACKLOG_DRAIN, drain(backlog, rate));

        let living = |it: &&MachineRecord| it.is_living;
        let count = numbers.machines.iter().filter(living).count();
        let counts = [
            ("living", count),
            ("silent", numbers.machines.len() - count),
        ];
        let counts =
            counts.map(|(state, count)| (state, number(u64::try_from(count).unwrap_or(u64::MAX))));
        readings.each(names::MACHINES, "state", counts);
        let machines = numbers.machines.iter().take(MACHINES_MAX);
        let machines = machines.map(|it| (it.name.clone(), flag(it.is_living)));
        readings.each(names::MACHINE_LIVING, "machine", machines);
    }
}

impl Desk {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    async fn read(manifest: &Manifest, before: Timestamp) -> Result<Self, ManifestError> {
        Ok(Self {
            tally: manifest.tally().await?,
            at_risk: manifest.at_risk(before, RISKS_MAX).await?.len(),
            machines: manifest.machines().await?,
        })
    }
}

impl Known {
    /// Takes what a reading brought that took so long.
    fn take(&mut self, read: Result<Numbers, ManifestError>, took: Duration) {
        let now = Instant::now();
        self.is_being_read = false;
        self.rests_until = Some(now + KEPT.max(took.saturating_mul(REST)));
        self.is_answering = read.is_ok();
        let Ok(numbers) = read else { return };
        self.archived.push_back((now, numbers.tally.bytes_archived));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > RATE_OVER;
        // The one before the oldest that counts stays: the rate is measured from there.
        while self.archived.len() > MEASUREMENTS
            || self.archived.get(1).is_some_and(|(at, _)| is_old(at))
        {
            self.archived.pop_front();
        }
        self.numbers = Some((numbers, now));
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

/// What is due, taken as long as what is archived is on average; nothing is known of it before.
fn backlog(tally: &Tally) -> f64 {
    let due = number(tally.assets_in(AssetState::Due));
    let archived = number(tally.assets_in(AssetState::Archived));
    if archived > 0.0 {
        due * number(tally.bytes_archived) / archived
    } else if due > 0.0 {
        f64::NAN
    } else {
        0.0
    }
}

fn drain(backlog: f64, bytes_a_second: f64) -> f64 {
    if backlog <= 0.0 {
        0.0
    } else {
        // By nothing: infinity, which is what it means.
        backlog / bytes_a_second
    }
}

fn time_left(deadline: Option<Timestamp>, now: Timestamp) -> f64 {
    deadline.map_or(f64::INFINITY, |deadline| {
        let seconds = |span: Span| span.as_duration().as_secs_f64();
        seconds(deadline.since(now)) - seconds(now.since(deadline))
    })
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}
