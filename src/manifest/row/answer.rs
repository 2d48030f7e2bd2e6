//! What the gateway answers from: a task with the words that its provider last had for it.

use url::Url;

use crate::clock::Timestamp;
use crate::manifest::row::TaskRecord;

/// A task as its provider's API would tell of it.
#[derive(Clone, Debug)]
pub struct ServedTask {
    /// All that is known of it.
    pub task: TaskRecord,
    /// Where whoever announced it wants to be called. May be signed: never print it whole.
    pub callback: Option<Url>,
    /// The provider's last answer, where the task is over and the answer was kept.
    pub answer: Option<Vec<u8>>,
    /// Since when an answer is kept: when we first saw that it is over.
    pub over_since: Option<Timestamp>,
}
