//! `reelvault url ID`: links to the archived copies of a task, for whoever wants the bytes now.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use crate::cli::copies;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::task;
use crate::cli::task::Which;
use crate::cli::tasks::json;
use crate::config::Config;
use crate::daemon::sentence;
use crate::daemon::wiring;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetIndex;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::report::links::Bytes;
use crate::report::links::Links;
use crate::store::StoreError;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Only of the asset with this number
    #[arg(long, value_name = "N")]
    asset: Option<u32>,
    /// Only to the copy at this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<DestinationName>,
    /// One JSON document a link
    #[arg(long)]
    json: bool,
}

/// A link, for programs.
#[derive(Debug, Serialize)]
struct Link<'a> {
    provider: &'a ProviderName,
    task_id: &'a TaskId,
    asset: AssetIndex,
    url: &'a str,
}

pub(crate) async fn url(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    copies::check_destination(&config, arguments.destination.as_ref())?;
    let manifest = open::read_manifest(&config).await?;
    let found = task::find(&manifest, &arguments.which).await;
    manifest.close().await;
    let task = found?;
    let assets = copies::assets(&task, arguments.asset)?;
    let assets: Vec<AssetRecord> = assets
        .into_iter()
        .map(|asset| only_at(asset, arguments.destination.as_ref()))
        .collect();
    let (links, trouble) = links(&config, &assets).await?;
    let mut without = Vec::new();
    for asset in &assets {
        match link(&links, asset).await.map_err(|error| refused(&error))? {
            Some(link) => tell(&task, asset, &link, arguments.json)?,
            None => without.push(asset),
        }
    }
    if without.len() == assets.len() {
        return Err(trouble.map_or_else(|| copies::none_archived(&task), Complaint::from));
    }
    for asset in &without {
        talk!(
            "note: asset {} is {}, without a copy to link to",
            asset.index,
            asset.state
        );
    }
    Ok(if without.is_empty() {
        Exit::Done
    } else {
        Exit::DoneInPart
    })
}

fn only_at(asset: &AssetRecord, destination: Option<&DestinationName>) -> AssetRecord {
    let mut asset = asset.clone();
    asset
        .objects
        .retain(|object| destination.is_none_or(|it| *it == object.destination));
    asset
}

/// What links are made of, at the destinations that these assets are at, and why one of them has none.
async fn links(
    config: &Config,
    assets: &[AssetRecord],
) -> Result<(Links, Option<anyhow::Error>), Complaint> {
    let seams = open::seams(config)?;
    let (mut stores, mut trouble) = (BTreeMap::new(), None);
    let objects = assets.iter().flat_map(|asset| &asset.objects);
    let names: BTreeSet<_> = objects.map(|object| &object.destination).collect();
    for name in names {
        let Some(settings) = config.destination.get(name) else {
            continue;
        };
        match wiring::connect::store(name, settings, &seams).await {
            Ok(store) => {
                stores.insert(name.clone(), store);
            }
            Err(error) => {
                talk!("note: {}; another copy may do", sentence(&error));
                trouble = Some(error);
            }
        }
    }
    Ok((wiring::face::links_to_stores(config, &stores), trouble))
}

async fn link(links: &Links, asset: &AssetRecord) -> Result<Option<String>, StoreError> {
    let found = links.bytes(asset).await?;
    Ok(found.map(|bytes| match bytes {
        Bytes::Elsewhere(url) => url.to_string(),
        Bytes::Here(store, key) => store.locate(&key),
    }))
}

fn tell(task: &TaskRecord, asset: &AssetRecord, url: &str, as_json: bool) -> Result<(), Complaint> {
    if !as_json {
        return say!("{url}");
    }
    let link = Link {
        provider: &task.key.provider,
        task_id: &task.key.id,
        asset: asset.index,
        url,
    };
    say!("{}", json(&link)?)
}

fn refused(error: &StoreError) -> Complaint {
    Complaint::new(Exit::Refused, error.to_string())
        .hint("links are signed with the destination's key: `reelvault check` tries it")
}
