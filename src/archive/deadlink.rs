//! A link that is dead as its origin says: when its provider is asked for a fresh one, and when none is to come.
//!
//! A provider may sign a link anew at each look, whatever has become of the file. So a fresh link proves nothing until
//! it brings bytes: it is tried at once, and if it is dead too, the waits go on growing and the asking goes on as before.

use crate::clock::Timestamp;
use crate::units::Span;

/// How long an answer to a request for a fresh link is believed before the provider is asked again.
const REFRESH_EVERY: Span = Span::from_secs(300);

/// A try that waits for the provider's answer comes no later than this.
pub(crate) const ANSWER_WAIT: Span = Span::from_secs(5);

/// What is known of a dead link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadLink {
    /// What time it is.
    pub(crate) now: Timestamp,
    /// When this very link dies by itself.
    pub(crate) deadline: Timestamp,
    /// Until when the provider should have the file, and so links to it; `None` where it never names another link.
    pub(crate) file_until: Option<Timestamp>,
    /// When the provider was last asked for a fresh link.
    pub(crate) asked_at: Option<Timestamp>,
    /// Whether it has not answered yet.
    pub(crate) is_pending: bool,
    /// Whether the link brought bytes that last before it died.
    pub(crate) has_gained: bool,
}

impl DeadLink {
    /// Whether nobody will name a link that works: the time is over, and so it was when the provider was last asked.
    pub(crate) fn is_last_word(&self) -> bool {
        let (now, deadline) = (self.now, self.deadline);
        let Some(file_until) = self.file_until else {
            return now >= deadline && !self.has_gained;
        };
        if self.has_gained || self.is_pending || now < deadline.min(file_until) {
            return false;
        }
        let is_answer = |asked: Timestamp| {
            // A fresh link that is dead before its own time was never any better; one that has outlived it may have been.
            let is_of_this_time = asked >= deadline || (asked >= file_until && now < deadline);
            is_of_this_time && now < asked.plus(REFRESH_EVERY)
        };
        self.asked_at.is_some_and(is_answer)
    }

    /// Whether the provider is asked for a fresh link now.
    pub(crate) fn wants_fresh(&self) -> bool {
        let Some(file_until) = self.file_until else {
            return false;
        };
        let is_first_of_its_time = |asked: Timestamp| {
            asked.plus(REFRESH_EVERY) <= self.now || (asked < file_until && file_until <= self.now)
        };
        self.has_gained || self.asked_at.is_none_or(is_first_of_its_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    /// A link to a file that is there until 10,000.
    fn link(now: i64, deadline: i64, asked_at: Option<i64>) -> DeadLink {
        DeadLink {
            now: at(now),
            deadline: at(deadline),
            file_until: Some(at(10_000)),
            asked_at: asked_at.map(at),
            is_pending: false,
            has_gained: false,
        }
    }

    #[track_caller]
    fn check(link: DeadLink, is_last_word: bool, wants_fresh: bool) {
        assert_eq!(
            (link.is_last_word(), link.wants_fresh()),
            (is_last_word, wants_fresh),
            "{link:?}"
        );
    }

    #[test]
    fn a_link_that_is_not_refreshed_is_asked_for_now_and_then_and_ends_with_its_deadline() {
        check(link(10, 1_000, None), false, true);
        check(link(20, 1_000, Some(10)), false, false);
        check(link(309, 1_000, Some(10)), false, false);
        check(link(310, 1_000, Some(10)), false, true);
        // Past its deadline the provider is asked once more.
        check(link(1_001, 1_000, Some(800)), false, false);
        check(link(1_100, 1_000, Some(800)), false, true);
        let pending = DeadLink {
            is_pending: true,
            ..link(1_105, 1_000, Some(1_100))
        };
        check(pending, false, false);
        check(link(1_105, 1_000, Some(1_100)), true, false);
        check(link(1_400, 1_000, Some(1_100)), false, true);
    }

    #[test]
    fn links_that_are_signed_anew_and_dead_end_with_the_file() {
        check(link(900, 4_500, Some(899)), false, false);
        check(link(9_999, 13_600, Some(9_800)), false, false);
        check(link(10_000, 13_600, Some(9_800)), false, true);
        check(link(10_001, 13_601, Some(10_000)), true, false);
    }

    #[test]
    fn a_fresh_link_that_had_its_time_is_no_last_word() {
        check(link(10_200, 10_100, Some(10_000)), false, false);
        check(link(10_300, 10_100, Some(10_000)), false, true);
        check(link(10_301, 10_900, Some(10_300)), true, false);
    }

    #[test]
    fn a_link_that_brought_something_is_worth_another_at_once() {
        for now in [20, 10_001] {
            let gained = DeadLink {
                has_gained: true,
                ..link(now, 1_000, Some(now - 1))
            };
            check(gained, false, true);
        }
    }

    #[test]
    fn where_nobody_can_be_asked_the_deadline_decides() {
        let bare = |now, has_gained| DeadLink {
            file_until: None,
            has_gained,
            ..link(now, 1_000, None)
        };
        check(bare(999, false), false, false);
        check(bare(1_000, false), true, false);
        check(bare(1_000, true), false, false);
    }
}
