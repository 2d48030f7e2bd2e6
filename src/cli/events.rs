//! `reelvault events list|replay`: what happened, who was told, and telling it again.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::chance::Dice;
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
use crate::manifest::row::event::Subscriber;
use crate::model::event::DeliveryState;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::model::task::TaskId;
use crate::report::events::Told;
use crate::report::notify;

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
            let manifest = open::read_manifest(&config).await?;
            let count = list(&manifest, filter, |_| true, it.json).await?;
            manifest.close().await;
            if count == 0 && !it.json {
                talk!("no such events");
            }
            Ok(Exit::Done)
        }
        Command::Replay(it) => {
            let filter = EventFilter {
                numbers: it.numbers.clone(),
                since: since(&it.since)?,
                kind: it.kind,
                ..EventFilter::default()
            };
            if let Some(endpoint) = &it.endpoint {
                check_endpoint(&config, endpoint)?;
            }
            replay(&config, filter, it).await
        }
    }
}

/// Prints the events that are `wanted`, and how many they are.
async fn list(
    manifest: &Manifest,
    mut filter: EventFilter,
    wanted: impl Fn(&EventRecord) -> bool,
    as_json: bool,
) -> Result<u64, Complaint> {
    let mut table = Table::new(&["event", "at", "kind", "task", "asset", "told", "reason"]);
    let mut out = std::io::stdout().lock();
    let mut count = 0;
    loop {
        let page = manifest.events(&filter, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        filter.after = Some(last.event.number);
        for record in page.into_iter().filter(&wanted) {
            count += 1;
            if as_json {
                writeln!(out, "{}", json(&shown(record))?)?;
            } else {
                table.row(row(&record));
            }
        }
        write!(out, "{}", table.page())?;
    }
}

async fn replay(
    config: &Config,
    filter: EventFilter,
    arguments: &Replay,
) -> Result<Exit, Complaint> {
    let only = arguments.endpoint.as_ref();
    let subscribers: Vec<Subscriber> = config.notify.iter().map(subscriber).collect();
    let manifest = if arguments.dry_run {
        open::read_manifest(config).await?
    } else {
        open::write_manifest(config).await?
    };
    let unknown = unknown(&manifest, &filter.numbers).await?;
    let count = if arguments.dry_run {
        let troubles = manifest.endpoint_troubles().await?;
        let disabled = troubles.into_iter().filter(|it| it.disabled_at.is_some());
        let disabled: Vec<EndpointName> = disabled.map(|it| it.endpoint).collect();
        let wanted = |record: &EventRecord| is_told_again(record, &subscribers, only, &disabled);
        list(&manifest, filter, wanted, false).await?
    } else {
        let nonce = Dice::new().nonce();
        manifest.replay(&filter, &subscribers, only, nonce).await?
    };
    manifest.close().await;
    if count == 0 {
        let what = match only {
            None => "no such events, or nobody who wants them".to_owned(),
            Some(endpoint) => format!("no such events, or {endpoint} wants none of them"),
        };
        return Err(Complaint::new(Exit::NotFound, what)
            .hint("`reelvault events list` names those that are kept; a disabled endpoint is told nothing until a reload (SIGHUP)"));
    }
    for number in &unknown {
        talk!("error: no event {number}");
    }
    if !arguments.dry_run {
        say!("{count} events: told again")?;
        if !Manifest::is_daemon_running(&config.manifest).await {
            talk!("note: no daemon is running; they are told once one is: `reelvault run`");
        }
    }
    Ok(if unknown.is_empty() {
        Exit::Done
    } else {
        Exit::DoneInPart
    })
}

/// Whether [`Manifest::replay`] has somebody to tell an event: who was told or is to be, or wants its kind.
fn is_told_again(
    record: &EventRecord,
    subscribers: &[Subscriber],
    only: Option<&EndpointName>,
    disabled: &[EndpointName],
) -> bool {
    let is_meant = |name: &EndpointName| only.is_none_or(|only| only == name);
    let listens = |name: &EndpointName| is_meant(name) && !disabled.contains(name);
    let is_due = |it: &DeliveryRecord| it.state == DeliveryState::Due && is_meant(&it.endpoint);
    let mut deliveries = record.deliveries.iter();
    let mut wanted = subscribers.iter().filter(|it| listens(&it.endpoint));
    deliveries.any(|it| is_due(it) || listens(&it.endpoint))
        || wanted.any(|it| it.kinds.contains(&record.event.kind))
}

/// Refuses a name that nobody has. Hosts of callbacks are not configured: whom there is, the manifest says.
fn check_endpoint(config: &Config, endpoint: &EndpointName) -> Result<(), Complaint> {
    let names: Vec<EndpointName> = config.notify.iter().map(notify::Config::endpoint).collect();
    if endpoint.is_callback() || names.contains(endpoint) {
        return Ok(());
    }
    let known = if names.is_empty() {
        "none is configured".to_owned()
    } else {
        let names: Vec<&str> = names.iter().map(EndpointName::as_str).collect();
        format!("there is {}", names.join(", "))
    };
    let what = format!("no endpoint {:?}: {known}", endpoint.as_str());
    Err(Complaint::new(Exit::NotFound, what))
}

fn subscriber(settings: &notify::Config) -> Subscriber {
    Subscriber {
        endpoint: settings.endpoint(),
        kinds: settings.when.clone(),
    }
}

/// Those of the numbers that no event has.
async fn unknown(manifest: &Manifest, numbers: &[i64]) -> Result<Vec<i64>, Complaint> {
    let filter = EventFilter {
        numbers: numbers.to_vec(),
        ..EventFilter::default()
    };
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let found = manifest.events(&filter, numbers.len()).await?;
    let is_unknown = |number: &i64| !found.iter().any(|it| it.event.number == *number);
    Ok(numbers.iter().copied().filter(is_unknown).collect())
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
