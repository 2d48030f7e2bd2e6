//! Where in the file a value stands: line, column, and the line itself with a caret below. Secrets are blotted out.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::node::Route;
use crate::config::node::Step;

/// Keys after which no value is ever shown.
const SECRET_KEYS: [&str; 6] = [
    "api_key",
    "access_key",
    "secret_key",
    "token",
    "password",
    "secret",
];

/// A file's text, to find things in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line and column, from 1.
    pub(crate) position: (usize, usize),
    /// `file:line:column`
    pub(crate) address: String,
    /// The line, and the caret below; empty where the line may hold a secret that cannot be told apart.
    pub(crate) excerpt: String,
}

/// What of an entry is pointed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

impl Source<'_> {
    /// Where `route` stands, or the nearest table above it that stands in the file at all.
    pub(crate) fn find(&self, route: &Route, part: Part) -> Option<Place> {
        let (root, _) = DeTable::parse_recoverable(self.text);
        let mut steps = route.0.as_slice();
        while !steps.is_empty() {
            if let Some((key, value)) = walk(root.get_ref(), steps) {
                let is_whole = steps.len() == route.0.len();
                return Some(self.place(if is_whole && part == Part::Value {
                    value
                } else {
                    key
                }));
            }
            steps = steps.split_last().map_or(&[], |(_, above)| above);
        }
        None
    }

    /// Whether the file itself has a value at `route`.
    pub(crate) fn has(&self, route: &Route) -> bool {
        let (root, _) = DeTable::parse_recoverable(self.text);
        walk(root.get_ref(), &route.0).is_some()
    }

    /// The place of some bytes of the text.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.text.get(line_start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let column = self
            .text
            .get(line_start..start)
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let marked = self
            .text
            .get(start..span.end.clamp(start, line_start + line.len()));
        let width = marked.unwrap_or_default().chars().count().max(1);
        let margin = " ".repeat(number.to_string().len());
        let shown = blotted(line);
        // A caret below what is blotted out would say how long the secret is.
        let caret = if shown == line {
            format!("{}{}", " ".repeat(column - 1), "^".repeat(width))
        } else {
            String::new()
        };
        Place {
            position: (number, column),
            address: format!("{}:{number}:{column}", self.name),
            excerpt: format!("{margin} |\n{number} | {shown}\n{margin} | {caret}")
                .trim_end()
                .to_owned(),
        }
    }
}

/// A line as it may be shown: what follows the name of a secret is cut off, unless it is a table that says where.
fn blotted(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else {
        return line.to_owned();
    };
    let is_secret = SECRET_KEYS.iter().any(|secret| line.contains(secret));
    let is_place = value.trim_start().starts_with('{');
    if is_secret && !is_place {
        format!("{key}= ...")
    } else {
        line.to_owned()
    }
}

/// The spans of the key and of the value at the end of `steps`.
fn walk(table: &DeTable<'_>, steps: &[Step]) -> Option<(Range<usize>, Range<usize>)> {
    let (Step::Key(first), rest) = steps.split_first()? else {
        return None;
    };
    let (key, value) = table
        .iter()
        .find(|(key, _)| key.get_ref().as_ref() == first.as_str())?;
    walk_value(key.span(), value, rest)
}

fn walk_value(
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    steps: &[Step],
) -> Option<(Range<usize>, Range<usize>)> {
    let Some((step, rest)) = steps.split_first() else {
        return Some((key, value.span()));
    };
    match (value.get_ref(), step) {
        (DeValue::Table(table), Step::Key(_)) => walk(table, steps),
        (DeValue::Array(items), Step::Item(index)) => {
            let item = items.get(*index)?;
            walk_value(item.span(), item, rest)
        }
        _ => None,
    }
}
