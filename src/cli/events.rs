//! `reelvault events list|replay`: what happened, who was told, and telling it again.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::table::Table;
use crate::cli::tasks::json;
use crate::cli::tasks::parse_since;
use crate::clock::Clock;
use crate::config::Config;
use crate::manifest::Manifest;
use crate::manifest::row::event::DeliveryRecord;
use crate::manifest::row::event::EventFilter;
use crate::manifest::row::event::EventRecord;
use crate::model::event::DeliveryState;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::model::task::TaskId;
use crate::report::events::Told;

/// Events read at once.
const PAGE: usize = 500;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List events, the oldest first, and how far each endpoint was told
    List(List),
    /// Tell endpoints again, under the same message IDs
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only within this time, such as "2h", or since this instant (RFC 3339)
    #[arg(long)]
    since: Option<String>,
    /// Only of this kind: learned, ready, archived, failed, `at_risk`, lost
    #[arg(short, long)]
    kind: Option<EventKind>,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// One JSON document a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// The events' numbers, as `events list` tells them
    #[arg(value_name = "NUMBER", required_unless_present = "since")]
    numbers: Vec<i64>,
    /// All within this time, such as "2h", or since this instant (RFC 3339)
    #[arg(long, conflicts_with = "numbers")]
    since: Option<String>,
    /// Only of this kind: learned, ready, archived, failed, `at_risk`, lost
    #[arg(short, long)]
    kind: Option<EventKind>,
    /// Only this endpoint
    #[arg(short, long, value_name = "NAME")]
    endpoint: Option<EndpointName>,
    /// Only list which would be told again
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// An event on a line of JSON.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    told: Told,
    deliveries: Vec<DeliveryRecord>,
}

pub(crate) async fn events(config: Option<&Path>, command: &Command) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let now = Clock::system().now();
    let since = |since: &Option<String>| {
        let since = since.as_deref().map(|since| parse_since(since, now));
        since.transpose()
    };
    match command {
        Command::List(it) => {
            let filter = EventFilter {
                since: since(&it.since)?,
                kind: it.kind,
                task: it.task.clone(),
                ..EventFilter::default()
            };
            list(&config, filter, it.json).await
        }
        Command::Replay(it) => {
            let filter = EventFilter {
                numbers: it.numbers.clone(),
                since: since(&it.since)?,
                kind: it.kind,
                ..EventFilter::default()
            };
            if it.dry_run {
                return list(&config, filter, false).await;
            }
            replay(&config, &filter, it.endpoint.as_ref()).await
        }
    }
}

async fn list(config: &Config, mut filter: EventFilter, as_json: bool) -> Result<Exit, Complaint> {
    let manifest = open::read_manifest(config).await?;
    let mut table = Table::new(&["event", "at", "kind", "task", "asset", "told", "reason"]);
    let mut out = std::io::stdout().lock();
    loop {
        let page = manifest.events(&filter, PAGE).await?;
        let Some(last) = page.last() else { break };
        filter.after = Some(last.event.number);
        for record in page {
            if as_json {
                writeln!(out, "{}", json(&shown(record))?)?;
            } else {
                table.row(row(&record));
            }
        }
    }
    manifest.close().await;
    if !as_json && table.is_empty() {
        talk!("no such events");
    } else if !as_json {
        write!(out, "{table}")?;
    }
    Ok(Exit::Done)
}

async fn replay(
    config: &Config,
    filter: &EventFilter,
    endpoint: Option<&EndpointName>,
) -> Result<Exit, Complaint> {
    let manifest = open::write_manifest(config).await?;
    let count = manifest.replay(filter, endpoint).await?;
    manifest.close().await;
    if count == 0 {
        return Err(Complaint::new(Exit::NotFound, "no such events")
            .hint("`reelvault events list` names those that are kept"));
    }
    say!("{count} events: told again")?;
    if !Manifest::is_daemon_running(&config.manifest).await {
        talk!("note: no daemon is running; they are told once one is: `reelvault run`");
    }
    Ok(Exit::Done)
}

fn shown(record: EventRecord) -> Shown {
    Shown {
        told: record.event.into(),
        deliveries: record.deliveries,
    }
}

fn row(record: &EventRecord) -> Vec<String> {
    let event = &record.event;
    vec![
        event.number.to_string(),
        event.at.to_string(),
        event.kind.to_string(),
        event.task.id.to_string(),
        event
            .index
            .map(|index| index.to_string())
            .unwrap_or_default(),
        told(&record.deliveries),
        event.reason.clone().unwrap_or_default(),
    ]
}

/// Each endpoint and how far it was told.
fn told(deliveries: &[DeliveryRecord]) -> String {
    let tell = |it: &DeliveryRecord| match it.state {
        DeliveryState::Sent => it.endpoint.to_string(),
        DeliveryState::Due if it.attempts == 0 => format!("{} (due)", it.endpoint),
        DeliveryState::Due => format!("{} (failed {} times)", it.endpoint, it.attempts),
        DeliveryState::GivenUp => format!("{} (given up)", it.endpoint),
    };
    deliveries.iter().map(tell).collect::<Vec<_>>().join(", ")
}
