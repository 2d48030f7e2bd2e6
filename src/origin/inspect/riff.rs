//! RIFF (WAV, WebP, AVI): one size for all of it; the time of a WAV, the picture's size of a WebP.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::tracks::picture;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;
use crate::units::Span;

/// Name, size, and what kind of RIFF it is.
const HEAD_BYTES: u64 = 12;

/// Name and size of a chunk.
const CHUNK_BYTES: u64 = 8;

/// What a writer that cannot go back leaves as a size is 0 or near the end of the range, signed or not; the exact
/// numbers differ by program.
const PLACEHOLDER_MIN: u32 = 0x7fff_0000;

/// Some writers count the eight bytes before the size as well, and the last byte of filling or not.
const TOLERANCE_BYTES: u64 = 9;

/// Chunks before the sound; a body of nothing but empty chunks is not worth the walk.
const CHUNKS_MAX: u8 = 64;

/// What kind of RIFF it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Wave,
    Webp,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Riff {
    /// The size of all that follows it.
    size: u32,
    form: Form,
    chunks: u8,
    /// Where the chunk ends whose first bytes are awaited.
    awaited_end: Option<u64>,
    width: u32,
    height: u32,
    bytes_a_second: u32,
    /// Where the sound begins, and its length as told.
    sound: Option<(u64, u32)>,
}

impl Structure for Riff {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        if at == 0 {
            return self.begin(field);
        }
        if let Some(end) = self.awaited_end.take() {
            // The format of a WAV: format (2), channels (2), samples a second (4), bytes a second (4).
            self.bytes_a_second = field.get(8..).and_then(word).unwrap_or(0);
            return Next::field(end, 8);
        }
        let (Some(kind), Some(size)) = (field.get(..4), field.get(4..).and_then(word)) else {
            return Next::STOP;
        };
        let content = at.saturating_add(CHUNK_BYTES);
        let end = content.saturating_add(u64::from(size) + u64::from(size & 1));
        self.chunks = self.chunks.saturating_add(1);
        match (self.form, kind) {
            (Form::Webp, _) => {
                let (width, height) =
                    canvas(kind, field.get(8..).unwrap_or_default()).unwrap_or_default();
                (self.width, self.height) = (width, height);
                Next::STOP
            }
            (Form::Wave, b"fmt ") if size >= 12 => {
                self.awaited_end = Some(end);
                Next::field(content, 12)
            }
            (Form::Wave, b"data") => {
                self.sound = Some((content, size));
                Next::STOP
            }
            (Form::Wave, _) if self.chunks < CHUNKS_MAX => Next::field(end, 8),
            (Form::Wave | Form::Other, _) => Next::STOP,
        }
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        if self.size == 0 {
            return Ok(false);
        }
        let told = CHUNK_BYTES + u64::from(self.size);
        let is_far = end.length.saturating_add(TOLERANCE_BYTES) < told;
        if is_far && self.size < PLACEHOLDER_MIN {
            return Err(end.cuts_off("RIFF file", "its size", told));
        }
        Ok(end.length == told || (end.length == told + 1 && told % 2 == 1))
    }

    fn details(&self, length: u64) -> MediaDetails {
        let duration = self.sound.and_then(|(at, told)| {
            let there = length.saturating_sub(at);
            let bytes = u128::from(there.min(u64::from(told)));
            let millis = (bytes * 1000).checked_div(u128::from(self.bytes_a_second))?;
            u64::try_from(millis).ok().filter(|millis| *millis > 0)
        });
        MediaDetails {
            duration: duration.map(Span::from_millis),
            ..picture(self.width, self.height)
        }
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.size.to_le_bytes());
        state.push(match self.form {
            Form::Wave => 0,
            Form::Webp => 1,
            Form::Other => 2,
        });
        state.push(self.chunks);
        state.extend(self.awaited_end.unwrap_or(u64::MAX).to_le_bytes());
        for word in [self.width, self.height, self.bytes_a_second] {
            state.extend(word.to_le_bytes());
        }
        let (at, told) = self.sound.unwrap_or((u64::MAX, 0));
        state.extend(at.to_le_bytes());
        state.extend(told.to_le_bytes());
    }
}

impl Riff {
    pub(super) fn new() -> Self {
        Self {
            size: 0,
            form: Form::Other,
            chunks: 0,
            awaited_end: None,
            width: 0,
            height: 0,
            bytes_a_second: 0,
            sound: None,
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        let size = kept.word()?;
        let form = match kept.byte()? {
            0 => Form::Wave,
            1 => Form::Webp,
            2 => Form::Other,
            _ => return None,
        };
        Some(Self {
            size,
            form,
            chunks: kept.byte()?,
            awaited_end: Some(kept.long()?).filter(|end| *end != u64::MAX),
            width: kept.word()?,
            height: kept.word()?,
            bytes_a_second: kept.word()?,
            sound: Some((kept.long()?, kept.word()?)).filter(|(at, _)| *at != u64::MAX),
        })
    }

    fn begin(&mut self, field: &[u8]) -> Next {
        let Some(form) = field.get(8..12) else {
            self.size = field.get(4..).and_then(word).unwrap_or(0);
            return Next::field(0, 12);
        };
        let (form, next) = match form {
            b"WAVE" => (Form::Wave, Next::field(HEAD_BYTES, 8)),
            b"WEBP" => (Form::Webp, Next::field(HEAD_BYTES, 18)),
            _ => (Form::Other, Next::STOP),
        };
        self.form = form;
        next
    }
}

/// The size of a WebP from the first ten bytes of its first chunk.
fn canvas(kind: &[u8], field: &[u8]) -> Option<(u32, u32)> {
    match (kind, field) {
        // Flags and three reserved bytes, then both sides less one in 24 bits.
        (b"VP8X", [_, _, _, _, w0, w1, w2, h0, h1, h2, ..]) => {
            let side = |bytes: [u8; 4]| u32::from_le_bytes(bytes) + 1;
            Some((side([*w0, *w1, *w2, 0]), side([*h0, *h1, *h2, 0])))
        }
        // A frame tag and a start code, then both sides in 14 bits, each with two bits of scale.
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            let side = |bytes: [u8; 2]| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
            Some((side([*w0, *w1]), side([*h0, *h1])))
        }
        // A signature, then both sides less one in 14 bits.
        (b"VP8L", [0x2f, rest @ ..]) => {
            let bits = word(rest)?;
            Some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
        }
        _ => None,
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_le_bytes)
}
