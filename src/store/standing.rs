//! What stands at a key, as HEAD shows it, and whether it is what was written there.

use std::fmt;

use crate::clock::Timestamp;
use crate::model::digest::Crc64;
use crate::model::object::ETag;
use crate::model::object::Verified;
use crate::store::Store;

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its length in bytes.
    pub length: u64,
    /// The store's tag, where it has one.
    pub etag: Option<ETag>,
    /// The store's version, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// The checksum over the whole object; never one over the checksums of its parts.
    pub crc64nvme: Option<Crc64>,
    /// The nonce of the [`Identity`](super::Identity) that it was written with.
    pub nonce: Option<String>,
    /// When it was written.
    pub last_modified: Option<Timestamp>,
}

/// What was written at a key.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its length in bytes.
    pub length: u64,
    /// The checksum of its bytes.
    pub crc64nvme: Crc64,
    /// The nonce of the [`Identity`](super::Identity) that it was written with.
    pub nonce: &'a str,
}

/// What tells that what stands at a key is not what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Its length, and that which was written.
    Length(u64, u64),
    /// It was written under another nonce; it may have the same bytes.
    Nonce,
    /// Its checksum, and that of what was written.
    Checksum(Crc64, Crc64),
}

impl Standing {
    /// Compares what HEAD shows with what was written. A store that keeps no metadata tells nothing by it.
    pub fn compare(&self, expected: &Expected<'_>) -> Result<Verified, Difference> {
        if self.length != expected.length {
            return Err(Difference::Length(self.length, expected.length));
        }
        if self.is_another(expected.nonce) {
            return Err(Difference::Nonce);
        }
        match self.crc64nvme {
            Some(there) if there == expected.crc64nvme => Ok(Verified::Checksum),
            Some(there) => Err(Difference::Checksum(there, expected.crc64nvme)),
            None => Ok(Verified::Head),
        }
    }

    /// Whether it was written under another nonce.
    pub fn is_another(&self, nonce: &str) -> bool {
        self.nonce.as_ref().is_some_and(|other| other != nonce)
    }
}

impl Store {
    /// Whether HEAD tells by neither metadata nor checksum whose bytes `standing` holds, though this store keeps both
    /// metadata and other people's objects.
    pub fn is_nameless(&self, standing: &Standing) -> bool {
        self.quirks().has_identity && standing.nonce.is_none() && standing.crc64nvme.is_none()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Length(there, expected) => {
                // To the byte: it may be one that is missing.
                write!(f, "it holds {there} B of {expected} B")
            }
            Difference::Nonce => f.write_str("another object stands there"),
            Difference::Checksum(there, expected) => {
                write!(f, "its checksum is {there}, sent was {expected}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_is_told_by_length_then_nonce_then_checksum() {
        let crc64nvme = Crc64::of(b"film");
        let check = |length, nonce: Option<&str>, there, told| {
            let standing = Standing {
                length,
                etag: None,
                version_id: None,
                crc64nvme: there,
                nonce: nonce.map(str::to_owned),
                last_modified: None,
            };
            let expected = Expected {
                length: 4,
                crc64nvme,
                nonce: "ours",
            };
            assert_eq!(standing.compare(&expected), told);
        };
        let (same, other) = (Some(crc64nvme), Crc64::of(b"flim"));
        check(4, Some("ours"), same, Ok(Verified::Checksum));
        check(4, None, same, Ok(Verified::Checksum));
        check(4, Some("ours"), None, Ok(Verified::Head));
        check(4, None, None, Ok(Verified::Head));
        check(4, Some("theirs"), same, Err(Difference::Nonce));
        check(3, Some("theirs"), None, Err(Difference::Length(3, 4)));
        let differs = Difference::Checksum(other, crc64nvme);
        check(4, Some("ours"), Some(other), Err(differs));
    }
}
