//! What one provider can be asked at once: places for batches, which nobody else takes.
//!
//! Nobody waits for another provider's rate, since each has places of its own; and no task waits for long behind others of
//! its provider that are claimed already, since a rate that is low has room for few. Tasks that are asked about alone have
//! one place for themselves: whatever their number, they are given a part of the calls, and no more.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::units::Span;
use crate::watch::held::Line;
use crate::watch::held::Open;

/// Tasks asked about in one step: what the batch calls of providers take.
pub(super) const BATCH_MAX: usize = 50;

/// Calls to one provider under way at once.
const PLACES_MAX: usize = 16;

/// No fewer, where the rate allows as many looks: one that hangs does not stop the others.
const PLACES_MIN: usize = 4;

/// What is claimed of a provider's tasks is asked about within this, at its rate.
const AHEAD: Span = Span::from_secs(4);

/// The tasks that are asked about alone in one step: as many as the rate allows within this, so that whoever comes waits no
/// longer for them.
const ALONE_AHEAD: Span = Span::from_secs(1);

/// A provider that has more than there is room for is claimed for again when this part of its places is free: for a single
/// one a claim costs what it costs for more.
const WORTH_A_CLAIM: usize = 4;

/// How many batches may be under way, and how large each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    places: usize,
    batch_max: usize,
}

impl Size {
    /// As many as so many calls can ask about, without limit where there is no pace, each about as many as `batch_max` tasks.
    fn for_calls(calls: Option<usize>, batch_max: usize) -> Self {
        let tasks_max = PLACES_MAX * BATCH_MAX;
        let calls = calls.unwrap_or(tasks_max).clamp(1, tasks_max);
        let tasks = calls.saturating_mul(batch_max).clamp(1, tasks_max);
        let places = tasks.div_ceil(BATCH_MAX).max(PLACES_MIN.min(calls));
        Self {
            places,
            batch_max: (tasks / places).max(1),
        }
    }
}

/// The room of one provider.
#[derive(Debug)]
pub(super) struct Room {
    /// Where one call asks about many.
    many: Size,
    /// Where each task is a call.
    each: Size,
    /// Whether it is: a batch call that is described may turn out not to be there.
    is_each_a_call: AtomicBool,
    free: Arc<Semaphore>,
    /// The place of those that are asked about alone, and how many of them it takes.
    alone: Arc<Semaphore>,
    alone_max: usize,
    /// Whether the manifest had more of it that was due than there was room for, when it was last asked.
    is_behind: AtomicBool,
}

impl Room {
    /// The room of a provider, by its name.
    pub(super) fn of((name, provider): (&ProviderName, &Provider)) -> (ProviderName, Self) {
        let calls = provider.calls_within(AHEAD);
        let alone = provider.calls_within(ALONE_AHEAD);
        let room = Self::for_calls(calls, alone, provider.batch_max());
        (name.clone(), room)
    }

    fn for_calls(calls: Option<usize>, alone: Option<usize>, batch_max: usize) -> Self {
        let many = Size::for_calls(calls, batch_max);
        Self {
            many,
            each: Size::for_calls(calls, 1),
            is_each_a_call: AtomicBool::new(batch_max == 1),
            free: Arc::new(Semaphore::new(many.places)),
            alone: Arc::new(Semaphore::new(1)),
            alone_max: alone.unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX),
            is_behind: AtomicBool::new(false),
        }
    }

    /// How many batches may be under way.
    pub(super) fn places(&self) -> usize {
        self.many.places.saturating_add(1)
    }

    /// The most tasks in a batch of those that wait in `line`.
    pub(super) fn batch_max(&self, line: Line) -> usize {
        if line.is_alone() {
            self.alone_max
        } else {
            self.size().batch_max
        }
    }

    /// For how many tasks more there is room that are asked about together.
    pub(super) fn free(&self) -> usize {
        self.free_places() * self.size().batch_max
    }

    /// For how many of those that are held: for all that there is room for, or for half of that where the manifest has more
    /// that is due.
    pub(super) fn free_for_held(&self) -> Open {
        let together = match (self.is_behind(), self.is_worth_a_claim()) {
            (false, _) => self.free(),
            (true, true) => self.free() / 2,
            (true, false) => 0,
        };
        Open {
            together,
            alone: self.alone.available_permits() * self.alone_max,
        }
    }

    /// Takes a place for those of a line, which is free again when the batch is dropped.
    pub(super) fn take_place(&self, line: Line) -> Option<OwnedSemaphorePermit> {
        let (places, free) = if line.is_alone() {
            (&self.alone, 1)
        } else {
            (&self.free, self.free_places())
        };
        let place = || Arc::clone(places).try_acquire_owned().ok();
        (free > 0).then(place).flatten()
    }

    /// Whether enough is free for one more claim.
    pub(super) fn is_worth_a_claim(&self) -> bool {
        self.free_places() >= self.size().places.div_ceil(WORTH_A_CLAIM)
    }

    /// Whether the manifest has more of it that is due.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Says so.
    pub(super) fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }

    /// Says whether each task is a call.
    pub(super) fn set_each_a_call(&self, is_each_a_call: bool) {
        self.is_each_a_call.store(is_each_a_call, Ordering::Relaxed);
    }

    fn size(&self) -> Size {
        if self.is_each_a_call.load(Ordering::Relaxed) {
            self.each
        } else {
            self.many
        }
    }

    fn free_places(&self) -> usize {
        let spare = self.many.places.saturating_sub(self.size().places);
        self.free.available_permits().saturating_sub(spare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(calls: Option<usize>, at_once: usize, places: usize, batch_max: usize) {
        let room = Room::for_calls(calls, calls, at_once);
        assert_eq!(room.size(), Size { places, batch_max });
        assert_eq!(room.free(), places * batch_max);
        // Without batch calls no more are claimed than calls are allowed.
        room.set_each_a_call(true);
        assert!(room.free() <= calls.unwrap_or(800), "{}", room.free());
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
        let room = Room::for_calls(None, None, 50);
        let mut taken: Vec<_> = (0..16)
            .map(|_| room.take_place(Line::Together).unwrap())
            .collect();
        assert!(room.take_place(Line::Together).is_none());
        assert_eq!(room.free(), 0);
        // Those that are asked about alone take nobody's place, and nobody takes theirs.
        assert!(room.take_place(Line::Missed).is_some());
        taken.truncate(13);
        assert!(!room.is_worth_a_claim());
        taken.truncate(12);
        assert!(room.is_worth_a_claim());
        assert_eq!(room.free(), 200);
    }
}
