//! Tables of stores that misbehave, and the ways in which a row may end.

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::units::ByteSize;

use crate::faults::Kind;
use crate::faults::MENDED;
use crate::faults::all_say_why;
use crate::faults::assert_told;
use crate::faults::error_of;
use crate::world::Log;
use crate::world::Plan;
use crate::world::World;

/// One store that misbehaves.
pub(super) struct Row {
    name: &'static str,
    size: ByteSize,
    faults: Vec<Fault>,
}

pub(super) fn row(name: &'static str, size: ByteSize, faults: impl Into<Vec<Fault>>) -> Row {
    Row {
        name,
        size,
        faults: faults.into(),
    }
}

/// Archives one video with each row's faults at each of these kinds of store, each in a world of its own.
pub(super) async fn check_archived(kinds: &[Kind], rows: Vec<Row>) {
    check_archived_with(Kind::plan, kinds.to_vec(), rows).await;
}

/// The same in worlds of one's own plan.
pub(super) async fn check_archived_with(
    plan: fn(Kind, ByteSize) -> Plan,
    kinds: Vec<Kind>,
    rows: Vec<Row>,
) {
    for kind in kinds {
        let runs = rows
            .iter()
            .map(|row| archive(plan(kind, row.size), kind, row));
        futures::future::join_all(runs).await;
    }
}

async fn archive(plan: Plan, kind: Kind, row: &Row) {
    let world = World::new(plan).await;
    for fault in &row.faults {
        world.bucket.plant(fault.clone());
    }
    world.submit(1).await;
    let records = world.run_to_the_end().await;
    let (name, left) = (row.name, world.bucket.faults_waiting());
    println!("{name} at {kind:?}: {:?}", records[0].assets[0].error);
    world.assert_all_archived(&records);
    assert_eq!(left, 0, "{name} at {kind:?}: a fault did not strike");
    assert_eq!(world.bucket.count(Operation::DeleteObject), 0);
}

/// A store that somebody has to mend: `operation` always ends in `effect`.
pub(super) struct Broken {
    pub(super) operation: Operation,
    pub(super) size: ByteSize,
    pub(super) effect: Effect,
    /// Parts of the asset's error.
    pub(super) errors: &'static [&'static str],
}

/// While the store is broken the asset waits, at no cost, and somebody is told why; once it is mended the asset is
/// archived by itself.
pub(super) async fn check_waits(broken: &[Broken]) {
    let log = Log::default();
    let _listening = log.listen();
    for kind in Kind::EACH {
        let runs = broken.iter().map(|case| wait(kind, case, &log));
        futures::future::join_all(runs).await;
    }
}

async fn wait(kind: Kind, case: &Broken, log: &Log) {
    let world = World::new(kind.plan(case.size)).await;
    let fault = Fault::new(case.operation, case.effect.clone());
    world.bucket.plant(fault.times(u32::MAX));
    let ids = world.submit(1).await;
    let records = world.run_until(all_say_why).await;
    println!("{:?} at {kind:?}: {}", case.effect, error_of(&records));
    assert_waits(&records, case.errors);
    assert_told(log, case.errors[0]);
    assert_told(log, ids[0].as_str());

    world.bucket.heal();
    world.pass(MENDED);
    let records = world.run_to_the_end().await;
    world.assert_all_archived(&records);
}

/// Asserts that the only asset is due again, that no attempt was charged, and that it says why.
#[track_caller]
pub(super) fn assert_waits(records: &[TaskRecord], errors: &[&str]) {
    let asset = &records[0].assets[0];
    assert_eq!((asset.state, asset.attempts), (AssetState::Due, 0));
    assert!(asset.due_at.is_some());
    for part in errors {
        let error = error_of(records);
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}

/// Runs until the only asset says a reason with `part` in it: it is due again, somebody is told, and no upload is open.
pub(super) async fn run_until_doubted(world: &World, log: &Log, part: &str) {
    let says_so = |records: &[TaskRecord]| {
        all_say_why(records)
            && records[0].assets[0]
                .error
                .as_ref()
                .is_some_and(|error| error.contains(part))
    };
    let records = world.run_until(says_so).await;
    assert_eq!(records[0].assets[0].state, AssetState::Due);
    assert_told(log, part);
    world.run_until_clean().await;
    assert_eq!(world.bucket.open_uploads(), []);
    assert_eq!(world.bucket.count(Operation::DeleteObject), 0);
}
