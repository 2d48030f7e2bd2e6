//! `reelvault tasks`: lists tasks, the oldest first.

use std::io::Write as _;
use std::path::Path;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::talk;
use crate::cli::table::Table;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::deadline::Danger;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::report::record;
use crate::report::record::Record;
use crate::units::Span;

/// Tasks read at once.
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only in this state: watching, completed, failed, cancelled, vanished, abandoned, or due, archived, lost, refused
    #[arg(short, long)]
    state: Option<String>,
    /// Only what may be lost: not archived, and its link dies within `deadline.warn`
    #[arg(long)]
    at_risk: bool,
    /// Only of this provider
    #[arg(short, long)]
    provider: Option<ProviderName>,
    /// Only learned within this time, such as "2h", or since this instant (RFC 3339)
    #[arg(long)]
    since: Option<String>,
    /// One JSON document a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn tasks(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let now = Clock::system().now();
    let mut filter = filter(arguments, now)?;
    let danger = || Danger::within(config.deadline.warn, now);
    filter.at_risk = arguments.at_risk.then(danger);
    let manifest = open::read_manifest(&config).await?;
    let places = open::places(&config);
    let mut table = Table::new(&[
        "task", "provider", "state", "model", "learned", "dies in", "assets",
    ]);
    let mut out = std::io::stdout().lock();
    loop {
        let page = page(&manifest, &mut filter).await?;
        if page.is_empty() {
            break;
        }
        for task in page {
            if arguments.json {
                writeln!(out, "{}", json(&Record::new(task, &places))?)?;
            } else {
                table.row(row(&task, now));
            }
        }
        write!(out, "{}", table.page())?;
    }
    if let Some(provider) = &arguments.provider {
        known(provider, &config, &manifest).await?;
    }
    manifest.close().await;
    if !arguments.json && table.is_empty() {
        talk!("no such tasks");
    }
    Ok(Exit::Done)
}

/// The next tasks that `filter` lets through, of which it stands behind the last afterwards; none at the end.
pub(crate) async fn page(
    manifest: &Manifest,
    filter: &mut TaskFilter,
) -> Result<Vec<TaskRecord>, ManifestError> {
    let page = manifest.tasks(filter, PAGE).await?;
    if let Some(last) = page.last() {
        filter.after_row = Some(last.row);
    }
    Ok(page)
}

/// Complains about a provider that neither the configuration nor the manifest knows: most likely it is misspelt.
async fn known(
    provider: &ProviderName,
    config: &Config,
    manifest: &Manifest,
) -> Result<(), Complaint> {
    let filter = TaskFilter {
        provider: Some(provider.clone()),
        ..TaskFilter::default()
    };
    let is_known = provider.as_str() == FETCH_PROVIDER
        || config.provider.contains_key(provider)
        || !manifest.tasks(&filter, 1).await?.is_empty();
    if is_known {
        return Ok(());
    }
    let names: Vec<&str> = config.provider.keys().map(ProviderName::as_str).collect();
    let what = format!("no provider {:?}", provider.as_str());
    Err(Complaint::new(Exit::Usage, what).hint(format!("configured are: {}", names.join(", "))))
}

/// One JSON document on one line.
pub(crate) fn json(record: &impl serde::Serialize) -> Result<String, Complaint> {
    serde_json::to_string(record).map_err(|error| Complaint::failed(error.to_string()))
}

fn filter(arguments: &Arguments, now: Timestamp) -> Result<TaskFilter, Complaint> {
    let mut filter = TaskFilter {
        provider: arguments.provider.clone(),
        ..TaskFilter::default()
    };
    if let Some(word) = &arguments.state {
        let known = filter.set_state(word);
        known.map_err(|words| {
            Complaint::new(Exit::Usage, format!("{word:?} is no state")).hint(words)
        })?;
    }
    if let Some(since) = &arguments.since {
        filter.since = Some(parse_since(since, now)?);
    }
    Ok(filter)
}

/// Reads how long ago, or an instant.
pub(crate) fn parse_since(since: &str, now: Timestamp) -> Result<Timestamp, Complaint> {
    let span = since.parse::<Span>().ok().map(|span| now.minus(span));
    span.or_else(|| Timestamp::parse(since)).ok_or_else(|| {
        Complaint::new(
            Exit::Usage,
            format!("{since:?} is neither a length of time nor an instant"),
        )
        .hint("write it like 2h or 2026-11-23T16:00:00Z")
    })
}

fn row(task: &TaskRecord, now: Timestamp) -> Vec<String> {
    let archived = task
        .assets
        .iter()
        .filter(|asset| asset.state == AssetState::Archived)
        .count();
    let dies_in = match record::dies_at(task) {
        None => "-".to_owned(),
        Some(at) if at > now => at.since(now).to_string(),
        Some(_) => "past".to_owned(),
    };
    vec![
        task.key.id.to_string(),
        task.key.provider.to_string(),
        record::state(task).to_owned(),
        task.model.clone().unwrap_or_else(|| "-".to_owned()),
        format!("{} ago", now.since(task.learned_at)),
        dies_in,
        format!("{archived}/{}", task.assets.len()),
    ]
}
