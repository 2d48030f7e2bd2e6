//! The stage itself: claims due tasks, asks their provider in one call where it can, and writes what it said.

mod claiming;

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::Observation;
use crate::manifest::row::Observed;
use crate::model::failure::Failure;
use crate::model::lease::Lease;
use crate::model::task::Progress;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::provider::Look;
use crate::provider::Provider;
use crate::units::Span;
use crate::watch::Config;
use crate::watch::held::Held;
use crate::watch::held::HeldTask;
use crate::watch::held::Line;
use crate::watch::news::is_news;
use crate::watch::outcome::Blank;
use crate::watch::room::Room;
use crate::watch::route::Routes;
use crate::work::driver::Stage;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::write_patiently;
use crate::work::wake::Wake;

/// Looks that come due within this are claimed, asked and written together: no look has to be that punctual, and each
/// claim and each commit costs as much for one task as for hundreds.
const REST: Span = Span::from_millis(250);

/// Claims that are given back in one transaction.
const GIVEN_BACK_AT_ONCE: usize = 1000;

/// The watch stage.
#[derive(Debug)]
pub struct Watch {
    parts: WatchParts,
    held: Held,
    /// What each provider can be asked at once.
    rooms: BTreeMap<ProviderName, Room>,
    /// When the tasks of others were last claimed past those of a provider that is behind.
    past_backlog_at: Mutex<Option<Instant>>,
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
    /// Whether each is asked about by itself, whatever calls there are about many.
    is_alone: bool,
    /// Its place in the provider's room. A provider that is not configured here has none, and is asked nothing.
    _place: Option<OwnedSemaphorePermit>,
}

impl Stage for Watch {
    type Work = Batch;

    const NAME: &'static str = "watch";

    const TABLE: Claimable = Claimable::Tasks;

    const REST: Span = REST;

    // Each provider has room of its own, which together is that of the driver.
    async fn claim(&self, _most: usize) -> Result<Vec<Batch>, ManifestError> {
        let now = Instant::now();
        let pauses = self.pauses();
        let room = |name: &ProviderName| {
            let room = self.rooms.get(name).filter(|_| !pauses.contains(name));
            room.map(Room::free_for_held).unwrap_or_default()
        };
        let due = self.held.take_due(now, room);
        let (mut looks, outcome) = self.claim_beside(due).await;
        // Some who are asked about alone were claimed just now. A claim that is not sure any more is asked for next time.
        looks.extend(self.held.take_alone(&looks, Instant::now(), room, |held| {
            !self.held.is_doubted(held, now)
        }));
        let (mut tasks, error) = match outcome {
            Ok(claimed) => (claimed, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let (batches, left) = if error.is_none() {
            tasks.extend(looks);
            self.batches(tasks)
        } else {
            (Vec::new(), looks)
        };
        // Never lost: who was taken and is not looked at is due still.
        self.held.put_back(left, now);
        error.map_or(Ok(batches), Err)
    }

    fn has_more(&self) -> bool {
        let pauses = self.pauses();
        let is_worth_it = |(name, room): (&ProviderName, &Room)| {
            let has_alone =
                room.free_for_held().alone > 0 && self.held.has_alone(name, Instant::now());
            let is_open = || !pauses.contains(name);
            (room.is_behind() && room.is_worth_a_claim()) || (has_alone && is_open())
        };
        self.rooms.iter().any(is_worth_it)
    }

    fn leases(batch: &Batch) -> Vec<Lease> {
        batch.tasks.iter().map(|held| held.task.lease).collect()
    }

    fn held_until(batch: &Batch) -> Option<Instant> {
        batch.tasks.iter().map(|held| held.until).min()
    }

    fn next_kept(&self) -> Option<Instant> {
        let pauses = self.pauses();
        self.held.next_look(|name| {
            let room = self.rooms.get(name).filter(|_| !pauses.contains(name));
            room.map(Room::free_for_held).unwrap_or_default()
        })
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
            if !self.let_go(some).await {
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
        let looks = tokio::select! {
            () = stop.cancelled() => return Err(Failure::drained()),
            looks = self.looks(provider, batch) => looks,
        };
        let mut seen = Vec::new();
        let mut unseen = Vec::new();
        let mut unasked = Vec::new();
        for (held, look) in batch.tasks.iter().zip(looks) {
            match look {
                Some(Ok(sighting)) => {
                    let observation = self.parts.observation(provider, held, sighting);
                    if !self.keep(held, &observation) {
                        seen.push((held, observation));
                    }
                }
                Some(Err(error)) if error.said().is_repeated => {
                    let until = self.parts.unasked_until(&batch.tasks, &error);
                    unasked.push((held.task.lease, until));
                }
                Some(Err(error)) => unseen.push((held, error)),
                None => {
                    if !self.held.keep_alone(held, Instant::now()) {
                        unasked.push((held.task.lease, self.parts.clock.now()));
                    }
                }
            }
        }
        self.observe(seen).await;
        for (held, error) in unseen {
            let blank = self.parts.blank(&held.task, &error);
            self.settle_blank(held, &blank).await;
        }
        self.let_go(&unasked).await;
        Ok(())
    }

    async fn settle(&self, batch: &Batch, failure: Failure) {
        let blank = Blank {
            failure,
            is_miss: false,
            is_charged: false,
        };
        for held in &batch.tasks {
            self.settle_blank(held, &blank).await;
        }
    }
}

impl Watch {
    /// A stage that holds nothing yet.
    pub fn new(parts: WatchParts) -> Self {
        Self {
            held: Held::new(parts.lease),
            rooms: parts.providers.iter().map(Room::of).collect(),
            past_backlog_at: Mutex::default(),
            parts,
        }
    }

    /// How many steps may be under way at once: those of all providers, and one for those that are not configured.
    pub fn room(&self) -> usize {
        let places = self.rooms.values().map(Room::places);
        places.fold(1, usize::saturating_add)
    }

    /// The providers that are not to be called now.
    fn pauses(&self) -> Vec<ProviderName> {
        let is_paused = |(_, provider): &(&ProviderName, &Provider)| {
            let now = self.parts.clock.now();
            provider.paused_until().is_some_and(|until| until > now)
        };
        let paused = self.parts.providers.iter().filter(is_paused);
        paused.map(|(name, _)| name.clone()).collect()
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
        seen.line = Line::Together;
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

    /// A look for each task of a batch; none for those that are to be asked about alone.
    async fn looks(&self, provider: &Provider, batch: &Batch) -> Vec<Option<Look>> {
        let ids: Vec<&TaskId> = batch.tasks.iter().map(|held| &held.task.key.id).collect();
        if batch.is_alone {
            let looks = provider.look_each(&ids).await;
            return looks.into_iter().map(Some).collect();
        }
        let Some(room) = self.rooms.get(&batch.provider) else {
            return Vec::new();
        };
        // It may have turned out since it was made up that each is a call.
        room.set_each_a_call(provider.batch_max() == 1);
        let most = room.batch_max(Line::Together).min(ids.len());
        let (some, rest) = ids.split_at(most);
        let mut looks = provider.look_many(some).await;
        looks.extend(rest.iter().map(|_| None));
        // Where there is no room to keep them, they are asked about now.
        if !self.held.has_room() {
            let untold = looks.iter_mut().zip(ids).filter(|(look, _)| look.is_none());
            let (places, ids): (Vec<_>, Vec<_>) = untold.unzip();
            let told = provider.look_each(&ids).await;
            for (place, look) in places.into_iter().zip(told) {
                *place = Some(look);
            }
        }
        looks
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
            // What one of them has in it is no reason to forget the others.
            Err(ManifestError::Unfit { .. }) => self.observe_each(&seen).await,
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
                // Whoever has it now looks at it.
                if !matches!(error, ManifestError::Stale { .. }) {
                    self.look_again(held);
                }
            }
        }
    }

    /// Writes what a call told of each task in a transaction of its own.
    async fn observe_each(
        &self,
        seen: &[(Lease, Observation)],
    ) -> Vec<Result<Observed, ManifestError>> {
        let mut outcomes = Vec::with_capacity(seen.len());
        for (lease, observation) in seen {
            let write = || self.parts.manifest.observe(lease, observation.clone());
            outcomes.push(write_patiently(&self.parts.dice, write).await);
        }
        outcomes
    }

    /// Ends claims on tasks about which there is nothing to tell, each with the time of its next look.
    async fn let_go(&self, held: &[(Lease, Timestamp)]) -> bool {
        if held.is_empty() {
            return true;
        }
        let given = write_patiently(&self.parts.dice, || self.parts.manifest.let_go(held)).await;
        if let Err(error) = &given {
            tracing::error!(tasks = held.len(), %error, "failed to give tasks back; the claims run out by themselves");
        }
        given.is_ok()
    }

    /// Writes what becomes of a task that nothing was told of.
    async fn settle_blank(&self, held: &HeldTask, blank: &Blank) {
        let task = held.task.as_ref();
        let settlement = self.parts.settlement(task, blank);
        let (failure, state) = (&blank.failure, settlement.state);
        if state == task.state {
            tracing::warn!(task.id = %task.key.id, %failure, "no answer about a task");
        } else {
            tracing::error!(task.id = %task.key.id, %failure, %state, "given up: it is not asked about any more");
        }
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

#[cfg(test)]
mod tests;
