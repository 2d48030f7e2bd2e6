//! The stage itself: claims the most urgent assets, takes each of their objects to its proof, and settles the rest.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::archive::Config;
use crate::archive::bandwidth::Bandwidth;
use crate::archive::deadlink::ANSWER_WAIT;
use crate::archive::deadlink::DeadLink;
use crate::archive::delivery::Delivery;
use crate::archive::gate::Gate;
use crate::archive::gauge::Gauge;
use crate::archive::slots::Slots;
use crate::archive::source::SpareLanes;
use crate::archive::transfer::Transfer;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::Http;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::AssetSettlement;
use crate::manifest::row::Claimable;
use crate::manifest::row::ClaimedAsset;
use crate::model::asset::AssetState;
use crate::model::failure::Failure;
use crate::model::failure::Verdict;
use crate::model::lease::Lease;
use crate::model::object::DestinationName;
use crate::model::object::ObjectState;
use crate::model::task::ProviderName;
use crate::model::task::UNFETCHABLE;
use crate::model::task::is_fetchable;
use crate::origin::open::Origin;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::units::Span;
use crate::work::budget::Budget;
use crate::work::driver::Stage;
use crate::work::rounds::in_rounds;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::Settled;
use crate::work::settle::Situation;
use crate::work::settle::decide;
use crate::work::settle::write_patiently;
use crate::work::wake::Wake;

/// So many parts' memory no lane takes: the longest body that is held at once.
const PARTS_KEPT: u64 = 2;

/// How the results of one provider are fetched.
#[derive(Clone, Debug)]
pub struct Downloads {
    /// The client, with the guard for this provider's links.
    pub http: Http,
    /// Headers that its downloads want.
    pub headers: HeaderMap,
    /// For how long after a task's completion asking again may give a fresh link; `None` where it never does.
    pub refreshed_for: Option<Span>,
}

/// The archive stage.
pub struct Archive {
    manifest: Manifest,
    stores: BTreeMap<DestinationName, Store>,
    gates: BTreeMap<DestinationName, Gate>,
    downloads: BTreeMap<ProviderName, Downloads>,
    config: Config,
    margin: Span,
    warn: Span,
    keep_trying: bool,
    budget: Budget,
    spare: SpareLanes,
    slots: Slots,
    bandwidth: Bandwidth,
    gauge: Gauge,
    metrics: Metrics,
    clock: Clock,
    dice: Dice,
    watch: Wake,
}

/// What the stage is made of.
pub struct ArchiveParts {
    /// Where work is claimed and recorded.
    pub manifest: Manifest,
    /// The destinations.
    pub stores: BTreeMap<DestinationName, Store>,
    /// The origins, by provider.
    pub downloads: BTreeMap<ProviderName, Downloads>,
    /// `[transfer]`
    pub config: Config,
    /// Links are treated as dead this much before their deadline when urgency is judged.
    pub margin: Span,
    /// An asset is at risk this much before its deadline.
    pub warn: Span,
    /// Whether to go on after the deadline until the origin gives its last word.
    pub keep_trying: bool,
    /// What the parts of all transfers may hold.
    pub budget: Budget,
    /// The limit on all downloads.
    pub bandwidth: Bandwidth,
    /// What moves now.
    pub gauge: Gauge,
    /// What is counted.
    pub metrics: Metrics,
    /// Wall time.
    pub clock: Clock,
    /// For nonces and jitter.
    pub dice: Dice,
    /// Makes `watch` ask for a fresh link.
    pub watch: Wake,
}

impl Stage for Archive {
    type Work = ClaimedAsset;

    const NAME: &'static str = "archive";

    const TABLE: Claimable = Claimable::Assets;

    async fn claim(&self, most: usize) -> Result<Vec<ClaimedAsset>, ManifestError> {
        // The last places are for what is at risk: a queue of others must not keep it from being seen.
        let reserved = usize::try_from(Slots::urgent(self.config.concurrent)).unwrap_or(0);
        let ordinary = most.saturating_sub(reserved);
        let mut claimed = Vec::new();
        if ordinary > 0 {
            claimed = self.manifest.claim_assets(ordinary).await?;
        }
        if claimed.len() == ordinary {
            let before = self.clock.now().plus(self.warn);
            let urgent = self
                .manifest
                .claim_urgent_assets(most - ordinary, before)
                .await;
            match urgent {
                Ok(urgent) => claimed.extend(urgent),
                Err(error) if claimed.is_empty() => return Err(error),
                // What is claimed already is worked on.
                Err(error) => tracing::error!(%error, "failed to claim what is urgent"),
            }
        }
        Ok(claimed)
    }

    fn leases(asset: &ClaimedAsset) -> Vec<Lease> {
        vec![asset.lease]
    }

    fn span(asset: &ClaimedAsset) -> tracing::Span {
        tracing::error_span!("archive", task.id = %asset.task.id, asset.index = %asset.index)
    }

    async fn step(&self, asset: &ClaimedAsset, stop: &CancellationToken) -> Result<(), Failure> {
        let transfer = Transfer {
            asset,
            origin: self.origin(asset)?,
            manifest: &self.manifest,
            config: &self.config,
            budget: &self.budget,
            spare: &self.spare,
            slots: &self.slots,
            bandwidth: &self.bandwidth,
            gauge: &self.gauge,
            metrics: &self.metrics,
            clock: &self.clock,
            dice: &self.dice,
            stop,
            is_urgent: self.is_urgent(asset),
            has_gained: AtomicBool::new(false),
        };
        let missing = asset.objects.iter();
        let missing = missing.filter(|object| object.state != ObjectState::Archived);
        let (mut deliveries, mut refused) = (Vec::new(), Vec::new());
        for object in missing {
            match self.admit(&object.destination, asset.lease.row) {
                Ok((store, gate)) => deliveries.push(Delivery {
                    transfer: &transfer,
                    object,
                    store,
                    gate,
                    has_turn: AtomicBool::new(false),
                }),
                Err(failure) => refused.push(failure),
            }
        }
        // Boxed, since it is large and lives in a task of its own.
        let outcome = in_rounds(Box::pin(transfer.run(deliveries, refused))).await;
        outcome.map_err(|failure| {
            if transfer.has_gained.load(Ordering::Relaxed) {
                failure.after_gain()
            } else {
                failure
            }
        })
    }

    async fn settle(&self, asset: &ClaimedAsset, failure: Failure) {
        let settlement = self.outcome(asset, &failure);
        let wants_fresh_link = settlement.wants_fresh_link;
        match settlement.state {
            AssetState::Lost => {
                tracing::error!(%failure, "lost: the link died before it was archived");
            }
            AssetState::Refused => tracing::error!(%failure, "refused: this cannot be archived"),
            AssetState::Due | AssetState::Archived if failure.verdict() == Verdict::Drained => {}
            AssetState::Due | AssetState::Archived => {
                tracing::warn!(%failure, attempts = asset.attempts, "not archived yet");
            }
        }
        let written = write_patiently(&self.dice, || {
            self.manifest.settle_asset(&asset.lease, settlement.clone())
        });
        if let Err(error) = written.await {
            tracing::error!(%error, "failed to settle; the lease runs out by itself");
        } else if wants_fresh_link {
            self.watch.poke();
        } else if settlement.state == AssetState::Lost {
            self.metrics.lost(&asset.task.provider);
        }
    }
}

impl Archive {
    /// A stage of these parts.
    pub fn new(parts: ArchiveParts) -> Self {
        let concurrent = parts.config.concurrent;
        let gates = parts.stores.iter().map(|(name, store)| {
            let at_once = parts.config.parts_ahead.min(store.quirks().parts_at_once);
            let most = Slots::count(concurrent).saturating_mul(at_once.max(1));
            (name.clone(), Gate::new(name.clone(), most))
        });
        let kept = parts.config.part_size.as_u64().saturating_mul(PARTS_KEPT);
        Self {
            gates: gates.collect(),
            slots: Slots::new(concurrent),
            spare: SpareLanes::new(parts.config.lanes, parts.budget.clone(), kept),
            manifest: parts.manifest,
            stores: parts.stores,
            downloads: parts.downloads,
            config: parts.config,
            margin: parts.margin,
            warn: parts.warn,
            keep_trying: parts.keep_trying,
            budget: parts.budget,
            bandwidth: parts.bandwidth,
            gauge: parts.gauge,
            metrics: parts.metrics,
            clock: parts.clock,
            dice: parts.dice,
            watch: parts.watch,
        }
    }

    /// How many assets are worked on at once: those whose bytes move, and as many that are looked at, proven, or
    /// wait for their turn.
    pub fn room(config: &Config) -> usize {
        let room = Slots::count(config.concurrent).saturating_add(config.concurrent);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// What tells, whenever it is asked, which destinations take nothing and what they answered.
    pub fn refusals(&self) -> impl Fn() -> Vec<(DestinationName, String)> + Send + Sync + 'static {
        let gates = self.gates.clone();
        move || {
            let shut = gates
                .iter()
                .filter_map(|(name, gate)| Some((name.clone(), gate.why_closed()?)));
            shut.collect()
        }
    }

    /// The destination of an object, where it takes anything now.
    fn admit(&self, name: &DestinationName, asset: i64) -> Result<(&Store, &Gate), Failure> {
        let missing = || {
            let what = format!("destination {name} is no longer configured");
            Failure::wait_until(self.clock.now().plus(BLOCKED_PAUSE), what)
        };
        let store = self.stores.get(name).ok_or_else(missing)?;
        let gate = self.gates.get(name).ok_or_else(missing)?;
        gate.peek(asset).map_err(|shut| shut.failure(&self.clock))?;
        Ok((store, gate))
    }

    /// Whether an asset is at risk, and so goes before others.
    fn is_urgent(&self, asset: &ClaimedAsset) -> bool {
        self.clock.now() >= asset.deadline.at.minus(self.warn)
    }

    fn origin(&self, asset: &ClaimedAsset) -> Result<Origin, Failure> {
        if !is_fetchable(&asset.url) {
            let prefix = format!("{UNFETCHABLE}:");
            let told = asset.url.as_str();
            let told = told.strip_prefix(&prefix).unwrap_or(asset.url.scheme());
            return Err(Failure::dead(format!(
                "a result is an http or https address of at most 16 KiB, not {told:?}"
            )));
        }
        let provider = &asset.task.provider;
        let downloads = self.downloads.get(provider).ok_or_else(|| {
            let what = format!("provider {provider} is no longer configured");
            Failure::wait_until(self.clock.now().plus(BLOCKED_PAUSE), what)
        })?;
        Ok(Origin {
            http: downloads.http.clone(),
            url: asset.url.clone(),
            headers: downloads.headers.clone(),
        })
    }

    /// What a failed step means for the asset's row.
    fn outcome(&self, asset: &ClaimedAsset, failure: &Failure) -> AssetSettlement {
        let (now, verdict) = (self.clock.now(), failure.verdict());
        let is_asked_for = failure.has_dead_link() && verdict != Verdict::Drained;
        let dead = is_asked_for.then(|| self.dead_link(asset, failure, now));
        // A link that is dead has no time left in which to hurry; its file may.
        let until = dead.and_then(|dead| dead.file_until);
        let situation = Situation {
            now,
            attempts: if failure.has_gained() {
                0
            } else {
                asset.attempts
            },
            urgent_until: Some(self.urgent_until(until.unwrap_or(asset.deadline.at), now)),
        };
        let Settled { due_at, is_attempt } = decide(verdict, situation, &self.dice);
        let end = self.end(asset, verdict, dead, now);
        let wants_fresh_link = end.is_none() && dead.is_some_and(|dead| dead.wants_fresh());
        let answered_at = wants_fresh_link.then(|| now.plus(ANSWER_WAIT));
        let due_at = due_at.map(|due| answered_at.map_or(due, |answered| due.min(answered)));
        AssetSettlement {
            state: end.unwrap_or(AssetState::Due),
            due_at: due_at.filter(|_| end.is_none()),
            error: (verdict != Verdict::Drained).then(|| failure.to_string()),
            is_attempt,
            has_gained: failure.has_gained(),
            wants_fresh_link,
        }
    }

    /// What is known of a link that the origin calls dead, or that leads astray.
    fn dead_link(&self, asset: &ClaimedAsset, failure: &Failure, now: Timestamp) -> DeadLink {
        let downloads = self.downloads.get(&asset.task.provider);
        let refreshed_for = downloads.and_then(|downloads| downloads.refreshed_for);
        DeadLink {
            now,
            deadline: asset.deadline.at,
            // The first links told how long they would live, which may be longer than the provider says in general.
            file_until: refreshed_for
                .map(|span| asset.waits_since.plus(span).max(asset.task_deadline_at)),
            asked_at: asset.refresh_asked_at,
            is_pending: asset.is_refresh_pending,
            has_gained: failure.has_gained(),
        }
    }

    /// Until when waits must leave room for many tries: the margin before the end, and inside that the end.
    fn urgent_until(&self, end: Timestamp, now: Timestamp) -> Timestamp {
        let early = end.minus(self.margin);
        if now < early { early } else { end }
    }

    /// The final state that a verdict leads to, if it does.
    fn end(
        &self,
        asset: &ClaimedAsset,
        verdict: Verdict,
        dead: Option<DeadLink>,
        now: Timestamp,
    ) -> Option<AssetState> {
        let is_past = now >= asset.deadline.at;
        let is_last_word = dead.is_some_and(|dead| dead.is_last_word());
        match verdict {
            Verdict::Dead => Some(AssetState::Refused),
            Verdict::Gone if is_last_word => Some(AssetState::Lost),
            Verdict::Wrong if is_last_word => Some(AssetState::Refused),
            Verdict::Retry | Verdict::RetryAfter(_) if is_past && !self.keep_trying => {
                Some(AssetState::Lost)
            }
            Verdict::Gone
            | Verdict::Wrong
            | Verdict::Retry
            | Verdict::RetryAfter(_)
            | Verdict::WaitUntil(_)
            | Verdict::Drained => None,
        }
    }
}
