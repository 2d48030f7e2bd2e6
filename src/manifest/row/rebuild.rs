//! What a manifest is rebuilt from: objects that stand at a destination, as they tell it themselves.

use url::Url;

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetRole;
use crate::model::asset::MediaType;
use crate::model::digest::Crc64;
use crate::model::digest::Sha256Digest;
use crate::model::key::KeyTemplate;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ETag;
use crate::model::object::Verified;
use crate::model::task::TaskKey;

/// An object of ours that was found at a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundObject {
    /// Its task.
    pub task: TaskKey,
    /// The asset among the task's results.
    pub index: AssetIndex,
    /// What kind of file the asset is.
    pub role: AssetRole,
    /// Where it stands, which is all that is known of where it came from.
    pub url: Url,
    /// The destination.
    pub destination: DestinationName,
    /// The template that new keys are made by there.
    pub key_template: KeyTemplate,
    /// Its key, prefix included.
    pub key: ObjectKey,
    /// The nonce that it was written with.
    pub nonce: String,
    /// Its kind.
    pub media: MediaType,
    /// Its length in bytes.
    pub size: u64,
    /// The checksum of its bytes.
    pub crc64nvme: Crc64,
    /// The digest of its bytes, where they were read.
    pub sha256: Option<Sha256Digest>,
    /// The store's tag.
    pub etag: Option<ETag>,
    /// The store's version, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// What it was made of; 0 if it was written at once.
    pub parts: u32,
    /// How it is known to be there.
    pub verified: Verified,
    /// When it was written.
    pub archived_at: Timestamp,
}

/// What became of a found object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// It is written down now.
    New,
    /// It was written down already.
    Known,
    /// Its task or its asset is not through yet: the daemon archives it.
    Open,
    /// The manifest has another object of the same asset at this destination.
    Second,
}
