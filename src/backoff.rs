//! How long to wait before the next try: exponential with full jitter, under a cap that shrinks as a deadline nears;
//! for messages to people's endpoints, which have no deadline, in steps up to a day.

use crate::chance::Dice;
use crate::units::Span;

/// The wait that the first retry is drawn from.
const FIRST: Span = Span::from_secs(1);

/// The longest wait while the deadline is far: an outage that ends is noticed within this.
const CAP: Span = Span::from_secs(60);

/// The longest wait once the deadline has passed: the link is most likely dead, so asking often helps nobody.
const CAP_AFTER_DEADLINE: Span = Span::from_secs(600);

/// At least this many more tries fit between now and the deadline.
const TRIES_LEFT_MIN: f64 = 20.0;

/// No wait is shorter, so that a failing step cannot spin.
const FLOOR: Span = Span::from_millis(100);

/// The wait before try number `attempts + 1`, where `time_left` is the time to the deadline if one is known.
///
/// Never shorter than a tenth of a second, never longer than a minute before the deadline.
pub fn delay(attempts: u32, time_left: Option<Span>, dice: &Dice) -> Span {
    let cap = match time_left {
        None => CAP,
        Some(Span::ZERO) => CAP_AFTER_DEADLINE,
        Some(left) => left.times(1.0 / TRIES_LEFT_MIN).clamp(FIRST, CAP),
    };
    let doublings = i32::try_from(attempts.saturating_sub(1).min(30)).unwrap_or(30);
    let ceiling = FIRST.times(2_f64.powi(doublings)).min(cap);
    ceiling.times(dice.fraction()).max(FLOOR)
}

/// The waits that the retries of a message to somebody's endpoint are drawn from, as Standard Webhooks advises: an
/// endpoint that is mended within hours gets everything, and one that is not is not hammered. The last repeats.
const MESSAGE_WAITS: [Span; 8] = [
    Span::from_secs(5),
    Span::from_secs(5 * 60),
    Span::from_secs(30 * 60),
    Span::from_secs(2 * 3600),
    Span::from_secs(5 * 3600),
    Span::from_secs(10 * 3600),
    Span::from_secs(14 * 3600),
    Span::from_secs(24 * 3600),
];

/// No message is sent again sooner.
const MESSAGE_FLOOR: Span = Span::from_secs(1);

/// The wait before a message is sent again that `attempts` tries did not bring over.
pub fn message_delay(attempts: u32, dice: &Dice) -> Span {
    let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let last = MESSAGE_WAITS.last().copied().unwrap_or(MESSAGE_FLOOR);
    let ceiling = MESSAGE_WAITS.get(place).copied().unwrap_or(last);
    ceiling.times(dice.fraction()).max(MESSAGE_FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(attempts: u32, time_left: Option<Span>, most: Span) {
        let dice = Dice::seeded(7);
        let longest = (0..200)
            .map(|_| delay(attempts, time_left, &dice))
            .max()
            .unwrap_or_default();
        assert!(longest <= most, "{longest} > {most}");
        assert!(longest >= most.times(0.9), "{longest} is far below {most}");
    }

    #[test]
    fn grows_to_the_cap_and_the_cap_shrinks_with_the_deadline() {
        check(1, None, Span::from_secs(1));
        check(4, None, Span::from_secs(8));
        check(40, None, CAP);
        check(u32::MAX, Some(Span::from_secs(86_400)), CAP);
        check(40, Some(Span::from_secs(600)), Span::from_secs(30));
        check(40, Some(Span::from_secs(5)), FIRST);
        check(40, Some(Span::ZERO), CAP_AFTER_DEADLINE);
    }

    #[test]
    fn messages_wait_longer_each_time_up_to_a_day() {
        let dice = Dice::seeded(3);
        let longest = |attempts| {
            let waits = (0..200).map(|_| message_delay(attempts, &dice));
            waits.max().unwrap_or_default()
        };
        for (attempts, most) in [
            (0, 5),
            (1, 5),
            (2, 300),
            (4, 7_200),
            (8, 86_400),
            (99, 86_400),
        ] {
            let most = Span::from_secs(most);
            let longest = longest(attempts);
            assert!(
                longest <= most && longest >= most.times(0.9),
                "{attempts}: {longest}"
            );
        }
        assert!((0..1000).all(|_| message_delay(1, &dice) >= MESSAGE_FLOOR));
    }

    #[test]
    fn never_spins() {
        let dice = Dice::seeded(1);
        assert!((0..1000).all(|_| delay(0, Some(Span::from_millis(1)), &dice) >= FLOOR));
    }
}
