//! Origins and task APIs that stall, lie, cut, redirect and die: nothing wrong is archived, and nothing is lost for it.

use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Rule;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;

use crate::world::PART;
use crate::world::Plan;
use crate::world::World;

/// A body of two and a half parts.
const PARTS: ByteSize = ByteSize::bytes(5 * (5 << 20) / 2);

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
