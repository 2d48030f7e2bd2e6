//! Configuration: compiled-in defaults, a file and the environment, read into the configuration that each room owns.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::archive;
use crate::config::check::check;
use crate::config::locate::Document;
use crate::config::node::Node;
use crate::config::problem::Sources;
use crate::config::salvage::salvage;
use crate::intake::gateway;
use crate::intake::spool;
use crate::manifest;
use crate::model::key::KeyTemplate;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::provider;
use crate::report::heartbeat;
use crate::report::links;
use crate::report::notify;
use crate::secret::SecretSource;
use crate::store;
use crate::telemetry::log;
use crate::watch;
use crate::watch::RouteConfig;
use crate::watch::route::Routes;

pub use self::ready::NotReady;
pub use self::ready::Unready;
pub use self::server::ServerConfig;

mod check;
mod locate;
mod node;
mod problem;
mod read;
mod ready;
mod salvage;
mod server;
mod show;
#[cfg(test)]
mod tests;

/// The first layer, and the only home of defaults.
const DEFAULTS: &str = include_str!("../config/default.toml");

/// Everything that is in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
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
    /// `[gateway]`
    pub gateway: gateway::Config,
    /// `[spool]`
    pub spool: spool::Config,
    /// `[heartbeat]`
    pub heartbeat: heartbeat::Config,
    /// `[callback]`
    #[serde(default)]
    pub callback: notify::CallbackConfig,
    /// `[[notify]]`
    #[serde(default)]
    pub notify: Vec<notify::Config>,
    /// `[links]`
    pub links: links::Config,
    /// `[provider.NAME]`
    #[serde(default)]
    pub provider: BTreeMap<ProviderName, provider::Config>,
    /// `[destination.NAME]`
    #[serde(default)]
    pub destination: BTreeMap<DestinationName, store::Config>,
    /// `[[route]]`
    #[serde(default)]
    pub route: Vec<RouteConfig>,
}

/// A configuration with what is worth saying about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What works but most likely is not meant.
    pub warnings: Vec<String>,
    /// Where each secret is to be had.
    secrets: Vec<(node::Path, SecretSource)>,
    sources: Sources,
}

/// Everything that is wrong with a configuration, at once.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigErrors(String);

impl Loaded {
    /// What is in force, as TOML. With `with_origin`, each line says which layer it is from. Secrets appear as the
    /// places that hold them, and headers without their values.
    pub fn show(&self, with_origin: bool) -> String {
        show::show(&self.config, with_origin.then_some(&self.sources))
    }
}

impl Config {
    /// Loads the file at `path` between the defaults and `variables`, the environment.
    pub fn load(path: &Path, variables: Vec<(String, String)>) -> Result<Loaded, ConfigErrors> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| ConfigErrors(format!("{}: {error}", path.display())))?;
        Self::parse(&text, &path.display().to_string(), variables)
    }

    /// Reads `text`, which stands at `name`, between the defaults and `variables`, the environment.
    pub fn parse(
        text: &str,
        name: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Loaded, ConfigErrors> {
        let document = Document::parse(text, name);
        let document = document.map_err(|error| ConfigErrors(error.tell(name)))?;
        let sources = Sources::new(document, variables);
        let tree = merged(text, &sources);
        let tree = tree.map_err(|error| ConfigErrors(format!("{name}: {error}")))?;
        let salvaged = salvage(tree.clone(), &defaults());
        let mut problems = salvaged.problems;
        let checked = salvaged
            .config
            .as_ref()
            .map(|config| check(config, &tree, &salvaged.failed));
        let checked = checked.unwrap_or_default();
        problems.extend(checked.problems);
        match salvaged.config {
            Some(config) if problems.is_empty() => Ok(Loaded {
                config,
                warnings: checked.warnings,
                secrets: checked.secrets,
                sources,
            }),
            Some(_) | None => Err(ConfigErrors(sources.tell(problems))),
        }
    }

    /// Which destinations the assets of a task go to.
    ///
    /// # Panics
    ///
    /// Where a pattern is none, which no configuration that was read has.
    pub fn routes(&self) -> Routes {
        let destinations = self.destination.keys().cloned();
        Routes::new(&self.route, destinations, &self.key).expect("patterns are checked when read")
    }
}

/// The layers as one tree. Tables are merged key by key; any other value is replaced whole, and so is where a secret is.
///
/// Keys are taken as they are. The `config` crate would read those of the root, and the names of variables, as paths
/// with indices, and `x[99999999999]` makes it allocate as many elements.
fn merged(text: &str, sources: &Sources) -> Result<Node, config::ConfigError> {
    let mut tree = defaults();
    tree.overlay(Node::read(text)?);
    let mut environment = Node::Table(BTreeMap::new());
    for (path, value) in sources.variables() {
        environment.set(path, Node::String(value.to_owned()));
    }
    tree.overlay(environment);
    Ok(tree)
}

fn defaults() -> Node {
    Node::read(DEFAULTS).expect("a test reads the defaults")
}
