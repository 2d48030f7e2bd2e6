//! The fault script: which request or task meets which fault, decided before anything runs.
//!
//! A [`Rule`] lets the first `skip` requests that it is about pass, strikes the next `times`, and is spent. A request meets
//! at most one fault of its kind: that of the first rule, in the order planted, that is about it and not spent. So one
//! script and one order of requests give one run. People write scripts as text, see [`words`].
//!
//! A [`Manner`] is no fault but how a file's answers are: any number of them meet one request, faults or none.

mod lies;
pub mod words;

use url::Url;

use crate::model::asset::AssetIndex;
use crate::model::task::TaskId;
use crate::simulator::tasks::Status;
use crate::units::ByteSize;
use crate::units::Span;

/// What a file's request can meet. Where a cut is not given, it is half of what was to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// The headers never come.
    Hang,
    /// Headers, some bytes, then silence.
    Stall(Cut),
    /// 503.
    Unavailable,
    /// The connection is closed before `Content-Length` is reached.
    Truncate(Cut),
    /// No length (HTTP/1.0): the close ends the body, too early.
    Short(Cut),
    /// Chunked: the last chunk comes, too early.
    ShortChunks(Cut),
    /// Chunked: closed without the last chunk.
    CutChunks(Cut),
    /// `Content-Length` is that of a part, and all of it comes.
    Crop(Cut),
    /// The connection is reset.
    Reset(Cut),
    /// One byte, a wait of this long, one byte...
    Trickle(Span),
    /// An HTML page with 200.
    Html,
    /// 200 and no bytes.
    Empty,
    /// 200 and the whole file, although a range was asked for. Only requests with a range meet it.
    IgnoreRange,
    /// 206 with the range one byte later than asked for. Only requests with a range meet it.
    WrongRange,
    /// The body breaks off, and from then on the file has other bytes and another `ETag`.
    Change(Cut),
    /// The link is dead from now on with this status; a new look at the task gives a fresh one.
    Dead(u16),
    /// The file gzipped, whatever `Accept-Encoding` says.
    Gzip,
    /// So many redirects before the file.
    Redirect(u32),
    /// A redirect to this address.
    RedirectTo(Url),
    /// Bytes without end.
    Endless,
    /// The whole file without a length (HTTP/1.0).
    NoLength,
}

/// How answers about a file are. Each changes something of its own, so that several may meet, and a fault with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The `ETag` is a weak one, which `If-Range` never matches.
    WeakEtag,
    /// No `ETag`; `Last-Modified` is told.
    NoEtag,
    /// Neither `ETag` nor `Last-Modified`.
    NoVersion,
    /// `Accept-Ranges: none`, and the whole file to whoever asks for a range.
    NoRanges,
    /// `Content-Range` does not tell the total: `bytes 0-9/*`.
    NoTotal,
    /// `Content-Range` tells a total that is too long by this much.
    LyingTotal(ByteSize),
    /// 206 with the whole file to whoever asks for no range.
    PartUnasked,
    /// One connection gets at most so many bytes a second, whatever holds for all files.
    Paced(ByteSize),
}

/// After how many bytes of a body something happens; `None` is half of it.
pub type Cut = Option<ByteSize>;

/// What a call of the API can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// 429, with `Retry-After` where a span is given.
    TooMany(Option<Span>),
    /// 500.
    Internal,
    /// 401.
    Unauthorized,
    /// 402.
    PaymentRequired,
    /// 403.
    Forbidden,
    /// 404 `task_not_found`. Only reads of one task meet it.
    NotFound,
    /// An HTML page with 200.
    Html,
    /// No answer.
    Hang,
}

/// What an answer about a task can say that is not so. Reads of one task and rows of a batch meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Completed, but without results. Only completed tasks tell it.
    NoResults,
    /// A status that nobody knows.
    UnknownStatus,
    /// Processing, although completed. Only completed tasks tell it.
    Back,
    /// The ID of another task.
    OtherId,
    /// Fields of wrong types.
    WrongTypes,
    /// Longer by this much than any answer should be.
    Huge(ByteSize),
}

/// How a task ends that does not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Failed, with this code.
    Fails(String),
    /// Cancelled.
    Cancelled,
    /// Failed with `request_cancelled`, which is how some gateways report a cancel.
    CancelledAsFailed,
}

/// What a callback can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackFault {
    /// It is never sent.
    Lost,
    /// It is sent twice.
    Twin,
}

/// Any fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of a file's request.
    File(FileFault),
    /// How a file's answers are.
    Manner(Manner),
    /// Of a call of the API.
    Api(ApiFault),
    /// Of an answer about a task.
    Lie(Lie),
    /// Of a task itself, dealt when it is submitted.
    Ending(Ending),
    /// Of a callback.
    Callback(CallbackFault),
}

/// A kind of call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A new task.
    Submit,
    /// One task.
    Read,
    /// Many tasks.
    Batch,
    /// The list of tasks.
    List,
    /// The credits.
    Credits,
}

/// One fault, whom it is for, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    fault: Fault,
    call: Option<Call>,
    task: Option<TaskId>,
    index: Option<AssetIndex>,
    skip: u32,
    times: u32,
}

impl Rule {
    /// Strikes once, the first request that comes.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            call: None,
            task: None,
            index: None,
            skip: 0,
            times: 1,
        }
    }

    /// Strikes the first request for a file that comes.
    pub fn file(fault: FileFault) -> Self {
        Self::new(Fault::File(fault))
    }

    /// Is how a file's answers are, from the first request on and for good.
    pub fn manner(manner: Manner) -> Self {
        Self::new(Fault::Manner(manner)).times(u32::MAX)
    }

    /// Strikes the first read, batch or list that comes.
    pub fn api(fault: ApiFault) -> Self {
        Self::new(Fault::Api(fault))
    }

    /// Strikes the first answer about a task.
    pub fn lie(lie: Lie) -> Self {
        Self::new(Fault::Lie(lie))
    }

    /// Is only for this kind of call; without it an [`ApiFault`] is for reads, batches and lists.
    #[must_use]
    pub fn call(self, call: Call) -> Self {
        Self {
            call: Some(call),
            ..self
        }
    }

    /// Is only for this task.
    #[must_use]
    pub fn task(self, task: &TaskId) -> Self {
        Self {
            task: Some(task.clone()),
            ..self
        }
    }

    /// Is only for the file with this index.
    #[must_use]
    pub fn index(self, index: AssetIndex) -> Self {
        Self {
            index: Some(index),
            ..self
        }
    }

    /// Lets so many pass first.
    #[must_use]
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Strikes so often.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    fn is_about(&self, task: Option<&TaskId>) -> bool {
        self.task.as_ref().is_none_or(|own| Some(own) == task)
    }

    fn is_for_file(&self, task: &TaskId, index: AssetIndex) -> bool {
        self.is_about(Some(task)) && self.index.is_none_or(|own| own == index)
    }
}

/// All faults of a run, in the order in which they are dealt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    rules: Vec<Rule>,
    /// The most bytes a second that one connection gets of a file.
    pub rate: Option<ByteSize>,
    /// How many files are sent at once.
    pub at_once: Option<AtOnce>,
}

/// A bound on the files that are sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOnce {
    /// So many are sent; more are refused.
    pub most: u64,
    /// What a refusal says: 429 or 503.
    pub status: u16,
}

/// A script that keeps more rules than this forgets the oldest: nobody plants so many.
const RULES_MAX: usize = 10_000;

impl Script {
    /// Adds a rule after those that are there.
    pub fn plant(&mut self, rule: Rule) {
        if self.rules.len() >= RULES_MAX {
            self.rules.remove(0);
        }
        self.rules.push(rule);
    }

    /// Whether every rule is spent.
    pub fn is_spent(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn strike_file(
        &mut self,
        task: &TaskId,
        index: AssetIndex,
        has_range: bool,
    ) -> Option<FileFault> {
        self.strike(|rule| {
            let is_here = rule.is_for_file(task, index);
            let Fault::File(fault) = &rule.fault else {
                return None;
            };
            let needs_range = matches!(fault, FileFault::IgnoreRange | FileFault::WrongRange);
            (is_here && (has_range || !needs_range)).then(|| fault.clone())
        })
    }

    /// The manners in which a request for a file is answered.
    pub(super) fn manners(&mut self, task: &TaskId, index: AssetIndex) -> Vec<Manner> {
        let mut manners = Vec::new();
        for rule in &mut self.rules {
            let Fault::Manner(manner) = rule.fault else {
                continue;
            };
            if !rule.is_for_file(task, index) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else {
                rule.times = rule.times.saturating_sub(1);
                manners.push(manner);
            }
        }
        self.rules.retain(|rule| rule.times > 0);
        manners
    }

    pub(super) fn strike_api(&mut self, call: Call, task: Option<&TaskId>) -> Option<ApiFault> {
        self.strike(|rule| {
            let Fault::Api(fault) = &rule.fault else {
                return None;
            };
            let is_meant = match (rule.call, fault) {
                (Some(own), _) => own == call,
                (None, ApiFault::NotFound) => call == Call::Read,
                (None, _) => matches!(call, Call::Read | Call::Batch | Call::List),
            };
            (is_meant && rule.is_about(task)).then(|| fault.clone())
        })
    }

    pub(super) fn strike_lie(&mut self, task: &TaskId, status: &Status) -> Option<Lie> {
        self.strike(|rule| {
            let Fault::Lie(lie) = &rule.fault else {
                return None;
            };
            let needs_completed = matches!(lie, Lie::NoResults | Lie::Back);
            let is_now = !needs_completed || *status == Status::Completed;
            (is_now && rule.is_about(Some(task))).then(|| lie.clone())
        })
    }

    pub(super) fn strike_ending(&mut self, task: &TaskId) -> Option<Ending> {
        self.strike(|rule| match &rule.fault {
            Fault::Ending(ending) => rule.is_about(Some(task)).then(|| ending.clone()),
            Fault::File(_)
            | Fault::Manner(_)
            | Fault::Api(_)
            | Fault::Lie(_)
            | Fault::Callback(_) => None,
        })
    }

    pub(super) fn strike_callback(&mut self, task: &TaskId) -> Option<CallbackFault> {
        self.strike(|rule| match rule.fault {
            Fault::Callback(fault) => rule.is_about(Some(task)).then_some(fault),
            Fault::File(_)
            | Fault::Manner(_)
            | Fault::Api(_)
            | Fault::Lie(_)
            | Fault::Ending(_) => None,
        })
    }

    /// Offers a request to each rule; the first that wants it and lets nobody pass any more strikes.
    fn strike<T>(&mut self, wants: impl Fn(&Rule) -> Option<T>) -> Option<T> {
        let mut struck = None;
        for rule in &mut self.rules {
            let Some(fault) = wants(rule) else {
                continue;
            };
            if rule.skip > 0 {
                rule.skip -= 1;
            } else {
                rule.times = rule.times.saturating_sub(1);
                struck = Some(fault);
                break;
            }
        }
        self.rules.retain(|rule| rule.times > 0);
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_waits_for_its_task_and_its_turn_and_is_spent() {
        let (mine, other) = (id("mine"), id("other"));
        let mut script = Script::default();
        let rule = Rule::file(FileFault::Html).task(&mine).index(AssetIndex(1));
        script.plant(rule.skip(1).times(2));
        let mut strike = |task: &TaskId, index| script.strike_file(task, AssetIndex(index), false);
        assert_eq!(strike(&other, 1), None);
        assert_eq!(strike(&mine, 0), None);
        assert_eq!(strike(&mine, 1), None, "the first passes");
        assert_eq!(strike(&mine, 1), Some(FileFault::Html));
        assert_eq!(strike(&mine, 1), Some(FileFault::Html));
        assert_eq!(strike(&mine, 1), None);
        assert!(script.is_spent());
    }

    #[test]
    fn range_faults_wait_for_a_range_and_lies_for_completion() {
        let task = id("t");
        let mut script = Script::default();
        script.plant(Rule::file(FileFault::IgnoreRange));
        script.plant(Rule::lie(Lie::NoResults));
        assert_eq!(script.strike_file(&task, AssetIndex(0), false), None);
        let struck = script.strike_file(&task, AssetIndex(0), true);
        assert_eq!(struck, Some(FileFault::IgnoreRange));
        assert_eq!(script.strike_lie(&task, &Status::Pending), None);
        assert_eq!(
            script.strike_lie(&task, &Status::Completed),
            Some(Lie::NoResults)
        );
    }

    #[test]
    fn manners_meet_each_other_and_a_fault() {
        let (mine, other) = (id("mine"), id("other"));
        let mut script = Script::default();
        script.plant(Rule::manner(Manner::NoEtag).task(&mine));
        script.plant(Rule::file(FileFault::Html));
        script.plant(Rule::manner(Manner::NoTotal).skip(1).times(1));
        let file = AssetIndex(0);
        assert_eq!(script.manners(&mine, file), [Manner::NoEtag]);
        assert_eq!(
            script.manners(&mine, file),
            [Manner::NoEtag, Manner::NoTotal]
        );
        assert_eq!(script.manners(&other, file), []);
        let struck = script.strike_file(&mine, file, false);
        assert_eq!(struck, Some(FileFault::Html));
    }

    #[test]
    fn api_faults_spare_submissions_unless_told() {
        let mut script = Script::default();
        script.plant(Rule::api(ApiFault::Internal));
        script.plant(Rule::api(ApiFault::Forbidden).call(Call::Submit));
        script.plant(Rule::api(ApiFault::NotFound));
        assert_eq!(script.strike_api(Call::Credits, None), None);
        assert_eq!(
            script.strike_api(Call::Submit, None),
            Some(ApiFault::Forbidden)
        );
        assert_eq!(
            script.strike_api(Call::List, None),
            Some(ApiFault::Internal)
        );
        assert_eq!(script.strike_api(Call::List, None), None);
        assert_eq!(
            script.strike_api(Call::Read, None),
            Some(ApiFault::NotFound)
        );
    }
}
