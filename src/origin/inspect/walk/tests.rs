//! Bodies of every kind: whole, cut, damaged, appended to, in any frames and taken up again anywhere.

use proptest::prelude::*;

use super::*;
use crate::units::Span;

/// A box of ISO media.
fn boxed(kind: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let size = u32::try_from(content.len() + 8).unwrap();
    [&size.to_be_bytes()[..], &kind, &content].concat()
}

fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

/// A `moov` of 5.042 s with sound, then a picture of 1280 by 720.
fn movie() -> Vec<u8> {
    let ticks = [600_u32.to_be_bytes(), 3025_u32.to_be_bytes()].concat();
    let header = boxed(*b"mvhd", &[&zeros(12), &ticks, &zeros(80)]);
    let decoder = [&[4, 17, 0x40, 0x15][..], &[0; 11], &[5, 2, 0x12, 0x10]].concat();
    let sound = boxed(*b"esds", &[&[0, 0, 0, 0, 3, 22, 0, 2, 0], &decoder]);
    let sound = boxed(*b"mp4a", &[&zeros(28), &sound]);
    let size = [1280_u16.to_be_bytes(), 720_u16.to_be_bytes()].concat();
    let picture = boxed(*b"avcC", &[&[1, 0x64, 0, 0x1f, 0xff]]);
    let picture = boxed(
        *b"avc1",
        &[
            &zeros(24),
            &size,
            &zeros(50),
            &boxed(*b"pasp", &[&zeros(8)]),
            &picture,
        ],
    );
    let content = [
        header,
        track(*b"soun", &sound),
        track(*b"vide", &picture),
        boxed(*b"udta", &[&zeros(20)]),
    ];
    boxed(*b"moov", &[&content.concat()])
}

fn track(kind: [u8; 4], entry: &[u8]) -> Vec<u8> {
    let table = boxed(*b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1], entry]);
    let table = boxed(*b"stbl", &[&table, &boxed(*b"stts", &[&zeros(24)])]);
    let information = boxed(*b"minf", &[&boxed(*b"hdlr", &[&zeros(8), b"url "]), &table]);
    let handler = boxed(*b"hdlr", &[&zeros(8), &kind, &zeros(13)]);
    let media = boxed(
        *b"mdia",
        &[&boxed(*b"mdhd", &[&zeros(24)]), &handler, &information],
    );
    boxed(
        *b"trak",
        &[&boxed(*b"tkhd", &[&zeros(84)]), &media, &zeros(4)],
    )
}

fn film() -> Vec<u8> {
    let long = [
        &[0, 0, 0, 1][..],
        b"mdat",
        &316_u64.to_be_bytes(),
        &[9; 300],
    ]
    .concat();
    let head = boxed(*b"ftyp", &[b"isom\0\0\x02\0"]);
    [head, movie(), boxed(*b"free", &[]), long].concat()
}

fn fragments() -> Vec<u8> {
    let duration = boxed(*b"mehd", &[&[1, 0, 0, 0], &9000_u64.to_be_bytes()]);
    let header = boxed(*b"mvhd", &[&zeros(12), &1000_u32.to_be_bytes(), &zeros(84)]);
    let movie = boxed(*b"moov", &[&header, &boxed(*b"mvex", &[&duration])]);
    let fragment = [boxed(*b"moof", &[&zeros(16)]), boxed(*b"mdat", &[&[3; 40]])].concat();
    [
        boxed(*b"ftyp", &[&zeros(8)]),
        movie,
        fragment.clone(),
        fragment,
    ]
    .concat()
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], &kind, data, b"crc!"].concat()
}

fn png() -> Vec<u8> {
    let header = [&[0, 0, 2, 128, 0, 0, 1, 104][..], &[8, 2, 0, 0, 0]].concat();
    let chunks = [
        chunk(*b"IHDR", &header),
        chunk(*b"IDAT", &[7; 90]),
        chunk(*b"IEND", &[]),
    ];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

fn riff(size: u32, rest: &[u8]) -> Vec<u8> {
    [b"RIFF", &size.to_le_bytes()[..], rest].concat()
}

/// 2 s of sound at 100 bytes a second.
fn wav(size: u32, told: u32) -> Vec<u8> {
    let format = [&[1, 0, 1, 0, 50, 0, 0, 0, 100, 0, 0, 0][..], &[2, 0, 16, 0]].concat();
    let head = [
        b"WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0",
        &format[..],
        b"data",
    ]
    .concat();
    riff(size, &[&head[..], &told.to_le_bytes(), &[5; 200]].concat())
}

/// The size that a [`wav`] has by the rules.
const WAV_SIZE: u32 = 4 + 12 + 24 + 8 + 200;

fn webp(chunk: &[u8]) -> Vec<u8> {
    let content = [&b"WEBP"[..], chunk].concat();
    riff(u32::try_from(content.len()).unwrap(), &content)
}

fn gif() -> Vec<u8> {
    let head = [&b"GIF89a\x40\x01\xb4\0\x80\0\0"[..], &[1; 6]].concat();
    let looped = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0";
    let control = b"\x21\xf9\x04\0\x0a\0\0\0";
    let image = [
        &b"\x2c\0\0\0\0\x40\x01\xb4\0\x81"[..],
        &[2; 12],
        &[2, 3, 9, 9, 9, 1, 9, 0],
    ]
    .concat();
    [&head[..], looped, control, &image, control, &image, b";"].concat()
}

fn jpeg() -> Vec<u8> {
    let comment = [&b"\xff\xfe\0\x20"[..], &[8; 30]].concat();
    let frame = b"\xff\xff\xc2\0\x0b\x08\x02\xd0\x05\0\x01\x01\x11\0";
    let scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0 and so on \xff\xd9";
    [&b"\xff\xd8"[..], &comment, frame, scan].concat()
}

fn page(flags: u8, lengths: &[u8]) -> Vec<u8> {
    let body = zeros(lengths.iter().copied().map(usize::from).sum());
    let count = u8::try_from(lengths.len()).unwrap();
    let head = [&b"OggS\0"[..], &[flags], &[1; 20], &[count], lengths].concat();
    [head, body].concat()
}

fn ogg() -> Vec<u8> {
    [page(2, &[30]), page(0, &[255; 70]), page(4, &[255, 4])].concat()
}

fn element(id: &[u8], content: &[u8]) -> Vec<u8> {
    let size = [0x40, u8::try_from(content.len()).unwrap()];
    [id, &size, content].concat()
}

/// 5.042 s of sound and a picture of 640 by 360, with the length of the segment told or not.
fn webm(is_told: bool) -> Vec<u8> {
    let info = [
        element(&[0x2a, 0xd7, 0xb1], &1_000_000_u32.to_be_bytes()),
        element(&[0x44, 0x89], &5041.7_f64.to_be_bytes()),
    ];
    let sound = [element(&[0x83], &[2]), element(&[0x86], b"A_OPUS")];
    let size = [element(&[0xb0], &[2, 128]), element(&[0xba], &[1, 104])];
    let picture = [
        element(&[0x86], b"V_VP9\0"),
        element(&[0x83], &[1]),
        element(&[0xe0], &size.concat()),
    ];
    let tracks = [
        element(&[0xae], &sound.concat()),
        element(&[0xae], &picture.concat()),
    ];
    let content = [
        element(&[0xec], &zeros(20)),
        element(&[0x15, 0x49, 0xa9, 0x66], &info.concat()),
        element(&[0x16, 0x54, 0xae, 0x6b], &tracks.concat()),
        element(&[0x1f, 0x43, 0xb6, 0x75], &[6; 60]),
    ]
    .concat();
    let mut size = [0xff; 8];
    if is_told {
        size = u64::try_from(content.len()).unwrap().to_be_bytes();
    }
    size[0] = 1;
    let head = element(&[0x1a, 0x45, 0xdf, 0xa3], b"\x42\x82\x84webm");
    [&head[..], &[0x18, 0x53, 0x80, 0x67], &size, &content].concat()
}

/// One whole body of each kind.
fn bodies() -> Vec<Vec<u8>> {
    let simple = webp(b"VP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a\x80\x02\x68\x01");
    let (told, untold) = (webm(true), webm(false));
    vec![
        film(),
        fragments(),
        png(),
        wav(WAV_SIZE, 200),
        simple,
        gif(),
        jpeg(),
        ogg(),
        told,
        untold,
    ]
}

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
    let cut = with(&film, without(&boxed(*b"free", &[&zeros(30)]), 1));
    assert!(walked(&cut).finish().is_err());
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
