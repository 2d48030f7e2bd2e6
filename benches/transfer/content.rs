//! Films that are computed, not stored: every byte follows from number, length and offset, and every MiB is unique.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use reelvault::model::digest::Crc64;
use reelvault::model::digest::Crc64Digester;

/// The payload comes in blocks of this size, each with its own stamp at its start.
const BLOCK_BYTES: u64 = 1 << 20;

/// Number of the film and of the block.
const STAMP_BYTES: u64 = 16;

/// What all blocks share behind their stamps. Random, so that nothing on the way can compress it.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut noise = vec![0; to_usize(BLOCK_BYTES)];
    fastrand::Rng::with_seed(7).fill(&mut noise);
    noise.into()
});

/// One film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Film {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
}

impl Film {
    /// None is shorter.
    pub(crate) const BYTES_MIN: u64 = BLOCK_BYTES;

    /// Its path at the origin.
    pub(crate) fn path(self) -> String {
        format!("/films/{}/{:08}.mp4", self.bytes, self.number)
    }

    /// Reads what [`Film::path`] wrote.
    pub(crate) fn at(path: &str) -> Option<Self> {
        let (bytes, name) = path.strip_prefix("/films/")?.split_once('/')?;
        Self::new(name.strip_suffix(".mp4")?, bytes)
    }

    /// The task that made it, as its API names it.
    pub(crate) fn task_id(self) -> String {
        format!("task-unified-{}-{:08}", self.bytes, self.number)
    }

    /// Reads what [`Film::task_id`] wrote.
    pub(crate) fn of_task(id: &str) -> Option<Self> {
        let (bytes, number) = id.strip_prefix("task-unified-")?.split_once('-')?;
        Self::new(number, bytes)
    }

    /// The same bytes have the same tag.
    pub(crate) fn etag(self) -> String {
        format!("\"{:x}-{:x}\"", self.number, self.bytes)
    }

    /// The checksum over all bytes.
    pub(crate) fn crc64(self) -> Crc64 {
        let mut digester = Crc64Digester::new();
        for frame in self.frames(0..self.bytes) {
            digester.update(&frame);
        }
        digester.value()
    }

    /// The bytes of `range`, in slices of what is in memory once.
    pub(crate) fn frames(self, range: Range<u64>) -> impl Iterator<Item = Bytes> + Send + Sync {
        let head = self.head();
        let head_bytes = to_u64(head.len());
        let end = range.end.min(self.bytes);
        let mut offset = range.start;
        std::iter::from_fn(move || {
            if offset >= end {
                return None;
            }
            let (segment, within) = if offset < head_bytes {
                (head.clone(), offset)
            } else {
                self.segment(offset - head_bytes)
            };
            let left = to_u64(segment.len()) - within;
            let taken = left.min(end - offset);
            offset += taken;
            Some(segment.slice(to_usize(within)..to_usize(within + taken)))
        })
    }

    fn new(number: &str, bytes: &str) -> Option<Self> {
        let film = Self {
            number: number.parse().ok()?,
            bytes: bytes.parse().ok()?,
        };
        (film.bytes >= Self::BYTES_MIN).then_some(film)
    }

    /// A stretch of the payload that holds `offset`, and where in it that is.
    fn segment(self, offset: u64) -> (Bytes, u64) {
        let (block, within) = (offset / BLOCK_BYTES, offset % BLOCK_BYTES);
        if within < STAMP_BYTES {
            let stamp = [self.number.to_be_bytes(), block.to_be_bytes()].concat();
            (stamp.into(), within)
        } else {
            (NOISE.clone(), within)
        }
    }

    /// What an MP4 begins with: its type, an empty movie, and the head of the box that holds all the rest.
    fn head(self) -> Bytes {
        let kind = [b"isom".as_slice(), &[0, 0, 2, 0], b"isomiso2mp41"].concat();
        let movie = boxed(*b"moov", &boxed(*b"mvhd", &[0; 100]));
        let head = [boxed(*b"ftyp", &kind), movie].concat();
        // A size of 1 says that the real one, of 64 bits, follows the name.
        let media = self.bytes - to_u64(head.len());
        let media = [
            &1_u32.to_be_bytes(),
            b"mdat".as_slice(),
            &media.to_be_bytes(),
        ]
        .concat();
        [head, media].concat().into()
    }
}

fn boxed(name: [u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + body.len()).expect("a box of the head is small");
    [&size.to_be_bytes(), name.as_slice(), body].concat()
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("no slice is longer than the address space")
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("an offset within a slice is its length at most")
}
