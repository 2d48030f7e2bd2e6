//! Tasks: their names, their states, and what a provider can say of one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use url::Url;

use crate::clock::Timestamp;
use crate::model::asset::AssetRole;
use crate::model::is_config_name;
use crate::model::state_enum;
use crate::model::word_type;
use crate::units::Span;

word_type!(
    /// The name of a configured provider.
    ProviderName,
    "a provider name ([a-z][a-z0-9_]*, at most 64 long)",
    is_config_name
);

/// The provider that stands behind bare links: nobody to poll, nobody to ask for a fresh URL.
pub const FETCH_PROVIDER: &str = "fetch";

/// A task ID longer than this is no task ID of any known provider.
const TASK_ID_LENGTH_MAX: usize = 256;

word_type!(
    /// A provider's own name for one task. Visible ASCII without `?`, `#` and `%`, since it stands in paths; a slash
    /// stands between segments, where a task has a second key.
    TaskId,
    "a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)",
    |text| (1..=TASK_ID_LENGTH_MAX).contains(&text.len())
        && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte))
);

state_enum!(
    /// Where a task stands. All but `Watching` are final.
    TaskState,
    "a task state",
    {
        /// Not finished yet, as far as we know: the provider is asked again.
        Watching = "watching",
        /// Finished with results: its assets carry on.
        Completed = "completed",
        /// The provider gave up on it.
        Failed = "failed",
        /// Somebody cancelled it.
        Cancelled = "cancelled",
        /// The provider says, repeatedly, that there is no such task.
        Vanished = "vanished",
        /// It did not finish within `poll.give_up`.
        Abandoned = "abandoned",
    }
);

impl TaskState {
    /// Whether the provider is no longer asked about the task's progress.
    pub fn is_final(self) -> bool {
        match self {
            TaskState::Watching => false,
            TaskState::Completed
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Vanished
            | TaskState::Abandoned => true,
        }
    }

    /// The state after a provider said `progress`: monotone, a final state stays whatever is said later. Completed is what
    /// has its results, or something in their place that is no file.
    #[must_use]
    pub fn after(self, said: Progress, has_results: bool) -> TaskState {
        match (self, said) {
            (TaskState::Watching, Progress::Completed) if has_results => TaskState::Completed,
            (TaskState::Watching, Progress::Failed) => TaskState::Failed,
            (TaskState::Watching, Progress::Cancelled) => TaskState::Cancelled,
            (TaskState::Watching, Progress::Pending | Progress::Running | Progress::Completed) => {
                TaskState::Watching
            }
            (
                TaskState::Completed
                | TaskState::Failed
                | TaskState::Cancelled
                | TaskState::Vanished
                | TaskState::Abandoned,
                _,
            ) => self,
        }
    }
}

state_enum!(
    /// What a provider's status word means.
    Progress,
    "a meaning of a provider's status",
    {
        /// Accepted, not started.
        Pending = "pending",
        /// Under way. Unknown words count as this.
        Running = "running",
        /// Finished.
        Completed = "completed",
        /// Given up.
        Failed = "failed",
        /// Cancelled.
        Cancelled = "cancelled",
    }
);

state_enum!(
    /// How we came to know of a task.
    LearnedVia,
    "a way to learn of a task",
    {
        /// `reelvault add`.
        Cli = "cli",
        /// `reelvault fetch`.
        Fetch = "fetch",
        /// A provider's callback.
        Webhook = "webhook",
        /// The HTTP API.
        Api = "api",
        /// A submission through the gateway.
        Gateway = "gateway",
        /// The provider's list of tasks.
        Discovery = "discovery",
        /// A file in the spool folder.
        Spool = "spool",
    }
);

/// Labels that whoever announced a task gave it; they travel into keys and records.
pub type Tags = BTreeMap<String, String>;

/// A task by its two names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TaskKey {
    /// Whose task it is.
    pub provider: ProviderName,
    /// What the provider calls it.
    pub id: TaskId,
}

/// The scheme of a result that nobody can fetch: what the provider gave instead of an address begins behind it. Such a
/// result is refused where it would be fetched, so that its task never counts as archived.
pub const UNFETCHABLE: &str = "unfetchable";

/// Whether bytes can be asked for at `url` at all.
pub fn is_fetchable(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// One result of a completed task, as the provider named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLink {
    /// Where the bytes are. May be signed: never print it whole.
    pub url: Url,
    /// What the provider says it is.
    pub role: AssetRole,
    /// When the URL's own signature ends, if it carries one.
    pub expires: Option<Timestamp>,
}

/// Why a task did not complete, in the provider's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// The provider's code.
    pub code: String,
    /// The provider's message.
    pub message: String,
}

/// What a provider said of one task in one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What the status means.
    pub progress: Progress,
    /// The status in the provider's own word.
    pub status: String,
    /// Whether `status` is a word that the description does not know.
    pub is_unknown_status: bool,
    /// 0 to 100, where given. No estimate of time.
    pub percent: Option<u8>,
    /// The model that ran.
    pub model: Option<String>,
    /// The kind of output in the provider's word: `video`, `image`, `audio`.
    pub kind: Option<String>,
    /// When the task was made.
    pub created: Option<Timestamp>,
    /// When it finished, where the answer tells or lets it be worked out.
    pub completed: Option<Timestamp>,
    /// When the results die, where the answer says so itself.
    pub expires: Option<Timestamp>,
    /// Time that the provider thinks is left.
    pub estimate: Option<Span>,
    /// The results, in the provider's order; empty until completed.
    pub results: Vec<ResultLink>,
    /// Whether it completed with something that is no file, as a text is: there is nothing to archive, now or later.
    pub is_without_files: bool,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// The answer itself, where the task is over and the answer is to be kept.
    pub answer: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_cannot_leave_their_place_in_a_path() {
        for good in [
            "task-unified-1774857405-abc123",
            "a",
            "X:1@b,c",
            "fal-ai/veo3/r1",
        ] {
            assert!(good.parse::<TaskId>().is_ok(), "{good}");
        }
        let long = "x".repeat(257);
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "./b",
            "..",
            ".",
            "a b",
            "a?b",
            "a#b",
            "a%2f",
            "ä",
            "a\n",
            long.as_str(),
        ] {
            let error = bad.parse::<TaskId>().unwrap_err().to_string();
            assert!(error.chars().count() < 320, "{error}");
        }
    }

    #[test]
    fn final_states_stay() {
        for state in TaskState::ALL
            .iter()
            .copied()
            .filter(|state| state.is_final())
        {
            for said in Progress::ALL {
                assert_eq!(state.after(*said, true), state);
            }
        }
    }

    #[test]
    fn completed_without_results_is_not_completed_yet() {
        assert_eq!(
            TaskState::Watching.after(Progress::Completed, false),
            TaskState::Watching
        );
        assert_eq!(
            TaskState::Watching.after(Progress::Completed, true),
            TaskState::Completed
        );
        assert_eq!(
            TaskState::Watching.after(Progress::Failed, false),
            TaskState::Failed
        );
        assert_eq!(
            TaskState::Watching.after(Progress::Cancelled, false),
            TaskState::Cancelled
        );
    }
}
