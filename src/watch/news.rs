//! What is worth a write: a pure function of what the manifest says of a task and of what its provider said just now.

use crate::manifest::row::ClaimedTask;
use crate::manifest::row::Observation;
use crate::model::deadline::Deadline;
use crate::model::deadline::DeadlineSource;
use crate::model::task::TaskState;

/// How far a task gets on before that is written: nobody but people reads it.
const PERCENT_STEP: u8 = 10;

/// Whether an observation tells more than that a task goes on as the manifest has it.
///
/// What a look without news leaves behind in the row is how often it was looked at, when last, the estimate, and the
/// deadline that is counted from when: all of that is older than it could be, which makes the deadline earlier.
pub(super) fn is_news(task: &ClaimedTask, observation: &Observation) -> bool {
    let sighting = &observation.sighting;
    let is_another =
        |said: &Option<String>, known: &Option<String>| said.is_some() && said != known;
    observation.state != TaskState::Watching
        || task.state != TaskState::Watching
        || !observation.assets.is_empty()
        || task.looks == 0
        || task.has_error != observation.error.is_some()
        || task.attempts > 0
        || task.misses > 0
        || sighting.error.is_some()
        || task.status.as_ref() != Some(&sighting.status)
        || is_another(&sighting.model, &task.model)
        || is_another(&sighting.kind, &task.kind)
        || (sighting.created.is_some() && task.created_at.is_none())
        || sighting.completed.is_some()
        || has_moved(task.percent, sighting.percent)
        || is_other_deadline(task.deadline, observation.deadline)
}

fn has_moved(known: Option<u8>, said: Option<u8>) -> bool {
    match (known, said) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(known), Some(said)) => known.abs_diff(said.min(100)) >= PERCENT_STEP,
    }
}

/// A deadline that is counted from the last look moves with each.
fn is_other_deadline(known: Deadline, said: Deadline) -> bool {
    known.from != said.from || (said.from != DeadlineSource::LastSeen && known.at != said.at)
}
