//! What must see a body in order. Its SHA-256 costs as much as all the rest of a transfer's own work: where a processor
//! has nothing else to do it is computed beside, on a thread of its own.

use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::archive::length;
use crate::archive::progress::Progress;
use crate::model::digest::Sha256Digester;
use crate::work::budget::Budget;
use crate::work::budget::Share;

/// What is handed over at once: so much that the handing over costs nothing beside the hashing.
const BATCH_BYTES: u64 = 1 << 20;

/// Threads that all downloads of the process share, and the memory for what is handed over to them.
#[derive(Clone, Debug)]
pub(crate) struct Hashers {
    free: Arc<Semaphore>,
    budget: Budget,
}

/// The right to one of them.
struct Hasher {
    _permit: OwnedSemaphorePermit,
    /// One batch is hashed while the next one is gathered.
    _share: Share,
}

impl Hashers {
    /// One less than there are processors: one reads and writes.
    pub(crate) fn new(budget: Budget) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            free: Arc::new(Semaphore::new(processors - 1)),
            budget,
        }
    }

    fn take(&self) -> Option<Hasher> {
        Some(Hasher {
            _permit: Arc::clone(&self.free).try_acquire_owned().ok()?,
            _share: self.budget.try_take(2 * BATCH_BYTES)?,
        })
    }
}

/// The digests of one download.
pub(super) struct Digesting {
    progress: Progress,
    hashers: Hashers,
    hasher: Option<Hasher>,
    /// What the SHA-256 has not seen, and how much that is.
    behind: (Vec<Bytes>, u64),
    /// It is with the hasher, and comes back.
    away: Option<JoinHandle<Sha256Digester>>,
}

impl Digesting {
    pub(super) fn new(progress: Progress, hashers: Hashers) -> Self {
        Self {
            progress,
            hashers,
            hasher: None,
            behind: (Vec::new(), 0),
            away: None,
        }
    }

    /// Takes the next frame.
    pub(super) async fn update(&mut self, frame: &Bytes) {
        self.progress.walk(frame);
        if !self.progress.has_sha256() && self.away.is_none() {
            return;
        }
        if self.hasher.is_none() {
            self.hasher = self.hashers.take();
        }
        if self.hasher.is_none() {
            self.progress.hash(frame);
            return;
        }
        let (frames, bytes) = &mut self.behind;
        frames.push(frame.clone());
        *bytes += length(frame);
        if *bytes >= BATCH_BYTES {
            self.fetch_back().await;
            self.send_away();
        }
    }

    /// What is known after all frames so far.
    pub(super) async fn caught_up(&mut self) -> &Progress {
        self.fetch_back().await;
        let (frames, _) = std::mem::take(&mut self.behind);
        for frame in &frames {
            self.progress.hash(frame);
        }
        self.hasher = None;
        &self.progress
    }

    fn send_away(&mut self) {
        let (frames, _) = std::mem::take(&mut self.behind);
        let Some(mut sha256) = self.progress.take_sha256() else {
            return;
        };
        self.away = Some(tokio::task::spawn_blocking(move || {
            for frame in &frames {
                sha256.update(frame);
            }
            sha256
        }));
    }

    async fn fetch_back(&mut self) {
        let Some(away) = &mut self.away else {
            return;
        };
        match away.await {
            Ok(sha256) => self.progress.put_sha256(sha256),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends, and this download with it.
            Err(_) => std::future::pending().await,
        }
        self.away = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteSize;

    #[tokio::test]
    async fn beside_or_not_it_comes_to_the_same() {
        let frames: Vec<Bytes> = (0..100_u8)
            .map(|number| Bytes::from(vec![number; 50_000]))
            .collect();
        for (threads, memory) in [(0, 64), (1, 1), (1, 64)] {
            let hashers = Hashers {
                free: Arc::new(Semaphore::new(threads)),
                budget: Budget::new(ByteSize::mib(memory)),
            };
            for has_sha256 in [true, false] {
                let mut digests = Digesting::new(Progress::new(has_sha256), hashers.clone());
                let mut plain = Progress::new(has_sha256);
                for (number, frame) in frames.iter().enumerate() {
                    digests.update(frame).await;
                    plain.update(frame);
                    if number % 40 == 0 {
                        assert_eq!(digests.caught_up().await.save(), plain.save());
                    }
                }
                let is_beside = threads == 1 && memory > 1 && has_sha256;
                assert_eq!(digests.hasher.is_some(), is_beside);
                assert_eq!(digests.caught_up().await.save(), plain.save());
                assert_eq!(hashers.free.available_permits(), threads);
            }
        }
    }
}
