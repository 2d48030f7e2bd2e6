//! `reelvault run [--once]`: the daemon.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::archive::gauge::Gauge;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::server::ListenError;
use crate::daemon::server::Server;
use crate::daemon::supervisor::Supervisor;
use crate::daemon::systemd::Systemd;
use crate::model::asset::AssetState;
use crate::report::status::Status;
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Look at every due task, archive what is due, and exit: for cron
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    let path = open::config_path(config)?;
    let loaded = open::load(Some(&path))?;
    let level = log::init(&loaded.config.log, &open::variable)
        .map_err(|error| Complaint::new(Exit::Configuration, error.to_string()))?;
    loaded.ready(&open::variable)?;
    let seams = open::seams(&loaded.config)?;
    let peers = open::peers(&loaded.config, &seams).await?;
    let manifest = open::own_manifest(&loaded.config).await?;
    let reload = || {
        let loaded = Config::load(&path, open::variables())?;
        loaded.ready(&open::variable)?;
        Ok(loaded.config)
    };
    let server = if arguments.once {
        Server::deaf()
    } else {
        Server::bind(&loaded.config.server)
            .await
            .map_err(|error| cannot_listen(&error))?
    };
    let supervisor = Supervisor {
        manifest: &manifest,
        gauge: &Gauge::default(),
        seams: &seams,
        reload: &reload,
        level: Some(level),
        server,
        systemd: Systemd::new(),
        stop: CancellationToken::new(),
    };
    if !arguments.once {
        let ran = supervisor.run(loaded.config, peers).await;
        manifest.close().await;
        ran?;
        return Ok(Exit::Done);
    }
    let ran = supervisor.run_once(&loaded.config, peers).await;
    let warn = loaded.config.deadline.warn;
    let status = Status::read(&manifest, Clock::system().now(), warn, false).await;
    manifest.close().await;
    ran?;
    Ok(after_once(&status?))
}

/// All that was due has been tried: what still is, or could not even be asked about, did not get done.
fn after_once(status: &Status) -> Exit {
    if status.verdict != "ok" {
        Exit::AtRisk
    } else if status.tally.assets_in(AssetState::Due) > 0 || !status.waiting.is_empty() {
        Exit::DoneInPart
    } else {
        Exit::Done
    }
}

/// An address that is not there may come with the network, so only a path that is somebody else's is a mistake for good.
fn cannot_listen(error: &ListenError) -> Complaint {
    let what = error.to_string();
    if error.is_taken() {
        Complaint::failed(what)
            .hint("another daemon may be running; [server] says where this one listens")
    } else if error.is_no_socket() {
        Complaint::new(Exit::Configuration, what)
            .hint("name a path of its own, or take away what is there")
    } else {
        let key = error.key;
        Complaint::failed(what).hint(format!(
            "{key} must be where this user can listen, on an address that this machine has"
        ))
    }
}
