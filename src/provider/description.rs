//! The description of a task API, in TOML: the built-in ones are compiled in, a user's own is read by the same code.

pub mod field;
pub mod gateway;
pub mod identity;
pub mod many;
pub mod path;
pub mod results;
pub mod status;
pub mod webhook;

mod rules;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use url::Url;

use crate::provider::builtin;
use crate::provider::description::field::Auth;
use crate::provider::description::gateway::Gateway;
use crate::provider::description::identity::Identity;
use crate::provider::description::many::Batch;
use crate::provider::description::many::List;
use crate::provider::description::path::PathTemplate;
use crate::provider::description::results::Results;
use crate::provider::description::status::Status;
use crate::provider::description::webhook::Webhook;
use crate::units::Rate;
use crate::units::Span;

/// The built-in description of EvoLink, as a user's own would be written.
pub const EVOLINK: &str = builtin::EVOLINK;

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
    /// Further headers of every call, such as the version of the API that is spoken.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What task IDs look like; absent = any without a slash.
    #[serde(default)]
    pub id: Identity,
    /// How one task is read.
    pub status: Status,
    /// Where the results are.
    pub results: Results,
    /// How many tasks are read at once; absent = one by one.
    pub batch: Option<Batch>,
    /// How the account's tasks are listed; absent = not at all.
    pub list: Option<List>,
    /// A free call that only a valid key can make; absent = a look at a made-up task.
    pub check: Option<Check>,
    /// What the gateway has to know; absent = the API cannot be served again.
    pub gateway: Option<Gateway>,
    /// How its callbacks are read; absent = none are taken.
    pub webhook: Option<Webhook>,
    /// How fast.
    #[serde(default)]
    pub limits: Limits,
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
        let it = builtin::KINDS.iter().find(|it| it.name == kind)?;
        let mut description =
            Self::parse(it.text).expect("a test parses every built-in description");
        if let Some(base_url) = it.base_url {
            description.base_url = base_url
                .parse()
                .expect("a test parses every built-in address");
        }
        Some(description)
    }

    /// The kinds that are built in.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        builtin::KINDS.iter().map(|it| it.name)
    }

    /// Whether calls carry a key.
    pub fn wants_key(&self) -> bool {
        self.auth != Auth::None
    }

    /// The description with the API's own host wherever its hosts say `{api}`.
    #[must_use]
    pub fn at_home(mut self) -> Self {
        let host = self.base_url.host_str().unwrap_or_default();
        for pattern in &mut self.results.hosts {
            *pattern = pattern.of_api(host);
        }
        self
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
        match rules::broken(&description) {
            Some((key, what)) => Err(DescriptionError {
                line: None,
                key: key.to_owned(),
                what,
            }),
            None => Ok(description),
        }
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
    use crate::provider::description::results::DownloadAuth;

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
    fn evolink_is_what_its_documents_say() {
        let evolink = Description::built_in("evolink").unwrap();
        assert_eq!(evolink.status.path.as_str(), "/v1/tasks/{id}");
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
        let list = |more: &str| {
            format!(
                "[list]\npath = \"/l\"\ntasks = \"/*\"\nsize = {{ name = \"n\", max = 9 }}\n{more}\n[results]"
            )
        };
        check(
            "[results]",
            &list("page = { by = \"number\", name = \"p\" }"),
            "list.id: the ID of a task",
        );
        check(
            "[results]",
            &list("id = \"/id\"\npage = { by = \"number\" }"),
            "list.page.name: it is missing",
        );
        check(
            "[results]",
            &list("id = \"/id\"\npage = { by = \"address\" }"),
            "list.page.next: it is missing",
        );
        check(
            "[results]",
            "[results]\npath = \"/v/{id}\"",
            "results.path: a path of the API needs the key",
        );
        check(
            "[results]",
            "[results]\ncall = { path = \"/f/{file}\" }",
            "results.call.path: {file} has no place in it",
        );
        check(
            "[status]",
            "id = { params = [\"app\"] }\n[status]",
            "id.params: \"app\" has no place in status.path",
        );
        check(
            "/tasks/{id}",
            "/{app}/{id}",
            "status.path: {app} has no place in it",
        );
        check(
            "\"/state\"",
            "\"/state\"\ngone = [\"done\"]",
            "status.gone: a word of it is in status.map",
        );
        check(
            "ok = {}",
            "error = { code = [\"/a\", \"b\"] }",
            "line 8: status.error.code",
        );
        let gateway = |look: &str| {
            format!(
                "[gateway]\nsubmit = [\"/tasks\"]\nid = \"/id\"\nlook = [\"{look}\"]\n[results]"
            )
        };
        check(
            "[results]",
            &gateway("/tasks/result"),
            "gateway.look: a path of it has no {id}",
        );
        check(
            "[results]",
            &gateway("/{app}/{id}"),
            "gateway.look: {app} has no place in it",
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
