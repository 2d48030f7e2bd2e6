//! One announcement as somebody wrote it: a task ID, or a JSON object; and whose tasks can be announced at all.

use std::collections::BTreeMap;

use serde::Deserialize;
use url::Url;

use crate::intake::Announcement;
use crate::model::WordError;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::provider::description::identity::Identity;
use crate::units::Span;

/// An announcement before it is known whose task it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The task.
    pub task_id: TaskId,
    /// Whose it is, where that was said.
    pub provider: Option<ProviderName>,
    /// Its labels.
    #[serde(default)]
    pub tags: Tags,
    /// Where to call once it is archived, failed or lost.
    pub callback_url: Option<Url>,
}

impl Line {
    /// A task of which nothing is known but its ID.
    pub fn bare(task_id: TaskId) -> Self {
        Self {
            task_id,
            provider: None,
            tags: Tags::new(),
            callback_url: None,
        }
    }

    /// Reads a line of text: a JSON object, a task ID in quotes as JSON has them, or a task ID alone.
    ///
    /// A task ID alone has nothing in it that only a list or a table has, and is not the name of its column: what was
    /// written in another form than this must not become a task that never was. As JSON it may be any.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('{') {
            return serde_json::from_str(text).map_err(|error| placeless(&error));
        }
        if let Ok(element @ serde_json::Value::String(_)) = serde_json::from_str(text) {
            return Self::of_element(element);
        }
        if text == COLUMN || text.contains(OTHER_FORMS) {
            return Err(WordError::new(text, ALONE).to_string());
        }
        let task_id = text.parse::<TaskId>().map_err(|error| error.to_string())?;
        Ok(Self::bare(task_id))
    }

    /// Reads an element of a JSON document: an object, or a task ID as a text.
    pub fn of_element(element: serde_json::Value) -> Result<Self, String> {
        if let serde_json::Value::String(text) = &element {
            let task_id = text.parse::<TaskId>().map_err(|error| error.to_string())?;
            return Ok(Self::bare(task_id));
        }
        serde_json::from_value(element).map_err(|error| placeless(&error))
    }
}

/// What tables and lists have and task IDs have not.
const OTHER_FORMS: &[char] = &['"', '[', ']', '{', '}', ',', ';'];

/// The header of a table of one column.
const COLUMN: &str = "task_id";

/// What neither of them is, and how a task can be announced.
const ALONE: &str = "a task ID alone: write one on each line, or {\"task_id\": \"...\"}; `reelvault import` reads CSV";

/// An error without the place in its text: it is always the first line of one, which whoever reads many must not be
/// told.
fn placeless(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    what.strip_suffix(&place).unwrap_or(&what).to_owned()
}

/// The providers whose tasks can be announced.
#[derive(Clone, Debug, Default)]
pub struct Accounts(BTreeMap<ProviderName, Account>);

/// What an announcement needs to know of a provider.
#[derive(Clone, Debug)]
pub struct Account {
    /// How long its links live, as far as configuration and description say.
    pub ttl: Span,
    /// What its task IDs look like, where that can be read.
    pub id: Option<Identity>,
}

impl Accounts {
    /// These providers.
    pub fn new(providers: impl IntoIterator<Item = (ProviderName, Account)>) -> Self {
        Self(providers.into_iter().collect())
    }

    /// Whether tasks of `provider` can be announced; the error says whose can.
    pub fn check(&self, provider: &ProviderName) -> Result<&Account, String> {
        let account = self.0.get(provider);
        account.ok_or_else(|| format!("no provider {:?}: {}", provider.as_str(), self.known()))
    }

    /// The announcement that a line is. Where it names no provider it is `provider`'s, or the only one's.
    pub fn announce(
        &self,
        line: Line,
        provider: Option<&ProviderName>,
        via: LearnedVia,
    ) -> Result<Announcement, String> {
        let named = line.provider.or_else(|| provider.cloned());
        let provider = match named {
            Some(name) => name,
            None => self.only()?,
        };
        let account = self.check(&provider)?;
        if let Some(identity) = &account.id {
            identity.split(&line.task_id)?;
        }
        if let Some(url) = &line.callback_url
            && !(matches!(url.scheme(), "http" | "https") && url.has_host())
        {
            return Err("callback_url is neither an http nor an https address".to_owned());
        }
        Ok(Announcement {
            key: TaskKey {
                provider,
                id: line.task_id,
            },
            tags: line.tags,
            via,
            ttl: account.ttl,
            callback: line.callback_url,
        })
    }

    /// The one whose task it must be, where nobody says.
    fn only(&self) -> Result<ProviderName, String> {
        let mut names = self.0.keys();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(_), Some(_)) | (None, _) => Err(format!(
                "whose task is it? name its provider: {}",
                self.known()
            )),
        }
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.0.keys().map(ProviderName::as_str).collect();
        if names.is_empty() {
            "none is configured".to_owned()
        } else {
            format!("there is {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(names: &[&str]) -> Accounts {
        let account = |form: &str| Account {
            ttl: Span::from_secs(60),
            id: Some(toml::from_str(form).unwrap()),
        };
        Accounts::new(names.iter().map(|name| match name.split_once(' ') {
            Some((name, form)) => (name.parse().unwrap(), account(form)),
            None => (name.parse().unwrap(), account("")),
        }))
    }

    fn told(accounts: &Accounts, text: &str) -> Result<String, String> {
        let announced = accounts.announce(Line::parse(text)?, None, LearnedVia::Cli)?;
        let callback = announced.callback.map(|url| format!(" {url}"));
        let key = announced.key;
        Ok(format!(
            "{} {}{}",
            key.provider,
            key.id,
            callback.unwrap_or_default()
        ))
    }

    #[test]
    fn each_line_is_an_announcement_or_says_why_not() {
        let (one, two) = (accounts(&["house"]), accounts(&["house", "evolink"]));
        let check = |accounts: &Accounts, text: &str, expected: &str| {
            let told = told(accounts, text).unwrap_or_else(|why| format!("error: {why}"));
            assert_eq!(told, expected, "{text}");
        };
        check(&one, "t1", "house t1");
        check(&one, r#"{"task_id":"t1"}"#, "house t1");
        let called = r#"{"task_id":"t1","callback_url":"https://a.test/x"}"#;
        check(&one, called, "house t1 https://a.test/x");
        check(
            &two,
            r#"{"task_id":"t1","provider":"evolink"}"#,
            "evolink t1",
        );
        check(
            &two,
            "t1",
            "error: whose task is it? name its provider: there is evolink, house",
        );
        check(
            &accounts(&[]),
            "t1",
            "error: whose task is it? name its provider: none is configured",
        );
        let other = r#"{"task_id":"t1","provider":"other"}"#;
        check(&one, other, r#"error: no provider "other": there is house"#);
        let bad = "error: callback_url is neither an http nor an https address";
        check(&one, r#"{"task_id":"t1","callback_url":"file:///x"}"#, bad);
        check(&one, "{", "error: EOF while parsing an object");
        let id =
            "a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)";
        check(&one, "a b", &format!("error: \"a b\" is not {id}"));
        let other = "error: a/b is no task ID of this provider: its IDs have no slash";
        check(&one, "a/b", other);
        check(&one, r#"{"task_id":"a/b"}"#, other);
        let apps = accounts(&["fal params = ['app']"]);
        check(&apps, "a/b", "fal a/b");
        let bare = "error: b is no task ID of this provider, which are such as APP/ID";
        check(&apps, "b", bare);
        check(&one, r#""t1""#, "house t1");
        check(&one, r#""a,b""#, "house a,b");
        check(&one, r#"{"task_id":"a;b"}"#, "house a;b");
        for other in [
            r#"["a","b"]"#,
            "a,b",
            "a;b",
            r#"a""#,
            r#""a"#,
            r#""a","b""#,
            "a}",
            "task_id",
        ] {
            let why = format!("error: {other:?} is not {ALONE}");
            check(&one, other, &why);
        }
        let unknown = "error: unknown field `x`, expected one of `task_id`, `provider`, `tags`, `callback_url`";
        check(&one, r#"{"task_id":"t1","x":1}"#, unknown);
    }

    #[test]
    fn an_element_of_a_document_is_read_as_a_line_is() {
        let read = |text: &str| Line::of_element(serde_json::from_str(text).unwrap());
        assert_eq!(read(r#""t1""#), Line::parse("t1"));
        assert_eq!(read(r#"{"task_id":"t1"}"#), Line::parse("t1"));
        for bad in ["1", "null", "[]", r#""a b""#, r#"{"task_id":1}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
