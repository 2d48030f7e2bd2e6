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

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::gauge::Line;
use crate::archive::length;
use crate::archive::progress::Progress;
use crate::archive::source::Source;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::origin::OriginError;
use crate::store::BrokenSource;
use crate::store::PartBody;

/// What the window of one reader holds at most: a few frames, so that reading and writing overlap.
const WINDOW_ALONE: u64 = 128 << 10;

/// What the window of several readers holds at most: enough for one to catch its breath while the others go on.
const WINDOW_SHARED: u64 = 256 << 10;

/// How long a reader may stand still while another waits for it.
const HELD_UP_MAX: Duration = Duration::from_secs(3);

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
    held_up: Option<HeldUp>,
}

/// Who holds up the others, since where, and for how long it still may.
#[derive(Clone, Copy)]
struct HeldUp {
    reader: u64,
    from: u64,
    until: Instant,
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
        let pump = Pump {
            download: download.clone(),
            source,
            progress,
            crc: Crc64Digester::new(),
            marked_at: start,
            strides,
            bandwidth,
            held_up: None,
        };
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
        let place = Place {
            offset,
            progress,
            turn: 0,
        };
        state.readers.insert(id, place);
        drop(state);
        self.0.room.notify_one();
        Reader(Arc::new(Seat {
            download: self.clone(),
            id,
            turns: AtomicU64::new(0),
            line,
        }))
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

/// A place in a download. Clones are the same place; it is given up with the last of them.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Seat>);

struct Seat {
    download: Download,
    id: u64,
    turns: AtomicU64,
    line: Line,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.download.state();
        state.readers.remove(&self.id);
        state.trim();
        drop(state);
        self.download.0.room.notify_one();
    }
}

/// Ends with `true` once all of a body was given out, with `false` when its request ended before.
pub(crate) struct Fed(oneshot::Receiver<()>);

impl Fed {
    /// Waits for the body's end. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> bool {
        (&mut self.0).await.is_ok()
    }
}

/// Judges a body before its last frame is let go.
pub(crate) type EndCheck = Box<dyn Fn() -> Result<(), String> + Send>;

impl Reader {
    /// The next bytes, at most up to `end`; `None` at the end of the body. Cancel-safe.
    pub(crate) async fn next(&self, end: u64) -> Result<Option<Bytes>, ReadError> {
        self.read(end, self.0.turns.load(Ordering::Relaxed)).await
    }

    /// As [`Reader::next`], as long as the reader is in this turn.
    async fn read(&self, end: u64, turn: u64) -> Result<Option<Bytes>, ReadError> {
        let Seat { download, id, .. } = self.0.as_ref();
        let frame = download
            .wait(|state| {
                let place = state.readers.get(id).filter(|place| place.turn == turn);
                let Some(offset) = place.map(|place| place.offset) else {
                    return Some(Err(ReadError::Missed));
                };
                if offset < state.tail {
                    return Some(Err(ReadError::Missed));
                }
                if let Some(mut frame) = state.frame_at(offset) {
                    let most = end.saturating_sub(offset);
                    frame.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                    if let Some(place) = state.readers.get_mut(id) {
                        place.offset = offset + length(&frame);
                    }
                    state.trim();
                    return Some(Ok(Some(frame)));
                }
                match &state.end {
                    Some(Ok(_)) => Some(Ok(None)),
                    Some(Err(error)) => Some(Err(ReadError::Origin(error.clone()))),
                    None => None,
                }
            })
            .await?;
        download.0.room.notify_one();
        if let Some(frame) = &frame {
            self.0.line.add(length(frame));
        }
        Ok(frame)
    }

    /// Goes to `offset`. Where `progress` is known of the bytes before, they are not read for this reader alone.
    pub(crate) fn seek(&self, offset: u64, progress: Option<Vec<u8>>) {
        let Seat { download, id, .. } = self.0.as_ref();
        let place = Place {
            offset,
            progress,
            turn: self.0.turns.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let mut state = download.state();
        state.readers.insert(*id, place);
        state.trim();
        drop(state);
        download.0.room.notify_one();
    }

    /// Whether the bytes from `offset` on have gone by.
    pub(crate) fn has_missed(&self, offset: u64) -> bool {
        offset < self.0.download.state().tail
    }

    /// Whether the next byte is the one at `offset`.
    pub(crate) fn stands_at(&self, offset: u64) -> bool {
        let state = self.0.download.state();
        let place = state.readers.get(&self.0.id);
        place.is_some_and(|place| place.offset == offset)
    }

    /// The bytes from `start`, where the reader stands, up to `end` as the body of a request, until the reader is
    /// moved. With a `check`, the last frame passes only where it allows that.
    pub(crate) fn feed(&self, start: u64, end: u64, check: Option<EndCheck>) -> (PartBody, Fed) {
        let (done, fed) = oneshot::channel();
        let feed = Feed {
            reader: self.clone(),
            turn: self.0.turns.load(Ordering::Relaxed),
            left: end - start,
            end,
            check,
            done: Some(done),
        };
        let frames = futures::stream::unfold(Some(feed), |feed| async {
            let mut feed = feed?;
            match feed.next().await {
                Ok(None) => None,
                Ok(Some(frame)) => Some((Ok(frame), Some(feed))),
                Err(broken) => Some((Err(broken), None)),
            }
        });
        let body = PartBody::Stream {
            length: end - start,
            frames: frames.boxed(),
        };
        (body, Fed(fed))
    }
}

/// A stretch of a download on its way into a request.
struct Feed {
    reader: Reader,
    turn: u64,
    left: u64,
    end: u64,
    check: Option<EndCheck>,
    done: Option<oneshot::Sender<()>>,
}

impl Feed {
    async fn next(&mut self) -> Result<Option<Bytes>, BrokenSource> {
        if self.left == 0 {
            return Ok(None);
        }
        let frame = match self.reader.read(self.end, self.turn).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(BrokenSource::new("the body ended before its length")),
            Err(ReadError::Origin(error)) => return Err(BrokenSource::new(error.to_string())),
            Err(ReadError::Missed) => return Err(BrokenSource::new("others went ahead")),
        };
        self.left = self.left.saturating_sub(length(&frame));
        if self.left == 0 {
            if let Some(check) = &self.check {
                check().map_err(BrokenSource::new)?;
            }
            if let Some(done) = self.done.take() {
                // Nobody waits for it where the transfer has ended.
                done.send(()).ok();
            }
        }
        Ok(Some(frame))
    }
}

impl Pump {
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
        std::future::pending().await
    }

    /// Moves one frame; whether there may be more.
    async fn step(&mut self) -> Result<bool, OriginError> {
        self.demand().await?;
        let offset = self.source.offset();
        let Some(frame) = self.source.next(self.next_mark(offset) - offset).await? else {
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
                        // A few bytes now and then are no progress.
                        let held_up = self.held_up.filter(|held_up| {
                            held_up.reader == reader && offset < held_up.from + WINDOW_SHARED
                        });
                        let held_up = held_up.unwrap_or_else(|| HeldUp {
                            reader,
                            from: offset,
                            until: Instant::now() + HELD_UP_MAX,
                        });
                        self.held_up = Some(held_up);
                        if tokio::time::timeout_at(held_up.until, room).await.is_err() {
                            self.download.state().evict(reader, offset);
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
        if self.head - self.tail < window {
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

#[cfg(test)]
mod tests;
