//! The manifest record: one JSON document a task, the same on the command line and in exports.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::asset::Codec;
use crate::model::asset::MediaDetails;
use crate::model::deadline::DeadlineSource;
use crate::model::digest::Crc64;
use crate::model::digest::Sha256Digest;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ETag;
use crate::model::object::ObjectState;
use crate::model::object::Verified;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::model::task::TaskState;
use crate::store::Address;
use crate::units::Span;

/// The name of this form; a change that takes something away gets another.
pub const FORMAT: &str = "reelvault.manifest.v1";

/// Where each configured destination is.
pub type Places = BTreeMap<DestinationName, Address>;

/// A task and everything archived of it.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    format: &'static str,
    provider: ProviderName,
    task_id: TaskId,
    state: &'static str,
    model: Option<String>,
    tags: Tags,
    created_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    learned_at: Timestamp,
    learned_via: LearnedVia,
    deadline_at: Timestamp,
    deadline_from: DeadlineSource,
    archived_at: Option<Timestamp>,
    attempts: u32,
    error: Option<String>,
    upstream: Upstream,
    assets: Vec<Asset>,
}

/// What the provider last said.
#[derive(Clone, Debug, Serialize)]
struct Upstream {
    id: TaskId,
    status: Option<String>,
    progress: Option<u8>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<TaskError>,
}

#[derive(Clone, Debug, Serialize)]
struct Asset {
    index: AssetIndex,
    role: AssetRole,
    state: AssetState,
    deadline_at: Timestamp,
    deadline_from: DeadlineSource,
    due_at: Option<Timestamp>,
    error: Option<String>,
    source: Source,
    size: Option<u64>,
    content_type: Option<String>,
    media: Option<Media>,
    sha256: Option<Sha256Digest>,
    crc64nvme: Option<Crc64>,
    objects: Vec<Object>,
}

/// What a player would show.
#[derive(Clone, Debug, Serialize)]
struct Media {
    /// Seconds, to the millisecond.
    duration: Option<f64>,
    width: Option<u32>,
    height: Option<u32>,
    codec: Option<Codec>,
}

/// Where the bytes came from, without the query, which may be a signature.
#[derive(Clone, Debug, Serialize)]
struct Source {
    host: Option<String>,
    path: String,
    etag: Option<String>,
    last_modified: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Object {
    destination: DestinationName,
    state: ObjectState,
    url: Option<String>,
    bucket: Option<String>,
    key: Option<ObjectKey>,
    etag: Option<ETag>,
    version_id: Option<String>,
    parts: u32,
    archived_at: Option<Timestamp>,
    verified: Option<Verified>,
    verified_at: Option<Timestamp>,
}

/// How it stands with an object, for people: of an asset that is given up none is due any more.
pub fn object_state(asset: AssetState, object: &ObjectRecord) -> &'static str {
    match (asset, object.state) {
        (AssetState::Lost | AssetState::Refused, ObjectState::Due | ObjectState::Uploading) => {
            asset.as_str()
        }
        (_, state) => state.as_str(),
    }
}

impl Record {
    /// The record of `task`; the addresses of its objects come from `places`.
    pub fn new(task: TaskRecord, places: &Places) -> Self {
        let state = state(&task);
        let archived_at = match state {
            "archived" => task
                .assets
                .iter()
                .filter_map(|asset| asset.archived_at)
                .max(),
            _ => None,
        };
        let attempts = task
            .assets
            .iter()
            .map(|asset| asset.attempts)
            .max()
            .unwrap_or(task.attempts);
        // The try that archived it is one as well.
        let attempts = attempts.saturating_add(u32::from(archived_at.is_some()));
        let asset_error = task.assets.iter().find_map(|asset| asset.error.clone());
        Self {
            format: FORMAT,
            provider: task.key.provider,
            task_id: task.key.id.clone(),
            state,
            model: task.model,
            tags: task.tags,
            created_at: task.created_at,
            completed_at: task.completed_at,
            learned_at: task.learned_at,
            learned_via: task.learned_via,
            deadline_at: task.deadline.at,
            deadline_from: task.deadline.from,
            archived_at,
            attempts,
            error: task.error.or(asset_error),
            upstream: Upstream {
                id: task.key.id,
                status: task.status,
                progress: task.percent,
                kind: task.kind,
                error: task.task_error,
            },
            assets: task
                .assets
                .into_iter()
                .map(|asset| Asset::new(asset, places))
                .collect(),
        }
    }

    /// The task.
    pub fn task_id(&self) -> &TaskId {
        &self.task_id
    }

    /// The one word for the whole task, see [`state`].
    pub fn state(&self) -> &'static str {
        self.state
    }
}

/// One word for a task and its assets: `archived` only when every asset is, `lost` or `refused` when one is, else the
/// state of the task itself.
pub fn state(task: &TaskRecord) -> &'static str {
    let has = |state| task.assets.iter().any(|asset| asset.state == state);
    match task.state {
        TaskState::Completed if has(AssetState::Lost) => AssetState::Lost.as_str(),
        TaskState::Completed if has(AssetState::Refused) => AssetState::Refused.as_str(),
        TaskState::Completed if has(AssetState::Due) || task.assets.is_empty() => {
            TaskState::Completed.as_str()
        }
        TaskState::Completed => AssetState::Archived.as_str(),
        TaskState::Watching
        | TaskState::Failed
        | TaskState::Cancelled
        | TaskState::Vanished
        | TaskState::Abandoned => task.state.as_str(),
    }
}

/// Whether a task completed with something that is no file, as a text is: nothing was to be archived.
pub fn is_without_files(task: &TaskRecord) -> bool {
    task.state == TaskState::Completed && task.assets.is_empty()
}

/// When something of a task may be lost first, where anything still may: a link that waits to be archived, or one that
/// may be there already while the task is only watched.
pub fn dies_at(task: &TaskRecord) -> Option<Timestamp> {
    if task.state == TaskState::Watching {
        return Some(task.deadline.at);
    }
    let due = task.assets.iter().filter(|it| it.state == AssetState::Due);
    due.map(|asset| asset.deadline.at).min()
}

/// Whether nothing will become of a task any more, unless somebody asks for it.
pub fn is_over(task: &TaskRecord) -> bool {
    task.state.is_final() && task.assets.iter().all(|asset| asset.state.is_final())
}

impl Asset {
    fn new(asset: AssetRecord, places: &Places) -> Self {
        Self {
            index: asset.index,
            role: asset.role,
            state: asset.state,
            deadline_at: asset.deadline.at,
            deadline_from: asset.deadline.from,
            due_at: asset.due_at,
            error: asset.error,
            source: Source {
                host: asset.url.host_str().map(str::to_owned),
                path: asset.url.path().to_owned(),
                etag: asset.source.etag,
                last_modified: asset.source.last_modified,
            },
            size: asset.size,
            content_type: asset.content_type,
            media: Media::new(asset.media),
            sha256: asset.sha256,
            crc64nvme: asset.crc64nvme,
            objects: asset
                .objects
                .into_iter()
                .map(|object| Object::new(object, places))
                .collect(),
        }
    }
}

impl Media {
    /// Nothing for a body that told nothing.
    fn new(details: MediaDetails) -> Option<Self> {
        (!details.is_empty()).then(|| Self {
            duration: details.duration.map(seconds),
            width: details.width,
            height: details.height,
            codec: details.codec,
        })
    }
}

impl Object {
    fn new(object: ObjectRecord, places: &Places) -> Self {
        let place = places.get(&object.destination);
        let key = object.key.as_ref();
        Self {
            url: place.zip(key).map(|(place, key)| place.locate(key)),
            bucket: place.and_then(|place| place.bucket().map(str::to_owned)),
            destination: object.destination,
            state: object.state,
            key: object.key,
            etag: object.etag,
            version_id: object.version_id,
            parts: object.parts,
            verified: object.verified,
            verified_at: object.archived_at,
            archived_at: object.archived_at,
        }
    }
}

/// A length of time as people read it in JSON: 5.042.
pub(crate) fn seconds(span: Span) -> f64 {
    // One division is exact to the last digit that is printed; a sum of seconds and a rest is not.
    let millis = u32::try_from(span.as_duration().as_millis());
    millis.map_or_else(
        |_| span.as_duration().as_secs_f64(),
        |millis| f64::from(millis) / 1000.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_of_what_is_given_up_is_due() {
        let object = |state| ObjectRecord {
            destination: "main".parse().unwrap(),
            state,
            key: None,
            etag: None,
            version_id: None,
            parts: 0,
            bytes_stored: 0,
            verified: None,
            archived_at: None,
            nonce: None,
            size: None,
            crc64nvme: None,
        };
        for (asset, state, shown) in [
            (AssetState::Due, ObjectState::Due, "due"),
            (AssetState::Due, ObjectState::Uploading, "uploading"),
            (AssetState::Lost, ObjectState::Due, "lost"),
            (AssetState::Refused, ObjectState::Due, "refused"),
            (AssetState::Lost, ObjectState::Archived, "archived"),
        ] {
            assert_eq!(object_state(asset, &object(state)), shown);
        }
    }

    #[test]
    fn media_is_told_in_seconds_and_pixels_or_is_null() {
        let details = MediaDetails {
            duration: Some(Span::from_millis(5_042)),
            width: Some(1280),
            height: None,
            codec: Some("avc1.64001F".parse().unwrap()),
        };
        let told = serde_json::to_string(&Media::new(details)).unwrap();
        assert_eq!(
            told,
            r#"{"duration":5.042,"width":1280,"height":null,"codec":"avc1.64001F"}"#
        );
        assert!(Media::new(MediaDetails::default()).is_none());
        for millis in [1, 999, 1_001, 59_999, 86_399_999] {
            let printed = seconds(Span::from_millis(millis)).to_string();
            let whole = printed.split('.').next().unwrap().len();
            assert!(printed.len() <= whole + 4, "{printed}");
        }
    }
}
