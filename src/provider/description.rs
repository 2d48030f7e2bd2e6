//! The description of a task API, in TOML: the built-in ones are compiled in, a user's own is read by the same code.

pub mod field;
pub mod webhook;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use url::Url;

use crate::model::task::Progress;
use crate::provider::description::field::Auth;
use crate::provider::description::field::Good;
use crate::provider::description::field::HostPattern;
use crate::provider::description::field::PathTemplate;
use crate::provider::description::webhook::Webhook;
use crate::provider::pointer::Pointer;
use crate::units::Rate;
use crate::units::Span;

/// The built-in descriptions, by the `kind` that configuration names.
const BUILT_IN: [(&str, &str); 1] = [("evolink", EVOLINK)];

/// The built-in description of EvoLink, as a user's own would be written.
pub const EVOLINK: &str = include_str!("builtin/evolink.toml");

/// A description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptionError {
    line: Option<usize>,
    key: String,
    what: String,
}

/// How a task API is asked, and how its answers are read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What every path below is added to.
    pub base_url: Url,
    /// How a call proves whose it is.
    pub auth: Auth,
    /// How one task is read.
    pub status: Status,
    /// Where the results are.
    pub results: Results,
    /// How many tasks are read at once; absent = one by one.
    pub batch: Option<Batch>,
    /// A free call that only a valid key can make; absent = a look at a made-up task.
    pub check: Option<Check>,
    /// How its callbacks are read; absent = none are taken.
    pub webhook: Option<Webhook>,
    /// How fast.
    #[serde(default)]
    pub limits: Limits,
}

/// `[status]`: the call that reads one task, and the places of what it says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Has `{id}` in it.
    pub path: PathTemplate,
    /// The task's own ID: an answer about another task is refused.
    pub id: Option<Pointer>,
    /// The status word.
    pub state: Pointer,
    /// What each status word means.
    pub map: BTreeMap<String, Progress>,
    /// What a good answer says, where errors come with HTTP 200.
    #[serde(default)]
    pub ok: Good,
    /// How errors are told.
    #[serde(default)]
    pub error: Errors,
    /// When things happened.
    #[serde(default)]
    pub times: Times,
    /// Seconds that the provider thinks are left.
    pub estimate: Option<Pointer>,
    /// 0 to 100.
    pub percent: Option<Pointer>,
    /// The model that ran.
    pub model: Option<Pointer>,
    /// The kind of output: `video`, `image`, `audio`.
    pub kind: Option<Pointer>,
}

/// `[status.error]`: the places of an error's parts, and the codes that mean something to us.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// The code.
    pub code: Option<Pointer>,
    /// The message.
    pub message: Option<Pointer>,
    /// HTTP statuses that mean that there is no such task.
    pub gone_http: Vec<u16>,
    /// Codes that mean that there is no such task.
    pub gone: Vec<String>,
    /// Codes that mean trouble with the account or its key.
    pub refused: Vec<String>,
    /// Codes that mean that we ask too often.
    pub limited: Vec<String>,
    /// Codes of failed tasks that somebody cancelled.
    pub cancelled: Vec<String>,
}

/// `[status.times]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// When the task was made.
    pub created: Option<TimeField>,
    /// How long it took: it completed at created + took.
    pub took: Option<TimeField>,
    /// When it completed.
    pub completed: Option<TimeField>,
    /// When its results die.
    pub expires: Option<TimeField>,
}

/// A place with a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeField {
    /// The place.
    pub pointer: Pointer,
    /// How it is written.
    pub unit: TimeUnit,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds, since 1970 where it is an instant.
    S,
    /// Milliseconds, since 1970 where it is an instant.
    Ms,
    /// `2026-11-24T14:00:00Z`
    Rfc3339,
}

/// `[results]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Where links are; what each of them finds is taken, once.
    pub pointers: Vec<Pointer>,
    /// The hosts that links may be on, `*.example.com` for all below; empty = any.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// Whether a download needs the key as well.
    #[serde(default)]
    pub download_auth: DownloadAuth,
    /// How long links live after completion.
    pub ttl: Option<Span>,
    /// Whether another look may give a fresh link for an old result.
    #[serde(default)]
    pub refresh: bool,
}

/// Whether a download needs the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DownloadAuth {
    /// No: media hosts never see it.
    #[default]
    None,
    /// The same header as the API.
    Same,
}

/// `[batch]`: `POST` of a list of IDs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Without `{id}`.
    pub path: PathTemplate,
    /// The name of the list in the request.
    pub ids: String,
    /// The tasks in the answer, each as a single look gives it.
    pub tasks: Pointer,
    /// The longest list that is accepted.
    pub max: std::num::NonZeroUsize,
}

/// `[check]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Without `{id}`.
    pub path: PathTemplate,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// All calls to this provider from this machine.
    pub requests: Option<Rate>,
    /// The shortest time between two looks at one task, by its kind.
    pub min_interval: BTreeMap<String, Span>,
}

impl Description {
    /// The built-in description of `kind`.
    #[expect(
        clippy::missing_panics_doc,
        reason = "what is compiled in was parsed by a test"
    )]
    pub fn built_in(kind: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == kind)?;
        Some(Self::parse(text).expect("a test parses every built-in description"))
    }

    /// The kinds that are built in.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads a description.
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        let error = |key: String, error: &toml::de::Error| DescriptionError {
            line: error.span().map(|span| line_of(text, span.start)),
            key,
            what: error.message().replace('\n', " "),
        };
        let deserializer = toml::Deserializer::parse(text).map_err(|e| error(String::new(), &e))?;
        let parsed: Result<Description, _> = serde_path_to_error::deserialize(deserializer);
        let description = parsed.map_err(|e| error(e.path().to_string(), e.inner()))?;
        match description.contradiction() {
            Some((key, what)) => Err(DescriptionError {
                line: None,
                key: key.to_owned(),
                what,
            }),
            None => Ok(description),
        }
    }

    /// What two keys say against each other, with the key to mend.
    fn contradiction(&self) -> Option<(&'static str, String)> {
        let status = &self.status;
        let took = status.times.took.as_ref();
        let sends_key = self.results.download_auth == DownloadAuth::Same;
        let rules = [
            (
                !status.path.has_id(),
                "status.path",
                format!("{} has no {{id}}", status.path),
            ),
            (
                !status.map.values().any(|p| *p == Progress::Completed),
                "status.map",
                "no status word means \"completed\"".to_owned(),
            ),
            (
                took.is_some_and(|took| took.unit == TimeUnit::Rfc3339),
                "status.times.took",
                "a length of time is written in \"s\" or \"ms\", not as \"rfc3339\"".to_owned(),
            ),
            (
                self.results.pointers.is_empty(),
                "results.pointers",
                "it is empty, so no result would ever be found".to_owned(),
            ),
            (
                sends_key && self.results.hosts.is_empty(),
                "results.hosts",
                "it is empty, so download_auth = \"same\" would send the key to any host"
                    .to_owned(),
            ),
            (
                sends_key && matches!(self.auth, Auth::Query { .. } | Auth::None),
                "results.download_auth",
                "\"same\" needs a key that travels in a header".to_owned(),
            ),
            (
                self.batch.as_ref().is_some_and(|batch| batch.path.has_id()),
                "batch.path",
                "{id} has no place in it".to_owned(),
            ),
            (
                self.batch.is_some() && status.id.is_none(),
                "status.id",
                "a batch cannot be told apart without it".to_owned(),
            ),
            (
                self.check.as_ref().is_some_and(|check| check.path.has_id()),
                "check.path",
                "{id} has no place in it".to_owned(),
            ),
        ];
        let broken = rules.into_iter().find(|(is_broken, ..)| *is_broken);
        broken.map(|(_, key, what)| (key, what))
    }
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        // The path of a value that is no part of a table is ".".
        if !self.key.is_empty() && self.key != "." {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for DescriptionError {}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before.filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const OWN: &str = r#"
base_url = "https://api.example.com"
auth = { scheme = "bearer" }
[status]
path = "/tasks/{id}"
state = "/state"
map = { done = "completed" }
ok = {}
[results]
pointers = ["/video"]
"#;

    #[test]
    fn every_built_in_description_parses() {
        for kind in Description::kinds() {
            assert!(Description::built_in(kind).is_some(), "{kind}");
        }
        assert!(Description::built_in("none").is_none());
    }

    #[test]
    fn evolink_is_what_its_documents_say() {
        let evolink = Description::built_in("evolink").unwrap();
        let id = "task-unified-1774857405-abc123".parse().unwrap();
        let path = evolink.status.path.fill(&id);
        assert_eq!(path, "/v1/tasks/task-unified-1774857405-abc123");
        let words: Vec<&str> = evolink.status.map.keys().map(String::as_str).collect();
        assert_eq!(
            words,
            ["cancelled", "completed", "failed", "pending", "processing"]
        );
        assert_eq!(evolink.results.ttl, Some(Span::from_secs(86_400)));
        assert_eq!(evolink.results.download_auth, DownloadAuth::None);
        assert_eq!(evolink.batch.unwrap().max.get(), 50);
    }

    #[test]
    fn a_short_description_is_enough() {
        let own = Description::parse(OWN).unwrap();
        assert!(own.status.ok.is_in(&Value::Null));
        assert!(own.batch.is_none());
    }

    /// Reads `OWN` with `from` replaced by `to`.
    #[track_caller]
    fn check(from: &str, to: &str, message: &str) {
        assert!(OWN.contains(from), "{from}");
        let error = Description::parse(&OWN.replacen(from, to, 1));
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn errors_name_line_key_and_value() {
        check(
            "[results]",
            "[results]\nttl = \"soon\"",
            "line 10: results.ttl: \"soon\" is not a length",
        );
        check(
            "[results]",
            "[results]\ntll = \"1h\"",
            "line 10: results.tll: unknown field `tll`",
        );
        check(
            "state = \"/state\"\n",
            "",
            "line 4: status: missing field `state`",
        );
        check(
            "\"/state\"",
            "\"state\"",
            "line 6: status.state: \"state\" is no pointer",
        );
        check(
            "\"completed\"",
            "\"finished\"",
            "line 7: status.map.done: \"finished\" is not a meaning",
        );
        check(
            "\"completed\"",
            "\"failed\"",
            "status.map: no status word means",
        );
        check("/tasks/{id}", "/tasks", "status.path: /tasks has no {id}");
        check(
            "/tasks/{id}",
            "tasks/{id}",
            "line 5: status.path: \"tasks/{id}\" is no path",
        );
        check("/tasks/{id}", "/{id}/{id}", "line 5: status.path:");
        check("/tasks/{id}", "//evil/{id}", "line 5: status.path:");
        check(
            "ok = {}",
            "ok = { pointer = \"/code\" }",
            "line 8: status.ok: `equals` is missing",
        );
        check(
            "ok = {}",
            "times = { took = { pointer = \"/t\", unit = \"rfc3339\" } }",
            "status.times.took: ",
        );
        check(
            "ok = {}",
            "times = { took = { pointer = \"/t\", unit = \"min\" } }",
            "line 8: status.times.took.unit: unknown variant `min`",
        );
        check(
            "\"bearer\"",
            "\"basic\"",
            "line 3: auth.scheme: unknown variant `basic`",
        );
        check("\"bearer\"", "\"query\"", "line 3: auth: `name` is missing");
        check(
            "\"bearer\"",
            "\"bearer\", name = \"a\"",
            "line 3: auth: `name` goes with",
        );
        check(
            "\"bearer\"",
            "\"header\", name = \"a b\"",
            "line 3: auth: \"a b\" is no header's name",
        );
        check("[\"/video\"]", "[]", "results.pointers: it is empty");
        check(
            "[results]",
            "[results]\ndownload_auth = \"same\"",
            "results.hosts: it is empty",
        );
        check(
            "[results]",
            "[results]\nhosts = [\"a/b\"]",
            "line 10: results.hosts[0]: \"a/b\" is no host",
        );
        check(
            "[results]",
            "[results]\nhosts = [\"*.*\"]",
            "line 10: results.hosts[0]: ",
        );
        check(
            "[results]",
            "[batch]\npath = \"/b\"\nids = \"ids\"\ntasks = \"/*\"\nmax = 0\n[results]",
            "line 13: batch.max: ",
        );
        check(
            "[results]",
            "[batch]\npath = \"/b\"\nids = \"ids\"\ntasks = \"/*\"\nmax = 9\n[results]",
            "status.id: a batch",
        );
        check("[results]", "[results", "line 9: ");
    }

    #[test]
    fn errors_under_a_good_status_are_told_apart() {
        let own = OWN.replacen("ok = {}", "ok = { pointer = \"/code\", equals = 0 }", 1);
        let own = Description::parse(&own).unwrap();
        assert!(own.status.ok.is_in(&serde_json::json!({"code": 0})));
        for bad in [r#"{"code": 1}"#, r#"{"code": "0"}"#, "{}", "null"] {
            assert!(
                !own.status.ok.is_in(&serde_json::from_str(bad).unwrap()),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "\\PC{0,80}", cut in 0..OWN.len()) {
            drop(Description::parse(&text));
            drop(Description::parse(&OWN[..cut]));
            drop(Description::parse(&format!("{}{text}", &OWN[..cut])));
        }
    }
}
