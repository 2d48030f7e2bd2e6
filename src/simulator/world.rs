//! The state of a simulated provider: its tasks, its faults still to be dealt, and what it has seen.
//!
//! Nothing runs here: a task's status is a function of the clock. One lock guards it all and is never held
//! over an await.

pub(super) mod files;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use serde_json::Value;
use tokio::sync::Notify;
use url::Url;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::task::TaskId;
use crate::simulator::Request;
use crate::simulator::Seen;
use crate::simulator::config::Config;
use crate::simulator::script::ApiFault;
use crate::simulator::script::AtOnce;
use crate::simulator::script::Call;
use crate::simulator::script::CallbackFault;
use crate::simulator::script::FileFault;
use crate::simulator::script::Manner;
use crate::simulator::script::Script;
use crate::simulator::tasks::File;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Submission;
use crate::simulator::tasks::SubmitError;
use crate::simulator::tasks::TASKS_MAX;
use crate::simulator::tasks::Task;
use crate::simulator::tasks::answer::Answer;
use crate::simulator::tasks::answer::Row;
use crate::simulator::tasks::answer::unix_seconds;
use crate::simulator::traffic::Traffic;
use crate::units::ByteSize;
use crate::units::Span;

/// So many of the last requests are remembered.
const REQUESTS_MAX: usize = 4096;

/// What the account has at the start.
const CREDITS: u64 = 1_000_000_000;

/// What is left of a callback's way once its task has ended.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) url: Url,
    pub(super) body: Vec<u8>,
    pub(super) fault: Option<CallbackFault>,
}

/// The list's filter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) status: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) model: Option<String>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) config: Config,
    /// What result links begin with, without a slash at the end.
    base: String,
    clock: Clock,
    dice: Dice,
    inner: Mutex<Inner>,
    /// What is being sent of files.
    pub(super) traffic: Traffic,
    /// The courier has something new to look at.
    pub(super) poke: Notify,
    /// Something was seen.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    order: Vec<TaskId>,
    tasks: HashMap<TaskId, Task>,
    by_idempotency_key: HashMap<String, TaskId>,
    /// Tasks that somebody took off the list.
    unlisted: HashSet<TaskId>,
    /// The tasks whose callback is still to be sent, by the instant they end.
    callbacks: BTreeSet<(Timestamp, TaskId)>,
    script: Script,
    seen: Seen,
    requests: VecDeque<Request>,
    credits_used: u64,
}

impl World {
    pub(super) fn new(mut config: Config, base: String, clock: Clock, dice: Dice) -> Self {
        let script = std::mem::take(&mut config.script);
        let inner = Mutex::new(Inner {
            script,
            ..Inner::default()
        });
        Self {
            config,
            base,
            clock,
            dice,
            inner,
            traffic: Traffic::default(),
            poke: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A span of the simulated world as it passes here.
    pub(super) fn scaled(&self, span: Span) -> Span {
        span.times(1.0 / self.config.speed)
    }

    pub(super) fn submit(&self, wish: Submission) -> Result<TaskId, SubmitError> {
        wish.check()?;
        let mut inner = self.lock();
        let known = wish.idempotency_key.as_ref();
        if let Some(id) = known.and_then(|key| inner.by_idempotency_key.get(key)) {
            return Ok(id.clone());
        }
        if inner.tasks.len() >= TASKS_MAX {
            return Err(SubmitError::Full);
        }
        let id = match &wish.id {
            Some(id) if inner.tasks.contains_key(id) => {
                return Err(SubmitError::IdTaken(id.clone()));
            }
            Some(id) => id.clone(),
            None => self.new_id(&inner),
        };
        let task = self.new_task(id.clone(), wish, &mut inner);
        inner.learn(task);
        drop(inner);
        self.poke.notify_one();
        Ok(id)
    }

    fn new_id(&self, inner: &Inner) -> TaskId {
        let seconds = unix_seconds(self.now());
        loop {
            let id = format!("task-unified-{seconds}-{}", letters(self.dice.number()));
            let id: TaskId = id
                .parse()
                .expect("digits, letters and dashes are a task ID");
            if !inner.tasks.contains_key(&id) {
                return id;
            }
        }
    }

    fn new_task(&self, id: TaskId, wish: Submission, inner: &mut Inner) -> Task {
        let created = self.now();
        let starts = created.plus(self.spread(self.config.pending));
        let files = vec![File::default(); usize::try_from(wish.count).unwrap_or(0)];
        Task {
            size: wish.size.unwrap_or(self.config.size),
            created,
            starts,
            ends: starts.plus(self.spread(self.config.running)),
            ending: inner.script.strike_ending(&id),
            pushed: None,
            is_told: false,
            files,
            wish,
            id,
        }
    }

    /// A span drawn around `middle`, as it passes here.
    fn spread(&self, middle: Span) -> Span {
        let off = (self.dice.fraction() * 2.0 - 1.0) * self.config.spread;
        self.scaled(middle.times(1.0 + off))
    }

    pub(super) fn push(&self, id: &TaskId, status: Status) -> bool {
        let now = self.now();
        let mut inner = self.lock();
        let Inner {
            tasks, callbacks, ..
        } = &mut *inner;
        let Some(task) = tasks.get_mut(id) else {
            return false;
        };
        callbacks.remove(&(task.ends, id.clone()));
        if status.is_final() {
            task.ends = now;
            if task.wish.callback.is_some() && !task.is_told {
                callbacks.insert((now, id.clone()));
            }
        }
        task.pushed = Some(status);
        drop(inner);
        self.poke.notify_one();
        true
    }

    /// What a caller is told of a task, faults included. `None` when there is no such task.
    pub(super) fn tell(&self, id: &TaskId) -> Option<Value> {
        let now = self.now();
        let mut inner = self.lock();
        let Inner {
            tasks,
            script,
            seen,
            ..
        } = &mut *inner;
        let task = tasks.get(id)?;
        let status = task.status(now);
        let Some(lie) = script.strike_lie(id, &status) else {
            return Some(self.answer(task, &status, now));
        };
        seen.faults += 1;
        Some(lie.told(task, &status, |status| self.answer(task, status, now)))
    }

    /// The answer to a task's submission: pending, however quickly it ends.
    pub(super) fn fresh(&self, id: &TaskId) -> Option<Value> {
        let inner = self.lock();
        let task = inner.tasks.get(id)?;
        Some(self.answer(task, &Status::Pending, task.created))
    }

    fn answer(&self, task: &Task, status: &Status, now: Timestamp) -> Value {
        let answer = Answer::new(task, status, now, &self.base, self.config.tells_duration);
        serde_json::to_value(answer).expect("an answer has string keys only")
    }

    pub(super) fn status(&self, id: &TaskId) -> Option<Status> {
        let now = self.now();
        self.lock().tasks.get(id).map(|task| task.status(now))
    }

    pub(super) fn task_ids(&self) -> Vec<TaskId> {
        self.lock().order.clone()
    }

    pub(super) fn unlist(&self, id: &TaskId) -> bool {
        let mut inner = self.lock();
        let is_known = inner.tasks.contains_key(id);
        is_known && inner.unlisted.insert(id.clone())
    }

    /// One page of the list, newest first, and how many there are on all pages.
    pub(super) fn rows(&self, filter: &Filter, skip: usize, take: usize) -> (Vec<Row>, usize) {
        let now = self.now();
        let inner = self.lock();
        let newest_first = inner
            .order
            .iter()
            .rev()
            .filter(|id| !inner.unlisted.contains(*id))
            .filter_map(|id| inner.tasks.get(id));
        let with_status = newest_first.map(|task| (task, task.status(now)));
        let mut rows = Vec::new();
        let mut total = 0;
        for (task, status) in with_status.filter(|(task, status)| filter.admits(task, status)) {
            if (skip..skip.saturating_add(take)).contains(&total) {
                rows.push(Row::new(task, &status));
            }
            total += 1;
        }
        (rows, total)
    }

    /// The credits left and used.
    pub(super) fn credits(&self) -> (u64, u64) {
        let used = self.lock().credits_used;
        (CREDITS.saturating_sub(used), used)
    }

    /// Takes out the callbacks of tasks that have ended, and says when the next one ends.
    pub(super) fn take_callbacks(&self) -> (Vec<Delivery>, Option<Timestamp>) {
        let now = self.now();
        let mut inner = self.lock();
        let mut due = Vec::new();
        while let Some((ends, id)) = inner.callbacks.pop_first() {
            if ends > now {
                inner.callbacks.insert((ends, id));
                return (due, Some(ends));
            }
            due.extend(self.delivery(&mut inner, &id, now));
        }
        (due, None)
    }

    fn delivery(&self, inner: &mut Inner, id: &TaskId, now: Timestamp) -> Option<Delivery> {
        let fault = inner.script.strike_callback(id);
        inner.seen.faults += u64::from(fault.is_some());
        let task = inner.tasks.get_mut(id)?;
        task.is_told = true;
        let answer = self.answer(task, &task.status(now), now);
        Some(Delivery {
            url: task.wish.callback.clone()?,
            body: answer.to_string().into_bytes(),
            fault,
        })
    }

    pub(super) fn plant(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.lock().script);
    }

    pub(super) fn rate(&self) -> Option<ByteSize> {
        self.lock().script.rate
    }

    pub(super) fn at_once(&self) -> Option<AtOnce> {
        self.lock().script.at_once
    }

    pub(super) fn manners(&self, id: &TaskId, index: AssetIndex) -> Vec<Manner> {
        self.lock().script.manners(id, index)
    }

    pub(super) fn strike_api(&self, call: Call, task: Option<&TaskId>) -> Option<ApiFault> {
        let mut inner = self.lock();
        let fault = inner.script.strike_api(call, task);
        inner.seen.faults += u64::from(fault.is_some());
        fault
    }

    pub(super) fn strike_file(
        &self,
        id: &TaskId,
        index: AssetIndex,
        has_range: bool,
    ) -> Option<FileFault> {
        let mut inner = self.lock();
        let fault = inner.script.strike_file(id, index, has_range);
        inner.seen.faults += u64::from(fault.is_some());
        fault
    }

    pub(super) fn remember(&self, request: Request) {
        let mut inner = self.lock();
        if inner.requests.len() >= REQUESTS_MAX {
            inner.requests.pop_front();
        }
        inner.requests.push_back(request);
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.lock().requests.iter().cloned().collect()
    }

    /// Counts something that was seen.
    pub(super) fn count(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock().seen);
        self.changed.notify_waiters();
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn learn(&mut self, task: Task) {
        self.credits_used += task.wish.credits();
        self.seen.faults += u64::from(task.ending.is_some());
        if let Some(key) = &task.wish.idempotency_key {
            self.by_idempotency_key.insert(key.clone(), task.id.clone());
        }
        if task.wish.callback.is_some() {
            self.callbacks.insert((task.ends, task.id.clone()));
        }
        self.order.push(task.id.clone());
        self.tasks.insert(task.id.clone(), task);
    }
}

impl Filter {
    fn admits(&self, task: &Task, status: &Status) -> bool {
        let is_wanted = |wanted: &Option<String>, value: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == value)
        };
        let is_queued_too =
            *status == Status::Pending && self.status.as_deref() == Some("processing");
        (is_queued_too || is_wanted(&self.status, status.as_str()))
            && is_wanted(&self.kind, task.wish.kind.as_str())
            && is_wanted(&self.model, &task.wish.model)
    }
}

/// Eight letters and digits out of a number.
fn letters(number: u64) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let letter = |shift: u32| {
        let at = usize::try_from((number >> (shift * 8)) % 36).unwrap_or(0);
        ALPHABET.get(at).copied().map_or('a', char::from)
    };
    (0..8).map(letter).collect()
}
