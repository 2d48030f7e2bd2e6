//! What a body is: by its first bytes its kind, by its structure whether it is whole and what a player would show.
//!
//! ```text
//! sniff        the first SNIFF_BYTES -> a media type, or why it is none
//! walk::Walk   every frame, in order -> whole, broken or nothing to judge by; duration, size and codec
//! ```

mod codec;
mod gif;
mod iso;
mod jpeg;
mod kept;
mod levels;
mod matroska;
mod ogg;
mod png;
mod riff;
mod tracks;
pub mod walk;

use crate::model::asset::MediaType;

/// How much of a body is looked at before anything is written: every signature that we know fits.
pub const SNIFF_BYTES: usize = 512;

/// How each packet of an MPEG transport stream begins, and how long it is.
const TS_SYNC: u8 = 0x47;
const TS_PACKET: usize = 188;

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
    if let Some(kind) = iso_media(head).or_else(|| other_media(head)) {
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

/// Kinds that providers make and that are no video, picture or sound to others: broadcasts, models and what packs them.
fn other_media(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let is_packet = |at: usize| head.get(at) == Some(&TS_SYNC);
    if head.starts_with(b"glTF") {
        Some(("model/gltf-binary", "glb"))
    } else if head.starts_with(b"ply\n") || head.starts_with(b"ply\r\n") {
        Some(("model/ply", "ply"))
    } else if head.starts_with(b"PK\x03\x04") {
        Some(packed(head))
    } else if is_packet(0) && is_packet(TS_PACKET) {
        Some(("video/mp2t", "ts"))
    } else if matches!(head.get(..4), Some(b"RF64" | b"BW64")) && head.get(8..12) == Some(b"WAVE") {
        Some(("audio/x-wav", "wav"))
    } else {
        sound(head)
    }
}

/// A frame of sound without anything before it, by its first header: MPEG's layer 3 in all its versions, and AAC.
fn sound(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let [0xff, kind, rates, ..] = head else {
        return None;
    };
    // Neither the highest bit rate nor the highest sampling rate stands for one.
    let has_rates = rates & 0xf0 != 0xf0 && rates & 0x0c != 0x0c;
    match kind {
        0xe2 | 0xe3 | 0xf2 | 0xf3 | 0xfa | 0xfb if has_rates => Some(("audio/mpeg", "mp3")),
        0xf0 | 0xf1 | 0xf8 | 0xf9 => Some(("audio/aac", "aac")),
        _ => None,
    }
}

/// A ZIP archive; the kinds that are one are told by their first member.
fn packed(head: &[u8]) -> (&'static str, &'static str) {
    let length = match head.get(26..28) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        Some(_) | None => 0,
    };
    let name = head.get(30..30 + length).unwrap_or_default();
    let is_scene = |extension: &&[u8]| name.ends_with(extension);
    if [&b".usda"[..], b".usdc", b".usd"].iter().any(is_scene) {
        ("model/vnd.usdz+zip", "usdz")
    } else {
        ("application/zip", "zip")
    }
}

fn text(head: &[u8]) -> Option<NotMedia> {
    // Pages are known by how they begin, in whatever alphabet they go on.
    let begins: String = String::from_utf8_lossy(head)
        .trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace())
        .chars()
        .take(40)
        .collect();
    let lower = begins.to_ascii_lowercase();
    if lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<head") {
        return Some(NotMedia::Page(begins));
    }
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
    let kind = match begins.chars().next() {
        Some('{' | '[') => "JSON",
        // An image can be XML; it is told by its root element.
        Some('<') if !readable.contains("<svg") => "XML",
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_sniff(head: &[u8], outcome: &str) {
        let sniffed =
            sniff(head).map_or_else(|error| error.to_string(), |media| media.content_type);
        assert!(sniffed.starts_with(outcome), "{sniffed}");
    }

    #[test]
    fn kinds_by_their_first_bytes() {
        check_sniff(b"\0\0\0\x14ftypisom\0\0\x02\0", "video/mp4");
        check_sniff(b"\0\0\0\x14ftypqt  \0\0\0\0", "video/quicktime");
        let webm = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x84webm";
        check_sniff(&[&webm[..], &[0; 300]].concat(), "video/webm");
        check_sniff(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png");
        check_sniff(b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg");
        check_sniff(b"ID3\x04\0\0\0\0\0\0", "audio/mpeg");
        check_sniff(b"RIFF\x24\0\0\0WAVEfmt ", "audio/");
        check_sniff(b"RF64\xff\xff\xff\xffWAVEds64", "audio/x-wav");
        for kind in [0xe2, 0xe3, 0xf2, 0xf3, 0xfa, 0xfb] {
            check_sniff(&[0xff, kind, 0x40, 0xc4, 0, 0], "audio/mpeg");
        }
        for kind in [0xf0, 0xf1, 0xf8, 0xf9] {
            check_sniff(&[0xff, kind, 0x50, 0x80, 0, 0], "audio/aac");
        }
        check_sniff(&[0xff, 0xe3, 0xff, 0xff], "the body is of no media type");
        check_sniff(b"", "the body is empty");
        check_sniff(b"<!DOCTYPE html><title>Oops", "the body is a web page");
        check_sniff(b"\xef\xbb\xbf  <HTML lang=en>", "the body is a web page");
        check_sniff(b"{\"error\":{\"code\":\"expired\"}}", "the body is JSON");
        check_sniff(
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied",
            "the body is XML",
        );
        check_sniff(b"<html><title>Lien expir\xe9", "the body is a web page");
        check_sniff(b"link expired", "the body is text");
        check_sniff("zu sp\u{e4}t".as_bytes(), "the body is text");
        check_sniff(b"\x00\x01\x02\x03", "the body is of no media type");
        check_sniff(b"glTF\x02\0\0\0", "model/gltf-binary");
        check_sniff(b"ply\nformat ascii 1.0\n", "model/ply");
        check_sniff(b"ply\r\nformat", "model/ply");
        check_sniff(b"ply me with links", "the body is text");
        check_sniff(b"PK\x03\x04\x14\0\0\0", "application/zip");
        let zip = |name: &str| {
            let length = u8::try_from(name.len()).unwrap();
            [
                b"PK\x03\x04",
                &[0; 22][..],
                &[length, 0, 0, 0],
                name.as_bytes(),
                b"#usda",
            ]
            .concat()
        };
        check_sniff(&zip("scene.usdc"), "model/vnd.usdz+zip");
        check_sniff(&zip("frames/1.png"), "application/zip");
        let packet = |sync: u8| [&[sync][..], &[0xff; 187]].concat();
        check_sniff(&packet(0x47).repeat(2), "video/mp2t");
        check_sniff(
            &[packet(0x47), packet(0x48)].concat(),
            "the body is of no media type",
        );
        check_sniff(&packet(0x47), "the body is of no media type");
    }

    proptest! {
        #[test]
        fn no_head_panics_the_sniffer(bytes: Vec<u8>) {
            let _judged = sniff(&bytes).is_ok();
        }
    }
}
