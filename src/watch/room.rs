//! What one provider can be asked at once: places for batches, which nobody else takes.
//!
//! Nobody waits for another provider's rate, since each has places of its own; and no task waits for long behind others of
//! its provider that are claimed already, since a rate that is low has room for few.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::units::Span;

/// Tasks asked about in one step: what the batch calls of providers take.
pub(super) const BATCH_MAX: usize = 50;

/// Calls to one provider under way at once.
const PLACES_MAX: usize = 16;

/// No fewer, where the rate allows as many looks: one that hangs does not stop the others.
const PLACES_MIN: usize = 4;

/// What is claimed of a provider's tasks is asked about within this, at its rate.
const AHEAD: Span = Span::from_secs(4);

/// A provider that has more than there is room for is claimed for again when this part of its places is free: for a single
/// one a claim costs what it costs for more.
const WORTH_A_CLAIM: usize = 4;

/// The room of one provider.
#[derive(Debug)]
pub(super) struct Room {
    /// The most tasks in one of its batches.
    pub(super) batch_max: usize,
    free: Arc<Semaphore>,
    places: usize,
    /// Whether the manifest had more of it that was due than there was room for, when it was last asked.
    is_behind: AtomicBool,
}

impl Room {
    /// The room of a provider, by its name.
    pub(super) fn of((name, provider): (&ProviderName, &Provider)) -> (ProviderName, Self) {
        let room = Self::for_calls(provider.calls_within(AHEAD), provider.batch_max());
        (name.clone(), room)
    }

    /// Room for so many calls, without limit where there is no pace, each about as many as `batch_max` tasks.
    fn for_calls(calls: Option<usize>, batch_max: usize) -> Self {
        let tasks_max = PLACES_MAX * BATCH_MAX;
        let calls = calls.unwrap_or(tasks_max).clamp(1, tasks_max);
        let tasks = calls.saturating_mul(batch_max).clamp(1, tasks_max);
        let places = tasks.div_ceil(BATCH_MAX).max(PLACES_MIN.min(calls));
        Self {
            batch_max: (tasks / places).max(1),
            free: Arc::new(Semaphore::new(places)),
            places,
            is_behind: AtomicBool::new(false),
        }
    }

    /// How many batches may be under way.
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// For how many tasks more there is room.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits() * self.batch_max
    }

    /// Takes a place, which is free again when the batch is dropped.
    pub(super) fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Whether enough is free for one more claim.
    pub(super) fn is_worth_a_claim(&self) -> bool {
        self.free.available_permits() >= self.places.div_ceil(WORTH_A_CLAIM)
    }

    /// Whether the manifest has more of it that is due.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Says so.
    pub(super) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(calls: Option<usize>, at_once: usize, places: usize, batch_max: usize) {
        let room = Room::for_calls(calls, at_once);
        assert_eq!((room.places, room.batch_max), (places, batch_max));
        assert_eq!(room.free(), places * batch_max);
    }

    #[test]
    fn a_low_rate_has_little_room() {
        check(None, 1, 16, 50);
        check(None, 50, 16, 50);
        check(Some(1_000), 1, 16, 50);
        check(Some(200), 1, 4, 50);
        check(Some(20), 1, 4, 5);
        check(Some(20), 50, 16, 50);
        check(Some(2), 20, 2, 20);
        check(Some(1), 50, 1, 50);
        check(Some(3), 1, 3, 1);
        check(Some(1), 1, 1, 1);
    }

    #[test]
    fn places_are_given_back_and_few_are_not_worth_a_claim() {
        let room = Room::for_calls(None, 50);
        let mut taken: Vec<_> = (0..16).map(|_| room.take_place().unwrap()).collect();
        assert!(room.take_place().is_none());
        assert_eq!(room.free(), 0);
        taken.truncate(13);
        assert!(!room.is_worth_a_claim());
        taken.truncate(12);
        assert!(room.is_worth_a_claim());
        assert_eq!(room.free(), 200);
    }
}
