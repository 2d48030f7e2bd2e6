//! One download that all objects of an asset share: read in order, digested once, kept only as long as a reader needs it.
//!
//! ```text
//!    source: one connection or several, always in order
//!       |  frames
//!    pump: SHA-256, box walk, CRC64NVME; a mark at the end of each part
//!       |
//!    window  [tail ............ head)      bounded, and no more than the slowest reader needs
//!               ^ reader    ^ reader       one for each destination
//! ```
//! A reader that does not move while another waits for it loses its place: it holds up nobody for long, whatever it waits
//! for itself, be it a store that hangs or memory that the other holds. What it then missed it fetches by range.

mod pump;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::gauge::Line;
use crate::archive::length;
use crate::archive::progress::Progress;
use crate::archive::source::Source;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::origin::OriginError;

pub(crate) use pump::Pump;
pub(crate) use reader::Reader;

/// A download that is under way. Clones share it.
#[derive(Clone)]
pub(crate) struct Download(Arc<Shared>);

struct Shared {
    facts: Facts,
    state: Mutex<State>,
    /// A reader moved, came or went.
    room: Notify,
    /// Frames came, or the end.
    news: Notify,
}

/// What is known of a body when its headers are there.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What the origin says of the file.
    pub(crate) identity: SourceIdentity,
    /// Whether any part of this very file can be fetched again.
    pub(crate) is_resumable: bool,
    /// Whether a clean end of the body means that it is whole.
    pub(crate) is_framed: bool,
}

struct State {
    frames: VecDeque<Bytes>,
    /// Where the first frame of the window begins.
    tail: u64,
    /// Where the next frame from the source will begin.
    head: u64,
    readers: BTreeMap<u64, Place>,
    next_reader: u64,
    /// What was known at the end of each part and of the body, by offset.
    marks: BTreeMap<u64, Mark>,
    end: Option<Result<Progress, OriginError>>,
}

/// Where a reader stands.
#[derive(Debug)]
struct Place {
    offset: u64,
    /// What is known of the bytes before, where it is: then nobody has to read them for this reader.
    progress: Option<Vec<u8>>,
    /// Which stretch of the reader this is: a request that was given up must not read on in the next one.
    turn: u64,
    /// For how long others have waited for this one since it was here.
    stood: Duration,
    stood_since: u64,
}

impl Place {
    fn new(offset: u64, progress: Option<Vec<u8>>, turn: u64) -> Self {
        Self {
            offset,
            progress,
            turn,
            stood: Duration::ZERO,
            stood_since: offset,
        }
    }
}

/// What was known when the head passed an offset.
#[derive(Debug)]
struct Mark {
    /// The offset of the mark before.
    since: u64,
    /// The checksum of the bytes since then.
    crc64nvme: Crc64,
    progress: Vec<u8>,
}

/// What reading came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The origin does not give the bytes.
    Origin(OriginError),
    /// The window has moved on; the bytes can be had by a request of one's own.
    Missed,
}

impl Download {
    /// A download over an open `source`, of whose earlier bytes `progress` is known, and what keeps it going. It
    /// is marked at multiples of each of `strides`.
    pub(crate) fn new(
        source: Source,
        progress: Progress,
        strides: Vec<u64>,
        bandwidth: Bandwidth,
    ) -> (Self, Pump) {
        let start = source.offset();
        let download = Self(Arc::new(Shared {
            facts: source.facts(),
            state: Mutex::new(State {
                frames: VecDeque::new(),
                tail: start,
                head: start,
                readers: BTreeMap::new(),
                next_reader: 0,
                marks: BTreeMap::new(),
                end: None,
            }),
            room: Notify::new(),
            news: Notify::new(),
        }));
        let pump = Pump::new(download.clone(), source, progress, strides, bandwidth);
        (download, pump)
    }

    /// What the headers said.
    pub(crate) fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// A reader at `offset`. Where `progress` is known of the bytes before, they are not read for this reader alone.
    pub(crate) fn reader(&self, offset: u64, progress: Option<Vec<u8>>, line: Line) -> Reader {
        let mut state = self.state();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, Place::new(offset, progress, 0));
        drop(state);
        self.0.room.notify_one();
        Reader::new(self.clone(), id, line)
    }

    /// Why the source gave up, if it did.
    pub(crate) fn failure(&self) -> Option<OriginError> {
        match &self.state().end {
            Some(Err(error)) => Some(error.clone()),
            Some(Ok(_)) | None => None,
        }
    }

    /// How far the source was read.
    pub(crate) fn head(&self) -> u64 {
        self.state().head
    }

    /// The checksum of the bytes from `start` to `end`, which are ends of parts, once the head has passed them. `None`
    /// where they were not read in one go.
    pub(crate) async fn sum(&self, start: u64, end: u64) -> Result<Option<Crc64>, OriginError> {
        self.wait(|state| match &state.end {
            _ if state.head >= end => Some(Ok(state.sum(start, end))),
            Some(Err(error)) => Some(Err(error.clone())),
            Some(Ok(_)) | None => None,
        })
        .await
    }

    /// Waits until the head is at `offset`, or nothing more comes.
    pub(crate) async fn reached(&self, offset: u64) {
        self.wait(|state| (state.head >= offset || state.end.is_some()).then_some(()))
            .await;
    }

    /// What was known at `offset`, the end of a part.
    pub(crate) fn progress_at(&self, offset: u64) -> Option<Vec<u8>> {
        let state = self.state();
        state.marks.get(&offset).map(|mark| mark.progress.clone())
    }

    /// What is known of the whole body, once it has ended.
    pub(crate) fn ended(&self) -> Option<Progress> {
        match &self.state().end {
            Some(Ok(progress)) => Some(progress.clone()),
            Some(Err(_)) | None => None,
        }
    }

    /// Waits for news until `look` finds what it looks for.
    async fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let news = self.0.news.notified();
            tokio::pin!(news);
            // Registered before the look, so that what comes in between is not missed.
            news.as_mut().enable();
            let found = look(&mut self.state());
            if let Some(found) = found {
                return found;
            }
            news.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops what no reader needs any more.
    fn trim(&mut self) {
        let needed = self.readers.values().map(|place| place.offset).min();
        let needed = needed.unwrap_or(self.head);
        while let Some(frame) = self.frames.front() {
            let end = self.tail + length(frame);
            if end > needed {
                break;
            }
            self.tail = end;
            self.frames.pop_front();
        }
    }

    /// The rest of the frame in which `offset` lies.
    fn frame_at(&self, offset: u64) -> Option<Bytes> {
        let mut start = self.tail;
        for frame in &self.frames {
            let end = start + length(frame);
            if offset < end {
                let within = usize::try_from(offset - start).unwrap_or(usize::MAX);
                return Some(frame.slice(within..));
            }
            start = end;
        }
        None
    }

    /// The checksum between two marks; `None` where one is missing.
    fn sum(&self, start: u64, end: u64) -> Option<Crc64> {
        if start >= end {
            return (start == end).then(Crc64::default);
        }
        let (mut whole, mut at) = (Crc64::default(), start);
        for (offset, mark) in self.marks.range(start + 1..=end) {
            if mark.since != at {
                return None;
            }
            // Combining costs more than hashing some megabytes, and most parts are one stretch.
            whole = if at == start {
                mark.crc64nvme
            } else {
                whole.followed_by(mark.crc64nvme, offset - at)
            };
            at = *offset;
        }
        (at == end).then_some(whole)
    }
}
