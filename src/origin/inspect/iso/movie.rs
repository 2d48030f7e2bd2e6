//! What the `moov` box tells of a film, taken as it goes by: nothing of it is kept but what is told.
//!
//! ```text
//! moov: mvhd                                  time scale and duration
//!       mvex: mehd                            duration of a film in fragments
//!       trak: mdia: hdlr                      picture or sound
//!                   minf: stbl: stsd: entry   codec, width, height; avcC, hvcC, av1C, vpcC, esds: its profile
//! ```
//!
//! A box that does not fit into the one around it makes all of it untold; it is never an error, since players are
//! more lenient than any rule.

use crate::model::asset::MediaDetails;
use crate::origin::inspect::codec;
use crate::origin::inspect::iso::HEADER_BYTES;
use crate::origin::inspect::iso::Header;
use crate::origin::inspect::iso::TO_THE_END;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::levels::Kind;
use crate::origin::inspect::levels::Levels;
use crate::origin::inspect::tracks::TrackKind;
use crate::origin::inspect::tracks::Tracks;
use crate::origin::inspect::walk::Next;
use crate::units::Span;

/// Sample entries under names of their own, since they are called by their codec.
const PICTURES: Kind = *b"vide";
const SOUND: Kind = *b"soun";

/// What precedes the boxes inside a sample entry, in bytes; sound as version 0 has it.
const PICTURES_BYTES: u64 = 78;
const SOUND_BYTES: u64 = 28;

/// Where width and height stand in a sample entry of pictures.
const SIZE_AT: usize = 24;

/// Where the version stands in a sample entry of sound.
const VERSION_AT: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Movie {
    levels: Levels,
    /// The box of which a field is awaited, and the byte after its last.
    awaited: Option<(Kind, u64)>,
    /// Ticks a second.
    scale: u32,
    ticks: u64,
    /// The same for a film in fragments, whose `mvhd` knows of none of them.
    ticks_of_fragments: u64,
    tracks: Tracks,
}

impl Movie {
    /// Whether the walk is inside `moov`.
    pub(super) fn is_open(&self) -> bool {
        self.levels.inner().is_some()
    }

    pub(super) fn is_awaiting_field(&self) -> bool {
        self.awaited.is_some()
    }

    /// Begins a `moov` box. Without a next field it is over, here and below.
    pub(super) fn begin(&mut self, content: u64, end: u64) -> Option<Next> {
        *self = Self::default();
        self.go_into(*b"moov", content, end)
    }

    /// Takes the header of a box inside.
    pub(super) fn enter(&mut self, at: u64, header: Header) -> Option<Next> {
        let outer = self.levels.inner()?;
        let content = at.saturating_add(header.length);
        let end = match header.size {
            TO_THE_END => outer.end,
            size => at.saturating_add(size),
        };
        if end < content || end > outer.end {
            *self = Self::default();
            return None;
        }
        match (&outer.kind, &header.kind) {
            (b"moov", b"trak") => {
                self.tracks.begin();
                self.go_into(header.kind, content, end)
            }
            (b"moov", b"mvex") | (b"trak", b"mdia") | (b"mdia", b"minf") | (b"minf", b"stbl") => {
                self.go_into(header.kind, content, end)
            }
            (b"moov", b"mvhd") => self.await_field(header.kind, content, end, 32),
            (b"mvex", b"mehd") | (b"mdia", b"hdlr") => {
                self.await_field(header.kind, content, end, 12)
            }
            (b"stbl", b"stsd") => self.await_field(header.kind, content, end, 8),
            (b"stsd", entry) if self.tracks.open.codec.is_none() => {
                self.tracks.open.codec = codec::named(*entry);
                match self.tracks.open.kind {
                    TrackKind::Video => self.await_field(PICTURES, content, end, SIZE_AT + 4),
                    TrackKind::Audio => self.await_field(SOUND, content, end, VERSION_AT + 2),
                    TrackKind::Other => self.go_to(end),
                }
            }
            (&PICTURES | &SOUND, configuration) => {
                let wanted = codec::bytes_wanted(*configuration);
                self.await_field(header.kind, content, end, wanted)
            }
            _ => self.go_to(end),
        }
    }

    /// Takes the field that was awaited.
    pub(super) fn take(&mut self, at: u64, field: &[u8]) -> Option<Next> {
        let (kind, end) = self.awaited.take()?;
        match &kind {
            b"mvhd" => {
                (self.scale, self.ticks) = movie_header(field).unwrap_or_default();
                self.go_to(end)
            }
            b"mehd" => {
                self.ticks_of_fragments = fragments_header(field).unwrap_or_default();
                self.go_to(end)
            }
            b"hdlr" => {
                self.tracks.open.kind = match field.get(8..12) {
                    Some(b"vide") => TrackKind::Video,
                    Some(b"soun") => TrackKind::Audio,
                    Some(_) | None => TrackKind::Other,
                };
                self.go_to(end)
            }
            b"stsd" => self.go_into(kind, at.saturating_add(8), end),
            &PICTURES => {
                let side = |at: usize| field.get(at..)?.first_chunk().copied();
                let side = |at| u32::from(u16::from_be_bytes(side(at).unwrap_or_default()));
                self.tracks.open.width = side(SIZE_AT);
                self.tracks.open.height = side(SIZE_AT + 2);
                self.go_into(kind, at.saturating_add(PICTURES_BYTES), end)
            }
            // QuickTime's other versions have their boxes elsewhere.
            &SOUND if field.get(VERSION_AT..) == Some(&[0, 0]) => {
                self.go_into(kind, at.saturating_add(SOUND_BYTES), end)
            }
            &SOUND => self.go_to(end),
            configuration => {
                let entry = self.tracks.open.codec;
                let spelled =
                    entry.and_then(|entry| codec::spell(entry.as_str(), *configuration, field));
                self.tracks.open.codec = spelled.or(entry);
                self.go_to(end)
            }
        }
    }

    pub(super) fn details(&self) -> MediaDetails {
        let ticks = match self.ticks {
            0 => self.ticks_of_fragments,
            ticks => ticks,
        };
        MediaDetails {
            duration: span(ticks, self.scale),
            ..self.tracks.details()
        }
    }

    pub(super) fn save(&self, state: &mut Vec<u8>) {
        self.levels.save(state);
        state.push(u8::from(self.awaited.is_some()));
        if let Some((kind, end)) = self.awaited {
            state.extend(kind);
            state.extend(end.to_le_bytes());
        }
        state.extend(self.scale.to_le_bytes());
        state.extend(self.ticks.to_le_bytes());
        state.extend(self.ticks_of_fragments.to_le_bytes());
        self.tracks.save(state);
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        let levels = Levels::load(kept)?;
        let awaited = if kept.flag()? {
            Some((kept.array()?, kept.long()?))
        } else {
            None
        };
        Some(Self {
            levels,
            awaited,
            scale: kept.word()?,
            ticks: kept.long()?,
            ticks_of_fragments: kept.long()?,
            tracks: Tracks::load(kept)?,
        })
    }

    fn go_into(&mut self, kind: Kind, content: u64, end: u64) -> Option<Next> {
        let target = if self.levels.enter(kind, end) {
            content
        } else {
            end
        };
        self.go_to(target)
    }

    fn await_field(&mut self, kind: Kind, at: u64, end: u64, wanted: usize) -> Option<Next> {
        let there = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        match wanted.min(there) {
            0 => self.go_to(end),
            take => {
                self.awaited = Some((kind, end));
                Some(Next::field(at, take))
            }
        }
    }

    /// Names the next header, outside of all boxes that have no room for one. Too few bytes for one are filling.
    fn go_to(&mut self, mut at: u64) -> Option<Next> {
        while let Some(level) = self.levels.leave(at, 8) {
            at = level.end;
            if level.kind == *b"trak" {
                self.tracks.end();
            }
        }
        self.is_open().then_some(Next::field(at, HEADER_BYTES))
    }
}

/// Time scale and duration. All ones are a duration that is not known.
fn movie_header(field: &[u8]) -> Option<(u32, u64)> {
    match field.first()? {
        0 => {
            let (scale, ticks) = (word(field, 12)?, word(field, 16)?);
            Some((scale, (ticks != u32::MAX).then_some(ticks.into())?))
        }
        1 => {
            let (scale, ticks) = (word(field, 20)?, long(field, 24)?);
            Some((scale, (ticks != u64::MAX).then_some(ticks)?))
        }
        _ => None,
    }
}

fn fragments_header(field: &[u8]) -> Option<u64> {
    match field.first()? {
        0 => word(field, 4).map(u64::from),
        1 => long(field, 4),
        _ => None,
    }
}

fn word(field: &[u8], at: usize) -> Option<u32> {
    field
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

fn long(field: &[u8], at: usize) -> Option<u64> {
    field
        .get(at..)?
        .first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

/// Ticks as a length of time, to the nearest millisecond; nothing that plays takes none.
fn span(ticks: u64, scale: u32) -> Option<Span> {
    let scale = u128::from(scale);
    let millis = (u128::from(ticks) * 1000 + scale / 2).checked_div(scale)?;
    let millis = u64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    Some(Span::from_millis(millis))
}
