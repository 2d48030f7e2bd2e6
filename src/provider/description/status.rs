//! `[status]` of a description: the call that reads one task, and the places of what it says.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::task::Progress;
use crate::provider::description::field::Good;
use crate::provider::description::path::PathTemplate;
use crate::provider::pointer::Pointer;
use crate::provider::pointer::Pointers;

/// `[status]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Has `{id}` in it.
    pub path: PathTemplate,
    /// Where the task is in the answer: all pointers but those of `ok` and `error` begin there. Nothing there = no such
    /// task. Absent = the answer is the task.
    pub task: Option<Pointer>,
    /// The task's own ID: an answer about another task is refused.
    pub id: Option<Pointer>,
    /// The status word, which may be a truth value or a number.
    pub state: Pointer,
    /// What each status word means.
    pub map: BTreeMap<String, Progress>,
    /// What a task without a status word is; absent = an answer that makes no sense.
    pub missing: Option<Progress>,
    /// Status words that mean that there is no such task.
    #[serde(default)]
    pub gone: Vec<String>,
    /// What a good answer says, where errors come with HTTP 200.
    #[serde(default)]
    pub ok: Good,
    /// How errors are told.
    #[serde(default)]
    pub error: Errors,
    /// How a failed task tells why; absent = as an error does.
    pub failed: Option<Failed>,
    /// When things happened.
    #[serde(default)]
    pub times: Times,
    /// Seconds that the provider thinks are left.
    pub estimate: Option<Pointer>,
    /// 0 to 100.
    pub percent: Option<Pointer>,
    /// The model that ran.
    pub model: Option<Pointer>,
    /// The kind of output: `video`, `image`, `audio`.
    pub kind: Option<Pointer>,
}

impl Status {
    /// What stands at `state` as a status word. A number is one where the map has numbers: elsewhere it is more likely
    /// the HTTP status of an error that is told in the same place.
    pub fn word(&self, value: &Value) -> Option<String> {
        let is_number = |word: &String| word.parse::<i64>().is_ok();
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(is_so) => Some(is_so.to_string()),
            Value::Number(number) => {
                let counts = self.map.keys().any(is_number);
                counts.then(|| number.to_string())
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// `[status.error]`: the places of an error's parts, and the codes that mean something to us.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// The code: the first that is there.
    pub code: Pointers,
    /// The message: the first that is there.
    pub message: Pointers,
    /// HTTP statuses that mean that there is no such task.
    pub gone_http: Vec<u16>,
    /// Codes that mean that there is no such task.
    pub gone: Vec<String>,
    /// Codes that mean trouble with the account or its key.
    pub refused: Vec<String>,
    /// Codes that mean that we ask too often.
    pub limited: Vec<String>,
    /// Codes of failed tasks that somebody cancelled.
    pub cancelled: Vec<String>,
}

/// `[status.failed]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Failed {
    /// A completed task without results in which something stands here has failed.
    pub when: Pointers,
    /// The code: the first that is there.
    pub code: Pointers,
    /// The message: the first that is there.
    pub message: Pointers,
}

/// `[status.times]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// When the task was made.
    pub created: Option<TimeField>,
    /// How long it took: it completed at created + took.
    pub took: Option<TimeField>,
    /// When it completed.
    pub completed: Option<TimeField>,
    /// When its results die.
    pub expires: Option<TimeField>,
}

/// A place with a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeField {
    /// The place.
    pub pointer: Pointer,
    /// How it is written.
    pub unit: TimeUnit,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds, since 1970 where it is an instant.
    S,
    /// Milliseconds, since 1970 where it is an instant.
    Ms,
    /// `2026-11-24T14:00:00Z`
    Rfc3339,
}
