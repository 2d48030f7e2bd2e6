//! Which tasks are read.

use crate::clock::Timestamp;
use crate::model::asset::AssetState;
use crate::model::deadline::Danger;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::model::task::TaskState;

/// Which tasks to read.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only this provider's.
    pub provider: Option<ProviderName>,
    /// Only with this ID.
    pub id: Option<TaskId>,
    /// Only those whose ID begins so.
    pub id_prefix: Option<String>,
    /// Only in this state.
    pub state: Option<TaskState>,
    /// Only those with an asset in this state.
    pub asset_state: Option<AssetState>,
    /// Only those learned at or after this instant.
    pub since: Option<Timestamp>,
    /// Only those with something unarchived (a due asset, or a task being watched) that is in this danger.
    pub at_risk: Option<Danger>,
    /// Only rows after this one: the last row of the page before.
    pub after_row: Option<i64>,
    /// From the one learned last to the one learned first; the rows after one are then those learned before it.
    pub is_newest_first: bool,
}

impl TaskFilter {
    /// Only those in the state that people call `word`, or with an asset in it; the error lists the words that there
    /// are.
    pub fn set_state(&mut self, word: &str) -> Result<(), String> {
        match (word.parse::<TaskState>(), word.parse::<AssetState>()) {
            (Ok(state), _) => self.state = Some(state),
            (Err(_), Ok(state)) => self.asset_state = Some(state),
            (Err(_), Err(_)) => {
                let tasks = TaskState::ALL.iter().map(|state| state.as_str());
                let assets = AssetState::ALL.iter().map(|state| state.as_str());
                let words: Vec<&str> = tasks.chain(assets).collect();
                return Err(format!("there are {}", words.join(", ")));
            }
        }
        Ok(())
    }
}
