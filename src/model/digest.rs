//! Digests of a body: CRC64NVME, which combines over parts, and SHA-256, whose state can be kept and taken up again.

use std::fmt;
use std::str::FromStr;

use crc_fast::CrcAlgorithm;
use serde::Serialize;
use serde::Serializer;
use sha2::Digest as _;
use sha2::Sha256;
use sha2::digest::common::hazmat::SerializableState;
use sha2::digest::common::hazmat::SerializedState;

use crate::model::WordError;

/// A CRC-64/NVME, printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Crc64(pub u64);

impl Crc64 {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The checksum of what this one covers followed by `length` bytes that `next` covers.
    #[must_use]
    pub fn followed_by(self, next: Crc64, length: u64) -> Self {
        Self(crc_fast::checksum_combine(
            CrcAlgorithm::Crc64Nvme,
            self.0,
            next.0,
            length,
        ))
    }

    /// The eight bytes, most significant first, as S3 encodes them in base64.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Crc64 {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let bad = || WordError::new(text, "a CRC64 (16 hexadecimal digits)");
        let digits = (text.len() == 16).then_some(text).ok_or_else(bad)?;
        u64::from_str_radix(digits, 16).map(Self).map_err(|_| bad())
    }
}

impl Serialize for Crc64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A running CRC-64/NVME.
#[derive(Debug)]
pub struct Crc64Digester(crc_fast::Digest);

impl Crc64Digester {
    /// Starts over nothing.
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> Crc64 {
        Crc64(self.0.finalize())
    }
}

impl Default for Crc64Digester {
    fn default() -> Self {
        Self::new()
    }
}

/// A SHA-256, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256Digest {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let bad = || WordError::new(text, "a SHA-256 (64 hexadecimal digits)");
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A running SHA-256 that can be saved at any byte and taken up again after a restart.
#[derive(Clone, Debug, Default)]
pub struct Sha256Digester(Sha256);

impl Sha256Digester {
    /// Starts over nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up where [`Sha256Digester::save`] left off. `None` when `state` is not such a state.
    pub fn load(state: &[u8]) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(state).ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }

    /// The state after all bytes so far.
    pub fn save(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn value(&self) -> Sha256Digest {
        Sha256Digest(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values() {
        assert_eq!(Crc64::of(b"123456789").to_string(), "ae8b14860a799888");
        let mut sha256 = Sha256Digester::new();
        sha256.update(b"abc");
        let printed = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256.value().to_string(), printed);
        assert_eq!(printed.parse(), Ok(sha256.value()));
    }

    #[test]
    fn cut_anywhere_the_parts_combine_to_the_whole() {
        let body: Vec<u8> = (0..997_u32).flat_map(u32::to_le_bytes).collect();
        for cut in [0, 1, 63, 64, 65, 1000, body.len()] {
            let (head, tail) = body.split_at(cut);
            let tail_length = u64::try_from(tail.len()).unwrap();
            assert_eq!(
                Crc64::of(head).followed_by(Crc64::of(tail), tail_length),
                Crc64::of(&body)
            );

            let mut whole = Sha256Digester::new();
            whole.update(&body);
            let mut first = Sha256Digester::new();
            first.update(head);
            let mut second = Sha256Digester::load(&first.save()).unwrap();
            second.update(tail);
            assert_eq!(second.value(), whole.value(), "cut at {cut}");
        }
        assert!(Sha256Digester::load(b"short").is_none());
    }
}
