//! The answers about tasks: each state has its own fields, as in the provider's page.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Submission;
use crate::simulator::tasks::Task;
use crate::simulator::tasks::TaskKind;
use crate::units::Span;

/// The answer about one task.
#[derive(Debug, Serialize)]
pub(in crate::simulator) struct Answer {
    id: TaskId,
    object: String,
    created: i64,
    model: String,
    status: &'static str,
    progress: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<String>>,
    #[serde(rename = "type")]
    kind: TaskKind,
    task_info: Info,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorAnswer>,
}

#[derive(Debug, Serialize)]
struct Info {
    can_cancel: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_duration: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Usage {
    billing_rule: &'static str,
    credits_reserved: u64,
    user_group: &'static str,
}

/// An error, of a task or of a call.
#[derive(Debug, Serialize)]
pub(in crate::simulator) struct ErrorAnswer {
    pub(in crate::simulator) code: String,
    pub(in crate::simulator) message: String,
    #[serde(rename = "type")]
    pub(in crate::simulator) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::simulator) param: Option<&'static str>,
}

impl Answer {
    /// What is said of `task` when it stands at `status`. `tells_duration`: whether a completed task tells, undocumented,
    /// how long it took.
    pub(in crate::simulator) fn new(
        task: &Task,
        status: &Status,
        now: Timestamp,
        base: &str,
        tells_duration: bool,
    ) -> Self {
        let is_pending = *status == Status::Pending;
        let is_completed = *status == Status::Completed;
        let wish = &task.wish;
        let seconds = (wish.kind == TaskKind::Video).then_some(wish.seconds);
        Self {
            id: task.id.clone(),
            object: object_name(wish.kind),
            created: unix_seconds(task.created),
            model: wish.model.clone(),
            status: status.as_str(),
            progress: status.percent(),
            results: is_completed.then(|| task.links(base)),
            kind: wish.kind,
            task_info: Info {
                can_cancel: !status.is_final(),
                estimated_time: is_pending.then(|| seconds_up(task.ends.since(now))),
                video_duration: seconds.filter(|_| is_pending),
            },
            usage: is_pending.then(|| Usage::of(wish)),
            duration: (is_completed && tells_duration)
                .then(|| seconds_up(task.ends.since(task.created))),
            error: match status {
                Status::Failed(error) => Some(ErrorAnswer::of_task(error)),
                Status::Pending | Status::Processing(_) | Status::Completed | Status::Cancelled => {
                    None
                }
            },
        }
    }
}

impl Usage {
    fn of(wish: &Submission) -> Self {
        let billing_rule = match wish.kind {
            TaskKind::Video => "per_second",
            TaskKind::Image | TaskKind::Audio => "per_call",
        };
        Self {
            billing_rule,
            credits_reserved: wish.credits(),
            user_group: "default",
        }
    }
}

impl ErrorAnswer {
    fn of_task(error: &TaskError) -> Self {
        Self {
            code: error.code.clone(),
            message: error.message.clone(),
            kind: "task_error",
            param: None,
        }
    }
}

/// A row of the list: no links.
#[derive(Debug, Serialize)]
pub(in crate::simulator) struct Row {
    id: TaskId,
    object: String,
    created: i64,
    model: String,
    status: &'static str,
    progress: u8,
    #[serde(rename = "type")]
    kind: TaskKind,
    has_results: bool,
}

impl Row {
    pub(in crate::simulator) fn new(task: &Task, status: &Status) -> Self {
        Self {
            id: task.id.clone(),
            object: object_name(task.wish.kind),
            created: unix_seconds(task.created),
            model: task.wish.model.clone(),
            status: status.as_str(),
            progress: status.percent(),
            kind: task.wish.kind,
            has_results: *status == Status::Completed,
        }
    }
}

fn object_name(kind: TaskKind) -> String {
    format!("{kind}.generation.task")
}

pub(in crate::simulator) fn unix_seconds(at: Timestamp) -> i64 {
    at.as_unix_millis() / 1000
}

/// Whole seconds, rounded up.
pub(in crate::simulator) fn seconds_up(span: Span) -> u64 {
    u64::try_from(span.as_millis_i64())
        .unwrap_or(0)
        .div_ceil(1000)
}
