//! JPEG: segments up to the frame, which has the size; whole if the last two bytes are the end of an image.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::tracks::picture;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;

/// Marker and length of a segment.
const SEGMENT_BYTES: usize = 4;

/// The same, then the precision and both sides.
const FRAME_BYTES: usize = 9;

/// The end of an image. Inside compressed data this pair cannot stand: there `ff` is followed by `00`.
const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Jpeg {
    width: u16,
    height: u16,
}

impl Structure for Jpeg {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        if at == 0 {
            return Next::field(2, SEGMENT_BYTES);
        }
        match field {
            // Any number of these may fill the gap before a marker.
            [0xff, 0xff, ..] => Next::field(at.saturating_add(1), SEGMENT_BYTES),
            // Markers without a length.
            [0xff, 0x01 | 0xd0..=0xd7, ..] => Next::field(at.saturating_add(2), SEGMENT_BYTES),
            // The image itself, or its end.
            [0xff, 0xd8..=0xda, ..] => Next::STOP,
            [
                0xff,
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf,
                _,
                _,
                rest @ ..,
            ] => {
                let [_precision, h0, h1, w0, w1, ..] = rest else {
                    return Next::field(at, FRAME_BYTES);
                };
                self.height = u16::from_be_bytes([*h0, *h1]);
                self.width = u16::from_be_bytes([*w0, *w1]);
                Next::STOP
            }
            [0xff, _, high, low, ..] => {
                let length = u64::from(u16::from_be_bytes([*high, *low])).max(2);
                Next::field(at.saturating_add(2 + length), SEGMENT_BYTES)
            }
            _ => Next::STOP,
        }
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        // Without it there may be anything behind the image, such as a film or filling.
        Ok(end.last == END_OF_IMAGE)
    }

    fn details(&self, _length: u64) -> MediaDetails {
        picture(self.width.into(), self.height.into())
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.width.to_le_bytes());
        state.extend(self.height.to_le_bytes());
    }
}

impl Jpeg {
    pub(super) fn new() -> Self {
        Self {
            width: 0,
            height: 0,
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        Some(Self {
            width: kept.array().map(u16::from_le_bytes)?,
            height: kept.array().map(u16::from_le_bytes)?,
        })
    }
}
