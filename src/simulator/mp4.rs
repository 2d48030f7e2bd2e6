//! MP4 files that play: boxes as players want them, and H.264 pictures that need no encoder.
//!
//! H.264 lets a picture carry its samples as they are (`I_PCM` macroblocks). All pictures of a file then have one
//! length, so that any byte of any picture can be made without the others. What the pictures leave of the wanted length
//! stands as noise at the end of `mdat`, where no sample table points to.
//!
//! ```text
//! ftyp | moov: mvhd, trak (tkhd, mdia: mdhd, hdlr, minf: vmhd, dinf, stbl) | mdat: picture, picture, ..., noise
//! ```

use bytes::Bytes;

use crate::simulator::source::Fill;
use crate::simulator::source::Unit;
use crate::simulator::source::copy;
use crate::simulator::source::length_of;
use crate::simulator::source::length_of_count;
use crate::simulator::source::mix;
use crate::simulator::source::noise;

/// The picture sizes in macroblocks of 16 by 16 pixels with their pictures a second, the best first: the first
/// that fits into a file is taken.
const LADDER: [(u16, u16, u32); 6] = [
    (20, 11, 24),
    (10, 6, 24),
    (4, 3, 12),
    (1, 1, 12),
    (1, 1, 4),
    (1, 1, 1),
];

/// Ticks a second of the video's time; a multiple of every rate in [`LADDER`].
const TICKS_A_SECOND: u32 = 12_000;

/// The samples of a macroblock: 256 of brightness, 64 of each colour difference.
const MACROBLOCK_BYTES: usize = 384;

/// What precedes the samples of every macroblock but the first: its type, `I_PCM` (code number 25), and alignment.
const MACROBLOCK_HEAD: [u8; 2] = [0x0d, 0x00];

/// What precedes the first: NAL unit header (IDR slice) and slice header, then as [`MACROBLOCK_HEAD`].
/// Neighbouring IDR pictures must differ in `idr_pic_id`, hence one head for even and one for odd numbers.
const EVEN_HEAD: [u8; 5] = [0x65, 0x88, 0x84, 0x86, 0x80];
const ODD_HEAD: [u8; 5] = [0x65, 0x88, 0x82, 0x21, 0xa0];

/// The length field before each NAL unit.
const LENGTH_FIELD_BYTES: usize = 4;

/// The stop bit that ends a slice.
const SLICE_END: u8 = 0x80;

/// The picture parameters: CAVLC, one slice group, everything else absent or zero.
const PICTURE_PARAMETERS: [u8; 4] = [0x68, 0xce, 0x38, 0x80];

/// Keeps the pictures' noise apart from the noise around them.
const PICTURE_SALT: u64 = 0x7069_6374_7572_6573;

/// The largest box whose length fits the short header.
const SHORT_BOX_MAX: u64 = 0xffff_ffff;

/// How the pictures of one file look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    columns: u16,
    rows: u16,
}

/// The shape of a whole video.
#[derive(Clone, Copy, Debug)]
struct Video {
    picture: Picture,
    count: u32,
    seconds: u32,
}

/// The regions of a video of exactly `length` bytes that plays for `seconds`.
pub(super) fn layout(length: u64, seconds: u32) -> Vec<Fill> {
    let video = Video::fitting(length, seconds);
    let mut head = [file_type(), movie(&video, 0)].concat();
    let body = length - length_of(&head);
    let is_short = body <= SHORT_BOX_MAX;
    let first_picture = length_of(&head) + if is_short { 8 } else { 16 };
    head = [file_type(), movie(&video, u32_of(first_picture))].concat();
    if is_short {
        head.extend(u32_of(body).to_be_bytes());
        head.extend(b"mdat");
    } else {
        head.extend(b"\x00\x00\x00\x01mdat");
        head.extend(body.to_be_bytes());
    }
    let noise = length - length_of(&head) - video.pictures_length();
    vec![
        Fill::Literal(Bytes::from(head)),
        Fill::Units(Unit::Picture(video.picture), u64::from(video.count)),
        Fill::Noise(noise),
    ]
}

impl Video {
    /// The best video that leaves room for the headers; one small picture always fits.
    fn fitting(length: u64, seconds: u32) -> Video {
        let head_room = length_of(&movie(&Video::single(seconds), 0)) + 64;
        let room = length.saturating_sub(head_room);
        let videos = LADDER.iter().map(|(columns, rows, rate)| Video {
            picture: Picture {
                columns: *columns,
                rows: *rows,
            },
            count: rate.saturating_mul(seconds),
            seconds,
        });
        let fits = |video: &Video| video.pictures_length() <= room;
        let mut videos = videos.filter(fits);
        videos.next().unwrap_or(Video::single(seconds))
    }

    fn single(seconds: u32) -> Video {
        let picture = Picture {
            columns: 1,
            rows: 1,
        };
        Video {
            picture,
            count: 1,
            seconds,
        }
    }

    fn pictures_length(&self) -> u64 {
        u64::from(self.count) * length_of_count(self.picture.length())
    }

    fn ticks(&self) -> u32 {
        self.seconds.saturating_mul(TICKS_A_SECOND)
    }
}

impl Picture {
    /// The bytes of one picture, its length field included.
    pub(super) fn length(self) -> usize {
        let macroblocks = usize::from(self.columns) * usize::from(self.rows);
        let heads = EVEN_HEAD.len() + (macroblocks - 1) * MACROBLOCK_HEAD.len();
        LENGTH_FIELD_BYTES + heads + macroblocks * MACROBLOCK_BYTES + 1
    }

    /// Fills `out`, which is as long as a picture, with picture `number`.
    pub(super) fn write(self, key: u64, number: u64, out: &mut [u8]) {
        let key = mix(key ^ PICTURE_SALT).wrapping_add(number << 32);
        let unit = u32::try_from(self.length() - LENGTH_FIELD_BYTES).unwrap_or(u32::MAX);
        copy(&unit.to_be_bytes(), out);
        let first = if number.is_multiple_of(2) {
            EVEN_HEAD
        } else {
            ODD_HEAD
        };
        let mut rest = out.get_mut(LENGTH_FIELD_BYTES..).unwrap_or_default();
        let mut head = first.as_slice();
        let blocks =
            (0..self.rows).flat_map(|row| (0..self.columns).map(move |column| (row, column)));
        for (index, (row, column)) in (0_u64..).zip(blocks) {
            copy(head, rest);
            rest = rest.get_mut(head.len()..).unwrap_or_default();
            let (samples, later) = rest.split_at_mut(MACROBLOCK_BYTES.min(rest.len()));
            write_samples(key, number, index, row + column, samples);
            (rest, head) = (later, &MACROBLOCK_HEAD);
        }
        copy(&[SLICE_END], rest);
    }
}

/// A wandering slope of brightness under one tint, both with noise in their low bits. No sample is ever zero, so that
/// no start code can appear that would have to be escaped.
fn write_samples(key: u64, number: u64, index: u64, diagonal: u16, out: &mut [u8]) {
    const EACH_BYTE: u64 = 0x0101_0101_0101_0101;
    let slope = (u64::from(diagonal) * 12 + number * 3) % 320;
    let brightness = 32 + if slope < 160 { slope } else { 319 - slope };
    let tint = [64 + mix(number / 48) % 120, 64 + mix(number / 48 + 1) % 120];
    for (place, word) in (0_u64..).zip(out.chunks_exact_mut(8)) {
        let random = noise(key, index * 64 + place);
        let (base, grain) = match place {
            0..32 => (brightness, 0x1f),
            32..40 => (tint[0], 0x07),
            _ => (tint[1], 0x07),
        };
        let samples = base * EACH_BYTE + (random & (grain * EACH_BYTE));
        word.copy_from_slice(&samples.to_le_bytes());
    }
}

fn file_type() -> Vec<u8> {
    boxed(*b"ftyp", &[b"isom\x00\x00\x02\x00isomiso2avc1mp41"])
}

fn movie(video: &Video, first_picture: u32) -> Vec<u8> {
    let header = boxed(
        *b"mvhd",
        &[
            &words(&[
                0,
                0,
                0,
                TICKS_A_SECOND,
                video.ticks(),
                0x0001_0000,
                0x0100_0000,
                0,
                0,
            ]),
            &matrix(),
            &words(&[0, 0, 0, 0, 0, 0, 2]),
        ],
    );
    boxed(*b"moov", &[&header, &track(video, first_picture)])
}

fn track(video: &Video, first_picture: u32) -> Vec<u8> {
    let Picture { columns, rows } = video.picture;
    // Version 0, flags: enabled, in the movie, in the preview.
    let header = boxed(
        *b"tkhd",
        &[
            &words(&[7, 0, 0, 1, 0, video.ticks(), 0, 0, 0, 0]),
            &matrix(),
            &words(&[u32::from(columns) << 20, u32::from(rows) << 20]),
        ],
    );
    let language_undetermined = 0x55c4_0000;
    let media_header = boxed(
        *b"mdhd",
        &[&words(&[
            0,
            0,
            0,
            TICKS_A_SECOND,
            video.ticks(),
            language_undetermined,
        ])],
    );
    let handler = boxed(
        *b"hdlr",
        &[&words(&[0, 0]), b"vide", &words(&[0, 0, 0]), b"pictures\0"],
    );
    let media = [
        media_header,
        handler,
        media_information(video, first_picture),
    ];
    boxed(*b"trak", &[&header, &boxed(*b"mdia", &[&media.concat()])])
}

fn media_information(video: &Video, first_picture: u32) -> Vec<u8> {
    let video_header = boxed(*b"vmhd", &[&words(&[1, 0, 0])]);
    let here = boxed(*b"url ", &[&words(&[1])]);
    let references = boxed(*b"dref", &[&words(&[0, 1]), &here]);
    let location = boxed(*b"dinf", &[&references]);
    boxed(
        *b"minf",
        &[
            &video_header,
            &location,
            &sample_table(video, first_picture),
        ],
    )
}

/// All pictures have one length and one duration and stand in one chunk; each can be decoded by itself.
fn sample_table(video: &Video, first_picture: u32) -> Vec<u8> {
    let ticks = video.ticks() / video.count.max(1);
    let length = u32::try_from(video.picture.length()).unwrap_or(u32::MAX);
    let table = [
        boxed(*b"stsd", &[&words(&[0, 1]), &sample_entry(video.picture)]),
        boxed(*b"stts", &[&words(&[0, 1, video.count, ticks])]),
        boxed(*b"stsc", &[&words(&[0, 1, 1, video.count, 1])]),
        boxed(*b"stsz", &[&words(&[0, length, video.count])]),
        boxed(*b"stco", &[&words(&[0, 1, first_picture])]),
    ];
    boxed(*b"stbl", &[&table.concat()])
}

fn sample_entry(picture: Picture) -> Vec<u8> {
    let (width, height) = (
        u32::from(picture.columns) * 16,
        u32::from(picture.rows) * 16,
    );
    let sequence = sequence_parameters(picture);
    let sequence_length = u16::try_from(sequence.len()).unwrap_or(u16::MAX);
    let configuration = boxed(
        *b"avcC",
        &[
            // Version, profile, compatibility and level as in the sequence parameters; lengths of 4 bytes; one set.
            &[1, 66, 0xc0, 41, 0xff, 0xe1],
            &sequence_length.to_be_bytes(),
            &sequence,
            &[1, 0, 4],
            &PICTURE_PARAMETERS,
        ],
    );
    boxed(
        *b"avc1",
        &[
            &words(&[
                0,
                1,
                0,
                0,
                0,
                0,
                (width << 16) | height,
                0x0048_0000,
                0x0048_0000,
                0,
            ]),
            // One picture a sample, no compressor's name, 24 bits of colour, no colour table.
            &[0, 1],
            &[0; 32],
            &[0, 24, 0xff, 0xff],
            &configuration,
        ],
    )
}

/// Baseline profile, level 4.1, pictures in decoding order.
fn sequence_parameters(picture: Picture) -> Vec<u8> {
    let mut bits = Bits::default();
    // Parameter set 0; 4 bits of frame number; picture order type 2; one reference picture; no gaps.
    bits.golomb(0);
    bits.golomb(0);
    bits.golomb(2);
    bits.golomb(1);
    bits.push(false);
    bits.golomb(u32::from(picture.columns) - 1);
    bits.golomb(u32::from(picture.rows) - 1);
    // Frames only; direct 8x8 inference; no cropping; no usability information; the stop bit.
    for bit in [true, true, false, false, true] {
        bits.push(bit);
    }
    [&[0x67, 66, 0xc0, 41], bits.bytes().as_slice()].concat()
}

/// Bits, most significant first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn push(&mut self, bit: bool) {
        self.0.push(bit);
    }

    /// An unsigned Exp-Golomb code.
    fn golomb(&mut self, value: u32) {
        let code = value + 1;
        let length = 32 - code.leading_zeros();
        (1..length).for_each(|_| self.push(false));
        (0..length)
            .rev()
            .for_each(|bit| self.push((code >> bit) & 1 == 1));
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            (0..8).fold(0, |byte, at| {
                (byte << 1) | u8::from(bits.get(at) == Some(&true))
            })
        };
        self.0.chunks(8).map(byte).collect()
    }
}

fn boxed(kind: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut whole = u32_of(length_of(&body) + 8).to_be_bytes().to_vec();
    whole.extend(kind);
    whole.extend(body);
    whole
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The unity matrix: neither turned nor scaled.
fn matrix() -> Vec<u8> {
    words(&[0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000])
}

fn u32_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::source::FileKind;
    use crate::simulator::source::FileSource;

    type Found = Vec<(String, Vec<u8>)>;

    fn be32(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Walks boxes, going into those that hold boxes; fails where lengths do not add up.
    fn walk(mut bytes: &[u8], path: &str, found: &mut Found) {
        while !bytes.is_empty() {
            let size = usize::try_from(be32(bytes, 0)).unwrap();
            assert!(
                (8..=bytes.len()).contains(&size),
                "{path}: {size} of {}",
                bytes.len()
            );
            let kind = std::str::from_utf8(&bytes[4..8]).unwrap();
            let path = format!("{path}/{kind}");
            let body = &bytes[8..size];
            match kind {
                "moov" | "trak" | "mdia" | "minf" | "dinf" | "stbl" => walk(body, &path, found),
                "stsd" | "dref" => walk(&body[8..], &path, found),
                "avc1" => walk(&body[78..], &path, found),
                _ => {}
            }
            found.push((path, body.to_vec()));
            bytes = &bytes[size..];
        }
    }

    fn boxes(length: u64, seconds: u32) -> Found {
        let source = FileSource::new(FileKind::Mp4, 5, length, seconds);
        let mut found = Found::new();
        walk(&source.bytes(0..source.length()), "", &mut found);
        found
    }

    fn body<'a>(found: &'a Found, end: &str) -> &'a [u8] {
        let of = |(path, _): &&(String, Vec<u8>)| path.ends_with(end);
        &found
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("no {end}"))
            .1
    }

    #[test]
    fn boxes_add_up_at_every_size_and_tell_duration_and_dimensions() {
        for length in [4096, 5000, 30_000, 300_000, 4 << 20, (11 << 20) + 1] {
            let found = boxes(length, 5);
            let mvhd = body(&found, "/mvhd");
            assert_eq!(mvhd.len(), 100);
            assert_eq!(be32(mvhd, 16) / be32(mvhd, 12), 5);
            let tkhd = body(&found, "/tkhd");
            assert_eq!(tkhd.len(), 84);
            let avc1 = body(&found, "/avc1");
            let width = u32::from(u16::from_be_bytes([avc1[24], avc1[25]]));
            assert_eq!(be32(tkhd, 76) >> 16, width);
            assert_eq!(width % 16, 0);
            let stts = body(&found, "/stts");
            assert_eq!(be32(stts, 8) * be32(stts, 12), 5 * TICKS_A_SECOND);
            assert_eq!(body(&found, "/hdlr")[8..12], *b"vide");
            assert_eq!(body(&found, "/avcC")[..4], [1, 66, 0xc0, 41]);
        }
    }

    #[test]
    fn the_sample_table_points_at_slices() {
        for length in [4096, 300_000, 4 << 20] {
            let found = boxes(length, 3);
            let source = FileSource::new(FileKind::Mp4, 5, length, 3);
            let (size, count) = (
                be32(body(&found, "/stsz"), 4),
                be32(body(&found, "/stsz"), 8),
            );
            let first = be32(body(&found, "/stco"), 8);
            for number in 0..count {
                let start = u64::from(first + number * size);
                let picture = source.bytes(start..start + u64::from(size));
                assert_eq!(be32(&picture, 0), size - 4);
                assert_eq!(picture[4], 0x65);
                let escaped = |three: &[u8]| three[..2] == [0, 0] && three[2] <= 3;
                assert!(
                    !picture[4..].windows(3).any(escaped),
                    "picture {number} needs escapes"
                );
            }
        }
    }

    #[test]
    fn beyond_four_gigabytes_the_length_is_long() {
        let length = (5 << 30) + 3;
        let source = FileSource::new(FileKind::Mp4, 5, length, 5);
        let head = source.bytes(0..2048);
        let at = head.windows(4).position(|four| four == b"mdat").unwrap();
        assert_eq!(be32(&head, at - 4), 1);
        let body = u64::from_be_bytes(head[at + 4..at + 12].try_into().unwrap());
        assert_eq!(u64::try_from(at - 4).unwrap() + body, length);
        assert_eq!(source.bytes(length - 5..length).len(), 5);
    }
}
