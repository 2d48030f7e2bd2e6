//! The stage itself: claims due tasks, asks their provider in one call where it can, and writes what it said.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::Observation;
use crate::model::failure::Failure;
use crate::model::lease::Lease;
use crate::model::task::Progress;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::provider::Provider;
use crate::units::Span;
use crate::watch::Config;
use crate::watch::held::Due;
use crate::watch::held::HOLD_LEASES;
use crate::watch::held::Held;
use crate::watch::held::HeldTask;
use crate::watch::news::is_news;
use crate::watch::outcome::Blank;
use crate::watch::route::Routes;
use crate::work::driver::Stage;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::write_patiently;
use crate::work::wake::Wake;

/// Looks that come due within this are claimed, asked and written together: no look has to be that punctual, and each
/// claim and each commit costs as much for one task as for hundreds.
const REST: Span = Span::from_millis(250);

/// Tasks asked about in one step: what the batch calls of providers take.
const BATCH_MAX: usize = 50;

/// Claims that are given back in one transaction.
const GIVEN_BACK_AT_ONCE: usize = 1000;

/// The watch stage.
#[derive(Debug)]
pub struct Watch {
    parts: WatchParts,
    held: Held,
    /// Whether the manifest had more that was due than there was room for, when it was last asked.
    is_behind: AtomicBool,
}

/// What the watch stage works with.
#[derive(Debug)]
pub struct WatchParts {
    /// Where work is claimed and recorded.
    pub manifest: Manifest,
    /// The task APIs.
    pub providers: BTreeMap<ProviderName, Provider>,
    /// Where assets go.
    pub routes: Routes,
    /// `[poll]`
    pub config: Config,
    /// `manifest.lease`
    pub lease: Span,
    /// Wall time.
    pub clock: Clock,
    /// For jitter.
    pub dice: Dice,
    /// Tells `archive` of new assets.
    pub archive: Wake,
}

/// Tasks of one provider, asked about together.
#[derive(Debug)]
pub struct Batch {
    provider: ProviderName,
    tasks: Vec<HeldTask>,
}

impl Stage for Watch {
    type Work = Batch;

    const NAME: &'static str = "watch";

    const TABLE: Claimable = Claimable::Tasks;

    const REST: Span = REST;

    async fn claim(&self, most: usize) -> Result<Vec<Batch>, ManifestError> {
        let room = most.saturating_mul(BATCH_MAX);
        // A backlog of the manifest goes before what is held: who is held was looked at lately.
        let kept = if self.is_behind.load(Ordering::Relaxed) {
            0
        } else {
            room
        };
        let now = Instant::now();
        let due = self.held.take_due(now, kept, &self.pauses());
        let (looks, outcome) = self.claim_beside(due, room).await;
        let (mut tasks, error) = match outcome {
            Ok(claimed) => (claimed, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut looks = looks.into_iter();
        let free = room.saturating_sub(tasks.len());
        if error.is_none() {
            tasks.extend(looks.by_ref().take(free));
        }
        // Never lost: who was taken and is not looked at is due still.
        self.held.put_back(looks, now);
        error.map_or(Ok(batches(tasks)), Err)
    }

    fn leases(batch: &Batch) -> Vec<Lease> {
        batch.tasks.iter().map(|held| held.task.lease).collect()
    }

    fn held_until(batch: &Batch) -> Option<Instant> {
        batch.tasks.iter().map(|held| held.until).min()
    }

    fn next_kept(&self) -> Option<Instant> {
        self.held.next_look()
    }

    async fn give_back(&self) {
        let (now, time) = (Instant::now(), self.parts.clock.now());
        let due = |at: Instant| time.plus(Span::from(at.saturating_duration_since(now)));
        let kept = self.held.close();
        let kept: Vec<_> = kept
            .into_iter()
            .map(|(held, at)| (held.task.lease, due(at)))
            .collect();
        for some in kept.chunks(GIVEN_BACK_AT_ONCE) {
            let given =
                write_patiently(&self.parts.dice, || self.parts.manifest.let_go(some)).await;
            if let Err(error) = given {
                tracing::error!(tasks = kept.len(), %error, "failed to give tasks back; the claims run out by themselves");
                return;
            }
        }
    }

    fn span(batch: &Batch) -> tracing::Span {
        tracing::error_span!("watch", provider.name = %batch.provider)
    }

    async fn step(&self, batch: &Batch, stop: &CancellationToken) -> Result<(), Failure> {
        let Some(provider) = self.parts.providers.get(&batch.provider) else {
            // Claims pass over it from now on, and another machine may have it.
            let what = format!("provider {} is not configured here", batch.provider);
            return Err(Failure::wait_until(self.parts.clock.now(), what));
        };
        let ids: Vec<&TaskId> = batch.tasks.iter().map(|held| &held.task.key.id).collect();
        let looks = tokio::select! {
            () = stop.cancelled() => return Err(Failure::drained()),
            looks = provider.look_many(&ids) => looks,
        };
        let mut seen = Vec::new();
        let mut unseen = Vec::new();
        for (held, look) in batch.tasks.iter().zip(looks) {
            match look {
                Ok(sighting) => {
                    let observation = self.parts.observation(provider, held, sighting);
                    if !self.keep(held, &observation) {
                        seen.push((held, observation));
                    }
                }
                Err(error) => unseen.push((held, error)),
            }
        }
        self.observe(seen).await;
        for (held, error) in unseen {
            let blank = self.parts.blank(&held.task.key.provider, &error);
            self.settle_blank(held, &blank).await;
        }
        Ok(())
    }

    async fn settle(&self, batch: &Batch, failure: Failure) {
        let blank = Blank {
            failure,
            is_miss: false,
        };
        for held in &batch.tasks {
            self.settle_blank(held, &blank).await;
        }
    }
}

/// What was claimed.
type Claimed = Result<Vec<HeldTask>, ManifestError>;

impl Watch {
    /// A stage that holds nothing yet.
    pub fn new(parts: WatchParts) -> Self {
        Self {
            held: Held::new(parts.lease),
            is_behind: AtomicBool::new(false),
            parts,
        }
    }

    /// The providers that are not to be called, each with the time until which.
    fn pauses(&self) -> Vec<(ProviderName, Instant)> {
        let now = (self.parts.clock.now(), Instant::now());
        let pause = |(name, provider): (&ProviderName, &Provider)| {
            let left = provider.paused_until()?.since(now.0);
            (left > Span::ZERO).then(|| (name.clone(), now.1 + left.as_duration()))
        };
        self.parts.providers.iter().filter_map(pause).collect()
    }

    /// Claims what is due in the manifest. Of what is due here comes back what is ours as far as we know; what somebody
    /// wants looked at now, and what cannot be held any longer, is let go before and so among what is claimed.
    async fn claim_beside(&self, due: Due, room: usize) -> (Vec<HeldTask>, Claimed) {
        let Due { mut looks, overdue } = due;
        if looks.is_empty() && overdue.is_empty() && self.held.is_empty() {
            return (looks, self.claim_anew(room).await);
        }
        let asked_at = Instant::now();
        let is_doubted = |held: &HeldTask| self.held.is_doubted(held, asked_at);
        let doubted = looks.iter().filter(|held| is_doubted(held));
        let leases: Vec<Lease> = doubted.map(|held| held.task.lease).collect();
        let news = match self.parts.manifest.held_news(&leases).await {
            Ok(news) => news,
            Err(error) => {
                looks.extend(overdue);
                return (looks, Err(error));
            }
        };
        let term = |lease: &Lease| (lease.row, lease.token);
        let lost: HashSet<_> = news.lost.iter().map(term).collect();
        let heard: HashSet<_> = news.heard.iter().map(term).collect();
        looks.retain(|held| !lost.contains(&term(&held.task.lease)));
        let confirmed = looks.iter_mut().filter(|held| is_doubted(held));
        confirmed.for_each(|held| held.confirmed_at = asked_at);
        let mut ended = overdue;
        ended.extend(looks.extract_if(.., |held| heard.contains(&term(&held.task.lease))));
        ended.extend(self.held.take(&news.heard));
        if !ended.is_empty() {
            let now = self.parts.clock.now();
            let leases: Vec<_> = ended.iter().map(|held| (held.task.lease, now)).collect();
            if let Err(error) = self.parts.manifest.let_go(&leases).await {
                looks.extend(ended);
                return (looks, Err(error));
            }
        }
        (looks, self.claim_anew(room).await)
    }

    /// Claims from the manifest, to hold it as long as there is room for that.
    async fn claim_anew(&self, room: usize) -> Claimed {
        let paused: Vec<ProviderName> = self.pauses().into_iter().map(|(name, _)| name).collect();
        let manifest = &self.parts.manifest;
        // Before the claim: its answer may be late, the claim is not.
        let begun = Instant::now();
        let (hold, claimed) = if self.held.has_room() {
            let hold = self.parts.lease.times(f64::from(HOLD_LEASES));
            (hold, manifest.hold_tasks(room, &paused, hold).await?)
        } else {
            let claimed = manifest.claim_tasks(room, &paused).await?;
            (self.parts.lease, claimed)
        };
        let is_behind = room > 0 && claimed.len() >= room;
        self.is_behind.store(is_behind, Ordering::Relaxed);
        let until = begun + hold.as_duration();
        let held = |task| HeldTask::new(task, begun, until);
        Ok(claimed.into_iter().map(held).collect())
    }

    /// Keeps a task in memory until its next look, where nothing is to be written.
    fn keep(&self, held: &HeldTask, observation: &Observation) -> bool {
        let Some(next_look_at) = observation.next_look_at else {
            return false;
        };
        if is_news(&held.task, observation) {
            return false;
        }
        let wait = next_look_at.since(self.parts.clock.now());
        let mut seen = held.clone();
        match observation.sighting.progress {
            Progress::Pending | Progress::Running => {
                seen.last_unfinished_at = Some(self.parts.clock.now());
            }
            Progress::Completed | Progress::Failed | Progress::Cancelled => {}
        }
        self.held.keep(seen, Instant::now() + wait.as_duration())
    }

    /// What could not be written is looked at again later, as long as the claim holds.
    fn look_again(&self, held: &HeldTask) {
        let later = Instant::now() + BLOCKED_PAUSE.as_duration();
        self.held.keep(held.clone(), later);
    }

    /// Writes all that a call told in one transaction.
    async fn observe(&self, seen: Vec<(&HeldTask, Observation)>) {
        if seen.is_empty() {
            return;
        }
        let (held, seen): (Vec<&HeldTask>, Vec<(Lease, Observation)>) = seen
            .into_iter()
            .map(|(held, observation)| (held, (held.task.lease, observation)))
            .unzip();
        let write = || self.parts.manifest.observe_all(&seen);
        let outcomes = match write_patiently(&self.parts.dice, write).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let tasks = seen.len();
                tracing::error!(tasks, %error, "failed to write sightings; the tasks are looked at again");
                held.into_iter().for_each(|held| self.look_again(held));
                return;
            }
        };
        if seen
            .iter()
            .any(|(_, observation)| !observation.assets.is_empty())
        {
            self.parts.archive.poke();
        }
        for (held, outcome) in held.into_iter().zip(outcomes) {
            if let Err(error) = outcome {
                let id = held.task.key.id.as_str();
                tracing::error!(task.id = id, %error, "failed to write a sighting");
            }
        }
    }

    /// Writes what becomes of a task that nothing was told of.
    async fn settle_blank(&self, held: &HeldTask, blank: &Blank) {
        let task = held.task.as_ref();
        let settlement = self.parts.settlement(task, blank);
        let (failure, state) = (&blank.failure, settlement.state);
        tracing::warn!(task.id = %task.key.id, %failure, %state, "no answer about a task");
        let written = write_patiently(&self.parts.dice, || {
            let manifest = &self.parts.manifest;
            manifest.settle_task(&task.lease, settlement.clone())
        });
        if let Err(error) = written.await {
            tracing::error!(task.id = %task.key.id, %error, "failed to settle; the task is looked at again");
            self.look_again(held);
        }
    }
}

/// Groups claimed tasks by provider, each group no larger than a batch, the most urgent first.
fn batches(tasks: Vec<HeldTask>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for held in tasks {
        let provider = &held.task.key.provider;
        let fits =
            |batch: &&mut Batch| batch.provider == *provider && batch.tasks.len() < BATCH_MAX;
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.tasks.push(held),
            None => batches.push(Batch {
                provider: provider.clone(),
                tasks: vec![held],
            }),
        }
    }
    batches
}

#[cfg(test)]
mod tests;
