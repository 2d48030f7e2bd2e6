//! The tracks of a film: which of them speaks for the whole, and what it says.

use crate::model::asset::Codec;
use crate::model::asset::MediaDetails;
use crate::origin::inspect::kept::Kept;

/// What a track holds, the more telling the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TrackKind {
    /// Subtitles, chapters, or not told yet.
    #[default]
    Other,
    Audio,
    Video,
}

/// One track as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) kind: TrackKind,
    /// 0 where not told, which no picture has.
    pub(super) width: u32,
    /// As the width.
    pub(super) height: u32,
    pub(super) codec: Option<Codec>,
}

/// The track that the walk is in, and the most telling of those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tracks {
    pub(super) open: Track,
    best: Track,
}

impl Tracks {
    /// Begins a track.
    pub(super) fn begin(&mut self) {
        self.open = Track::default();
    }

    /// Ends the open track. The first video track is the film's; without one it is the first with sound.
    pub(super) fn end(&mut self) {
        if self.open.kind > self.best.kind {
            self.best = self.open;
        }
        self.begin();
    }

    /// Size and codec.
    pub(super) fn details(&self) -> MediaDetails {
        MediaDetails {
            codec: self.best.codec,
            ..picture(self.best.width, self.best.height)
        }
    }

    pub(super) fn save(&self, state: &mut Vec<u8>) {
        for track in [&self.open, &self.best] {
            state.push(match track.kind {
                TrackKind::Other => 0,
                TrackKind::Audio => 1,
                TrackKind::Video => 2,
            });
            state.extend(track.width.to_le_bytes());
            state.extend(track.height.to_le_bytes());
            let codec = track.codec.as_ref().map_or("", Codec::as_str);
            state.push(u8::try_from(codec.len()).unwrap_or(u8::MAX));
            state.extend(codec.as_bytes());
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        let mut track = || {
            let kind = match kept.byte()? {
                0 => TrackKind::Other,
                1 => TrackKind::Audio,
                2 => TrackKind::Video,
                _ => return None,
            };
            let (width, height) = (kept.word()?, kept.word()?);
            let length = usize::from(kept.byte()?);
            let codec = std::str::from_utf8(kept.bytes(length)?).ok()?;
            Some(Track {
                kind,
                width,
                height,
                codec: match codec {
                    "" => None,
                    codec => Some(codec.parse().ok()?),
                },
            })
        };
        Some(Self {
            open: track()?,
            best: track()?,
        })
    }
}

/// The details of a picture; a side of 0 is none.
pub(super) fn picture(width: u32, height: u32) -> MediaDetails {
    let side = |side: u32| (side > 0).then_some(side);
    MediaDetails {
        width: side(width),
        height: side(height),
        ..MediaDetails::default()
    }
}
