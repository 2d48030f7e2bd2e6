//! The pace of calls to one peer: a token bucket that serves in order, and a pause that the peer asked for.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::units::Rate;
use crate::units::Span;

/// A burst lets through at once what the rate allows in this time.
const BURST: Span = Span::from_secs(1);

/// A turn that was not given since the peer wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("paused for {left}")]
pub struct Paused {
    /// How long the pause goes on.
    pub left: Span,
}

/// How fast a peer may be called, shared by all who call it.
///
/// A pause refuses turns instead of delaying them: whoever asks holds a lease, and the manifest is the better place to
/// wait.
#[derive(Debug)]
pub struct Pace {
    /// The lock is the line: tokio's mutex is fair, and whoever holds it waits for the next token.
    bucket: Option<tokio::sync::Mutex<Bucket>>,
    rate: Option<Rate>,
    paused_until: Mutex<Option<Instant>>,
    /// Among how many the rate is divided, of which we are one.
    sharers: AtomicU32,
}

/// What a `Retry-After` asks for, in seconds or as a date. Nobody has to believe it.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Span> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        // More digits than a u64 has mean longer than ever, too.
        return Some(Span::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value);
    Some(Timestamp::from_unix_millis(date.ok()?.as_millisecond()).since(now))
}

impl Pace {
    /// A pace of `rate`, with bursts of what it allows in a second; without a rate only pauses hold anybody back.
    pub fn new(rate: Option<Rate>) -> Self {
        let bucket = |rate: Rate| {
            let interval = rate.interval().as_duration();
            tokio::sync::Mutex::new(Bucket::new(interval, BURST.as_duration()))
        };
        Self {
            bucket: rate.map(bucket),
            rate,
            sharers: AtomicU32::new(1),
            paused_until: Mutex::new(None),
        }
    }

    /// Divides the rate among so many from the next turn on, of which we are one.
    pub fn share_among(&self, sharers: u32) {
        self.sharers.store(sharers.max(1), Ordering::Relaxed);
    }

    /// How many turns whoever has the whole rate gets in `span`, and one at least; `None` without a rate.
    pub fn turns_within(&self, span: Span) -> Option<usize> {
        let interval = self.rate?.interval().as_duration().as_nanos().max(1);
        let turns = span.as_duration().as_nanos() / interval;
        Some(usize::try_from(turns).unwrap_or(usize::MAX).max(1))
    }

    /// Waits for a turn, first come first served. Dropped before its end, it has taken nothing.
    pub async fn turn(&self) -> Result<(), Paused> {
        self.refuse_while_paused()?;
        let Some(bucket) = &self.bucket else {
            return Ok(());
        };
        let mut bucket = bucket.lock().await;
        self.refuse_while_paused()?;
        bucket.share_among(self.sharers.load(Ordering::Relaxed));
        let now = Instant::now();
        let opens_at = bucket.opens_at(now);
        // The timer rounds up to its next tick, which a token that is there must not cost.
        if opens_at > now {
            tokio::time::sleep_until(opens_at).await;
        }
        // The pause may have begun while this turn was waited for.
        self.refuse_while_paused()?;
        bucket.take(Instant::now());
        Ok(())
    }

    /// Gives no turns for `span` from now; a pause that ends later already stays.
    pub fn pause_for(&self, span: Span) {
        let until = Instant::now().checked_add(span.as_duration());
        let mut paused = self.paused_until();
        *paused = (*paused).max(until);
    }

    /// Ends any pause.
    pub fn resume(&self) {
        *self.paused_until() = None;
    }

    /// How long the pause goes on, if there is one.
    pub fn pause_left(&self) -> Option<Span> {
        let until = (*self.paused_until())?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| Span::from(left))
    }

    fn refuse_while_paused(&self) -> Result<(), Paused> {
        self.pause_left()
            .map_or(Ok(()), |left| Err(Paused { left }))
    }

    fn paused_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of something is taken: what comes beyond it is refused, where a [`Pace`] would have it wait.
#[derive(Debug)]
pub struct Allowance(Mutex<Bucket>);

impl Allowance {
    /// An allowance of `rate`, with bursts of what it allows in a second.
    pub fn new(rate: Rate) -> Self {
        let interval = rate.interval().as_duration();
        Self(Mutex::new(Bucket::new(interval, BURST.as_duration())))
    }

    /// Whether one more is taken now.
    pub fn take(&self) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_open = bucket.opens_at(now) <= now;
        if is_open {
            bucket.take(now);
        }
        is_open
    }
}

/// A token bucket, told by when it would be full again.
#[derive(Debug)]
struct Bucket {
    /// Between two tokens of the whole rate.
    whole: Duration,
    burst: Duration,
    interval: Duration,
    /// How far `full_at` may lie ahead while there is still a token.
    slack: Duration,
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket that gains a token every `interval` and holds what `burst` gains, but at least one.
    fn new(interval: Duration, burst: Duration) -> Self {
        Self {
            whole: interval,
            burst,
            interval,
            slack: burst.saturating_sub(interval),
            full_at: None,
        }
    }

    /// Takes one part of so many of the whole rate.
    fn share_among(&mut self, sharers: u32) {
        self.interval = self.whole.saturating_mul(sharers);
        self.slack = self.burst.saturating_sub(self.interval);
    }

    /// When there is a token, at `now` or later.
    fn opens_at(&self, now: Instant) -> Instant {
        let opens = self.full_at.and_then(|full| full.checked_sub(self.slack));
        opens.map_or(now, |opens| opens.max(now))
    }

    /// Takes the token that is there at `now`.
    fn take(&mut self, now: Instant) {
        let from = self.full_at.map_or(now, |full| full.max(now));
        self.full_at = from.checked_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;

    /// Takes as many tokens as possible at each of `at_ms` and says how many those were.
    #[track_caller]
    fn check(interval_ms: u64, burst_ms: u64, at_ms: &[u64], taken: &[u32]) {
        let (interval, burst) = (
            Duration::from_millis(interval_ms),
            Duration::from_millis(burst_ms),
        );
        let mut bucket = Bucket::new(interval, burst);
        let start = Instant::now();
        let mut take_all = |at: &u64| {
            let now = start + Duration::from_millis(*at);
            let mut count = 0;
            while bucket.opens_at(now) == now {
                bucket.take(now);
                count += 1;
            }
            count
        };
        let counts: Vec<u32> = at_ms.iter().map(&mut take_all).collect();
        assert_eq!(counts, taken);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        check(200, 1000, &[0, 199, 200, 400, 10_000], &[5, 0, 1, 1, 5]);
        check(1000, 1000, &[0, 999, 1000, 5000], &[1, 0, 1, 1]);
        check(60_000, 1000, &[0, 30_000, 60_000], &[1, 0, 1]);
    }

    #[test]
    fn sharers_get_their_part_and_no_more() {
        let mut bucket = Bucket::new(Duration::from_millis(100), Duration::from_secs(1));
        bucket.share_among(4);
        let now = Instant::now();
        let taken = (0..10).filter(|_| {
            let is_open = bucket.opens_at(now) == now;
            if is_open {
                bucket.take(now);
            }
            is_open
        });
        assert_eq!(taken.count(), 2, "a quarter of ten, in whole tokens");
        assert_eq!(bucket.interval, Duration::from_millis(400));
        bucket.share_among(1);
        assert_eq!(bucket.interval, Duration::from_millis(100));
    }

    #[test]
    fn a_bucket_says_when_the_next_token_is_there() {
        let mut bucket = Bucket::new(Duration::from_mins(1), Duration::from_secs(1));
        let now = Instant::now();
        bucket.take(now);
        assert_eq!(bucket.opens_at(now), now + Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_an_allowance_is_refused() {
        let allowance = Allowance::new("5/s".parse().unwrap());
        let take = || (0..10).filter(|_| allowance.take()).count();
        assert_eq!(take(), 5);
        assert_eq!(take(), 0);
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(take(), 2);
    }

    #[test]
    fn many_who_come_at_once_get_all_of_an_allowance() {
        let allowance = Allowance::new("10000/s".parse().unwrap());
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| allowance.take()).count();
            let takers: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 8000);
    }

    fn pace(rate: &str) -> Pace {
        Pace::new(Some(rate.parse().unwrap()))
    }

    #[tokio::test]
    async fn a_turn_waits_for_its_token_and_turns_come_in_order() {
        let begun = Instant::now();
        let pace = Arc::new(pace("50/s"));
        for _ in 0..50 {
            pace.turn().await.unwrap();
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut turns = Vec::new();
        for number in 0..4 {
            let (pace, order) = (pace.clone(), order.clone());
            let mut turn = Box::pin(async move {
                pace.turn().await.unwrap();
                order.lock().unwrap().push(number);
            });
            assert!(turn.as_mut().now_or_never().is_none());
            turns.push(turn);
        }
        // Polled backwards, served forwards.
        turns.reverse();
        futures::future::join_all(turns).await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
        assert!(begun.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn a_turn_that_is_given_up_takes_nothing_and_blocks_nobody() {
        let pace = pace("1/h");
        pace.turn().await.unwrap();
        {
            let mut waiting = Box::pin(pace.turn());
            let mut behind = Box::pin(pace.turn());
            assert!(waiting.as_mut().now_or_never().is_none());
            assert!(behind.as_mut().now_or_never().is_none());
        }
        let bucket = pace.bucket.as_ref().unwrap().try_lock().unwrap();
        let wait = bucket.opens_at(Instant::now()) - Instant::now();
        assert!(wait <= Duration::from_hours(1), "{wait:?}");
    }

    #[tokio::test]
    async fn a_pause_refuses_those_who_come_and_those_who_wait() {
        let pace = pace("20/s");
        for _ in 0..20 {
            pace.turn().await.unwrap();
        }
        let mut first = Box::pin(pace.turn());
        let mut second = Box::pin(pace.turn());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        pace.pause_for(Span::from_secs(300));
        pace.pause_for(Span::from_secs(1));
        let refused = |turn: Result<(), Paused>| turn.unwrap_err().left > Span::from_secs(290);
        assert!(refused(first.await));
        assert!(refused(second.await));
        assert!(refused(pace.turn().await));
        pace.resume();
        assert_eq!(pace.turn().await, Ok(()));
    }

    #[tokio::test]
    async fn without_a_rate_only_a_pause_holds_anybody_back() {
        let pace = Pace::new(None);
        for _ in 0..1000 {
            assert_eq!(pace.turn().now_or_never(), Some(Ok(())));
        }
        pace.pause_for(Span::from_secs(5));
        assert!(pace.turn().await.is_err());
        assert!(pace.pause_left() <= Some(Span::from_secs(5)));
    }
}
