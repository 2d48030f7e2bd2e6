//! `reelvault task show|retry|forget ID`: looks at one task, tries it again, forgets it.

use std::path::Path;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::say_text;
use crate::cli::tasks::json;
use crate::cli::wait;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::manifest::Manifest;
use crate::manifest::meant::NotOne;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::report::record;
use crate::report::record::Places;
use crate::report::record::Record;
use crate::telemetry::redact::Redacted;
use crate::units::ByteSize;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show everything that is known of a task
    Show {
        #[command(flatten)]
        which: Which,
        /// As one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Try a task again now, also one that was lost, refused, vanished or abandoned
    Retry {
        #[command(flatten)]
        which: Which,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Forget a task; its archived objects stay where they are
    Forget {
        #[command(flatten)]
        which: Which,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The task ID
    #[arg(value_name = "TASK")]
    pub(crate) id: TaskId,
    /// Whose task it is, where two providers have the same ID
    #[arg(short, long)]
    pub(crate) provider: Option<ProviderName>,
}

pub(crate) async fn task(config: Option<&Path>, command: &Command) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    match command {
        Command::Show {
            which,
            json: as_json,
        } => {
            let manifest = open::read_manifest(&config).await?;
            let task = find(&manifest, which).await?;
            manifest.close().await;
            let places = open::places(&config);
            if *as_json {
                say!("{}", json(&Record::new(task, &places))?)?;
            } else {
                say_text!("{}", describe(&task, &places, Clock::system().now()))?;
            }
        }
        Command::Retry { which, dry_run } => retry(&config, which, *dry_run).await?,
        Command::Forget { which, dry_run } => forget(&config, which, *dry_run).await?,
    }
    Ok(Exit::Done)
}

async fn retry(config: &Config, which: &Which, dry_run: bool) -> Result<(), Complaint> {
    let manifest = open_for(config, dry_run).await?;
    let key = find(&manifest, which).await?.key;
    if dry_run {
        say!("{} {}: would be tried again", key.provider, key.id)?;
    } else if manifest.retry(Some(&key.provider), &key.id).await? == 0 {
        say!("{} {}: nothing to try again", key.provider, key.id)?;
    } else {
        say!("{} {}: due now", key.provider, key.id)?;
        wait::note_daemon(config).await;
    }
    manifest.close().await;
    Ok(())
}

async fn forget(config: &Config, which: &Which, dry_run: bool) -> Result<(), Complaint> {
    let manifest = open_for(config, dry_run).await?;
    let TaskKey { provider, id } = find(&manifest, which).await?.key;
    if dry_run {
        say!("{provider} {id}: would be forgotten")?;
    } else {
        manifest.forget(&provider, &id).await?;
        say!("{provider} {id}: forgotten; archived objects stay where they are")?;
    }
    manifest.close().await;
    Ok(())
}

/// A manifest that is only looked at is not made where there is none.
async fn open_for(config: &Config, dry_run: bool) -> Result<Manifest, Complaint> {
    if dry_run {
        open::read_manifest(config).await
    } else {
        open::write_manifest(config).await
    }
}

/// The one task that is meant.
pub(crate) async fn find(manifest: &Manifest, which: &Which) -> Result<TaskRecord, Complaint> {
    let found = manifest.the_task(which.provider.as_ref(), &which.id).await;
    found.map_err(|error| match error {
        NotOne::Unknown(_) => Complaint::new(Exit::NotFound, error.to_string())
            .hint("`reelvault tasks` lists them, `reelvault add` announces one"),
        NotOne::Several { .. } => {
            Complaint::new(Exit::Usage, error.to_string()).hint("say which with --provider")
        }
        NotOne::Manifest(error) => error.into(),
    })
}

/// How far off something is, unless it is due.
fn when(at: Timestamp, now: Timestamp) -> Option<String> {
    (at > now).then(|| format!("in {}", at.since(now)))
}

fn describe(task: &TaskRecord, places: &Places, now: Timestamp) -> String {
    let mut lines = vec![
        format!("task      {}", task.key.id),
        format!("provider  {}", task.key.provider),
        format!("state     {}", record::state(task)),
        format!("learned   {} via {}", task.learned_at, task.learned_via),
        format!(
            "dies      {} (from {})",
            task.deadline.at, task.deadline.from
        ),
    ];
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:9} {value}")));
    };
    add("model", task.model.clone());
    add("created", task.created_at.map(|at| at.to_string()));
    add("completed", task.completed_at.map(|at| at.to_string()));
    add(
        "upstream",
        task.status.as_ref().map(|status| match task.percent {
            Some(percent) => format!("{status}, {percent} %"),
            None => status.clone(),
        }),
    );
    add(
        "next look",
        task.next_look_at.map(|at| match when(at, now) {
            Some(later) => later,
            None => "due; looks that bring no news leave no trace here".to_owned(),
        }),
    );
    add(
        "failed",
        task.task_error
            .as_ref()
            .map(|error| format!("{}: {}", error.code, error.message)),
    );
    add("error", task.error.clone());
    let tags: Vec<String> = task
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    add("tags", (!tags.is_empty()).then(|| tags.join(" ")));
    for asset in &task.assets {
        lines.extend(describe_asset(asset, places, now));
    }
    lines.join("\n") + "\n"
}

fn describe_asset(asset: &AssetRecord, places: &Places, now: Timestamp) -> Vec<String> {
    let size = asset
        .size
        .map(|size| format!(", {}", ByteSize::bytes(size)))
        .unwrap_or_default();
    let mut lines = vec![
        String::new(),
        format!(
            "asset {}   {} {}{size}",
            asset.index, asset.role, asset.state
        ),
        format!("  from    {}", Redacted(&asset.url)),
    ];
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name:7} {value}")));
    };
    add("sha256", asset.sha256.map(|digest| digest.to_string()));
    add("crc64", asset.crc64nvme.map(|crc| crc.to_string()));
    add(
        "due",
        asset.due_at.map(|at| {
            let when = when(at, now).unwrap_or_else(|| "now".to_owned());
            format!("{when}, after {} failed tries", asset.attempts)
        }),
    );
    add("error", asset.error.clone());
    lines.extend(
        asset
            .objects
            .iter()
            .map(|object| describe_object(asset.state, object, places)),
    );
    lines
}

fn describe_object(asset: AssetState, object: &ObjectRecord, places: &Places) -> String {
    let address = address(object, places);
    let archived = object
        .archived_at
        .map(|at| format!(" {at}"))
        .unwrap_or_default();
    let verified = object
        .verified
        .map(|verified| format!(", verified by {verified}"))
        .unwrap_or_default();
    let state = record::object_state(asset, object);
    format!("  to      {address} ({state}{archived}{verified})")
}

/// Where an object is, or the destination alone as long as it has no key.
pub(crate) fn address(object: &ObjectRecord, places: &Places) -> String {
    let place = places.get(&object.destination).zip(object.key.as_ref());
    place.map_or_else(
        || object.destination.to_string(),
        |(place, key)| place.locate(key),
    )
}
