//! How a file's bytes leave: paced, cut, stalled, without end, or gzipped.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::stream;
use tokio::time::Instant;

use crate::simulator::line::Line;
use crate::simulator::source::FileSource;
use crate::simulator::source::length_of;
use crate::simulator::traffic::Serving;
use crate::simulator::world::World;
use crate::units::ByteSize;
use crate::units::Span;

/// What leaves in one piece.
const CHUNK_BYTES: u64 = 256 * 1024;

/// A paced body is handed out in so many pieces a second, so that its rate is even.
const PIECES_A_SECOND: u64 = 20;

/// The most bytes that deflate can carry uncompressed in one block.
const DEFLATE_BLOCK_BYTES: u64 = 65_535;

/// What happens after the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The body is over.
    Over,
    /// Nothing more comes, and nothing says so.
    Silence,
    /// The connection is closed in the middle.
    Close,
    /// The connection is reset.
    Reset,
}

/// How fast a body leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As fast as it is taken.
    Free,
    /// So many bytes a second.
    Rate(ByteSize),
    /// One byte, then a wait.
    Trickle(Span),
}

/// A body to be sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) source: FileSource,
    /// Which bytes of it.
    pub(super) range: Range<u64>,
    pub(super) pace: Pace,
    pub(super) end: End,
    /// Counted as long as it is being sent.
    pub(super) serving: Serving,
}

/// A body on its way.
struct Sender {
    sending: Sending,
    at: u64,
    started: Instant,
    world: Arc<World>,
    line: Arc<Line>,
}

impl Sending {
    pub(super) fn body(self, world: Arc<World>, line: Arc<Line>) -> Body {
        let sender = Sender {
            at: self.range.start,
            sending: self,
            started: Instant::now(),
            world,
            line,
        };
        Body::from_stream(stream::unfold(sender, |mut sender| async {
            let piece = sender.next().await?;
            Some((piece, sender))
        }))
    }
}

impl Sender {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let left = self.sending.range.end.saturating_sub(self.at);
        if left == 0 {
            return self.end().await;
        }
        let length = self.piece_length().min(left);
        self.keep_pace(length).await;
        let piece = self
            .sending
            .source
            .bytes(self.at..self.at.saturating_add(length));
        self.at = self.at.saturating_add(length);
        self.sending.serving.sent(length);
        self.world.count(|seen| seen.file_bytes += length);
        Some(Ok(piece))
    }

    fn piece_length(&self) -> u64 {
        match self.sending.pace {
            Pace::Free => CHUNK_BYTES,
            Pace::Rate(rate) => (rate.as_u64() / PIECES_A_SECOND).clamp(1, CHUNK_BYTES),
            Pace::Trickle(_) => 1,
        }
    }

    /// Waits until the next `bytes` may be sent.
    async fn keep_pace(&self, bytes: u64) {
        let sent = self.at - self.sending.range.start;
        let due = match self.sending.pace {
            Pace::Free => return,
            Pace::Rate(rate) => return self.line.keep_pace(bytes, rate, sent == 0).await,
            Pace::Trickle(span) => {
                let millis = u64::try_from(span.as_millis_i64()).unwrap_or(0);
                Span::from_millis(millis.saturating_mul(sent))
            }
        };
        match self.started.checked_add(due.as_duration()) {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    async fn end(&self) -> Option<io::Result<Bytes>> {
        match self.sending.end {
            End::Over => None,
            End::Silence => std::future::pending().await,
            End::Close => Some(Err(self.break_off().await)),
            End::Reset => {
                self.line.reset_at_end();
                Some(Err(self.break_off().await))
            }
        }
    }

    /// The error that makes the server drop the connection, once all before it has left.
    async fn break_off(&self) -> io::Error {
        self.line.flushed().await;
        io::Error::other("the fault script breaks this body off")
    }
}

/// Where a gzip stream stands.
enum GzipPlace {
    Head,
    Blocks(u64),
    Over,
}

/// The whole file as a gzip stream that does not compress: valid, and a little longer than the file.
pub(super) fn gzipped(source: FileSource) -> Body {
    let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
    let start = (source, crc, GzipPlace::Head);
    Body::from_stream(stream::unfold(
        start,
        |(source, mut crc, place)| async move {
            let (piece, place) = match place {
                GzipPlace::Head => {
                    let head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff";
                    (Bytes::from_static(head), GzipPlace::Blocks(0))
                }
                GzipPlace::Blocks(at) => deflate_block(&source, &mut crc, at),
                GzipPlace::Over => return None,
            };
            Some((Ok::<Bytes, io::Error>(piece), (source, crc, place)))
        },
    ))
}

/// One stored block, and behind the last one the stream's end.
fn deflate_block(source: &FileSource, crc: &mut crc_fast::Digest, at: u64) -> (Bytes, GzipPlace) {
    let end = source.length().min(at + DEFLATE_BLOCK_BYTES);
    let is_last = end == source.length();
    let bytes = source.bytes(at..end);
    crc.update(&bytes);
    let length = u16::try_from(length_of(&bytes)).unwrap_or(u16::MAX);
    let mut block = vec![u8::from(is_last)];
    block.extend(length.to_le_bytes());
    block.extend((!length).to_le_bytes());
    block.extend(&bytes);
    if !is_last {
        return (Bytes::from(block), GzipPlace::Blocks(end));
    }
    block.extend(u32::try_from(crc.finalize()).unwrap_or(0).to_le_bytes());
    let length = u32::try_from(source.length() % (1 << 32)).unwrap_or(0);
    block.extend(length.to_le_bytes());
    (Bytes::from(block), GzipPlace::Over)
}
