//! Configuration: compiled-in defaults, a file and the environment, read into the configuration that each room owns.
//!
//! ```text
//! default.toml < file < REELVAULT__SECTION__KEY      merged by the config crate
//!        `-> node    a tree that serde reads piece by piece: each problem is noted, taken out, and reading goes on
//!        `-> check   what no single value can be wrong about
//!        `-> locate  line, column and caret of each problem
//! ```

mod check;
mod locate;
mod node;
mod problem;
mod show;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::archive;
use crate::config::locate::Part;
use crate::config::locate::Source;
use crate::config::node::Cause;
use crate::config::node::Node;
use crate::config::node::Route;
use crate::config::node::Step;
use crate::config::problem::remedy;
use crate::config::problem::suggest;
use crate::manifest;
use crate::model::key::KeyTemplate;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::provider;
use crate::store;
use crate::telemetry::log;
use crate::units::Span;
use crate::watch;
use crate::watch::RouteConfig;
use crate::watch::route::Routes;

pub use problem::ConfigErrors;
pub use problem::Problem;

/// The first layer, and the only home of defaults.
const DEFAULTS: &str = include_str!("../config/default.toml");

/// What every variable of ours begins with.
const PREFIX: &str = "REELVAULT";

/// Between the words of a variable's name.
const SEPARATOR: &str = "__";

/// Problems noted in one table before the rest is left for the next run.
const PROBLEMS_MAX: usize = 64;

/// Everything that is in force.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The key template where no route has its own.
    pub key: KeyTemplate,
    /// `[server]`
    pub server: ServerConfig,
    /// `[log]`
    pub log: log::Config,
    /// `[manifest]`
    pub manifest: manifest::Config,
    /// `[transfer]`
    pub transfer: archive::Config,
    /// `[deadline]`
    pub deadline: watch::DeadlineConfig,
    /// `[poll]`
    pub poll: watch::Config,
    /// `[provider.NAME]`
    pub provider: BTreeMap<ProviderName, provider::Config>,
    /// `[destination.NAME]`
    pub destination: BTreeMap<DestinationName, store::Config>,
    /// `[[route]]`
    pub route: Vec<RouteConfig>,
}

/// The tables and keys of the root.
const SECTIONS: [&str; 10] = [
    "key",
    "server",
    "log",
    "manifest",
    "transfer",
    "deadline",
    "poll",
    "provider",
    "destination",
    "route",
];

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// How long a stopping daemon finishes parts before it cuts off the rest.
    pub shutdown_grace: Span,
}

/// A configuration with what is worth saying about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What works but most likely is not meant.
    pub warnings: Vec<String>,
    origins: show::Origins,
}

impl Loaded {
    /// What is in force, a key a line; with `has_origin` also where each value came from.
    pub fn show(&self, has_origin: bool) -> String {
        show::show(&self.config, has_origin.then_some(&self.origins))
    }
}

impl Config {
    /// Loads the file at `path` between the defaults and `variables`, the environment.
    pub fn load(path: &Path, variables: Vec<(String, String)>) -> Result<Loaded, ConfigErrors> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| ConfigErrors(vec![Problem::of_file(&name, error)]))?;
        Self::parse(&text, &name, variables)
    }

    /// Reads `text`, which stands at `name`, between the defaults and `variables`, the environment.
    pub fn parse(
        text: &str,
        name: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Loaded, ConfigErrors> {
        let source = Source { name, text };
        check_syntax(&source)?;
        let variables = variables
            .into_iter()
            .filter(|(name, _)| route_of(name).is_some());
        let variables: Vec<(String, String)> = variables.collect();
        let merged = merge(text, &variables);
        let merged = merged.map_err(|error| ConfigErrors(vec![Problem::of_file(name, error)]))?;
        let mut reader = Reader {
            source,
            variables: &variables,
            problems: Vec::new(),
        };
        let config = reader.config(&merged);
        let (checked, warnings) = match &config {
            Some(config) => check::check(config, &reader),
            None => (Vec::new(), Vec::new()),
        };
        reader.problems.extend(checked);
        reader.problems.sort_by_key(Problem::position);
        let origins = show::Origins::new(name, text, &variables);
        match config {
            Some(config) if reader.problems.is_empty() => Ok(Loaded {
                config,
                warnings,
                origins,
            }),
            Some(_) | None => Err(ConfigErrors(reader.problems)),
        }
    }

    /// Which destinations the assets of a task go to. The patterns were checked when the configuration was read.
    pub fn routes(&self) -> Routes {
        let destinations = self.destination.keys().cloned();
        Routes::new(&self.route, destinations, &self.key).expect("patterns are checked when read")
    }
}

/// The path that a variable sets, if it is one of ours.
fn route_of(variable: &str) -> Option<Route> {
    let path = variable
        .strip_prefix(PREFIX)?
        .strip_prefix(SEPARATOR)?
        .to_lowercase();
    Some(Route::of(&path.split(SEPARATOR).collect::<Vec<_>>()))
}

/// Every place at which the file is no TOML.
fn check_syntax(source: &Source<'_>) -> Result<(), ConfigErrors> {
    let (_, errors) = toml::de::DeTable::parse_recoverable(source.text);
    let problem = |error: &toml::de::Error| {
        Problem::of_syntax(
            source.place(error.span().unwrap_or_default()),
            error.message(),
        )
    };
    let problems: Vec<Problem> = errors.iter().map(problem).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ConfigErrors(problems))
    }
}

fn merge(text: &str, variables: &[(String, String)]) -> Result<Node, config::ConfigError> {
    let environment = config::Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(variables.iter().cloned().collect()));
    let merged = config::Config::builder()
        .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
        .add_source(config::File::from_str(text, config::FileFormat::Toml))
        .add_source(environment)
        .build()?;
    Ok(Node::of(merged.cache).unwrap_or(Node::Table(BTreeMap::new())))
}

/// Reads the merged tree and notes what is wrong with it.
struct Reader<'a> {
    source: Source<'a>,
    variables: &'a [(String, String)],
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// The configuration, whole or not at all.
    fn config(&mut self, root: &Node) -> Option<Config> {
        for (key, _) in root.entries().filter(|(key, _)| !SECTIONS.contains(key)) {
            let meant = suggest(key, SECTIONS.into_iter());
            let hint = match meant {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("there is {}", SECTIONS.join(", ")),
            };
            let problem = self.problem(&Route::of(&[key]), Part::Key, "unknown key");
            self.problems.push(problem.hint(Some(hint)));
        }
        let (key, server, log) = (
            self.section(root, "key"),
            self.section(root, "server"),
            self.section(root, "log"),
        );
        let (manifest, transfer) = (
            self.section(root, "manifest"),
            self.section(root, "transfer"),
        );
        let (deadline, poll) = (self.section(root, "deadline"), self.section(root, "poll"));
        let (provider, destination) = (
            self.named(root, "provider"),
            self.named(root, "destination"),
        );
        let route = self.listed(root, "route");
        Some(Config {
            key: key?,
            server: server?,
            log: log?,
            manifest: manifest?,
            transfer: transfer?,
            deadline: deadline?,
            poll: poll?,
            provider: provider?,
            destination: destination?,
            route: route?,
        })
    }

    fn section<T: DeserializeOwned>(&mut self, root: &Node, key: &str) -> Option<T> {
        let (_, node) = root.entries().find(|(name, _)| *name == key)?;
        self.read(node.clone(), &Route::of(&[key]))
    }

    /// The tables below `key`, by name; a name that is none is a problem of its own.
    fn named<N, T>(&mut self, root: &Node, key: &str) -> Option<BTreeMap<N, T>>
    where
        N: std::str::FromStr<Err = crate::model::WordError> + Ord,
        T: DeserializeOwned,
    {
        let mut read = BTreeMap::new();
        let mut is_whole = true;
        let entries = root
            .entries()
            .find(|(name, _)| *name == key)
            .map(|(_, node)| node);
        for (name, node) in entries.into_iter().flat_map(Node::entries) {
            let route = Route::of(&[key, name]);
            match (name.parse::<N>(), self.read::<T>(node.clone(), &route)) {
                (Ok(name), Some(entry)) => drop(read.insert(name, entry)),
                (Err(error), _) => {
                    is_whole = false;
                    self.problems.push(self.problem(&route, Part::Key, error));
                }
                (Ok(_), None) => is_whole = false,
            }
        }
        is_whole.then_some(read)
    }

    fn listed<T: DeserializeOwned>(&mut self, root: &Node, key: &str) -> Option<Vec<T>> {
        let items = match root.entries().find(|(name, _)| *name == key) {
            None => return Some(Vec::new()),
            Some((_, Node::List(items))) => items,
            Some(_) => {
                let what = format!("is no list of tables: write [[{key}]]");
                self.problems
                    .push(self.problem(&Route::of(&[key]), Part::Key, what));
                return None;
            }
        };
        let before = self.problems.len();
        let read =
            |(index, item): (usize, &Node)| self.read(item.clone(), &Route::of(&[key]).item(index));
        let read: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        if self.problems.len() > before {
            None
        } else {
            read.into_iter().collect()
        }
    }

    /// Reads one piece; a problem is noted, what has it is taken out, and the rest is read on.
    fn read<T: DeserializeOwned>(&mut self, mut node: Node, at: &Route) -> Option<T> {
        let mut taken_out: Vec<Route> = Vec::new();
        for _ in 0..PROBLEMS_MAX {
            let error = match serde_path_to_error::deserialize(node.clone()) {
                Ok(read) if taken_out.is_empty() => return Some(read),
                Ok(_) => return None,
                Err(error) => error,
            };
            let inside = route_inside(error.path());
            let cause = error.into_inner();
            let (inside, part) = match &cause {
                Cause::UnknownKey { key, .. } if inside.last_key() != Some(key.as_str()) => {
                    (inside.key(key), Part::Key)
                }
                Cause::UnknownKey { .. } | Cause::Missing(_) => (inside, Part::Key),
                Cause::UnknownWord { .. } | Cause::WrongType { .. } | Cause::Other(_) => {
                    (inside, Part::Value)
                }
            };
            let is_consequence =
                matches!(&cause, Cause::Missing(key) if taken_out.contains(&inside.key(key)));
            let route = Route(at.0.iter().chain(&inside.0).cloned().collect());
            if !is_consequence {
                let problem = self.problem(&route, part, &cause);
                self.problems.push(problem.hint(remedy(&route, &cause)));
            }
            if matches!(cause, Cause::Missing(_)) || !node.remove(&inside.0) {
                return None;
            }
            taken_out.push(inside);
        }
        None
    }

    /// A problem at `route`, at the variable that set it or in the file.
    fn problem(&self, route: &Route, part: Part, what: impl std::fmt::Display) -> Problem {
        let sets = |(name, _): &&(String, String)| route_of(name).is_some_and(|it| it == *route);
        let variable = self
            .variables
            .iter()
            .find(sets)
            .map(|(name, _)| name.clone());
        Problem::at(&self.source, variable, route, part, what)
    }
}

/// The path of an error, in our own terms.
fn route_inside(path: &serde_path_to_error::Path) -> Route {
    let step = |segment: &serde_path_to_error::Segment| match segment {
        serde_path_to_error::Segment::Seq { index } => Some(Step::Item(*index)),
        serde_path_to_error::Segment::Map { key } => Some(Step::Key(key.clone())),
        serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
    };
    Route(path.iter().filter_map(step).collect())
}

#[cfg(test)]
mod tests;
