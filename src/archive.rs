//! The archive stage: streams due assets into their destinations and proves that they arrived.

use serde::Deserialize;
use serde::Serialize;

use crate::units::ByteSize;
use crate::units::Span;

/// `[transfer]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Assets in flight on this machine.
    pub concurrent: u32,
    /// Hard budget for the video bytes that all transfers hold together.
    pub memory: ByteSize,
    /// The length of a part; grows by itself where 10,000 parts would not do.
    pub part_size: ByteSize,
    /// Parts in flight for one asset, where the store allows as many.
    pub parts_ahead: u32,
    /// How long a connection may take to stand.
    pub connect_timeout: Span,
    /// No byte for this long: the body is taken up again at its offset.
    pub stall_timeout: Span,
    /// Nothing larger is archived.
    pub size_max: ByteSize,
    /// `[transfer.verify]`
    pub verify: VerifyConfig,
}

/// `[transfer.verify]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyConfig {
    /// Whether the SHA-256 of the bytes as received is kept in the manifest.
    pub sha256: bool,
    /// Whether bodies that are not media (HTML, JSON, text) are refused.
    pub type_check: bool,
    /// The proof after the write.
    pub after: VerifyAfter,
}

/// The proof after the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyAfter {
    /// The store's answer to the write is enough.
    None,
    /// HEAD: length, our metadata, and the store's checksum over the whole where it has one.
    Head,
    /// HEAD, and the bytes read back and hashed.
    Read,
}
