//! Small bodies of every kind, made by hand: each has every piece that a walk knows.

/// A box of ISO media.
pub(super) fn boxed(kind: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let size = u32::try_from(content.len() + 8).unwrap();
    [&size.to_be_bytes()[..], &kind, &content].concat()
}

pub(super) fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

/// A `moov` of 5.042 s with sound, then a picture of 1280 by 720.
pub(super) fn movie() -> Vec<u8> {
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

pub(super) fn track(kind: [u8; 4], entry: &[u8]) -> Vec<u8> {
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

pub(super) fn film() -> Vec<u8> {
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

pub(super) fn fragments() -> Vec<u8> {
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

pub(super) fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], &kind, data, b"crc!"].concat()
}

pub(super) fn png() -> Vec<u8> {
    let header = [&[0, 0, 2, 128, 0, 0, 1, 104][..], &[8, 2, 0, 0, 0]].concat();
    let chunks = [
        chunk(*b"IHDR", &header),
        chunk(*b"IDAT", &[7; 90]),
        chunk(*b"IEND", &[]),
    ];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

pub(super) fn riff(size: u32, rest: &[u8]) -> Vec<u8> {
    [b"RIFF", &size.to_le_bytes()[..], rest].concat()
}

/// 2 s of sound at 100 bytes a second.
pub(super) fn wav(size: u32, told: u32) -> Vec<u8> {
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
pub(super) const WAV_SIZE: u32 = 4 + 12 + 24 + 8 + 200;

pub(super) fn webp(chunk: &[u8]) -> Vec<u8> {
    let content = [&b"WEBP"[..], chunk].concat();
    riff(u32::try_from(content.len()).unwrap(), &content)
}

pub(super) fn gif() -> Vec<u8> {
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

pub(super) fn jpeg() -> Vec<u8> {
    let comment = [&b"\xff\xfe\0\x20"[..], &[8; 30]].concat();
    let frame = b"\xff\xff\xc2\0\x0b\x08\x02\xd0\x05\0\x01\x01\x11\0";
    let scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0 and so on \xff\xd9";
    [&b"\xff\xd8"[..], &comment, frame, scan].concat()
}

pub(super) fn page(flags: u8, lengths: &[u8]) -> Vec<u8> {
    let body = zeros(lengths.iter().copied().map(usize::from).sum());
    let count = u8::try_from(lengths.len()).unwrap();
    let head = [&b"OggS\0"[..], &[flags], &[1; 20], &[count], lengths].concat();
    [head, body].concat()
}

pub(super) fn ogg() -> Vec<u8> {
    [page(2, &[30]), page(0, &[255; 70]), page(4, &[255, 4])].concat()
}

pub(super) fn element(id: &[u8], content: &[u8]) -> Vec<u8> {
    let size = [0x40, u8::try_from(content.len()).unwrap()];
    [id, &size, content].concat()
}

/// 5.042 s of sound and a picture of 640 by 360, with the length of the segment told or not.
pub(super) fn webm(is_told: bool) -> Vec<u8> {
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
pub(super) fn bodies() -> Vec<Vec<u8>> {
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
