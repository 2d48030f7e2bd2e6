//! `reelvault import FILE`: announces the tasks of a file, a batch at a time, however many there are.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::add::parse_tag;
use crate::cli::add::tagged;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::tasks::json;
use crate::cli::wait;
use crate::clock::Clock;
use crate::daemon::wiring;
use crate::intake;
use crate::intake::Announcement;
use crate::intake::import::Format;
use crate::intake::import::Import;
use crate::intake::import::ImportError;
use crate::intake::line::Accounts;
use crate::manifest::Manifest;
use crate::manifest::row::Learned;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;

/// Tasks written in one transaction.
const BATCH: usize = 1000;

/// What CSV files are called.
const CSV_EXTENSIONS: [&str; 2] = ["csv", "tsv"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file; `-` is standard input. CSV has a header with `task_id`, `provider`, `callback_url`, `tags.NAME`; else
    /// each line is a task ID or `{"task_id": "...", "provider": "...", "tags": {...}, "callback_url": "..."}`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How it is written; else by its name, where `.csv` and `.tsv` are CSV
    #[arg(short, long, value_enum)]
    format: Option<Form>,
    /// Whose tasks they are where a line does not say; may be left out with one provider
    #[arg(short, long)]
    provider: Option<ProviderName>,
    /// A label for all, which travels into keys and records
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// Only say what is wrong, and how much would be announced
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// The summary as one JSON document
    #[arg(long)]
    json: bool,
}

/// As [`Format`]; descriptions of the words would make all of the help longer.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    Csv,
    Jsonl,
}

/// How many lines came out how.
#[derive(Debug, Default, Serialize)]
struct Summary {
    is_dry_run: bool,
    learned: u64,
    known: u64,
    bad: u64,
}

pub(crate) async fn import(config: Option<&Path>, arguments: Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let accounts = wiring::announce::accounts(&config);
    let mut import = open_import(&arguments)?;
    let manifest = if arguments.dry_run {
        None
    } else {
        Some(open::write_manifest(&config).await?)
    };
    let mut summary = Summary {
        is_dry_run: arguments.dry_run,
        ..Summary::default()
    };
    let ended = take_all(
        &mut import,
        &accounts,
        manifest.as_ref(),
        &arguments,
        &mut summary,
    );
    let ended = ended.await;
    if let Some(manifest) = &manifest {
        manifest.close().await;
    }
    // What was taken before the end is told whatever ended it.
    tell(&summary, arguments.json)?;
    ended?;
    if manifest.is_some() && summary.learned > 0 {
        wait::note_daemon(&config).await;
    }
    Ok(match (summary.bad, summary.learned + summary.known) {
        (0, _) => Exit::Done,
        (_, 0) => Exit::Usage,
        (_, _) => Exit::DoneInPart,
    })
}

async fn take_all(
    import: &mut Import,
    accounts: &Accounts,
    manifest: Option<&Manifest>,
    arguments: &Arguments,
    summary: &mut Summary,
) -> Result<(), Complaint> {
    loop {
        let batch = import.batch(BATCH)?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut announced = Vec::with_capacity(batch.len());
        for it in batch {
            let announce =
                |line| accounts.announce(line, arguments.provider.as_ref(), LearnedVia::Cli);
            match it.line.and_then(announce) {
                Ok(announcement) => announced.push(tagged(announcement, &arguments.tags)),
                Err(why) => {
                    summary.bad += 1;
                    talk!("error: line {}: {why}", it.number);
                }
            }
        }
        match manifest {
            None => summary.learned += u64::try_from(announced.len()).unwrap_or(u64::MAX),
            Some(manifest) => learn(manifest, announced, summary).await?,
        }
    }
}

async fn learn(
    manifest: &Manifest,
    announced: Vec<Announcement>,
    summary: &mut Summary,
) -> Result<(), Complaint> {
    if announced.is_empty() {
        return Ok(());
    }
    for learned in intake::learn(manifest, announced, Clock::system().now()).await? {
        match learned {
            Learned::New => summary.learned += 1,
            Learned::Known(_) => summary.known += 1,
        }
    }
    Ok(())
}

fn open_import(arguments: &Arguments) -> Result<Import, Complaint> {
    let path = &arguments.file;
    let text: Box<dyn BufRead + Send> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(path)
            .map_err(|error| Complaint::failed(format!("{}: {error}", path.display())))?;
        Box::new(BufReader::new(file))
    };
    let extension = path.extension().and_then(|it| it.to_str());
    let is_csv = extension.is_some_and(|it| {
        let lower = it.to_ascii_lowercase();
        CSV_EXTENSIONS.contains(&lower.as_str())
    });
    let format = match (arguments.format, is_csv) {
        (Some(Form::Csv), _) | (None, true) => Format::Csv,
        (Some(Form::Jsonl), _) | (None, false) => Format::Lines,
    };
    Ok(Import::new(text, format)?)
}

impl From<ImportError> for Complaint {
    fn from(error: ImportError) -> Self {
        let what = error.to_string();
        match error {
            ImportError::Header(_) => Complaint::new(Exit::Usage, what)
                .hint("the first line names the columns, such as task_id,provider,tags.customer"),
            ImportError::Read { .. } => Complaint::failed(what)
                .hint("import it again once it can be read: what is known already stays as it is"),
        }
    }
}

fn tell(summary: &Summary, as_json: bool) -> Result<(), Complaint> {
    if as_json {
        return say!("{}", json(summary)?);
    }
    let Summary {
        learned,
        known,
        bad,
        ..
    } = summary;
    if summary.is_dry_run {
        say!("{learned} would be announced, {bad} bad")
    } else {
        say!("{learned} learned, {known} known already, {bad} bad")
    }
}
