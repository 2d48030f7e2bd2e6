//! The archive stage: streams due assets into their destinations and proves that they arrived.
//!
//! ```text
//! stage      claims the most urgent assets; settles what was not archived
//! deadlink   a link that is dead: when a fresh one is asked for, and when none is to come
//! transfer   one asset: what each of its objects needs, and one download for all that need bytes
//! slots      whose bytes move now: the slow make room, the urgent overtake
//! download   the body in order, digested once, in a window that all destinations read
//! source     where it comes from: one connection, or several where one is slow
//! delivery   one object: recover what stands, resume what is open, else begin; finish, prove
//! naming     an object's key, and the nonce by which it is known as ours
//! write      the three ways in which a body gets to a destination
//! parts      the body cut into parts: passed through frame by frame, or filled first where it must be
//! progress   what is known of the body so far: SHA-256, box walk; saved with each part
//! plan       how a body is cut
//! proof      what the destination must show before the row says "archived"
//! gate       how much a destination takes at once, and whether it takes anything
//! bandwidth  the limit on bytes a second
//! gauge      what moves now, for progress bars
//! ```

pub mod bandwidth;
mod deadlink;
mod delivery;
mod download;
mod gate;
pub mod gauge;
mod naming;
mod parts;
pub mod plan;
pub mod progress;
pub mod proof;
mod slots;
mod source;
pub mod stage;
pub mod transfer;
mod write;

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::units::ByteRate;
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
    /// Parts of one object in flight, where the store allows as many.
    pub parts_ahead: u32,
    /// Connections beyond one a transfer, where its origin gives a single one little; of all transfers together.
    pub lanes: u32,
    /// The limit on all downloads together.
    #[serde(
        default,
        deserialize_with = "ByteRate::or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub bandwidth: Option<ByteRate>,
    /// How long a connection may take to stand.
    pub connect_timeout: Span,
    /// No byte for this long: the body is taken up again at its offset.
    pub stall_timeout: Span,
    /// A body that comes slower than this over half a minute is taken up again on another connection.
    pub rate_min: ByteRate,
    /// Nothing larger is archived.
    pub size_max: ByteSize,
    /// `[transfer.verify]`
    pub verify: VerifyConfig,
}

/// What one transfer holds besides filled parts and lanes: the frames between its sockets, and the sockets' own
/// buffers. Set aside for each from the start, so that transfers never wait for each other's
/// windows.
pub const WINDOW: ByteSize = ByteSize::bytes(512 << 10);

/// The length of a frame in the type of offsets.
fn length(frame: &Bytes) -> u64 {
    u64::try_from(frame.len()).unwrap_or(u64::MAX)
}

impl Config {
    /// Transfers that move bytes at once at most, the slow and the urgent ones included.
    pub fn transfers_max(&self) -> u32 {
        slots::Slots::count(self.concurrent)
    }

    /// What is left of `transfer.memory` for filled parts; `None` when the windows alone are more.
    pub fn parts_budget(&self) -> Option<ByteSize> {
        let windows = WINDOW
            .as_u64()
            .saturating_mul(u64::from(self.transfers_max()));
        self.memory
            .as_u64()
            .checked_sub(windows)
            .map(ByteSize::bytes)
    }
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
