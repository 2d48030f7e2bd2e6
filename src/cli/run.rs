//! `reelvault run [--once]`: the daemon.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::archive::gauge::Gauge;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::config::Config;
use crate::daemon::server::ListenError;
use crate::daemon::server::Server;
use crate::daemon::supervisor::Supervisor;
use crate::daemon::systemd::Systemd;
use crate::daemon::wiring;
use crate::daemon::wiring::Seams;
use crate::manifest::row::Tally;
use crate::model::asset::AssetState;
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
    fit(&loaded.config, &seams).await?;
    let manifest = open::own_manifest(&loaded.config).await?;
    let reload = || {
        let loaded = Config::load(&path, open::variables())?;
        loaded.ready(&open::variable)?;
        level.set(&loaded.config.log.level)?;
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
        server,
        systemd: Systemd::new(),
        stop: CancellationToken::new(),
    };
    if !arguments.once {
        let ran = supervisor.run(loaded.config).await;
        manifest.close().await;
        ran?;
        return Ok(Exit::Done);
    }
    let ran = supervisor.run_once(&loaded.config).await;
    let tally = manifest.tally().await;
    manifest.close().await;
    ran?;
    Ok(after_once(&tally?))
}

/// Tells all that the daemon could not start with at once, and before anybody can ask it anything.
async fn fit(config: &Config, seams: &Seams) -> Result<(), Complaint> {
    let unfit = wiring::unfit(config, seams).await;
    let complaints = unfit.into_iter().map(Complaint::from);
    match complaints.reduce(Complaint::and) {
        Some(complaint) => Err(complaint),
        None => Ok(()),
    }
}

/// All that was due has been tried: what still is did not get done.
fn after_once(tally: &Tally) -> Exit {
    if tally.assets_in(AssetState::Lost) > 0 {
        Exit::AtRisk
    } else if tally.assets_in(AssetState::Due) > 0 {
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
