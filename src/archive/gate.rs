//! How much one destination takes at once, and whether it takes anything at all.
//!
//! ```text
//! busy (503, SlowDown, answers that take long)  -> half as much at once; a little more after each success
//! blocked (a right, a bucket, a key is missing) -> closed: everything waits, one asset a minute tries
//! dead (no answer, time after time)             -> the same, sooner
//! ```
//! Kept in memory only: after a restart or a reload the destination shows anew how it is.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::failure::Failure;
use crate::model::object::DestinationName;
use crate::store::StoreError;
use crate::store::StoreErrorKind;

/// How often a destination that is closed is tried.
const PROBE_EVERY: Duration = Duration::from_mins(1);

/// How soon a destination that did not answer is tried for the first time; each further wait is twice as long.
const PROBE_FIRST: Duration = Duration::from_secs(2);

/// Requests in a row without an answer after which a destination counts as dead.
const SILENT_MAX: u32 = 8;

/// One trouble is one sign, however many requests met it: the limit is halved once in this time at most.
const HALVED_EVERY: Duration = Duration::from_secs(1);

/// An answer that takes this much longer than the quickest one says that requests queue up.
const SLOWER_MAX: u32 = 10;

/// Answers quicker than this never say so.
const SLOW_MIN: Duration = Duration::from_secs(2);

/// One destination's gate. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    destination: DestinationName,
    /// Requests at once when all is well.
    most: u32,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug)]
struct State {
    under_way: u32,
    limit: f64,
    halved_at: Option<Instant>,
    quickest: Option<Duration>,
    silent: u32,
    closed: Option<Closed>,
}

/// Why nothing passes.
#[derive(Clone, Debug)]
struct Closed {
    why: String,
    wait: Duration,
    probe_at: Instant,
}

impl Closed {
    fn shut(&self, now: Instant) -> Shut {
        Shut {
            why: self.why.clone(),
            wait: self.probe_at.saturating_duration_since(now),
        }
    }
}

/// A destination takes nothing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shut {
    /// What it answered.
    pub(crate) why: String,
    /// When it may be tried again.
    pub(crate) wait: Duration,
}

impl Shut {
    /// What it means for an asset.
    pub(crate) fn failure(self, clock: &Clock) -> Failure {
        let until = clock.now().plus(self.wait.into());
        Failure::wait_until(until, self.why)
    }
}

/// The right to have one request with a body under way.
#[derive(Debug)]
pub(crate) struct Pass(Gate);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.0.room.notify_one();
    }
}

impl Gate {
    /// An open gate for up to `most` requests at once.
    pub(crate) fn new(destination: DestinationName, most: u32) -> Self {
        let most = most.max(1);
        Self(Arc::new(Inner {
            destination,
            most,
            state: Mutex::new(State {
                under_way: 0,
                limit: f64::from(most),
                halved_at: None,
                quickest: None,
                silent: 0,
                closed: None,
            }),
            room: Notify::new(),
        }))
    }

    /// Whether it is worth while to ask for admission.
    pub(crate) fn peek(&self) -> Result<(), Shut> {
        let now = Instant::now();
        match &self.state().closed {
            Some(closed) if closed.probe_at > now => Err(closed.shut(now)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an asset may try this destination. Of those that ask while it is shut, one a turn may.
    pub(crate) fn admit(&self) -> Result<(), Shut> {
        let mut state = self.state();
        let Some(closed) = &mut state.closed else {
            return Ok(());
        };
        let now = Instant::now();
        if closed.probe_at <= now {
            closed.probe_at = now + closed.wait;
            return Ok(());
        }
        Err(closed.shut(now))
    }

    /// Waits until one more request may be under way. Cancel-safe.
    pub(crate) async fn pass(&self) -> Pass {
        loop {
            let room = self.0.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state();
                if f64::from(state.under_way) + 1.0 <= state.limit {
                    state.under_way += 1;
                    let has_more = f64::from(state.under_way) + 1.0 <= state.limit;
                    drop(state);
                    if has_more {
                        self.0.room.notify_one();
                    }
                    return Pass(self.clone());
                }
            }
            room.await;
        }
    }

    /// Takes note of a success, whose answer came `waited` after the last byte of the request.
    pub(crate) fn succeeded(&self, waited: Duration) {
        self.works();
        let mut state = self.state();
        // It is forgotten by and by: a path that has become longer is no crowd.
        let quickest = state.quickest.map(|quickest| quickest + quickest / 64);
        let quickest = quickest.map_or(waited, |quickest| quickest.min(waited));
        state.quickest = Some(quickest);
        if waited > SLOW_MIN && waited > quickest * SLOWER_MAX {
            self.halve(&mut state);
        } else {
            state.limit = (state.limit + 1.0 / state.limit).min(f64::from(self.0.most));
        }
        drop(state);
        self.0.room.notify_one();
    }

    /// Opens: something was written or proven at the destination.
    pub(crate) fn works(&self) {
        let mut state = self.state();
        state.silent = 0;
        let was_closed = state.closed.take().is_some();
        drop(state);
        if was_closed {
            tracing::info!(destination.name = %self.0.destination, "the destination works again");
        }
    }

    /// Takes note of a failure.
    pub(crate) fn failed(&self, error: &StoreError) {
        let mut state = self.state();
        match error.kind {
            StoreErrorKind::Blocked => {
                self.close(&mut state, error, PROBE_EVERY);
            }
            StoreErrorKind::Transient | StoreErrorKind::Ambiguous if error.status.is_none() => {
                state.silent += 1;
                if state.silent >= SILENT_MAX {
                    let before = state.closed.as_ref().map(|closed| closed.wait * 2);
                    let wait = before.unwrap_or(PROBE_FIRST).min(PROBE_EVERY);
                    self.close(&mut state, error, wait);
                }
            }
            StoreErrorKind::Transient | StoreErrorKind::Ambiguous => {
                state.silent = 0;
                if error.is_busy() {
                    self.halve(&mut state);
                }
            }
            // Of the key, the upload or the body, not of the destination: it answers.
            StoreErrorKind::Exists
            | StoreErrorKind::Conflict
            | StoreErrorKind::UploadGone
            | StoreErrorKind::Rejected => state.silent = 0,
            StoreErrorKind::Source => {}
        }
    }

    fn halve(&self, state: &mut State) {
        let now = Instant::now();
        let is_new = state
            .halved_at
            .is_none_or(|halved| now - halved >= HALVED_EVERY);
        if is_new {
            state.halved_at = Some(now);
            state.limit = (state.limit / 2.0).max(1.0);
            tracing::debug!(destination.name = %self.0.destination, limit = state.limit, "busy: fewer requests at once");
        }
    }

    /// Closes; the alarm is raised once for each time it closes.
    fn close(&self, state: &mut State, error: &StoreError, wait: Duration) {
        if state.closed.is_none() {
            tracing::error!(
                destination.name = %self.0.destination,
                %error,
                "the destination takes nothing: its objects wait, and it is tried again by itself"
            );
        }
        state.closed = Some(Closed {
            why: error.to_string(),
            wait,
            probe_at: Instant::now() + wait,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const QUICK: Duration = Duration::from_millis(10);

    fn gate(most: u32) -> Gate {
        Gate::new("main".parse().unwrap(), most)
    }

    fn busy() -> StoreError {
        StoreError::for_tests(StoreErrorKind::Transient, Some(503))
    }

    fn silent() -> StoreError {
        StoreError::for_tests(StoreErrorKind::Transient, None)
    }

    fn blocked() -> StoreError {
        StoreError::for_tests(StoreErrorKind::Blocked, Some(403))
    }

    /// How many may pass at once now.
    fn room(gate: &Gate) -> usize {
        let passes = std::iter::from_fn(|| gate.pass().now_or_never());
        passes.collect::<Vec<_>>().len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_store_is_asked_half_as_much_and_then_slowly_more() {
        let gate = gate(16);
        assert_eq!(room(&gate), 16);
        gate.failed(&busy());
        // All that were under way meet the same trouble, which is one sign and not many.
        gate.failed(&busy());
        assert_eq!(room(&gate), 8);
        tokio::time::advance(HALVED_EVERY).await;
        gate.failed(&busy());
        assert_eq!(room(&gate), 4);
        for _ in 0..10 {
            tokio::time::advance(HALVED_EVERY).await;
            gate.failed(&busy());
        }
        assert_eq!(room(&gate), 1);
        (0..4).for_each(|_| gate.succeeded(QUICK));
        assert_eq!(room(&gate), 3);
        (0..1_000).for_each(|_| gate.succeeded(QUICK));
        assert_eq!(room(&gate), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_much_later_than_the_quickest_are_a_sign_as_well() {
        let gate = gate(8);
        gate.succeeded(QUICK);
        gate.succeeded(SLOW_MIN);
        assert_eq!(room(&gate), 8);
        gate.succeeded(SLOW_MIN * 2);
        assert_eq!(room(&gate), 4);
        // A store that is always slow is not busy for it.
        let slow = self::gate(8);
        (0..100).for_each(|_| slow.succeeded(SLOW_MIN * 2));
        assert_eq!(room(&slow), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_store_is_tried_by_one_a_minute() {
        let gate = gate(8);
        assert_eq!(gate.admit(), Ok(()));
        gate.failed(&blocked());
        let shut = gate.admit().unwrap_err();
        assert_eq!(shut.wait, PROBE_EVERY);
        assert!(shut.why.contains("main"));
        tokio::time::advance(PROBE_EVERY).await;
        assert_eq!(gate.admit(), Ok(()));
        assert!(gate.admit().is_err(), "one tries, the others wait");
        gate.failed(&blocked());
        tokio::time::advance(PROBE_EVERY).await;
        assert_eq!(gate.admit(), Ok(()));
        gate.succeeded(QUICK);
        assert_eq!((gate.admit(), gate.admit()), (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_left_alone_for_longer_and_longer() {
        let gate = gate(8);
        (1..SILENT_MAX).for_each(|_| gate.failed(&silent()));
        assert_eq!(gate.admit(), Ok(()));
        // Any answer, even a bad one, is a sign of life.
        gate.failed(&busy());
        (1..SILENT_MAX).for_each(|_| gate.failed(&silent()));
        assert_eq!(gate.admit(), Ok(()));
        gate.failed(&silent());
        let mut wait = PROBE_FIRST;
        for _ in 0..10 {
            assert_eq!(gate.admit().unwrap_err().wait, wait);
            tokio::time::advance(wait).await;
            assert_eq!(gate.admit(), Ok(()));
            gate.failed(&silent());
            wait = (wait * 2).min(PROBE_EVERY);
        }
        gate.succeeded(QUICK);
        assert_eq!(gate.admit(), Ok(()));
    }
}
