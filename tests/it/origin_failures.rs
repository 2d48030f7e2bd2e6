//! Each row of what goes wrong at origins, end to end: nothing wrong is archived, nothing stays open, nobody is left in
//! the dark, and what can be archived is.
//!
//! `rows` runs tables of misbehaving origins over a store that takes filled bodies and one that takes them passed
//! through; each test here is one row of the table of failures, with all the cases that it has.

mod rows;

use std::time::Duration;

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::AtOnce;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Manner;
use reelvault::simulator::script::Rule;
use reelvault::simulator::source::FileKind;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::faults::Kind;
use crate::faults::MANY;
use crate::faults::PARTS;
use crate::faults::SMALL;
use crate::faults::all_say_why;
use crate::faults::assert_told;
use crate::faults::error_of;
use crate::faults::stopped_midway;
use crate::origin_failures::rows::check_archived;
use crate::origin_failures::rows::check_archived_with;
use crate::origin_failures::rows::check_hopeless;
use crate::origin_failures::rows::hopeless;
use crate::origin_failures::rows::raw;
use crate::origin_failures::rows::row;
use crate::origin_failures::rows::serve;
use crate::world::Log;
use crate::world::PART;
use crate::world::Plan;
use crate::world::World;

/// Half of the smallest body.
const SOME: Option<ByteSize> = Some(ByteSize::bytes(300 * 1024));

/// Past the first part.
const LATE: Option<ByteSize> = Some(ByteSize::mib(6));

/// The end of the first part.
const EDGE: Option<ByteSize> = Some(ByteSize::bytes(PART));

/// Kinds of file without boxes that would show where it ends.
const BOXLESS: [FileKind; 4] = [FileKind::Png, FileKind::Mp3, FileKind::Wav, FileKind::Webm];

/// What an asset is that has time, and what it is past its deadline.
const DUE: AssetState = AssetState::Due;
const REFUSED: AssetState = AssetState::Refused;

#[tokio::test]
async fn shorter_than_content_length() {
    use FileFault::*;
    check_archived(vec![
        row("truncated", SMALL, [Truncate(SOME)]),
        row(
            "truncated in parts",
            PARTS,
            [Truncate(LATE), Truncate(SOME)],
        ),
        row(
            "truncated at once",
            PARTS,
            [Truncate(Some(ByteSize::bytes(0)))],
        ),
        row("cut chunks", SMALL, [CutChunks(SOME)]),
        row("cut chunks in parts", PARTS, [CutChunks(LATE)]),
        row("reset", SMALL, [Reset(SOME)]),
        row(
            "reset in parts",
            PARTS,
            [Reset(LATE), Reset(SOME), Reset(SOME)],
        ),
    ])
    .await;
    check_archived(
        BOXLESS
            .map(|kind| row(kind.as_str(), PARTS, [Truncate(LATE)]).of(kind))
            .into(),
    )
    .await;
}

#[tokio::test]
async fn body_closed_by_the_connection_without_a_length() {
    use FileFault::*;
    check_archived(vec![
        row("short", SMALL, [Short(SOME)]),
        row("short in parts", PARTS, [Short(LATE)]),
        row("short on the edge of a part", PARTS, [Short(EDGE)]),
        row("last chunk too early", SMALL, [ShortChunks(SOME)]),
        row("last chunk too early in parts", PARTS, [ShortChunks(LATE)]),
        row("whole, in one request", SMALL, [NoLength]),
        row(
            "whole, a part and a byte",
            ByteSize::bytes(PART + 1),
            [NoLength],
        ),
        row(
            "whole, exactly two parts",
            ByteSize::bytes(2 * PART),
            [NoLength],
        ),
        row("whole, three parts", PARTS, [NoLength]),
    ])
    .await;
    // Without boxes no end proves itself: what was cut is never believed, neither once nor at two different places.
    let boxless = BOXLESS.map(|kind| {
        [
            row(kind.as_str(), SMALL, [Short(SOME), Short(None)]).of(kind),
            row(kind.as_str(), PARTS, [Short(LATE)]).of(kind),
            row(kind.as_str(), PARTS, [Short(EDGE)]).of(kind),
        ]
    });
    check_archived(boxless.into_iter().flatten().collect()).await;
    check_hopeless(vec![
        hopeless("always short", SMALL, Short(SOME), REFUSED, "cut off"),
        hopeless(
            "always short in parts",
            PARTS,
            Short(LATE),
            REFUSED,
            "cut off",
        ),
    ])
    .await;
}

#[tokio::test]
async fn longer_than_content_length() {
    use FileFault::*;
    check_archived(vec![
        row("all of it, as if it were a part", SMALL, [Crop(SOME)]),
        row("the same in parts", PARTS, [Crop(LATE)]),
        row("and then resumed", PARTS, [Crop(LATE), Reset(LATE)]),
        raw("half the length", SMALL, |file| {
            with_length(file.len() / 2, file)
        }),
        raw("half the length in parts", PARTS, |file| {
            with_length(file.len() / 2, file)
        }),
        raw("noise behind the end", SMALL, |file| {
            with_length(file.len(), &[file, &[7; 1000]].concat())
        }),
        raw("noise behind the end of parts", PARTS, |file| {
            with_length(file.len(), &[file, &[7; 1000]].concat())
        }),
    ])
    .await;
    check_hopeless(vec![
        hopeless("always", SMALL, Crop(SOME), REFUSED, "cut off"),
        hopeless("always in parts", PARTS, Crop(LATE), REFUSED, "cut off"),
    ])
    .await;
}

/// An answer with these bytes that claims to have `length`.
fn with_length(length: usize, bytes: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), bytes].concat()
}

#[tokio::test]
async fn content_encoding_other_than_identity() {
    use FileFault::*;
    check_archived(vec![
        row("gzip", SMALL, [Gzip]),
        row("gzip in parts", PARTS, [Gzip, Gzip]),
        row("gzip when resumed", PARTS, [Truncate(LATE), Gzip]),
    ])
    .await;
    let error = "content-encoding \"gzip\"";
    check_hopeless(vec![
        hopeless("gzip always", SMALL, Gzip, DUE, error),
        hopeless("gzip always in parts", PARTS, Gzip, DUE, error),
    ])
    .await;
}

/// Takes as long as the rate is judged over.
#[tokio::test]
async fn trickle() {
    use FileFault::*;
    let trickle = Trickle(Span::from_millis(200));
    let patient = |kind: Kind, size| Plan {
        patience: Duration::from_secs(75),
        ..kind.plan(size)
    };
    check_archived_with(
        patient,
        vec![
            row("from the start", SMALL, [trickle.clone()]),
            row("from the start in parts", PARTS, [trickle.clone()]),
            row("when resumed", PARTS, [Truncate(LATE), trickle]),
        ],
    )
    .await;
}

#[tokio::test]
async fn stall_and_slow_headers() {
    use FileFault::*;
    check_archived_with(
        Kind::impatient,
        vec![
            row("no headers", SMALL, [Hang]),
            row("no headers twice", PARTS, [Hang, Hang]),
            row("stalls", SMALL, [Stall(SOME)]),
            row("stalls in parts", PARTS, [Stall(LATE)]),
            row("stalls at the edge of a part", PARTS, [Stall(EDGE)]),
            row("stalls, and no headers", PARTS, [Stall(LATE), Hang]),
        ],
    )
    .await;
    check_hopeless(vec![
        hopeless("never headers", SMALL, Hang, DUE, "stalls"),
        hopeless("never headers in parts", PARTS, Hang, DUE, "stalls"),
    ])
    .await;
}

#[tokio::test]
async fn redirect_to_file() {
    use FileFault::*;
    check_archived(vec![
        row("redirected", SMALL, [Redirect(1)]),
        row("redirected in parts", PARTS, [Redirect(3)]),
        row("in a loop", SMALL, [Redirect(9)]),
        row("empty", SMALL, [Empty]),
        row("empty in parts", PARTS, [Empty]),
    ])
    .await;
    let to = |url: &str| RedirectTo(url.parse::<Url>().unwrap());
    let (file, ftp) = (to("file:///etc/passwd"), to("ftp://127.0.0.1/video.mp4"));
    let data = to("data:video/mp4;base64,AAAA");
    check_hopeless(vec![
        hopeless("file", SMALL, file.clone(), DUE, "not https"),
        hopeless("file in parts", PARTS, file, DUE, "not https"),
        hopeless("ftp", SMALL, ftp, DUE, "not https"),
        hopeless("data", SMALL, data, DUE, "not https"),
        hopeless("loop", SMALL, Redirect(9), DUE, "more than five times"),
        hopeless("always empty", SMALL, Empty, REFUSED, "empty"),
    ])
    .await;
}

#[tokio::test]
async fn dead_early_403_404_410() {
    use FileFault::*;
    check_archived(vec![
        row("forbidden", SMALL, [Dead(403)]),
        row("not found", SMALL, [Dead(404)]),
        row("gone", PARTS, [Dead(410)]),
        row("dies in the middle", PARTS, [Truncate(LATE), Dead(403)]),
        row(
            "dies in the middle, not found",
            PARTS,
            [Reset(LATE), Dead(404)],
        ),
        row(
            "dies at the edge of a part",
            PARTS,
            [Truncate(EDGE), Dead(410)],
        ),
        // Each of its links brings a part.
        row(
            "dies again and again",
            MANY,
            [
                Truncate(LATE),
                Dead(403),
                Truncate(LATE),
                Dead(403),
                Truncate(LATE),
                Dead(404),
            ],
        ),
    ])
    .await;
    // Past its deadline at once: only the provider's word stands between the asset and `lost`.
    for kind in Kind::EACH {
        let mut plan = kind.plan(SMALL);
        "output_ttl = \"1ms\"".clone_into(&mut plan.provider);
        let world = World::new(plan).await;
        world.simulator.plant(Rule::file(Dead(403)));
        let unsure = Rule::api(ApiFault::Internal).skip(1).times(2);
        world.simulator.plant(unsure);
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        assert_eq!(world.simulator.seen().faults, 3);
    }
}

#[tokio::test]
async fn dead_for_good_is_lost_once_and_loudly() {
    for (status, size) in [(403, SMALL), (404, SMALL), (410, PARTS)] {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = Kind::Aws.plan(size);
        "output_ttl = \"6s\"".clone_into(&mut plan.provider);
        plan.simulator.life = Span::ZERO;
        plan.simulator.dead_status = status;
        let world = World::new(plan).await;
        let ids = world.submit(1).await;
        let records = world.run_to_the_end().await;
        let asset = &records[0].assets[0];
        assert_eq!((asset.state, asset.due_at), (AssetState::Lost, None));
        let error = asset.error.as_deref().unwrap();
        assert!(error.contains(&format!("answers {status}")), "{error}");
        let lines = log.lines();
        let lost = lines
            .iter()
            .filter(|line| line.contains("lost: the link died"));
        let lost: Vec<_> = lost.collect();
        assert_eq!(lost.len(), 1, "{lines:#?}");
        assert!(lost[0].contains("ERROR") && lost[0].contains(ids[0].as_str()));
        assert_told(&log, "at risk");
        world.assert_nothing_stored();
    }
}

#[tokio::test]
async fn links_that_are_signed_anew_and_dead_end_in_lost() {
    for status in [403, 404, 400, 451] {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = Kind::Aws.plan(SMALL);
        "output_ttl = \"3s\"".clone_into(&mut plan.provider);
        let world = World::new(plan).await;
        let dead = Rule::file(FileFault::Dead(status)).times(u32::MAX);
        world.simulator.plant(dead);
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        assert_eq!(records[0].assets[0].state, AssetState::Lost);
        let error = error_of(&records);
        assert!(error.contains(&format!("answers {status}")), "{error}");
        assert_told(&log, "lost: the link died");
        let seen = world.simulator.seen();
        // One look for the result, one for a fresh link, and one after the deadline.
        assert!(seen.reads + seen.batches <= 4, "{seen:?}");
        world.assert_nothing_stored();
    }
}

#[tokio::test]
async fn fresh_links_that_bring_nothing_are_tried_ever_more_slowly() {
    let world = World::new(Kind::Aws.plan(PARTS)).await;
    for _ in 0..20 {
        let cut = FileFault::Truncate(Some(ByteSize::mib(4)));
        world.simulator.plant(Rule::file(cut));
        world.simulator.plant(Rule::file(FileFault::Dead(403)));
    }
    world.submit(1).await;
    let tried = |records: &[TaskRecord]| {
        let mut assets = records.iter().flat_map(|record| &record.assets);
        assets.any(|asset| asset.attempts >= 4)
    };
    let records = world.run_until(tried).await;
    assert!(error_of(&records).contains("answers 403"));
    let seen = world.simulator.seen();
    assert!(seen.file_gets <= 10, "{seen:?}");
    assert!(seen.reads + seen.batches <= 2, "{seen:?}");
}

#[tokio::test]
async fn dead_early_400_401_402_451() {
    use FileFault::*;
    check_archived(vec![
        row("expired token", SMALL, [Dead(400)]),
        row("unauthorized", SMALL, [Dead(401)]),
        row("payment required", SMALL, [Dead(402)]),
        row("taken down", PARTS, [Dead(451)]),
        row("dies in the middle", PARTS, [Truncate(LATE), Dead(400)]),
    ])
    .await;
    // Said to a range, it may be about the range.
    let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let runs = Kind::ALL.map(|kind| async move {
        let world = stopped_midway(kind.plan(MANY)).await;
        let looks = world.simulator.seen().reads;
        let mut servers = JoinSet::new();
        let url = serve(&mut servers, answer.to_vec()).await;
        world.simulator.plant(Rule::file(RedirectTo(url)));
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        let seen = world.simulator.seen();
        assert_eq!((seen.faults, seen.reads), (1, looks));
        assert_eq!(world.bucket.count(Operation::AbortMultipartUpload), 0);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn range_ignored_on_resume() {
    use FileFault::*;
    check_archived(vec![
        row("once", PARTS, [Truncate(LATE), IgnoreRange]),
        row(
            "for long",
            PARTS,
            [Truncate(LATE), IgnoreRange, IgnoreRange],
        ),
        row("in one request", SMALL, [Truncate(SOME), IgnoreRange]),
        row(
            "another range",
            PARTS,
            [Truncate(LATE), WrongRange, WrongRange],
        ),
        row("no ranges at all", PARTS, [Truncate(LATE), Reset(SOME)]).with(Manner::NoRanges),
        row("no ranges at all in one request", SMALL, [Truncate(SOME)]).with(Manner::NoRanges),
        row("a part unasked", PARTS, [Truncate(LATE)]).with(Manner::PartUnasked),
        row("a part unasked in one request", SMALL, [Reset(SOME)]).with(Manner::PartUnasked),
        row("a part unasked of unknown total", SMALL, [])
            .with(Manner::PartUnasked)
            .passing(Manner::NoTotal),
    ])
    .await;
    let runs = Kind::ALL.map(|kind| async move {
        let world = stopped_midway(kind.plan(MANY)).await;
        world.simulator.plant(Rule::manner(Manner::NoRanges));
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        assert_eq!(world.bucket.count(Operation::AbortMultipartUpload), 1);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn etag_or_date_or_total_changed_midway() {
    use FileFault::*;
    let changed = |name, size, cut| row(name, size, [Change(cut)]);
    check_archived(vec![
        changed("in one request", SMALL, SOME),
        changed("in the first part", PARTS, SOME),
        changed("in the second part", PARTS, LATE),
        changed("at the edge of a part", PARTS, EDGE),
        row("twice", PARTS, [Change(LATE), Change(LATE)]),
        changed("by its date", SMALL, SOME).with(Manner::NoEtag),
        changed("by its date in parts", PARTS, LATE).with(Manner::NoEtag),
        changed("of a weak tag", SMALL, SOME).with(Manner::WeakEtag),
        changed("of a weak tag in parts", PARTS, LATE).with(Manner::WeakEtag),
        changed("and nothing tells", SMALL, SOME).with(Manner::NoVersion),
        row("by a total that lies", PARTS, [Truncate(LATE)])
            .passing(Manner::LyingTotal(ByteSize::mib(1))),
        row("by a total that is not told", PARTS, [Truncate(LATE)]).with(Manner::NoTotal),
    ])
    .await;
    let runs = Kind::ALL.map(|kind| async move {
        let world = stopped_midway(kind.plan(MANY)).await;
        let changed = Rule::file(Change(Some(ByteSize::bytes(0))));
        world.simulator.plant(changed);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn html_json_empty_or_wrong_kind_with_200() {
    use FileFault::*;
    let json = "{\"error\": {\"code\": \"expired\", \"message\": \"try again later\"}}";
    check_archived(vec![
        row("a page", SMALL, [Html, Html]),
        row("a page in parts", PARTS, [Html]),
        row("a page when resumed", PARTS, [Truncate(LATE), Html]),
        row("empty", SMALL, [Empty]),
        row("empty when resumed", PARTS, [Truncate(LATE), Empty]),
        raw("json", SMALL, move |_| {
            with_length(json.len(), json.as_bytes())
        }),
        raw("xml", SMALL, |_| with_length(8, b"<Error/>")),
        raw("text", SMALL, |_| with_length(9, b"try later")),
        raw("an archive", SMALL, |_| {
            let packed = [b"7z\xbc\xaf\x27\x1c".as_slice(), &[0; 2000]].concat();
            with_length(packed.len(), &packed)
        }),
        raw("a program", SMALL, |_| {
            let elf = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 2000]].concat();
            with_length(elf.len(), &elf)
        }),
    ])
    .await;
    check_hopeless(vec![
        hopeless("always a page", SMALL, Html, REFUSED, "web page"),
        hopeless(
            "always a page in parts",
            PARTS,
            Html,
            REFUSED,
            "(transfer.verify.type_check)",
        ),
        hopeless("always empty", PARTS, Empty, REFUSED, "empty"),
    ])
    .await;
}

#[tokio::test]
async fn a_page_where_the_file_should_be_is_a_reason_to_ask_for_a_fresh_link() {
    for kind in Kind::EACH {
        let world = World::new(kind.plan(SMALL)).await;
        world.simulator.plant(Rule::file(FileFault::Html));
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        let seen = world.simulator.seen();
        assert_eq!(seen.reads + seen.batches, 2, "{seen:?}");
    }
}

#[tokio::test]
async fn a_copy_of_ours_that_stands_whole_is_proven_however_its_link_ends() {
    use FileFault::*;
    let runs = [Html, Redirect(9), Unavailable, Reset(None)].map(|end| async move {
        let mut plan = Kind::Aws.plan(SMALL);
        plan.extra.push_str("[server]\nshutdown_grace = \"1s\"\n");
        plan.extra.push_str("[deadline]\nkeep_trying = false\n");
        let world = World::new(plan).await;
        // Stopped between the write and the look that would have proven it.
        let hang = Fault::new(Operation::HeadObject, Effect::Hang(0));
        world.bucket.plant(hang.from(2));
        world.submit(1).await;
        let looked = world.bucket.reached(Operation::HeadObject, 2);
        world.run_during(looked).await;
        let world = world.reopened().await;
        world.bucket.heal();
        let rule = Rule::file(end.clone()).times(u32::MAX);
        world.simulator.plant(rule);
        world.pass(Span::from_secs(2 * 86_400));
        let records = world.run_to_the_end().await;
        println!("{end:?}");
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn endless() {
    use FileFault::*;
    let error = "size_max is 12 MiB";
    check_hopeless(vec![
        hopeless("endless", SMALL, Endless, REFUSED, error),
        hopeless("endless in parts", PARTS, Endless, REFUSED, error),
        hopeless("big", ByteSize::mib(13), Redirect(1), REFUSED, error),
        hopeless(
            "big, without a length",
            ByteSize::mib(13),
            NoLength,
            REFUSED,
            error,
        ),
    ])
    .await;
}

#[tokio::test]
async fn inside_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::new(Kind::Generic.plan(SMALL)).await;
    let hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "127.0.0.1.",
        "LOCALHOST",
        "%6c%6fcalhost",
        "①②⑦.⓪.⓪.①",
    ];
    let mut links: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(place, host)| format!("https://{host}:{port}/{place}"))
        .collect();
    links.push(format!("http://127.0.0.1:{port}/b"));
    links.push(format!("https://user@localhost:{port}/c"));
    world.learn_links(&links).await;
    let records = world.run_until(all_say_why).await;
    assert_eq!(records.len(), links.len());
    for asset in records.iter().flat_map(|record| &record.assets) {
        let error = asset.error.as_deref().unwrap_or_default();
        assert!(error.contains("not allowed"), "{}: {error}", asset.url);
    }
    let called = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(called.is_err(), "{called:?}");
    world.assert_nothing_stored();
}

#[tokio::test]
async fn unavailable_or_out_of_connections() {
    use FileFault::*;
    check_archived(vec![
        row("unavailable", SMALL, [Unavailable, Unavailable]),
        row("unavailable in parts", PARTS, [Unavailable]),
        row(
            "unavailable when resumed",
            PARTS,
            [Truncate(LATE), Unavailable],
        ),
    ])
    .await;
    check_hopeless(vec![hopeless(
        "always",
        SMALL,
        Unavailable,
        DUE,
        "answers 503",
    )])
    .await;
    let bounds = [(Kind::Generic, 503), (Kind::Aws, 429)];
    let runs = bounds.map(|(kind, status)| async move {
        let world = World::new(kind.plan(PARTS)).await;
        let most = 1;
        world.simulator.limit_at_once(Some(AtOnce { most, status }));
        world.submit(3).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        assert_eq!(world.simulator.files_at_once_max(), most);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn an_origin_that_says_at_once_is_asked_no_sooner_than_others() {
    let answer = b"HTTP/1.1 429 No\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
    let world = World::new(Kind::Aws.plan(SMALL)).await;
    let mut servers = JoinSet::new();
    let ids = world.submit(1).await;
    let url = serve(&mut servers, answer.to_vec()).await;
    let astray = Rule::file(FileFault::RedirectTo(url)).times(u32::MAX);
    world.simulator.plant(astray.task(&ids[0]));
    let tried = |records: &[TaskRecord]| {
        let mut assets = records.iter().flat_map(|record| &record.assets);
        assets.any(|asset| asset.attempts >= 4)
    };
    let records = world.run_until(tried).await;
    assert!(error_of(&records).contains("answers 429"));
    // Each try is charged, and waits longer than the one before.
    let tries = u64::from(records[0].assets[0].attempts);
    assert!(world.simulator.seen().file_gets <= tries + 1);
}

#[tokio::test]
async fn a_slow_file_holds_up_no_fast_one() {
    let mut plan = Kind::Aws.plan(SMALL);
    plan.extra.push_str("concurrent = 2\n");
    let world = World::new(plan).await;
    let ids = world.submit(6).await;
    let slow = Rule::manner(Manner::Paced(ByteSize::bytes(256 << 10)));
    world.simulator.plant(slow.task(&ids[0]));
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
    let done_at = |record: &TaskRecord| record.assets[0].archived_at.unwrap();
    let slow = records.iter().find(|it| it.key.id == ids[0]).unwrap();
    let others = records.iter().filter(|it| it.key.id != ids[0]);
    assert!(others.map(done_at).all(|at| at <= done_at(slow)));
}

#[tokio::test]
async fn answers_that_no_server_should_give() {
    let rows = [
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "a part of another",
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-7/99\r\ncontent-length: 8\r\n\r\n....ftyp",
        ),
        ("not modified", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (
            "no redirect",
            "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "a redirect to nonsense",
            "HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n.....",
        ),
        (
            "no length at all",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n.....",
        ),
        (
            "a broken chunk",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ),
        ("not http", "SSH-2.0-OpenSSH_9.2p1\r\n"),
        ("nothing", ""),
        (
            "retry after",
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "retry after a date",
            "HTTP/1.1 503 No\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "retry after nonsense",
            "HTTP/1.1 503 No\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n",
        ),
    ];
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|(name, answer)| raw(name, SMALL, |_| answer.as_bytes().to_vec()))
        .collect();
    rows.push(raw("endless headers", SMALL, |_| {
        format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20)).into_bytes()
    }));
    check_archived(rows).await;
}

#[tokio::test]
async fn files_that_cannot_be_resumed_are_archived_from_their_start() {
    let manners = [
        Manner::NoRanges,
        Manner::NoVersion,
        Manner::WeakEtag,
        Manner::NoEtag,
        Manner::NoTotal,
    ];
    let cut = |manner, size, cut| row("cut", size, [FileFault::Truncate(cut)]).with(manner);
    let rows = manners.map(|manner| [cut(manner, SMALL, SOME), cut(manner, PARTS, LATE)]);
    check_archived(rows.into_iter().flatten().collect()).await;
    let cases = [
        (Kind::Generic, Manner::NoVersion),
        (Kind::Aws, Manner::NoVersion),
        (Kind::Aws, Manner::NoTotal),
        (Kind::R2, Manner::WeakEtag),
    ];
    let runs = cases.map(|(kind, manner)| async move {
        let world = stopped_midway(kind.plan(MANY)).await;
        world.simulator.plant(Rule::manner(manner));
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}
