//! Bodies on their way in: read once, hashed on the way, kept frame by frame under a bound.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use aws_smithy_types::base64;
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::StatusCode;
use s3s::S3Error;
use s3s::S3ErrorCode;
use s3s::S3Result;
use s3s::StdError;
use s3s::crypto::Checksum as _;
use s3s::crypto::Md5;
use s3s::dto::StreamingBlob;
use s3s::s3_error;

use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::digest::Sha256Digest;
use crate::model::digest::Sha256Digester;
use crate::simulator::bucket::checksum::Algorithm;
use crate::simulator::bucket::checksum::Checksum;

/// How many bytes of bodies may be kept at once, over all objects and parts.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    left: Arc<AtomicU64>,
}

/// What is kept of bodies.
#[derive(Clone, Debug)]
pub(super) enum Keeping {
    /// Their frames, within this capacity.
    Frames(Capacity),
    /// Length, CRC64 and SHA-256.
    Hashes,
    /// Length and CRC64.
    Sums,
}

/// Frames that are kept, and the room that they take.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) frames: Vec<Bytes>,
    taken: u64,
    capacity: Capacity,
}

/// A body that arrived whole.
#[derive(Debug)]
pub(super) struct Received {
    /// Absent where only hashes or sums are kept.
    pub(super) kept: Option<Kept>,
    pub(super) length: u64,
    pub(super) crc64: Crc64,
    /// Where hashes are kept.
    pub(super) sha256: Option<Sha256Digest>,
    /// Without quotes: the MD5 in hexadecimal digits, or as many digits out of the CRC64 where bodies are discarded.
    pub(super) etag: String,
    pub(super) md5: Option<[u8; 16]>,
    /// The checksum that was wanted.
    pub(super) checksum: Option<Checksum>,
}

impl Capacity {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(bytes)),
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        taken.is_ok()
    }
}

impl Kept {
    fn new(capacity: &Capacity) -> Self {
        Self {
            frames: Vec::new(),
            taken: 0,
            capacity: capacity.clone(),
        }
    }

    fn push(&mut self, frame: Bytes) -> S3Result<()> {
        let bytes = length_of(&frame);
        if !self.capacity.take(bytes) {
            return Err(quota_exceeded());
        }
        self.taken += bytes;
        self.frames.push(frame);
        Ok(())
    }
}

impl Kept {
    /// The same frames with one bit of the first byte turned. `None` where there is no byte, or no room.
    pub(super) fn flipped(&self) -> Option<Self> {
        let mut kept = Self::new(&self.capacity);
        for (at, frame) in self.frames.iter().enumerate() {
            let frame = if at == 0 { flip(frame)? } else { frame.clone() };
            kept.push(frame).ok()?;
        }
        (!kept.frames.is_empty()).then_some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.capacity.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

impl Received {
    /// Reads `body` to its end and keeps of it what is to be kept.
    pub(super) async fn read(
        body: Option<StreamingBlob>,
        wanted: Option<Algorithm>,
        keeping: &Keeping,
    ) -> S3Result<Self> {
        let (mut kept, mut sha256) = match keeping {
            Keeping::Frames(capacity) => (Some(Kept::new(capacity)), None),
            Keeping::Hashes => (None, Some(Sha256Digester::new())),
            Keeping::Sums => (None, None),
        };
        let mut md5 = kept.as_ref().map(|_| Md5::new());
        let mut crc64 = Crc64Digester::new();
        let mut hasher = wanted.map(Algorithm::hasher);
        let mut length = 0;
        let mut body = body;
        while let Some(frame) = next_frame(&mut body).await? {
            length += length_of(&frame);
            crc64.update(&frame);
            if let Some(hasher) = &mut hasher {
                hasher.update(&frame);
            }
            if let Some(md5) = &mut md5 {
                md5.update(&frame);
            }
            if let Some(sha256) = &mut sha256 {
                sha256.update(&frame);
            }
            if let Some(kept) = &mut kept {
                kept.push(frame)?;
            }
        }
        let crc64 = crc64.value();
        let md5 = md5.map(Md5::finalize);
        let etag = md5.map_or_else(|| format!("{crc64}{crc64}"), hexadecimal);
        let checksum = wanted
            .zip(hasher)
            .map(|(algorithm, hasher)| algorithm.finish(hasher));
        Ok(Self {
            kept,
            length,
            crc64,
            sha256: sha256.map(|digester| digester.value()),
            etag,
            md5,
            checksum,
        })
    }

    /// Compares with what the writer said about the body.
    pub(super) fn verify(
        &self,
        length: Option<i64>,
        md5: Option<&str>,
        checksum: Option<&Checksum>,
    ) -> S3Result<()> {
        if length.is_some_and(|length| u64::try_from(length) != Ok(self.length)) {
            return Err(s3_error!(IncompleteBody));
        }
        if let Some((said, found)) = md5.zip(self.md5)
            && said != base64::encode(found)
        {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match."
            ));
        }
        if checksum.is_some() && checksum != self.checksum.as_ref() {
            return Err(s3_error!(
                BadDigest,
                "The checksum you specified did not match the calculated checksum."
            ));
        }
        Ok(())
    }
}

/// The 32 hexadecimal digits of an MD5.
pub(super) fn hexadecimal(md5: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(md5))
}

/// The same bytes with one bit of the first one turned; `None` where there is none.
pub(super) fn flip(frame: &Bytes) -> Option<Bytes> {
    let (first, rest) = frame.split_first()?;
    Some(Bytes::from([&[first ^ 1], rest].concat()))
}

fn length_of(frame: &Bytes) -> u64 {
    u64::try_from(frame.len()).expect("no frame is longer than the address space")
}

async fn next_frame(body: &mut Option<StreamingBlob>) -> S3Result<Option<Bytes>> {
    let Some(body) = body else { return Ok(None) };
    body.try_next().await.map_err(broken_body)
}

/// The peer went away, or a signature inside of the body did not match.
fn broken_body(error: StdError) -> S3Error {
    let message = error.to_string();
    let mut refusal = S3Error::with_source(S3ErrorCode::IncompleteBody, error);
    refusal.set_message(message);
    refusal
}

/// The code and status that Ceph answers with; S3 itself is never full.
fn quota_exceeded() -> S3Error {
    let code = S3ErrorCode::from_bytes(b"QuotaExceeded").unwrap_or(S3ErrorCode::ServiceUnavailable);
    let mut refusal =
        S3Error::with_message(code, "the bucket keeps no more bytes than its capacity");
    refusal.set_status_code(StatusCode::FORBIDDEN);
    refusal
}
