//! Destinations that refuse, break, forget, lose answers and hold other people's objects.

use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::bucket::Quirks;
use reelvault::units::ByteSize;

use crate::world::FIRST;
use crate::world::PART;
use crate::world::Plan;
use crate::world::World;
use crate::world::sha256;

/// A body of two and a half parts.
const PARTS: ByteSize = ByteSize::bytes(5 * PART / 2);

/// A body that fits into one request.
const SMALL: ByteSize = ByteSize::mib(1);

/// Some bytes into a request's body.
const SOME: u64 = 100_000;

/// The kinds of store that the faults are met with.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Filled parts.
    Generic,
    /// Frames passed through.
    Aws,
    /// Equal parts, and a completion that fails ends the upload.
    R2,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Generic, Kind::Aws, Kind::R2];

    fn plan(self, size: ByteSize) -> Plan {
        let mut plan = Plan::files_of(size);
        let name = match self {
            Kind::Generic => "generic",
            Kind::Aws => "aws",
            Kind::R2 => {
                plan.bucket.quirks = Quirks::r2();
                "r2"
            }
        };
        plan.store = format!("quirks = {name:?}");
        plan
    }
}

/// One store that misbehaves.
struct Row {
    name: &'static str,
    size: ByteSize,
    faults: Vec<Fault>,
}

fn row(name: &'static str, size: ByteSize, faults: impl Into<Vec<Fault>>) -> Row {
    Row {
        name,
        size,
        faults: faults.into(),
    }
}

/// Archives one video with each row's faults at each kind of store, each in a world of its own.
async fn check_archived(rows: Vec<Row>) {
    let cases = rows
        .iter()
        .flat_map(|row| Kind::ALL.map(|kind| (row, kind)));
    let runs = cases.map(|(row, kind)| async move {
        let world = World::new(kind.plan(row.size)).await;
        for fault in &row.faults {
            world.bucket.plant(fault.clone());
        }
        world.submit(1).await;
        let records = world.run_to_the_end().await;
        let (name, left) = (row.name, world.bucket.faults_waiting());
        println!("{name} at {kind:?}: {:?}", records[0].assets[0].error);
        world.assert_all_archived(&records).await;
        assert_eq!(left, 0, "{name} at {kind:?}: a fault did not strike");
        assert_eq!(world.bucket.count(Operation::DeleteObject), 0);
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_store_that_is_busy_or_breaks_gets_every_byte_in_the_end() {
    use Operation::*;
    let slow = |operation| Fault::new(operation, Effect::SLOW_DOWN);
    let broken = |operation, after| Fault::new(operation, Effect::Break(after));
    check_archived(vec![
        row("busy at put", SMALL, [slow(PutObject)]),
        row("busy at create", PARTS, [slow(CreateMultipartUpload)]),
        row("busy at a part", PARTS, [slow(UploadPart).from(2).times(2)]),
        row("busy at all parts", PARTS, [slow(UploadPart).times(5)]),
        row("busy at complete", PARTS, [slow(CompleteMultipartUpload)]),
        row("busy at head", PARTS, [slow(HeadObject)]),
        row("busy at the second head", SMALL, [slow(HeadObject).from(2)]),
        row("broken in a put", SMALL, [broken(PutObject, SOME)]),
        row(
            "broken in parts",
            PARTS,
            [broken(UploadPart, SOME).times(3)],
        ),
        row(
            "broken at complete",
            PARTS,
            [broken(CompleteMultipartUpload, 0)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_object() {
    use Operation::*;
    let lost = |operation| Fault::new(operation, Effect::LoseAnswer);
    let error = |operation| Fault::new(operation, Effect::DoneButAnswer(500, "InternalError"));
    check_archived(vec![
        row("of put", SMALL, [lost(PutObject)]),
        row("of create", PARTS, [lost(CreateMultipartUpload)]),
        row("of a part", PARTS, [lost(UploadPart).from(2)]),
        row("of complete", PARTS, [lost(CompleteMultipartUpload)]),
        row("500 for put", SMALL, [error(PutObject)]),
        row("500 for create", PARTS, [error(CreateMultipartUpload)]),
        row("500 for complete", PARTS, [error(CompleteMultipartUpload)]),
        row(
            "lost, and no head",
            PARTS,
            [
                lost(CompleteMultipartUpload),
                Fault::new(HeadObject, Effect::SLOW_DOWN).from(2),
            ],
        ),
        row(
            "lost put, and no head",
            SMALL,
            [
                lost(PutObject),
                Fault::new(HeadObject, Effect::SLOW_DOWN).from(2),
            ],
        ),
        row(
            "200 with an error",
            PARTS,
            [Fault::new(CompleteMultipartUpload, Effect::ErrorIn200)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_upload_that_is_gone_is_begun_anew() {
    use Operation::*;
    let gone = |operation| Fault::new(operation, Effect::NO_SUCH_UPLOAD);
    let conflict = |operation| Fault::new(operation, Effect::CONFLICT);
    check_archived(vec![
        row("at a part", PARTS, [gone(UploadPart).from(2)]),
        row("at complete", PARTS, [gone(CompleteMultipartUpload)]),
        row(
            "conflict at complete",
            PARTS,
            [conflict(CompleteMultipartUpload)],
        ),
        row("conflict at put", SMALL, [conflict(PutObject)]),
    ])
    .await;
}
