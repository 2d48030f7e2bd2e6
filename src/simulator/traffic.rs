//! What is being sent of files now, how much was sent of each, and whether one more may be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::model::asset::AssetIndex;
use crate::model::task::TaskId;
use crate::simulator::script::AtOnce;

/// How much was seen of one file, by links that led to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenFile {
    /// Requests for it, refused ones too.
    pub gets: u64,
    /// Those that named a range.
    pub ranges: u64,
    /// Those that were refused because too many files were being sent.
    pub refused: u64,
    /// Bytes of it that were handed to connections.
    pub bytes: u64,
    /// The most answers with it that were under way at once.
    pub at_once_max: u64,
}

/// All that is being sent.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    now: u64,
    at_once_max: u64,
    files: HashMap<Name, Count>,
}

#[derive(Debug, Default)]
struct Count {
    now: u64,
    seen: SeenFile,
}

type Name = (TaskId, AssetIndex);

/// One answer with a file, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Serving(Option<(Arc<Mutex<Counts>>, Name)>);

impl Traffic {
    /// One more answer with this file, or the status that refuses it.
    pub(super) fn begin(
        &self,
        task: &TaskId,
        index: AssetIndex,
        has_range: bool,
        bound: Option<AtOnce>,
    ) -> Result<Serving, u16> {
        let name = (task.clone(), index);
        let mut counts = lock(&self.counts);
        let refusal = bound.filter(|bound| counts.now >= bound.most);
        let count = counts.files.entry(name.clone()).or_default();
        count.seen.gets += 1;
        count.seen.ranges += u64::from(has_range);
        if let Some(bound) = refusal {
            count.seen.refused += 1;
            return Err(bound.status);
        }
        count.now += 1;
        count.seen.at_once_max = count.seen.at_once_max.max(count.now);
        counts.now += 1;
        counts.at_once_max = counts.at_once_max.max(counts.now);
        Ok(Serving(Some((Arc::clone(&self.counts), name))))
    }

    pub(super) fn seen(&self, task: &TaskId, index: AssetIndex) -> SeenFile {
        let counts = lock(&self.counts);
        let found = counts.files.get(&(task.clone(), index));
        found.map(|count| count.seen).unwrap_or_default()
    }

    pub(super) fn at_once_max(&self) -> u64 {
        lock(&self.counts).at_once_max
    }
}

impl Serving {
    /// An answer that nobody counts: one without a body.
    pub(super) fn unseen() -> Self {
        Self(None)
    }

    /// So many bytes of the file have left.
    pub(super) fn sent(&self, bytes: u64) {
        self.with(|_, count| count.seen.bytes += bytes);
    }

    fn with(&self, change: impl FnOnce(&mut u64, &mut Count)) {
        let Some((counts, name)) = &self.0 else {
            return;
        };
        let mut counts = lock(counts);
        let Counts { now, files, .. } = &mut *counts;
        if let Some(count) = files.get_mut(name) {
            change(now, count);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.with(|now, count| {
            *now = now.saturating_sub(1);
            count.now = count.now.saturating_sub(1);
        });
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
