//! `reelvault fetch URL... --to DESTINATION`: archives links that no task stands behind.

use std::path::Path;

use tokio_util::sync::CancellationToken;
use url::Url;

use crate::archive::gauge::Gauge;
use crate::cli::add::parse_tag;
use crate::cli::copies;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::wait;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::server::Server;
use crate::daemon::supervisor::Supervisor;
use crate::daemon::systemd::Systemd;
use crate::intake;
use crate::manifest::Manifest;
use crate::manifest::row::ObjectPlan;
use crate::model::object::DestinationName;
use crate::model::task::TaskKey;
use crate::model::task::is_fetchable;
use crate::report::record;
use crate::telemetry::log;
use crate::telemetry::redact::Redacted;
use crate::units::Span;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The links
    #[arg(required = true, value_name = "URL", value_parser = parse_link)]
    urls: Vec<Url>,
    /// Where to; may be given several times
    #[arg(long, required = true, value_name = "DESTINATION")]
    to: Vec<DestinationName>,
    /// A label, which travels into keys and records
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// With a daemon running: wait this long for it
    #[arg(long, value_name = "TIME", default_value = "24h")]
    wait: Span,
    /// Only announce the links, for a daemon to archive
    #[arg(long)]
    no_wait: bool,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn parse_link(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if is_fetchable(&url) {
        Ok(url)
    } else {
        Err("only http and https addresses can be fetched".to_owned())
    }
}

pub(crate) async fn fetch(config: Option<&Path>, arguments: Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    for name in &arguments.to {
        copies::check_destination(&config, Some(name))?;
    }
    if arguments.dry_run {
        let to: Vec<&str> = arguments.to.iter().map(DestinationName::as_str).collect();
        for url in &arguments.urls {
            say!("{}: would be archived to {}", Redacted(url), to.join(", "))?;
        }
        return Ok(Exit::Done);
    }
    let has_daemon = Manifest::is_daemon_running(&config.manifest).await;
    let is_own = !has_daemon && !arguments.no_wait;
    let manifest = if is_own {
        open::own_manifest(&config).await?
    } else {
        open::write_manifest(&config).await?
    };
    let keys = learn(&config, &manifest, &arguments).await?;
    let exit = if arguments.no_wait {
        for key in &keys {
            say!("{} {}: announced", key.provider, key.id)?;
        }
        wait::note_daemon(&config).await;
        Exit::Done
    } else if has_daemon {
        for key in &keys {
            talk!("{} {}: announced; waiting for it", key.provider, key.id);
        }
        wait::until_archived(&config, &manifest, &keys, arguments.wait).await?
    } else {
        archive_here(&config, &manifest, &keys).await?
    };
    manifest.close().await;
    Ok(exit)
}

async fn learn(
    config: &Config,
    manifest: &Manifest,
    arguments: &Arguments,
) -> Result<Vec<TaskKey>, Complaint> {
    let plan = |destination: &DestinationName| ObjectPlan {
        destination: destination.clone(),
        key_template: config.key.clone(),
    };
    let objects: Vec<ObjectPlan> = arguments.to.iter().map(plan).collect();
    let now = Clock::system().now();
    let mut keys = Vec::new();
    for url in &arguments.urls {
        let tags = arguments.tags.iter().cloned().collect();
        let ttl = config.deadline.default;
        let learned =
            intake::learn_link(manifest, url.clone(), tags, objects.clone(), ttl, now).await?;
        keys.push(learned.0);
    }
    Ok(keys)
}

/// Without a daemon this process is one, until nothing is due.
async fn archive_here(
    config: &Config,
    manifest: &Manifest,
    keys: &[TaskKey],
) -> Result<Exit, Complaint> {
    let log = log::Config {
        level: "warn".to_owned(),
        ..config.log.clone()
    };
    log::init(&log, &open::variable).map_err(|error| Complaint::failed(error.to_string()))?;
    let seams = open::seams(config)?;
    let peers = open::peers(config, &seams).await?;
    let reload = || Ok(config.clone());
    let supervisor = Supervisor {
        manifest,
        gauge: &Gauge::default(),
        seams: &seams,
        reload: &reload,
        level: None,
        server: Server::deaf(),
        systemd: Systemd::new(),
        stop: CancellationToken::new(),
    };
    supervisor.run_once(config, peers).await?;
    let places = open::places(config);
    let mut failed = 0;
    for key in keys {
        let Some(task) = wait::find(manifest, key).await? else {
            continue;
        };
        let objects = task.assets.iter().flat_map(|asset| &asset.objects);
        let addresses: Vec<String> = objects
            .filter_map(|object| {
                let place = places.get(&object.destination)?;
                Some(place.locate(object.key.as_ref()?))
            })
            .collect();
        if record::state(&task) == "archived" {
            let addresses = addresses.join(" ");
            say!("{} {}: archived {addresses}", key.provider, key.id)?;
        } else {
            say!("{} {}: {}", key.provider, key.id, wait::outcome(&task))?;
            failed += 1;
        }
    }
    if failed > 0 {
        talk!(
            "hint:  what is due stays in the manifest: a daemon, or the same command, tries it again"
        );
    }
    Ok(match failed {
        0 => Exit::Done,
        failed if failed == keys.len() => Exit::Failed,
        _ => Exit::DoneInPart,
    })
}
