//! A place in an origin's body: frames cut to measure, digests that follow, and the way back to any offset.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::archive::gauge::Line;
use crate::archive::progress::Progress;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::origin::OriginError;
use crate::origin::inspect::SNIFF_BYTES;
use crate::origin::open::Origin;
use crate::origin::open::Window;
use crate::origin::reading::Reading;
use crate::units::Span;

/// A body being read in order. Every byte given out has passed the digests.
pub struct Cursor {
    origin: Origin,
    stall: Span,
    reading: Reading,
    ahead: VecDeque<Bytes>,
    offset: u64,
    progress: Progress,
    line: Line,
}

/// Bytes held in memory, in the frames that they came in.
#[derive(Debug, Default)]
pub struct Held {
    /// The frames.
    pub frames: Vec<Bytes>,
    /// Their length together.
    pub length: u64,
    /// Their checksum.
    pub crc64nvme: Crc64,
}

impl Cursor {
    /// Opens `origin` at `offset`, where `progress` is what is known of the bytes before. An offset other than zero
    /// wants the version of the file that `expected` names. `enter` gives
    /// the line on the gauge, once the length is known.
    pub async fn open(
        origin: Origin,
        stall: Span,
        offset: u64,
        expected: Option<&SourceIdentity>,
        progress: Progress,
        enter: impl FnOnce(Option<u64>) -> Line,
    ) -> Result<Self, OriginError> {
        let window = Window {
            start: offset,
            end: None,
        };
        let reading = Reading::open(origin.clone(), window, expected, stall).await?;
        let line = enter(reading.identity().length);
        Ok(Self {
            origin,
            stall,
            reading,
            ahead: VecDeque::new(),
            offset,
            progress,
            line,
        })
    }

    /// What the origin says of the file.
    pub fn identity(&self) -> &SourceIdentity {
        self.reading.identity()
    }

    /// Whether any part of this very file can be fetched again.
    pub fn is_resumable(&self) -> bool {
        self.reading.is_resumable()
    }

    /// Whether a clean end of the body means that it is whole.
    pub fn is_framed(&self) -> bool {
        self.reading.is_framed()
    }

    /// How far the body was given out.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is known of the bytes given out.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The first bytes of the body, as many as sniffing wants; they are given out again by [`Cursor::next`].
    pub async fn head(&mut self) -> Result<Vec<u8>, OriginError> {
        let mut head = Vec::with_capacity(SNIFF_BYTES);
        while head.len() < SNIFF_BYTES {
            let Some(frame) = self.reading.next().await? else {
                break;
            };
            let wanted = frame.len().min(SNIFF_BYTES - head.len());
            head.extend_from_slice(frame.get(..wanted).unwrap_or_default());
            self.ahead.push_back(frame);
        }
        Ok(head)
    }

    /// The next frame, cut to at most `most` bytes; `None` at the end of the body.
    pub async fn next(&mut self, most: u64) -> Result<Option<Bytes>, OriginError> {
        let frame = match self.ahead.pop_front() {
            Some(frame) => Some(frame),
            None => self.reading.next().await?,
        };
        let Some(mut frame) = frame else {
            return Ok(None);
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if frame.len() > most {
            self.ahead.push_front(frame.split_off(most));
        }
        self.offset += length(&frame);
        self.progress.update(&frame);
        self.line.add(length(&frame));
        Ok(Some(frame))
    }

    /// Goes to `offset`, where `progress` is what is known of the bytes before it.
    pub async fn seek(&mut self, offset: u64, progress: Progress) -> Result<(), OriginError> {
        self.progress = progress;
        if offset == self.offset {
            return Ok(());
        }
        let identity = self.reading.identity().clone();
        let window = Window {
            start: offset,
            end: None,
        };
        self.reading =
            Reading::open(self.origin.clone(), window, Some(&identity), self.stall).await?;
        self.ahead.clear();
        self.offset = offset;
        Ok(())
    }

    /// The way to look at bytes of this very file once more, without moving the cursor.
    pub fn again(&self) -> Again {
        Again {
            origin: self.origin.clone(),
            identity: self.reading.identity().clone(),
            stall: self.stall,
        }
    }

    /// Reads up to `most` bytes into memory. The caller has taken them from the budget.
    pub async fn fill(&mut self, most: u64) -> Result<Held, OriginError> {
        let mut held = Held::default();
        let mut crc = Crc64Digester::new();
        while held.length < most {
            let Some(frame) = self.next(most - held.length).await? else {
                break;
            };
            crc.update(&frame);
            held.length += length(&frame);
            held.frames.push(frame);
        }
        held.crc64nvme = crc.value();
        Ok(held)
    }
}

/// A second look at bytes that a cursor has given out.
#[derive(Clone, Debug)]
pub struct Again {
    origin: Origin,
    identity: SourceIdentity,
    stall: Span,
}

impl Again {
    /// Opens the bytes from `start` up to `end`.
    pub async fn open(&self, start: u64, end: u64) -> Result<Reading, OriginError> {
        let window = Window {
            start,
            end: Some(end),
        };
        Reading::open(
            self.origin.clone(),
            window,
            Some(&self.identity),
            self.stall,
        )
        .await
    }
}

/// The length of a frame in the type of offsets.
pub(crate) fn length(frame: &Bytes) -> u64 {
    u64::try_from(frame.len()).unwrap_or(u64::MAX)
}
