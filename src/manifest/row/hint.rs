//! What a hint about a task came to.

use crate::model::task::TaskState;

/// What hearing of a task came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is looked at now, or again once the claim on it ends.
    Due,
    /// There is nothing to look at any more.
    Ended(TaskState),
    /// It is not known.
    Unknown,
}
