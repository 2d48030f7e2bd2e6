//! Whose bytes move now: so many assets at once, but the slow make room for others and the urgent wait for nobody.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// One in so many slots is kept for assets that near their deadline.
const URGENT_ONE_IN: u32 = 4;

/// All slots of the process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    ordinary: Arc<Semaphore>,
    /// Where slow transfers go on, so that a slow origin does not fill the ordinary slots.
    slow: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    /// Questions to stores before the bytes: no more connections are opened for them than bytes will use.
    looks: Arc<Semaphore>,
}

/// A slot, given back by dropping.
#[derive(Debug)]
pub(crate) struct Slot {
    permit: Mutex<OwnedSemaphorePermit>,
    slow: Arc<Semaphore>,
}

impl Slots {
    /// Slots for `concurrent` assets, as many for slow ones, and some for urgent ones: [`Slots::count`] in all.
    pub(crate) fn new(concurrent: u32) -> Self {
        let semaphore = |permits: u32| {
            let permits = usize::try_from(permits).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
        };
        Self {
            ordinary: semaphore(concurrent),
            slow: semaphore(concurrent),
            urgent: semaphore(Self::urgent(concurrent)),
            looks: semaphore(concurrent),
        }
    }

    /// How many transfers move bytes at most where `concurrent` is configured.
    pub(crate) fn count(concurrent: u32) -> u32 {
        concurrent
            .saturating_mul(2)
            .saturating_add(Self::urgent(concurrent))
    }

    /// How many of them only urgent assets take.
    pub(crate) fn urgent(concurrent: u32) -> u32 {
        concurrent.div_ceil(URGENT_ONE_IN)
    }

    /// Waits until one more asset may be asked about at its stores.
    pub(crate) async fn look(&self) -> OwnedSemaphorePermit {
        let look = Arc::clone(&self.looks).acquire_owned().await;
        look.expect("the semaphores are never closed")
    }

    /// Waits for a slot, in the order of asking; an urgent asset has some more to itself.
    pub(crate) async fn take(&self, is_urgent: bool) -> Slot {
        let ordinary = Arc::clone(&self.ordinary).acquire_owned();
        let permit = if is_urgent {
            // Both arms are cancel-safe: a permit that was not taken stays.
            tokio::select! {
                biased;
                permit = ordinary => permit,
                permit = Arc::clone(&self.urgent).acquire_owned() => permit,
            }
        } else {
            ordinary.await
        };
        Slot {
            permit: Mutex::new(permit.expect("the semaphores are never closed")),
            slow: Arc::clone(&self.slow),
        }
    }
}

impl Slot {
    /// Goes on in a slot for the slow; `false` when none is left.
    pub(crate) fn make_room(&self) -> bool {
        let Ok(permit) = Arc::clone(&self.slow).try_acquire_owned() else {
            return false;
        };
        let mut own = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        *own = permit;
        true
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_slow_transfer_makes_room_for_one_more() {
        let slots = Slots::new(2);
        let (slow, _other) = (slots.take(false).await, slots.take(false).await);
        assert!(slots.take(false).now_or_never().is_none());
        assert!(slow.make_room());
        let _third = slots.take(false).now_or_never().unwrap();
        assert!(slots.take(false).now_or_never().is_none());
        drop(slow);
        assert!(slots.take(false).now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_urgent_overtake() {
        let slots = Slots::new(1);
        let first = slots.take(false).await;
        let waiting = slots.take(false);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        let _urgent = slots.take(true).now_or_never().unwrap();
        assert!(slots.take(true).now_or_never().is_none());
        drop(first);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn there_are_never_more_than_counted() {
        let slots = Slots::new(5);
        let mut taken = Vec::new();
        while let Some(slot) = slots.take(true).now_or_never() {
            slot.make_room();
            taken.push(slot);
        }
        assert_eq!(u32::try_from(taken.len()), Ok(Slots::count(5)));
    }
}
