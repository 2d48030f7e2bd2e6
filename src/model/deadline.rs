//! The deadline: the instant after which an asset's URL must be taken as dead, and how we know.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::model::state_enum;
use crate::units::Span;

state_enum!(
    /// Where a deadline comes from, the most trusted first.
    DeadlineSource,
    "a source of a deadline",
    {
        /// A field of the provider's answer.
        Provider = "provider",
        /// The signature inside the URL.
        Signature = "signature",
        /// The moment of completion, plus the provider's time to live.
        Preset = "preset",
        /// The last time the task was seen unfinished, plus the time to live: the earliest that it can have completed.
        LastSeen = "last_seen",
        /// The moment of creation, plus the time to live: nothing better is known.
        Created = "created",
        /// The moment we learned of it, plus the time to live: nothing at all is known.
        Learned = "learned",
    }
);

/// When an asset's URL dies, and how we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Deadline {
    /// The instant.
    pub at: Timestamp,
    /// How it is known.
    pub from: DeadlineSource,
}

/// When what is not archived is in danger: within `deadline.warn` of its deadline, but not before the last third of the time
/// that its links live. Else what lives for an hour would be in danger from the first second.
#[derive(Clone, Copy, Debug)]
pub struct Danger {
    /// The time against which it is judged.
    pub now: Timestamp,
    /// What dies later is in none.
    pub before: Timestamp,
}

impl Danger {
    /// The danger at `now`, which begins `warn` before a deadline.
    pub fn within(warn: Span, now: Timestamp) -> Self {
        Self {
            now,
            before: now.plus(warn),
        }
    }
}

/// All that is known of an asset's time.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The provider's own field.
    pub expires: Option<Timestamp>,
    /// The end of the URL's signature.
    pub signature: Option<Timestamp>,
    /// When the task completed.
    pub completed: Option<Timestamp>,
    /// When the task was created.
    pub created: Option<Timestamp>,
    /// When the task was last seen unfinished.
    pub last_unfinished: Option<Timestamp>,
    /// When the task was learned.
    pub learned: Timestamp,
    /// How long a link lives after completion.
    pub ttl: Span,
}

/// The first deadline that is known, and the URL's own signature where that ends earlier still.
///
/// A guess is never later than the truth: a task seen unfinished at `last_unfinished` completed after that.
pub fn deadline(known: &Known) -> Deadline {
    let from = |from| move |at: Timestamp| Deadline { at, from };
    let after = |source, since: Option<Timestamp>| {
        since.map(|since| since.plus(known.ttl)).map(from(source))
    };
    let signature = known.signature.map(from(DeadlineSource::Signature));
    let first = known
        .expires
        .map(from(DeadlineSource::Provider))
        .or(signature)
        .or_else(|| after(DeadlineSource::Preset, known.completed))
        .or_else(|| after(DeadlineSource::LastSeen, known.last_unfinished))
        .or_else(|| after(DeadlineSource::Created, known.created))
        .unwrap_or_else(|| from(DeadlineSource::Learned)(known.learned.plus(known.ttl)));
    match signature {
        Some(signature) if signature.at < first.at => signature,
        Some(_) | None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Known = Known {
        expires: None,
        signature: None,
        completed: None,
        created: None,
        last_unfinished: None,
        learned: Timestamp::EPOCH,
        ttl: Span::from_secs(100),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[track_caller]
    fn check(known: Known, seconds: i64, from: DeadlineSource) {
        assert_eq!(
            deadline(&known),
            Deadline {
                at: Timestamp::from_unix_seconds(seconds),
                from
            }
        );
    }

    #[test]
    fn the_first_that_is_known_wins_and_an_earlier_signature_beats_it() {
        let all = Known {
            expires: Some(at(500)),
            signature: Some(at(600)),
            completed: Some(at(300)),
            created: Some(at(200)),
            last_unfinished: Some(at(250)),
            learned: Timestamp::from_unix_seconds(210),
            ..NOTHING
        };
        check(all, 500, DeadlineSource::Provider);
        check(
            Known {
                signature: Some(at(400)),
                ..all
            },
            400,
            DeadlineSource::Signature,
        );
        check(
            Known {
                expires: None,
                ..all
            },
            600,
            DeadlineSource::Signature,
        );
        check(
            Known {
                expires: None,
                signature: None,
                ..all
            },
            400,
            DeadlineSource::Preset,
        );
        let guess = Known {
            expires: None,
            signature: None,
            completed: None,
            ..all
        };
        check(guess, 350, DeadlineSource::LastSeen);
        check(
            Known {
                last_unfinished: None,
                ..guess
            },
            300,
            DeadlineSource::Created,
        );
        check(
            Known {
                last_unfinished: None,
                created: None,
                ..guess
            },
            310,
            DeadlineSource::Learned,
        );
    }
}
