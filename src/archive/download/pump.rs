//! What keeps a download going: reads as far as readers ask for, digests, marks the ends of parts, and leaves behind who
//! holds up the others.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::download::Download;
use crate::archive::download::Mark;
use crate::archive::download::State;
use crate::archive::length;
use crate::archive::progress::Progress;
use crate::archive::source::Source;
use crate::model::digest::Crc64Digester;
use crate::origin::OriginError;

/// What the window of one reader holds at most: a few frames, so that reading and writing overlap.
const WINDOW_ALONE: u64 = 128 << 10;

/// What the window of several readers holds at most: enough for one to catch its breath while the others go on.
pub(super) const WINDOW_SHARED: u64 = 256 << 10;

/// What it holds at most in frames: a peer may send them of a byte each.
const WINDOW_FRAMES: usize = 512;

/// How long a reader may stand still while another waits for it.
pub(super) const HELD_UP_MAX: Duration = Duration::from_secs(3);

/// Reads a source into a download, as far as its readers ask for.
pub(crate) struct Pump {
    download: Download,
    source: Source,
    progress: Progress,
    crc: Crc64Digester,
    marked_at: u64,
    /// The lengths of parts that readers cut the body into.
    strides: Vec<u64>,
    bandwidth: Bandwidth,
}

impl Pump {
    /// A pump that has read nothing of `source` yet.
    pub(super) fn new(
        download: Download,
        source: Source,
        progress: Progress,
        strides: Vec<u64>,
        bandwidth: Bandwidth,
    ) -> Self {
        Self {
            download,
            marked_at: source.offset(),
            source,
            progress,
            crc: Crc64Digester::new(),
            strides,
            bandwidth,
        }
    }

    /// Reads until the body has ended or broke, and then waits to be dropped. Waits while no reader wants more.
    pub(crate) async fn run(mut self) -> Infallible {
        let end = loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => break Ok(self.progress.clone()),
                Err(error) => break Err(error),
            }
        };
        self.download.state().end = Some(end);
        self.download.0.news.notify_waiters();
        // The slowest destination may take long; others want the connections and their memory.
        drop(self.source);
        std::future::pending().await
    }

    /// Moves one frame; whether there may be more.
    async fn step(&mut self) -> Result<bool, OriginError> {
        self.demand().await?;
        let offset = self.source.offset();
        let most = self.bandwidth.step().min(self.next_mark(offset) - offset);
        let Some(frame) = self.source.next(most).await? else {
            self.mark(offset);
            return Ok(false);
        };
        let head = offset + length(&frame);
        self.progress.update(&frame);
        self.crc.update(&frame);
        let total = self.download.facts().identity.length;
        if head == self.next_mark(offset) || Some(head) == total {
            self.mark(head);
        }
        let passed = length(&frame);
        self.give(frame, head, Some(head) == total);
        self.bandwidth.pass(passed).await;
        Ok(Some(head) != total)
    }

    /// Puts a frame that ends at `head` into the window. How the body ends is told with the last one, since the
    /// check before it wants to know.
    fn give(&self, frame: Bytes, head: u64, is_last: bool) {
        let mut state = self.download.state();
        state.frames.push_back(frame);
        state.head = head;
        state.trim();
        if is_last {
            state.end = Some(Ok(self.progress.clone()));
        }
        drop(state);
        self.download.0.news.notify_waiters();
    }

    /// Waits until a reader wants more than there is, and there is room for it.
    async fn demand(&mut self) -> Result<(), OriginError> {
        loop {
            let jump = {
                let download = self.download.clone();
                let room = download.0.room.notified();
                tokio::pin!(room);
                room.as_mut().enable();
                let wish = self.download.state().wish();
                match wish {
                    Wish::More => return Ok(()),
                    Wish::Nothing => {
                        room.await;
                        continue;
                    }
                    Wish::HeldUpBy(reader, offset) => {
                        let (since, stood) = (Instant::now(), self.download.state().stood(reader));
                        let left = HELD_UP_MAX.saturating_sub(stood);
                        if tokio::time::timeout(left, room).await.is_err() {
                            self.download.state().evict(reader, offset);
                        } else {
                            self.download.state().note_stood(reader, since.elapsed());
                        }
                        continue;
                    }
                    Wish::Elsewhere(offset, progress) => (offset, progress),
                }
            };
            let (offset, progress) = jump;
            if let Some(progress) = Progress::load(&progress) {
                self.source.seek(offset).await?;
                self.progress = progress;
                self.crc = Crc64Digester::new();
                self.marked_at = offset;
                let mut state = self.download.state();
                state.frames.clear();
                (state.tail, state.head) = (offset, offset);
            } else {
                return Ok(());
            }
        }
    }

    /// The next offset after `offset` at which a part ends.
    fn next_mark(&self, offset: u64) -> u64 {
        let next = |stride: &u64| (offset / stride + 1).saturating_mul(*stride);
        let strides = self.strides.iter().filter(|stride| **stride > 0);
        strides.map(next).min().unwrap_or(u64::MAX)
    }

    fn mark(&mut self, offset: u64) {
        if offset == self.marked_at {
            return;
        }
        let crc = std::mem::take(&mut self.crc);
        let mark = Mark {
            since: self.marked_at,
            crc64nvme: crc.value(),
            progress: self.progress.save(),
        };
        self.download.state().marks.insert(offset, mark);
        self.marked_at = offset;
    }
}

/// What the readers want of the pump.
enum Wish {
    Nothing,
    More,
    /// One has all that there is and waits for another to move on from this offset.
    HeldUpBy(u64, u64),
    /// All of them stand further on, and of what is before the first of them everything is known.
    Elsewhere(u64, Vec<u8>),
}

impl State {
    /// For how long a reader has held up the others. A few bytes now and then are no progress.
    fn stood(&mut self, reader: u64) -> Duration {
        let Some(place) = self.readers.get_mut(&reader) else {
            return Duration::ZERO;
        };
        if place.offset >= place.stood_since + WINDOW_SHARED {
            (place.stood_since, place.stood) = (place.offset, Duration::ZERO);
        }
        place.stood
    }

    fn note_stood(&mut self, reader: u64, span: Duration) {
        if let Some(place) = self.readers.get_mut(&reader) {
            place.stood += span;
        }
    }

    /// Takes its place from a reader that still stands where it stood.
    fn evict(&mut self, reader: u64, offset: u64) {
        let place = self.readers.get(&reader);
        if place.is_some_and(|place| place.offset == offset) {
            tracing::debug!(offset, "a destination is left behind");
            self.readers.remove(&reader);
            self.trim();
        }
    }

    fn wish(&self) -> Wish {
        let slowest = self.readers.iter().min_by_key(|(_, place)| place.offset);
        let Some((reader, place)) = slowest else {
            return Wish::Nothing;
        };
        if place.offset > self.head
            && let Some(progress) = &place.progress
        {
            return Wish::Elsewhere(place.offset, progress.clone());
        }
        let window = if self.readers.len() > 1 {
            WINDOW_SHARED
        } else {
            WINDOW_ALONE
        };
        if self.head - self.tail < window && self.frames.len() < WINDOW_FRAMES {
            return Wish::More;
        }
        let has_waiting = self.readers.values().any(|place| place.offset >= self.head);
        if has_waiting {
            Wish::HeldUpBy(*reader, place.offset)
        } else {
            Wish::Nothing
        }
    }
}
