//! When to try again: the one place that turns a verdict into an instant.

use std::future::Future;

use crate::backoff;
use crate::chance::Dice;
use crate::clock::Timestamp;
use crate::manifest::ManifestError;
use crate::model::failure::Verdict;
use crate::units::Span;

/// What a verdict means for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// When to try again; `None` when no try will ever succeed.
    pub due_at: Option<Timestamp>,
    /// Whether the try counts.
    pub is_attempt: bool,
}

/// The situation of a row whose step failed.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// What time it is.
    pub now: Timestamp,
    /// Failed tries before this one.
    pub attempts: u32,
    /// When the link must be taken as dead, if that is known.
    pub urgent_until: Option<Timestamp>,
}

/// Decides when a row is due again.
pub fn decide(verdict: Verdict, situation: Situation, dice: &Dice) -> Settled {
    by_verdict(verdict, situation.now, || after_a_while(situation, dice))
}

fn by_verdict(
    verdict: Verdict,
    now: Timestamp,
    after_a_while: impl FnOnce() -> Timestamp,
) -> Settled {
    let (due_at, is_attempt) = match verdict {
        Verdict::Retry | Verdict::Gone | Verdict::Wrong => (Some(after_a_while()), true),
        // Whoever says "at once" is not believed any more than anybody else: no wait is shorter than without a word.
        Verdict::RetryAfter(until) => (Some(after_a_while().max(until)), true),
        Verdict::WaitUntil(until) => (Some(until.max(now)), false),
        Verdict::Dead => (None, true),
        Verdict::Drained => (Some(now), false),
    };
    Settled { due_at, is_attempt }
}

/// The end of a back-off.
fn after_a_while(situation: Situation, dice: &Dice) -> Timestamp {
    let Situation {
        now,
        attempts,
        urgent_until,
    } = situation;
    let time_left = urgent_until.map(|until| until.since(now));
    now.plus(backoff::delay(attempts.saturating_add(1), time_left, dice))
}

/// How long an endpoint is given to take a message, and to work at all: long enough for a weekend and a holiday.
pub const ENDPOINT_PATIENCE: Span = Span::from_secs(5 * 24 * 3600);

/// The situation of a message that was not taken.
#[derive(Clone, Copy, Debug)]
pub struct MessageSituation {
    /// What time it is.
    pub now: Timestamp,
    /// Failed tries before this one.
    pub attempts: u32,
    /// When its tries began.
    pub begun_at: Timestamp,
}

/// Decides when a message to somebody's endpoint is sent again: it has no deadline, but its time ends.
pub fn decide_message(verdict: Verdict, situation: MessageSituation, dice: &Dice) -> Settled {
    let MessageSituation {
        now,
        attempts,
        begun_at,
    } = situation;
    let is_over = now.since(begun_at) >= ENDPOINT_PATIENCE;
    let settled = by_verdict(verdict, now, || {
        now.plus(backoff::message_delay(attempts.saturating_add(1), dice))
    });
    Settled {
        due_at: settled.due_at.filter(|_| !is_over),
        ..settled
    }
}

/// How often an outcome is offered to a manifest that cannot take it, before the lease is left to run out.
const WRITE_TRIES: u32 = 10;

/// Writes an outcome that is too dear to lose: a full disk or a busy database is waited for, a lost lease is not.
///
/// A server that is away is waited for as long as it takes: the outcome is held, its room is not given to other work,
/// and whoever has the row by then is told from us by its token.
pub async fn write_patiently<T, F>(
    dice: &Dice,
    mut verb: impl FnMut() -> F,
) -> Result<T, ManifestError>
where
    F: Future<Output = Result<T, ManifestError>>,
{
    let mut tries = 0;
    loop {
        match verb().await {
            Err(error) if is_waited_for(&error, tries) => {
                tries = tries.saturating_add(1);
                if tries % SAY_EACH == 1 {
                    tracing::warn!(%error, tries, "the manifest does not take an outcome");
                }
                let wait = backoff::delay(tries, None, dice).min(WRITE_WAIT_MAX);
                tokio::time::sleep(wait.as_duration()).await;
            }
            outcome => return outcome,
        }
    }
}

/// How many offers of one outcome are one line in the log: many outcomes may wait for one server.
const SAY_EACH: u32 = 10;

/// The longest wait between two offers of an outcome: a server that is back gets it soon.
const WRITE_WAIT_MAX: Span = Span::from_secs(10);

fn is_waited_for(error: &ManifestError, tries: u32) -> bool {
    match error {
        ManifestError::Away { .. }
        | ManifestError::Denied { .. }
        | ManifestError::Untrusted { .. }
        | ManifestError::Pooler { .. }
        | ManifestError::Standby { .. } => true,
        ManifestError::Engine { .. } => tries < WRITE_TRIES,
        ManifestError::Stale { .. }
        | ManifestError::Locked { .. }
        | ManifestError::Newer { .. }
        | ManifestError::Missing { .. }
        | ManifestError::Unfinished { .. }
        | ManifestError::Folder { .. }
        | ManifestError::NoFile { .. }
        | ManifestError::Forbidden { .. }
        | ManifestError::Replaced { .. }
        | ManifestError::Older { .. }
        | ManifestError::Foreign { .. }
        | ManifestError::InTheWay { .. }
        | ManifestError::Encoding { .. }
        | ManifestError::ReadOnly { .. }
        | ManifestError::KeyTaken { .. }
        | ManifestError::Url { .. }
        | ManifestError::OldServer { .. }
        | ManifestError::Password(_)
        | ManifestError::NameTaken { .. }
        | ManifestError::Inconsistent { .. }
        | ManifestError::Full { .. }
        | ManifestError::Broken { .. }
        | ManifestError::Unfit { .. }
        | ManifestError::Closed => false,
    }
}

/// The wait before a message is sent for which the manifest did not say what is to stand in it. Whoever is to have it has
/// done nothing wrong: no attempt is charged.
pub const MANIFEST_PAUSE: Span = Span::from_secs(5);

/// The wait after which something outside the rows is tried again: an account, a bucket, a missing right.
pub const BLOCKED_PAUSE: Span = Span::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn check(verdict: Verdict) -> Settled {
        let situation = Situation {
            now: Timestamp::from_unix_seconds(NOW),
            attempts: 3,
            urgent_until: Some(Timestamp::from_unix_seconds(NOW + 86_400)),
        };
        decide(verdict, situation, &Dice::seeded(1))
    }

    #[test]
    fn a_message_is_tried_for_five_days() {
        let now = Timestamp::from_unix_seconds(NOW);
        let decide = |verdict, age: Span| {
            let situation = MessageSituation {
                now,
                attempts: 1,
                begun_at: now.minus(age),
            };
            decide_message(verdict, situation, &Dice::seeded(1))
        };
        let young = Span::from_secs(60);
        let retry = decide(Verdict::Retry, young);
        assert!(retry.is_attempt);
        let latest = now.plus(Span::from_secs(300));
        assert!(retry.due_at.is_some_and(|due| due > now && due <= latest));
        let later = now.plus(young);
        let waits = decide(Verdict::WaitUntil(later), young);
        assert_eq!((waits.due_at, waits.is_attempt), (Some(later), false));
        assert_eq!(decide(Verdict::Dead, young).due_at, None);
        for verdict in [Verdict::Retry, Verdict::WaitUntil(later), Verdict::Drained] {
            assert_eq!(decide(verdict, ENDPOINT_PATIENCE).due_at, None);
        }
    }

    #[test]
    fn each_verdict() {
        let now = Timestamp::from_unix_seconds(NOW);
        let retry = check(Verdict::Retry);
        assert!(retry.is_attempt);
        assert!(
            retry
                .due_at
                .is_some_and(|due| due > now && due <= now.plus(Span::from_secs(8)))
        );

        let later = now.plus(Span::from_secs(60));
        let told = Settled {
            due_at: Some(later),
            is_attempt: true,
        };
        assert_eq!(check(Verdict::RetryAfter(later)), told);
        let at_once = check(Verdict::RetryAfter(now));
        assert!(at_once.is_attempt && at_once.due_at.is_some_and(|due| due > now));

        let waits = Settled {
            due_at: Some(later),
            is_attempt: false,
        };
        assert_eq!(check(Verdict::WaitUntil(later)), waits);
        assert_eq!(
            check(Verdict::WaitUntil(Timestamp::EPOCH)).due_at,
            Some(now)
        );
        assert_eq!(check(Verdict::Dead).due_at, None);
        assert_eq!(
            check(Verdict::Drained),
            Settled {
                due_at: Some(now),
                is_attempt: false
            }
        );
    }
}
