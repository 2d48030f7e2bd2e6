//! ISO media (MP4, QuickTime, 3GP, AVIF, HEIC): the sizes of the top-level boxes, and what `moov` tells of the film.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::iso::movie::Movie;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::levels::Kind;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;

mod movie;

/// A box's size and kind; [`LONG_HEADER_BYTES`] where the size is a 64-bit one.
const HEADER_BYTES: usize = 8;
const LONG_HEADER_BYTES: usize = 16;

/// Where a box ends that reaches to the end of the file, as its header may say.
const TO_THE_END: u64 = u64::MAX;

/// What was seen, each a bit.
const FILE_TYPE: u8 = 1;
const MOVIE: u8 = 2;
/// A still image has its tables in a `meta` box where a film has a `moov`.
const META: u8 = 4;
const MEDIA: u8 = 8;
const FRAGMENT: u8 = 16;

/// The boxes at the top of real files that hold something. After all that a film needs, whatever is called otherwise is
/// filling or may as well be bytes that somebody appended, and no player minds where it ends.
const TOP_LEVEL: [&Kind; 17] = [
    b"ftyp", b"moov", b"meta", b"mdat", b"moof", b"mfra", b"uuid", b"udta", b"pnot", b"styp",
    b"sidx", b"ssix", b"prft", b"emsg", b"pdin", b"meco", b"imda",
];

/// A walk through the boxes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Iso {
    /// The top-level box that is open.
    kind: Kind,
    /// The byte after its last.
    end: u64,
    seen: u8,
    /// Where a box stands that has a size which none can have, and that size.
    damage: Option<(u64, u64)>,
    /// What follows the last box is none.
    has_junk: bool,
    movie: Movie,
}

/// The header of a box.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    /// As it says; [`TO_THE_END`] for a box that reaches there.
    size: u64,
    length: u64,
}

impl Header {
    /// Reads a header; `None` where it is one of the long ones and `field` is not.
    fn read(field: &[u8]) -> Option<Self> {
        let (size, rest) = field.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (size, length) = match u32::from_be_bytes(*size) {
            0 => (TO_THE_END, 8),
            1 => (u64::from_be_bytes(*rest.first_chunk::<8>()?), 16),
            size => (u64::from(size), 8),
        };
        Some(Self {
            kind: *kind,
            size,
            length,
        })
    }
}

impl Structure for Iso {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        if self.movie.is_awaiting_field() {
            let next = self.movie.take(at, field);
            return next.unwrap_or(Next::field(self.end, HEADER_BYTES));
        }
        let Some(header) = Header::read(field) else {
            return Next::field(at, LONG_HEADER_BYTES);
        };
        if self.movie.is_open() {
            let next = self.movie.enter(at, header);
            return next.unwrap_or(Next::field(self.end, HEADER_BYTES));
        }
        self.begin(at, header)
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        if self.has_junk {
            return Ok(false);
        }
        if let Some((at, size)) = self.damage {
            return Err(Broken::Size { at, size });
        }
        if self.end != TO_THE_END && end.length < self.end {
            let piece = format!("box {:?}", printable(self.kind));
            return if self.is_doubtful() {
                Ok(false)
            } else {
                Err(end.cuts_off("MP4", piece, self.end))
            };
        }
        if end.awaited == self.end && end.partial > 0 {
            return if self.has_all() {
                Ok(false)
            } else {
                let least = end.length.saturating_add(1);
                Err(end.cuts_off("MP4", "box \"?\"", least))
            };
        }
        let lacks = |piece| {
            let (file, unit) = ("MP4", "box");
            Err(Broken::Lacks { file, piece, unit })
        };
        match self.seen {
            // Its pictures may stand inside `meta`.
            seen if seen & (META | MOVIE | MEDIA) == META => Ok(false),
            seen if seen & (META | MOVIE) == 0 => lacks("moov"),
            seen if seen & MEDIA == 0 => lacks("mdat"),
            // Wherever such a file is cut, it ends in this box.
            _ if self.end == TO_THE_END => Ok(false),
            // A file of fragments may have ended after any of them: only its index says that there are no more.
            seen if seen & FRAGMENT != 0 => Ok(self.kind == *b"mfra"),
            _ => Ok(true),
        }
    }

    fn details(&self, _length: u64) -> MediaDetails {
        self.movie.details()
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.kind);
        state.extend(self.end.to_le_bytes());
        state.extend([self.seen, u8::from(self.has_junk)]);
        let (at, size) = self.damage.unwrap_or((u64::MAX, u64::MAX));
        state.extend(at.to_le_bytes());
        state.extend(size.to_le_bytes());
        self.movie.save(state);
    }
}

impl Iso {
    pub(super) fn new() -> Self {
        Self {
            kind: [0; 4],
            end: 0,
            seen: 0,
            damage: None,
            has_junk: false,
            movie: Movie::default(),
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        let (kind, end) = (kept.array()?, kept.long()?);
        let (seen, has_junk) = (kept.byte()?, kept.flag()?);
        let damage = (kept.long()?, kept.long()?);
        Some(Self {
            kind,
            end,
            seen,
            damage: (damage.0 != u64::MAX).then_some(damage),
            has_junk,
            movie: Movie::load(kept)?,
        })
    }

    /// Begins a top-level box.
    fn begin(&mut self, at: u64, header: Header) -> Next {
        let is_short = header.size < header.length;
        let is_endless_other = header.size == TO_THE_END && !TOP_LEVEL.contains(&&header.kind);
        if self.has_all() && (is_short || is_endless_other) {
            // Such as the zeros that fill a file up to a whole number of blocks.
            self.has_junk = true;
            return Next::STOP;
        }
        if is_short {
            self.damage = Some((at, header.size));
            return Next::STOP;
        }
        self.kind = header.kind;
        self.end = at.saturating_add(header.size);
        self.seen |= match &header.kind {
            b"ftyp" => FILE_TYPE,
            b"moov" => MOVIE,
            b"meta" => META,
            b"mdat" | b"imda" => MEDIA,
            b"moof" => FRAGMENT,
            _ => 0,
        };
        if header.kind == *b"moov" {
            let next = self.movie.begin(at.saturating_add(header.length), self.end);
            return next.unwrap_or(Next::field(self.end, HEADER_BYTES));
        }
        Next::field(self.end, HEADER_BYTES)
    }

    /// Whether every box was begun without which nothing plays.
    fn has_all(&self) -> bool {
        let has_tables = self.seen & (MOVIE | META) != 0;
        has_tables && self.seen & (FILE_TYPE | MEDIA) == FILE_TYPE | MEDIA
    }

    /// Whether what looks like a box is filling, or may be something else.
    fn is_doubtful(&self) -> bool {
        self.has_all() && !TOP_LEVEL.contains(&&self.kind)
    }
}

fn printable(kind: Kind) -> String {
    let shown = |byte: u8| {
        if byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            '.'
        }
    };
    kind.map(shown).iter().collect()
}
