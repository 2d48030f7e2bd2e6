//! Walks a body's structure as its bytes go by: frames of any length in order, a few dozen bytes of state, no copy.
//!
//! Each kind of file is a structure: it names the next few bytes that it wants to see, is given them, and names the
//! next. All that lies between is stepped over, so that a film costs a handful of steps however long it is.
//!
//! ```text
//! frames -> Walk: counts, collects one field -> Structure::step(at, field) -> the next field
//!                                            -> finish: Ok(true) whole, Ok(false) nothing to judge by, Broken
//! ```
//!
//! Whoever refuses a good file does more harm than whoever fails to notice a bad one, which has its length to show as
//! well: a structure says [`Broken`] only where no reader could disagree, and `Ok(true)` only where it has seen the end.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::gif::Gif;
use crate::origin::inspect::iso::Iso;
use crate::origin::inspect::jpeg::Jpeg;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::matroska::Matroska;
use crate::origin::inspect::ogg::Ogg;
use crate::origin::inspect::png::Png;
use crate::origin::inspect::riff::Riff;

/// Why a body cannot be whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A piece that reaches past the end of the body.
    #[error("the {file} is cut off: {piece} reaches to byte {end}, the body ends at {length}")]
    CutOff {
        /// The kind of file.
        file: &'static str,
        /// The piece.
        piece: String,
        /// The byte after its last.
        end: u64,
        /// The length of the body.
        length: u64,
    },
    /// A size that no box can have.
    #[error("the MP4 is damaged: the box at byte {at} has size {size}")]
    Size {
        /// Where the box begins.
        at: u64,
        /// Its size as it stands there.
        size: u64,
    },
    /// A piece without which nothing can be shown.
    #[error("the {file} has no {piece:?} {unit}")]
    Lacks {
        /// The kind of file.
        file: &'static str,
        /// The piece.
        piece: &'static str,
        /// What its pieces are called.
        unit: &'static str,
    },
}

impl End {
    /// What it means of a file whose `piece` reaches to byte `to`.
    pub(super) fn cuts_off(&self, file: &'static str, piece: impl Into<String>, to: u64) -> Broken {
        Broken::CutOff {
            file,
            piece: piece.into(),
            end: to,
            length: self.length,
        }
    }
}

/// The field that a structure wants to see: `take` bytes from byte `at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) at: u64,
    pub(super) take: usize,
}

impl Next {
    /// Nothing more: the rest of the body is only counted.
    pub(super) const STOP: Next = Next {
        at: u64::MAX,
        take: 0,
    };

    pub(super) const fn field(at: u64, take: usize) -> Self {
        Self { at, take }
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Its length.
    pub(super) length: u64,
    /// Its last two bytes.
    pub(super) last: [u8; 2],
    /// Where the field begins that nobody will see any more.
    pub(super) awaited: u64,
    /// How much of that field was there.
    pub(super) partial: usize,
}

/// What one kind of file is made of.
pub(super) trait Structure {
    /// Takes a field and names the next. It may begin inside this one or anywhere after it, never before.
    fn step(&mut self, at: u64, field: &[u8]) -> Next;

    /// Judges the whole body.
    fn finish(&self, end: &End) -> Result<bool, Broken>;

    /// What is known of the media, in a body of this length.
    fn details(&self, length: u64) -> MediaDetails;

    /// Appends the state, from which a constructor of the same type can make it again.
    fn save(&self, state: &mut Vec<u8>);
}

/// The longest field that any structure asks for, which bounds the saved state.
const FIELD_BYTES_MAX: usize = 64;

/// How many fields of one body are looked at; after them nothing is said of it. A film has a hundred, a GIF of 256 MiB
/// this many. Without a bound a body made of nothing but empty blocks would cost a second a hundred megabytes.
const STEPS_MAX: u32 = 1 << 20;

/// What every kind can be told by.
const FIRST_FIELD: Next = Next::field(0, 8);

/// A walk through one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    position: u64,
    last: [u8; 2],
    next: Next,
    /// As much of the next field as is here.
    field: Vec<u8>,
    steps: u32,
    format: Format,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    /// Not told yet.
    Untold,
    /// A kind whose end cannot be told by walking, such as MP3 and FLAC.
    Other,
    Iso(Iso),
    Png(Png),
    Riff(Riff),
    Gif(Gif),
    Jpeg(Jpeg),
    Matroska(Matroska),
    Ogg(Ogg),
}

impl Walk {
    /// A walk that has seen nothing.
    pub fn new() -> Self {
        Self {
            position: 0,
            last: [0; 2],
            next: FIRST_FIELD,
            field: Vec::new(),
            steps: 0,
            format: Format::Untold,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.keep_last(bytes);
        while !bytes.is_empty() && self.next != Next::STOP {
            let wanted = self.next.at.saturating_add(length_of(&self.field));
            let skipped = usize::try_from(wanted.saturating_sub(self.position))
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let (_, rest) = bytes.split_at(skipped);
            let lacking = self.next.take.saturating_sub(self.field.len());
            let (taken, later) = rest.split_at(lacking.min(rest.len()));
            self.field.extend(taken);
            self.pass(skipped + taken.len());
            bytes = later;
            self.step();
        }
        self.pass(bytes.len());
    }

    /// Judges the whole body: `Ok(true)` when its structure proves it whole, `Ok(false)` when there is nothing to
    /// judge by.
    pub fn finish(&self) -> Result<bool, Broken> {
        let end = End {
            length: self.position,
            last: self.last,
            awaited: self.next.at,
            partial: self.field.len(),
        };
        self.format
            .structure()
            .map_or(Ok(false), |structure| structure.finish(&end))
    }

    /// What the body told of itself so far.
    pub fn details(&self) -> MediaDetails {
        self.format
            .structure()
            .map(|structure| structure.details(self.position))
            .unwrap_or_default()
    }

    /// The state after all bytes so far, to be kept beside a part.
    pub fn save(&self) -> Vec<u8> {
        let short = |length| u8::try_from(length).expect("a field is short");
        let mut state = vec![
            self.format.number(),
            short(self.next.take),
            short(self.field.len()),
        ];
        state.extend(&self.field);
        state.extend(self.last);
        state.extend(self.position.to_le_bytes());
        state.extend(self.next.at.to_le_bytes());
        state.extend(self.steps.to_le_bytes());
        if let Some(structure) = self.format.structure() {
            structure.save(&mut state);
        }
        state
    }

    /// Takes up where [`Walk::save`] left off. `None` when `state` is not such a state.
    pub fn load(state: &[u8]) -> Option<Self> {
        let mut kept = Kept::new(state);
        let (number, take, field) = (kept.byte()?, kept.byte()?, kept.byte()?);
        let (take, field) = (usize::from(take), usize::from(field));
        if take > FIELD_BYTES_MAX || field > take {
            return None;
        }
        let walk = Self {
            field: kept.bytes(field)?.to_vec(),
            last: kept.array()?,
            position: kept.long()?,
            next: Next::field(kept.long()?, take),
            steps: kept.word()?,
            format: Format::load(number, &mut kept)?,
        };
        kept.is_empty().then_some(walk)
    }

    fn step(&mut self) {
        while self.next != Next::STOP
            && let Some(field) = self.field.get(..self.next.take)
        {
            self.steps = self.steps.saturating_add(1);
            if self.steps > STEPS_MAX {
                self.format = Format::Other;
                self.stop();
                return;
            }
            let next = match self.format.structure_mut() {
                Some(structure) => structure.step(self.next.at, field),
                None => self.tell_format(),
            };
            let forward = next.at.checked_sub(self.next.at);
            let is_progress = forward > Some(0) || next.take > self.next.take;
            let forward = forward.filter(|_| is_progress && next.take <= FIELD_BYTES_MAX);
            let Some(forward) = forward else {
                // As well as a stop: whatever a structure wants, no body can keep a walk on the spot.
                self.stop();
                return;
            };
            let dropped = usize::try_from(forward).unwrap_or(usize::MAX);
            self.field.drain(..dropped.min(self.field.len()));
            self.next = next;
        }
        if self.next == Next::STOP {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.field.clear();
        self.next = Next::STOP;
    }

    /// Tells the format by the first field, which its structure is then given.
    fn tell_format(&mut self) -> Next {
        self.format = match self.field.as_slice() {
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Format::Iso(Iso::new()),
            b"\x89PNG\r\n\x1a\n" => Format::Png(Png::new()),
            [b'R', b'I', b'F', b'F', ..] => Format::Riff(Riff::new()),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Format::Gif(Gif::new()),
            [0xff, 0xd8, 0xff, ..] => Format::Jpeg(Jpeg::new()),
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Format::Matroska(Matroska::new()),
            [b'O', b'g', b'g', b'S', ..] => Format::Ogg(Ogg::new()),
            _ => Format::Other,
        };
        let field = &self.field;
        self.format
            .structure_mut()
            .map_or(Next::STOP, |structure| structure.step(0, field))
    }

    fn pass(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.position = self.position.saturating_add(bytes);
    }

    fn keep_last(&mut self, bytes: &[u8]) {
        match bytes {
            [] => {}
            [only] => self.last = [self.last[1], *only],
            [.., before, last] => self.last = [*before, *last],
        }
    }
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

impl Format {
    fn structure(&self) -> Option<&dyn Structure> {
        match self {
            Format::Untold | Format::Other => None,
            Format::Iso(iso) => Some(iso),
            Format::Png(png) => Some(png),
            Format::Riff(riff) => Some(riff),
            Format::Gif(gif) => Some(gif),
            Format::Jpeg(jpeg) => Some(jpeg),
            Format::Matroska(matroska) => Some(matroska),
            Format::Ogg(ogg) => Some(ogg),
        }
    }

    fn structure_mut(&mut self) -> Option<&mut dyn Structure> {
        match self {
            Format::Untold | Format::Other => None,
            Format::Iso(iso) => Some(iso),
            Format::Png(png) => Some(png),
            Format::Riff(riff) => Some(riff),
            Format::Gif(gif) => Some(gif),
            Format::Jpeg(jpeg) => Some(jpeg),
            Format::Matroska(matroska) => Some(matroska),
            Format::Ogg(ogg) => Some(ogg),
        }
    }

    /// The first byte of a saved state.
    fn number(&self) -> u8 {
        match self {
            Format::Untold => 0,
            Format::Other => 1,
            Format::Iso(_) => 2,
            Format::Png(_) => 3,
            Format::Riff(_) => 4,
            Format::Gif(_) => 5,
            Format::Jpeg(_) => 6,
            Format::Matroska(_) => 7,
            Format::Ogg(_) => 8,
        }
    }

    fn load(number: u8, kept: &mut Kept<'_>) -> Option<Self> {
        Some(match number {
            0 => Format::Untold,
            1 => Format::Other,
            2 => Format::Iso(Iso::load(kept)?),
            3 => Format::Png(Png::load(kept)?),
            4 => Format::Riff(Riff::load(kept)?),
            5 => Format::Gif(Gif::load(kept)?),
            6 => Format::Jpeg(Jpeg::load(kept)?),
            7 => Format::Matroska(Matroska::load(kept)?),
            8 => Format::Ogg(Ogg::load(kept)?),
            _ => return None,
        })
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
