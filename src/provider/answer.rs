//! An answer about one task, read into a [`Sighting`]: strict on what is used, lenient on the rest.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::clock::Timestamp;
use crate::model::asset::AssetRole;
use crate::model::task::Progress;
use crate::model::task::ResultLink;
use crate::model::task::Sighting;
use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::provider::description::Description;
use crate::provider::description::TimeField;
use crate::provider::description::TimeUnit;
use crate::provider::pointer::Pointer;
use crate::provider::scrub::MESSAGE_CHARS;
use crate::provider::scrub::WORD_CHARS;
use crate::provider::scrub::scrub;
use crate::provider::signature;
use crate::secret::Secret;
use crate::units::Span;

/// More results than this are no results: the most that a provider makes for one task is about ten.
const RESULTS_MAX: usize = 256;

/// A link longer than this is none; the longest signed ones have about 4 KiB.
const LINK_BYTES_MAX: usize = 16 * 1024;

/// Results that die later than this do not say when: 400 days is longer than any provider keeps them.
const EXPIRES_WITHIN: Span = Span::from_secs(400 * 86_400);

/// Decimal fractions lie a hair off their doubles: with this added, they are rounded and not cut to milliseconds.
const HALF_A_MILLISECOND: f64 = 0.000_5;

/// The extensions by which a link tells what it is.
const EXTENSIONS: [(AssetRole, &[&str]); 3] = [
    (
        AssetRole::Video,
        &["mp4", "mov", "webm", "mkv", "m4v", "avi"],
    ),
    (
        AssetRole::Image,
        &["png", "jpg", "jpeg", "webp", "gif", "avif"],
    ),
    (
        AssetRole::Audio,
        &["mp3", "wav", "m4a", "aac", "flac", "ogg", "opus"],
    ),
];

/// What reading an answer needs to know.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub(super) description: &'r Description,
    pub(super) key: Option<&'r Secret>,
    pub(super) now: Timestamp,
}

/// A provider's code and message.
#[derive(Default)]
pub(super) struct Words {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

impl Reader<'_> {
    /// Whether `answer`, although it came with a good HTTP status, tells of an error and not of a task.
    pub(super) fn is_error(&self, answer: &Value) -> bool {
        let status = &self.description.status;
        let has_state = status.state.first(answer).is_some();
        !status.ok.is_in(answer) || (!has_state && self.words(answer).code.is_some())
    }

    /// The ID of the task that `answer` is about, where the description says where it is.
    pub(super) fn id(&self, answer: &Value) -> Option<String> {
        text(self.description.status.id.as_ref()?, answer)
    }

    /// The error that `answer` tells of.
    pub(super) fn words(&self, answer: &Value) -> Words {
        let errors = &self.description.status.error;
        let read = |pointer: &Option<Pointer>, chars_max| {
            let text = text(pointer.as_ref()?, answer)?;
            Some(scrub(&text, chars_max, self.key)).filter(|text| !text.is_empty())
        };
        Words {
            code: read(&errors.code, WORD_CHARS),
            message: read(&errors.message, MESSAGE_CHARS),
        }
    }

    /// What `answer` says of the task `asked`, or why it makes no sense.
    pub(super) fn sighting(&self, answer: &Value, asked: &TaskId) -> Result<Sighting, String> {
        let status = &self.description.status;
        self.same_task(answer, asked)?;
        let said = status.state.first(answer);
        let Some(Value::String(word)) = &said else {
            let found = said.as_ref().map_or("nothing", kind_of);
            return Err(format!("there is {found} at {}, no status", status.state));
        };
        let known = status.map.get(word).copied();
        let words = self.words(answer);
        let progress = self.progress(known, &words);
        let kind = self.word(status.kind.as_ref(), answer);
        let times = &status.times;
        let created = self.past(times.created.as_ref(), answer);
        Ok(Sighting {
            progress,
            status: scrub(word, WORD_CHARS, self.key),
            is_unknown_status: known.is_none(),
            percent: percent(status.percent.as_ref(), answer),
            model: self.word(status.model.as_ref(), answer),
            created,
            completed: (progress == Progress::Completed)
                .then(|| self.completed(created, answer))
                .flatten(),
            expires: self.expires(answer),
            estimate: status
                .estimate
                .as_ref()
                .and_then(|at| length(&at.first(answer)?, TimeUnit::S)),
            results: match progress {
                Progress::Completed => self.results(answer, kind.as_deref())?,
                Progress::Pending | Progress::Running | Progress::Failed | Progress::Cancelled => {
                    Vec::new()
                }
            },
            error: match progress {
                Progress::Failed | Progress::Cancelled => task_error(words),
                Progress::Pending | Progress::Running | Progress::Completed => None,
            },
            kind,
            answer: None,
        })
    }

    fn same_task(&self, answer: &Value, asked: &TaskId) -> Result<(), String> {
        let Some(pointer) = &self.description.status.id else {
            return Ok(());
        };
        match text(pointer, answer) {
            Some(id) if id == asked.as_str() => Ok(()),
            Some(other) => {
                let other = scrub(&other, WORD_CHARS, self.key);
                Err(format!("it is about task {other:?}, not {asked}"))
            }
            None => Err(format!("there is no task ID at {pointer}")),
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
        let word = text(pointer?, answer)?;
        Some(scrub(&word, WORD_CHARS, self.key)).filter(|word| !word.is_empty())
    }

    /// The field itself, else creation plus the time it took.
    fn completed(&self, created: Option<Timestamp>, answer: &Value) -> Option<Timestamp> {
        let times = &self.description.status.times;
        let told = self.past(times.completed.as_ref(), answer);
        told.or_else(|| {
            let field = times.took.as_ref()?;
            let took = length(&field.pointer.first(answer)?, field.unit)?;
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

    fn results(&self, answer: &Value, kind: Option<&str>) -> Result<Vec<ResultLink>, String> {
        let results = &self.description.results;
        let mut found: Vec<ResultLink> = Vec::new();
        let mut elsewhere = None;
        for pointer in &results.pointers {
            let mut see = |value: &Value| {
                let Some(url) = link(value) else { return };
                let host = url.host_str().unwrap_or_default();
                if !results.hosts.is_empty() && !results.hosts.iter().any(|p| p.matches(host)) {
                    elsewhere = Some(host.to_owned());
                } else if found.iter().all(|known| known.url != url) && found.len() <= RESULTS_MAX {
                    found.push(ResultLink {
                        role: role(&url, kind),
                        expires: signature::expiry(&url, self.now),
                        url,
                    });
                }
            };
            let all = pointer.each(answer, &mut see);
            all.map_err(|error| error.to_string())?;
        }
        match elsewhere {
            _ if found.len() > RESULTS_MAX => Err(format!("more than {RESULTS_MAX} results")),
            // Some left out is what the list is for; all left out would be a loss that nobody sees.
            Some(host) if found.is_empty() => {
                let host = scrub(&host, WORD_CHARS, self.key);
                Err(format!(
                    "every result is on a host that results.hosts leaves out, such as {host}"
                ))
            }
            Some(_) | None => Ok(found),
        }
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
fn text(pointer: &Pointer, answer: &Value) -> Option<String> {
    match pointer.first(answer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn percent(pointer: Option<&Pointer>, answer: &Value) -> Option<u8> {
    let number = pointer?.first(answer)?.as_f64()?;
    let whole: u8 = format!("{number:.0}").parse().ok()?;
    (whole <= 100).then_some(whole)
}

fn instant(field: &TimeField, answer: &Value) -> Option<Timestamp> {
    let value = field.pointer.first(answer)?;
    let at = match field.unit {
        TimeUnit::S | TimeUnit::Ms => {
            let since_1970 = length(&value, field.unit)?;
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

fn link(value: &Value) -> Option<Url> {
    let text = value.as_str().filter(|text| text.len() <= LINK_BYTES_MAX)?;
    let url = Url::parse(text.trim()).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}

fn role(url: &Url, kind: Option<&str>) -> AssetRole {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let by_name = extension.and_then(|extension| {
        let is_it = |known: &&str| known.eq_ignore_ascii_case(extension);
        let mut rows = EXTENSIONS.iter();
        rows.find(|(_, known)| known.iter().any(&is_it))
    });
    match (by_name, kind) {
        (Some((role, _)), _) => *role,
        (None, Some("video")) => AssetRole::Video,
        (None, Some("image")) => AssetRole::Image,
        (None, Some("audio")) => AssetRole::Audio,
        (None, Some(_) | None) => AssetRole::File,
    }
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
    const NOW: i64 = 1_795_528_800;

    const OWN: &str = r#"
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

    fn read(answer: &Value) -> Result<Sighting, String> {
        let description = Description::parse(OWN).unwrap();
        let reader = Reader {
            description: &description,
            key: None,
            now: Timestamp::from_unix_seconds(NOW),
        };
        reader.sighting(answer, &"t1".parse().unwrap())
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is expected reads best as it is"
    )]
    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(
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
    fn an_absurd_end_of_life_is_none() {
        let expires = |sighting: Sighting| millis(sighting.expires);
        let of = |dies: i64| json!({"state": "done", "dies": dies});
        check(&of(NOW + 3600), expires, Some((NOW + 3600) * 1000));
        check(&of(NOW - 3600), expires, Some((NOW - 3600) * 1000));
        check(&of(4_102_444_800), expires, None);
        check(&of(0), expires, None);
    }

    #[test]
    fn results_are_taken_once_from_hosts_that_are_allowed() {
        let urls = |sighting: Sighting| {
            let urls = sighting.results.iter().map(|link| link.url.to_string());
            urls.collect::<Vec<_>>()
        };
        let (a, b) = ("https://cdn.example.com/a.mp4", "https://cdn.example.com/b");
        let elsewhere = "https://input.example.net/echo.mp4";
        check(
            &json!({"state": "done", "video": a, "extra": [a, {"x": b, "in": elsewhere}]}),
            urls,
            vec![a.to_owned(), b.to_owned()],
        );
        check(&json!({"state": "busy", "video": a}), urls, vec![]);
        check(&json!({"state": "failed", "video": a}), urls, vec![]);
        for none in [
            json!("ftp://cdn.example.com/a"),
            json!("/a.mp4"),
            json!(7),
            json!("data:,x"),
        ] {
            check(&json!({"state": "done", "video": none}), urls, vec![]);
        }
        let error = read(&json!({"state": "done", "extra": [elsewhere]})).unwrap_err();
        assert_eq!(
            error,
            "every result is on a host that results.hosts leaves out, such as input.example.net"
        );
    }

    #[test]
    fn a_flood_of_results_is_refused() {
        let flood = |count: usize| {
            let urls: Vec<_> = (0..count)
                .map(|i| format!("https://a.example.com/{i}"))
                .collect();
            read(&json!({"state": "done", "extra": urls}))
        };
        assert_eq!(flood(RESULTS_MAX).unwrap().results.len(), RESULTS_MAX);
        assert!(flood(RESULTS_MAX + 1).is_err());
        assert!(flood(5000).is_err());
        let long = format!("https://a.example.com/{}", "x".repeat(LINK_BYTES_MAX));
        check(
            &json!({"state": "done", "video": long}),
            |s| s.results.len(),
            0,
        );
    }

    #[test]
    fn the_name_tells_what_a_result_is_before_the_kind_does() {
        let role = |url: &str, kind| role(&Url::parse(url).unwrap(), kind);
        assert_eq!(role("https://a/v.MP4?x=1.png", None), AssetRole::Video);
        assert_eq!(
            role("https://a/last_frame.png", Some("video")),
            AssetRole::Image
        );
        assert_eq!(role("https://a/s.mp3", Some("video")), AssetRole::Audio);
        assert_eq!(
            role("https://a.mp4/content", Some("video")),
            AssetRole::Video
        );
        assert_eq!(role("https://a/content", Some("image")), AssetRole::Image);
        assert_eq!(role("https://a.mp4/x.bin", Some("text")), AssetRole::File);
        assert_eq!(role("https://a/", None), AssetRole::File);
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
