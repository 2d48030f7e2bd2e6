//! One download feeds every destination, and a destination or an origin in trouble costs the others nothing.

use std::sync::Arc;
use std::time::Duration;

use reelvault::manifest::row::ObjectRecord;
use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetIndex;
use reelvault::model::asset::AssetState;
use reelvault::model::digest::Sha256Digester;
use reelvault::model::object::ObjectState;
use reelvault::simulator;
use reelvault::simulator::bucket;
use reelvault::simulator::bucket::Bodies;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::bucket::StoredPiece;
use reelvault::simulator::script::AtOnce;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Manner;
use reelvault::simulator::script::Rule;
use reelvault::simulator::source::FileKind;
use reelvault::simulator::source::FileSource;
use reelvault::simulator::tasks::Submission;
use reelvault::simulator::tasks::TaskKind;
use reelvault::units::ByteSize;

use crate::faults::Kind;
use crate::faults::MANY;
use crate::faults::MENDED;
use crate::faults::all_say_why;
use crate::faults::assert_told;
use crate::faults::each;
use crate::process::Outside;
use crate::store_faults::certificate;
use crate::world::FIRST;
use crate::world::Log;
use crate::world::Plan;
use crate::world::World;
use crate::world::destination_text;

/// A plan with a second store, `other`, of the other kind.
fn two(kind: Kind, size: ByteSize) -> Plan {
    let mut plan = kind.plan(size);
    let other = match kind {
        Kind::Generic | Kind::R2 => Kind::Aws,
        Kind::Aws => Kind::Generic,
    };
    let other = other.plan(size);
    plan.other = Some((bucket::Config::new("copies"), other.store));
    plan
}

/// The objects that go to a destination.
fn objects_at<'a>(records: &'a [TaskRecord], destination: &str) -> Vec<&'a ObjectRecord> {
    let assets = records.iter().flat_map(|record| &record.assets);
    let objects = assets.flat_map(|asset| &asset.objects);
    objects
        .filter(|object| object.destination.as_str() == destination)
        .collect()
}

fn are_archived(objects: &[&ObjectRecord], count: usize) -> bool {
    let mut states = objects.iter().map(|object| object.state);
    objects.len() == count && states.all(|state| state == ObjectState::Archived)
}

#[tokio::test]
async fn one_download_feeds_every_destination() {
    for (kind, size) in each(&Kind::ALL) {
        let mut plan = two(kind, size);
        // On a machine that is slow for a moment, a second connection would make the first one's last bytes useless.
        let table = "[transfer]\n";
        plan.extra = plan.extra.replace(table, &format!("{table}lanes = 0\n"));
        let world = World::new(plan).await;
        let ids = world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        let seen = world.simulator.seen_file(&ids[0], FIRST);
        assert_eq!(seen.bytes, size.as_u64(), "{kind:?} {seen:?}");
    }
}

#[tokio::test]
async fn a_destination_that_stalls_holds_up_no_other() {
    let cases = each(&Kind::EACH).into_iter();
    let cases = cases.flat_map(|case| [(case, "main"), (case, "other")]);
    let runs = cases.map(|((kind, size), stalled)| async move {
        let mut plan = two(kind, size);
        plan.extra.push_str("[server]\nshutdown_grace = \"1s\"\n");
        // The silence alone takes twenty seconds, and eight of these run at once.
        plan.patience = Duration::from_mins(1);
        let world = World::new(plan).await;
        let good = if stalled == "main" { "other" } else { "main" };
        let bad = if stalled == "main" {
            Arc::clone(&world.bucket)
        } else {
            Arc::clone(world.other.as_ref().unwrap())
        };
        for operation in [Operation::PutObject, Operation::UploadPart] {
            let hang = Fault::new(operation, Effect::Hang(100_000));
            bad.plant(hang.times(u32::MAX));
        }
        world.submit(1).await;
        // A store is given up after some 20 seconds of silence; the other has its bytes long before.
        let has_good = |records: &[TaskRecord]| are_archived(&objects_at(records, good), 1);
        let soon = Duration::from_secs(15);
        let records = tokio::time::timeout(soon, world.run_until(has_good)).await;
        assert!(records.is_ok(), "{kind:?} {size} {stalled}");
        let world = world.reopened().await;
        let told = |records: &[TaskRecord]| {
            let error = records[0].assets[0].error.as_deref().unwrap_or_default();
            error.contains(stalled)
        };
        let records = world.run_until(told).await;
        assert_eq!(records[0].assets[0].state, AssetState::Due);
        bad.heal();
        world.pass(MENDED);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_destination_that_refuses_everybody_is_paused_and_holds_up_no_other() {
    const COUNT: usize = 8;
    for (kind, size) in each(&Kind::EACH) {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = two(kind, size);
        plan.extra.push_str("concurrent = 1\n");
        let world = World::new(plan).await;
        let refused = [Operation::PutObject, Operation::CreateMultipartUpload];
        for operation in refused {
            let denied = Fault::new(operation, Effect::ACCESS_DENIED);
            world.bucket.plant(denied.times(u32::MAX));
        }
        world.submit(COUNT).await;
        let is_done = |records: &[TaskRecord]| {
            are_archived(&objects_at(records, "other"), COUNT) && all_say_why(records)
        };
        let records = world.run_until(is_done).await;
        let asked: u64 = refused.iter().map(|it| world.bucket.count(*it)).sum();
        // The first may be of its key alone; the second is everybody's, but for one at a time that was not refused.
        assert!((2..=3).contains(&asked), "{asked}");
        for asset in records.iter().flat_map(|record| &record.assets) {
            assert_eq!((asset.state, asset.attempts), (AssetState::Due, 0));
        }
        assert_told(&log, "403 AccessDenied");
        world.bucket.heal();
        world.pass(MENDED);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
}

#[tokio::test]
async fn a_destination_that_answers_no_question_holds_up_no_other() {
    const BACKLOG: usize = 20;
    let log = Log::default();
    let _listening = log.listen();
    let mut plan = two(Kind::Aws, ByteSize::bytes(64 << 10));
    plan.extra.push_str("[server]\nshutdown_grace = \"1s\"\n");
    let world = World::new(plan).await;
    let silent = Fault::new(Operation::HeadObject, Effect::Break(0));
    world.bucket.plant(silent.times(u32::MAX));
    world.submit(BACKLOG).await;
    let work = async {
        let has_other = async |count| {
            while !are_archived(&objects_at(&world.records().await, "other"), count) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        has_other(BACKLOG).await;
        assert_told(&log, "the destination takes nothing");
        // From now on whoever asks waits for half a minute, and the whole backlog waits to ask.
        world.bucket.heal();
        let hang = Fault::new(Operation::HeadObject, Effect::Hang(0));
        world.bucket.plant(hang.times(u32::MAX));
        let asked = world.bucket.count(Operation::HeadObject);
        world.bucket.reached(Operation::HeadObject, asked + 1).await;
        world.submit(5).await;
        let soon = Duration::from_secs(15);
        let done = tokio::time::timeout(soon, has_other(BACKLOG + 5)).await;
        assert!(done.is_ok(), "the other destination got nothing");
    };
    world.run_during(work).await;
}

#[tokio::test]
async fn a_fresh_link_is_asked_for_while_a_destination_is_in_trouble() {
    let world = World::new(two(Kind::Aws, ByteSize::mib(1))).await;
    let broken = Effect::Answer(500, "InternalError");
    let broken = Fault::new(Operation::HeadObject, broken);
    world.bucket.plant(broken.times(u32::MAX));
    let dead = Rule::file(FileFault::Dead(403));
    world.simulator.plant(dead);
    world.submit(1).await;
    let is_done = |records: &[TaskRecord]| are_archived(&objects_at(records, "other"), 1);
    world.run_until(is_done).await;
}

/// The store's own patience ends after 20 to 30 seconds.
#[tokio::test]
async fn a_store_that_stops_reading_is_given_up_in_time() {
    let cases = each(&Kind::EACH).into_iter();
    let cases = cases.flat_map(|case| [(case, 0), (case, 100_000)]);
    let runs = cases.map(|((kind, size), after)| async move {
        let mut plan = kind.plan(size);
        if after > 0 {
            // A connection that hangs is left differently where there is TLS on it.
            let (tls, authority) = certificate();
            plan.bucket.tls = Some(tls);
            plan.roots = authority.into_bytes();
        }
        plan.patience = Duration::from_secs(28);
        plan.extra.push_str("[server]\nshutdown_grace = \"1s\"\n");
        let world = World::new(plan).await;
        for operation in [Operation::PutObject, Operation::UploadPart] {
            let hang = Fault::new(operation, Effect::Hang(after));
            world.bucket.plant(hang);
        }
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_slow_origin_is_asked_on_several_connections_and_never_on_more_than_it_bears() {
    for kind in Kind::EACH {
        for bound in [None, Some(2)] {
            let world = World::new(kind.plan(ByteSize::mib(30))).await;
            world
                .simulator
                .limit_at_once(bound.map(|most| AtOnce { most, status: 503 }));
            world.simulator.limit_rate(Some(ByteSize::mib(3)));
            let ids = world.submit(1).await;
            let records = world.run_to_the_end().await;
            world.assert_all_archived(&records);
            let seen = world.simulator.seen_file(&ids[0], FIRST);
            assert!(seen.at_once_max > 1, "{kind:?} {bound:?}: {seen:?}");
            assert!(seen.at_once_max <= bound.unwrap_or(u64::MAX));
            assert!(seen.refused < 10, "{kind:?} {bound:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_body_without_a_length_or_boxes_is_read_twice_and_compared() {
    let kinds = [
        (FileKind::Png, TaskKind::Image),
        (FileKind::Mp3, TaskKind::Audio),
        (FileKind::Webm, TaskKind::Video),
    ];
    for (store, size) in each(&Kind::EACH) {
        let world = World::new(store.plan(size)).await;
        let ids = kinds.map(|(format, kind)| {
            let wish = Submission {
                kind,
                format: Some(format),
                ..Submission::video("unmeasured")
            };
            world.simulator.submit(wish).unwrap()
        });
        for id in &ids {
            let unmeasured = Rule::file(FileFault::NoLength).times(u32::MAX);
            // Two reads that differ prove nothing; the next two do.
            world
                .simulator
                .plant(Rule::file(FileFault::Short(None)).task(id));
            world.simulator.plant(unmeasured.task(id));
        }
        world.announce(&ids).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        for (id, (format, _)) in ids.iter().zip(kinds) {
            let gets = world.simulator.seen_file(id, FIRST).gets;
            // What ends a PNG or a WebM can be seen; of an MP3 only a second reading tells.
            let least = if format == FileKind::Mp3 { 3 } else { 2 };
            assert!(gets >= least, "{format:?}: {gets}");
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_nothing_tells_is_taken_from_its_start() {
    for (kind, size) in each(&Kind::ALL) {
        let world = World::new(kind.plan(size)).await;
        world.simulator.plant(Rule::manner(Manner::NoVersion));
        let cut = Some(ByteSize::bytes(size.as_u64() * 3 / 5));
        world.simulator.plant(Rule::file(FileFault::Change(cut)));
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
}

/// Not archived, since nobody knows what the file is, but never in silence.
#[tokio::test]
async fn a_total_that_always_lies_or_is_never_told_is_told_of() {
    let lies = [Manner::NoTotal, Manner::LyingTotal(ByteSize::mib(1))];
    for (kind, size) in each(&Kind::EACH) {
        let runs = lies.map(|lie| async move {
            let world = World::new(kind.plan(size)).await;
            world.simulator.plant(Rule::manner(Manner::PartUnasked));
            world.simulator.plant(Rule::manner(lie));
            world.submit(1).await;
            let records = world.run_until(all_say_why).await;
            println!("{lie:?} at {kind:?}: {:?}", records[0].assets[0].error);
            assert_ne!(records[0].assets[0].state, AssetState::Archived);
            assert_eq!(world.bucket.objects(), []);
        });
        futures::future::join_all(runs).await;
    }
}

#[tokio::test]
async fn parts_that_are_too_small_for_a_store_are_mended_by_the_configuration() {
    for kind in Kind::EACH {
        let log = Log::default();
        let _listening = log.listen();
        let mut plan = kind.plan(MANY);
        plan.bucket.quirks.part_bytes_min = ByteSize::mib(8);
        let world = World::new(plan).await;
        world.submit(1).await;
        world.run_until(all_say_why).await;
        assert_told(&log, "EntityTooSmall");
        let (from, to) = ("part_size = \"5 MiB\"", "part_size = \"8 MiB\"");
        let world = world.reconfigured(from, to).await;
        world.pass(MENDED);
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
}

/// How much the daemon may have of data, stacks included, however long the body is.
const DATA: ByteSize = ByteSize::mib(96);

/// Takes a minute and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_gib_in_96_mib_past_a_destination_that_stalls_for_ever() {
    let config = simulator::Config {
        size: ByteSize::mib(8 << 10),
        ..simulator::Config::at_once()
    };
    let mut hashed = bucket::Config::new("videos");
    hashed.bodies = Bodies::Hashed;
    let outside = Outside::with(config, hashed).await;
    let stalled = bucket::Config::new("stalled");
    let stalled = bucket::start(stalled).await.unwrap();
    let hang = Fault::new(Operation::UploadPart, Effect::Hang(100_000));
    stalled.plant(hang.times(u32::MAX));
    let extra = "memory = \"48 MiB\"\n[server]\nshutdown_grace = \"5s\"\n".to_owned()
        + &destination_text("stalled", &stalled, "quirks = \"aws\"\n");
    let config = outside.config("quirks = \"aws\"", &extra);
    let config = config.replace("part_size = \"5 MiB\"", "part_size = \"8 MiB\"");
    outside.home.configure(&config);
    outside.add(1).await;

    let daemon = outside.home.spawn_within(DATA);
    let patience = Duration::from_mins(4);
    let stored = outside
        .bucket
        .reached(Operation::CompleteMultipartUpload, 1);
    let stored = tokio::time::timeout(patience, stored).await;
    assert!(stored.is_ok(), "{}", daemon.log());
    let id = outside.simulator.tasks()[0].clone();
    let field = |field: &str| {
        let arguments = ["manifest", "get", id.as_str(), "--field", field];
        arguments.map(str::to_owned)
    };
    let [state, error] = ["assets.0.state", "assets.0.error"].map(field);
    let states = ["assets.0.objects.0.state", "assets.0.objects.1.state"].map(field);
    let borrowed = |arguments: &[String; 5]| arguments.clone();
    let read = async |arguments: &[String; 5]| {
        let arguments = borrowed(arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        outside.home.done(&arguments).await.trim().to_owned()
    };
    let told = async {
        while !read(&error).await.contains("stalled") {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let told = tokio::time::timeout(patience, told).await;
    assert!(told.is_ok(), "nobody is told: {}", daemon.log());
    assert_eq!(read(&state).await, "due");
    assert_eq!(read(&states[0]).await, "archived");
    assert_ne!(read(&states[1]).await, "archived");
    outside.home.hear(&daemon.stop().await);

    let objects = outside.bucket.objects();
    let [object] = objects.as_slice() else {
        panic!("{objects:?}");
    };
    let source = outside.simulator.expected(&id, AssetIndex(0)).unwrap();
    assert_eq!(object.length, source.length());
    assert_pieces(source, object.pieces.clone()).await;
    assert_eq!(outside.bucket.open_uploads(), []);
    assert_eq!(stalled.objects(), []);
}

/// Asserts that what came in each request are the source's bytes, by their SHA-256. Half of the work on each of two
/// threads.
async fn assert_pieces(source: FileSource, pieces: Vec<StoredPiece>) {
    let mut starts = Vec::new();
    let mut start = 0;
    for piece in pieces {
        starts.push((start, piece));
        start += piece.length;
    }
    assert_eq!(start, source.length());
    let (left, right) = starts.split_at(starts.len() / 2);
    let halves = [left.to_vec(), right.to_vec()].map(|half| {
        let source = source.clone();
        tokio::task::spawn_blocking(move || {
            for (start, piece) in half {
                let mut digester = Sha256Digester::new();
                digester.update(&source.bytes(start..start + piece.length));
                assert_eq!(piece.sha256, Some(digester.value()), "at {start}");
            }
        })
    });
    for half in halves {
        half.await.unwrap();
    }
}
