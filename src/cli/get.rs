//! `reelvault get ID -o FILE`: the bytes of an archived copy, from its destination, checked against the manifest.

mod file;

use std::path::Path;
use std::path::PathBuf;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::copies;
use crate::cli::copies::ArchivedCopy;
use crate::cli::copies::Trouble;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::get::file::File;
use crate::cli::open;
use crate::cli::say::talk;
use crate::cli::task;
use crate::cli::task::Which;
use crate::config::Config;
use crate::daemon::wiring;
use crate::daemon::wiring::Seams;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::TaskRecord;
use crate::model::object::DestinationName;
use crate::store::StoreErrorKind;
use crate::units::ByteSize;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Where to; - for stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The number of the asset, where there are several
    #[arg(long, value_name = "N")]
    asset: Option<u32>,
    /// Only the copy at this destination; else the first that can be had
    #[arg(long, value_name = "NAME")]
    destination: Option<DestinationName>,
    /// Overwrite FILE
    #[arg(long)]
    force: bool,
}

/// A copy that could not be got.
struct Failed {
    complaint: Complaint,
    /// Whether another copy would do no better.
    is_final: bool,
}

pub(crate) async fn get(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    copies::check_destination(&config, arguments.destination.as_ref())?;
    let file = match arguments.output.to_str() {
        Some("-") => None,
        Some(_) | None => Some(File::check(&arguments.output, arguments.force)?),
    };
    let manifest = open::read_manifest(&config).await?;
    let found = task::find(&manifest, &arguments.which).await;
    manifest.close().await;
    let task = found?;
    let asset = one(&task, arguments.asset)?;
    let copies = copies::of_asset(&task.key, asset, arguments.destination.as_ref());
    let copies: Vec<ArchivedCopy> = copies
        .filter(|copy| config.destination.contains_key(&copy.destination))
        .collect();
    if copies.is_empty() {
        return Err(copies::none_archived(&task));
    }
    let Some(file) = file else {
        return first(&config, &copies, None).await;
    };
    let mut terminate = signal(SignalKind::terminate())?;
    // Whichever ends first drops the others, and a partial file goes with its guard.
    tokio::select! {
        done = first(&config, &copies, Some(&file)) => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(Exit::Interrupted)
        }
        _ = terminate.recv() => Ok(Exit::Interrupted),
    }
}

/// The one asset that is meant.
fn one(task: &TaskRecord, number: Option<u32>) -> Result<&AssetRecord, Complaint> {
    match copies::assets(task, number)?.as_slice() {
        [] => Err(copies::none_archived(task)),
        [asset] => Ok(asset),
        several => {
            let what = format!("{} has {} assets", task.key.id, several.len());
            let hint = format!("say which with --asset; it has {}", copies::listed(task));
            Err(Complaint::new(Exit::Usage, what).hint(hint))
        }
    }
}

/// Gets the first copy that can be had.
async fn first(
    config: &Config,
    copies: &[ArchivedCopy],
    file: Option<&File<'_>>,
) -> Result<Exit, Complaint> {
    let seams = open::seams(config)?;
    let mut left = copies.iter().peekable();
    while let Some(copy) = left.next() {
        match fetch(config, &seams, copy, file).await {
            Ok(()) => break,
            Err(failed) if failed.is_final || left.peek().is_none() => {
                return Err(failed.complaint);
            }
            Err(failed) => talk!(
                "note: {}; trying the next copy",
                failed.complaint.into_words().0
            ),
        }
    }
    Ok(Exit::Done)
}

async fn fetch(
    config: &Config,
    seams: &Seams,
    copy: &ArchivedCopy,
    file: Option<&File<'_>>,
) -> Result<(), Failed> {
    let settings = config.destination.get(&copy.destination);
    let settings = settings.expect("copies at other destinations were left out");
    let store = wiring::connect::store(&copy.destination, settings, seams).await;
    let store = store.map_err(|error| Failed {
        complaint: error.into(),
        is_final: false,
    })?;
    let place = store.locate(&copy.key);
    let failed = |trouble, is_written| Failed {
        is_final: is_written || matches!(trouble, Trouble::Sink(_)),
        complaint: complaint(trouble, &place, file),
    };
    let body = copy.open(&store).await.map_err(|it| failed(it, false))?;
    let name = match file {
        None => {
            // What went out cannot be taken back: another copy would come behind half of this one.
            let poured = match file::stdout() {
                Ok(stdout) => copy.pour(body, stdout).await,
                Err(error) => Err(Trouble::Sink(error)),
            };
            poured.map_err(|trouble| failed(trouble, true))?;
            "-".to_owned()
        }
        Some(file) => {
            let nonce = seams.dice.nonce();
            let filled = file.fill(&nonce, copy, body).await;
            filled.map_err(|trouble| failed(trouble, false))?;
            file.name()
        }
    };
    let digests = copy.sha256.map_or("CRC64NVME", |_| "CRC64NVME and SHA-256");
    let length = ByteSize::bytes(copy.length);
    talk!("{name}: {length} from {place}, {digests} as archived");
    Ok(())
}

fn complaint(trouble: Trouble, place: &str, file: Option<&File<'_>>) -> Complaint {
    let spoilt = match file {
        Some(_) => {
            "no file was written; another copy, if there is one, is at another --destination"
        }
        None => "what went to stdout is not what was archived",
    };
    match trouble {
        Trouble::Missing => {
            let what = format!("{place}: nothing is there, though it was archived");
            Complaint::new(Exit::Differs, what)
                .hint("`reelvault manifest verify` tells what else is missing")
        }
        Trouble::Differs(what) => {
            Complaint::new(Exit::Differs, format!("{place}: {what}")).hint(spoilt)
        }
        Trouble::Store(error) if error.kind == StoreErrorKind::Blocked => {
            Complaint::new(Exit::Refused, format!("{place}: {error}"))
                .hint("`reelvault check` tries the destination")
        }
        Trouble::Store(error) => Complaint::failed(format!("{place}: {error}"))
            .hint("nothing whole was got: run the same command again"),
        Trouble::Sink(error) => match file {
            Some(file) => file.complaint(&error),
            None => Complaint::failed(format!("stdout: {error}"))
                .hint("what went there is not whole, and was not checked"),
        },
    }
}
