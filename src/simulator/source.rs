//! Result files that nobody stores: any byte range of any size, made on the fly from a key.

use std::ops::Range;

use bytes::Bytes;

use crate::model::digest::Sha256Digest;
use crate::model::digest::Sha256Digester;
use crate::model::state_enum;
use crate::simulator::media;
use crate::simulator::mp4;
use crate::simulator::webm;

state_enum!(
    /// The format of a result file, by its extension.
    FileKind,
    "a format of the simulator",
    {
        /// A video.
        Mp4 = "mp4",
        /// A video.
        Webm = "webm",
        /// A still image.
        Png = "png",
        /// A still image.
        Jpg = "jpg",
        /// Sound.
        Mp3 = "mp3",
        /// Sound.
        Wav = "wav",
    }
);

impl FileKind {
    /// As in a `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            FileKind::Mp4 => "video/mp4",
            FileKind::Webm => "video/webm",
            FileKind::Png => "image/png",
            FileKind::Jpg => "image/jpeg",
            FileKind::Mp3 => "audio/mpeg",
            FileKind::Wav => "audio/wav",
        }
    }
}

/// What is handed out of a file in one piece: long enough to be quick, short enough to hold many.
const CHUNK_BYTES: u64 = 256 * 1024;

/// One result file: valid in its format, exactly as long as asked, every MiB of it unlike every other.
///
/// The same key, format, length and duration give the same bytes. Reading past the end gives noise, so that an
/// endless file can be had from it.
#[derive(Clone, Debug)]
pub struct FileSource {
    key: u64,
    length: u64,
    regions: Vec<Region>,
}

/// A stretch of a file that is filled in one manner.
#[derive(Clone, Debug)]
struct Region {
    start: u64,
    length: u64,
    fill: Fill,
}

/// How a region gets its bytes.
#[derive(Clone, Debug)]
pub(super) enum Fill {
    /// These very bytes.
    Literal(Bytes),
    /// Noise of this length.
    Noise(u64),
    /// So many units, one after the other.
    Units(Unit, u64),
}

/// Something of a fixed length that a format repeats.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// A coded picture of a video.
    Picture(mp4::Picture),
    /// A cluster of a WebM.
    WebmCluster,
    /// A private chunk of a PNG.
    PngChunk,
    /// A comment segment of a JPEG.
    JpgComment,
    /// A frame of an MP3.
    Mp3Frame,
}

impl FileSource {
    /// No format fits into fewer bytes; a smaller wish is raised to this.
    pub const LENGTH_MIN: u64 = 4096;

    /// A file of `length` bytes; `seconds` is how long a video plays.
    pub fn new(kind: FileKind, key: u64, length: u64, seconds: u32) -> Self {
        let length = length.max(Self::LENGTH_MIN);
        let fills = match kind {
            FileKind::Mp4 => mp4::layout(length, seconds.max(1)),
            FileKind::Webm => webm::layout(length),
            FileKind::Png => media::png(key, length),
            FileKind::Jpg => media::jpg(key, length),
            FileKind::Mp3 => media::mp3(length),
            FileKind::Wav => media::wav(length),
        };
        let mut regions = Vec::with_capacity(fills.len());
        let mut start = 0;
        for fill in fills {
            let length = fill.length();
            regions.push(Region {
                start,
                length,
                fill,
            });
            start += length;
        }
        Self {
            key,
            length,
            regions,
        }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes from `offset` on, as many as `out` has room for.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let mut offset = offset;
        let mut rest = out;
        for region in &self.regions {
            let end = region.start + region.length;
            if offset >= end || rest.is_empty() {
                continue;
            }
            let count = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(count.min(rest.len()));
            region.read(self.key, offset - region.start, now);
            offset += length_of(now);
            rest = later;
        }
        write_noise(self.key, offset, rest);
    }

    /// The bytes of `range` in one piece; meant for ranges that fit well into memory.
    pub fn bytes(&self, range: Range<u64>) -> Bytes {
        let count = range.end.saturating_sub(range.start);
        let mut out = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        self.read(range.start, &mut out);
        Bytes::from(out)
    }

    /// The whole file in pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + '_ {
        let starts = (0..self.length).step_by(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX));
        starts.map(|start| self.bytes(start..self.length.min(start + CHUNK_BYTES)))
    }

    /// The SHA-256 of the whole file; takes as long as making all of it.
    pub fn sha256(&self) -> Sha256Digest {
        let mut digester = Sha256Digester::new();
        self.pieces().for_each(|piece| digester.update(&piece));
        digester.value()
    }
}

impl Fill {
    fn length(&self) -> u64 {
        match self {
            Fill::Literal(bytes) => length_of(bytes),
            Fill::Noise(length) => *length,
            Fill::Units(unit, count) => length_of_count(unit.length()) * count,
        }
    }
}

impl Region {
    fn read(&self, key: u64, offset: u64, out: &mut [u8]) {
        match &self.fill {
            Fill::Literal(bytes) => {
                let skip = usize::try_from(offset).unwrap_or(usize::MAX);
                copy(bytes.get(skip..).unwrap_or_default(), out);
            }
            Fill::Noise(_) => write_noise(key, self.start + offset, out),
            Fill::Units(unit, _) => unit.read(key, offset, out),
        }
    }
}

impl Unit {
    fn length(self) -> usize {
        match self {
            Unit::Picture(picture) => picture.length(),
            Unit::WebmCluster => webm::CLUSTER_BYTES,
            Unit::PngChunk | Unit::JpgComment => media::SEGMENT_BYTES,
            Unit::Mp3Frame => media::MP3_FRAME_BYTES,
        }
    }

    fn write(self, key: u64, number: u64, out: &mut [u8]) {
        match self {
            Unit::Picture(picture) => picture.write(key, number, out),
            Unit::WebmCluster => webm::write_cluster(key, number, out),
            Unit::PngChunk => media::write_png_chunk(key, number, out),
            Unit::JpgComment => media::write_jpg_comment(key, number, out),
            Unit::Mp3Frame => media::write_mp3_frame(key, number, out),
        }
    }

    /// Fills `out` from `offset` on: whole units in place, the cut ones at both ends through a scratch.
    fn read(self, key: u64, offset: u64, out: &mut [u8]) {
        let length = self.length();
        let mut number = offset / length_of_count(length);
        let mut skip = usize::try_from(offset % length_of_count(length)).unwrap_or(0);
        let mut rest = out;
        while !rest.is_empty() {
            let count = (length - skip).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            if count == length {
                self.write(key, number, now);
            } else {
                let mut scratch = vec![0; length];
                self.write(key, number, &mut scratch);
                copy(scratch.get(skip..).unwrap_or_default(), now);
            }
            (number, skip, rest) = (number + 1, 0, later);
        }
    }
}

/// What the noise's counter advances by (the golden ratio in 64 bits), so that neighbours share no pattern.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes `value` so that each of its bits reaches each bit of the result (the finisher of splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The eight bytes of noise number `number`.
pub(super) fn noise(key: u64, number: u64) -> u64 {
    mix(key.wrapping_add(number.wrapping_mul(STEP)))
}

/// Fills `out` with the noise that stands at `offset`.
pub(super) fn write_noise(key: u64, offset: u64, out: &mut [u8]) {
    let mut number = offset / 8;
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    let head = if skip == 0 {
        0
    } else {
        out.len().min(8 - skip)
    };
    let (head, rest) = out.split_at_mut(head);
    if !head.is_empty() {
        let word = noise(key, number).to_le_bytes();
        copy(word.get(skip..).unwrap_or_default(), head);
        number += 1;
    }
    let mut words = rest.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&noise(key, number).to_le_bytes());
        number = number.wrapping_add(1);
    }
    copy(&noise(key, number).to_le_bytes(), words.into_remainder());
}

/// Copies as much of `from` as `to` has room for.
pub(super) fn copy(from: &[u8], to: &mut [u8]) {
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
}

pub(super) fn length_of(bytes: &[u8]) -> u64 {
    length_of_count(bytes.len())
}

pub(super) fn length_of_count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_range_equals_the_slice_of_the_whole() {
        for kind in FileKind::ALL.iter().copied() {
            let source = FileSource::new(kind, 99, 150_001, 5);
            let whole = source.bytes(0..source.length());
            assert_eq!(whole.len(), 150_001, "{kind}");
            let mut rng = fastrand::Rng::with_seed(4);
            for _ in 0..300 {
                let start = rng.usize(0..whole.len());
                let end = rng.usize(start..=whole.len().min(start + 9000));
                let range = length_of_count(start)..length_of_count(end);
                assert_eq!(
                    source.bytes(range),
                    whole[start..end],
                    "{kind} {start}..{end}"
                );
            }
            let pieces: Vec<u8> = source.pieces().flatten().collect();
            assert_eq!(pieces, whole, "{kind}");
        }
    }

    #[test]
    fn the_key_decides_the_bytes_and_the_length_is_exact() {
        for kind in FileKind::ALL.iter().copied() {
            for length in [4096, 4097, 5000, 65_536, 1 << 20, (1 << 20) + 7] {
                let source = FileSource::new(kind, 1, length, 5);
                let parts: u64 = source.regions.iter().map(|region| region.length).sum();
                assert_eq!(parts, length, "{kind} {length}");
            }
            let sha256 = |key| FileSource::new(kind, key, 20_000, 5).sha256();
            assert_eq!(sha256(1), sha256(1));
            assert_ne!(sha256(1), sha256(2));
        }
        assert_eq!(
            FileSource::new(FileKind::Mp4, 1, 1, 5).length(),
            FileSource::LENGTH_MIN
        );
    }

    #[test]
    fn no_block_is_repeated() {
        for kind in FileKind::ALL.iter().copied() {
            let source = FileSource::new(kind, 7, 3 << 20, 5);
            let mut seen = HashSet::new();
            for start in (0..source.length()).step_by(4096) {
                assert!(
                    seen.insert(source.bytes(start..start + 4096)),
                    "{kind} at {start}"
                );
            }
        }
    }
}
