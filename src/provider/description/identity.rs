//! What a provider's task IDs look like, and how those that have further keys in them are taken apart.
//!
//! A task that can only be asked for with a second key has that key in its ID, before a slash: `fal-ai/veo3/0f2c...` is
//! request `0f2c...` of the app `fal-ai/veo3`. So one word names a task everywhere: in commands, rows, keys and pages.

use globset::GlobBuilder;
use globset::GlobMatcher;
use serde::Deserialize;

use crate::model::task::TaskId;
use crate::provider::description::path::escape_segments;

/// `id`: `{ pattern = "*/*/*", params = ["app"] }`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// What every task ID matches: `*` stands for anything but a slash. Absent = anything but a slash.
    pub pattern: Option<IdPattern>,
    /// What people are told besides who give an ID of another form.
    pub note: Option<String>,
    /// What stands before the last slash: one segment each, and the rest for the last of them.
    pub params: Vec<String>,
}

/// A pattern of task IDs.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct IdPattern {
    text: String,
    matcher: GlobMatcher,
}

/// A task ID taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<'d, 't> {
    /// What the provider's answers call the task.
    pub id: &'t str,
    params: Vec<(&'d str, &'t str)>,
}

impl Identity {
    /// Takes `id` apart; the error says what is wrong with it.
    pub fn split<'d, 't>(&'d self, id: &'t TaskId) -> Result<Names<'d, 't>, String> {
        let text = id.as_str();
        let fits = match &self.pattern {
            Some(pattern) => pattern.matcher.is_match(text),
            None => self.params.is_empty() != text.contains('/'),
        };
        let (params, id) = self.cut(text).filter(|_| fits).ok_or_else(|| {
            if self.pattern.is_none() && self.params.is_empty() {
                return format!("{text} is no task ID of this provider: its IDs have no slash");
            }
            let note = self.note.as_ref().map(|note| format!(": {note}"));
            format!(
                "{text} is no task ID of this provider, which are such as {}{}",
                self.form(),
                note.unwrap_or_default()
            )
        })?;
        Ok(Names { id, params })
    }

    /// Whether a task ID is one word, so that what the API itself calls a task is enough to name it.
    pub fn is_one_word(&self) -> bool {
        let is_one =
            |pattern: &IdPattern| !pattern.text.contains('/') && !pattern.text.contains("**");
        self.params.is_empty() && self.pattern.as_ref().is_none_or(is_one)
    }

    /// The task ID of a row that the provider calls `id`, where nothing else is needed to name it.
    pub fn join(&self, id: &str) -> Option<TaskId> {
        let id: TaskId = id.parse().ok().filter(|_| self.params.is_empty())?;
        self.split(&id).is_ok().then_some(id)
    }

    /// A task ID of the right form in which every word is `word`; `None` where the pattern wants more than words.
    pub fn example(&self, word: &str) -> Option<TaskId> {
        let text = match &self.pattern {
            Some(pattern) => {
                // Of several forms the first.
                let several = pattern.text.strip_prefix('{');
                let first = several.and_then(|forms| forms.split([',', '}']).next());
                let form = first.unwrap_or(&pattern.text);
                form.replace("**", "*").replace('*', word)
            }
            None => format!("{word}/").repeat(self.params.len()) + word,
        };
        let id: TaskId = text.parse().ok()?;
        self.split(&id).is_ok().then_some(id)
    }

    /// What a task ID looks like, for people.
    pub fn form(&self) -> String {
        match &self.pattern {
            Some(pattern) if self.params.is_empty() => pattern.text.clone(),
            Some(_) | None => {
                let params = self
                    .params
                    .iter()
                    .map(|name| format!("{}/", name.to_uppercase()));
                params.collect::<String>() + "ID"
            }
        }
    }

    fn cut<'d, 't>(&'d self, text: &'t str) -> Option<(Vec<(&'d str, &'t str)>, &'t str)> {
        let Some((last, firsts)) = self.params.split_last() else {
            return Some((Vec::new(), text));
        };
        let (before, id) = text.rsplit_once('/')?;
        let mut rest = before;
        let mut params = Vec::with_capacity(self.params.len());
        for name in firsts {
            let (segment, after) = rest.split_once('/')?;
            params.push((name.as_str(), segment));
            rest = after;
        }
        params.push((last.as_str(), rest));
        Some((params, id))
    }
}

impl Names<'_, '_> {
    /// What a path has at the place `name`, escaped.
    pub fn at(&self, name: &str) -> Option<String> {
        if name == "id" {
            return Some(escape_segments(self.id));
        }
        let found = self.params.iter().find(|(param, _)| *param == name);
        found.map(|(_, value)| escape_segments(value))
    }
}

impl TryFrom<String> for IdPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let glob = GlobBuilder::new(&text).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("{text:?} is no pattern: {}", error.kind()))?;
        let matcher = glob.compile_matcher();
        Ok(Self { text, matcher })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;
    use crate::provider::description::path::PathTemplate;

    fn identity(text: &str) -> Identity {
        toml::from_str(text).unwrap()
    }

    #[track_caller]
    fn check(form: &str, id: &str, template: &str, expected: Option<&str>) {
        let identity = identity(form);
        let template = PathTemplate::try_from(template.to_owned()).unwrap();
        let id: TaskId = id.parse().unwrap();
        let path = identity.split(&id).ok();
        let path = path.map(|names| template.fill(|name| names.at(name)).unwrap());
        assert_eq!(path.as_deref(), expected, "{id}");
    }

    #[test]
    fn ids_are_taken_apart_as_described() {
        let plain = "/v1/tasks/{id}";
        check("", "a:b@c", plain, Some("/v1/tasks/a:b@c"));
        check("", "a/b", plain, None);
        check(
            "pattern = 'task-*'",
            "task-1",
            plain,
            Some("/v1/tasks/task-1"),
        );
        check("pattern = 'task-*'", "job-1", plain, None);
        check("pattern = 'task-*'", "task-1/cancel", plain, None);
        let operation = "pattern = 'models/*/operations/*'";
        check(
            operation,
            "models/veo/operations/x",
            "/v1/{id}",
            Some("/v1/models/veo/operations/x"),
        );
        check(operation, "models/veo/x", "/v1/{id}", None);
        let fal = "pattern = '*/*/*'\nparams = ['app']";
        let path = "/{app}/requests/{id}/status";
        check(
            fal,
            "fal-ai/veo3/r1",
            path,
            Some("/fal-ai/veo3/requests/r1/status"),
        );
        check(fal, "fal-ai/veo3/fast/r1", path, None);
        check(fal, "r1", path, None);
        check(
            "params = ['app']",
            "a/b/c/r1",
            path,
            Some("/a/b/c/requests/r1/status"),
        );
        check("params = ['app']", "r1", path, None);
        let two = "params = ['region', 'app']";
        check(two, "eu/x/y/1", "/{region}/{app}/{id}", Some("/eu/x/y/1"));
        check(two, "eu/1", "/{region}/{app}/{id}", None);
    }

    #[test]
    fn an_example_has_the_right_form() {
        let example = |form: &str| identity(form).example("x").map(|id| id.to_string());
        assert_eq!(example("").as_deref(), Some("x"));
        assert_eq!(
            example("pattern = '*/*/*'\nparams = ['app']").as_deref(),
            Some("x/x/x")
        );
        assert_eq!(example("pattern = 'task-*'").as_deref(), Some("task-x"));
        assert_eq!(
            example("pattern = '{*/*,a/*/*}'\nparams = ['app']").as_deref(),
            Some("x/x")
        );
        assert_eq!(example("params = ['a', 'b']").as_deref(), Some("x/x/x"));
        assert_eq!(example("pattern = '[0-9]*'"), None);
    }

    #[test]
    fn people_are_told_the_form() {
        let error = |form: &str, id: &str| identity(form).split(&id.parse().unwrap()).unwrap_err();
        assert_eq!(
            error("pattern = '*/*/*'\nparams = ['app']", "r1"),
            "r1 is no task ID of this provider, which are such as APP/ID"
        );
        assert_eq!(
            error("pattern = 'task-*'", "r1"),
            "r1 is no task ID of this provider, which are such as task-*"
        );
    }

    proptest! {
        #[test]
        fn an_id_never_leaves_its_place(id in "[!-~]{1,40}") {
            if let Ok(id) = id.parse::<TaskId>() {
                let template = PathTemplate::try_from("/v1/tasks/{id}/x".to_owned()).unwrap();
                for (form, depth) in [("", 1), ("pattern = '**'", id.as_str().split('/').count())] {
                    let identity = identity(form);
                    let Ok(names) = identity.split(&id) else { continue };
                    let path = template.fill(|name| names.at(name)).unwrap();
                    let url = Url::parse(&format!("https://api.example.com{path}")).unwrap();
                    let segments: Vec<_> = url.path_segments().unwrap().collect();
                    prop_assert_eq!(segments.len(), 3 + depth);
                    let told = segments[2..2 + depth].join("/");
                    let decoded = percent_encoding::percent_decode_str(&told);
                    prop_assert_eq!(decoded.decode_utf8_lossy(), id.as_str());
                    prop_assert!(url.query().is_none());
                }
            }
        }
    }
}
