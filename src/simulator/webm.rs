//! WebM files of any length: headers, padding, then clusters of one noisy block each.
//!
//! ```text
//! EBML header | Segment( Info | Tracks | Void, as long as it takes | Cluster | Cluster ... )
//! ```

use bytes::Bytes;

use crate::simulator::source::Fill;
use crate::simulator::source::Unit;
use crate::simulator::source::copy;
use crate::simulator::source::length_of;
use crate::simulator::source::length_of_count;
use crate::simulator::source::write_noise;

/// One cluster, headers included.
pub(super) const CLUSTER_BYTES: usize = 4096;

/// Version 1, `DocType` "webm".
const EBML: &[u8] =
    b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\
    \x42\x82\x84webm\x42\x87\x81\x04\x42\x85\x81\x02";

/// Timestamps in milliseconds, written by "r".
const INFO: &[u8] = b"\x15\x49\xa9\x66\x8f\x2a\xd7\xb1\x83\x0f\x42\x40\x4d\x80\x81r\x57\x41\x81r";

/// One track of VP8, 64 by 64.
const TRACKS: &[u8] =
    b"\x16\x54\xae\x6b\x9b\xae\x99\xd7\x81\x01\x73\xc5\x81\x01\x83\x81\x01\x86\x85V_VP8\
    \xe0\x86\xb0\x81\x40\xba\x81\x40";

/// Where the content of a cluster's block begins: behind its ID and size, its time, and the block's ID and size.
const BLOCK_AT: usize = 17;

/// An ID of one byte and a size of eight.
const VOID_HEAD_BYTES: u64 = 9;

/// A `Segment` of the right length, its padding made of noise so that no stretch repeats.
pub(super) fn layout(length: u64) -> Vec<Fill> {
    let segment_head = length_of(b"\x18\x53\x80\x67") + 8;
    let fixed = length_of(EBML) + segment_head + length_of(INFO) + length_of(TRACKS);
    let rest = length - fixed - VOID_HEAD_BYTES;
    let cluster = length_of_count(CLUSTER_BYTES);
    let (void, clusters) = (rest % cluster, rest / cluster);
    let inside = length - length_of(EBML) - segment_head;
    let head = [
        EBML,
        b"\x18\x53\x80\x67",
        &long_size(inside),
        INFO,
        TRACKS,
        b"\xec",
        &long_size(void),
    ];
    vec![
        Fill::Literal(Bytes::from(head.concat())),
        Fill::Noise(void),
        Fill::Units(Unit::WebmCluster, clusters),
    ]
}

/// Fills `out` with one cluster.
pub(super) fn write_cluster(key: u64, number: u64, out: &mut [u8]) {
    write_noise(
        key,
        number.wrapping_mul(length_of_count(CLUSTER_BYTES)),
        out,
    );
    let inside = out.len().saturating_sub(8);
    let block = out.len().saturating_sub(BLOCK_AT);
    let head = [
        b"\x1f\x43\xb6\x75".as_slice(),
        &short_size(inside),
        b"\xe7\x82",
        &u16::try_from(number % 0x1_0000).unwrap_or(0).to_be_bytes(),
        b"\xa3",
        &short_size(block),
        b"\x81\x00\x00\x80",
    ];
    let head = head.concat();
    copy(&head, out);
}

/// A size in eight bytes.
fn long_size(size: u64) -> [u8; 8] {
    (size | 1 << 56).to_be_bytes()
}

/// A size in four bytes.
fn short_size(size: usize) -> [u8; 4] {
    let size = u32::try_from(size).unwrap_or(0);
    (size | 1 << 28).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::source::FileKind;
    use crate::simulator::source::FileSource;

    /// ID and content of the element at the beginning of `bytes`, and what follows it.
    fn element(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
        let id_length = usize::try_from(bytes[0].leading_zeros()).unwrap() + 1;
        let (id, rest) = bytes.split_at(id_length);
        let size_length = usize::try_from(rest[0].leading_zeros()).unwrap() + 1;
        let (size, rest) = rest.split_at(size_length);
        let size = size
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let size = size & !(1 << (7 * size_length));
        let (content, rest) = rest.split_at(usize::try_from(size).unwrap());
        (id, content, rest)
    }

    /// The IDs of the elements that fill `bytes` to the last one.
    fn ids(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut ids = Vec::new();
        while !bytes.is_empty() {
            let (id, _, rest) = element(bytes);
            ids.push(id.to_vec());
            bytes = rest;
        }
        ids
    }

    #[test]
    fn elements_add_up_at_every_level() {
        for length in [4096, 4097, 8192, 50_003] {
            let file = FileSource::new(FileKind::Webm, 3, length, 5)
                .bytes(0..length)
                .to_vec();
            let (_, header, rest) = element(&file);
            assert_eq!(ids(header).len(), 7);
            let (id, segment, rest) = element(rest);
            assert_eq!((id, rest.len()), (b"\x18\x53\x80\x67".as_slice(), 0));
            let children = ids(segment);
            assert_eq!(children[2], b"\xec");
            for cluster in &children[3..] {
                assert_eq!(cluster, b"\x1f\x43\xb6\x75");
            }
            let (_, tracks, _) = element(&segment[INFO.len()..]);
            assert_eq!(ids(element(tracks).1).len(), 5);
            if children.len() > 3 {
                let last = &segment[segment.len() - CLUSTER_BYTES..];
                let (_, inside, _) = element(last);
                assert_eq!(ids(inside), [b"\xe7".to_vec(), b"\xa3".to_vec()]);
            }
        }
    }
}
