//! A destination's place in a download, and the stretch of it that is on its way into a request.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::oneshot;

use crate::archive::download::Download;
use crate::archive::download::Place;
use crate::archive::download::ReadError;
use crate::archive::gauge::Line;
use crate::archive::length;
use crate::store::BrokenSource;
use crate::store::PartBody;

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
    /// The reader that has `id` in the download.
    pub(super) fn new(download: Download, id: u64, line: Line) -> Self {
        Self(Arc::new(Seat {
            download,
            id,
            turns: AtomicU64::new(0),
            line,
        }))
    }

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
        let turn = self.0.turns.fetch_add(1, Ordering::Relaxed) + 1;
        let place = Place::new(offset, progress, turn);
        let mut state = download.state();
        if offset < state.tail {
            // What is gone cannot be waited for here, and nobody is to wait for one who fetches it elsewhere.
            state.readers.remove(id);
        } else {
            state.readers.insert(*id, place);
        }
        state.trim();
        drop(state);
        download.0.room.notify_one();
    }

    /// Where it stands.
    #[cfg(test)]
    pub(super) fn offset(&self) -> u64 {
        let state = self.0.download.state();
        state
            .readers
            .get(&self.0.id)
            .map_or(0, |place| place.offset)
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

impl Drop for Feed {
    /// A request that ended before its body: what is left is read for the digests alone.
    fn drop(&mut self) {
        if self.left > 0 && self.turn == self.reader.0.turns.load(Ordering::Relaxed) {
            self.reader.seek(self.end, None);
        }
    }
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
