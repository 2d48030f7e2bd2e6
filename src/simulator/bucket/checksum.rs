//! The checksums that S3 knows: their names, their values, and how those of parts become that of an object.

use aws_smithy_types::base64;
use crc_fast::CrcAlgorithm;
use s3s::S3Result;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::crypto::Crc32;
use s3s::crypto::Crc32c;
use s3s::crypto::Crc64Nvme;
use s3s::crypto::Sha256;
use s3s::s3_error;

/// A way to compute a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha256,
}

/// What the checksum of an object that came in parts is computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// The bytes of the object.
    FullObject,
    /// The checksums of its parts.
    Composite,
}

/// A checksum as it travels: the algorithm, and the value in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) algorithm: Algorithm,
    pub(super) value: String,
}

impl Algorithm {
    pub(super) const ALL: [Algorithm; 4] = [
        Algorithm::Crc32,
        Algorithm::Crc32c,
        Algorithm::Crc64Nvme,
        Algorithm::Sha256,
    ];

    /// The name in S3's own documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The header, or the trailer, that carries a value.
    pub(super) fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Reads a name. Refuses what this endpoint could not verify.
    pub(super) fn named(name: &str) -> S3Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| s3_error!(NotImplemented, "checksum algorithm {name:?} is not known"))
    }

    /// What an upload's checksum covers, with `asked` being what its Create said.
    pub(super) fn coverage(self, asked: Option<&str>) -> S3Result<Coverage> {
        match (self, asked) {
            (Algorithm::Crc64Nvme, None | Some("FULL_OBJECT"))
            | (Algorithm::Crc32 | Algorithm::Crc32c, Some("FULL_OBJECT")) => {
                Ok(Coverage::FullObject)
            }
            (
                Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Sha256,
                None | Some("COMPOSITE"),
            ) => Ok(Coverage::Composite),
            (_, Some(asked)) => Err(s3_error!(
                InvalidRequest,
                "The {asked} checksum type cannot be used with the {} checksum algorithm.",
                self.name()
            )),
        }
    }

    /// A hasher that computes this checksum alone.
    pub(super) fn hasher(self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        match self {
            Algorithm::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Algorithm::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Algorithm::Crc64Nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
            Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
        }
        hasher
    }

    /// The value out of a hasher that [`Algorithm::hasher`] made.
    pub(super) fn finish(self, hasher: ChecksumHasher) -> Checksum {
        let sums = hasher.finalize();
        let value = match self {
            Algorithm::Crc32 => sums.checksum_crc32,
            Algorithm::Crc32c => sums.checksum_crc32c,
            Algorithm::Crc64Nvme => sums.checksum_crc64nvme,
            Algorithm::Sha256 => sums.checksum_sha256,
        };
        Checksum {
            algorithm: self,
            value: value.expect("the hasher was made for this algorithm"),
        }
    }

    /// The checksum over the checksums of `parts`, with the number of parts at its end.
    pub(super) fn composite(self, parts: &[&Checksum]) -> Checksum {
        let mut hasher = self.hasher();
        for part in parts {
            hasher.update(&part.bytes());
        }
        let over = self.finish(hasher);
        Checksum {
            algorithm: self,
            value: format!("{}-{}", over.value, parts.len()),
        }
    }

    /// The checksum over the bytes of `parts`, each given with its length. `None` for what does not combine.
    pub(super) fn combined(self, parts: &[(&Checksum, u64)]) -> Option<Checksum> {
        let (crc, bytes) = match self {
            Algorithm::Crc32 => (CrcAlgorithm::Crc32IsoHdlc, 4),
            Algorithm::Crc32c => (CrcAlgorithm::Crc32Iscsi, 4),
            Algorithm::Crc64Nvme => (CrcAlgorithm::Crc64Nvme, 8),
            Algorithm::Sha256 => return None,
        };
        let whole = parts.iter().fold(0, |sum, (part, length)| {
            crc_fast::checksum_combine(crc, sum, part.number(), *length)
        });
        let whole = whole.to_be_bytes();
        let (_, value) = whole.split_at(whole.len() - bytes);
        Some(Checksum {
            algorithm: self,
            value: base64::encode(value),
        })
    }
}

impl Coverage {
    /// The name in S3's own documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Coverage::FullObject => "FULL_OBJECT",
            Coverage::Composite => "COMPOSITE",
        }
    }
}

impl Checksum {
    /// The raw bytes; empty when the value is not base64, which verifies as nothing.
    fn bytes(&self) -> Vec<u8> {
        base64::decode(&self.value).unwrap_or_default()
    }

    fn number(&self) -> u64 {
        let bytes = self.bytes();
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// The one checksum that a request may carry, out of what its headers gave.
pub(super) fn only_one(
    crc32: Option<&String>,
    crc32c: Option<&String>,
    crc64: Option<&String>,
    sha256: Option<&String>,
    sha1: Option<&String>,
) -> S3Result<Option<Checksum>> {
    if sha1.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "checksum algorithm \"SHA1\" is not known"
        ));
    }
    let values = [crc32, crc32c, crc64, sha256];
    let mut given = Algorithm::ALL
        .into_iter()
        .zip(values)
        .filter_map(|(algorithm, value)| {
            let value = value?.clone();
            Some(Checksum { algorithm, value })
        });
    let first = given.next();
    if given.next().is_some() {
        return Err(s3_error!(
            InvalidRequest,
            "Expecting a single x-amz-checksum- header"
        ));
    }
    Ok(first)
}

/// The checksum that a request of S3's own types carries.
macro_rules! checksum_of {
    ($input:expr) => {
        $crate::simulator::bucket::checksum::only_one(
            $input.checksum_crc32.as_ref(),
            $input.checksum_crc32c.as_ref(),
            $input.checksum_crc64nvme.as_ref(),
            $input.checksum_sha256.as_ref(),
            $input.checksum_sha1.as_ref(),
        )
    };
}
pub(super) use checksum_of;

/// Writes a checksum into the answer of S3's own types.
macro_rules! tell_checksum {
    ($output:expr, $checksum:expr) => {
        if let Some(checksum) = $checksum {
            use $crate::simulator::bucket::checksum::Algorithm;
            let value = Some(checksum.value.clone());
            match checksum.algorithm {
                Algorithm::Crc32 => $output.checksum_crc32 = value,
                Algorithm::Crc32c => $output.checksum_crc32c = value,
                Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
                Algorithm::Sha256 => $output.checksum_sha256 = value,
            }
        }
    };
}
pub(super) use tell_checksum;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: Algorithm, bytes: &[u8]) -> Checksum {
        let mut hasher = algorithm.hasher();
        hasher.update(bytes);
        algorithm.finish(hasher)
    }

    #[test]
    fn combined_parts_have_the_checksum_of_the_whole() {
        let (head, tail) = (b"12345".as_slice(), b"6789".as_slice());
        for algorithm in Algorithm::ALL {
            let parts = [of(algorithm, head), of(algorithm, tail)];
            let combined = algorithm.combined(&[(&parts[0], 5), (&parts[1], 4)]);
            let whole = (algorithm != Algorithm::Sha256).then(|| of(algorithm, b"123456789"));
            assert_eq!(combined, whole, "{algorithm:?}");
        }
    }

    #[test]
    fn a_composite_is_taken_over_the_raw_checksums() {
        let parts = [of(Algorithm::Sha256, b"a"), of(Algorithm::Sha256, b"b")];
        let raw = [parts[0].bytes(), parts[1].bytes()].concat();
        let composite = Algorithm::Sha256.composite(&[&parts[0], &parts[1]]);
        let expected = format!("{}-2", of(Algorithm::Sha256, &raw).value);
        assert_eq!(composite.value, expected);
    }

    #[track_caller]
    fn check(algorithm: Algorithm, asked: Option<&str>, coverage: Option<Coverage>) {
        assert_eq!(algorithm.coverage(asked).ok(), coverage);
    }

    #[test]
    fn coverage_follows_the_published_table() {
        check(Algorithm::Crc64Nvme, None, Some(Coverage::FullObject));
        check(Algorithm::Crc64Nvme, Some("COMPOSITE"), None);
        check(Algorithm::Crc32, None, Some(Coverage::Composite));
        check(
            Algorithm::Crc32c,
            Some("FULL_OBJECT"),
            Some(Coverage::FullObject),
        );
        check(Algorithm::Sha256, Some("FULL_OBJECT"), None);
        check(
            Algorithm::Sha256,
            Some("COMPOSITE"),
            Some(Coverage::Composite),
        );
        check(Algorithm::Crc32, Some("HALF"), None);
    }

    #[test]
    fn two_checksums_on_one_request_are_refused() {
        let value = "AAAAAA==".to_owned();
        assert!(only_one(Some(&value), Some(&value), None, None, None).is_err());
        assert!(only_one(None, None, None, None, Some(&value)).is_err());
        let one = only_one(None, None, Some(&value), None, None)
            .unwrap()
            .unwrap();
        assert_eq!(one.algorithm, Algorithm::Crc64Nvme);
    }
}
