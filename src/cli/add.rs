//! `reelvault add TASK...`: announces tasks; `-` reads IDs or JSON lines from standard input.

use std::io::BufReader;
use std::path::Path;

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
use crate::intake::import::Format;
use crate::intake::import::Import;
use crate::intake::import::Numbered;
use crate::intake::line::Line;
use crate::manifest::row::Learned;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::TaskKey;
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

pub(crate) async fn add(config: Option<&Path>, arguments: Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let (announced, bad) = announcements(&config, &arguments)?;
    for complaint in &bad {
        talk!("error: {complaint}");
    }
    if announced.is_empty() && bad.is_empty() {
        // A program that had nothing to say is no mistake.
        talk!("note: standard input names no task, so there is nothing to announce");
        return Ok(Exit::Done);
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
            // As for what is new: a few are waited for, more are a list.
            if arguments.wait.is_some() && keys.len() <= intake::ASKED_FOR_MAX {
                manifest.hear(&announcement.key).await?;
            }
        }
    }
    let exit = match arguments.wait {
        Some(most) => wait::until_archived(&config, &manifest, &keys, most).await?,
        None => {
            wait::note_daemon(&config).await;
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
    let accounts = wiring::announce::accounts(config);
    let announce = |line: Result<Line, String>| {
        let provider = arguments.provider.as_ref();
        let announced = accounts.announce(line?, provider, LearnedVia::Cli);
        announced.map(|it| tagged(it, &arguments.tags))
    };
    let (mut announced, mut bad) = (Vec::new(), Vec::new());
    for task in &arguments.tasks {
        if task != "-" {
            match announce(Line::parse(task)) {
                Ok(announcement) => announced.push(announcement),
                Err(why) => bad.push(why),
            }
            continue;
        }
        let text = Box::new(BufReader::new(std::io::stdin()));
        let mut import = Import::new(text, Format::Lines)?;
        while let Some(Numbered { number, line }) = import.next_line()? {
            match announce(line) {
                Ok(announcement) => announced.push(announcement),
                Err(why) => bad.push(format!("line {number}: {why}")),
            }
        }
    }
    Ok((announced, bad))
}

/// The same with the labels of the command line, of which its own beat those.
pub(crate) fn tagged(mut announcement: Announcement, tags: &[(String, String)]) -> Announcement {
    for (key, value) in tags {
        let own = announcement.tags.entry(key.clone());
        own.or_insert_with(|| value.clone());
    }
    announcement
}

/// Reads `KEY=VALUE`.
pub(crate) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as KEY=VALUE".to_owned()),
    }
}
