//! Metrics: what happens is counted, and what stands is read when somebody asks.
//!
//! The registry is a value that is handed in, so that two daemons in one process share nothing. Labels are what the
//! configuration and the code name: providers, destinations, stages, states, outcomes; never anything that callers or
//! providers choose, and so never a task.

pub mod names;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode_eof;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use self::names::Kind;
use self::names::Name;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::units::Span;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a second, which nothing beats, to two days, the longest that a link is known to live.
const DELAYS: [f64; 14] = [
    1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
    172_800.0,
];

/// Too late, the hours in which somebody could still act, and the lives of links.
const MARGINS: [f64; 11] = [
    0.0, 300.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 64_800.0, 86_400.0, 172_800.0,
    604_800.0,
];

/// Names and values of one series.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// What is counted. A clone counts into the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    assets_lost: Family<Labels<1>, Counter>,
    archive_delay: Family<Labels<1>, Histogram, fn() -> Histogram>,
    deadline_margin: Family<Labels<1>, Histogram, fn() -> Histogram>,
    archived_bytes: Family<Labels<1>, Counter>,
    provider_requests: Family<Labels<2>, Counter>,
    destination_requests: Family<Labels<3>, Counter>,
    leases_lost: Family<Labels<1>, Counter>,
    hooks_received: Family<Labels<2>, Counter>,
}

/// Numbers that are read when somebody asks, in a registry that lives as long as the answer: what is no longer there
/// leaves no series behind.
pub struct Readings(Registry);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let delays: fn() -> Histogram = || Histogram::new(DELAYS);
        let margins: fn() -> Histogram = || Histogram::new(MARGINS);
        let mut inner = Inner {
            registry: Registry::with_prefix(names::PREFIX),
            assets_lost: Family::default(),
            archive_delay: Family::new_with_constructor(delays),
            deadline_margin: Family::new_with_constructor(margins),
            archived_bytes: Family::default(),
            provider_requests: Family::default(),
            destination_requests: Family::default(),
            leases_lost: Family::default(),
            hooks_received: Family::default(),
        };
        let registry = &mut inner.registry;
        register(registry, names::ASSETS_LOST, &inner.assets_lost);
        register(registry, names::ARCHIVE_DELAY, &inner.archive_delay);
        register(registry, names::DEADLINE_MARGIN, &inner.deadline_margin);
        register(registry, names::ARCHIVED_BYTES, &inner.archived_bytes);
        register(registry, names::PROVIDER_REQUESTS, &inner.provider_requests);
        register(
            registry,
            names::DESTINATION_REQUESTS,
            &inner.destination_requests,
        );
        register(registry, names::LEASES_LOST, &inner.leases_lost);
        register(registry, names::HOOKS_RECEIVED, &inner.hooks_received);
        Self(Arc::new(inner))
    }

    /// Lets a provider stand there with nothing lost, so that the first loss is a step and not a beginning.
    pub fn know_provider(&self, provider: &ProviderName) {
        drop(self.0.assets_lost.get_or_create(&of_provider(provider)));
    }

    /// An asset is lost.
    pub fn lost(&self, provider: &ProviderName) {
        self.0
            .assets_lost
            .get_or_create(&of_provider(provider))
            .inc();
    }

    /// An asset is archived: so long after its task was completed, and so long before its end.
    pub fn archived(&self, provider: &ProviderName, delay: Span, margin: Span) {
        let labels = of_provider(provider);
        for (family, span) in [
            (&self.0.archive_delay, delay),
            (&self.0.deadline_margin, margin),
        ] {
            let seconds = span.as_duration().as_secs_f64();
            family.get_or_create(&labels).observe(seconds);
        }
    }

    /// An object of this length is proven.
    pub fn stored(&self, destination: &DestinationName, bytes: u64) {
        let labels = [("destination", word(destination))];
        self.0.archived_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// A provider was called.
    pub fn provider_request(&self, provider: &ProviderName, outcome: &'static str) {
        let labels = [("provider", word(provider)), ("outcome", outcome.into())];
        self.0.provider_requests.get_or_create(&labels).inc();
    }

    /// A destination was asked.
    pub fn destination_request(
        &self,
        destination: &DestinationName,
        operation: &'static str,
        outcome: &'static str,
    ) {
        let labels = [
            ("destination", word(destination)),
            ("operation", operation.into()),
            ("outcome", outcome.into()),
        ];
        self.0.destination_requests.get_or_create(&labels).inc();
    }

    /// So many claims of a stage are somebody else's.
    pub fn leases_lost(&self, stage: &'static str, count: u64) {
        let labels = [("stage", stage.into())];
        self.0.leases_lost.get_or_create(&labels).inc_by(count);
    }

    /// A webhook came; one to an address that is none is of no provider.
    pub fn hook_received(&self, provider: Option<&ProviderName>, outcome: &'static str) {
        let provider = provider.map_or(Cow::Borrowed("none"), word);
        let labels = [("provider", provider), ("outcome", outcome.into())];
        self.0.hooks_received.get_or_create(&labels).inc();
    }

    /// All of it, with what was read just now.
    pub fn text(&self, readings: &Readings) -> String {
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.0.registry)
            .and_then(|()| encode_registry(&mut text, &readings.0))
            .and_then(|()| encode_eof(&mut text));
        written.expect("memory takes every text");
        text
    }
}

impl Default for Readings {
    fn default() -> Self {
        Self::new()
    }
}

impl Readings {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self(Registry::with_prefix(names::PREFIX))
    }

    /// One number.
    pub fn one(&mut self, name: Name, value: f64) {
        debug_assert_eq!(name.kind, Kind::Gauge, "{name:?}");
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name.name, name.help, gauge);
    }

    /// A number for each value of a label.
    pub fn each<L: Into<Cow<'static, str>>>(
        &mut self,
        name: Name,
        label: &'static str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) {
        debug_assert_eq!(name.kind, Kind::Gauge, "{name:?}");
        let family = Family::<Labels<1>, Gauge<f64, AtomicU64>>::default();
        for (value, number) in values {
            family.get_or_create(&[(label, value.into())]).set(number);
        }
        self.0.register(name.name, name.help, family);
    }

    /// How often something happened for each value of a label, as somebody else counts it.
    pub fn counted(
        &mut self,
        name: Name,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        debug_assert_eq!(name.kind, Kind::Counter, "{name:?}");
        let family = Family::<Labels<1>, Counter>::default();
        for (value, count) in values {
            family.get_or_create(&[(label, value.into())]).inc_by(count);
        }
        self.0.register(name.name, name.help, family);
    }
}

/// A count as metrics have numbers: exact up to 2^53.
pub fn number(count: u64) -> f64 {
    let half = |half: u64| f64::from(u32::try_from(half).unwrap_or(u32::MAX));
    half(count >> 32) * 4_294_967_296.0 + half(count & 0xffff_ffff)
}

fn register<M: prometheus_client::registry::Metric + Clone>(
    registry: &mut Registry,
    name: Name,
    metric: &M,
) {
    registry.register(name.name, name.help, metric.clone());
}

fn of_provider(provider: &ProviderName) -> Labels<1> {
    [("provider", word(provider))]
}

fn word(name: &impl fmt::Display) -> Cow<'static, str> {
    Cow::Owned(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_make_and_each_is_there_once() {
        let mut seen = std::collections::BTreeSet::new();
        for name in names::ALL {
            let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.name.chars().all(is_word), "{name:?}");
            assert!(!name.name.ends_with("_total"), "{name:?}");
            assert!(!name.help.ends_with('.') && !name.help.contains('\n'));
            assert!(seen.insert(name.name), "{name:?}");
        }
    }

    #[test]
    fn counts_stay_what_they_are() {
        for (count, told) in [
            (0, 0.0),
            (1, 1.0),
            (u64::from(u32::MAX) + 7, 4_294_967_302.0),
            (1 << 53, 9_007_199_254_740_992.0),
        ] {
            assert!((number(count) - told).abs() < 0.5, "{count}");
        }
    }

    #[test]
    fn two_registries_share_nothing() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.lost(&"evolink".parse().unwrap());
        let line = "reelvault_assets_lost_total{provider=\"evolink\"} 1\n";
        assert!(one.text(&Readings::new()).contains(line));
        assert!(!other.text(&Readings::new()).contains(line));
    }

    #[test]
    fn what_was_too_late_is_told_from_what_was_just_in_time() {
        let metrics = Metrics::new();
        let provider = "evolink".parse().unwrap();
        metrics.archived(&provider, Span::from_secs(3), Span::ZERO);
        metrics.archived(&provider, Span::from_secs(9), Span::from_secs(1));
        let text = metrics.text(&Readings::new());
        let late = "deadline_margin_seconds_bucket{le=\"0.0\",provider=\"evolink\"} 1\n";
        assert!(text.contains(late), "{text}");
        assert!(text.contains("archive_delay_seconds_sum{provider=\"evolink\"} 12.0\n"));
    }
}
