//! Matroska and WebM: the size of the segment, and what stands before its first cluster: time, picture, codec.

use std::time::Duration;

use crate::model::asset::Codec;
use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;
use crate::origin::inspect::levels::Kind;
use crate::origin::inspect::levels::Levels;
use crate::origin::inspect::tracks::TrackKind;
use crate::origin::inspect::tracks::Tracks;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::End;
use crate::origin::inspect::walk::Next;
use crate::origin::inspect::walk::Structure;
use crate::units::Span;

/// The longest head of an element: four bytes of ID, eight of length.
const HEAD_BYTES: usize = 12;

/// The longest field: a codec's name.
const FIELD_BYTES: usize = 32;

/// The end of an element that does not tell its length.
const UNTOLD: u64 = u64::MAX;

// IDs, short ones with zeros before them.
const SEGMENT: Kind = [0x18, 0x53, 0x80, 0x67];
const CLUSTER: Kind = [0x1f, 0x43, 0xb6, 0x75];
const INFO: Kind = [0x15, 0x49, 0xa9, 0x66];
const TIME_SCALE: Kind = [0, 0x2a, 0xd7, 0xb1];
const DURATION: Kind = [0, 0, 0x44, 0x89];
const TRACKS: Kind = [0x16, 0x54, 0xae, 0x6b];
const TRACK: Kind = [0, 0, 0, 0xae];
const TRACK_KIND: Kind = [0, 0, 0, 0x83];
const CODEC: Kind = [0, 0, 0, 0x86];
const VIDEO: Kind = [0, 0, 0, 0xe0];
const WIDTH: Kind = [0, 0, 0, 0xb0];
const HEIGHT: Kind = [0, 0, 0, 0xba];

/// Nanoseconds a tick, where the file does not say.
const TIME_SCALE_USUAL: u32 = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matroska {
    /// The byte after the segment, once it is told.
    end: Option<u64>,
    levels: Levels,
    /// The element of which a field is awaited, and the byte after its last.
    awaited: Option<(Kind, u64)>,
    /// Nanoseconds a tick.
    scale: u32,
    /// The bits of a floating point number.
    ticks: u64,
    tracks: Tracks,
}

/// The head of an element.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: Kind,
    /// `None` where it does not tell.
    size: Option<u64>,
    length: u64,
}

impl Structure for Matroska {
    fn step(&mut self, at: u64, field: &[u8]) -> Next {
        if let Some((kind, end)) = self.awaited.take() {
            self.learn(kind, field);
            return self.go_to(end);
        }
        if field.len() < HEAD_BYTES {
            return Next::field(at, HEAD_BYTES);
        }
        let Some(head) = Head::read(field) else {
            return Next::STOP;
        };
        let content = at.saturating_add(head.length);
        let end = head
            .size
            .map_or(UNTOLD, |size| content.saturating_add(size));
        let outer = self.levels.inner();
        if outer.is_some_and(|outer| end > outer.end) || (end == UNTOLD && head.kind != SEGMENT) {
            return Next::STOP;
        }
        match (outer.map(|outer| outer.kind), head.kind) {
            (None, SEGMENT) => {
                self.end = head.size.and(Some(end));
                self.go_into(SEGMENT, content, end)
            }
            // All that is told of the film stands before its pictures, or behind them, too far to be worth it.
            (_, CLUSTER) => Next::STOP,
            (Some(TRACKS), TRACK) => {
                self.tracks.begin();
                self.go_into(TRACK, content, end)
            }
            (Some(SEGMENT), INFO | TRACKS) | (Some(TRACK), VIDEO) => {
                self.go_into(head.kind, content, end)
            }
            (Some(INFO), TIME_SCALE | DURATION)
            | (Some(TRACK), TRACK_KIND | CODEC)
            | (Some(VIDEO), WIDTH | HEIGHT)
                if (1..=32).contains(&(end - content)) =>
            {
                self.awaited = Some((head.kind, end));
                let take = usize::try_from(end - content).unwrap_or(FIELD_BYTES);
                Next::field(content, take)
            }
            _ => self.go_to(end),
        }
    }

    fn finish(&self, end: &End) -> Result<bool, Broken> {
        match self.end {
            Some(segment) if end.length < segment => {
                Err(end.cuts_off("Matroska file", "its segment", segment))
            }
            // There may be more segments.
            Some(segment) => Ok(end.length == segment),
            None => Ok(false),
        }
    }

    fn details(&self, _length: u64) -> MediaDetails {
        let nanos = f64::from_bits(self.ticks) * f64::from(self.scale);
        let duration = Duration::try_from_secs_f64(nanos / 1e9).ok();
        let millis = duration.map(|it| it.saturating_add(Duration::from_micros(500)).as_millis());
        let millis = millis.and_then(|millis| u64::try_from(millis).ok());
        MediaDetails {
            duration: millis.filter(|millis| *millis > 0).map(Span::from_millis),
            ..self.tracks.details()
        }
    }

    fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.end.unwrap_or(UNTOLD).to_le_bytes());
        self.levels.save(state);
        let (kind, end) = self.awaited.unwrap_or(([0; 4], UNTOLD));
        state.extend(kind);
        state.extend(end.to_le_bytes());
        state.extend(self.scale.to_le_bytes());
        state.extend(self.ticks.to_le_bytes());
        self.tracks.save(state);
    }
}

impl Matroska {
    pub(super) fn new() -> Self {
        Self {
            end: None,
            levels: Levels::default(),
            awaited: None,
            scale: TIME_SCALE_USUAL,
            ticks: 0,
            tracks: Tracks::default(),
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        Some(Self {
            end: Some(kept.long()?).filter(|end| *end != UNTOLD),
            levels: Levels::load(kept)?,
            awaited: Some((kept.array()?, kept.long()?)).filter(|(_, end)| *end != UNTOLD),
            scale: kept.word()?,
            ticks: kept.long()?,
            tracks: Tracks::load(kept)?,
        })
    }

    fn learn(&mut self, kind: Kind, field: &[u8]) {
        let number = || {
            let bytes = field.iter().skip_while(|byte| **byte == 0);
            let number = bytes.fold(0_u64, |number, byte| {
                number.saturating_mul(256).saturating_add(u64::from(*byte))
            });
            u32::try_from(number).ok()
        };
        let open = &mut self.tracks.open;
        match kind {
            TIME_SCALE => self.scale = number().unwrap_or(0),
            DURATION => self.ticks = float(field).unwrap_or(0.0).to_bits(),
            TRACK_KIND => {
                open.kind = match number() {
                    Some(1) => TrackKind::Video,
                    Some(2) => TrackKind::Audio,
                    Some(_) | None => TrackKind::Other,
                }
            }
            CODEC => open.codec = codec(field),
            WIDTH => open.width = number().unwrap_or(0),
            HEIGHT => open.height = number().unwrap_or(0),
            _ => {}
        }
    }

    fn go_into(&mut self, kind: Kind, content: u64, end: u64) -> Next {
        let target = if self.levels.enter(kind, end) {
            content
        } else {
            end
        };
        self.go_to(target)
    }

    fn go_to(&mut self, at: u64) -> Next {
        while let Some(level) = self.levels.leave(at, 1) {
            if level.kind == TRACK {
                self.tracks.end();
            }
        }
        Next::field(at, HEAD_BYTES)
    }
}

impl Head {
    fn read(field: &[u8]) -> Option<Self> {
        let id = usize::try_from(field.first()?.leading_zeros()).ok()? + 1;
        let (id, rest) = field.split_at_checked(id).filter(|_| id <= 4)?;
        let mut kind = [0; 4];
        for (place, byte) in kind.iter_mut().rev().zip(id.iter().rev()) {
            *place = *byte;
        }
        let first = *rest.first().filter(|first| **first > 0)?;
        let more = first.leading_zeros();
        let rest = rest.get(1..=usize::try_from(more).ok()?)?;
        let values = 0xff_u8.checked_shr(more + 1).unwrap_or(0);
        let size = rest.iter().fold(u64::from(first & values), |size, byte| {
            size << 8 | u64::from(*byte)
        });
        // All ones mean that the length is not told.
        let untold = (1_u64 << (7 * (more + 1))) - 1;
        let length = id.len() + 1 + rest.len();
        Some(Self {
            kind,
            size: (size != untold).then_some(size),
            length: u64::try_from(length).ok()?,
        })
    }
}

fn float(field: &[u8]) -> Option<f64> {
    match field.len() {
        4 => field
            .first_chunk()
            .map(|bytes| f32::from_be_bytes(*bytes).into()),
        8 => field.first_chunk().map(|bytes| f64::from_be_bytes(*bytes)),
        _ => None,
    }
}

/// The short name of a codec, as players want it.
fn codec(field: &[u8]) -> Option<Codec> {
    let name = std::str::from_utf8(field).ok()?.trim_end_matches('\0');
    let known = match name {
        "V_VP8" => "vp8",
        "V_VP9" => "vp9",
        "V_AV1" => "av01",
        "V_MPEG4/ISO/AVC" => "avc1",
        "V_MPEGH/ISO/HEVC" => "hvc1",
        "A_OPUS" => "opus",
        "A_VORBIS" => "vorbis",
        "A_AAC" => "mp4a",
        _ => return None,
    };
    known.parse().ok()
}
