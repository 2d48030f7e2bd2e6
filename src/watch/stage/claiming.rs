//! Which tasks a turn claims: those that are held and due, and beside them as many of the manifest's as their providers have
//! room for.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::PoisonError;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::manifest::ManifestError;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;
use crate::units::Span;
use crate::watch::held::Due;
use crate::watch::held::HOLD_LEASES;
use crate::watch::held::HeldTask;
use crate::watch::room::BATCH_MAX;
use crate::watch::room::Room;
use crate::watch::stage::Batch;
use crate::watch::stage::Watch;

/// The shortest time between two claims that look past the tasks of a provider that has more than it can be asked, that
/// pauses, or that this machine lacks: they are all read, however many they are.
pub(super) const PAST_BACKLOG: Span = Span::from_millis(500);

/// What one claim turn takes of a provider.
struct Place<'a> {
    room: &'a Room,
    /// How many tasks more.
    left: usize,
    /// Whether nothing more of it is due.
    is_done: bool,
    /// Whether more was claimed than there is room for.
    has_surplus: bool,
}

impl<'a> Place<'a> {
    /// What is left beside so many looks at tasks that are held.
    fn in_room(room: &'a Room, looks: usize) -> Self {
        let left = match (room.is_behind(), room.is_worth_a_claim()) {
            // Who is held was looked at lately, and comes after what was not.
            (false, _) => room.free(),
            // But not after a backlog, which may last for long.
            (true, true) => room.free().saturating_sub(looks),
            // Of what is waited for, a single free place is not worth a claim.
            (true, false) => 0,
        };
        Self {
            room,
            left,
            is_done: false,
            has_surplus: false,
        }
    }
}

/// What was claimed.
pub(super) type Claimed = Result<Vec<HeldTask>, ManifestError>;

impl Watch {
    /// Claims what is due in the manifest. Of what is due here comes back what is ours as far as we know; what somebody
    /// wants looked at now, and what cannot be held any longer, is let go before and so among what is claimed.
    pub(super) async fn claim_beside(&self, due: Due) -> (Vec<HeldTask>, Claimed) {
        let Due { mut looks, overdue } = due;
        if looks.is_empty() && overdue.is_empty() && self.held.is_empty() {
            let claimed = self.claim_anew(&looks).await;
            return (looks, claimed);
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
        let claimed = self.claim_anew(&looks).await;
        (looks, claimed)
    }

    /// Claims from the manifest what there is room for. A provider that turns out to have more than that is passed over from
    /// then on where others have more room, since what is due of them may stand behind its tasks.
    ///
    /// A task that its provider did not know when it was last asked is taken out of the others' way: it is asked about alone.
    async fn claim_anew(&self, looks: &[HeldTask]) -> Claimed {
        if self.rooms.is_empty() {
            return self.claim_some(BATCH_MAX, &[]).await;
        }
        let pauses = self.pauses();
        let places = self.rooms.iter().filter(|(name, _)| !pauses.contains(name));
        let mut places: BTreeMap<&ProviderName, Place<'_>> = places
            .map(|(name, room)| {
                let its = |held: &&HeldTask| held.task.key.provider == *name;
                let its = looks
                    .iter()
                    .filter(its)
                    .filter(|held| !held.line.is_alone());
                (name, Place::in_room(room, its.count()))
            })
            .collect();
        let is_another_lacking = !self.parts.manifest.elsewhere().providers.is_empty();
        let mut may_look_past = None;
        let (mut claimed, mut surplus) = (Vec::new(), Vec::new());
        loop {
            let asked = places.values().filter(|place| !place.is_done);
            let size = asked.map(|place| place.left).max().unwrap_or_default();
            let is_passed = |place: &Place<'_>| place.room.is_behind() && place.left < size;
            let passed = places.iter().filter(|(_, place)| is_passed(place));
            let mut passed: Vec<ProviderName> = passed.map(|(name, _)| (*name).clone()).collect();
            passed.extend_from_slice(&pauses);
            let looks_past = is_another_lacking || !passed.is_empty();
            let mut may = || *may_look_past.get_or_insert_with(|| self.may_look_past());
            if size == 0 || (looks_past && !may()) {
                break;
            }
            let more = match self.claim_some(size, &passed).await {
                Err(error) if claimed.is_empty() => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "failed to claim more");
                    break;
                }
                Ok(more) => more,
            };
            let is_filled = more.len() >= size;
            for held in more {
                let is_missed = held.task.misses > 0 && !held.task.is_asked_for;
                let has_room = self.rooms.contains_key(&held.task.key.provider);
                if is_missed && has_room && self.held.keep_alone(&held, Instant::now()) {
                    continue;
                }
                match places.get_mut(&held.task.key.provider) {
                    Some(place) if place.left == 0 => {
                        place.has_surplus = true;
                        surplus.push(held);
                        continue;
                    }
                    Some(place) => place.left -= 1,
                    None => {}
                }
                claimed.push(held);
            }
            for (name, place) in &mut places {
                if !passed.contains(name) {
                    place.is_done |= !is_filled;
                    let is_used_up = is_filled && place.left == 0;
                    place.room.set_behind(is_used_up || place.has_surplus);
                }
            }
        }
        self.leave(surplus).await;
        Ok(claimed)
    }

    /// Ends claims that there is no room for. One try: a claim turn holds up the renewal of leases. What cannot be left now
    /// waits here.
    async fn leave(&self, surplus: Vec<HeldTask>) {
        if surplus.is_empty() {
            return;
        }
        let now = self.parts.clock.now();
        let due = |held: &HeldTask| {
            // Somebody waits for it still.
            let is_first = held.task.is_asked_for;
            let at = if is_first { Timestamp::EPOCH } else { now };
            (held.task.lease, at)
        };
        let leases: Vec<_> = surplus.iter().map(due).collect();
        if let Err(error) = self.parts.manifest.let_go(&leases).await {
            tracing::error!(tasks = surplus.len(), %error, "failed to give back what there is no room for");
            self.held.put_back(surplus, Instant::now());
        }
    }

    /// Whether the backlog of a provider may be read through now for the sake of others.
    fn may_look_past(&self) -> bool {
        let now = Instant::now();
        let last = self.past_backlog_at.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let is_time = last.is_none_or(|last| now >= last + PAST_BACKLOG.as_duration());
        if is_time {
            *last = Some(now);
        }
        is_time
    }

    /// Claims from the manifest, to hold it as long as there is room for that.
    async fn claim_some(&self, size: usize, passed_over: &[ProviderName]) -> Claimed {
        let manifest = &self.parts.manifest;
        // Before the claim: its answer may be late, the claim is not.
        let begun = Instant::now();
        let (hold, claimed) = if self.held.has_room() {
            let hold = self.parts.lease.times(f64::from(HOLD_LEASES));
            (hold, manifest.hold_tasks(size, passed_over, hold).await?)
        } else {
            let claimed = manifest.claim_tasks(size, passed_over).await?;
            (self.parts.lease, claimed)
        };
        let until = begun + hold.as_duration();
        let held = |task| HeldTask::new(task, begun, until);
        Ok(claimed.into_iter().map(held).collect())
    }

    /// Groups claimed tasks by provider, each group no larger than a batch, the most urgent first, as far as there are
    /// places; the others come back. Those that failed lately come last: the first of a group goes ahead, and what befalls it
    /// makes the others wait.
    pub(super) fn batches(&self, mut tasks: Vec<HeldTask>) -> (Vec<Batch>, Vec<HeldTask>) {
        tasks.sort_by_key(|held| held.task.attempts > 0);
        let (mut batches, mut left): (Vec<Batch>, Vec<HeldTask>) = (Vec::new(), Vec::new());
        for held in tasks {
            let provider = &held.task.key.provider;
            let room = self.rooms.get(provider);
            let (line, is_alone) = (held.line, held.line.is_alone());
            let size = room.map_or(BATCH_MAX, |room| room.batch_max(line));
            let fits = |batch: &&mut Batch| {
                let is_its = batch.provider == *provider && batch.is_alone == is_alone;
                is_its && batch.tasks.len() < size
            };
            // The last that was begun for it is the only one that is not full.
            if let Some(batch) = batches.iter_mut().rev().find(fits) {
                batch.tasks.push(held);
                continue;
            }
            let place = room.map(|room| room.take_place(line));
            if place.as_ref().is_some_and(Option::is_none) {
                left.push(held);
            } else {
                batches.push(Batch {
                    provider: provider.clone(),
                    tasks: vec![held],
                    is_alone,
                    _place: place.flatten(),
                });
            }
        }
        (batches, left)
    }
}
