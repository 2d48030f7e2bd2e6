//! What the tests of failures share: kinds of store, sizes that matter, and how an error that somebody sees looks.

use reelvault::manifest::row::AssetRecord;
use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::bucket::Quirks;
use reelvault::units::ByteSize;
use reelvault::units::Span;

use crate::world::Log;
use crate::world::PART;
use crate::world::Plan;
use crate::world::World;

/// A body that fits into one request.
pub(crate) const SMALL: ByteSize = ByteSize::mib(1);

/// A body of two parts and a byte.
pub(crate) const PARTS: ByteSize = ByteSize::bytes(2 * PART + 1);

/// A body of as many parts as it takes to be stopped after the first and before the last.
pub(crate) const MANY: ByteSize = ByteSize::bytes(4 * PART - 1000);

/// Longer than anything waits that somebody has to mend.
pub(crate) const MENDED: Span = Span::from_secs(90);

/// The kinds of store that faults are met with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Filled parts.
    Generic,
    /// Frames passed through.
    Aws,
    /// Equal parts, and a completion that fails ends the upload.
    R2,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Generic, Kind::Aws, Kind::R2];

    /// One that takes filled bodies, and one that takes bodies passed through.
    pub(crate) const EACH: [Kind; 2] = [Kind::Generic, Kind::Aws];

    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Generic => "generic",
            Kind::Aws => "aws",
            Kind::R2 => "r2",
        }
    }

    /// A plan with files of `size` and a store of this kind.
    pub(crate) fn plan(self, size: ByteSize) -> Plan {
        let mut plan = Plan::files_of(size);
        if matches!(self, Kind::R2) {
            plan.bucket.quirks = Quirks::r2();
        }
        plan.store = format!("quirks = {:?}", self.name());
        plan
    }

    /// The same over origins that may be silent for a second: enough for a busy machine that runs both ends.
    pub(crate) fn impatient(self, size: ByteSize) -> Plan {
        let mut plan = self.plan(size);
        plan.extra.push_str("stall_timeout = \"1500ms\"\n");
        plan
    }
}

/// Each of `kinds` with a body for one request and with one for parts.
pub(crate) fn each(kinds: &[Kind]) -> Vec<(Kind, ByteSize)> {
    let sizes = |kind: &Kind| [(*kind, SMALL), (*kind, PARTS)];
    kinds.iter().flat_map(sizes).collect()
}

/// Whether there is an asset, and each that is not archived says why.
pub(crate) fn all_say_why(records: &[TaskRecord]) -> bool {
    let mut assets = records.iter().flat_map(|record| &record.assets);
    let is_told =
        |asset: &AssetRecord| asset.error.is_some() || asset.state == AssetState::Archived;
    records.iter().all(|record| !record.assets.is_empty()) && assets.all(is_told)
}

/// Whether a part of an asset is recorded.
pub(crate) fn has_parts(records: &[TaskRecord]) -> bool {
    let assets = records.iter().flat_map(|record| &record.assets);
    let mut objects = assets.flat_map(|asset| &asset.objects);
    objects.any(|object| object.parts > 0)
}

/// The only asset's error.
#[track_caller]
pub(crate) fn error_of(records: &[TaskRecord]) -> &str {
    let [record] = records else {
        panic!("{records:#?}");
    };
    record.assets[0].error.as_deref().unwrap_or_default()
}

/// Asserts that somebody was told: a warning or an error in the log has `part`.
#[track_caller]
pub(crate) fn assert_told(log: &Log, part: &str) {
    let lines = log.lines();
    let mut loud = lines
        .iter()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert!(loud.any(|line| line.contains(part)), "{part}: {lines:#?}");
}

/// A world with one task whose daemon was stopped after its first part, with the upload open.
pub(crate) async fn stopped_midway(mut plan: Plan) -> World {
    plan.extra.push_str("parts_ahead = 1\n");
    let world = World::new(plan).await;
    let late = Fault::new(Operation::UploadPart, Effect::Delay(Span::from_millis(300)));
    world.bucket.plant(late.from(2).times(1));
    world.submit(1).await;
    world.run_until(has_parts).await;
    assert_eq!(world.bucket.open_uploads().len(), 1, "stopped too late");
    world.reopened().await
}
