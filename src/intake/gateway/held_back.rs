//! Since when completed tasks are told as running that our own look has not found completed yet.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::clock::Timestamp;
use crate::model::task::TaskKey;
use crate::units::Span;

/// As many tasks are kept in mind; beyond that the provider's own answer passes.
const TASKS_MAX: usize = 10_000;

/// When each task was first told to us as completed.
#[derive(Debug, Default)]
pub(super) struct HeldBack(Mutex<HashMap<TaskKey, Timestamp>>);

impl HeldBack {
    /// Whether a task that is told as completed at `now` was so for less than `hold`.
    pub(super) fn is_within(&self, key: &TaskKey, now: Timestamp, hold: Span) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = since.get(key) {
            return now.since(*since) < hold;
        }
        if since.len() >= TASKS_MAX {
            // Nobody has asked for those any more, for about as long.
            let longest = hold.times(2.0);
            since.retain(|_, since| now.since(*since) < longest);
        }
        let has_room = since.len() < TASKS_MAX && hold > Span::ZERO;
        if has_room {
            since.insert(key.clone(), now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Span = Span::from_secs(20);

    fn key(number: usize) -> TaskKey {
        TaskKey {
            provider: "house".parse().unwrap(),
            id: format!("t{number}").parse().unwrap(),
        }
    }

    #[test]
    fn a_task_is_held_back_from_when_it_was_first_told_as_completed() {
        let held = HeldBack::default();
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_000 + seconds);
        assert!(!held.is_within(&key(0), at(0), Span::ZERO));
        assert!(held.is_within(&key(0), at(0), HOLD));
        assert!(held.is_within(&key(1), at(19), HOLD));
        assert!(held.is_within(&key(0), at(19), HOLD));
        assert!(!held.is_within(&key(0), at(20), HOLD));
        assert!(held.is_within(&key(1), at(20), HOLD));
    }

    #[test]
    fn no_more_are_kept_in_mind_than_there_is_room_for() {
        let held = HeldBack::default();
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_000 + seconds);
        assert!((0..TASKS_MAX).all(|number| held.is_within(&key(number), at(0), HOLD)));
        assert!(!held.is_within(&key(TASKS_MAX), at(39), HOLD));
        assert!(held.is_within(&key(TASKS_MAX), at(40), HOLD));
    }
}
