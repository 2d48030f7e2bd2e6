//! Assets: the files that a completed task produced.

use std::fmt;

use serde::Serialize;

use crate::model::state_enum;

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
