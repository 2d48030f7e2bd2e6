//! Takes a payload out of `aws-chunked`, the framing in which the SDKs of AWS send checksums after the body.
//!
//! ```text
//!   HEX[;chunk-signature=...]\r\n  HEX bytes  \r\n  ...  0\r\n  trailers
//! ```

use bytes::Buf as _;
use bytes::Bytes;
use http::HeaderMap;
use http::header;

/// A chunk's length, its signature, and the ends of lines; more is not a chunk's head.
const HEAD_BYTES_MAX: usize = 256;

/// How far the reading is.
pub(crate) enum Chunks {
    /// The body is not framed at all.
    Bare,
    /// In the line before a chunk; the end of line that closes the chunk before may come first.
    Head(Vec<u8>),
    /// In a chunk, with so many bytes left.
    Data(u64),
    /// After the last chunk, where trailers are, which nobody reads.
    Over,
}

impl Chunks {
    /// How the body of a request with these headers is framed.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let says = |name: &str, word: &str| {
            let values = headers.get_all(name).iter();
            let mut texts = values.filter_map(|value| value.to_str().ok());
            texts.any(|text| text.contains(word))
        };
        let framed = says(header::CONTENT_ENCODING.as_str(), "aws-chunked")
            || says("x-amz-content-sha256", "STREAMING-");
        if framed {
            Chunks::Head(Vec::new())
        } else {
            Chunks::Bare
        }
    }

    /// Whether the payload is whole once the body has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Chunks::Bare | Chunks::Over)
    }

    /// Takes the next piece of payload off the front of `body`. `None` when the framing is broken; a piece is
    /// empty when `body` is used up.
    pub(crate) fn next(&mut self, body: &mut Bytes) -> Option<Bytes> {
        loop {
            match self {
                Chunks::Bare => return Some(std::mem::take(body)),
                Chunks::Over => {
                    body.clear();
                    return Some(Bytes::new());
                }
                Chunks::Data(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let piece = body.split_to(most.min(body.len()));
                    *left -= u64::try_from(piece.len()).ok()?;
                    if *left == 0 {
                        *self = Chunks::Head(Vec::new());
                    }
                    if !piece.is_empty() || body.is_empty() {
                        return Some(piece);
                    }
                }
                Chunks::Head(line) => {
                    if body.is_empty() {
                        return Some(Bytes::new());
                    }
                    line.push(body.get_u8());
                    if line.len() > HEAD_BYTES_MAX {
                        return None;
                    }
                    let Some(head) = line.strip_suffix(b"\r\n") else {
                        continue;
                    };
                    if head.is_empty() {
                        line.clear();
                        continue;
                    }
                    let digits = head.split(|byte| *byte == b';').next()?;
                    let length = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                    *self = if length == 0 {
                        Chunks::Over
                    } else {
                        Chunks::Data(length)
                    };
                }
            }
        }
    }
}
