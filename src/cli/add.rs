//! `reelvault add TASK...`: announces tasks; `-` reads IDs or JSON lines from standard input.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;

use serde::Deserialize;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::wait;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::wiring;
use crate::intake;
use crate::intake::Announcement;
use crate::manifest::row::Learned;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::provider;
use crate::provider::description::Description;
use crate::units::Span;

/// Tasks written in one transaction.
const CHUNK: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Task IDs; `-` reads IDs or JSON lines from stdin: `{"task_id": "...", "provider": "...", "tags": {...}}`
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
    /// Whose tasks they are; may be left out with one provider
    #[arg(short, long)]
    provider: Option<ProviderName>,
    /// A label, which travels into keys and records
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// Wait until all of them are archived, or this long
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "24h")]
    wait: Option<Span>,
    /// Only say what would be announced
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// One line of standard input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task_id: TaskId,
    provider: Option<ProviderName>,
    #[serde(default)]
    tags: Tags,
}

pub(crate) async fn add(config: Option<&Path>, arguments: Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let (announced, bad) = announcements(&config, &arguments)?;
    for complaint in &bad {
        talk!("error: {complaint}");
    }
    if announced.is_empty() {
        return Ok(Exit::Usage);
    }
    let keys: Vec<TaskKey> = announced.iter().map(|it| it.key.clone()).collect();
    if arguments.dry_run {
        for key in &keys {
            say!("{} {}: would be announced", key.provider, key.id)?;
        }
        return Ok(if bad.is_empty() {
            Exit::Done
        } else {
            Exit::DoneInPart
        });
    }
    let manifest = open::write_manifest(&config).await?;
    let now = Clock::system().now();
    for chunk in announced.chunks(CHUNK) {
        let learned = intake::learn(&manifest, chunk.to_vec(), now).await?;
        for (announcement, learned) in chunk.iter().zip(learned) {
            let TaskKey { provider, id } = &announcement.key;
            match learned {
                Learned::New => say!("{provider} {id}: learned")?,
                Learned::Known(state) => say!("{provider} {id}: known, {state}")?,
            }
        }
    }
    let exit = match arguments.wait {
        Some(most) => wait::until_archived(&config, &manifest, &keys, most).await?,
        None => {
            wait::note_daemon(&config);
            Exit::Done
        }
    };
    manifest.close().await;
    Ok(if exit == Exit::Done && !bad.is_empty() {
        Exit::DoneInPart
    } else {
        exit
    })
}

/// What to announce, and a complaint for each line that cannot be: the good ones are taken all the same.
fn announcements(
    config: &Config,
    arguments: &Arguments,
) -> Result<(Vec<Announcement>, Vec<String>), Complaint> {
    let (mut announced, mut bad) = (Vec::new(), Vec::new());
    let descriptions = descriptions(config);
    let announcement = |config: &Config, arguments: &Arguments, text: &str| {
        let announced = announcement(config, arguments, text)?;
        let TaskKey { provider, id } = &announced.key;
        if let Some(description) = descriptions.get(provider) {
            description.id.split(id)?;
        }
        Ok::<_, String>(announced)
    };
    for task in &arguments.tasks {
        if task != "-" {
            match announcement(config, arguments, task) {
                Ok(announcement) => announced.push(announcement),
                Err(why) => bad.push(why),
            }
            continue;
        }
        for (number, line) in (1_u64..).zip(std::io::stdin().lock().split(b'\n')) {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if line.trim().is_empty() {
                continue;
            }
            match announcement(config, arguments, line.trim()) {
                Ok(announcement) => announced.push(announcement),
                Err(why) => bad.push(format!("line {number}: {why}")),
            }
        }
    }
    Ok((announced, bad))
}

/// The descriptions of all providers, which say what their task IDs look like. One that cannot be read is left out:
/// the daemon and `check` tell of it, and a task that is announced now is not lost for that.
fn descriptions(config: &Config) -> BTreeMap<ProviderName, Description> {
    let describe = |(name, settings): (&ProviderName, _)| {
        let described = provider::describe(name, settings).ok()?;
        Some((name.clone(), described))
    };
    wiring::task_apis(config).filter_map(describe).collect()
}

fn announcement(
    config: &Config,
    arguments: &Arguments,
    text: &str,
) -> Result<Announcement, String> {
    let line = parse_line(text)?;
    let (provider, ttl) = provider_of(config, line.provider.or(arguments.provider.clone()))?;
    Ok(Announcement {
        key: TaskKey {
            provider,
            id: line.task_id,
        },
        tags: arguments.tags.iter().cloned().chain(line.tags).collect(),
        via: LearnedVia::Cli,
        ttl,
        callback: None,
    })
}

fn parse_line(line: &str) -> Result<Line, String> {
    if line.starts_with('{') {
        return serde_json::from_str(line).map_err(|error| {
            // It is always the first line of one, which whoever reads many must not be told.
            let (what, place) = (
                error.to_string(),
                format!(" at line 1 column {}", error.column()),
            );
            what.strip_suffix(&place).unwrap_or(&what).to_owned()
        });
    }
    let task_id = line.parse::<TaskId>().map_err(|error| error.to_string())?;
    Ok(Line {
        task_id,
        provider: None,
        tags: Tags::new(),
    })
}

/// The provider that a task belongs to, and how long its links live as far as the configuration says.
fn provider_of(
    config: &Config,
    named: Option<ProviderName>,
) -> Result<(ProviderName, Span), String> {
    let known = || {
        let names: Vec<&str> = wiring::task_apis(config)
            .map(|(name, _)| name.as_str())
            .collect();
        if names.is_empty() {
            "none is configured".to_owned()
        } else {
            format!("there is {}", names.join(", "))
        }
    };
    let name = match named {
        Some(name) => name,
        None => {
            let mut names = wiring::task_apis(config).map(|(name, _)| name);
            match (names.next(), names.next()) {
                (Some(only), None) => only.clone(),
                (Some(_), Some(_)) | (None, _) => {
                    return Err(format!("whose task is it? use --provider: {}", known()));
                }
            }
        }
    };
    let settings =
        wiring::task_apis(config).find_map(|(it, settings)| (*it == name).then_some(settings));
    let settings =
        settings.ok_or_else(|| format!("no provider {:?}: {}", name.as_str(), known()))?;
    Ok((name, settings.output_ttl.unwrap_or(config.deadline.default)))
}

/// Reads `KEY=VALUE`.
pub(crate) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as KEY=VALUE".to_owned()),
    }
}
