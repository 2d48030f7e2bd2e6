//! Configuration: compiled-in defaults, a file and the environment, read into the configuration that each room owns.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::archive;
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
}

/// Everything that is wrong with a configuration, at once.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigErrors(String);

impl Loaded {
    /// What is in force, as TOML.
    pub fn show(&self, _with_origin: bool) -> String {
        toml::to_string(&self.config).unwrap_or_default()
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
        _name: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Loaded, ConfigErrors> {
        let environment = config::Environment::with_prefix("REELVAULT")
            .prefix_separator("__")
            .separator("__")
            .source(Some(variables.into_iter().collect()));
        let merged = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .add_source(environment)
            .build();
        let config = merged.and_then(config::Config::try_deserialize::<Config>);
        let config = config.map_err(|error| ConfigErrors(error.to_string()))?;
        Ok(Loaded {
            config,
            warnings: Vec::new(),
        })
    }

    /// Which destinations the assets of a task go to. The patterns were checked when the configuration was read.
    pub fn routes(&self) -> Routes {
        let destinations = self.destination.keys().cloned();
        Routes::new(&self.route, destinations, &self.key).expect("patterns are checked when read")
    }
}
