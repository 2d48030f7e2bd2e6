//! The bandwidth that all transfers share: a token bucket over bytes, whose rate can be changed while they run.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::units::ByteRate;

/// What may pass at once after a pause: as much as the rate gives in this time.
const BURST: Duration = Duration::from_millis(100);

/// What passes in one step is no shorter, however low the rate.
const STEP_MIN: u64 = 4 << 10;

/// A limit on bytes a second, or none. Clones share it.
#[derive(Clone, Debug)]
pub struct Bandwidth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: watch::Sender<Option<ByteRate>>,
    /// What of that rate passes in one step.
    step: AtomicU64,
    /// When all that has passed is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Bandwidth {
    /// A limit of `rate`; none lets everything pass.
    pub fn new(rate: Option<ByteRate>) -> Self {
        Self(Arc::new(Inner {
            limit: watch::Sender::new(rate),
            step: AtomicU64::new(step(rate)),
            paid_at: Mutex::new(None),
        }))
    }

    /// Changes the limit, also for those who wait.
    pub fn change(&self, rate: Option<ByteRate>) {
        let mut paid_at = self.paid_at();
        *paid_at = None;
        self.0.step.store(step(rate), Ordering::Relaxed);
        self.0.limit.send_replace(rate);
    }

    /// How many bytes pass in one step: few where the rate is low, or each of many who share it would wait for its turn
    /// for so long that a store gives it up.
    pub fn step(&self) -> u64 {
        self.0.step.load(Ordering::Relaxed)
    }

    /// Counts bytes that have passed, and waits until they are paid for.
    pub async fn pass(&self, bytes: u64) {
        if self.step() == u64::MAX {
            return;
        }
        let mut limit = self.0.limit.subscribe();
        let now = Instant::now();
        let paid_at = {
            // Rate and debt belong together: both are read, and changed, under this lock.
            let mut paid_at = self.paid_at();
            let rate = *limit.borrow_and_update();
            let Some(rate) = rate else { return };
            let from = paid_at.map_or(now, |paid| paid.max(now));
            let paid = from + rate.time_for(bytes);
            *paid_at = Some(paid);
            paid
        };
        let until = paid_at.checked_sub(BURST).unwrap_or(now);
        if until > now {
            // A limit that changes ends the wait: what was owed under the old one is forgiven.
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = limit.changed() => {}
            }
        }
    }

    fn paid_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0
            .paid_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn step(rate: Option<ByteRate>) -> u64 {
    let steps_a_second = u64::try_from(1_000 / BURST.as_millis()).unwrap_or(1);
    rate.map_or(u64::MAX, |rate| {
        (rate.bytes_a_second() / steps_a_second).max(STEP_MIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    async fn time_to_pass(bandwidth: &Bandwidth, frames: u64) -> Duration {
        let started = Instant::now();
        for _ in 0..frames {
            bandwidth.pass(MIB / 4).await;
        }
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_pass_share_the_rate() {
        let bandwidth = Bandwidth::new(Some("8 MiB/s".parse().unwrap()));
        let both =
            async { tokio::join!(time_to_pass(&bandwidth, 32), time_to_pass(&bandwidth, 32)) };
        let (one, other) = both.await;
        let took = one.max(other).as_millis();
        assert!((1_800..=2_050).contains(&took), "{took} ms for 16 MiB");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        assert!(time_to_pass(&Bandwidth::new(None), 1_000).await.is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_reaches_those_who_wait() {
        let bandwidth = Bandwidth::new(Some("1 KiB/s".parse().unwrap()));
        let started = Instant::now();
        tokio::join!(time_to_pass(&bandwidth, 8), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bandwidth.change(None);
        });
        assert_eq!(started.elapsed().as_secs(), 1);
    }
}
