//! What commands open first: the configuration, the manifest, and the outside.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::chance::Dice;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::say::talk;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::Loaded;
use crate::daemon::wiring;
use crate::daemon::wiring::Peers;
use crate::daemon::wiring::Seams;
use crate::http;
use crate::http::roots::Roots;
use crate::manifest::Access;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::report::record::Places;
use crate::store::Store;

/// Where a configuration is looked for when no flag names one.
const CONFIG_PATHS: [&str; 2] = ["reelvault.toml", "/etc/reelvault/reelvault.toml"];

/// The path of the configuration: the flag's, the environment's, or the first that exists.
pub(crate) fn config_path(flag: Option<&Path>) -> Result<PathBuf, Complaint> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("REELVAULT_CONFIG") {
        return Ok(path.into());
    }
    let found = CONFIG_PATHS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    found.ok_or_else(|| {
        let what = format!(
            "no configuration: neither {} exists",
            CONFIG_PATHS.join(" nor ")
        );
        Complaint::new(Exit::Configuration, what)
            .hint("`reelvault init` writes one; -c FILE names another")
    })
}

/// Loads the configuration and tells its warnings.
pub(crate) fn load(flag: Option<&Path>) -> Result<Loaded, Complaint> {
    let loaded = Config::load(&config_path(flag)?, variables())?;
    for warning in &loaded.warnings {
        talk!("warning: {warning}");
    }
    Ok(loaded)
}

/// The environment as the configuration reads it; a variable that is no UTF-8 cannot be one of ours.
pub(crate) fn variables() -> Vec<(String, String)> {
    let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(utf8).collect()
}

/// One variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Opens the manifest for reading, and says so when no daemon is behind it.
pub(crate) async fn read_manifest(config: &Config) -> Result<Manifest, Complaint> {
    let manifest = Manifest::open(&config.manifest, Clock::system(), Access::Reader).await?;
    if !Manifest::is_daemon_running(&config.manifest).await {
        talk!("note: no daemon is running; this is the manifest as it was left");
    }
    Ok(manifest)
}

/// Opens the manifest for a small change, which a running daemon sees within a second.
pub(crate) async fn write_manifest(config: &Config) -> Result<Manifest, Complaint> {
    Ok(Manifest::open(&config.manifest, Clock::system(), Access::Writer).await?)
}

/// Opens the manifest for a daemon.
pub(crate) async fn own_manifest(config: &Config) -> Result<Manifest, ManifestError> {
    Manifest::open(&config.manifest, Clock::system(), Access::Daemon).await
}

/// Where the destinations are.
pub(crate) fn places(config: &Config) -> Places {
    wiring::face::places(config)
}

/// The real outside.
pub(crate) fn seams(config: &Config) -> Result<Seams, Complaint> {
    let roots = Roots::load(&[]).map_err(|error| Complaint::failed(error.to_string()))?;
    let s3_http = Store::http_client(config.transfer.connect_timeout, &roots);
    let s3_http = s3_http.map_err(|error| Complaint::failed(error.to_string()))?;
    Ok(Seams {
        clock: Clock::system(),
        dice: Dice::new(),
        env: Arc::new(variable),
        http: Arc::new(|client| Ok(http::client::connect(&client)?)),
        s3_http,
        roots,
    })
}

/// Whom a daemon talks to, ready; all that it could not start with is told at once.
pub(crate) async fn peers(config: &Config, seams: &Seams) -> Result<Peers, Complaint> {
    Peers::connect(config, seams).await.map_err(|unfit| {
        let complaints = unfit.0.into_iter().map(Complaint::from);
        let complaint = complaints.reduce(Complaint::and);
        complaint.unwrap_or_else(|| Complaint::failed("nobody is ready"))
    })
}
