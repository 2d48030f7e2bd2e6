//! An answer about one task, read into a [`Sighting`]: strict on what is used, lenient on the rest.

mod links;

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::model::task::Progress;
use crate::model::task::Sighting;
use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::provider::description::Description;
use crate::provider::description::identity::Names;
use crate::provider::description::status::TimeField;
use crate::provider::description::status::TimeUnit;
use crate::provider::pointer::Pointer;
use crate::provider::pointer::Pointers;
use crate::provider::scrub::MESSAGE_CHARS;
use crate::provider::scrub::WORD_CHARS;
use crate::provider::scrub::scrub;
use crate::secret::Secret;
use crate::units::Span;

pub(super) use links::FoundLink;

/// Results that die later than this do not say when: 400 days is longer than any provider keeps them.
const EXPIRES_WITHIN: Span = Span::from_secs(400 * 86_400);

/// Decimal fractions lie a hair off their doubles: with this added, they are rounded and not cut to milliseconds.
const HALF_A_MILLISECOND: f64 = 0.000_5;

/// What reading an answer needs to know.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub(super) description: &'r Description,
    /// What paths of the API are added to.
    pub(super) base_url: &'r str,
    pub(super) key: Option<&'r Secret>,
    pub(super) now: Timestamp,
}

/// A provider's code and message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

/// Why a good answer tells of no task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Amiss {
    /// It says that there is no such task.
    Gone(String),
    /// It is not what the description promises.
    Senseless(String),
}

impl Reader<'_> {
    /// Whether `answer`, although it came with a good HTTP status, tells of an error and not of a task. An envelope that
    /// tells of an error may still carry a task that has ended badly: then the task's own word counts.
    pub(super) fn is_error(&self, answer: &Value) -> bool {
        let status = &self.description.status;
        let task = self.task(answer).ok();
        let word = task.and_then(|task| status.word(status.state.at(&task)?.as_ref()));
        if status.ok.is_asked() {
            let means = word.and_then(|word| status.map.get(&word).copied());
            let is_bad_end = matches!(means, Some(Progress::Failed | Progress::Cancelled));
            return !status.ok.is_in(answer) && !is_bad_end;
        }
        word.is_none() && self.words(answer).code.is_some()
    }

    /// The part of `answer` that is about the task.
    pub(super) fn task<'v>(&self, answer: &'v Value) -> Result<Cow<'v, Value>, Amiss> {
        let Some(pointer) = &self.description.status.task else {
            return Ok(Cow::Borrowed(answer));
        };
        let found = pointer.at(answer).filter(|task| !task.is_null());
        found.ok_or_else(|| Amiss::Gone(format!("there is no task at {pointer}")))
    }

    /// The ID of the task that `task` is about, where the description says where it is.
    pub(super) fn id(&self, task: &Value) -> Option<String> {
        text(self.description.status.id.as_ref()?, task)
    }

    /// The error that `answer` tells of.
    pub(super) fn words(&self, answer: &Value) -> Words {
        let errors = &self.description.status.error;
        self.words_at(&errors.code, &errors.message, answer)
    }

    /// Why the task failed.
    pub(super) fn failure(&self, task: &Value) -> Words {
        match &self.description.status.failed {
            Some(failed) => self.words_at(&failed.code, &failed.message, task),
            None => self.words(task),
        }
    }

    fn words_at(&self, code: &Pointers, message: &Pointers, root: &Value) -> Words {
        let read = |pointers: &Pointers, chars_max| {
            let read = |value: &Value| {
                let text = scrub(&as_text(value)?, chars_max, self.key);
                Some(text).filter(|text| !text.is_empty())
            };
            pointers.find(root, read).map(|(text, _)| text)
        };
        Words {
            code: read(code, WORD_CHARS),
            message: read(message, MESSAGE_CHARS),
        }
    }

    /// What `answer` says of the task that was asked for by `names`.
    pub(super) fn sighting(
        &self,
        answer: &Value,
        names: &Names<'_, '_>,
    ) -> Result<Sighting, Amiss> {
        self.sighting_of(self.task(answer)?.as_ref(), names)
    }

    /// What `task`, a whole answer or an element of one, says of the task that was asked for by `names`.
    pub(super) fn sighting_of(
        &self,
        task: &Value,
        names: &Names<'_, '_>,
    ) -> Result<Sighting, Amiss> {
        let status = &self.description.status;
        self.same_task(task, names)?;
        let word = self.status_word(task)?;
        let known = match &word {
            Some(word) if status.gone.contains(word) => {
                return Err(Amiss::Gone(format!("its status is {word}")));
            }
            Some(word) => status.map.get(word).copied(),
            None => status.missing,
        };
        let words = self.failure(task);
        let kind = self.word(status.kind.as_ref(), task);
        let said = self.progress(known, &words);
        let results = match said {
            Progress::Completed => self.told_results(task, names, kind.as_deref())?,
            Progress::Pending | Progress::Running | Progress::Failed | Progress::Cancelled => {
                Vec::new()
            }
        };
        let has_failed = said == Progress::Completed && results.is_empty() && self.has_failed(task);
        let progress = if has_failed { Progress::Failed } else { said };
        let is_without_files = progress == Progress::Completed && self.has_no_files(task, &results);
        let created = self.past(status.times.created.as_ref(), task);
        let word = word.unwrap_or_else(|| "none".to_owned());
        Ok(Sighting {
            progress,
            status: scrub(&word, WORD_CHARS, self.key),
            is_unknown_status: known.is_none(),
            percent: percent(status.percent.as_ref(), task),
            model: self.word(status.model.as_ref(), task),
            created,
            completed: (progress == Progress::Completed)
                .then(|| self.completed(created, task))
                .flatten(),
            expires: self.expires(task),
            estimate: status
                .estimate
                .as_ref()
                .and_then(|at| length(at.at(task)?.as_ref(), TimeUnit::S)),
            results,
            is_without_files,
            error: match progress {
                Progress::Failed | Progress::Cancelled => task_error(words),
                Progress::Pending | Progress::Running | Progress::Completed => None,
            },
            kind,
            answer: None,
        })
    }

    /// The status word, `None` where there is none and that has a meaning.
    fn status_word(&self, task: &Value) -> Result<Option<String>, Amiss> {
        let status = &self.description.status;
        let said = status.state.at(task);
        let word = said.as_deref().and_then(|said| status.word(said));
        let is_absent = said.as_deref().is_none_or(Value::is_null);
        if word.is_some() || (is_absent && status.missing.is_some()) {
            return Ok(word);
        }
        let found = said.as_deref().map_or("nothing", kind_of);
        let what = format!("there is {found} at {}, no status", status.state);
        Err(Amiss::Senseless(what))
    }

    /// Whether something stands where a task that failed without a word of its own says so.
    fn has_failed(&self, task: &Value) -> bool {
        let failed = self.description.status.failed.as_ref();
        let is_something = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::String(_)
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Some(()),
        };
        failed.is_some_and(|failed| failed.when.find(task, is_something).is_some())
    }

    /// A row of a list: the task's ID and when it was made.
    pub(super) fn row(&self, row: &Value) -> Option<(TaskId, Option<Timestamp>)> {
        let list = self.description.list.as_ref()?;
        let id = list.id.as_ref().or(self.description.status.id.as_ref())?;
        let created = list.created.as_ref();
        let created = created.or(self.description.status.times.created.as_ref());
        let id = self.description.id.join(&text(id, row)?)?;
        Some((id, self.past(created, row)))
    }

    fn same_task(&self, task: &Value, names: &Names<'_, '_>) -> Result<(), Amiss> {
        let Some(pointer) = &self.description.status.id else {
            return Ok(());
        };
        match self.id(task) {
            Some(id) if id == names.id => Ok(()),
            Some(other) => {
                let other = scrub(&other, WORD_CHARS, self.key);
                let what = format!("it is about task {other:?}, not {}", names.id);
                Err(Amiss::Senseless(what))
            }
            None => Err(Amiss::Senseless(format!(
                "there is no task ID at {pointer}"
            ))),
        }
    }

    /// An unknown word counts as running; some providers say of a cancelled task that it failed.
    fn progress(&self, known: Option<Progress>, words: &Words) -> Progress {
        let cancelled = &self.description.status.error.cancelled;
        let was_cancelled = || words.code.as_ref().is_some_and(|c| cancelled.contains(c));
        match known {
            Some(Progress::Failed) if was_cancelled() => Progress::Cancelled,
            Some(progress) => progress,
            None => Progress::Running,
        }
    }

    fn word(&self, pointer: Option<&Pointer>, answer: &Value) -> Option<String> {
        let word = pointer?.at(answer)?;
        let word = scrub(&as_text(&word)?, WORD_CHARS, self.key);
        Some(word).filter(|word| !word.is_empty())
    }

    /// The field itself, else creation plus the time it took.
    fn completed(&self, created: Option<Timestamp>, answer: &Value) -> Option<Timestamp> {
        let times = &self.description.status.times;
        let told = self.past(times.completed.as_ref(), answer);
        told.or_else(|| {
            let field = times.took.as_ref()?;
            let took = length(field.pointer.at(answer)?.as_ref(), field.unit)?;
            Some(created?.plus(took).min(self.now))
        })
    }

    /// What has happened has happened by now: a provider's clock that runs ahead must not postpone a deadline.
    fn past(&self, field: Option<&TimeField>, answer: &Value) -> Option<Timestamp> {
        Some(instant(field?, answer)?.min(self.now))
    }

    fn expires(&self, answer: &Value) -> Option<Timestamp> {
        let field = self.description.status.times.expires.as_ref()?;
        instant(field, answer).filter(|at| *at <= self.now.plus(EXPIRES_WITHIN))
    }
}

fn task_error(words: Words) -> Option<TaskError> {
    if words.code.is_none() && words.message.is_none() {
        return None;
    }
    Some(TaskError {
        code: words.code.unwrap_or_default(),
        message: words.message.unwrap_or_default(),
    })
}

/// The string or the number at a place, as text.
pub(super) fn text(pointer: &Pointer, answer: &Value) -> Option<String> {
    as_text(pointer.at(answer)?.as_ref()).map(Cow::into_owned)
}

/// A string or a number, as text.
pub(super) fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn percent(pointer: Option<&Pointer>, answer: &Value) -> Option<u8> {
    let number = pointer?.at(answer)?.as_f64()?;
    let whole: u8 = format!("{number:.0}").parse().ok()?;
    (whole <= 100).then_some(whole)
}

fn instant(field: &TimeField, answer: &Value) -> Option<Timestamp> {
    let value = field.pointer.at(answer)?;
    let at = match field.unit {
        TimeUnit::S | TimeUnit::Ms => {
            let since_1970 = length(value.as_ref(), field.unit)?;
            Timestamp::EPOCH.plus(since_1970)
        }
        TimeUnit::Rfc3339 => Timestamp::parse(value.as_str()?)?,
    };
    // Zero is how some say that there is no such time yet.
    (at > Timestamp::EPOCH).then_some(at)
}

/// A number of seconds or milliseconds, as a number or as text.
fn length(value: &Value, unit: TimeUnit) -> Option<Span> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let seconds = match unit {
        TimeUnit::S => number,
        TimeUnit::Ms => number / 1000.0,
        TimeUnit::Rfc3339 => return None,
    };
    if seconds < 0.0 {
        return None;
    }
    let exact = Duration::try_from_secs_f64(seconds + HALF_A_MILLISECOND).ok()?;
    let millis = u64::try_from(exact.as_millis()).ok()?;
    Some(Span::from_millis(millis))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// 2026-11-24T14:00:00Z
    pub(super) const NOW: i64 = 1_795_528_800;

    pub(super) const OWN: &str = r#"
base_url = "https://api.example.com"
auth = { scheme = "none" }
[status]
path = "/tasks/{id}"
state = "/state"
map = { done = "completed", failed = "failed", busy = "running" }
percent = "/percent"
estimate = "/left"
error = { code = "/code", message = "/message", cancelled = ["stopped"] }
[status.times]
created = { pointer = "/created", unit = "ms" }
completed = { pointer = "/done_at", unit = "rfc3339" }
took = { pointer = "/took", unit = "s" }
expires = { pointer = "/dies", unit = "s" }
[results]
pointers = ["/video", "/extra/**"]
hosts = ["*.example.com"]
"#;

    pub(super) fn read(answer: &Value) -> Result<Sighting, Amiss> {
        read_as(OWN, answer)
    }

    fn read_as(description: &str, answer: &Value) -> Result<Sighting, Amiss> {
        let description = Description::parse(description).unwrap();
        let reader = Reader {
            description: &description,
            base_url: "https://api.example.com",
            key: None,
            now: Timestamp::from_unix_seconds(NOW),
        };
        let id = "t1".parse().unwrap();
        let names = description.id.split(&id).unwrap();
        reader.sighting(answer, &names)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is expected reads best as it is"
    )]
    #[track_caller]
    pub(super) fn check<T: PartialEq + std::fmt::Debug>(
        answer: &Value,
        read_out: impl Fn(Sighting) -> T,
        expected: T,
    ) {
        let sighting = read(answer).unwrap();
        assert_eq!(read_out(sighting), expected, "{answer}");
    }

    #[test]
    fn percent_is_a_number_from_0_to_100_or_nothing() {
        let of = |percent: Value| json!({"state": "busy", "percent": percent});
        let percent = |sighting: Sighting| sighting.percent;
        check(&of(json!(0)), percent, Some(0));
        check(&of(json!(100)), percent, Some(100));
        check(&of(json!(65.6)), percent, Some(66));
        for nothing in [
            json!(101),
            json!(-1),
            json!(1e300),
            json!("65"),
            json!(null),
            json!([1]),
        ] {
            check(&of(nothing), percent, None);
        }
    }

    fn millis(at: Option<Timestamp>) -> Option<i64> {
        at.map(Timestamp::as_unix_millis)
    }

    #[test]
    fn times_are_read_in_their_unit_and_lie_in_the_past() {
        let created = |sighting: Sighting| millis(sighting.created);
        let of = |created: Value| json!({"state": "busy", "created": created});
        check(
            &of(json!(1_774_857_405_123_i64)),
            created,
            Some(1_774_857_405_123),
        );
        check(
            &of(json!("1774857405123")),
            created,
            Some(1_774_857_405_123),
        );
        check(&of(json!(i64::MAX)), created, Some(NOW * 1000));
        for nothing in [
            json!(0),
            json!(-5),
            json!(""),
            json!("soon"),
            json!(null),
            json!({}),
        ] {
            check(&of(nothing), created, None);
        }
    }

    #[test]
    fn completion_is_told_or_worked_out() {
        let completed = |sighting: Sighting| millis(sighting.completed);
        let made = 1_774_857_405_000_i64;
        check(
            &json!({"state": "done", "created": made, "took": 95.5}),
            completed,
            Some(made + 95_500),
        );
        check(
            &json!({"state": "done", "created": made, "took": 95, "done_at": "2026-03-30T08:00:00Z"}),
            completed,
            Some(1_774_857_600_000),
        );
        check(
            &json!({"state": "done", "created": made, "took": 1e12}),
            completed,
            Some(NOW * 1000),
        );
        check(&json!({"state": "done", "created": made}), completed, None);
        check(&json!({"state": "done", "took": 95}), completed, None);
        check(
            &json!({"state": "done", "created": made, "took": -1}),
            completed,
            None,
        );
        check(
            &json!({"state": "busy", "created": made, "took": 95}),
            completed,
            None,
        );
    }

    #[test]
    fn a_number_is_a_status_where_the_map_has_numbers() {
        let number = |state: Value| json!({"state": state});
        let counting = OWN.replace("done = \"completed\"", "1 = \"completed\", 7 = \"failed\"");
        let of =
            |state: Value| read_as(&counting, &number(state)).map(|it| (it.progress, it.status));
        assert_eq!(of(json!(1)), Ok((Progress::Completed, "1".to_owned())));
        assert_eq!(of(json!("1")), Ok((Progress::Completed, "1".to_owned())));
        assert_eq!(of(json!(7)), Ok((Progress::Failed, "7".to_owned())));
        assert_eq!(of(json!(5)), Ok((Progress::Running, "5".to_owned())));
        assert_eq!(
            read(&number(json!(1))),
            Err(Amiss::Senseless(
                "there is a number at /state, no status".to_owned()
            ))
        );
    }

    #[test]
    fn an_absurd_end_of_life_is_none() {
        let expires = |sighting: Sighting| millis(sighting.expires);
        let of = |dies: i64| json!({"state": "done", "dies": dies});
        check(&of(NOW + 3600), expires, Some((NOW + 3600) * 1000));
        check(&of(NOW - 3600), expires, Some((NOW - 3600) * 1000));
        check(&of(4_102_444_800), expires, None);
        check(&of(0), expires, None);
    }

    #[test]
    fn numbers_do_as_codes() {
        let answer = json!({"state": "failed", "code": 1026, "message": "no\nfaces"});
        let error = Some(TaskError {
            code: "1026".to_owned(),
            message: "no\\nfaces".to_owned(),
        });
        check(&answer, |sighting| sighting.error, error);
        let stopped = json!({"state": "failed", "code": "stopped"});
        check(&stopped, |sighting| sighting.progress, Progress::Cancelled);
        check(
            &json!({"state": "done", "code": "stopped"}),
            |sighting| (sighting.progress, sighting.error),
            (Progress::Completed, None),
        );
    }

    /// Values of all types where the answer is read.
    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            "https?://[a-z./?=&%@:0-9]{0,30}".prop_map(Value::from),
            Just(json!(["https://a.example.com/1", {"b": "x"}])),
        ]
    }

    proptest! {
        #[test]
        fn no_answer_panics_us(
            state in prop_oneof![Just(json!("done")), Just(json!("failed")), any_value()],
            values in prop::collection::vec(any_value(), 9),
        ) {
            let names = ["percent", "left", "code", "message", "created", "done_at", "took", "dies", "video"];
            let mut answer: serde_json::Map<_, _> =
                names.map(str::to_owned).into_iter().zip(values).collect();
            answer.insert("state".to_owned(), state);
            if let Ok(sighting) = read(&Value::from(answer)) {
                let now = Timestamp::from_unix_seconds(NOW);
                prop_assert!(sighting.created <= Some(now) && sighting.completed <= Some(now));
                prop_assert!(sighting.status.chars().count() <= WORD_CHARS * 8 + 1);
            }
        }
    }
}
