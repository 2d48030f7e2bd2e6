//! GIF: blocks of blocks up to the trailer; the size stands in the head.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::tracks::picture;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;

/// Signature, width, height, flags, background, aspect.
const SCREEN_BYTES: usize = 13;

/// Separator, place, size, flags.
const IMAGE_BYTES: usize = 10;

const EXTENSION: u8 = 0x21;
const IMAGE: u8 = 0x2c;
const TRAILER: u8 = 0x3b;

/// What the next field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Screen,
    Block,
    /// The length of the next piece of a block, 0 after the last.
    Piece,
    /// The trailer was seen.
    Over,
    /// What stands where a block should is none.
    Junk,
}

const STAGES: [Stage; 5] = [
    Stage::Screen,
    Stage::Block,
    Stage::Piece,
    Stage::Over,
    Stage::Junk,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gif {
    width: u16,
    height: u16,
    stage: Stage,
    /// The byte after the trailer.
    end: u64,
}

impl Structure for Gif {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        match (self.stage, field) {
            (Stage::Screen, [_, _, _, _, _, _, w0, w1, h0, h1, flags, _, _, ..]) => {
                self.width = u16::from_le_bytes([*w0, *w1]);
                self.height = u16::from_le_bytes([*h0, *h1]);
                self.stage = Stage::Block;
                Next::field(13 + table_bytes(*flags), 1)
            }
            (Stage::Screen, _) => Next::field(at, SCREEN_BYTES),
            (Stage::Block, [EXTENSION, ..]) => {
                self.stage = Stage::Piece;
                Next::field(at.saturating_add(2), 1)
            }
            (Stage::Block, [IMAGE, _, _, _, _, _, _, _, _, flags, ..]) => {
                self.stage = Stage::Piece;
                // After the table stands one byte: the length of the first codes.
                Next::field(at.saturating_add(10 + table_bytes(*flags) + 1), 1)
            }
            (Stage::Block, [IMAGE, ..]) => Next::field(at, IMAGE_BYTES),
            (Stage::Block, [TRAILER, ..]) => {
                self.stage = Stage::Over;
                self.end = at.saturating_add(1);
                Next::STOP
            }
            // Some writers end an image twice.
            (Stage::Block, [0, ..]) => Next::field(at.saturating_add(1), 1),
            (Stage::Piece, [length, ..]) => {
                if *length == 0 {
                    self.stage = Stage::Block;
                }
                Next::field(at.saturating_add(1 + u64::from(*length)), 1)
            }
            (Stage::Block | Stage::Piece | Stage::Over | Stage::Junk, _) => {
                self.stage = Stage::Junk;
                Next::STOP
            }
        }
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        match self.stage {
            Stage::Over => Ok(end.length == self.end),
            Stage::Screen | Stage::Block | Stage::Piece if end.length < end.awaited => {
                Err(end.cuts_off("GIF", "a block", end.awaited))
            }
            // Viewers do without the trailer.
            Stage::Screen | Stage::Block | Stage::Piece | Stage::Junk => Ok(false),
        }
    }

    fn details(&self, _length: u64) -> MediaDetails {
        picture(self.width.into(), self.height.into())
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.width.to_le_bytes());
        state.extend(self.height.to_le_bytes());
        let stage = STAGES.iter().position(|stage| *stage == self.stage);
        state.push(
            stage
                .and_then(|at| u8::try_from(at).ok())
                .unwrap_or(u8::MAX),
        );
        state.extend(self.end.to_le_bytes());
    }
}

impl Gif {
    pub(super) fn new() -> Self {
        Self {
            width: 0,
            height: 0,
            stage: Stage::Screen,
            end: 0,
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        Some(Self {
            width: kept.array().map(u16::from_le_bytes)?,
            height: kept.array().map(u16::from_le_bytes)?,
            stage: STAGES.get(usize::from(kept.byte()?)).copied()?,
            end: kept.long()?,
        })
    }
}

/// The length of a colour table, as the flags before it tell.
fn table_bytes(flags: u8) -> u64 {
    if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 7) + 1)
    }
}
