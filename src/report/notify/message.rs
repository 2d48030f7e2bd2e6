//! The body of a message: what happened, when, and the record of the task as it is now.

use bytes::Bytes;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::manifest::row::TaskRecord;
use crate::manifest::row::event::Event;
use crate::model::asset::AssetIndex;
use crate::report::record::Places;
use crate::report::record::Record;

/// A message as Standard Webhooks shapes it.
#[derive(Debug, Serialize)]
struct Message {
    /// What happened, such as `task.archived`.
    #[serde(rename = "type")]
    kind: String,
    timestamp: Timestamp,
    data: Data,
}

#[derive(Debug, Serialize)]
struct Data {
    /// The event's number, which rises.
    event: i64,
    /// The asset that it is about, where it is about one.
    asset: Option<AssetIndex>,
    reason: Option<String>,
    task: Record,
}

/// The body that tells `event` of `task`.
pub(super) fn body(event: &Event, task: TaskRecord, places: &Places) -> Bytes {
    let message = Message {
        kind: format!("task.{}", event.kind),
        timestamp: event.at,
        data: Data {
            event: event.number,
            asset: event.index,
            reason: event.reason.clone(),
            task: Record::new(task, places),
        },
    };
    serde_json::to_vec(&message)
        .expect("a record has only string keys")
        .into()
}
