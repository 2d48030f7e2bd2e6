//! Codecs as RFC 6381 spells them, from the first bytes of the configuration that stands beside a sample entry.

use std::fmt::Write as _;

use crate::model::asset::Codec;
use crate::origin::inspect::levels::Kind;

/// The four characters of a sample entry, where they are such.
pub(super) fn named(entry: Kind) -> Option<Codec> {
    std::str::from_utf8(&entry).ok()?.trim_end().parse().ok()
}

/// How much of a box with such a configuration [`spell`] wants to see; 0 for all other boxes.
pub(super) fn bytes_wanted(configuration: Kind) -> usize {
    match &configuration {
        b"avcC" | b"av1C" => 4,
        b"vpcC" => 7,
        b"hvcC" => 13,
        // Its lengths may take up to four bytes each.
        b"esds" => 40,
        _ => 0,
    }
}

/// The codec of a sample entry with its profile; `None` where the configuration does not tell or is another's.
pub(super) fn spell(entry: &str, configuration: Kind, field: &[u8]) -> Option<Codec> {
    let spelled = match (entry, &configuration) {
        ("avc1" | "avc3", b"avcC") => advanced(field),
        ("hvc1" | "hev1", b"hvcC") => high_efficiency(field),
        ("av01", b"av1C") => av1(field),
        ("vp08" | "vp09", b"vpcC") => vp9(field),
        ("mp4a", b"esds") => elementary(field),
        _ => None,
    };
    format!("{entry}.{}", spelled?).parse().ok()
}

fn advanced(field: &[u8]) -> Option<String> {
    let [_version, profile, compatibility, level, ..] = field else {
        return None;
    };
    Some(format!("{profile:02X}{compatibility:02X}{level:02X}"))
}

fn high_efficiency(field: &[u8]) -> Option<String> {
    let [_version, profile, rest @ ..] = field else {
        return None;
    };
    let (compatibility, rest) = rest.split_first_chunk::<4>()?;
    let (constraints, rest) = rest.split_first_chunk::<6>()?;
    let level = rest.first()?;
    let space = ["", "A", "B", "C"]
        .get(usize::from(profile >> 6))
        .copied()
        .unwrap_or_default();
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let compatibility = u32::from_be_bytes(*compatibility).reverse_bits();
    let mut spelled = format!("{space}{}.{compatibility:X}.{tier}{level}", profile & 0x1f);
    let told = constraints.iter().rposition(|byte| *byte != 0);
    for byte in constraints.iter().take(told.map_or(0, |last| last + 1)) {
        write!(spelled, ".{byte:X}").ok()?;
    }
    Some(spelled)
}

fn av1(field: &[u8]) -> Option<String> {
    let [_version, profile, depth, ..] = field else {
        return None;
    };
    let (level, profile) = (profile & 0x1f, profile >> 5);
    let tier = if depth & 0x80 == 0 { 'M' } else { 'H' };
    let bits = match (depth & 0x40 != 0, depth & 0x20 != 0) {
        (false, _) => 8,
        (true, true) if profile == 2 => 12,
        (true, _) => 10,
    };
    Some(format!("{profile}.{level:02}{tier}.{bits:02}"))
}

fn vp9(field: &[u8]) -> Option<String> {
    let [_, _, _, _, profile, level, depth, ..] = field else {
        return None;
    };
    Some(format!("{profile:02}.{level:02}.{:02}", depth >> 4))
}

/// MPEG-4's descriptors, one in the other: elementary stream (3), decoder configuration (4), decoder's own data (5).
fn elementary(field: &[u8]) -> Option<String> {
    const PLAIN_STREAM: u8 = 0;
    const FLAGS: u8 = 0xe0;
    const AUDIO_OF_MPEG4: u8 = 0x40;
    const LONG_OBJECT_TYPE: u8 = 31;
    let stream = descriptor(field.get(4..)?, 3)?;
    let [_, _, flags, rest @ ..] = stream else {
        return None;
    };
    let decoder = (flags & FLAGS == PLAIN_STREAM).then(|| descriptor(rest, 4))??;
    let format = *decoder.first()?;
    let mut spelled = format!("{format:02X}");
    if format == AUDIO_OF_MPEG4 {
        let own = descriptor(decoder.get(13..)?, 5)?;
        let first = *own.first()?;
        let object_type = match first >> 3 {
            LONG_OBJECT_TYPE => 32 + ((first & 7) << 3 | own.get(1)? >> 5),
            short => short,
        };
        write!(spelled, ".{object_type}").ok()?;
    }
    Some(spelled)
}

/// What follows the head of a descriptor with this tag; its length is left to the box around it.
fn descriptor(field: &[u8], tag: u8) -> Option<&[u8]> {
    let (first, rest) = field.split_first()?;
    let more = rest.iter().take(3).take_while(|byte| **byte & 0x80 != 0);
    (*first == tag)
        .then(|| rest.get(more.count() + 1..))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entry: &str, configuration: Kind, field: &[u8], expected: &str) {
        let spelled = spell(entry, configuration, field);
        let spelled = spelled.map_or_else(|| "none".to_owned(), |codec| codec.to_string());
        assert_eq!(spelled, expected);
        assert!(field.len() <= bytes_wanted(configuration));
    }

    #[test]
    fn codecs_are_spelled_as_players_want_them() {
        check("avc1", *b"avcC", &[1, 0x64, 0, 0x1f], "avc1.64001F");
        check("avc3", *b"avcC", &[1, 0x42, 0xc0, 0x29], "avc3.42C029");
        let main = [1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93];
        check("hvc1", *b"hvcC", &main, "hvc1.1.6.L93.90");
        let high = [1, 0x64, 0x10, 0, 0, 0, 0xb0, 0x23, 0, 0, 0, 0, 120];
        check("hev1", *b"hvcC", &high, "hev1.A4.8.H120.B0.23");
        check("av01", *b"av1C", &[0x81, 0x08, 0x0c, 0], "av01.0.08M.08");
        check("av01", *b"av1C", &[0x81, 0x4d, 0xe0, 0], "av01.2.13H.12");
        check(
            "vp09",
            *b"vpcC",
            &[1, 0, 0, 0, 2, 31, 0xa2],
            "vp09.02.31.10",
        );
        let short = [
            &[0, 0, 0, 0, 3, 25, 0, 1, 0, 4, 17, 0x40],
            &[0; 12][..],
            &[5, 2, 0x12],
        ];
        check("mp4a", *b"esds", &short.concat(), "mp4a.40.2");
        let long = [
            &[
                0, 0, 0, 0, 3, 0x80, 0x80, 0x80, 34, 0, 0, 0, 4, 0x80, 0x80, 0x80, 20, 0x40,
            ],
            &[0; 12][..],
            &[5, 0x80, 0x80, 0x80, 2, 0xf9, 0x40],
        ];
        check("mp4a", *b"esds", &long.concat(), "mp4a.40.42");
        let layer3 = [0, 0, 0, 0, 3, 25, 0, 1, 0, 4, 17, 0x6b];
        check("mp4a", *b"esds", &layer3, "mp4a.6B");
        check("dvh1", *b"hvcC", &main, "none");
        check("avc1", *b"avcC", &[1, 0x64, 0], "none");
        assert_eq!(named(*b"raw "), Some("raw".parse().unwrap()));
        assert_eq!(named([0, 1, 2, 0xff]), None);
    }
}
