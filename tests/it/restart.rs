//! A daemon that is stopped or dies in the middle, and goes on where it was.

use std::time::Duration;

use reelvault::clock::Clock;
use reelvault::manifest::row::NewTask;
use reelvault::manifest::row::TaskRecord;
use reelvault::model::deadline::Deadline;
use reelvault::model::deadline::DeadlineSource;
use reelvault::model::task::LearnedVia;
use reelvault::model::task::Tags;
use reelvault::model::task::TaskKey;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::bucket::Quirks;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio_util::sync::CancellationToken;

use crate::world::PART;
use crate::world::Plan;
use crate::world::World;

/// The parts of each body.
const PARTS: u64 = 8;

/// How much later than a request's arrival a crash comes: before its work, before its answer, after.
const TURNS: [u32; 2] = [0, 6];

/// Parts in flight at once, which a sudden end may cost.
const AHEAD: u64 = 2;

/// A world whose store takes its time for each of the first parts.
async fn slow_world(quirks: &str) -> World {
    let mut plan = Plan::files_of(ByteSize::bytes(PARTS * PART - 1000));
    plan.store = format!("quirks = {quirks:?}");
    plan.extra += &format!("parts_ahead = {AHEAD}\n");
    if quirks == "r2" {
        plan.bucket.quirks = Quirks::r2();
    }
    let world = World::new(plan).await;
    let late = Effect::Delay(Span::from_millis(50));
    world
        .bucket
        .plant(Fault::new(Operation::UploadPart, late).times(1000));
    world.submit(1).await;
    world
}

/// The parts that are recorded for the first asset.
fn parts(records: &[TaskRecord]) -> u32 {
    let assets = records.iter().flat_map(|record| &record.assets);
    let mut objects = assets.flat_map(|asset| &asset.objects);
    objects.next().map_or(0, |object| object.parts)
}

#[tokio::test]
async fn stopping_loses_no_finished_part() {
    let runs = ["generic", "aws", "r2"].map(|quirks| async move {
        let mut world = slow_world(quirks).await;
        for wanted in [2, 5] {
            let records = world.run_until(|records| parts(records) >= wanted).await;
            assert!(u64::from(parts(&records)) < PARTS, "stopped too late");
            world = world.reopened().await;
        }
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        assert_eq!(world.bucket.count(Operation::UploadPart), PARTS, "{quirks}");
        assert_eq!(world.bucket.count(Operation::CreateMultipartUpload), 1);
        assert_eq!(records[0].assets[0].attempts, 0, "a stop costs no attempt");
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_crash_costs_no_more_than_the_parts_in_flight() {
    let runs = ["generic", "aws", "r2"].map(|quirks| async move {
        let mut world = slow_world(quirks).await;
        for wanted in [2, 5] {
            crash_when(&world, |records| parts(records) >= wanted).await;
            world = world.reopened().await;
        }
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
        let sent = world.bucket.count(Operation::UploadPart);
        assert!(
            sent <= PARTS + 2 * AHEAD,
            "{quirks}: {sent} parts were sent"
        );
        assert_eq!(world.bucket.count(Operation::CreateMultipartUpload), 1);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_crash_at_any_request_leaves_one_object_and_no_upload() {
    use Operation::*;
    let points = [
        (CreateMultipartUpload, 1),
        (UploadPart, 1),
        (UploadPart, 3),
        (CompleteMultipartUpload, 1),
        (HeadObject, 1),
        (HeadObject, 2),
    ];
    let cases = points
        .into_iter()
        .flat_map(|point| TURNS.map(|turns| (point, turns)));
    let runs = cases.map(|((operation, count), turns)| async move {
        let world = World::new(Plan::files_of(ByteSize::bytes(2 * PART + 1))).await;
        world.submit(1).await;
        crash_at(&world, operation, count, turns).await;
        let world = world.reopened().await;
        let records = world.run_to_the_end().await;
        println!("{operation} {count}, {turns} turns later");
        world.assert_all_archived(&records);
    });
    futures::future::join_all(runs).await;
}

/// Runs a daemon and drops it as soon as `is_time` holds of the manifest.
async fn crash_when(world: &World, is_time: impl Fn(&[TaskRecord]) -> bool) {
    let stop = CancellationToken::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !is_time(&world.records().await) {
            ticks.tick().await;
        }
    };
    tokio::select! {
        ran = world.daemon(&stop) => panic!("the daemon ended by itself: {ran:?}"),
        () = wait => {}
    }
}

/// Runs a daemon and drops it so many turns of the scheduler after the store got request number `count` for
/// `operation`. The store runs on the same thread, so that with each turn both get a little further.
async fn crash_at(world: &World, operation: Operation, count: u64, turns: u32) {
    let stop = CancellationToken::new();
    let wait = async {
        world.bucket.reached(operation, count).await;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ran = world.daemon(&stop) => panic!("the daemon ended by itself: {ran:?}"),
        () = wait => {}
    }
}

#[tokio::test]
async fn what_a_clock_put_off_that_was_ahead_is_looked_at_now() {
    let world = World::new(Plan::files_of(ByteSize::mib(1))).await;
    let id = world.simulator.submit(Submission::video("seedance-2.0"));
    let ahead = Clock::system().now().plus(Span::from_secs(2 * 86_400));
    let task = NewTask {
        key: TaskKey {
            provider: "sim".parse().unwrap(),
            id: id.unwrap(),
        },
        tags: Tags::new(),
        via: LearnedVia::Cli,
        next_look_at: ahead,
        deadline: Deadline {
            at: ahead,
            from: DeadlineSource::Learned,
        },
        callback: None,
    };
    world.manifest.learn(vec![task]).await.unwrap();
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}
