//! The byte budget: one bound on all video that the process holds, whatever the number of transfers.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::units::ByteSize;

/// What one permit of the semaphore stands for: fine enough for frames, and 256 GiB still fit a permit count.
const GRAIN: u64 = 64 * 1024;

/// More was asked for than the whole budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} at once is more than transfer.memory, which is {total}")]
pub struct OverBudget {
    wanted: ByteSize,
    total: ByteSize,
}

/// The budget. Whoever wants to hold video takes first, in the order of asking, and gives back by dropping.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: ByteSize,
}

/// A share of the budget.
#[derive(Debug)]
pub struct Share {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `total`, rounded down to whole grains, but at least one.
    pub fn new(total: ByteSize) -> Self {
        let grains = usize::try_from((total.as_u64() / GRAIN).max(1)).unwrap_or(usize::MAX);
        Self {
            free: Arc::new(Semaphore::new(grains.min(Semaphore::MAX_PERMITS))),
            total,
        }
    }

    /// Waits until `bytes` are free and takes them.
    pub async fn take(&self, bytes: u64) -> Result<Share, OverBudget> {
        let over = OverBudget {
            wanted: ByteSize::bytes(bytes),
            total: self.total,
        };
        if bytes > self.whole().as_u64() {
            return Err(over);
        }
        let grains = u32::try_from(bytes.div_ceil(GRAIN).max(1)).map_err(|_| over)?;
        let permit = Arc::clone(&self.free).acquire_many_owned(grains).await;
        Ok(Share {
            _permit: permit.expect("the semaphore is never closed"),
        })
    }

    /// Takes `bytes` if they are free now and nobody waits for them.
    pub fn try_take(&self, bytes: u64) -> Option<Share> {
        let grains = u32::try_from(bytes.div_ceil(GRAIN).max(1)).ok()?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(grains).ok()?;
        Some(Share { _permit: permit })
    }

    /// What there is, in whole grains.
    pub fn whole(&self) -> ByteSize {
        ByteSize::bytes((self.total.as_u64() / GRAIN).max(1).saturating_mul(GRAIN))
    }

    /// What is taken now, in whole grains.
    pub fn taken(&self) -> ByteSize {
        ByteSize::bytes(self.whole().as_u64().saturating_sub(self.free().as_u64()))
    }

    /// What is free now, in whole grains.
    pub fn free(&self) -> ByteSize {
        let grains = u64::try_from(self.free.available_permits()).unwrap_or(u64::MAX);
        ByteSize::bytes(grains.saturating_mul(GRAIN))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_process_never_holds_more_than_the_budget() {
        let budget = Budget::new(ByteSize::mib(1));
        let first = budget.take(700 * 1024).await.unwrap();
        let second = budget.take(400 * 1024);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await.unwrap();
        assert!(budget.free() <= ByteSize::bytes(624 * 1024));
        assert_eq!(budget.taken(), ByteSize::bytes(448 * 1024));
        drop(second);
        assert_eq!(budget.free(), ByteSize::mib(1));
    }

    #[tokio::test]
    async fn whoever_waits_comes_before_whoever_tries() {
        let budget = Budget::new(ByteSize::mib(1));
        let first = budget.try_take(700 * 1024).unwrap();
        assert!(budget.try_take(400 * 1024).is_none());
        let second = budget.take(400 * 1024);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        assert!(budget.try_take(64 * 1024).is_none());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn what_can_never_fit_is_an_error_and_not_a_wait() {
        let budget = Budget::new(ByteSize::mib(1));
        assert!(budget.take((1 << 20) + 1).await.is_err());
        assert!(budget.take(1 << 20).await.is_ok());
    }
}
