//! The simulator's tasks: what was asked for, and how they run.

pub(super) mod answer;

use url::Url;

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::state_enum;
use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::simulator::script::Ending;
use crate::simulator::source::FileKind;
use crate::simulator::source::mix;
use crate::units::ByteSize;

/// More tasks than this are not taken: they are all kept.
pub(super) const TASKS_MAX: usize = 1_000_000;

/// A callback address may be this long.
const CALLBACK_LENGTH_MAX: usize = 2048;

state_enum!(
    /// What a task makes.
    TaskKind,
    "a kind of task",
    {
        /// Videos.
        Video = "video",
        /// Images.
        Image = "image",
        /// Sounds.
        Audio = "audio",
    }
);

/// A wish for a task.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The task's ID; the simulator makes one where none is given.
    pub id: Option<TaskId>,
    /// What it makes.
    pub kind: TaskKind,
    /// The format; where none is given, MP4, PNG or MP3.
    pub format: Option<FileKind>,
    /// The model.
    pub model: String,
    /// How many results it has, 1 to [`Submission::RESULTS_MAX`].
    pub count: u32,
    /// How long a video plays, 1 to [`Submission::SECONDS_MAX`].
    pub seconds: u32,
    /// How long each file is; the configuration's size where none is given.
    pub size: Option<ByteSize>,
    /// Where to tell of the end.
    pub callback: Option<Url>,
    /// A second submission with the same key is answered with the first's task.
    pub idempotency_key: Option<String>,
}

impl Submission {
    /// No task has more results.
    pub const RESULTS_MAX: u32 = 16;

    /// No video plays longer.
    pub const SECONDS_MAX: u32 = 60;

    /// One video of five seconds.
    pub fn video(model: &str) -> Self {
        Self {
            id: None,
            kind: TaskKind::Video,
            format: None,
            model: model.to_owned(),
            count: 1,
            seconds: 5,
            size: None,
            callback: None,
            idempotency_key: None,
        }
    }

    /// The format of its files.
    pub fn file_kind(&self) -> FileKind {
        self.format.unwrap_or(match self.kind {
            TaskKind::Video => FileKind::Mp4,
            TaskKind::Image => FileKind::Png,
            TaskKind::Audio => FileKind::Mp3,
        })
    }

    pub(super) fn check(&self) -> Result<(), SubmitError> {
        if !(1..=Self::RESULTS_MAX).contains(&self.count) {
            return Err(SubmitError::Count(self.count));
        }
        if self.kind == TaskKind::Video && !(1..=Self::SECONDS_MAX).contains(&self.seconds) {
            return Err(SubmitError::Seconds(self.seconds));
        }
        let is_fit = |url: &Url| {
            url.as_str().len() <= CALLBACK_LENGTH_MAX && matches!(url.scheme(), "http" | "https")
        };
        match &self.callback {
            Some(url) if !is_fit(url) => Err(SubmitError::Callback(url.to_string())),
            Some(_) | None => Ok(()),
        }
    }

    /// What it costs: by the second for videos, else by the result.
    pub(super) fn credits(&self) -> u64 {
        let each = match self.kind {
            TaskKind::Video => 10 * self.seconds,
            TaskKind::Image => 8,
            TaskKind::Audio => 12,
        };
        u64::from(each) * u64::from(self.count)
    }
}

/// A submission that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There are too many tasks.
    #[error("the account has no credits left after {TASKS_MAX} tasks")]
    Full,
    /// The wanted ID belongs to another task.
    #[error("there is a task {0} already")]
    IdTaken(TaskId),
    /// No results, or too many.
    #[error("{0} results are not between 1 and {max}", max = Submission::RESULTS_MAX)]
    Count(u32),
    /// No seconds, or too many.
    #[error("{0} seconds are not between 1 and {max}", max = Submission::SECONDS_MAX)]
    Seconds(u32),
    /// Not a callback address.
    #[error("{0:?} is not an http or https address of at most {CALLBACK_LENGTH_MAX} characters")]
    Callback(String),
}

impl SubmitError {
    /// The field of the request that is wrong.
    pub(super) fn param(&self) -> Option<&'static str> {
        match self {
            SubmitError::Full | SubmitError::IdTaken(_) => None,
            SubmitError::Count(_) => Some("n"),
            SubmitError::Seconds(_) => Some("duration"),
            SubmitError::Callback(_) => Some("callback_url"),
        }
    }
}

/// Where a task stands, as the provider would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Queued.
    Pending,
    /// Under way, so many percent.
    Processing(u8),
    /// Done.
    Completed,
    /// Given up, for this reason.
    Failed(TaskError),
    /// Cancelled.
    Cancelled,
}

impl Status {
    /// The provider's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processing(_) => "processing",
            Status::Completed => "completed",
            Status::Failed(_) => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        match self {
            Status::Pending | Status::Processing(_) => false,
            Status::Completed | Status::Failed(_) | Status::Cancelled => true,
        }
    }

    fn percent(&self) -> u8 {
        match self {
            Status::Processing(percent) => (*percent).min(100),
            Status::Completed => 100,
            Status::Pending | Status::Failed(_) | Status::Cancelled => 0,
        }
    }
}

/// One task and its run, which is fixed when it is submitted unless somebody pushes it.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) wish: Submission,
    pub(super) size: ByteSize,
    pub(super) created: Timestamp,
    pub(super) starts: Timestamp,
    pub(super) ends: Timestamp,
    pub(super) ending: Option<Ending>,
    pub(super) pushed: Option<Status>,
    /// Whether its callback is on its way.
    pub(super) is_told: bool,
    pub(super) files: Vec<File>,
}

/// What can change about a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct File {
    /// Which bytes it has.
    pub(super) version: u32,
    /// Which link leads to it; all before are dead.
    pub(super) link: u32,
    /// What a dead link answers.
    pub(super) dead_status: Option<u16>,
}

impl Task {
    pub(super) fn status(&self, now: Timestamp) -> Status {
        if let Some(pushed) = &self.pushed {
            return pushed.clone();
        }
        if now < self.starts {
            Status::Pending
        } else if now < self.ends {
            Status::Processing(self.percent(now))
        } else {
            self.ending
                .as_ref()
                .map_or(Status::Completed, Ending::status)
        }
    }

    /// 1 to 99, evenly over the time of processing.
    fn percent(&self, now: Timestamp) -> u8 {
        let total = self.ends.since(self.starts).as_millis_i64().max(1);
        let done = now.since(self.starts).as_millis_i64().min(total);
        u8::try_from(1 + done.saturating_mul(98) / total).unwrap_or(99)
    }

    pub(super) fn file(&self, index: AssetIndex) -> Option<&File> {
        self.files.get(usize::try_from(index.0).ok()?)
    }

    /// Which bytes the file at `index` has, in a world grown from `seed`.
    pub(super) fn file_key(&self, seed: u64, index: AssetIndex) -> Option<u64> {
        let version = self.file(index)?.version;
        // FNV-1a, to get from an ID to a number.
        let id = self
            .id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let place = (u64::from(index.0) << 32) | u64::from(version);
        Some(mix(mix(seed ^ id).wrapping_add(place)))
    }

    /// The result links as of now, under `base`.
    pub(super) fn links(&self, base: &str) -> Vec<String> {
        let extension = self.wish.file_kind();
        let links = self.files.iter().enumerate().map(|(index, file)| {
            let link = format!("{base}/files/{}/{index}.{extension}", self.id);
            match file.link {
                0 => link,
                number => format!("{link}?link={number}"),
            }
        });
        links.collect()
    }
}

impl Ending {
    fn status(&self) -> Status {
        let failed = |code: &str, message: &str| {
            Status::Failed(TaskError {
                code: code.to_owned(),
                message: message.to_owned(),
            })
        };
        match self {
            Ending::Fails(code) => failed(code, "the simulator was told to let this task fail"),
            Ending::Cancelled => Status::Cancelled,
            Ending::CancelledAsFailed => failed("request_cancelled", "the request was cancelled"),
        }
    }
}
