//! How many requests are under way at once, the most that ever were, and whether one more is too many.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::simulator::bucket::fault::Operation;

/// The requests that are under way.
#[derive(Debug, Default)]
pub(super) struct Crowd(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    now: BTreeMap<Operation, u64>,
    at_once_max: BTreeMap<Operation, u64>,
    most: Option<u64>,
}

/// One request, under way until this is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    crowd: &'a Crowd,
    operation: Operation,
    is_one_too_many: bool,
}

impl Crowd {
    pub(super) fn limit(&self, most: Option<u64>) {
        self.lock().most = most;
    }

    pub(super) fn at_once_max(&self, operation: Operation) -> u64 {
        let counts = self.lock();
        counts.at_once_max.get(&operation).copied().unwrap_or(0)
    }

    /// One more request.
    pub(super) fn enter(&self, operation: Operation) -> Place<'_> {
        let mut counts = self.lock();
        let now = counts.now.entry(operation).or_default();
        *now += 1;
        let now = *now;
        let max = counts.at_once_max.entry(operation).or_default();
        *max = now.max(*max);
        let all: u64 = counts.now.values().sum();
        Place {
            crowd: self,
            operation,
            is_one_too_many: counts.most.is_some_and(|most| all > most),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    pub(super) fn is_one_too_many(&self) -> bool {
        self.is_one_too_many
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(now) = self.crowd.lock().now.get_mut(&self.operation) {
            *now = now.saturating_sub(1);
        }
    }
}
