//! `reelvault manifest get|list|export`: reads the manifest. `verify` holds it against the destinations, `rebuild` makes
//! it anew from one, `migrate` moves it to another engine.

mod migrate;
mod rebuild;
mod verify;

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::table::Table;
use crate::cli::task;
use crate::cli::task::Which;
use crate::cli::tasks;
use crate::manifest::Manifest;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::object::ObjectState;
use crate::model::task::ProviderName;
use crate::report::record;
use crate::report::record::Places;
use crate::report::record::Record;
use crate::units::ByteSize;

/// Objects that a destination is asked about at once.
const LOOKS: usize = 16;

/// How often it is asked about one that a bad moment of it hides: nobody comes back to that later.
const TRIES: u32 = 3;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print the record of one task as JSON
    Get {
        #[command(flatten)]
        which: Which,
        /// Only this field, such as `state` or `assets.0.objects.0.key`
        #[arg(long, value_name = "PATH")]
        field: Option<String>,
    },
    /// List archived objects
    List {
        /// Only of this provider
        #[arg(short, long)]
        provider: Option<ProviderName>,
        /// One JSON document a task, a line each
        #[arg(long)]
        json: bool,
    },
    /// Write all records to stdout
    Export {
        /// jsonl: a record a line; csv: an object a line
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
    /// Ask the destinations whether what is archived is still there, and the same
    Verify(verify::Arguments),
    /// Write down anew what a bucket holds of ours, where the manifest was lost
    Rebuild(rebuild::Arguments),
    /// Move everything from a file to a server, or back
    Migrate(migrate::Arguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Jsonl,
    Csv,
}

pub(crate) async fn manifest(config: Option<&Path>, command: &Command) -> Result<Exit, Complaint> {
    match command {
        Command::Get { which, field } => {
            read(config, async |manifest, places| {
                get(manifest, places, which, field.as_deref()).await
            })
            .await
        }
        Command::List { provider, json } => {
            read(config, async |manifest, places| {
                list(manifest, places, provider.as_ref(), *json).await
            })
            .await
        }
        Command::Export { format } => {
            read(config, async |manifest, places| {
                export(manifest, places, *format).await
            })
            .await
        }
        Command::Verify(it) => verify::verify(config, it).await,
        Command::Rebuild(it) => rebuild::rebuild(config, it).await,
        Command::Migrate(it) => migrate::migrate(config, it).await,
    }
}

/// Opens the manifest for `work`, and closes it however that ends.
async fn read(
    config: Option<&Path>,
    work: impl AsyncFnOnce(&Manifest, &Places) -> Result<Exit, Complaint>,
) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let manifest = open::read_manifest(&config).await?;
    let exit = work(&manifest, &open::places(&config)).await;
    manifest.close().await;
    exit
}

async fn get(
    manifest: &Manifest,
    places: &Places,
    which: &Which,
    field: Option<&str>,
) -> Result<Exit, Complaint> {
    let record = Record::new(task::find(manifest, which).await?, places);
    let unprintable = |error: serde_json::Error| Complaint::failed(error.to_string());
    let Some(path) = field else {
        // Straight from the record, which has its fields in an order for readers.
        let text = serde_json::to_string_pretty(&record).map_err(unprintable)?;
        say!("{text}")?;
        return Ok(Exit::Done);
    };
    let record = serde_json::to_value(record).map_err(unprintable)?;
    let pointer = format!("/{}", path.replace('.', "/"));
    match record.pointer(&pointer) {
        Some(Value::String(text)) => say!("{text}")?,
        Some(value) => say!("{value}")?,
        None => {
            let what = format!("the record of {} has no field {path:?}", which.id);
            return Err(
                Complaint::new(Exit::NotFound, what).hint("without --field all of it is printed")
            );
        }
    }
    Ok(Exit::Done)
}

async fn list(
    manifest: &Manifest,
    places: &Places,
    provider: Option<&ProviderName>,
    json: bool,
) -> Result<Exit, Complaint> {
    let mut table = Table::new(&["task", "asset", "size", "archived", "verified", "address"]);
    let mut filter = TaskFilter {
        provider: provider.cloned(),
        asset_state: Some(AssetState::Archived),
        ..TaskFilter::default()
    };
    let mut out = std::io::stdout().lock();
    loop {
        let page = tasks::page(manifest, &mut filter).await?;
        if page.is_empty() {
            break;
        }
        for task in page {
            if json {
                print(&mut out, &Record::new(task, places))?;
                continue;
            }
            for (asset, object) in archived(&task) {
                let size = asset.size.map(|size| ByteSize::bytes(size).to_string());
                let at = object.archived_at.map(|at| at.to_string());
                let verified = object.verified.map(|verified| verified.to_string());
                table.row(vec![
                    task.key.id.to_string(),
                    asset.index.to_string(),
                    size.unwrap_or_default(),
                    at.unwrap_or_default(),
                    verified.unwrap_or_default(),
                    task::address(object, places),
                ]);
            }
        }
        write!(out, "{}", table.page())?;
    }
    if !json && table.is_empty() {
        talk!("nothing is archived yet");
    }
    Ok(Exit::Done)
}

async fn export(manifest: &Manifest, places: &Places, format: Format) -> Result<Exit, Complaint> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if format == Format::Csv {
        writeln!(
            out,
            "provider,task_id,asset,state,size,content_type,sha256,crc64nvme,destination,url,etag,archived_at,verified,duration,width,height,codec"
        )?;
    }
    let mut filter = TaskFilter::default();
    loop {
        let page = tasks::page(manifest, &mut filter).await?;
        if page.is_empty() {
            break;
        }
        for task in page {
            if format == Format::Jsonl {
                print(&mut out, &Record::new(task, places))?;
                continue;
            }
            for asset in &task.assets {
                for object in &asset.objects {
                    writeln!(out, "{}", csv(&task, asset, object, places))?;
                }
            }
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print(out: &mut impl std::io::Write, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    writeln!(out)
}

fn archived(task: &TaskRecord) -> impl Iterator<Item = (&AssetRecord, &ObjectRecord)> {
    let objects = task
        .assets
        .iter()
        .flat_map(|asset| asset.objects.iter().map(move |it| (asset, it)));
    objects.filter(|(_, object)| object.state == ObjectState::Archived)
}

fn csv(task: &TaskRecord, asset: &AssetRecord, object: &ObjectRecord, places: &Places) -> String {
    let text = |value: Option<String>| value.unwrap_or_default();
    let media = asset.media;
    let cells = [
        task.key.provider.to_string(),
        task.key.id.to_string(),
        asset.index.to_string(),
        object.state.to_string(),
        text(asset.size.map(|size| size.to_string())),
        text(asset.content_type.clone()),
        text(asset.sha256.map(|digest| digest.to_string())),
        text(asset.crc64nvme.map(|crc| crc.to_string())),
        object.destination.to_string(),
        task::address(object, places),
        text(object.etag.as_ref().map(|etag| etag.0.clone())),
        text(object.archived_at.map(|at| at.to_string())),
        text(object.verified.map(|verified| verified.to_string())),
        text(media.duration.map(|span| record::seconds(span).to_string())),
        text(media.width.map(|width| width.to_string())),
        text(media.height.map(|height| height.to_string())),
        text(media.codec.map(|codec| codec.to_string())),
    ];
    cells.map(|cell| quoted(&cell)).join(",")
}

/// A cell as RFC 4180 has it, with formulas kept from spreadsheets.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@']);
    let cell = if is_formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}
