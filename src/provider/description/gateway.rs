//! `[gateway]` of a description: what the gateway has to know of the API that it serves again.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::model::task::TaskId;
use crate::provider::description::path::PathTemplate;
use crate::provider::pointer::Pointer;

/// `[gateway]`: which calls make tasks, and how such a call names its callback.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The paths that tasks are submitted to, by `POST`; those with a `!` are none of them.
    pub submit: Vec<PathPattern>,
    /// Further paths that a task is asked for at, with answers like those of `status.path`.
    #[serde(default)]
    pub look: Vec<PathTemplate>,
    /// Where the answer has the ID of the new task; absent = where `status.id` is.
    pub id: Option<Pointer>,
    /// Where a submission names the address to call at the end; absent = the API has no callbacks.
    pub callback: Option<CallbackField>,
}

/// A path with `*` for any one segment, and `**` at its end for one or more. A `!` before it takes it out of the others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPattern {
    segments: Vec<Segment>,
    is_exception: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    Any,
    Rest,
}

/// `{ field = "callback_url" }`: a member of the outermost object. `{ query = "webhook" }`: a parameter of the address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CallbackForm")]
pub enum CallbackField {
    /// A member of the outermost object.
    Field(String),
    /// A parameter of the query.
    Query(String),
}

impl Gateway {
    /// Whether tasks are submitted to `path`, as it was sent.
    pub fn is_submitted_to(&self, path: &str) -> bool {
        let has = |is_exception| {
            let mut patterns = self.submit.iter();
            patterns.any(|it| it.is_exception == is_exception && it.matches(path))
        };
        has(false) && !has(true)
    }

    /// Whether there is a path that tasks are submitted to.
    pub fn has_submissions(&self) -> bool {
        self.submit.iter().any(|it| !it.is_exception)
    }
}

impl PathPattern {
    /// Whether `path` is one of those that it is about.
    fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        for own in &self.segments {
            let is_meant = match (own, segments.next()) {
                (Segment::Name(name), Some(segment)) => name == segment,
                (Segment::Any, Some(segment)) => !segment.is_empty(),
                (Segment::Rest, Some(segment)) => return !segment.is_empty(),
                (Segment::Name(_) | Segment::Any | Segment::Rest, None) => false,
            };
            if !is_meant {
                return false;
            }
        }
        segments.next().is_none()
    }
}

/// The task that a call of `template` with this path and query asks for; `None` where it is another call.
pub fn task_in(template: &PathTemplate, path: &str, query: Option<&str>) -> Option<TaskId> {
    let (own_path, own_query) = match template.as_str().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (template.as_str(), None),
    };
    let mut id = None;
    if !fits(own_path, path, '/', &mut id) {
        return None;
    }
    for own in own_query.into_iter().flat_map(|query| query.split('&')) {
        let mut given = query.into_iter().flat_map(|query| query.split('&'));
        if !given.any(|pair| fits(own, pair, '=', &mut id)) {
            return None;
        }
    }
    id
}

/// Whether `given` is `own` piece by piece; what stands at `{id}` goes into `id`, other places in braces take anything.
fn fits(own: &str, given: &str, between: char, id: &mut Option<TaskId>) -> bool {
    let (mut own, mut given) = (own.split(between), given.split(between));
    loop {
        match (own.next(), given.next()) {
            (None, None) => return true,
            (Some(own), Some(given)) => {
                if !fits_piece(own, given, id) {
                    return false;
                }
            }
            (None, Some(_)) | (Some(_), None) => return false,
        }
    }
}

fn fits_piece(own: &str, given: &str, id: &mut Option<TaskId>) -> bool {
    let Some((before, rest)) = own.split_once('{') else {
        return own == given;
    };
    let Some((name, after)) = rest.split_once('}') else {
        return own == given;
    };
    let inner = given.strip_prefix(before);
    let Some(inner) = inner.and_then(|inner| inner.strip_suffix(after)) else {
        return false;
    };
    if name != "id" {
        return !inner.is_empty();
    }
    let decoded = percent_decode_str(inner).decode_utf8().ok();
    // One segment is one word: with a slash in it, however it is written, it is another call.
    let decoded = decoded.filter(|decoded| !decoded.contains('/'));
    *id = decoded.and_then(|decoded| decoded.parse().ok());
    id.is_some()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackForm {
    field: Option<String>,
    query: Option<String>,
}

impl TryFrom<CallbackForm> for CallbackField {
    type Error = String;

    fn try_from(form: CallbackForm) -> Result<Self, String> {
        match (form.field, form.query) {
            (Some(field), None) => Ok(CallbackField::Field(field)),
            (None, Some(query)) => Ok(CallbackField::Query(query)),
            (None, None) | (Some(_), Some(_)) => Err("it is one of `field` and `query`".to_owned()),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} is no path such as \"/v1/*/generations\"");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:@,+".contains(c);
        let (path, is_exception) = match text.strip_prefix('!') {
            Some(path) => (path, true),
            None => (text.as_str(), false),
        };
        let segments = path.strip_prefix('/').ok_or_else(bad)?.split('/');
        let parsed: Option<Vec<Segment>> = segments
            .map(|segment| match segment {
                "*" => Some(Segment::Any),
                "**" => Some(Segment::Rest),
                "" | "." | ".." => None,
                name if name.chars().all(is_plain) => Some(Segment::Name(name.to_owned())),
                _ => None,
            })
            .collect();
        let segments = parsed.ok_or_else(bad)?;
        let before_last = segments.split_last().map_or(&[][..], |(_, before)| before);
        if before_last.contains(&Segment::Rest) {
            return Err(format!("{text:?}: ** can only be its last segment"));
        }
        Ok(Self {
            segments,
            is_exception,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::description::path::escape_segments;

    #[track_caller]
    fn check(pattern: &str, path: &str, is_meant: bool) {
        let pattern = PathPattern::try_from(pattern.to_owned()).unwrap();
        assert_eq!(pattern.matches(path), is_meant, "{path}");
    }

    #[test]
    fn patterns_match_whole_segments() {
        check("/v1/*/generations", "/v1/videos/generations", true);
        check("/v1/*/generations", "/v1/videos/generations/", false);
        check("/v1/*/generations", "/v1//generations", false);
        check("/v1/*/generations", "/v1/videos/x/generations", false);
        check("/v1/*/generations", "/v1/videos", false);
        check("/v1/*/generations", "/V1/videos/generations", false);
        check("/**", "/fal-ai/kling/v2", true);
        check("/**", "/", false);
        check("/models/*/**", "/models/a", false);
        check("/models/*/**", "/models/a/b/predictions", true);
        for bad in [
            "", "v1", "/", "/a//b", "/a/../b", "/**/a", "/a?b", "/a%2fb", "/{id}", "!", "!v1",
            "!!/a",
        ] {
            assert!(PathPattern::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_taken_out_is_no_submission_wherever_it_stands() {
        let gateway: Gateway =
            toml::from_str("submit = ['!/v1/media/**', '/v1/*/**', '/v2']").unwrap();
        for (path, is_submission) in [
            ("/v1/a/model", true),
            ("/v2", true),
            ("/v1/media/upload", false),
            ("/v1/media/upload/binary", false),
            ("/v1/media", false),
            ("/v1/mediaeval/a", true),
        ] {
            assert_eq!(gateway.is_submitted_to(path), is_submission, "{path}");
        }
        assert!(gateway.has_submissions());
        let none: Gateway = toml::from_str("submit = ['!/v1']").unwrap();
        assert!(!none.has_submissions() && !none.is_submitted_to("/v1"));
    }

    #[track_caller]
    fn check_task(template: &str, path: &str, query: Option<&str>, id: Option<&str>) {
        let template = PathTemplate::try_from(template.to_owned()).unwrap();
        let found = task_in(&template, path, query);
        assert_eq!(found.as_ref().map(TaskId::as_str), id, "{path} {query:?}");
    }

    #[test]
    fn a_call_about_a_task_is_told_by_its_address() {
        check_task("/v1/tasks/{id}", "/v1/tasks/task-1", None, Some("task-1"));
        check_task(
            "/v1/tasks/{id}",
            "/v1/tasks/a%3Ab",
            Some("x=1"),
            Some("a:b"),
        );
        for other in [
            "/v1/tasks",
            "/v1/tasks/",
            "/v1/tasks/a/b",
            "/v2/tasks/a",
            "/v1/tasks/a%2Fb",
            "/v1/tasks/%2e%2e",
            "/v1/tasks/%ff",
        ] {
            check_task("/v1/tasks/{id}", other, None, None);
        }
        check_task("/t/{id}.json", "/t/a.json", None, Some("a"));
        check_task("/t/{id}.json", "/t/a", None, None);
        check_task(
            "/query?task_id={id}",
            "/query",
            Some("x=1&task_id=a%2Bb"),
            Some("a+b"),
        );
        check_task("/query?task_id={id}", "/query", Some("task_ids=a"), None);
        check_task("/query?task_id={id}", "/query", None, None);
        check_task(
            "/query?v=1&task_id={id}",
            "/query",
            Some("task_id=a&v=1"),
            Some("a"),
        );
        check_task(
            "/query?v=1&task_id={id}",
            "/query",
            Some("task_id=a&v=2"),
            None,
        );
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_found_again(id in "[!-~]{1,40}") {
            if let Ok(id) = id.parse::<TaskId>()
                && !id.as_str().contains('/')
            {
                for template in ["/v1/tasks/{id}", "/query?task_id={id}"] {
                    let template = PathTemplate::try_from(template.to_owned()).unwrap();
                    let address = template.fill(|_| Some(escape_segments(id.as_str()))).unwrap();
                    let (path, query) = match address.split_once('?') {
                        Some((path, query)) => (path, Some(query)),
                        None => (address.as_str(), None),
                    };
                    prop_assert_eq!(task_in(&template, path, query), Some(id.clone()));
                }
            }
        }

        #[test]
        fn no_address_panics(path in "\\PC{0,40}", query in "\\PC{0,40}") {
            let template = PathTemplate::try_from("/v1/tasks/{id}?a={id}".replacen("{id}", "x", 1)).unwrap();
            drop(task_in(&template, &path, Some(&query)));
        }
    }
}
