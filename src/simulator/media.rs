//! Layouts of small but valid images and sounds: PNG, JPEG, MP3 and WAV.
//!
//! Each format has a place where bytes without meaning may stand (private chunks, comments, ancillary data): that
//! is where a file grows to the length that was asked for.

use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use crate::simulator::source::Fill;
use crate::simulator::source::Unit;
use crate::simulator::source::copy;
use crate::simulator::source::length_of;
use crate::simulator::source::length_of_count;
use crate::simulator::source::mix;
use crate::simulator::source::write_noise;

/// The length of a filling PNG chunk or JPEG comment, all of it included.
pub(super) const SEGMENT_BYTES: usize = 4096;

/// The length of an MPEG-1 layer III frame at 128 kbit/s and 44.1 kHz, without padding.
pub(super) const MP3_FRAME_BYTES: usize = 417;

/// Where the odd chunk's noise is taken from, so that it equals no other chunk's.
const ODD_NUMBER: u64 = u64::MAX / SEGMENT_BYTES_U64;
const SEGMENT_BYTES_U64: u64 = 4096;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Length, type and checksum around a PNG chunk's data.
const PNG_CHUNK_OVERHEAD: u64 = 12;

/// The side of the square picture in a PNG, in pixels.
const PNG_SIDE: u8 = 16;

/// A JPEG up to its comments: start of image, then the JFIF header.
const JPG_HEAD: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00";

/// Marker and length before a comment's text.
const JPG_COMMENT_OVERHEAD: u64 = 4;

/// An `ID3v2` tag without frames is this long.
const ID3_BYTES: u64 = 10;

/// Header and side information of an MP3 frame in mono: all zero side information means silence.
const MP3_FRAME_HEAD: [u8; 21] = {
    let mut head = [0; 21];
    head[0] = 0xff;
    head[1] = 0xfb;
    head[2] = 0x90;
    head[3] = 0xc0;
    head
};

/// A WAV's headers.
const WAV_HEAD_BYTES: u64 = 44;

/// A small grey picture, then private chunks.
pub(super) fn png(key: u64, length: u64) -> Vec<Fill> {
    let mut head = PNG_SIGNATURE.to_vec();
    let header = [0, 0, 0, PNG_SIDE, 0, 0, 0, PNG_SIDE, 8, 0, 0, 0, 0];
    head.extend(png_chunk(*b"IHDR", &header));
    head.extend(png_chunk(*b"IDAT", &png_pixels(key)));
    let tail = png_chunk(*b"IEND", &[]);
    let (odd, count) = split(
        length - length_of(&head) - length_of(&tail),
        PNG_CHUNK_OVERHEAD,
    );
    let mut chunk = vec![0; odd];
    write_png_chunk(key, ODD_NUMBER, &mut chunk);
    head.extend(chunk);
    vec![
        literal(head),
        Fill::Units(Unit::PngChunk, count),
        literal(tail),
    ]
}

/// Fills `out`, whatever its length, with one private chunk of noise.
pub(super) fn write_png_chunk(key: u64, number: u64, out: &mut [u8]) {
    write_noise(key, number.wrapping_mul(SEGMENT_BYTES_U64), out);
    let data = u32::try_from(out.len().saturating_sub(12)).unwrap_or(u32::MAX);
    copy(&data.to_be_bytes(), out);
    copy(b"rvNz", out.get_mut(4..).unwrap_or_default());
    let end = out.len().saturating_sub(4);
    let crc = crc32(out.get(4..end).unwrap_or_default());
    copy(&crc.to_be_bytes(), out.get_mut(end..).unwrap_or_default());
}

/// Comments, then a small grey picture.
pub(super) fn jpg(key: u64, length: u64) -> Vec<Fill> {
    let tail = jpg_picture();
    let (odd, count) = split(
        length - length_of(JPG_HEAD) - length_of(&tail),
        JPG_COMMENT_OVERHEAD,
    );
    let mut comment = vec![0; odd];
    write_jpg_comment(key, ODD_NUMBER, &mut comment);
    let head = [JPG_HEAD, &comment].concat();
    vec![
        literal(head),
        Fill::Units(Unit::JpgComment, count),
        literal(tail),
    ]
}

/// Fills `out`, whatever its length, with one comment of noise.
pub(super) fn write_jpg_comment(key: u64, number: u64, out: &mut [u8]) {
    write_noise(key, number.wrapping_mul(SEGMENT_BYTES_U64), out);
    let length = u16::try_from(out.len().saturating_sub(2)).unwrap_or(u16::MAX);
    copy(b"\xff\xfe", out);
    copy(&length.to_be_bytes(), out.get_mut(2..).unwrap_or_default());
}

/// An ID3 tag as long as it takes, then silent frames with noise as ancillary data.
pub(super) fn mp3(length: u64) -> Vec<Fill> {
    let frame = length_of_count(MP3_FRAME_BYTES);
    let odd = length % frame;
    let tag = if odd < ID3_BYTES { odd + frame } else { odd };
    let padding = tag - ID3_BYTES;
    let seven_bits = |shift: u32| u8::try_from((padding >> shift) & 0x7f).unwrap_or(0);
    let mut head = b"ID3\x03\x00\x00".to_vec();
    head.extend([21, 14, 7, 0].map(seven_bits));
    head.resize(usize::try_from(tag).unwrap_or(head.len()), 0);
    vec![
        literal(head),
        Fill::Units(Unit::Mp3Frame, (length - tag) / frame),
    ]
}

/// Fills `out` with one frame.
pub(super) fn write_mp3_frame(key: u64, number: u64, out: &mut [u8]) {
    write_noise(key, number.wrapping_mul(512), out);
    // Without its top bit no byte of the noise can begin what looks like a frame.
    for byte in out.iter_mut() {
        *byte &= 0x7f;
    }
    copy(&MP3_FRAME_HEAD, out);
}

/// Headers, then noise as samples of 8 bits, mono, 44.1 kHz. A file of odd length lacks the last byte of padding.
pub(super) fn wav(length: u64) -> Vec<Fill> {
    let samples = length - WAV_HEAD_BYTES;
    let mut head = b"RIFF".to_vec();
    head.extend(u32_of(length - 8).to_le_bytes());
    head.extend(b"WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00");
    head.extend(44_100_u32.to_le_bytes());
    head.extend(44_100_u32.to_le_bytes());
    head.extend(b"\x01\x00\x08\x00data");
    head.extend(u32_of(samples).to_le_bytes());
    vec![literal(head), Fill::Noise(samples)]
}

/// Cuts `length` into one odd piece, at least `overhead` long, and whole segments.
fn split(length: u64, overhead: u64) -> (usize, u64) {
    let odd = length % SEGMENT_BYTES_U64;
    let odd = if odd < overhead {
        odd + SEGMENT_BYTES_U64
    } else {
        odd
    };
    let count = length.saturating_sub(odd) / SEGMENT_BYTES_U64;
    (usize::try_from(odd).unwrap_or(usize::MAX), count)
}

fn png_chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind.as_slice(), data].concat();
    let mut chunk = u32_of(length_of(data)).to_be_bytes().to_vec();
    chunk.extend(&body);
    chunk.extend(crc32(&body).to_be_bytes());
    chunk
}

/// The rows of a grey picture as a zlib stream that does not compress.
fn png_pixels(key: u64) -> Vec<u8> {
    let shade = mix(key).to_le_bytes().into_iter().next().unwrap_or(0);
    let row = |y: u8| std::iter::once(0).chain((0..PNG_SIDE).map(move |x| shade ^ (x * y)));
    let rows: Vec<u8> = (0..PNG_SIDE).flat_map(row).collect();
    let length = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    let mut zlib = vec![0x78, 0x01, 0x01];
    zlib.extend(length.to_le_bytes());
    zlib.extend((!length).to_le_bytes());
    zlib.extend(&rows);
    zlib.extend(adler32(&rows).to_be_bytes());
    zlib
}

fn adler32(bytes: &[u8]) -> u32 {
    let sums = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (sums.1 << 16) | sums.0
}

fn crc32(bytes: &[u8]) -> u32 {
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes);
    u32::try_from(crc).unwrap_or(0)
}

/// 64 by 64 grey pixels: both Huffman tables have one code, `0`, for "no difference" and "end of block".
fn jpg_picture() -> Vec<u8> {
    let mut picture = b"\xff\xdb\x00\x43\x00".to_vec();
    picture.extend([1; 64]);
    picture.extend(b"\xff\xc0\x00\x0b\x08\x00\x40\x00\x40\x01\x01\x11\x00");
    for table in [0x00, 0x10] {
        picture.extend([0xff, 0xc4, 0x00, 0x14, table, 1]);
        picture.extend([0; 16]);
    }
    picture.extend(b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00");
    // 64 blocks of two bits each.
    picture.extend([0; 16]);
    picture.extend(b"\xff\xd9");
    picture
}

fn literal(bytes: Vec<u8>) -> Fill {
    Fill::Literal(Bytes::from(bytes))
}

fn u32_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::source::FileKind;
    use crate::simulator::source::FileSource;

    fn whole(kind: FileKind, length: u64) -> Vec<u8> {
        FileSource::new(kind, 3, length, 5)
            .bytes(0..length)
            .to_vec()
    }

    fn be32(bytes: &[u8]) -> usize {
        usize::try_from(u32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap()
    }

    #[test]
    fn png_chunks_add_up_and_their_checksums_hold() {
        for length in [4096, 8192, 8200, 50_003] {
            let file = whole(FileKind::Png, length);
            let mut rest = file.strip_prefix(PNG_SIGNATURE).unwrap();
            let mut kinds = Vec::new();
            while !rest.is_empty() {
                let size = be32(rest);
                kinds.push(rest[4..8].to_vec());
                let crc = crc32(&rest[4..8 + size]);
                assert_eq!(be32(&rest[8 + size..]), usize::try_from(crc).unwrap());
                rest = &rest[12 + size..];
            }
            assert_eq!(kinds.first().unwrap(), b"IHDR");
            assert_eq!(kinds.last().unwrap(), b"IEND");
        }
    }

    #[test]
    fn jpg_segments_add_up() {
        for length in [4096, 4097, 8400, 50_003] {
            let file = whole(FileKind::Jpg, length);
            let mut at = 2;
            while file[at..at + 2] != *b"\xff\xda" {
                assert_eq!(file[at], 0xff);
                at += 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            }
            assert_eq!(file.len() - at, 10 + 16 + 2);
            assert!(file.ends_with(b"\xff\xd9"));
        }
    }

    #[test]
    fn mp3_frames_follow_the_tag_to_the_end() {
        for length in [4096, 4170, 4179, 50_003] {
            let file = whole(FileKind::Mp3, length);
            let size = file[6..10]
                .iter()
                .fold(0, |sum, seven| (sum << 7) | usize::from(*seven));
            let frames = &file[10 + size..];
            assert_eq!(frames.len() % MP3_FRAME_BYTES, 0);
            for frame in frames.chunks(MP3_FRAME_BYTES) {
                assert!(frame.starts_with(&MP3_FRAME_HEAD));
            }
        }
    }

    #[test]
    fn wav_sizes_add_up() {
        for length in [4096, 4097] {
            let file = whole(FileKind::Wav, length);
            let le32 = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            assert_eq!(u64::from(le32(4)) + 8, length);
            assert_eq!(&file[36..40], b"data");
            assert_eq!(44 + u64::from(le32(40)), length);
        }
    }
}
