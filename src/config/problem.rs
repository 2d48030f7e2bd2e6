//! What is wrong at one place of the configuration, and how it is told: where, what, and what to write instead.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use crate::config::locate::Document;
use crate::config::locate::Snippet;
use crate::config::locate::is_private;
use crate::config::node::Path;
use crate::config::node::Step;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) path: Path,
    pub(super) at: At,
    pub(super) what: String,
    /// What helps.
    pub(super) notes: Vec<String>,
}

/// What at the end of a path is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The key itself.
    Key,
    /// What it is set to.
    Value,
    /// What it is set to, which may be a secret that stands in the wrong place, and so is not shown.
    Hidden,
    /// The table that the key is missing in.
    Missing,
    /// The table at the path.
    Table,
}

/// Where values come from: the file and the environment over the defaults.
#[derive(Clone)]
pub(super) struct Sources {
    document: Document,
    /// The variables of ours by the path that they set.
    variables: BTreeMap<Path, Variable>,
}

#[derive(Clone)]
struct Variable {
    name: String,
    value: String,
}

/// The layer that a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    Default,
    File { name: &'a str, line: usize },
    Variable(&'a str),
}

impl fmt::Debug for Sources {
    /// Without the texts, of which nobody here knows what in them is meant for whom.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    /// Takes the file and those of `variables` that are ours, each as the prefix and separator say.
    pub(super) fn new(document: Document, variables: Vec<(String, String)>) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let lower = name.to_lowercase();
            let rest = lower.strip_prefix("reelvault__")?;
            let steps = rest.split("__").map(|key| Step::Key(key.to_owned()));
            Some((Path(steps.collect()), Variable { name, value }))
        });
        Self {
            variables: ours.collect(),
            document,
        }
    }

    /// What the environment sets, outer tables first.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&Path, &str)> {
        let variables = self.variables.iter();
        variables.map(|(path, variable)| (path, variable.value.as_str()))
    }

    /// Which layer the value at `path` is from.
    pub(super) fn origin(&self, path: &Path) -> Origin<'_> {
        let line = self.document.line_of(path);
        match (self.variable(path, line.is_some()), line) {
            (Some(variable), _) => Origin::Variable(&variable.name),
            (None, Some(line)) => Origin::File {
                name: &self.document.name,
                line,
            },
            (None, None) => Origin::Default,
        }
    }

    /// The variable that sets `path`, or, where the file does not have it, something under it.
    fn variable(&self, path: &Path, is_in_file: bool) -> Option<&Variable> {
        let exact = self.variables.get(path);
        let below = || {
            let first = self.variables.range(path.clone()..).next();
            first
                .filter(|(at, _)| at.is_under(path) && !path.0.is_empty())
                .map(|(_, it)| it)
        };
        exact.or_else(|| if is_in_file { None } else { below() })
    }

    /// Tells the problems in the order of the file, those of the environment last.
    pub(super) fn tell(&self, mut problems: Vec<Problem>) -> String {
        let place = |problem: &Problem| {
            let snippet = self.snippet(problem);
            snippet.map_or((usize::MAX, 0), |snippet| (snippet.line, snippet.column))
        };
        problems.sort_by_cached_key(|problem| place(problem));
        let mut told: String = problems
            .iter()
            .map(|problem| self.tell_one(problem))
            .collect();
        told.push_str(&count(problems.len()));
        told
    }

    /// Where the problem is: a line of the file, or a variable.
    pub(super) fn place(&self, problem: &Problem) -> String {
        match (self.snippet(problem), self.guilty(problem)) {
            (Some(snippet), _) => {
                format!("{}:{}:{}", self.document.name, snippet.line, snippet.column)
            }
            (None, Some(variable)) => variable.name.clone(),
            (None, None) => self.document.name.clone(),
        }
    }

    fn tell_one(&self, problem: &Problem) -> String {
        let mut told = String::new();
        let snippet = self.snippet(problem);
        let place = self.place(problem);
        let Problem { path, what, .. } = problem;
        writeln!(told, "{place}: {path}: {what}").expect("a String takes everything");
        if let Some(snippet) = &snippet {
            told.push_str(&snippet.render());
        }
        let gutter = snippet.map_or_else(|| " ".to_owned(), |snippet| snippet.gutter());
        let value = self
            .guilty(problem)
            .filter(|_| problem.at == At::Value && !is_private(path));
        let value = value.map(|variable| format!("its value is {:?}", variable.value));
        for note in value.iter().chain(&problem.notes) {
            writeln!(told, "{gutter} = {note}").expect("a String takes everything");
        }
        told.push('\n');
        told
    }

    /// The variable that the problem comes from, unless it is the file.
    fn guilty(&self, problem: &Problem) -> Option<&Variable> {
        let path = match problem.at {
            At::Key | At::Value | At::Hidden | At::Table => problem.path.clone(),
            At::Missing => problem.path.parent()?,
        };
        self.variable(&path, self.document.line_of(&path).is_some())
    }

    /// The line of the file that the problem comes from, unless it is a variable.
    fn snippet(&self, problem: &Problem) -> Option<Snippet> {
        if self.guilty(problem).is_some() {
            return None;
        }
        let path = &problem.path;
        match problem.at {
            At::Key => self.document.key_snippet(path),
            At::Value => self.document.value_snippet(path),
            At::Hidden => self.document.hidden_snippet(path),
            At::Table => self.document.table_snippet(path),
            At::Missing => self.document.table_snippet(&path.parent()?),
        }
    }
}

/// The last line.
pub(super) fn count(problems: usize) -> String {
    if problems == 1 {
        "1 problem".to_owned()
    } else {
        format!("{problems} problems")
    }
}

/// Which of `known` was most likely meant by `word`.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|it| (distance(word, it), it));
    // A third of the letters may be wrong; of short words, one.
    let bound = (word.chars().count() / 3).max(1);
    near.filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, it)| it)
}

/// How many letters must be added, removed, replaced or swapped with the next to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut two_above = Vec::new();
    let mut last_mine = None;
    for (number, mine) in a.chars().enumerate() {
        let mut row = vec![number + 1];
        let mut last_theirs = None;
        for (at, theirs) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let replaced = get(&above, at) + usize::from(mine != *theirs);
            let added = get(&row, at) + 1;
            let removed = get(&above, at + 1) + 1;
            let is_swap = last_mine == Some(*theirs) && last_theirs == Some(mine);
            let swapped = if is_swap {
                get(&two_above, at - 1) + 1
            } else {
                replaced
            };
            row.push(replaced.min(added).min(removed).min(swapped));
            last_theirs = Some(*theirs);
        }
        two_above = std::mem::replace(&mut above, row);
        last_mine = Some(mine);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("concurent", "concurrent"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("mian", "main"), 1);
        assert_eq!(distance("abc", ""), 3);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["bucket", "region", "prefix"];
        assert_eq!(nearest("bukcet", known), Some("bucket"));
        assert_eq!(nearest("buckets", known), Some("bucket"));
        assert_eq!(nearest("kind", known), None);
        assert_eq!(nearest("", known), None);
    }
}
