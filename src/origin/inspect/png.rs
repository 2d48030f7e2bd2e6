//! PNG: chunks, each with its length, up to `IEND`; the size stands in the first.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::tracks::picture;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;

const SIGNATURE_BYTES: u64 = 8;

/// Length and kind of a chunk.
const HEADER_BYTES: usize = 8;

/// Length, kind and checksum of a chunk, around its data.
const OVERHEAD_BYTES: u64 = 12;

/// No chunk may be longer.
const LENGTH_MAX: u32 = 0x7fff_ffff;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Png {
    width: u32,
    height: u32,
    /// The byte after the chunk that is open.
    end: u64,
    kind: [u8; 4],
    /// What stands where a chunk should is none.
    has_junk: bool,
}

impl Structure for Png {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        let (Some(length), Some(kind)) = (field.first_chunk(), field.get(4..8)) else {
            return Next::STOP;
        };
        if at == 0 {
            return Next::field(SIGNATURE_BYTES, HEADER_BYTES);
        }
        let length = u32::from_be_bytes(*length);
        if length > LENGTH_MAX || !kind.iter().all(u8::is_ascii_alphabetic) {
            self.has_junk = true;
            return Next::STOP;
        }
        if at == SIGNATURE_BYTES && kind == b"IHDR" {
            match field.get(8..).and_then(<[u8]>::split_first_chunk) {
                None => return Next::field(at, 16),
                Some((width, rest)) => {
                    self.width = u32::from_be_bytes(*width);
                    self.height = rest.first_chunk().copied().map_or(0, u32::from_be_bytes);
                }
            }
        }
        self.kind = kind.first_chunk().copied().unwrap_or_default();
        self.end = at.saturating_add(OVERHEAD_BYTES + u64::from(length));
        if self.is_last() {
            return Next::STOP;
        }
        Next::field(self.end, HEADER_BYTES)
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        let file = "PNG";
        if self.has_junk {
            Ok(false)
        } else if end.length < self.end {
            let kind = self.kind.map(char::from).iter().collect::<String>();
            Err(end.cuts_off(file, format!("chunk {kind:?}"), self.end))
        } else if self.is_last() {
            // Whatever was appended may as well be cut off.
            Ok(end.length == self.end)
        } else if end.partial > 0 {
            let least = end.awaited.saturating_add(OVERHEAD_BYTES);
            Err(end.cuts_off(file, "a chunk", least))
        } else {
            let (piece, unit) = ("IEND", "chunk");
            Err(Broken::Lacks { file, piece, unit })
        }
    }

    fn details(&self, _length: u64) -> MediaDetails {
        picture(self.width, self.height)
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.width.to_le_bytes());
        state.extend(self.height.to_le_bytes());
        state.extend(self.end.to_le_bytes());
        state.extend(self.kind);
        state.push(u8::from(self.has_junk));
    }
}

impl Png {
    pub(super) fn new() -> Self {
        Self {
            width: 0,
            height: 0,
            end: SIGNATURE_BYTES,
            kind: [0; 4],
            has_junk: false,
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        Some(Self {
            width: kept.word()?,
            height: kept.word()?,
            end: kept.long()?,
            kind: kept.array()?,
            has_junk: kept.flag()?,
        })
    }

    fn is_last(&self) -> bool {
        self.kind == *b"IEND"
    }
}
