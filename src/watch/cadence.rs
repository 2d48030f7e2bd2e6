//! When to look at a task again: a pure function of what is known of it and of what its provider bears.

use crate::units::Span;
use crate::watch::Config;

/// How much of the time that a provider thinks is left is slept through: estimates are rough, and late is worse.
const ESTIMATE_TRUST: f64 = 0.8;

/// Past the usual length of a job, the wait grows to this fraction of its age.
const AGE_FRACTION: f64 = 0.05;

/// What is known when a look has ended with a task that is not finished.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The time since the task was made, or learned; of one that is completed, but has no results yet, since then.
    pub age: Span,
    /// The time that the provider thinks is left.
    pub estimate: Option<Span>,
    /// The provider's shortest time between two looks.
    pub min_interval: Span,
}

/// The wait before the next look; `fraction` is a random number from 0 to 1 that spreads it by `poll.jitter`.
///
/// Between `poll.first` and `poll.max`, and never below what the provider bears.
pub fn next_look(known: &Known, config: &Config, fraction: f64) -> Span {
    let shortest = config.first.max(known.min_interval);
    let longest = config.max.max(shortest);
    let by_age = known.age.times(AGE_FRACTION);
    let by_estimate = known
        .estimate
        .map(|estimate| estimate.times(ESTIMATE_TRUST))
        .unwrap_or_default();
    let wait = by_age.max(by_estimate);
    let spread = 1.0 + config.jitter * (fraction - 0.5);
    wait.clamp(shortest, longest).times(spread).max(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        first: Span::from_secs(5),
        max: Span::from_secs(60),
        jitter: 0.0,
        give_up: Span::from_secs(259_200),
    };

    const fn known(age: u64, estimate: Option<u64>, min_interval: u64) -> Known {
        let estimate = match estimate {
            Some(seconds) => Some(Span::from_secs(seconds)),
            None => None,
        };
        Known {
            age: Span::from_secs(age),
            estimate,
            min_interval: Span::from_secs(min_interval),
        }
    }

    #[track_caller]
    fn check(known: Known, seconds: u64) {
        assert_eq!(
            next_look(&known, &CONFIG, 0.5),
            Span::from_secs(seconds),
            "{known:?}"
        );
    }

    #[test]
    fn near_the_estimate_then_every_few_seconds_then_slower_with_age() {
        check(known(0, None, 0), 5);
        check(known(0, Some(165), 0), 60);
        check(known(60, Some(50), 0), 40);
        check(known(60, Some(2), 0), 5);
        check(known(60, None, 8), 8);
        check(known(600, None, 8), 30);
        check(known(100_000, None, 8), 60);
        check(known(100_000, None, 90), 90);
    }

    #[test]
    fn jitter_spreads_but_never_goes_below_what_the_provider_bears() {
        let config = Config {
            jitter: 0.2,
            ..CONFIG
        };
        let at = |fraction| next_look(&known(600, None, 8), &config, fraction);
        assert_eq!(
            (at(0.0), at(1.0)),
            (Span::from_secs(27), Span::from_secs(33))
        );
        assert_eq!(
            next_look(&known(0, None, 8), &config, 0.0),
            Span::from_secs(8)
        );
    }
}
