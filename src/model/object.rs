//! Objects: one archived copy of an asset at one destination, and the parts it is made of.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::model::is_config_name;
use crate::model::state_enum;
use crate::model::word_type;

word_type!(
    /// The name of a configured destination.
    DestinationName,
    "a destination name ([a-z][a-z0-9_]*, at most 64 long)",
    is_config_name
);

state_enum!(
    /// Where an object stands.
    ObjectState,
    "an object state",
    {
        /// Nothing is at the destination yet.
        Due = "due",
        /// An upload is open, or a single write is under way.
        Uploading = "uploading",
        /// Written and verified.
        Archived = "archived",
    }
);

state_enum!(
    /// How an object was proven.
    Verified,
    "a way to verify",
    {
        /// Only the store's answer to the write: no second look.
        None = "none",
        /// HEAD: the length and our own metadata match.
        Head = "head",
        /// HEAD, and the checksum over the whole object that the store computed equals ours.
        Checksum = "checksum",
        /// The bytes were read back and hashed.
        Read = "read",
    }
);

/// The number of a part, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PartNumber(pub u32);

impl PartNumber {
    /// S3's limit, which all stores share.
    pub const MAX: PartNumber = PartNumber(10_000);
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A store's name for an open multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UploadId(pub String);

/// A store's tag of a part or an object, quotes included. Not a checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ETag(pub String);
