//! What a bucket holds: finished objects and open uploads, and the rules by which one becomes the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use s3s::S3Error;
use s3s::S3Result;
use s3s::crypto::Checksum as _;
use s3s::crypto::Md5;
use s3s::s3_error;

use crate::clock::Timestamp;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::digest::Sha256Digest;
use crate::simulator::bucket::Conditions;
use crate::simulator::bucket::Quirks;
use crate::simulator::bucket::StoredPiece;
use crate::simulator::bucket::body::Kept;
use crate::simulator::bucket::body::Received;
use crate::simulator::bucket::body::hexadecimal;
use crate::simulator::bucket::checksum::Algorithm;
use crate::simulator::bucket::checksum::Checksum;
use crate::simulator::bucket::checksum::Coverage;

/// S3's limit on user metadata, names and values together.
const METADATA_BYTES_MAX: usize = 2 << 10;

/// The parts that an upload may have.
const PART_NUMBERS: std::ops::RangeInclusive<i32> = 1..=10_000;

/// What the writer said about an object apart from its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    pub(super) content_type: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// A finished object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) label: Label,
    /// One for each part; none where bodies are discarded.
    pub(super) bodies: Vec<Arc<Kept>>,
    pub(super) length: u64,
    pub(super) crc64: Crc64,
    /// Without quotes.
    pub(super) etag: String,
    /// What the writer declared and the bucket verified.
    pub(super) checksum: Option<(Checksum, Coverage)>,
    /// How many parts it came in, unless it was written at once.
    pub(super) parts: Option<i32>,
    /// What came in each request.
    pub(super) pieces: Vec<StoredPiece>,
    pub(super) modified: Timestamp,
}

/// A part of an open upload.
#[derive(Debug)]
pub(super) struct Part {
    body: Option<Arc<Kept>>,
    pub(super) length: u64,
    crc64: Crc64,
    sha256: Option<Sha256Digest>,
    /// Without quotes.
    pub(super) etag: String,
    md5: Option<[u8; 16]>,
    pub(super) checksum: Option<Checksum>,
    pub(super) modified: Timestamp,
}

/// An open upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) label: Label,
    pub(super) declared: Option<(Algorithm, Coverage)>,
    pub(super) parts: BTreeMap<i32, Part>,
    pub(super) opened: Timestamp,
}

/// What a Complete says.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) parts: Vec<ListedPart>,
    pub(super) total: Option<Checksum>,
    pub(super) coverage: Option<String>,
    pub(super) length: Option<i64>,
}

/// A part as a Complete lists it.
#[derive(Debug)]
pub(super) struct ListedPart {
    pub(super) number: i32,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) checksum: Option<Checksum>,
}

/// One bucket's content.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    /// How often clients wrote each key.
    pub(super) writes: BTreeMap<String, u64>,
    /// By ID. IDs are random, so listings sort by key themselves.
    pub(super) uploads: BTreeMap<String, Upload>,
}

impl Label {
    /// Refuses more metadata than S3 takes.
    pub(super) fn new(
        content_type: Option<String>,
        metadata: Option<s3s::dto::Metadata>,
    ) -> S3Result<Self> {
        let metadata: BTreeMap<_, _> = metadata.unwrap_or_default().into_iter().collect();
        let bytes: usize = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > METADATA_BYTES_MAX {
            return Err(s3_error!(MetadataTooLarge));
        }
        Ok(Self {
            content_type,
            metadata,
        })
    }
}

impl Object {
    /// An object that was written at once.
    pub(super) fn whole(label: Label, received: Received, modified: Timestamp) -> Self {
        let checksum = received
            .checksum
            .map(|checksum| (checksum, Coverage::FullObject));
        let piece = StoredPiece {
            length: received.length,
            sha256: received.sha256,
        };
        Self {
            label,
            pieces: vec![piece],
            bodies: received.kept.map(Arc::new).into_iter().collect(),
            length: received.length,
            crc64: received.crc64,
            etag: received.etag,
            checksum,
            parts: None,
            modified,
        }
    }

    /// The same object with a bit turned that nobody turned: only what is computed over its bytes tells. `None` where
    /// no bytes are kept.
    pub(super) fn damaged(&self) -> Option<Self> {
        let (first, rest) = self.bodies.split_first()?;
        let mut bodies = vec![Arc::new(first.flipped()?)];
        bodies.extend(rest.iter().cloned());
        let mut crc64 = Crc64Digester::new();
        for frame in bodies.iter().flat_map(|body| &body.frames) {
            crc64.update(frame);
        }
        Some(Self {
            label: self.label.clone(),
            bodies,
            crc64: crc64.value(),
            etag: self.etag.clone(),
            checksum: self.checksum.clone(),
            pieces: self.pieces.clone(),
            ..*self
        })
    }

    /// The checksum that readers are told: what was declared, else what the bucket computed.
    pub(super) fn told(&self, quirks: &Quirks) -> Option<(Checksum, Coverage)> {
        let computed = || {
            let value = aws_smithy_types::base64::encode(self.crc64.to_bytes());
            let algorithm = Algorithm::Crc64Nvme;
            (Checksum { algorithm, value }, Coverage::FullObject)
        };
        let declared = self.checksum.clone();
        declared.or_else(|| quirks.computes_crc64.then(computed))
    }
}

impl Part {
    pub(super) fn new(received: Received, modified: Timestamp) -> Self {
        Self {
            body: received.kept.map(Arc::new),
            length: received.length,
            crc64: received.crc64,
            sha256: received.sha256,
            etag: received.etag,
            md5: received.md5,
            checksum: received.checksum,
            modified,
        }
    }
}

impl Part {
    fn piece(&self) -> StoredPiece {
        StoredPiece {
            length: self.length,
            sha256: self.sha256,
        }
    }
}

impl Upload {
    /// Refuses a part that does not carry the checksum that Create declared, or carries one that it did not.
    pub(super) fn admit(&self, number: i32, carried: Option<Algorithm>) -> S3Result<()> {
        if !PART_NUMBERS.contains(&number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        let declared = self.declared.map(|(algorithm, _)| algorithm);
        if declared != carried {
            return Err(type_mismatch(declared, carried));
        }
        Ok(())
    }

    /// Checks what a Complete says against what arrived, and makes the object.
    pub(super) fn assemble(
        &self,
        asked: &Completion,
        quirks: &Quirks,
        now: Timestamp,
    ) -> S3Result<Object> {
        let parts = self.listed(&asked.parts)?;
        check_sizes(&parts, quirks)?;
        let length = parts.iter().map(|part| part.length).sum();
        if asked
            .length
            .is_some_and(|said| u64::try_from(said) != Ok(length))
        {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value does not match what was \
                 computed: {length}"
            ));
        }
        let checksum = self.checksum(&parts, asked)?;
        let crc64 = parts.iter().fold(Crc64::default(), |sum, part| {
            sum.followed_by(part.crc64, part.length)
        });
        Ok(Object {
            label: self.label.clone(),
            bodies: parts.iter().filter_map(|part| part.body.clone()).collect(),
            length,
            crc64,
            etag: etag_of(&parts, crc64),
            checksum,
            parts: Some(i32::try_from(parts.len()).unwrap_or(i32::MAX)),
            pieces: parts.iter().map(|part| part.piece()).collect(),
            modified: now,
        })
    }

    /// The parts that a Complete lists, which must ascend and be the ones that arrived.
    fn listed(&self, asked: &[ListedPart]) -> S3Result<Vec<&Part>> {
        if asked.is_empty() {
            return Err(s3_error!(
                MalformedXML,
                "a Complete lists one part at least"
            ));
        }
        if !asked.is_sorted_by(|one, next| one.number < next.number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        asked.iter().map(|listed| self.part(listed)).collect()
    }

    fn part(&self, listed: &ListedPart) -> S3Result<&Part> {
        let found = self.parts.get(&listed.number);
        let found = found.filter(|part| part.etag == listed.etag);
        let found =
            found.filter(|part| listed.checksum.is_none() || listed.checksum == part.checksum);
        found.ok_or_else(|| {
            s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found: number {}",
                listed.number
            )
        })
    }

    /// The object's checksum where one was declared. The total that Complete may send must agree with it.
    fn checksum(
        &self,
        parts: &[&Part],
        asked: &Completion,
    ) -> S3Result<Option<(Checksum, Coverage)>> {
        let Some((algorithm, coverage)) = self.declared else {
            return match &asked.total {
                Some(total) => Err(type_mismatch(None, Some(total.algorithm))),
                None => Ok(None),
            };
        };
        if let Some(total) = asked
            .total
            .as_ref()
            .filter(|total| total.algorithm != algorithm)
        {
            return Err(type_mismatch(Some(algorithm), Some(total.algorithm)));
        }
        let said = asked.coverage.as_deref().unwrap_or(coverage.name());
        if said != coverage.name() {
            return Err(s3_error!(
                InvalidRequest,
                "The upload was created using the {} checksum mode.",
                coverage.name()
            ));
        }
        let carried: Vec<_> = parts
            .iter()
            .filter_map(|part| part.checksum.as_ref().zip(Some(part.length)))
            .collect();
        let whole = match coverage {
            Coverage::FullObject => algorithm.combined(&carried),
            Coverage::Composite => {
                all_listed(asked, algorithm)?;
                let sums: Vec<_> = carried.iter().map(|(sum, _)| *sum).collect();
                Some(algorithm.composite(&sums))
            }
        };
        if asked.total.is_some() && asked.total != whole {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                algorithm.name()
            ));
        }
        Ok(whole.map(|checksum| (checksum, coverage)))
    }
}

impl Shelf {
    /// A client's object, written whole or made of its parts.
    pub(super) fn write(&mut self, key: &str, object: Object) {
        *self.writes.entry(key.to_owned()).or_default() += 1;
        self.objects.insert(key.to_owned(), object.into());
    }

    /// The upload of `key` with this ID.
    pub(super) fn upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        let found = self.uploads.get_mut(id);
        found
            .filter(|upload| upload.key == key)
            .ok_or_else(no_such_upload)
    }

    /// Ends an upload, whatever for.
    pub(super) fn close(&mut self, key: &str, id: &str) -> S3Result<Upload> {
        self.upload(key, id)?;
        self.uploads.remove(id).ok_or_else(no_such_upload)
    }

    /// Refuses a conditional write of a key that exists.
    pub(super) fn check_new(&self, key: &str, only_new: bool, quirks: &Quirks) -> S3Result<()> {
        match quirks.conditions {
            _ if !only_new => Ok(()),
            Conditions::Honoured if self.objects.contains_key(key) => Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            )),
            Conditions::Honoured | Conditions::Ignored => Ok(()),
            Conditions::Unsupported => Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            )),
        }
    }
}

/// A composite needs the checksum of every part once more in Complete.
fn all_listed(asked: &Completion, algorithm: Algorithm) -> S3Result<()> {
    let missing = asked.parts.iter().find(|part| part.checksum.is_none());
    missing.map_or(Ok(()), |part| {
        let (name, number) = (algorithm.name().to_lowercase(), part.number);
        Err(s3_error!(
            InvalidRequest,
            "The upload was created using a {name} checksum. The complete request must include \
             the checksum for each part. It was missing for part {number} in the request."
        ))
    })
}

fn check_sizes(parts: &[&Part], quirks: &Quirks) -> S3Result<()> {
    let Some((last, others)) = parts.split_last() else {
        return Ok(());
    };
    if others
        .iter()
        .any(|part| part.length < quirks.part_bytes_min.as_u64())
    {
        return Err(s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size"
        ));
    }
    let size = others.first().unwrap_or(last).length;
    let equal = others.iter().all(|part| part.length == size) && last.length <= size;
    if quirks.equal_parts && !equal {
        return Err(s3_error!(
            InvalidPart,
            "All non-trailing parts must have the same length."
        ));
    }
    Ok(())
}

/// The MD5 over the parts' MD5s with their number at its end, as S3 does; from the CRC64 where bodies are discarded.
fn etag_of(parts: &[&Part], crc64: Crc64) -> String {
    let mut over = Md5::new();
    for part in parts {
        over.update(&part.md5.unwrap_or_default());
    }
    let hashed = parts.iter().all(|part| part.md5.is_some());
    let digits = if hashed {
        hexadecimal(over.finalize())
    } else {
        format!("{crc64}{crc64}")
    };
    format!("{digits}-{}", parts.len())
}

fn type_mismatch(expected: Option<Algorithm>, actual: Option<Algorithm>) -> S3Error {
    let name = |algorithm: Option<Algorithm>| {
        algorithm.map_or("null".to_owned(), |algorithm| {
            algorithm.name().to_lowercase()
        })
    };
    let (expected, actual) = (name(expected), name(actual));
    s3_error!(
        InvalidRequest,
        "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum \
         Type: {actual}"
    )
}

fn no_such_upload() -> S3Error {
    s3_error!(NoSuchUpload, "The specified upload does not exist.")
}
