//! Origins and task APIs that stall, lie, cut, redirect and die: nothing wrong is archived, and nothing is lost for it.

use std::time::Duration;

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetIndex;
use reelvault::model::asset::AssetState;
use reelvault::model::task::TaskState;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::Ending;
use reelvault::simulator::script::Fault;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Lie;
use reelvault::simulator::script::Rule;
use reelvault::simulator::tasks::Submission;
use reelvault::simulator::tasks::TaskKind;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::world::Log;
use crate::world::PART;
use crate::world::Plan;
use crate::world::World;

/// A body of two parts and a byte.
const PARTS: ByteSize = ByteSize::bytes(2 * PART + 1);

/// A body that fits into one request.
const SMALL: ByteSize = ByteSize::mib(1);

/// Half of the smallest body.
const SOME: Option<ByteSize> = Some(ByteSize::bytes(300 * 1024));

/// Past the first part.
const LATE: Option<ByteSize> = Some(ByteSize::mib(6));

/// The end of the first part.
const EDGE: Option<ByteSize> = Some(ByteSize::bytes(PART));

/// One origin that misbehaves: each fault in turn, then the file.
struct Row {
    name: &'static str,
    size: ByteSize,
    faults: Vec<FileFault>,
}

fn row(name: &'static str, size: ByteSize, faults: impl Into<Vec<FileFault>>) -> Row {
    Row {
        name,
        size,
        faults: faults.into(),
    }
}

fn impatient(size: ByteSize) -> Plan {
    let mut plan = Plan::files_of(size);
    plan.extra = "[transfer]\npart_size = \"5 MiB\"\nstall_timeout = \"1s\"\n".to_owned();
    plan
}

/// Runs all rows in one world, each with a task of its own: once with filled parts, once with frames passed through.
async fn check_archived(rows: Vec<Row>) {
    tokio::join!(
        check_archived_in("generic", &rows),
        check_archived_in("aws", &rows)
    );
}

async fn check_archived_in(quirks: &str, rows: &[Row]) {
    let mut plan = impatient(SMALL);
    plan.store = format!("quirks = {quirks:?}");
    let world = World::new(plan).await;
    let mut ids = Vec::new();
    for row in rows {
        let wish = Submission {
            size: Some(row.size),
            ..Submission::video(row.name)
        };
        let id = world.simulator.submit(wish).unwrap();
        for fault in &row.faults {
            world.simulator.plant(Rule::file(fault.clone()).task(&id));
        }
        ids.push(id);
    }
    world.announce(&ids).await;
    let records = world.run_to_the_end().await;
    assert_eq!(records.len(), rows.len());
    world.assert_all_archived(&records).await;
    let struck: usize = rows.iter().map(|row| row.faults.len()).sum();
    assert_eq!(
        world.simulator.seen().faults,
        u64::try_from(struck).unwrap()
    );
}

#[tokio::test]
async fn bytes_at_the_destination_are_the_bytes_the_origin_sent() {
    use FileFault::*;
    check_archived(vec![
        row("headers never come", SMALL, [Hang]),
        row("stalls in one request", SMALL, [Stall(SOME)]),
        row("stalls in parts", PARTS, [Stall(LATE)]),
        row("unavailable", SMALL, [Unavailable, Unavailable]),
        row("truncated in one request", SMALL, [Truncate(SOME)]),
        row(
            "truncated in parts",
            PARTS,
            [Truncate(LATE), Truncate(SOME)],
        ),
        row("reset in one request", SMALL, [Reset(SOME)]),
        row(
            "reset in parts",
            PARTS,
            [Reset(LATE), Reset(SOME), Reset(SOME)],
        ),
        row("a page", SMALL, [Html, Html]),
        row("empty", SMALL, [Empty]),
        row("gzipped", SMALL, [Gzip]),
        row("redirected", PARTS, [Redirect(3)]),
        row("redirected in a loop", SMALL, [Redirect(9)]),
    ])
    .await;
}

#[tokio::test]
async fn a_body_that_ends_too_early_never_becomes_an_object() {
    use FileFault::*;
    check_archived(vec![
        row("closed in one request", SMALL, [Short(SOME)]),
        row("closed in parts", PARTS, [Short(LATE)]),
        row("closed on the edge of a part", PARTS, [Short(EDGE)]),
        row("last chunk in one request", SMALL, [ShortChunks(SOME)]),
        row("last chunk in parts", PARTS, [ShortChunks(LATE)]),
        row("cut chunks in one request", SMALL, [CutChunks(SOME)]),
        row("cut chunks in parts", PARTS, [CutChunks(LATE)]),
        row("a length too short in one request", SMALL, [Crop(SOME)]),
        row("a length too short in parts", PARTS, [Crop(LATE)]),
        row(
            "a length too short and then resumed",
            PARTS,
            [Crop(LATE), Reset(LATE)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_body_of_unknown_length_is_archived_whole() {
    use FileFault::*;
    check_archived(vec![
        row("one request", SMALL, [NoLength]),
        row("one part and a byte", ByteSize::bytes(PART + 1), [NoLength]),
        row("exactly two parts", ByteSize::bytes(2 * PART), [NoLength]),
        row("three parts", PARTS, [NoLength]),
    ])
    .await;
}

#[tokio::test]
async fn no_object_mixes_two_versions_of_a_file() {
    use FileFault::*;
    check_archived(vec![
        row("changed in one request", SMALL, [Change(SOME)]),
        row("changed in the first part", PARTS, [Change(SOME)]),
        row("changed in the second part", PARTS, [Change(LATE)]),
        row("changed twice", PARTS, [Change(LATE), Change(LATE)]),
        row("ranges ignored", PARTS, [Truncate(LATE), IgnoreRange]),
        row(
            "ranges ignored for long",
            PARTS,
            [Truncate(LATE), IgnoreRange, IgnoreRange],
        ),
        row(
            "another range",
            PARTS,
            [Truncate(LATE), WrongRange, WrongRange],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_link_that_dies_early_is_replaced_by_a_fresh_one() {
    use FileFault::*;
    check_archived(vec![
        row("forbidden", SMALL, [Dead(403)]),
        row("not found", SMALL, [Dead(404)]),
        row("gone", PARTS, [Dead(410)]),
        row("dies in the middle", PARTS, [Truncate(LATE), Dead(403)]),
    ])
    .await;
}

/// One asset that cannot be archived.
struct Hopeless {
    name: &'static str,
    size: ByteSize,
    fault: FileFault,
    state: AssetState,
    /// A part of the asset's error.
    error: &'static str,
}

/// Runs all rows in one world whose links live a second, until each has come to its state for its reason.
async fn check_hopeless(rows: Vec<Hopeless>) {
    let mut plan = impatient(SMALL);
    plan.provider = "output_ttl = \"1s\"".to_owned();
    plan.extra.push_str("size_max = \"12 MiB\"\n");
    let world = World::new(plan).await;
    let mut ids = Vec::new();
    for row in &rows {
        let wish = Submission {
            size: Some(row.size),
            ..Submission::video(row.name)
        };
        let id = world.simulator.submit(wish).unwrap();
        let rule = Rule::file(row.fault.clone()).task(&id).times(u32::MAX);
        world.simulator.plant(rule);
        ids.push(id);
    }
    world.announce(&ids).await;
    let is_there = |record: &TaskRecord| {
        let row = rows
            .iter()
            .find(|row| record.model.as_deref() == Some(row.name));
        let asset = record.assets.first();
        row.zip(asset).is_some_and(|(row, asset)| {
            let error = asset.error.as_deref().unwrap_or_default();
            asset.state == row.state && error.contains(row.error)
        })
    };
    world
        .run_until(|records| records.iter().all(is_there))
        .await;
    assert!(world.bucket.objects().is_empty());
    world.run_until_clean().await;
    assert!(world.bucket.open_uploads().is_empty());
}

#[tokio::test]
async fn what_cannot_be_archived_is_not_and_says_why() {
    let hopeless = |name, size, fault, state, error| Hopeless {
        name,
        size,
        fault,
        state,
        error,
    };
    let (due, refused) = (AssetState::Due, AssetState::Refused);
    let file: Url = "file:///etc/passwd".parse().unwrap();
    let ftp: Url = "ftp://127.0.0.1/video.mp4".parse().unwrap();
    check_hopeless(vec![
        hopeless("page", SMALL, FileFault::Html, refused, "web page"),
        hopeless("empty", SMALL, FileFault::Empty, refused, "empty"),
        hopeless("crop", SMALL, FileFault::Crop(SOME), refused, "cut off"),
        hopeless(
            "crop parts",
            PARTS,
            FileFault::Crop(LATE),
            refused,
            "cut off",
        ),
        hopeless("short", SMALL, FileFault::Short(SOME), refused, "cut off"),
        hopeless(
            "short parts",
            PARTS,
            FileFault::Short(LATE),
            refused,
            "cut off",
        ),
        hopeless(
            "endless",
            SMALL,
            FileFault::Endless,
            refused,
            "size_max is 12 MiB",
        ),
        hopeless(
            "big",
            ByteSize::mib(13),
            FileFault::Redirect(1),
            refused,
            "size_max is 12 MiB",
        ),
        hopeless(
            "big and unmeasured",
            ByteSize::mib(13),
            FileFault::NoLength,
            refused,
            "size_max is 12 MiB",
        ),
        hopeless("file", SMALL, FileFault::RedirectTo(file), due, "not https"),
        hopeless("ftp", SMALL, FileFault::RedirectTo(ftp), due, "not https"),
        hopeless(
            "loop",
            SMALL,
            FileFault::Redirect(9),
            due,
            "more than five times",
        ),
        hopeless(
            "gzip",
            SMALL,
            FileFault::Gzip,
            due,
            "content-encoding \"gzip\"",
        ),
        hopeless(
            "unavailable",
            SMALL,
            FileFault::Unavailable,
            due,
            "answers 503",
        ),
        hopeless("hang", SMALL, FileFault::Hang, due, "stalls"),
    ])
    .await;
}

#[tokio::test]
async fn a_link_that_is_dead_for_good_is_lost_once_and_loudly() {
    let log = Log::default();
    let _listening = log.listen();
    let mut plan = impatient(SMALL);
    plan.provider = "output_ttl = \"3s\"".to_owned();
    plan.simulator.life = Span::ZERO;
    let world = World::new(plan).await;
    let ids = world.submit(1).await;
    let records = world.run_to_the_end().await;
    let asset = &records[0].assets[0];
    assert_eq!(asset.state, AssetState::Lost);
    let error = asset.error.as_deref().unwrap();
    assert!(error.contains("answers 403"), "{error}");
    assert_eq!(asset.due_at, None);
    let lines = log.lines();
    let lost = lines
        .iter()
        .filter(|line| line.contains("lost: the link died"));
    let lost: Vec<_> = lost.collect();
    assert_eq!(lost.len(), 1, "{lines:#?}");
    assert!(
        lost[0].contains("ERROR") && lost[0].contains(ids[0].as_str()),
        "{lost:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("at risk")),
        "{lines:#?}"
    );
    assert!(world.bucket.objects().is_empty());
}

#[tokio::test]
async fn every_result_of_a_task_is_archived() {
    let world = World::new(impatient(SMALL)).await;
    let wish = |kind, count| Submission {
        kind,
        count,
        ..Submission::video("several")
    };
    let wishes = [
        wish(TaskKind::Video, 3),
        wish(TaskKind::Image, 4),
        wish(TaskKind::Audio, 2),
    ];
    let ids = wishes.map(|wish| world.simulator.submit(wish).unwrap());
    for id in &ids {
        let rule = |fault, index| Rule::file(fault).task(id).index(AssetIndex(index));
        world.simulator.plant(rule(FileFault::Dead(403), 1));
        world.simulator.plant(rule(FileFault::Truncate(SOME), 0));
    }
    world.announce(&ids).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records).await;
    let kinds: Vec<_> = records
        .iter()
        .flat_map(|record| &record.assets)
        .map(|asset| asset.content_type.as_deref().unwrap_or_default())
        .collect();
    let count = |kind| kinds.iter().filter(|other| **other == kind).count();
    assert_eq!(count("video/mp4"), 3);
    assert_eq!(count("image/png"), 4);
    assert_eq!(count("audio/mpeg"), 2);
}

#[tokio::test]
async fn a_task_that_does_not_complete_ends_with_the_reason_of_its_provider() {
    let ends = [
        (
            Ending::Fails("content_policy".to_owned()),
            TaskState::Failed,
            Some("content_policy"),
        ),
        (Ending::Cancelled, TaskState::Cancelled, None),
        (
            Ending::CancelledAsFailed,
            TaskState::Cancelled,
            Some("request_cancelled"),
        ),
    ];
    let world = World::new(impatient(SMALL)).await;
    for (ending, _, _) in &ends {
        world
            .simulator
            .plant(Rule::new(Fault::Ending(ending.clone())));
    }
    let ids = world.submit(ends.len()).await;
    let records = world.run_to_the_end().await;
    for (id, (ending, state, code)) in ids.iter().zip(&ends) {
        let record = records.iter().find(|record| record.key.id == *id).unwrap();
        assert_eq!(record.state, *state, "{ending:?}");
        let said = record.task_error.as_ref().map(|error| error.code.as_str());
        assert_eq!(said, *code, "{ending:?}");
        assert!(record.assets.is_empty());
    }
}

/// Together, since both mostly wait for the next look.
#[tokio::test]
async fn a_task_api_that_lies_or_fails_loses_nothing() {
    tokio::join!(check_lies(), check_api_faults());
}

async fn check_lies() {
    let huge = ByteSize::mib(3);
    let lies = [
        Lie::NoResults,
        Lie::UnknownStatus,
        Lie::Back,
        Lie::OtherId,
        Lie::WrongTypes,
        Lie::Huge(huge),
    ];
    let runs = lies.map(|lie| async move {
        let mut plan = impatient(SMALL);
        plan.extra.push_str("[poll]\nfirst = \"1s\"\n");
        let world = World::new(plan).await;
        let wish = Submission {
            kind: TaskKind::Image,
            ..Submission::video("liar")
        };
        let ids = [wish.clone(), wish].map(|wish| world.simulator.submit(wish).unwrap());
        world.simulator.plant(Rule::lie(lie.clone()).task(&ids[0]));
        world.announce(&ids).await;
        let records = world.run_to_the_end().await;
        println!("{lie:?}");
        world.assert_all_archived(&records).await;
        assert_eq!(world.simulator.seen().faults, 1);
    });
    futures::future::join_all(runs).await;
}

async fn check_api_faults() {
    let faults = [
        ApiFault::TooMany(None),
        ApiFault::TooMany(Some(Span::from_secs(1))),
        ApiFault::Internal,
        ApiFault::Html,
    ];
    let runs = faults.map(|fault| async move {
        let world = World::new(impatient(SMALL)).await;
        world.simulator.plant(Rule::api(fault.clone()));
        world.submit(2).await;
        let records = world.run_to_the_end().await;
        println!("{fault:?}");
        world.assert_all_archived(&records).await;
        assert_eq!(world.simulator.seen().faults, 1);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn an_account_that_is_refused_keeps_its_tasks() {
    let faults = [
        (ApiFault::Unauthorized, "401"),
        (ApiFault::PaymentRequired, "402"),
        (ApiFault::Forbidden, "403"),
    ];
    let runs = faults.map(|(fault, status)| async move {
        let world = World::new(impatient(SMALL)).await;
        world.simulator.plant(Rule::api(fault).times(u32::MAX));
        world.submit(2).await;
        let has_error = |records: &[TaskRecord]| records.iter().all(|it| it.error.is_some());
        for record in world.run_until(has_error).await {
            let error = record.error.unwrap_or_default();
            assert!(error.contains(status), "{error}");
            assert_eq!((record.state, record.attempts), (TaskState::Watching, 0));
            assert!(record.next_look_at.is_some());
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_fresh_link_is_asked_for_until_the_provider_answers() {
    let mut plan = impatient(SMALL);
    // Past its deadline at once: only the provider's word stands between the asset and `lost`.
    plan.provider = "output_ttl = \"1ms\"".to_owned();
    let world = World::new(plan).await;
    world.simulator.plant(Rule::file(FileFault::Dead(403)));
    world
        .simulator
        .plant(Rule::api(ApiFault::Internal).skip(1).times(2));
    world.submit(1).await;
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records).await;
    assert_eq!(world.simulator.seen().faults, 3);
}

#[tokio::test]
async fn answers_that_no_server_should_give_lose_nothing() {
    let json = "{\"error\": {\"code\": \"expired\", \"message\": \"try again later\"}}";
    let answers = [
        ("json", format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}", json.len())),
        ("xml", "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n<Error/>".to_owned()),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("a part unasked", "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-7/99\r\ncontent-length: 8\r\n\r\n....ftyp".to_owned()),
        ("not modified", "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()),
        ("no redirect", "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("a redirect to nonsense", "HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n.....".to_owned()),
        ("no length at all", "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n.....".to_owned()),
        ("a broken chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned()),
        ("not http", "SSH-2.0-OpenSSH_9.2p1\r\n".to_owned()),
        ("nothing", String::new()),
        ("endless headers", format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20))),
        ("retry after", "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("retry after nonsense", "HTTP/1.1 503 No\r\nretry-after: 99999999999999999999\r\ncontent-length: 0\r\n\r\n".to_owned()),
    ];
    let mut servers = JoinSet::new();
    let mut rows = Vec::new();
    for (name, answer) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        servers.spawn(answer_all(listener, answer));
        let url = format!("http://{address}/video.mp4").parse().unwrap();
        rows.push(row(name, SMALL, [FileFault::RedirectTo(url)]));
    }
    check_archived(rows).await;
}

/// Answers every request with the same bytes, and closes.
async fn answer_all(listener: TcpListener, answer: String) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 4096];
        stream.read(&mut request).await.ok();
        stream.write_all(answer.as_bytes()).await.ok();
        stream.shutdown().await.ok();
    }
}

#[tokio::test]
async fn no_inside_address_is_ever_called_for_a_link() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::new(impatient(SMALL)).await;
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
    let has_error = |records: &[TaskRecord]| {
        let mut assets = records.iter().flat_map(|record| &record.assets);
        assets.all(|asset| asset.error.is_some())
    };
    let records = world.run_until(has_error).await;
    assert_eq!(records.len(), links.len());
    for asset in records.iter().flat_map(|record| &record.assets) {
        let error = asset.error.as_deref().unwrap_or_default();
        assert!(error.contains("not allowed"), "{}: {error}", asset.url);
    }
    let called = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(called.is_err(), "{called:?}");
}
