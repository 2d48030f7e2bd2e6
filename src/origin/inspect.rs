//! What a body is by its own first bytes, and whether the top-level boxes of an MP4 add up to its length.
//!
//! ```text
//! sniff   the first SNIFF_BYTES -> a media type, or why it is none
//! Walk    every frame, in order -> size and kind of each top-level box; its state is 40 bytes and can be kept
//! ```

use crate::model::asset::MediaType;

/// How much of a body is looked at before anything is written: every signature that we know fits.
pub const SNIFF_BYTES: usize = 512;

/// Why a body is not media.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMedia {
    /// No byte at all.
    #[error("the body is empty")]
    Empty,
    /// A page for people.
    #[error("the body is a web page, not media: it begins {0:?}")]
    Page(String),
    /// A document for programs, most likely an error.
    #[error("the body is {kind}, not media: it begins {begins:?}")]
    Text {
        /// JSON, XML or plain text.
        kind: &'static str,
        /// The first characters.
        begins: String,
    },
    /// Media of no kind that we know.
    #[error("the body is of no media type that is known: it begins {0}")]
    Unknown(String),
}

/// Tells the media type from the first bytes of a body. Never asks the origin's `Content-Type`.
pub fn sniff(head: &[u8]) -> Result<MediaType, NotMedia> {
    if head.is_empty() {
        return Err(NotMedia::Empty);
    }
    if let Some(kind) = iso_media(head) {
        return Ok(media(kind.0, kind.1));
    }
    if let Some(not_media) = text(head) {
        return Err(not_media);
    }
    let known = infer::get(head).filter(|kind| {
        matches!(
            kind.matcher_type(),
            infer::MatcherType::Video | infer::MatcherType::Image | infer::MatcherType::Audio
        )
    });
    match known {
        Some(kind) => Ok(media(kind.mime_type(), kind.extension())),
        None => Err(NotMedia::Unknown(hexadecimal(head))),
    }
}

/// The type for a body that is archived whatever it is.
pub fn untyped() -> MediaType {
    media("application/octet-stream", "bin")
}

fn media(content_type: &str, extension: &str) -> MediaType {
    MediaType {
        content_type: content_type.to_owned(),
        extension: extension.to_owned(),
    }
}

/// The kinds that share the ISO base media format, by their major brand; video unless the brand says otherwise.
fn iso_media(head: &[u8]) -> Option<(&'static str, &'static str)> {
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    Some(match head.get(8..12)? {
        b"qt  " => ("video/quicktime", "mov"),
        b"M4A " | b"M4B " => ("audio/mp4", "m4a"),
        b"avif" | b"avis" => ("image/avif", "avif"),
        b"heic" | b"heix" | b"mif1" => ("image/heic", "heic"),
        b"3gp4" | b"3gp5" | b"3gp6" => ("video/3gpp", "3gp"),
        _ => ("video/mp4", "mp4"),
    })
}

fn text(head: &[u8]) -> Option<NotMedia> {
    let readable = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end inside a character.
        Err(error) if error.valid_up_to() + 4 > head.len() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let is_control = |c: char| c.is_control() && !c.is_whitespace();
    if readable.chars().any(is_control) {
        return None;
    }
    let trimmed = readable.trim_start_matches('\u{feff}').trim_start();
    let begins: String = trimmed.chars().take(40).collect();
    let lower = begins.to_ascii_lowercase();
    if lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<head") {
        return Some(NotMedia::Page(begins));
    }
    let kind = match trimmed.chars().next() {
        Some('{' | '[') => "JSON",
        // An image can be XML; it is told by its root element.
        Some('<') if !trimmed.contains("<svg") => "XML",
        Some('<') => return None,
        _ => "text",
    };
    Some(NotMedia::Text { kind, begins })
}

fn hexadecimal(head: &[u8]) -> String {
    let digits: Vec<String> = head
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    digits.join(" ")
}

/// Why the boxes of an MP4 do not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A box that reaches past the end of the body.
    #[error("the MP4 is cut off: box {kind:?} reaches to byte {end}, the body ends at {length}")]
    CutOff {
        /// The box.
        kind: String,
        /// The byte after its last.
        end: u64,
        /// The length of the body.
        length: u64,
    },
    /// A size that no box can have.
    #[error("the MP4 is damaged: the box at byte {at} has size {size}")]
    Size {
        /// Where the box begins.
        at: u64,
        /// Its size as it stands there.
        size: u64,
    },
    /// A box without which nothing plays.
    #[error("the MP4 has no {0:?} box")]
    Lacks(&'static str),
}

/// Walks the top-level boxes of an ISO media file as its bytes go by, in order.
///
/// For other kinds of file it takes the bytes and has nothing to say at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    is_iso: Option<bool>,
    position: u64,
    box_start: u64,
    box_end: u64,
    kind: [u8; 4],
    header: Vec<u8>,
    seen: u8,
    damage: Option<(u64, u64)>,
}

/// The boxes without which a file is no film, and the bit of each in [`Walk::seen`].
const NEEDED: [(&str, [u8; 4]); 3] = [("ftyp", *b"ftyp"), ("moov", *b"moov"), ("mdat", *b"mdat")];

/// A box header with a 64-bit size.
const HEADER_BYTES_MAX: usize = 16;

/// The end of a box that reaches to the end of the file, as its header may say.
const TO_THE_END: u64 = u64::MAX;

impl Walk {
    /// A walk that has seen nothing.
    pub fn new() -> Self {
        Self {
            is_iso: None,
            position: 0,
            box_start: 0,
            box_end: 0,
            kind: [0; 4],
            header: Vec::new(),
            seen: 0,
            damage: None,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.is_iso == Some(false) || self.damage.is_some() {
                self.position += length(bytes);
                return;
            }
            if self.position < self.box_end {
                let skipped = (self.box_end - self.position).min(length(bytes));
                self.position += skipped;
                bytes = bytes
                    .get(usize::try_from(skipped).unwrap_or(usize::MAX)..)
                    .unwrap_or_default();
            } else if let Some((byte, rest)) = bytes.split_first() {
                self.take_header_byte(*byte);
                bytes = rest;
            }
        }
    }

    /// Judges the whole body: `Ok(true)` when the boxes add up, `Ok(false)` when it has none to judge by.
    pub fn finish(&self) -> Result<bool, Broken> {
        if self.is_iso != Some(true) {
            return Ok(false);
        }
        if let Some((at, size)) = self.damage {
            return Err(Broken::Size { at, size });
        }
        let is_inside_header = !self.header.is_empty();
        let is_open = self.box_end != TO_THE_END && self.position < self.box_end;
        if is_inside_header || is_open {
            return Err(Broken::CutOff {
                kind: if is_inside_header {
                    "?".to_owned()
                } else {
                    printable(self.kind)
                },
                end: self.box_end.max(self.position + 1),
                length: self.position,
            });
        }
        let lacking = NEEDED
            .iter()
            .enumerate()
            .find(|(bit, _)| self.seen & (1 << bit) == 0);
        lacking.map_or(Ok(true), |(_, (name, _))| Err(Broken::Lacks(name)))
    }

    /// The state after all bytes so far, to be kept beside a part.
    pub fn save(&self) -> Vec<u8> {
        let mut state = vec![match self.is_iso {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        }];
        state.push(self.seen);
        state.extend(self.kind);
        let (at, size) = self.damage.unwrap_or((u64::MAX, u64::MAX));
        for number in [self.position, self.box_start, self.box_end, at, size] {
            state.extend(number.to_le_bytes());
        }
        state.extend(&self.header);
        state
    }

    /// Takes up where [`Walk::save`] left off. `None` when `state` is not such a state.
    pub fn load(state: &[u8]) -> Option<Self> {
        let (is_iso, rest) = state.split_first()?;
        let (seen, rest) = rest.split_first()?;
        let (kind, mut rest) = rest.split_first_chunk::<4>()?;
        let mut next = || -> Option<u64> {
            let (number, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*number))
        };
        let (position, box_start, box_end) = (next()?, next()?, next()?);
        let (at, size) = (next()?, next()?);
        if rest.len() >= HEADER_BYTES_MAX || *is_iso > 2 {
            return None;
        }
        Some(Self {
            is_iso: [None, Some(false), Some(true)]
                .get(usize::from(*is_iso))
                .copied()?,
            position,
            box_start,
            box_end,
            kind: *kind,
            header: rest.to_vec(),
            seen: *seen,
            damage: (at != u64::MAX).then_some((at, size)),
        })
    }

    fn take_header_byte(&mut self, byte: u8) {
        if self.header.is_empty() {
            self.box_start = self.position;
        }
        self.header.push(byte);
        self.position += 1;
        let Some((short, rest)) = self.header.split_first_chunk::<4>() else {
            return;
        };
        let Some(kind) = rest.first_chunk::<4>() else {
            return;
        };
        let kind = *kind;
        if self.is_iso.is_none() {
            self.is_iso = Some(&kind == b"ftyp");
        }
        let (size, header_length) = match u32::from_be_bytes(*short) {
            0 => (TO_THE_END, 8),
            1 => match rest.get(4..).and_then(<[u8]>::first_chunk::<8>) {
                Some(long) => (u64::from_be_bytes(*long), 16),
                None => return,
            },
            short => (u64::from(short), 8),
        };
        self.begin_box(kind, size, header_length);
    }

    fn begin_box(&mut self, kind: [u8; 4], size: u64, header_length: u64) {
        self.header.clear();
        self.kind = kind;
        if size < header_length {
            self.damage = Some((self.box_start, size));
            return;
        }
        self.box_end = self.box_start.saturating_add(size);
        for (bit, (_, needed)) in NEEDED.iter().enumerate() {
            // A still image has its tables in a `meta` box where a film has a `moov`.
            if *needed == kind || (*needed == *b"moov" && kind == *b"meta") {
                self.seen |= 1 << bit;
            }
        }
    }
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn printable(kind: [u8; 4]) -> String {
    kind.iter()
        .map(|byte| {
            if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '.'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn iso_box(kind: [u8; 4], content: usize) -> Vec<u8> {
        let size = u32::try_from(content + 8).unwrap();
        [&size.to_be_bytes()[..], &kind, &vec![7; content]].concat()
    }

    fn film() -> Vec<u8> {
        let long = [
            &1_u32.to_be_bytes()[..],
            b"mdat",
            &(16_u64 + 300).to_be_bytes(),
            &[9; 300],
        ]
        .concat();
        [
            iso_box(*b"ftyp", 12),
            iso_box(*b"moov", 200),
            iso_box(*b"free", 0),
            long,
        ]
        .concat()
    }

    #[track_caller]
    fn check_walk(body: &[u8], outcome: Result<bool, &str>) {
        let mut walk = Walk::new();
        walk.update(body);
        assert_eq!(
            walk.finish().map_err(|error| error.to_string()),
            outcome.map_err(str::to_owned)
        );
    }

    #[test]
    fn boxes_that_add_up_and_boxes_that_do_not() {
        let film = film();
        check_walk(&film, Ok(true));
        check_walk(
            &film[..film.len() - 1],
            Err("the MP4 is cut off: box \"mdat\" reaches to byte 552, the body ends at 551"),
        );
        check_walk(&film[..236], Err("the MP4 has no \"mdat\" box"));
        check_walk(
            &[film.clone(), vec![0, 0]].concat(),
            Err("the MP4 is cut off: box \"?\" reaches to byte 555, the body ends at 554"),
        );
        let open_ended = [
            iso_box(*b"ftyp", 4),
            iso_box(*b"moov", 4),
            vec![0, 0, 0, 0],
            b"mdat...".to_vec(),
        ]
        .concat();
        check_walk(&open_ended, Ok(true));
        let damaged = [iso_box(*b"ftyp", 4), vec![0, 0, 0, 7], b"moov".to_vec()].concat();
        check_walk(
            &damaged,
            Err("the MP4 is damaged: the box at byte 12 has size 7"),
        );
        let still = [
            iso_box(*b"ftyp", 4),
            iso_box(*b"meta", 4),
            iso_box(*b"mdat", 4),
        ];
        check_walk(&still.concat(), Ok(true));
        check_walk(b"\x89PNG\r\n\x1a\n and so on", Ok(false));
        check_walk(b"", Ok(false));
    }

    #[test]
    fn a_walk_taken_up_again_anywhere_ends_the_same() {
        let film = film();
        for cut in 0..film.len() {
            let mut first = Walk::new();
            first.update(&film[..cut]);
            let mut second = Walk::load(&first.save()).unwrap();
            assert_eq!(second, first);
            second.update(&film[cut..]);
            assert_eq!(second.finish(), Ok(true), "cut at {cut}");
        }
    }

    #[track_caller]
    fn check_sniff(head: &[u8], outcome: &str) {
        let sniffed =
            sniff(head).map_or_else(|error| error.to_string(), |media| media.content_type);
        assert!(sniffed.starts_with(outcome), "{sniffed}");
    }

    #[test]
    fn kinds_by_their_first_bytes() {
        check_sniff(&film(), "video/mp4");
        check_sniff(b"\0\0\0\x14ftypqt  \0\0\0\0", "video/quicktime");
        let webm = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x84webm";
        check_sniff(&[&webm[..], &[0; 300]].concat(), "video/webm");
        check_sniff(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png");
        check_sniff(b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg");
        check_sniff(b"ID3\x04\0\0\0\0\0\0", "audio/mpeg");
        check_sniff(b"RIFF\x24\0\0\0WAVEfmt ", "audio/");
        check_sniff(b"", "the body is empty");
        check_sniff(b"<!DOCTYPE html><title>Oops", "the body is a web page");
        check_sniff(b"\xef\xbb\xbf  <HTML lang=en>", "the body is a web page");
        check_sniff(b"{\"error\":{\"code\":\"expired\"}}", "the body is JSON");
        check_sniff(
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied",
            "the body is XML",
        );
        check_sniff(b"link expired", "the body is text");
        check_sniff("zu sp\u{e4}t".as_bytes(), "the body is text");
        check_sniff(b"\x00\x01\x02\x03", "the body is of no media type");
        check_sniff(b"PK\x03\x04\x14\0\0\0", "the body is of no media type");
    }

    proptest! {
        #[test]
        fn no_body_panics_the_gates(bytes: Vec<u8>, cut in 0_usize..64) {
            let cut = cut.min(bytes.len());
            let mut walk = Walk::new();
            walk.update(&bytes[..cut]);
            walk.update(&bytes[cut..]);
            let mut whole = Walk::new();
            whole.update(&bytes);
            prop_assert_eq!(&walk, &whole);
            let _judged = (walk.finish().is_ok(), sniff(&bytes).is_ok(), Walk::load(&bytes).is_some());
        }
    }
}
