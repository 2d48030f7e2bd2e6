//! Where each key stands in the file, and how its line is shown without what may be secret in it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::DEFAULTS;
use crate::config::node::Path;
use crate::config::node::Step;
use crate::config::problem::count;

/// Keys of secrets: what stands there must be a place, and is never shown when it is not.
pub(super) const SECRETS: [&str; 12] = [
    "api_key",
    "access_key",
    "secret_key",
    "token",
    "token_old",
    "hook_secret",
    "hook_secret_old",
    "hook_key",
    "hook_key_old",
    "secret",
    "secret_old",
    "password",
];

/// Keys whose values may hold something secret: a token in a header, a password in an address, and what people take
/// `credentials` for.
const PRIVATE: [&str; 5] = ["headers", "base_url", "endpoint", "url", "credentials"];

/// The names of a secret's places, which are not secret.
const PLACES: [&str; 3] = ["credential", "file", "env"];

/// In a line that could not be read, words that come with secrets.
const SECRET_WORDS: [&str; 9] = [
    "key", "secret", "token", "pass", "cred", "auth", "header", "url", "endpoint",
];

/// What stands for whatever is not shown.
const MASK: char = '…';

/// A file with the places of its keys.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) name: String,
    text: String,
    root: Mark,
    /// The values that are not shown, wherever a line of theirs is.
    hidden: Vec<Range<usize>>,
}

/// The place of one key and its value. The value of a table with a header is that header.
#[derive(Clone, Debug, Default)]
struct Mark {
    key: Option<Range<usize>>,
    value: Range<usize>,
    below: Below,
}

#[derive(Clone, Debug, Default)]
enum Below {
    #[default]
    Nothing,
    Table(BTreeMap<String, Mark>),
    List(Vec<Mark>),
}

/// A text that is no TOML, or has a number in it that no computer would take.
#[derive(Clone, Debug)]
pub(super) struct NotToml {
    pub(super) what: String,
    pub(super) snippet: Option<Snippet>,
}

/// A line of the file as it is shown, with what in it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snippet {
    /// Counted from one.
    pub(super) line: usize,
    /// Counted from one, in characters.
    pub(super) column: usize,
    shown: String,
    carets: Range<usize>,
}

/// Whether what stands at `path` is not shown.
pub(super) fn is_private(path: &Path) -> bool {
    let keys: Vec<&str> = path.0.iter().filter_map(Step::as_key).collect();
    let is_place = keys.last().is_some_and(|last| PLACES.contains(last));
    keys.iter()
        .any(|key| PRIVATE.contains(key) || (SECRETS.contains(key) && !is_place))
}

impl Document {
    /// Finds every key of `text`.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self, NotToml> {
        let table = DeTable::parse(text).map_err(|error| NotToml {
            what: error.message().to_owned(),
            snippet: error.span().map(|span| blind_snippet(text, &span)),
        })?;
        let mut document = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            root: Mark::default(),
            hidden: Vec::new(),
        };
        let marked = document.mark_table(table.get_ref(), &Path::default());
        document.root.below = marked.map_err(|span| NotToml {
            what: "a number that is too large".to_owned(),
            snippet: Some(document.snippet(&span, true)),
        })?;
        Ok(document)
    }

    /// The line of this key.
    pub(super) fn line_of(&self, path: &Path) -> Option<usize> {
        let mark = self.find(path)?;
        let start = mark.key.as_ref().map_or(mark.value.start, |key| key.start);
        Some(line_at(&self.text, start).0)
    }

    /// The key at the end of `path`.
    pub(super) fn key_snippet(&self, path: &Path) -> Option<Snippet> {
        let mark = self.find(path)?;
        Some(self.snippet(mark.key.as_ref().unwrap_or(&mark.value), true))
    }

    /// The value at `path`, hidden if it may be secret; so may any text in a table or a list that nobody wants there.
    pub(super) fn value_snippet(&self, path: &Path) -> Option<Snippet> {
        let mark = self.find(path)?;
        let is_single = matches!(mark.below, Below::Nothing);
        Some(self.snippet(&mark.value, is_single && !is_private(path)))
    }

    /// The place of the value at `path`, without the value.
    pub(super) fn hidden_snippet(&self, path: &Path) -> Option<Snippet> {
        Some(self.snippet(&self.find(path)?.value, false))
    }

    /// The header of the table at `path`, or of the nearest one around it that the file has.
    pub(super) fn table_snippet(&self, path: &Path) -> Option<Snippet> {
        let mut path = path.clone();
        loop {
            let mark = self.find(&path).filter(|_| !path.0.is_empty());
            if let Some(mark) = mark {
                let text = self.text.get(mark.value.clone()).unwrap_or_default();
                let is_header = text.starts_with('[') && !matches!(mark.below, Below::Nothing);
                let key = mark.key.as_ref().filter(|_| !is_header);
                return Some(self.snippet(key.unwrap_or(&mark.value), true));
            }
            path = path.parent()?;
        }
    }

    fn find(&self, path: &Path) -> Option<&Mark> {
        path.0
            .iter()
            .try_fold(&self.root, |mark, step| match (&mark.below, step) {
                (Below::Table(table), Step::Key(key)) => table.get(key),
                (Below::List(list), Step::Index(index)) => list.get(*index),
                _ => None,
            })
    }

    fn mark_table(&mut self, table: &DeTable<'_>, path: &Path) -> Result<Below, Range<usize>> {
        let mut marks = BTreeMap::new();
        for (key, value) in table {
            let path = path.key(key.get_ref());
            let mark = self.mark(value, &path)?;
            let mark = Mark {
                key: Some(key.span()),
                ..mark
            };
            marks.insert(key.get_ref().clone().into_owned(), mark);
        }
        Ok(Below::Table(marks))
    }

    fn mark(&mut self, value: &Spanned<DeValue<'_>>, path: &Path) -> Result<Mark, Range<usize>> {
        let span = value.span();
        let below = match value.get_ref() {
            DeValue::Table(table) => self.mark_table(table, path)?,
            DeValue::Array(array) => {
                let elements = array.iter().enumerate();
                let marks: Result<_, _> = elements
                    .map(|(index, it)| self.mark(it, &path.index(index)))
                    .collect();
                Below::List(marks?)
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                if is_private(path) {
                    self.hidden.push(span.clone());
                }
                if !fits(value.get_ref()) {
                    return Err(span);
                }
                Below::Nothing
            }
        };
        Ok(Mark {
            key: None,
            value: span,
            below,
        })
    }

    /// The line of `span`. Texts elsewhere in the line are not shown, nor is what may be secret.
    fn snippet(&self, span: &Range<usize>, is_shown: bool) -> Snippet {
        let keep = if is_shown { span.clone() } else { 0..0 };
        snippet(&self.text, span, &keep, &self.hidden)
    }
}

impl NotToml {
    /// The mistake, told like any other.
    pub(super) fn tell(&self, name: &str) -> String {
        let what = &self.what;
        let told = match &self.snippet {
            Some(snippet) => {
                let Snippet { line, column, .. } = snippet;
                format!("{name}:{line}:{column}: {what}\n{}", snippet.render())
            }
            None => format!("{name}: {what}\n"),
        };
        format!("{told}\n{}", count(1))
    }
}

impl Snippet {
    /// As wide as the line's number.
    pub(super) fn gutter(&self) -> String {
        " ".repeat(self.line.to_string().len())
    }

    /// The line with carets below, each behind a rule.
    pub(super) fn render(&self) -> String {
        let number = self.line;
        let gutter = self.gutter();
        let indent = " ".repeat(self.carets.start);
        let carets = "^".repeat(self.carets.len().max(1));
        let shown = &self.shown;
        format!("{gutter} |\n{number} | {shown}\n{gutter} | {indent}{carets}\n")
    }
}

/// Whether a number is one that the layers can carry.
fn fits(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Integer(it) => i64::from_str_radix(it.as_str(), it.radix()).is_ok(),
        DeValue::Float(it) => {
            let text = it.as_str();
            text.parse::<f64>()
                .is_ok_and(|it| it.is_finite() || !text.contains(char::is_numeric))
        }
        DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => true,
    }
}

/// The number of the line at `offset`, where it starts, and where it ends.
fn line_at(text: &str, offset: usize) -> (usize, Range<usize>) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let rest = text.get(start..).unwrap_or_default();
    let end = start + rest.find('\n').unwrap_or(rest.len());
    (before.matches('\n').count() + 1, start..end)
}

/// The line of `span`: shown are `keep`, and whatever is neither a text, nor `hidden`, nor a comment.
fn snippet(
    text: &str,
    span: &Range<usize>,
    keep: &Range<usize>,
    hidden: &[Range<usize>],
) -> Snippet {
    let (line, place) = line_at(text, span.start);
    let source = text.get(place.clone()).unwrap_or_default();
    let before = text.get(place.start..span.start).unwrap_or_default();
    let mut painted = Painted::default();
    let (mut first, mut end) = (None, None);
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in source.char_indices().map(|(at, c)| (place.start + at, c)) {
        if at >= span.start {
            first = first.or(Some(painted.width));
        }
        if at >= span.end {
            end = end.or(Some(painted.width));
        }
        if hidden.iter().any(|hidden| hidden.contains(&at)) {
            quote = None;
            painted.mask();
        } else if keep.contains(&at) {
            quote = None;
            painted.show(c);
        } else if let Some(open) = quote {
            if c == open && !is_escaped {
                quote = None;
                painted.show(c);
            } else {
                is_escaped = open == '"' && c == '\\' && !is_escaped;
                painted.mask();
            }
        } else if c == '#' {
            break;
        } else {
            quote = Some(c).filter(|c| matches!(c, '"' | '\''));
            is_escaped = false;
            painted.show(c);
        }
    }
    let shown = painted.text.trim_end().to_owned();
    let first = first.unwrap_or(painted.width);
    let end = end.unwrap_or(painted.width).min(shown.chars().count());
    Snippet {
        line,
        column: before.chars().count() + 1,
        shown,
        carets: first..end.max(first + 1),
    }
}

/// A line as far as it is shown.
#[derive(Default)]
struct Painted {
    text: String,
    /// In characters.
    width: usize,
    is_masked: bool,
}

impl Painted {
    fn show(&mut self, c: char) {
        self.is_masked = false;
        self.width += 1;
        self.text.push(if c.is_control() { ' ' } else { c });
    }

    /// One mark for however many characters, so that not even their number is told.
    fn mask(&mut self) {
        if !self.is_masked {
            self.width += 1;
            self.text.push(MASK);
        }
        self.is_masked = true;
    }
}

/// The line of a mistake in a text that could not be read, so that nobody knows what in it is secret: shown are headers,
/// keys, and what follows a key that has a default, none of which is a secret.
fn blind_snippet(text: &str, span: &Range<usize>) -> Snippet {
    let (_, place) = line_at(text, span.start);
    let line = text.get(place.clone()).unwrap_or_default();
    let above = text.get(..place.start).unwrap_or_default();
    let is_inside_text = ["\"\"\"", "'''"]
        .iter()
        .any(|it| above.matches(it).count() % 2 == 1);
    let hidden = if is_inside_text {
        place.clone()
    } else {
        place.start + blind_start(line)..place.end
    };
    snippet(text, span, &(0..0), std::slice::from_ref(&hidden))
}

/// Where in a line of a text that could not be read something secret may begin.
fn blind_start(line: &str) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let key = line.trim_start().split(|c| !is_word(c)).next();
    let lower = line.to_ascii_lowercase();
    let may_be_secret = SECRET_WORDS.iter().any(|word| lower.contains(word));
    if key.is_some_and(has_default) && !may_be_secret {
        return line.len();
    }
    match line.split_once('=') {
        Some((key, value)) => key.len() + 1 + (value.len() - value.trim_start().len()),
        None if line.trim_start().starts_with('[') => line.len(),
        None => line.len() - line.trim_start().len(),
    }
}

/// Whether the key stands in the defaults, other than as a comment.
fn has_default(key: &str) -> bool {
    let settings = DEFAULTS.lines().filter_map(|line| line.split_once(" = "));
    settings
        .map(|(known, _)| known)
        .any(|known| known == key && !PRIVATE.contains(&known))
}
