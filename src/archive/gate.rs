//! How much one destination takes at once, and whether it takes anything at all.
//!
//! ```text
//! busy (503, SlowDown, answers that take long)  -> half as much at once; a little more after each success
//! blocked (a right, a bucket, a key is missing) -> closed: everything waits, one asset a minute tries
//! denied (403, 413 and others that may be of    -> that asset waits; denied again, with nothing taken between: closed,
//! one object alone)                                but for assets that were not denied, one at a time
//! failing (5xx for half a minute, nothing taken) -> the same
//! dead (no answer, time after time)             -> closed, and tried sooner
//! ```
//! Kept in memory only: after a restart or a reload the destination shows anew how it is.

use std::collections::VecDeque;
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

/// How long whoever tries is given: who waits looks again after this, since the destination may be open then.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// So many assets are known to be denied. Whoever is beyond may try as if it was not.
const DENIED_KNOWN: usize = 64;

/// How soon a destination that did not answer is tried for the first time; each further wait is twice as long.
const PROBE_FIRST: Duration = Duration::from_secs(2);

/// Requests in a row without an answer after which a destination counts as dead.
const SILENT_MAX: u32 = 8;

/// A destination that answers, but takes nothing for so long and so many requests, is as good as closed. A busy one is
/// asked by ever fewer in that time, and takes some of it.
const FAILING_MIN: Duration = Duration::from_secs(30);
const FAILING_MAX: u32 = 8;

/// So many of those who wait for a closed destination may come back at once, and all others one after the other: each
/// is claimed and put off again.
const TOGETHER: u32 = 64;
const ONE_EACH: Duration = Duration::from_millis(20);

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
    /// Since when, and how often, answers were failures, with nothing taken between.
    failing: Option<(Instant, u32)>,
    /// The rows of the assets that were denied since the last success.
    denied: VecDeque<i64>,
    /// The rows of those of which the log knows, so that it is not told at every try.
    told: VecDeque<i64>,
    closed: Option<Closed>,
}

impl State {
    /// Whether the asset of this row has its turn.
    fn may_try(&mut self, asset: i64, now: Instant) -> Result<(), Shut> {
        let Some(closed) = &mut self.closed else {
            return Ok(());
        };
        let turn = closed.turn(self.denied.contains(&asset), now);
        if turn <= now {
            Ok(())
        } else {
            Err(closed.shut(turn, now))
        }
    }
}

/// Why nothing passes.
#[derive(Clone, Debug)]
struct Closed {
    why: String,
    wait: Duration,
    probe_at: Instant,
    /// When somebody was let through to try.
    probed_at: Option<Instant>,
    /// Whether all that is known is that some assets were denied.
    is_by_denial: bool,
    /// How many were put off since somebody was let through.
    put_off: u32,
}

impl Closed {
    /// From when on an asset may try.
    fn turn(&self, is_denied: bool, now: Instant) -> Instant {
        if self.is_by_denial && !is_denied {
            self.probed_at.map_or(now, |probed| probed + PROBE_PATIENCE)
        } else {
            self.probe_at
        }
    }

    fn shut(&mut self, turn: Instant, now: Instant) -> Shut {
        let probed_until = self.probed_at.map(|probed| probed + PROBE_PATIENCE);
        let until = probed_until.filter(|until| *until > now && *until < turn);
        let wait = until.unwrap_or(turn).saturating_duration_since(now);
        let behind = ONE_EACH.saturating_mul(self.put_off.saturating_sub(TOGETHER));
        let behind = behind.as_millis() % wait.as_millis().max(1);
        self.put_off = self.put_off.saturating_add(1);
        Shut {
            why: self.why.clone(),
            wait: wait + Duration::from_millis(u64::try_from(behind).unwrap_or_default()),
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
                failing: None,
                denied: VecDeque::new(),
                told: VecDeque::new(),
                closed: None,
            }),
            room: Notify::new(),
        }))
    }

    /// Why nothing passes, if nothing does.
    pub(crate) fn why_closed(&self) -> Option<String> {
        let state = self.state();
        state.closed.as_ref().map(|closed| closed.why.clone())
    }

    /// Whether it is worth while for the asset of this row to ask for admission.
    pub(crate) fn peek(&self, asset: i64) -> Result<(), Shut> {
        self.state().may_try(asset, Instant::now())
    }

    /// Whether the asset of this row may try this destination. Of those that ask while it is shut, one a turn may.
    pub(crate) fn admit(&self, asset: i64) -> Result<(), Shut> {
        let (mut state, now) = (self.state(), Instant::now());
        state.may_try(asset, now)?;
        if let Some(closed) = &mut state.closed {
            closed.probe_at = now + closed.wait;
            // Twice as long by each try, and not by each failure: many come at once, and one that hangs comes late.
            closed.wait = (closed.wait * 2).min(PROBE_EVERY);
            closed.probed_at = Some(now);
            closed.put_off = 0;
        }
        Ok(())
    }

    /// Gives a turn back: the try never came to the destination, which may be well by now.
    pub(crate) fn forgo(&self) {
        let mut state = self.state();
        if let Some(closed) = &mut state.closed {
            closed.probe_at = Instant::now();
            closed.probed_at = None;
            closed.wait = (closed.wait / 2).max(PROBE_FIRST);
        }
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
        state.failing = None;
        state.denied.clear();
        let was_closed = state.closed.take().is_some();
        drop(state);
        if was_closed {
            tracing::info!(destination.name = %self.0.destination, "the destination works again");
        }
    }

    /// Takes note of a failure that the asset of this row met.
    pub(crate) fn failed(&self, error: &StoreError, asset: i64) {
        let mut state = self.state();
        match error.kind {
            StoreErrorKind::Blocked if error.may_be_of_key() => self.deny(&mut state, error, asset),
            StoreErrorKind::Blocked => {
                self.close(&mut state, error, PROBE_EVERY, false);
            }
            StoreErrorKind::Transient | StoreErrorKind::Ambiguous if error.status.is_none() => {
                state.silent += 1;
                if state.silent >= SILENT_MAX {
                    let before = state.closed.as_ref().map(|closed| closed.wait);
                    let wait = before.unwrap_or(PROBE_FIRST);
                    self.close(&mut state, error, wait, false);
                }
            }
            StoreErrorKind::Transient | StoreErrorKind::Ambiguous => {
                state.silent = 0;
                if error.is_busy() {
                    self.halve(&mut state);
                }
                let now = Instant::now();
                let (since, times) = state.failing.map_or((now, 1), |(since, n)| (since, n + 1));
                state.failing = Some((since, times));
                if times >= FAILING_MAX && now - since >= FAILING_MIN {
                    remember(&mut state.denied, asset);
                    self.close(&mut state, error, PROBE_EVERY, true);
                }
            }
            // One object that is too large, or a setting that the store does not know: that shows with the next.
            StoreErrorKind::Rejected => self.deny(&mut state, error, asset),
            // Of the key, the upload or the body, not of the destination: it answers.
            StoreErrorKind::Exists | StoreErrorKind::Conflict | StoreErrorKind::UploadGone => {
                state.silent = 0;
            }
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

    /// Takes note of an asset that is denied. The first says nothing of others; the alarm is raised once for each.
    fn deny(&self, state: &mut State, error: &StoreError, asset: i64) {
        state.silent = 0;
        let is_first = state.denied.is_empty();
        let is_open = state.closed.is_none();
        remember(&mut state.denied, asset);
        if !is_first {
            self.close(state, error, PROBE_EVERY, true);
        } else if is_open && remember(&mut state.told, asset) {
            tracing::error!(
                destination.name = %self.0.destination,
                %error,
                "the destination denies an object: it waits, and is tried again by itself"
            );
        }
    }

    /// Closes; the alarm is raised once for each time it closes.
    fn close(&self, state: &mut State, error: &StoreError, wait: Duration, is_by_denial: bool) {
        if state.closed.is_none() {
            tracing::error!(
                destination.name = %self.0.destination,
                %error,
                "the destination takes nothing: its objects wait, and it is tried again by itself"
            );
        }
        let before = state.closed.take();
        let put_off = before.as_ref().map_or(0, |closed| closed.put_off);
        // Whoever was denied says nothing of those that were not, nor of when they may try.
        let probed_at = before
            .filter(|_| is_by_denial)
            .and_then(|closed| closed.probed_at);
        state.closed = Some(Closed {
            why: error.of_any_object(),
            wait,
            probe_at: Instant::now() + wait,
            probed_at,
            is_by_denial,
            put_off,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `row` is new among `rows`, of which the oldest are forgotten.
fn remember(rows: &mut VecDeque<i64>, row: i64) -> bool {
    if rows.contains(&row) {
        return false;
    }
    rows.push_back(row);
    if rows.len() > DENIED_KNOWN {
        rows.pop_front();
    }
    true
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

    /// A bucket that is missing.
    fn blocked() -> StoreError {
        StoreError::for_tests(StoreErrorKind::Blocked, Some(404))
    }

    fn denied() -> StoreError {
        StoreError::for_tests(StoreErrorKind::Blocked, Some(403))
    }

    fn rejected() -> StoreError {
        StoreError::for_tests(StoreErrorKind::Rejected, Some(413))
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
        gate.failed(&busy(), 1);
        // All that were under way meet the same trouble, which is one sign and not many.
        gate.failed(&busy(), 1);
        assert_eq!(room(&gate), 8);
        tokio::time::advance(HALVED_EVERY).await;
        gate.failed(&busy(), 1);
        assert_eq!(room(&gate), 4);
        for _ in 0..10 {
            tokio::time::advance(HALVED_EVERY).await;
            gate.failed(&busy(), 1);
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
        assert_eq!(gate.admit(1), Ok(()));
        gate.failed(&blocked(), 1);
        let shut = gate.admit(1).unwrap_err();
        assert_eq!(shut.wait, PROBE_EVERY);
        assert!(shut.why.contains("main"));
        tokio::time::advance(PROBE_EVERY).await;
        assert_eq!(gate.admit(1), Ok(()));
        assert!(gate.admit(1).is_err(), "one tries, the others wait");
        gate.failed(&blocked(), 1);
        tokio::time::advance(PROBE_EVERY).await;
        assert_eq!(gate.admit(1), Ok(()));
        gate.succeeded(QUICK);
        assert_eq!((gate.admit(1), gate.admit(1)), (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_soon_that_a_try_went_through() {
        let gate = gate(8);
        gate.failed(&blocked(), 1);
        tokio::time::advance(PROBE_EVERY).await;
        assert_eq!(gate.admit(1), Ok(()));
        assert_eq!(gate.admit(2).unwrap_err().wait, PROBE_PATIENCE);
        tokio::time::advance(PROBE_PATIENCE).await;
        let left = gate.admit(2).unwrap_err().wait;
        assert_eq!(left + PROBE_PATIENCE, PROBE_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_was_given_back_is_the_next_ones() {
        let gate = gate(8);
        gate.forgo();
        gate.failed(&blocked(), 1);
        tokio::time::advance(PROBE_EVERY).await;
        for asset in 1..5 {
            assert_eq!(gate.admit(asset), Ok(()));
            assert!(gate.admit(5).is_err());
            gate.forgo();
        }
        assert_eq!(gate.admit(5), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_denied_asset_keeps_no_other_out() {
        let gate = gate(8);
        // One is denied time after time, and others are taken in between.
        for _ in 0..5 {
            gate.failed(&denied(), 1);
            assert_eq!(gate.admit(2), Ok(()));
            gate.succeeded(QUICK);
        }
        // Nothing else comes: what is known is that one is denied, and whoever comes new may try.
        gate.failed(&denied(), 1);
        gate.failed(&denied(), 1);
        assert!(gate.why_closed().is_some());
        assert_eq!(gate.admit(1).unwrap_err().wait, PROBE_EVERY);
        assert_eq!(gate.admit(2), Ok(()));
        assert_eq!(
            gate.admit(3).unwrap_err().wait,
            PROBE_PATIENCE,
            "one at a time"
        );
        gate.failed(&denied(), 2);
        tokio::time::advance(PROBE_PATIENCE).await;
        assert_eq!(gate.admit(3), Ok(()));
        gate.succeeded(QUICK);
        assert_eq!((gate.admit(1), gate.admit(2)), (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_and_takes_nothing_is_as_good_as_closed() {
        let gate = gate(8);
        // All that are under way may meet one bad moment.
        (0..100).for_each(|row| gate.failed(&busy(), row));
        tokio::time::advance(FAILING_MIN / 2).await;
        gate.failed(&busy(), 1);
        assert_eq!(gate.why_closed(), None);
        gate.succeeded(QUICK);
        for _ in 1..FAILING_MAX {
            gate.failed(&busy(), 1);
            tokio::time::advance(FAILING_MIN).await;
        }
        assert_eq!(gate.why_closed(), None);
        gate.failed(&busy(), 1);
        assert!(gate.why_closed().is_some());
        assert_eq!(gate.admit(1).unwrap_err().wait, PROBE_EVERY);
        // It may be of one object: another that comes has its try.
        assert_eq!(gate.admit(2), Ok(()));
        gate.succeeded(QUICK);
        assert_eq!(gate.admit(1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_rejected_time_after_time_is_of_the_destination() {
        let gate = gate(8);
        gate.failed(&rejected(), 1);
        assert_eq!(gate.why_closed(), None);
        gate.failed(&rejected(), 2);
        assert!(gate.why_closed().is_some());
        assert_eq!(gate.admit(1).unwrap_err().wait, PROBE_EVERY);
        assert_eq!(gate.admit(3), Ok(()));
        gate.succeeded(QUICK);
        assert_eq!(gate.why_closed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_left_alone_for_longer_and_longer() {
        let gate = gate(8);
        (1..SILENT_MAX).for_each(|_| gate.failed(&silent(), 1));
        assert_eq!(gate.admit(1), Ok(()));
        // Any answer, even a bad one, is a sign of life.
        gate.failed(&busy(), 1);
        (1..SILENT_MAX).for_each(|_| gate.failed(&silent(), 1));
        assert_eq!(gate.admit(1), Ok(()));
        gate.failed(&silent(), 1);
        let mut wait = PROBE_FIRST;
        for _ in 0..10 {
            assert_eq!(gate.admit(1).unwrap_err().wait, wait);
            tokio::time::advance(wait).await;
            assert_eq!(gate.admit(1), Ok(()));
            gate.failed(&silent(), 1);
            wait = (wait * 2).min(PROBE_EVERY);
        }
        gate.succeeded(QUICK);
        assert_eq!(gate.admit(1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_come_together_make_no_wait_longer_and_tries_that_hang_do() {
        let gate = gate(8);
        (0..4 * SILENT_MAX).for_each(|_| gate.failed(&silent(), 1));
        let mut wait = PROBE_FIRST;
        for asset in 1..8 {
            assert_eq!(gate.peek(asset).unwrap_err().wait, wait.min(PROBE_PATIENCE));
            tokio::time::advance(wait).await;
            assert_eq!(gate.admit(asset), Ok(()));
            wait = if asset == 1 {
                wait
            } else {
                (wait * 2).min(PROBE_EVERY)
            };
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_destination_does_not_come_back_all_at_once() {
        let gate = gate(8);
        gate.failed(&blocked(), 1);
        let wait = |_| gate.peek(1).unwrap_err().wait;
        let waits: Vec<Duration> = (0..10_000).map(wait).collect();
        assert_eq!(waits[0], PROBE_EVERY);
        for second in 60..119 {
            let comes = |wait: &&Duration| wait.as_secs() == second;
            let comes = waits.iter().filter(comes).count();
            assert!((100..300).contains(&comes), "{comes} after {second} s");
        }
    }
}
