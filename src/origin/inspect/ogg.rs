//! Ogg: pages, each with the lengths of its pieces; whole if the last one says that it is the last of its stream.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;

/// A page's head, up to the number of its pieces.
const HEAD_BYTES: usize = 27;

/// The flag of a stream's last page.
const END_OF_STREAM: u8 = 4;

/// How many of a page's lengths are looked at in one step.
const LENGTHS_MAX: u8 = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ogg {
    is_last: bool,
    /// What of the page's lengths is still to be read.
    lengths_left: u8,
    /// The lengths so far, together.
    body: u32,
    /// The byte after the last page that was read; 0 while none was.
    end: u64,
}

impl Structure for Ogg {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        if self.lengths_left > 0 {
            self.body += field.iter().copied().map(u32::from).sum::<u32>();
            let read = u8::try_from(field.len()).unwrap_or(u8::MAX);
            self.lengths_left = self.lengths_left.saturating_sub(read);
            return self.go_on(at.saturating_add(u64::from(read)));
        }
        match field {
            [b'O', b'g', b'g', b'S', 0, flags, .., lengths] if field.len() == HEAD_BYTES => {
                self.is_last = flags & END_OF_STREAM != 0;
                self.lengths_left = *lengths;
                self.body = 0;
                self.go_on(at.saturating_add(27))
            }
            [b'O', b'g', b'g', b'S', ..] if at == 0 && field.len() < HEAD_BYTES => {
                Next::field(0, HEAD_BYTES)
            }
            _ => {
                self.is_last = false;
                Next::STOP
            }
        }
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        // Players find the next page wherever it is, so that there is no telling that a page must not be short.
        Ok(self.is_last && end.length == self.end)
    }

    fn details(&self, _length: u64) -> MediaDetails {
        MediaDetails::default()
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend([u8::from(self.is_last), self.lengths_left]);
        state.extend(self.body.to_le_bytes());
        state.extend(self.end.to_le_bytes());
    }
}

impl Ogg {
    pub(super) fn new() -> Self {
        Self {
            is_last: false,
            lengths_left: 0,
            body: 0,
            end: 0,
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        let ogg = Self {
            is_last: kept.flag()?,
            lengths_left: kept.byte()?,
            body: kept.word()?,
            end: kept.long()?,
        };
        // At most 255 lengths of at most 255.
        (ogg.body <= 255 * 255).then_some(ogg)
    }

    fn go_on(&mut self, at: u64) -> Next {
        if self.lengths_left > 0 {
            let take = self.lengths_left.min(LENGTHS_MAX);
            return Next::field(at, take.into());
        }
        self.end = at.saturating_add(self.body.into());
        Next::field(self.end, HEAD_BYTES)
    }
}
