//! The fields of a description that have rules of their own, checked where they are read.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::provider::pointer::Pointer;

/// `auth`: `{ scheme = "bearer" }`, `{ scheme = "header", name, prefix }`, `{ scheme = "query", name }`,
/// `{ scheme = "jwt" }`, `{ scheme = "none" }`
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
    /// `Authorization: Bearer` and a token that is made anew from a key of the form `ACCESS:SECRET`; another key as it is.
    Jwt,
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

impl Good {
    /// Whether anything is asked of an answer.
    pub fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Where it is read.
    pub fn pointer(&self) -> Option<&Pointer> {
        self.0.as_ref().map(|(pointer, _)| pointer)
    }

    /// Whether `answer` is a good one.
    pub fn is_in(&self, answer: &Value) -> bool {
        let Some((pointer, equals)) = &self.0 else {
            return true;
        };
        pointer.first(answer).as_ref() == Some(equals)
    }
}

/// How a description writes the host of the API itself, which a configuration may move.
const API_HOST: &str = "{api}";

impl HostPattern {
    /// The pattern with the API's host `api` in place of `{api}`.
    #[must_use]
    pub fn of_api(&self, api: &str) -> Self {
        if self.0 == API_HOST {
            Self(api.to_ascii_lowercase())
        } else {
            self.clone()
        }
    }

    /// Whether `host` is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(domain) => host.len() > domain.len() && host.ends_with(domain),
            None => host == self.0,
        }
    }
}

impl fmt::Display for HostPattern {
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
    Jwt,
    None,
}

impl TryFrom<AuthForm> for Auth {
    type Error = String;

    fn try_from(form: AuthForm) -> Result<Self, String> {
        match (form.scheme, form.name, form.prefix) {
            (Scheme::Bearer, None, None) => Ok(Auth::Bearer),
            (Scheme::Jwt, None, None) => Ok(Auth::Jwt),
            (Scheme::None, None, None) => Ok(Auth::None),
            (Scheme::Header, Some(name), prefix) => Ok(Auth::Header {
                name: name
                    .parse()
                    .map_err(|_| format!("{name:?} is no header's name"))?,
                prefix: prefix.unwrap_or_default(),
            }),
            (Scheme::Query, Some(name), None) => Ok(Auth::Query { name }),
            (Scheme::Header | Scheme::Query, None, _) => Err("`name` is missing".to_owned()),
            (Scheme::Bearer | Scheme::Jwt | Scheme::None, Some(_), _) => {
                Err("`name` goes with the schemes \"header\" and \"query\"".to_owned())
            }
            (Scheme::Bearer | Scheme::Jwt | Scheme::None | Scheme::Query, _, Some(_)) => {
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
        if text == API_HOST {
            return Ok(Self(text));
        }
        let domain = text.strip_prefix("*.").unwrap_or(&text);
        match url::Host::parse(domain) {
            Ok(host) if !domain.contains(['*', '{', '}']) => {
                let star = if domain.len() < text.len() { "*." } else { "" };
                Ok(Self(format!("{star}{host}")))
            }
            Ok(_) | Err(_) => Err(format!(
                "{text:?} is no host such as \"files.example.com\" or \"*.example.com\""
            )),
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_host_of_the_api_is_known_once_its_address_is() {
        let pattern = HostPattern::try_from("{api}".to_owned()).unwrap();
        assert!(!pattern.matches("api.example.com"));
        assert!(pattern.of_api("API.example.com").matches("api.example.com"));
        assert!(HostPattern::try_from("{cdn}".to_owned()).is_err());
    }
}
