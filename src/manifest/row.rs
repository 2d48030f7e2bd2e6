//! What goes into the manifest's verbs and what comes out: rows as domain types, the same for every engine.

pub mod answer;
pub mod discovery;
pub mod event;
mod filter;
mod held;
mod hint;
pub mod machine;
pub mod rebuild;
pub mod waiting;

use serde::Serialize;
use url::Url;

pub use self::filter::TaskFilter;
pub use self::held::HeldNews;
pub use self::hint::Heard;

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::asset::MediaDetails;
use crate::model::asset::MediaType;
use crate::model::asset::SourceIdentity;
use crate::model::deadline::Deadline;
use crate::model::digest::Crc64;
use crate::model::digest::Sha256Digest;
use crate::model::key::KeyTemplate;
use crate::model::key::ObjectKey;
use crate::model::lease::Lease;
use crate::model::object::DestinationName;
use crate::model::object::ETag;
use crate::model::object::ObjectState;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::model::object::Verified;
use crate::model::task::LearnedVia;
use crate::model::task::ResultLink;
use crate::model::task::Sighting;
use crate::model::task::Tags;
use crate::model::task::TaskError;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;
use crate::units::Span;

/// The kinds of rows that are worked under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claimable {
    /// Tasks, for `watch`.
    Tasks,
    /// Assets, for `archive`.
    Assets,
    /// Orphaned uploads, for `tend`.
    Orphans,
    /// Deliveries of events, for `report`.
    Deliveries,
    /// Lists of tasks, for `intake`.
    Discoveries,
}

impl Claimable {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Claimable::Tasks,
        Claimable::Assets,
        Claimable::Orphans,
        Claimable::Deliveries,
        Claimable::Discoveries,
    ];

    /// Its table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Claimable::Tasks => "tasks",
            Claimable::Assets => "assets",
            Claimable::Orphans => "orphans",
            Claimable::Deliveries => "deliveries",
            Claimable::Discoveries => "discoveries",
        }
    }
}

/// A task to learn.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its names.
    pub key: TaskKey,
    /// Labels that travel into keys and records.
    pub tags: Tags,
    /// How it became known.
    pub via: LearnedVia,
    /// When to ask the provider first.
    pub next_look_at: Timestamp,
    /// The deadline as far as it can be known before the first look.
    pub deadline: Deadline,
    /// Where whoever announced it wants to be called once it is archived, failed or lost.
    pub callback: Option<Url>,
}

/// A link to archive that no task stands behind: learned as a completed task with one asset.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// The pseudo provider and an ID made from the link.
    pub key: TaskKey,
    /// Labels that travel into keys and records.
    pub tags: Tags,
    /// The link and when it dies.
    pub asset: SeenAsset,
    /// Where it goes.
    pub objects: Vec<ObjectPlan>,
}

/// What `learn` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The task was not known.
    New,
    /// The task was known, in this state; nothing changed but tags and a callback that it lacked.
    Known(TaskState),
}

/// One destination of an asset's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPlan {
    /// Where to.
    pub destination: DestinationName,
    /// The route's key template, kept with the row so that a changed route does not move what has begun.
    pub key_template: KeyTemplate,
}

/// A result link with the deadline that was worked out for it.
#[derive(Clone, Debug)]
pub struct SeenAsset {
    /// The link as the provider gave it.
    pub link: ResultLink,
    /// When it dies.
    pub deadline: Deadline,
}

/// A task under lease.
#[derive(Clone, Debug)]
pub struct ClaimedTask {
    /// The claim, on a row of `tasks`.
    pub lease: Lease,
    /// Its names.
    pub key: TaskKey,
    /// Its state. Not `Watching` only when a fresh link was asked for.
    pub state: TaskState,
    /// Its labels.
    pub tags: Tags,
    /// The model, once seen.
    pub model: Option<String>,
    /// `video`, `image`, `audio`, once seen.
    pub kind: Option<String>,
    /// When we learned of it.
    pub learned_at: Timestamp,
    /// When the provider made it, once seen.
    pub created_at: Option<Timestamp>,
    /// When it was last seen unfinished.
    pub last_unfinished_at: Option<Timestamp>,
    /// The provider's last word for how it stands, once seen.
    pub status: Option<String>,
    /// How far it was, where the provider says so.
    pub percent: Option<u8>,
    /// Whether the last look failed, which the row tells people.
    pub has_error: bool,
    /// Its deadline so far.
    pub deadline: Deadline,
    /// Looks that the provider answered with the task.
    pub looks: u32,
    /// Looks in a row, up to now, that the provider answered with "no such task".
    pub misses: u32,
    /// Failed tries in a row.
    pub attempts: u32,
    /// Whether somebody asked for this look, and waits for what it finds.
    pub is_asked_for: bool,
}

/// What a look at a task found, to be written in one go.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The task's state from now on.
    pub state: TaskState,
    /// What the provider said.
    pub sighting: Sighting,
    /// The task's deadline from now on.
    pub deadline: Deadline,
    /// When to look again; `None` when there is no need.
    pub next_look_at: Option<Timestamp>,
    /// The results in the provider's order; empty until completed.
    pub assets: Vec<SeenAsset>,
    /// Where each new asset goes.
    pub objects: Vec<ObjectPlan>,
    /// What is wrong with the answer, where something is.
    pub error: Option<String>,
}

impl Observation {
    /// Whether a task goes on being watched and nothing else follows.
    pub(super) fn is_plain(&self) -> bool {
        self.state == TaskState::Watching && self.assets.is_empty()
    }
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Assets that were not known.
    pub assets_new: u32,
    /// Known assets that got a new link and are due now.
    pub links_refreshed: u32,
}

/// How a look that brought no sighting ends.
#[derive(Clone, Debug)]
pub struct TaskSettlement {
    /// The state from now on.
    pub state: TaskState,
    /// When to look again; `None` only with a final state.
    pub next_look_at: Option<Timestamp>,
    /// Why, for people.
    pub error: Option<String>,
    /// Whether this counts as a failed try.
    pub is_attempt: bool,
    /// Whether the provider said that there is no such task.
    pub is_miss: bool,
}

/// An asset under lease, with everything that is known of its objects.
#[derive(Clone, Debug)]
pub struct ClaimedAsset {
    /// The claim, on a row of `assets`.
    pub lease: Lease,
    /// The task that it came from.
    pub task: TaskKey,
    /// The task's labels.
    pub tags: Tags,
    /// The task's model.
    pub model: Option<String>,
    /// When the task was made, or learned where that is unknown: the `{created}` of keys, the same at every try.
    pub created_at: Timestamp,
    /// When the task was completed, or, where its provider does not say, what is last known before that.
    pub waits_since: Timestamp,
    /// Its place among the task's results.
    pub index: AssetIndex,
    /// What the provider says it is.
    pub role: AssetRole,
    /// Where the bytes are.
    pub url: Url,
    /// When the link dies.
    pub deadline: Deadline,
    /// Failed tries so far.
    pub attempts: u32,
    /// When the links that its task was completed with were to die, the first of them.
    pub task_deadline_at: Timestamp,
    /// When the provider was last asked for a fresh link, whatever it answered.
    pub refresh_asked_at: Option<Timestamp>,
    /// Whether the provider has not answered yet.
    pub is_refresh_pending: bool,
    /// Its objects, one a destination, in the order of the route.
    pub objects: Vec<ClaimedObject>,
}

/// An object of a claimed asset.
#[derive(Clone, Debug)]
pub struct ClaimedObject {
    /// The row in `objects`.
    pub row: i64,
    /// Where it goes.
    pub destination: DestinationName,
    /// Where it stands.
    pub state: ObjectState,
    /// The template of its key.
    pub key_template: KeyTemplate,
    /// Its key and nonce, once an attempt has fixed them.
    pub name: Option<ObjectName>,
    /// Its open upload, if there is one.
    pub upload: Option<OpenUpload>,
}

/// The name under which an object is written: fixed in the manifest before the store hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The key.
    pub key: ObjectKey,
    /// Written into the object's metadata: what tells our object from another at the same key.
    pub nonce: String,
    /// The kind of the body, as sniffed when the name was fixed.
    pub media: MediaType,
    /// When it was fixed.
    pub named_at: Timestamp,
}

/// A multipart upload that is open at the destination.
#[derive(Clone, Debug)]
pub struct OpenUpload {
    /// The store's name for it.
    pub id: UploadId,
    /// The length of every part but the last, in bytes.
    pub part_size: u64,
    /// The body that its parts were cut from.
    pub source: SourceIdentity,
    /// The parts that were recorded as stored, by number.
    pub parts: Vec<PartRow>,
}

/// A multipart upload that the store has just opened.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// The store's name for it.
    pub id: UploadId,
    /// The length of every part but the last, in bytes.
    pub part_size: u64,
    /// The body that its parts will be cut from.
    pub source: SourceIdentity,
}

/// A part that the destination acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// Its number.
    pub number: PartNumber,
    /// Its length in bytes.
    pub length: u64,
    /// The store's tag of it.
    pub etag: ETag,
    /// The checksum of its bytes.
    pub crc64nvme: Crc64,
    /// What the digests and the gates know after the last byte of this part, read from the start; opaque here.
    pub progress: Option<Vec<u8>>,
}

/// A verified object, to be recorded.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Bytes at the destination.
    pub size: u64,
    /// The store's tag.
    pub etag: Option<ETag>,
    /// The store's version, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// How many parts it was written in; 0 for a single write.
    pub parts: u32,
    /// The checksum over the whole.
    pub crc64nvme: Crc64,
    /// The digest over the bytes as received, where configured.
    pub sha256: Option<Sha256Digest>,
    /// What a player would show of it.
    pub media: MediaDetails,
    /// How it was proven.
    pub verified: Verified,
    /// The body that it was made from.
    pub source: SourceIdentity,
}

/// How a try to archive ends that did not end in a proof for every object.
#[derive(Clone, Debug)]
pub struct AssetSettlement {
    /// The state from now on.
    pub state: AssetState,
    /// When to try again; `None` only with a final state.
    pub due_at: Option<Timestamp>,
    /// Why, for people.
    pub error: Option<String>,
    /// Whether this counts as a failed try.
    pub is_attempt: bool,
    /// Whether the try brought something that lasts: those before it count no more.
    pub has_gained: bool,
    /// Whether `watch` shall ask the provider for a fresh link now.
    pub wants_fresh_link: bool,
}

/// An upload of ours that nobody will finish: to be aborted.
#[derive(Clone, Debug)]
pub struct ClaimedOrphan {
    /// The claim, on a row of `orphans`.
    pub lease: Lease,
    /// Where it is open.
    pub destination: DestinationName,
    /// The key that it was opened for.
    pub key: ObjectKey,
    /// The store's name for it.
    pub upload: UploadId,
    /// Failed tries so far.
    pub attempts: u32,
}

/// An asset, or a task not yet seen finished, that nears its deadline unarchived.
#[derive(Clone, Debug, Serialize)]
pub struct AtRisk {
    /// The task.
    pub task: TaskKey,
    /// The asset; `None` while the task is not completed.
    pub index: Option<AssetIndex>,
    /// When it dies.
    pub deadline: Deadline,
    /// Why the last try failed.
    pub error: Option<String>,
}

/// Everything that the manifest knows of one task, for reading.
#[derive(Clone, Debug)]
pub struct TaskRecord {
    /// The row, for paging.
    pub row: i64,
    /// Its names.
    pub key: TaskKey,
    /// Its state.
    pub state: TaskState,
    /// Its labels.
    pub tags: Tags,
    /// The model.
    pub model: Option<String>,
    /// `video`, `image`, `audio`.
    pub kind: Option<String>,
    /// When the provider made it.
    pub created_at: Option<Timestamp>,
    /// When it completed.
    pub completed_at: Option<Timestamp>,
    /// When we learned of it.
    pub learned_at: Timestamp,
    /// How we learned of it.
    pub learned_via: LearnedVia,
    /// When its results die.
    pub deadline: Deadline,
    /// When the provider is asked next.
    pub next_look_at: Option<Timestamp>,
    /// The provider's own status word, once seen.
    pub status: Option<String>,
    /// The provider's progress, 0 to 100.
    pub percent: Option<u8>,
    /// Time that the provider thought was left.
    pub estimate: Option<Span>,
    /// Failed looks in a row.
    pub attempts: u32,
    /// Why the last look failed.
    pub error: Option<String>,
    /// Why the task failed, in the provider's words.
    pub task_error: Option<TaskError>,
    /// Its assets by index.
    pub assets: Vec<AssetRecord>,
}

/// Everything that the manifest knows of one asset, for reading.
#[derive(Clone, Debug)]
pub struct AssetRecord {
    /// Its place among the results.
    pub index: AssetIndex,
    /// What the provider says it is.
    pub role: AssetRole,
    /// Its state.
    pub state: AssetState,
    /// Where the bytes are or were. May be signed: show host and path only.
    pub url: Url,
    /// When the link dies.
    pub deadline: Deadline,
    /// When it is tried next.
    pub due_at: Option<Timestamp>,
    /// Failed tries.
    pub attempts: u32,
    /// Why the last try failed.
    pub error: Option<String>,
    /// What the origin said of the body that was archived.
    pub source: SourceIdentity,
    /// Bytes.
    pub size: Option<u64>,
    /// The kind of the body.
    pub content_type: Option<String>,
    /// What a player would show of it.
    pub media: MediaDetails,
    /// The digest over the bytes as received.
    pub sha256: Option<Sha256Digest>,
    /// The checksum over the whole.
    pub crc64nvme: Option<Crc64>,
    /// When the last object was verified.
    pub archived_at: Option<Timestamp>,
    /// Its objects.
    pub objects: Vec<ObjectRecord>,
}

/// Everything that the manifest knows of one object, for reading.
#[derive(Clone, Debug)]
pub struct ObjectRecord {
    /// Where it is or goes.
    pub destination: DestinationName,
    /// Its state.
    pub state: ObjectState,
    /// Its key, once fixed.
    pub key: Option<ObjectKey>,
    /// What its metadata tells it from others by, once fixed.
    pub nonce: Option<String>,
    /// Bytes, once archived.
    pub size: Option<u64>,
    /// The checksum over the whole, once archived.
    pub crc64nvme: Option<Crc64>,
    /// The store's tag.
    pub etag: Option<ETag>,
    /// The store's version.
    pub version_id: Option<String>,
    /// How many parts it was written in; while uploading, how many are there.
    pub parts: u32,
    /// The length of the parts that are there so far, while uploading.
    pub bytes_stored: u64,
    /// How it was proven.
    pub verified: Option<Verified>,
    /// When it was proven.
    pub archived_at: Option<Timestamp>,
}

/// The state of everything in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// How many tasks stand in each state; states without any are left out.
    pub tasks: Vec<(TaskState, u64)>,
    /// How many assets stand in each state.
    pub assets: Vec<(AssetState, u64)>,
    /// Bytes of archived assets.
    pub bytes_archived: u64,
    /// Uploads that wait to be aborted.
    pub orphans: u64,
    /// The earliest deadline of anything unarchived that is still to be archived.
    pub next_deadline: Option<Timestamp>,
}

impl Tally {
    /// How many tasks stand in `state`.
    pub fn tasks_in(&self, state: TaskState) -> u64 {
        self.tasks
            .iter()
            .find(|(other, _)| *other == state)
            .map_or(0, |(_, count)| *count)
    }

    /// How many assets stand in `state`.
    pub fn assets_in(&self, state: AssetState) -> u64 {
        self.assets
            .iter()
            .find(|(other, _)| *other == state)
            .map_or(0, |(_, count)| *count)
    }
}
