//! Problems: what is wrong, where, and what to do; all of them at once.

use std::fmt;

use crate::config::locate::Part;
use crate::config::locate::Place;
use crate::config::locate::Source;
use crate::config::node::Cause;
use crate::config::node::Route;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    position: (usize, usize),
    address: Option<String>,
    key: String,
    what: String,
    excerpt: String,
    hint: Option<String>,
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(crate) Vec<Problem>);

impl Problem {
    /// A problem with the file as a whole.
    pub(crate) fn of_file(name: &str, what: impl fmt::Display) -> Self {
        let address = Some(name.to_owned());
        Self {
            position: (0, 0),
            address,
            key: String::new(),
            what: what.to_string(),
            excerpt: String::new(),
            hint: None,
        }
    }

    /// A place where the file is no TOML.
    pub(crate) fn of_syntax(place: Place, what: &str) -> Self {
        let what = what.lines().next().unwrap_or("is no TOML").to_owned();
        let (position, address) = (place.position, Some(place.address));
        Self {
            position,
            address,
            key: String::new(),
            what,
            excerpt: place.excerpt,
            hint: None,
        }
    }

    /// A problem at `route`, which the environment or the file set.
    pub(crate) fn at(
        source: &Source<'_>,
        variable: Option<String>,
        route: &Route,
        part: Part,
        what: impl fmt::Display,
    ) -> Self {
        let place = if variable.is_some() {
            None
        } else {
            source.find(route, part)
        };
        // What the environment set comes after what stands in the file.
        let (position, address, excerpt) = match place {
            Some(place) => (place.position, Some(place.address), place.excerpt),
            None => {
                let address = variable.map(|name| format!("environment variable {name}"));
                ((usize::MAX, 0), address, String::new())
            }
        };
        let address = address.or_else(|| Some(source.name.to_owned()));
        Self {
            position,
            address,
            key: route.to_string(),
            what: what.to_string(),
            excerpt,
            hint: None,
        }
    }

    /// Line and column, to sort by.
    pub(crate) fn position(&self) -> (usize, usize) {
        self.position
    }

    /// The same with what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address
            .iter()
            .try_for_each(|address| write!(f, "{address}: "))?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.excerpt.is_empty() {
            write!(f, "\n{}", self.excerpt)?;
        }
        self.hint
            .iter()
            .try_for_each(|hint| write!(f, "\n  = {hint}"))
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}\n")?;
        }
        let plural = if self.0.len() == 1 {
            "problem"
        } else {
            "problems"
        };
        write!(f, "{} {plural}", self.0.len())
    }
}

impl std::error::Error for ConfigErrors {}

/// What to do about a cause, where that can be said.
pub(crate) fn remedy(route: &Route, cause: &Cause) -> Option<String> {
    match cause {
        Cause::UnknownKey { key, expected } => {
            Some(suggest(key, expected.iter().copied()).map_or_else(
                || format!("there is {}", expected.join(", ")),
                |meant| format!("did you mean {meant:?}?"),
            ))
        }
        Cause::WrongType { .. } if is_secret(route) => Some(
            "a secret is never written here: name its place as { credential = \"NAME\" }, \
             { file = \"/path\" } or { env = \"NAME\" }"
                .to_owned(),
        ),
        Cause::WrongType {
            found: "a whole number",
            expected,
        } if expected == "a string" => {
            Some("write it with its unit, such as \"16 MiB\", \"30s\" or \"5/s\"".to_owned())
        }
        Cause::Missing(_)
        | Cause::UnknownWord { .. }
        | Cause::WrongType { .. }
        | Cause::Other(_) => None,
    }
}

fn is_secret(route: &Route) -> bool {
    matches!(
        route.last_key(),
        Some("api_key" | "access_key" | "secret_key")
    )
}

/// The known word that `word` was most likely meant to be: at most half of its letters off.
pub(crate) fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.map(|it| (distance(word, it), it)).min()?;
    (nearest.0 * 2 <= word.chars().count()).then_some(nearest.1)
}

/// How many letters must be put in, taken out or changed to make `left` into `right`.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (position, letter) in left.chars().enumerate() {
        let mut next = vec![position + 1];
        for ((other, diagonal), above) in right.iter().zip(&row).zip(row.iter().skip(1)) {
            let changed = diagonal + usize::from(*other != letter);
            let beside = next.last().copied().unwrap_or_default();
            next.push(changed.min(above + 1).min(beside + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near_and_nothing_that_is_far() {
        let known = ["concurrent", "memory", "part_size"];
        assert_eq!(suggest("concurent", known.into_iter()), Some("concurrent"));
        assert_eq!(suggest("partsize", known.into_iter()), Some("part_size"));
        assert_eq!(suggest("bandwidth", known.into_iter()), None);
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
