//! The fields of a description that have rules of their own, checked where they are read.

use std::fmt;

use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::Value;

use crate::model::task::TaskId;
use crate::provider::pointer::Pointer;

/// What stands unescaped in a path or a query; everything else of a task ID is percent-encoded.
const ID_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b',');

/// `auth`: `{ scheme = "bearer" }`, `{ scheme = "header", name, prefix }`, `{ scheme = "query", name }`, `{ scheme = "none" }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AuthForm")]
pub enum Auth {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// `NAME: PREFIX KEY`, or `NAME: KEY` without a prefix.
    Header {
        /// The header.
        name: http::HeaderName,
        /// What stands before the key.
        prefix: String,
    },
    /// `?NAME=KEY`
    Query {
        /// The parameter.
        name: String,
    },
    /// No key.
    None,
}

/// `status.ok`: `{ pointer = "/code", equals = 0 }`, or empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "GoodForm")]
pub struct Good(Option<(Pointer, Value)>);

/// A host, or `*.` and a domain for every host below it. Lower-case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPattern(String);

/// A path of the API, with or without a place for a task ID.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathTemplate(String);

impl Good {
    /// Whether `answer` is a good one.
    pub fn is_in(&self, answer: &Value) -> bool {
        let Some((pointer, equals)) = &self.0 else {
            return true;
        };
        pointer.first(answer).as_ref() == Some(equals)
    }
}

impl HostPattern {
    /// Whether `host` is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(domain) => host.len() > domain.len() && host.ends_with(domain),
            None => host == self.0,
        }
    }
}

impl PathTemplate {
    /// The path for `id`, which is escaped.
    pub fn fill(&self, id: &TaskId) -> String {
        let escaped = utf8_percent_encode(id.as_str(), ID_ESCAPED).to_string();
        self.0.replace("{id}", &escaped)
    }

    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn has_id(&self) -> bool {
        self.0.contains("{id}")
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// `auth` as written; an enum that carries its tag inside would lose the key from its errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthForm {
    scheme: Scheme,
    name: Option<String>,
    prefix: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Bearer,
    Header,
    Query,
    None,
}

impl TryFrom<AuthForm> for Auth {
    type Error = String;

    fn try_from(form: AuthForm) -> Result<Self, String> {
        match (form.scheme, form.name, form.prefix) {
            (Scheme::Bearer, None, None) => Ok(Auth::Bearer),
            (Scheme::None, None, None) => Ok(Auth::None),
            (Scheme::Header, Some(name), prefix) => Ok(Auth::Header {
                name: name
                    .parse()
                    .map_err(|_| format!("{name:?} is no header's name"))?,
                prefix: prefix.unwrap_or_default(),
            }),
            (Scheme::Query, Some(name), None) => Ok(Auth::Query { name }),
            (Scheme::Header | Scheme::Query, None, _) => Err("`name` is missing".to_owned()),
            (Scheme::Bearer | Scheme::None, Some(_), _) => {
                Err("`name` goes with the schemes \"header\" and \"query\"".to_owned())
            }
            (Scheme::Bearer | Scheme::None | Scheme::Query, _, Some(_)) => {
                Err("`prefix` goes with the scheme \"header\"".to_owned())
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoodForm {
    pointer: Option<Pointer>,
    equals: Option<Value>,
}

impl TryFrom<GoodForm> for Good {
    type Error = String;

    fn try_from(form: GoodForm) -> Result<Self, String> {
        match (form.pointer, form.equals) {
            (None, None) => Ok(Good(None)),
            (Some(pointer), Some(equals)) => Ok(Good(Some((pointer, equals)))),
            (Some(_), None) => Err("`equals` is missing".to_owned()),
            (None, Some(_)) => Err("`pointer` is missing".to_owned()),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let domain = text.strip_prefix("*.").unwrap_or(&text);
        match url::Host::parse(domain) {
            Ok(host) if !domain.contains('*') => {
                let star = if domain.len() < text.len() { "*." } else { "" };
                Ok(Self(format!("{star}{host}")))
            }
            Ok(_) | Err(_) => Err(format!(
                "{text:?} is no host such as \"files.example.com\" or \"*.example.com\""
            )),
        }
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = text.replacen("{id}", "", 1);
        let is_plain = |c: char| c.is_ascii_graphic() && !"{}#\\\"<>^`|".contains(c);
        if rest.starts_with('/') && !rest.starts_with("//") && rest.chars().all(is_plain) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no path such as \"/v1/tasks/{{id}}\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn hosts_match_whole_names() {
        let matches = |pattern: &str, host: &str| {
            let pattern = HostPattern::try_from(pattern.to_owned()).unwrap();
            pattern.matches(host)
        };
        assert!(matches("files.example.com", "FILES.example.com"));
        assert!(matches("*.Example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "evilexample.com"));
        assert!(!matches("example.com", "a.example.com"));
        assert!(!matches("example.com", "example.com.evil.net"));
        assert!(matches("127.0.0.1", "127.0.0.1"));
    }

    proptest! {
        #[test]
        fn an_id_never_leaves_its_place(id in "[!-~]{1,40}") {
            if let Ok(id) = id.parse::<TaskId>() {
                let template = PathTemplate("/v1/tasks/{id}".to_owned());
                let url = format!("https://api.example.com{}", template.fill(&id));
                let url = Url::parse(&url).unwrap();
                let segments: Vec<_> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 3);
                let decoded = percent_encoding::percent_decode_str(segments[2]);
                prop_assert_eq!(decoded.decode_utf8_lossy(), id.as_str());
                prop_assert!(url.query().is_none());
            }
        }
    }
}
