//! What moves now: the transfers under way and how far each is, for progress bars and status lines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::model::asset::AssetIndex;
use crate::model::object::DestinationName;
use crate::model::task::TaskKey;

/// One transfer as it is seen from outside.
#[derive(Clone, Debug)]
pub struct Moving {
    /// The task.
    pub task: TaskKey,
    /// The asset.
    pub index: AssetIndex,
    /// Where it goes.
    pub destination: DestinationName,
    /// Its length, where told.
    pub length: Option<u64>,
    /// Bytes read so far, those of an earlier run included.
    pub bytes: u64,
}

/// All transfers of this process.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    rows: BTreeMap<u64, (Moving, Arc<AtomicU64>)>,
}

/// One transfer's own line; it disappears with this.
#[derive(Debug)]
pub struct Line {
    gauge: Gauge,
    id: u64,
    bytes: Arc<AtomicU64>,
}

impl Gauge {
    /// Enters a transfer.
    pub fn enter(&self, moving: Moving) -> Line {
        let bytes = Arc::new(AtomicU64::new(moving.bytes));
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.rows.insert(id, (moving, Arc::clone(&bytes)));
        drop(table);
        Line {
            gauge: self.clone(),
            id,
            bytes,
        }
    }

    /// What moves now, the longest under way first.
    pub fn now(&self) -> Vec<Moving> {
        let table = self.table();
        let read = |(moving, bytes): &(Moving, Arc<AtomicU64>)| Moving {
            bytes: bytes.load(Ordering::Relaxed),
            ..moving.clone()
        };
        table.rows.values().map(read).collect()
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Counts bytes that were read.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.gauge.table().rows.remove(&self.id);
    }
}
