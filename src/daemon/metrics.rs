//! `/metrics`: what was counted, with what stands now read beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::archive::gauge::Gauge;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::daemon::health::Refusals;
use crate::intake::gateway::Count;
use crate::intake::gateway::Counts;
use crate::intake::gateway::Gateway;
use crate::manifest::row::Tally;
use crate::manifest::row::machine::MachineRecord;
use crate::model::asset::AssetState;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::model::task::TaskState;
use crate::provider::Provider;
use crate::report::overview::Overview;
use crate::report::overview::Seen;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::Readings;
use crate::telemetry::metrics::names;
use crate::telemetry::metrics::number;
use crate::units::Span;
use crate::work::budget::Budget;
use crate::work::driver::Pulse;

/// The manifest's numbers are good for this long.
const KEPT: Duration = Duration::from_secs(5);

/// Machines with a series of their own. More are in the sum alone: where names are drawn anew at each start, they pile up.
const MACHINES_MAX: usize = 100;

/// What a scrape reads.
pub(super) struct ScrapeParts {
    pub(super) metrics: Metrics,
    pub(super) overview: Overview,
    pub(super) providers: BTreeMap<ProviderName, Provider>,
    pub(super) destinations: Vec<DestinationName>,
    pub(super) refusals: Refusals,
    pub(super) gauge: Gauge,
    pub(super) budget: Budget,
    pub(super) gateway: Gateway,
    pub(super) submissions: Counts,
    pub(super) clock: Clock,
}

/// What answers.
pub(super) struct Scrape {
    parts: ScrapeParts,
    pulses: Mutex<Vec<(&'static str, Pulse)>>,
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
        }
    }

    /// Tells which stages there are.
    pub(super) fn watch_over(&self, pulses: &[(&'static str, Pulse)]) {
        *self.pulses.lock().unwrap_or_else(PoisonError::into_inner) = pulses.to_vec();
    }

    async fn text(&self) -> String {
        let seen = self.parts.overview.see(KEPT).await;
        let mut readings = Readings::new();
        self.read_daemon(&mut readings);
        self.read_manifest(&seen, &mut readings);
        self.parts.metrics.text(&readings)
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
    fn read_manifest(&self, seen: &Seen, readings: &mut Readings) {
        readings.one(names::MANIFEST_ANSWERS, flag(seen.is_answering));
        let Some((status, age)) = &seen.status else {
            return readings.one(names::MANIFEST_AGE, f64::INFINITY);
        };
        readings.one(names::MANIFEST_AGE, age.as_secs_f64());
        let tally = &status.tally;
        let tasks = TaskState::ALL.iter();
        let tasks = tasks.map(|state| (state.as_str(), number(tally.tasks_in(*state))));
        readings.each(names::TASKS, "state", tasks);
        let assets = AssetState::ALL.iter();
        let assets = assets.map(|state| (state.as_str(), number(tally.assets_in(*state))));
        readings.each(names::ASSETS, "state", assets);
        let at_risk = u64::try_from(status.at_risk).unwrap_or(u64::MAX);
        readings.one(names::ASSETS_AT_RISK, number(at_risk));
        readings.one(names::UPLOADS_ORPHANED, number(tally.orphans));
        let endpoints = status.endpoints.iter();
        let disabled = endpoints.filter(|it| it.disabled_at.is_some()).count();
        let disabled = u64::try_from(disabled).unwrap_or(u64::MAX);
        readings.one(names::ENDPOINTS_DISABLED, number(disabled));
        let left = time_left(tally.next_deadline, self.parts.clock.now());
        readings.one(names::DEADLINE_NEXT, left);
        let backlog = backlog(tally);
        readings.one(names::BACKLOG_BYTES, backlog);
        readings.one(names::BACKLOG_DRAIN, drain(backlog, seen.bytes_a_second));

        let living = |it: &&MachineRecord| it.is_living;
        let count = status.machines.iter().filter(living).count();
        let counts = [("living", count), ("silent", status.machines.len() - count)];
        let counts =
            counts.map(|(state, count)| (state, number(u64::try_from(count).unwrap_or(u64::MAX))));
        readings.each(names::MACHINES, "state", counts);
        let machines = status.machines.iter().take(MACHINES_MAX);
        let machines = machines.map(|it| (it.name.clone(), flag(it.is_living)));
        readings.each(names::MACHINE_LIVING, "machine", machines);
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
    } else if bytes_a_second <= 0.0 {
        // However much it is, which is not known before anything is archived.
        f64::INFINITY
    } else {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_does_not_move_is_never_moved() {
        for (backlog, bytes_a_second, seconds) in [
            (0.0, 0.0, 0.0),
            (0.0, 5.0, 0.0),
            (10.0, 5.0, 2.0),
            (10.0, 0.0, f64::INFINITY),
            (f64::NAN, 0.0, f64::INFINITY),
        ] {
            let told = drain(backlog, bytes_a_second);
            assert_eq!(
                told.total_cmp(&seconds),
                std::cmp::Ordering::Equal,
                "{backlog} {told}"
            );
        }
        assert!(drain(f64::NAN, 5.0).is_nan());
    }
}
