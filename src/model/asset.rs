//! Assets: the files that a completed task produced.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde::Serializer;

use crate::model::WordError;
use crate::model::state_enum;
use crate::units::Span;

/// The place of an asset among its task's results, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AssetIndex(pub u32);

impl fmt::Display for AssetIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

state_enum!(
    /// Where an asset stands. All but `Due` are final.
    AssetState,
    "an asset state",
    {
        /// To be archived; its row says when the next try is.
        Due = "due",
        /// A verified object stands at every destination of its route.
        Archived = "archived",
        /// Its link died before it was archived.
        Lost = "lost",
        /// What the link gives cannot be archived: too large, not media, or the key is taken by something else.
        Refused = "refused",
    }
);

impl AssetState {
    /// Whether nothing more will be tried by itself.
    pub fn is_final(self) -> bool {
        match self {
            AssetState::Due => false,
            AssetState::Archived | AssetState::Lost | AssetState::Refused => true,
        }
    }
}

state_enum!(
    /// What kind of file the provider says an asset is.
    AssetRole,
    "an asset role",
    {
        /// A video.
        Video = "video",
        /// An image, such as a last frame.
        Image = "image",
        /// Sound.
        Audio = "audio",
        /// The provider did not say.
        File = "file",
    }
);

/// The kind of a body, told by its own first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// As in a `Content-Type` header: `video/mp4`.
    pub content_type: String,
    /// As in a file name, without the dot: `mp4`. Letters and digits only.
    pub extension: String,
}

/// What a player would show of a body, as far as the body itself tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaDetails {
    /// How long it plays.
    pub duration: Option<Span>,
    /// The pixels in a row of the picture.
    pub width: Option<u32>,
    /// The rows of the picture.
    pub height: Option<u32>,
    /// How the first video track is encoded, or the first audio track where there is no picture.
    pub codec: Option<Codec>,
}

impl MediaDetails {
    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The longest codec that is kept. The longest in real files, HEVC with all of its constraints, is a few shorter.
const CODEC_BYTES_MAX: usize = 48;

/// A codec as RFC 6381 spells it: `avc1.64001F`, or `avc1` where the profile is not told.
///
/// Kept in place, so that the details of a body can be handed on like its digests.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Codec {
    /// Zeros after the text.
    bytes: [u8; CODEC_BYTES_MAX],
}

impl Codec {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        let text = self.bytes.split(|byte| *byte == 0).next();
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }
}

impl FromStr for Codec {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let mut bytes = [0; CODEC_BYTES_MAX];
        match bytes.get_mut(..text.len()) {
            Some(place) if !text.is_empty() && text.chars().all(is_allowed) => {
                place.copy_from_slice(text.as_bytes());
                Ok(Self { bytes })
            }
            Some(_) | None => Err(WordError::new(text, "a codec such as \"avc1.64001F\"")),
        }
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Codec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What the origin said of a body, by which a later request knows the same body again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceIdentity {
    /// The `ETag` header as sent.
    pub etag: Option<String>,
    /// The `Last-Modified` header as sent.
    pub last_modified: Option<String>,
    /// The length of the whole body in bytes, where told.
    pub length: Option<u64>,
}

impl SourceIdentity {
    /// What pins a range to this version of the file: a strong `ETag`, else the date.
    pub fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        strong.or(self.last_modified.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_short_and_plain() {
        let longest = "a".repeat(CODEC_BYTES_MAX);
        for good in ["avc1.64001F", "mp4a.40.2", "vp9", &longest] {
            assert_eq!(good.parse::<Codec>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "av 1",
            "a\0b",
            "\u{e4}v01",
            "a,b",
            &format!("{longest}a"),
        ] {
            assert!(bad.parse::<Codec>().is_err(), "{bad:?}");
        }
    }
}
