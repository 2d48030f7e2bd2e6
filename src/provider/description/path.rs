//! Paths of an API, with places for what differs from call to call.

use std::fmt;

use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

/// What stands unescaped in a path or a query; everything else of a value is percent-encoded.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b',');

/// The same for names that may have slashes, between segments that were checked.
const ESCAPED_SEGMENTS: &AsciiSet = &ESCAPED.remove(b'/');

/// A path of the API, with places such as `{id}`, each at most once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathTemplate {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(String),
}

impl PathTemplate {
    /// The path with each place filled by what `value` gives for its name; the name that has none is the error.
    pub fn fill(&self, value: impl Fn(&str) -> Option<String>) -> Result<String, &str> {
        let mut path = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Place(name) => path.push_str(&value(name).ok_or(name.as_str())?),
            }
        }
        Ok(path)
    }

    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its places.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Place(name) => Some(name.as_str()),
        })
    }

    /// Whether it has the place `name`.
    pub fn has(&self, name: &str) -> bool {
        self.places().any(|place| place == name)
    }
}

/// A part of a task ID, whose segments were checked, for a path: its slashes stay.
pub(in crate::provider) fn escape_segments(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED_SEGMENTS).to_string()
}

/// A foreign word for a path or a query; `None` where it would be a step in the path.
pub(in crate::provider) fn escape_word(text: &str) -> Option<String> {
    (!matches!(text, "" | "." | "..")).then(|| utf8_percent_encode(text, ESCAPED).to_string())
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} is no path such as \"/v1/tasks/{{id}}\"");
        let is_plain = |c: char| c.is_ascii_graphic() && !"{}#\\\"<>^`|".contains(c);
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        };
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(bad)?;
            let place = Piece::Place(name.to_owned());
            if !is_name(name) || pieces.contains(&place) {
                return Err(bad());
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(place);
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let is_good = |piece: &Piece| match piece {
            Piece::Text(text) => text.chars().all(is_plain),
            Piece::Place(_) => true,
        };
        let is_rooted = text.starts_with('/') && !text.starts_with("//");
        if !is_rooted || !pieces.iter().all(is_good) {
            return Err(bad());
        }
        Ok(Self { text, pieces })
    }
}
