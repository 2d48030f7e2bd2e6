//! Reads the tree again and again, with each mistake taken out, so that all mistakes are known at once.

use serde::Deserialize as _;

use crate::config::Config;
use crate::config::locate::SECRETS;
use crate::config::node::Node;
use crate::config::node::Path;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::nearest;
use crate::config::read::Cause;
use crate::config::read::Wanted;
use crate::config::read::listed;

/// How often the tree is read at most. Nobody mends more mistakes at once; the rest is told the next time.
const READS_MAX: usize = 64;

/// How a secret is written.
pub(super) const SECRET_FORMS: &str =
    "write one of { credential = \"NAME\" }, { file = \"/path\" }, { env = \"NAME\" }";

/// What could be read, and what could not.
pub(super) struct Salvaged {
    /// The configuration without the mistakes: good for finding more of them, never for use. `None` where too much
    /// is missing.
    pub(super) config: Option<Config>,
    pub(super) problems: Vec<Problem>,
    /// Where something was taken out: what is missing or odd there is no mistake of its own.
    pub(super) failed: Vec<Path>,
}

/// Reads `tree`; what is wrong in it becomes what `defaults` have there, or nothing.
pub(super) fn salvage(mut tree: Node, defaults: &Node) -> Salvaged {
    let mut salvaged = Salvaged {
        config: None,
        problems: Vec::new(),
        failed: Vec::new(),
    };
    for _ in 0..READS_MAX {
        let mut track = serde_path_to_error::Track::new();
        let reader = serde_path_to_error::Deserializer::new(tree.clone(), &mut track);
        let cause = match Config::deserialize(reader) {
            Ok(config) => {
                salvaged.config = Some(config);
                break;
            }
            Err(cause) => cause,
        };
        let path = tree.as_written(&track.path());
        let (path, instead) = salvaged.note(path, &cause, &tree);
        // What cannot be mended cannot be passed either.
        if !tree.replace(&path, instead.or_else(|| defaults.get(&path).cloned())) {
            break;
        }
    }
    salvaged
}

impl Salvaged {
    /// Notes the problem that `cause` is, unless it comes from an earlier one, and gives back what must be taken out
    /// to get past it, with what must be there instead.
    fn note(&mut self, path: Path, cause: &Cause, tree: &Node) -> (Path, Option<Node>) {
        match cause {
            Cause::UnknownField { field, expected } => {
                // The key was read when it was refused, so the path ends with it.
                let table = path.parent().unwrap_or_default();
                let path = table.key(field);
                let meant = nearest(field, expected.iter().copied());
                if let Some(meant) = meant {
                    self.failed.push(table.key(meant));
                }
                self.problems.push(Problem {
                    path: path.clone(),
                    at: At::Key,
                    what: cause.to_string(),
                    notes: vec![match meant {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None if field.contains('.') => {
                            "a dot goes from table to table only outside of quotes".to_owned()
                        }
                        None => format!("known here are {}", listed(expected)),
                    }],
                });
                (path, None)
            }
            Cause::MissingField(field) => {
                let missing = path.key(field);
                if !self.failed.iter().any(|failed| failed.is_under(&missing)) {
                    self.problems.push(missing_problem(missing.clone(), cause));
                    self.failed.push(missing.clone());
                }
                (missing, Some(Node::Blank))
            }
            // Nothing is no value here, so the whole table has to go.
            Cause::UnknownVariant { .. } | Cause::WrongType { .. } | Cause::Other(_)
                if tree.get(&path) == Some(&Node::Blank) =>
            {
                let table = path.parent().unwrap_or_default();
                self.failed.push(table.clone());
                (table, None)
            }
            Cause::UnknownVariant { .. } | Cause::WrongType { .. } | Cause::Other(_) => {
                self.problems.push(value_problem(&path, cause, tree));
                self.failed.push(path.clone());
                (path, None)
            }
        }
    }
}

fn missing_problem(path: Path, cause: &Cause) -> Problem {
    let is_secret = path.last_key().is_some_and(|key| SECRETS.contains(&key));
    Problem {
        path,
        at: At::Missing,
        what: cause.to_string(),
        notes: is_secret
            .then(|| SECRET_FORMS.to_owned())
            .into_iter()
            .collect(),
    }
}

fn value_problem(path: &Path, cause: &Cause, tree: &Node) -> Problem {
    let key = path.last_key().unwrap_or_default();
    let mut problem = Problem {
        path: path.clone(),
        at: At::Value,
        what: cause.to_string(),
        notes: Vec::new(),
    };
    match cause {
        Cause::WrongType { .. } if SECRETS.contains(&key) => {
            "a secret never stands in the configuration itself".clone_into(&mut problem.what);
            problem.notes.push(SECRET_FORMS.to_owned());
        }
        Cause::WrongType {
            wanted: Wanted::Text,
            ..
        } if matches!(tree.get(path), Some(Node::Int(_) | Node::Float(_))) => {
            let note = "texts stand in quotes, and quantities with their unit: \"5s\", \"16 MiB\", \"5/s\"";
            problem.notes.push(note.to_owned());
        }
        Cause::WrongType {
            wanted: Wanted::List,
            ..
        } if matches!(key, "route" | "notify") => {
            let note =
                format!("each {key} begins with a line of its own: [[{key}]], with two brackets");
            problem.notes.push(note);
        }
        Cause::WrongType {
            wanted: Wanted::Table,
            ..
        } if matches!(key, "provider" | "destination") && path.0.len() == 1 => {
            problem.at = At::Hidden;
            problem
                .notes
                .push(format!("each has a table with its name: [{key}.NAME]"));
        }
        // Somebody who skipped a level may have written its secret here.
        Cause::WrongType {
            wanted: Wanted::Table,
            ..
        } => problem.at = At::Hidden,
        Cause::UnknownVariant { variant, expected } => {
            let meant = nearest(variant, expected.iter().copied());
            problem
                .notes
                .extend(meant.map(|meant| format!("did you mean \"{meant}\"?")));
        }
        // The message of a foreign type may hold the address, and that a password.
        Cause::Other(_) if matches!(key, "base_url" | "endpoint") => {
            "not an address such as \"https://host:port\"".clone_into(&mut problem.what);
        }
        Cause::Other(_) if key == "listen" => {
            let note = "write an address and a port, such as \"127.0.0.1:7437\"; a name is none";
            problem.notes.push(note.to_owned());
        }
        // No table is read from its text, so it is the table's name that is wrong.
        Cause::Other(_) if matches!(tree.get(path), Some(Node::Table(_))) => problem.at = At::Key,
        Cause::UnknownField { .. }
        | Cause::WrongType { .. }
        | Cause::MissingField(_)
        | Cause::Other(_) => {}
    }
    problem
}
