//! Bodies of every kind: whole, cut, damaged, appended to, in any frames and taken up again anywhere.

use proptest::prelude::*;

use super::*;
use crate::origin::inspect::walk::tests::bodies::*;
use crate::units::Span;

mod bodies;

fn walked(body: &[u8]) -> Walk {
    let mut walk = Walk::new();
    walk.update(body);
    walk
}

#[track_caller]
fn check_walk(body: &[u8], outcome: Result<bool, &str>) {
    let judged = walked(body).finish().map_err(|error| error.to_string());
    assert_eq!(judged, outcome.map_err(str::to_owned));
}

#[track_caller]
fn check_details(body: &[u8], expected: &str) {
    let details = walked(body).details();
    let number = |side: Option<u32>| side.map_or("-".to_owned(), |side| side.to_string());
    let told = format!(
        "{} ms, {} x {}, {}",
        details.duration.map_or(0, Span::as_millis_i64),
        number(details.width),
        number(details.height),
        details
            .codec
            .map_or("-".to_owned(), |codec| codec.to_string()),
    );
    assert_eq!(told, expected);
}

fn with(body: &[u8], more: &[u8]) -> Vec<u8> {
    [body, more].concat()
}

fn without(body: &[u8], less: usize) -> &[u8] {
    &body[..body.len() - less]
}

#[test]
fn boxes_that_add_up_and_boxes_that_do_not() {
    let film = film();
    let (end, head) = (film.len(), film.len() - 316);
    check_walk(&film, Ok(true));
    let cut = format!(
        "the MP4 is cut off: box \"mdat\" reaches to byte {end}, the body ends at {}",
        end - 1
    );
    check_walk(without(&film, 1), Err(&cut));
    check_walk(&film[..head], Err("the MP4 has no \"mdat\" box"));
    let cut = format!(
        "the MP4 is cut off: box \"?\" reaches to byte {}, the body ends at {}",
        head + 4,
        head + 3
    );
    check_walk(&film[..head + 3], Err(&cut));
    let type_only = boxed(*b"ftyp", &[&zeros(8)]);
    let (free, media) = (boxed(*b"free", &[&zeros(9)]), boxed(*b"mdat", &[&zeros(9)]));
    let without_tables = [&type_only[..], &free, &media].concat();
    check_walk(&without_tables, Err("the MP4 has no \"moov\" box"));
    let damaged = with(&type_only, b"\0\0\0\x07moov");
    let damage = "the MP4 is damaged: the box at byte 16 has size 7";
    check_walk(&damaged, Err(damage));
}

#[test]
fn films_that_play_are_not_refused_for_what_follows() {
    let film = film();
    for junk in [
        &[0, 0][..],
        &[0; 4],
        &[0; 8],
        &[0; 4096],
        b"\r\n",
        b"\0\0\0\x05oops",
        b"appended by a proxy",
    ] {
        check_walk(&with(&film, junk), Ok(false));
    }
    // Boxes of any name whose sizes add up are boxes.
    for kind in [*b"free", *b"skip", *b"uuid", *b"wide", *b"Xtra"] {
        check_walk(&with(&film, &boxed(kind, &[&zeros(30)])), Ok(true));
    }
    // Nobody misses the end of filling; of all else they do.
    for (kind, is_missed) in [
        (*b"free", false),
        (*b"Xtra", false),
        (*b"mdat", true),
        (*b"moof", true),
    ] {
        let cut = with(&film, without(&boxed(kind, &[&zeros(30)]), 1));
        assert_eq!(walked(&cut).finish().is_err(), is_missed, "{kind:?}");
        assert_ne!(walked(&cut).finish(), Ok(true), "{kind:?}");
    }
    // A box that reaches to the end does so wherever the body is cut.
    let open_ended = with(&film[..film.len() - 316], b"\0\0\0\0mdat and all the rest");
    check_walk(&open_ended, Ok(false));
}

#[test]
fn a_film_in_fragments_is_proven_by_its_index_alone() {
    let film = fragments();
    check_walk(&film, Ok(false));
    check_walk(&with(&film, &boxed(*b"mfra", &[&zeros(20)])), Ok(true));
    let cut = format!(
        "the MP4 is cut off: box \"mdat\" reaches to byte {}, the body ends at {}",
        film.len(),
        film.len() - 9
    );
    check_walk(without(&film, 9), Err(&cut));
    check_details(&film, "9000 ms, - x -, -");
}

#[test]
fn a_still_image_needs_no_movie() {
    let still = [
        boxed(*b"ftyp", &[b"avif\0\0\0\0"]),
        boxed(*b"meta", &[&zeros(50)]),
    ]
    .concat();
    check_walk(&still, Ok(false));
    let media = boxed(*b"mdat", &[&zeros(50)]);
    check_walk(&with(&still, &media), Ok(true));
    assert!(walked(without(&with(&still, &media), 1)).finish().is_err());
}

#[test]
fn png_chunks_up_to_the_last() {
    let png = png();
    let end = png.len();
    check_walk(&png, Ok(true));
    let cut = |piece: &str, to: usize, length: usize| {
        format!("the PNG is cut off: {piece} reaches to byte {to}, the body ends at {length}")
    };
    check_walk(without(&png, 1), Err(&cut("chunk \"IEND\"", end, end - 1)));
    check_walk(without(&png, 7), Err(&cut("a chunk", end, end - 7)));
    check_walk(without(&png, 12), Err("the PNG has no \"IEND\" chunk"));
    check_walk(
        without(&png, 20),
        Err(&cut("chunk \"IDAT\"", end - 12, end - 20)),
    );
    check_walk(&png[..8], Err("the PNG has no \"IEND\" chunk"));
    check_walk(&with(&png, &[0; 100]), Ok(false));
    check_walk(b"\x89PNG\r\n\x1a\n and so on", Ok(false));
    check_details(&png, "0 ms, 640 x 360, -");
}

#[test]
fn a_riff_as_long_as_it_says_and_the_many_that_do_not_say() {
    check_walk(&wav(WAV_SIZE, 200), Ok(true));
    check_walk(&with(&wav(WAV_SIZE, 200), b"LIST"), Ok(false));
    // Odd, with and without a byte to fill up; and counted from the wrong byte.
    check_walk(without(&wav(WAV_SIZE - 1, 200), 1), Ok(true));
    check_walk(&wav(WAV_SIZE - 1, 200), Ok(true));
    check_walk(&wav(WAV_SIZE + 8, 200), Ok(false));
    for placeholder in [
        0,
        u32::MAX,
        u32::MAX - 7,
        0x7fff_ffff,
        0x7fff_f000,
        0x8000_0000,
    ] {
        check_walk(&wav(placeholder, placeholder), Ok(false));
    }
    let cut = "the RIFF file is cut off: its size reaches to byte 256, the body ends at 216";
    check_walk(without(&wav(WAV_SIZE, 200), 40), Err(cut));
    check_details(&wav(WAV_SIZE, 200), "2000 ms, - x -, -");
    check_details(&wav(u32::MAX, u32::MAX), "2000 ms, - x -, -");
    check_details(&wav(0, 0), "0 ms, - x -, -");
}

#[test]
fn the_size_of_a_webp_in_each_of_its_forms() {
    let simple = webp(b"VP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a\x80\x42\x68\x81");
    check_walk(&simple, Ok(true));
    check_details(&simple, "0 ms, 640 x 360, -");
    // 639 and 359 in 14 bits each.
    let lossless = webp(b"VP8L\x0a\0\0\0\x2f\x7f\xc2\x59\0\0\0\0\0\0");
    check_details(&lossless, "0 ms, 640 x 360, -");
    let extended = webp(b"VP8X\x0a\0\0\0\x10\0\0\0\x7f\x02\0\x67\x01\0");
    check_details(&extended, "0 ms, 640 x 360, -");
    check_details(
        &webp(b"ALPH\x0a\0\0\0\x10\0\0\0\x7f\x02\0\x67\x01\0"),
        "0 ms, - x -, -",
    );
}

#[test]
fn gif_blocks_up_to_the_trailer() {
    let gif = gif();
    check_walk(&gif, Ok(true));
    check_walk(&with(&gif, b";"), Ok(false));
    // Viewers need no trailer, and some writers end a block twice.
    check_walk(without(&gif, 1), Ok(false));
    check_walk(&with(without(&gif, 1), b"\0;"), Ok(true));
    check_walk(&with(without(&gif, 1), b"?"), Ok(false));
    let cut = format!(
        "the GIF is cut off: a block reaches to byte {}, the body ends at {}",
        gif.len() - 4,
        gif.len() - 6
    );
    check_walk(without(&gif, 6), Err(&cut));
    check_details(&gif, "0 ms, 320 x 180, -");
}

#[test]
fn a_body_of_nothing_but_empty_blocks_is_not_walked_for_ever() {
    let head = &gif()[..19];
    let steps = usize::try_from(STEPS_MAX).unwrap();
    let many = [head, &zeros(steps - 10), b";"].concat();
    check_walk(&many, Ok(true));
    let too_many = [head, &zeros(steps), b";"].concat();
    check_walk(&too_many, Ok(false));
    assert!(walked(&too_many).details().is_empty());
}

#[test]
fn a_jpeg_is_whole_that_ends_in_its_end() {
    let jpeg = jpeg();
    check_walk(&jpeg, Ok(true));
    check_walk(without(&jpeg, 1), Ok(false));
    check_walk(&with(&jpeg, &[0; 9]), Ok(false));
    check_details(&jpeg, "0 ms, 1280 x 720, -");
}

#[test]
fn an_ogg_is_whole_whose_last_page_is_the_last() {
    let ogg = ogg();
    check_walk(&ogg, Ok(true));
    check_walk(without(&ogg, 1), Ok(false));
    check_walk(&with(&ogg, &[0; 30]), Ok(false));
    check_walk(&with(&ogg, &page(0, &[3])), Ok(false));
    check_walk(&page(4, &[]), Ok(true));
}

#[test]
fn a_matroska_segment_as_long_as_it_says() {
    let webm_told = webm(true);
    let end = webm_told.len();
    check_walk(&webm_told, Ok(true));
    let cut = format!(
        "the Matroska file is cut off: its segment reaches to byte {end}, the body ends at {}",
        end - 1
    );
    check_walk(without(&webm_told, 1), Err(&cut));
    check_walk(&with(&webm_told, &[0]), Ok(false));
    check_walk(&webm(false), Ok(false));
    check_walk(without(&webm(false), 9), Ok(false));
    for body in [webm_told, webm(false)] {
        check_details(&body, "5042 ms, 640 x 360, vp9");
    }
}

#[test]
fn kinds_whose_end_cannot_be_told() {
    for body in [
        &b""[..],
        b"ID3\x04",
        b"fLaC\0\0\0\x22 and so on",
        b"RIFF",
        b"plain text",
    ] {
        check_walk(body, Ok(false));
        check_details(body, "0 ms, - x -, -");
    }
}

#[test]
fn a_film_tells_its_duration_size_and_codec() {
    check_details(&film(), "5042 ms, 1280 x 720, avc1.64001F");
    // The same with the tables behind the media.
    let media = boxed(*b"mdat", &[&[4; 99]]);
    let late = [boxed(*b"ftyp", &[&zeros(4)]), media, movie()].concat();
    check_walk(&late, Ok(true));
    check_details(&late, "5042 ms, 1280 x 720, avc1.64001F");
    // Sound alone, then only the four characters of what is not known.
    let kinds: Vec<u8> = film();
    let place = kinds.windows(4).position(|four| four == b"vide").unwrap();
    let mut sound_only = kinds.clone();
    sound_only[place..place + 4].copy_from_slice(b"text");
    check_details(&sound_only, "5042 ms, - x -, mp4a.40.2");
    let mut unknown = kinds;
    let place = unknown.windows(4).position(|four| four == b"avc1").unwrap();
    unknown[place..place + 4].copy_from_slice(b"ap4h");
    check_details(&unknown, "5042 ms, 1280 x 720, ap4h");
}

#[test]
fn a_damaged_movie_tells_nothing_and_is_no_error() {
    let film = film();
    let tables = film.windows(4).position(|four| four == b"stbl").unwrap();
    let mut damaged = film;
    damaged[tables - 4..tables].copy_from_slice(&[0, 9, 9, 9]);
    check_walk(&damaged, Ok(true));
    check_details(&damaged, "0 ms, - x -, -");
}

#[test]
fn a_saved_state_is_small_and_nothing_else_is_taken_for_one() {
    for body in bodies() {
        for cut in 0..=body.len() {
            let state = walked(&body[..cut]).save();
            assert!(state.len() <= STATE_BYTES_MAX, "{}", state.len());
            let longer = with(&state, &[0]);
            assert!(Walk::load(&longer).is_none() && Walk::load(without(&state, 1)).is_none());
        }
    }
}

/// A film's state in the deepest of its boxes, with room for the longest codecs; in its media it is half of that.
const STATE_BYTES_MAX: usize = 300;

/// The outcome of a walk that is given `body` in frames, and between two of them saved and loaded.
fn in_frames(body: &[u8], frames: &[usize]) -> Walk {
    let mut walk = Walk::new();
    let (mut rest, mut frames) = (body, frames.iter().cycle());
    while !rest.is_empty() {
        let length = frames
            .next()
            .copied()
            .unwrap_or(usize::MAX)
            .clamp(1, rest.len());
        let (frame, later) = rest.split_at(length);
        walk.update(frame);
        walk = Walk::load(&walk.save()).unwrap();
        rest = later;
    }
    walk
}

#[test]
fn a_walk_taken_up_again_anywhere_ends_the_same() {
    for body in bodies() {
        let whole = walked(&body);
        assert_eq!(in_frames(&body, &[1]), whole);
        for cut in 1..body.len() {
            assert_eq!(in_frames(&body, &[cut, usize::MAX]), whole, "cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn no_body_panics_the_walk(bytes: Vec<u8>, frames in prop::collection::vec(1_usize..64, 1..9)) {
        let whole = walked(&bytes);
        prop_assert_eq!(&in_frames(&bytes, &frames), &whole);
        let _judged = (whole.finish().is_ok(), whole.details());
    }

    #[test]
    fn no_damage_panics_the_walk(
        kind in 0_usize..10,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut: prop::sample::Index,
        frames in prop::collection::vec(1_usize..64, 1..9),
    ) {
        let mut body = bodies().swap_remove(kind);
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        body.truncate(cut.index(body.len()) + 1);
        let whole = walked(&body);
        prop_assert_eq!(&in_frames(&body, &frames), &whole);
        let _judged = (whole.finish().is_ok(), whole.details());
    }

    #[test]
    fn no_saved_state_panics_the_walk(
        kind in 0_usize..10,
        at: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        bytes: Vec<u8>,
    ) {
        let body = bodies().swap_remove(kind);
        let mut state = walked(&body[..at.index(body.len())]).save();
        for (place, byte) in damage {
            let place = place.index(state.len());
            state[place] = byte;
        }
        for state in [&state, &bytes] {
            if let Some(mut walk) = Walk::load(state) {
                walk.update(&body);
                walk.update(&bytes);
                let _judged = (walk.finish().is_ok(), walk.details(), walk.save().len());
            }
        }
    }
}
