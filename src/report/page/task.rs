//! The page of one task: its films, what is proven of them, where they are, and what happened.

use askama::Template;

use super::Page;
use super::Refusal;
use super::address_of;
use super::copy_of;
use super::home::left_when_archived;
use super::when;
use crate::clock::Timestamp;
use crate::http::problem::Problem;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::TaskRecord;
use crate::manifest::row::event::EventFilter;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::task::TaskKey;
use crate::report::links::escaped;
use crate::report::record;
use crate::report::record::Places;
use crate::report::record::is_without_files;
use crate::units::ByteSize;

/// Events of its history that are shown.
const EVENTS: usize = 50;

#[derive(Template)]
#[template(path = "task.html")]
pub(super) struct Shown {
    id: String,
    state: &'static str,
    facts: Vec<(&'static str, String)>,
    tags: Vec<(String, String)>,
    troubles: Vec<String>,
    assets: Vec<Asset>,
    history: Vec<Happened>,
    retry: Option<String>,
    record: String,
}

struct Asset {
    index: String,
    role: &'static str,
    state: &'static str,
    /// Where the bytes are, once they are archived.
    copy: Option<String>,
    facts: Vec<(&'static str, String)>,
    objects: Vec<Object>,
}

struct Object {
    destination: String,
    state: &'static str,
    place: String,
    proof: String,
}

struct Happened {
    what: &'static str,
    when: String,
    at: String,
    reason: String,
}

impl Shown {
    pub(super) async fn read(page: &Page, task: TaskRecord) -> Result<Self, Refusal> {
        let now = page.clock.now();
        let filter = EventFilter {
            task: Some(task.key.id.clone()),
            ..EventFilter::default()
        };
        let events = page.manifest.events(&filter, EVENTS).await;
        let events = events.map_err(|error| {
            Problem::unavailable(format!("the manifest cannot be read: {error}"))
        })?;
        let events = events.into_iter().map(|record| record.event);
        let history = events
            .filter(|event| event.task == task.key)
            .map(|event| Happened {
                what: event.kind.as_str(),
                when: when(event.at, now),
                at: event.at.to_string(),
                reason: event.reason.unwrap_or_default(),
            });
        let state = record::state(&task);
        Ok(Self {
            id: task.key.id.to_string(),
            state,
            facts: facts(&task, now),
            tags: task
                .tags
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            troubles: troubles(&task),
            history: history.collect(),
            retry: (state != "archived").then(|| retry_address(&task.key)),
            record: format!(
                "/api/v1/manifest/{}?provider={}",
                escaped(task.key.id.as_str()),
                escaped(task.key.provider.as_str())
            ),
            assets: task
                .assets
                .iter()
                .map(|asset| Asset::of(&task.key, asset, &page.places, now))
                .collect(),
        })
    }
}

fn retry_address(key: &TaskKey) -> String {
    address_of(key).replacen('?', "/retry?", 1)
}

fn facts(task: &TaskRecord, now: Timestamp) -> Vec<(&'static str, String)> {
    let instant = |at: Timestamp| format!("{at} ({})", when(at, now));
    let mut facts = vec![("provider", task.key.provider.to_string())];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("model", task.model.clone());
    add("kind", task.kind.clone());
    add("provider's word", task.status.clone());
    let is_running = !task.state.is_final();
    add(
        "progress",
        task.percent
            .filter(|_| is_running)
            .map(|percent| format!("{percent} %")),
    );
    let learned = instant(task.learned_at);
    add(
        "learned",
        Some(format!("{learned} via {}", task.learned_via)),
    );
    add("created", task.created_at.map(instant));
    add("completed", task.completed_at.map(instant));
    add("next look", task.next_look_at.map(instant));
    let (at, from) = (instant(task.deadline.at), task.deadline.from);
    if is_without_files(task) {
        add("result", Some("no file: nothing to archive".to_owned()));
    } else {
        add("its links die", Some(format!("{at}, by {from}")));
    }
    facts
}

/// Everything that went wrong, each once.
fn troubles(task: &TaskRecord) -> Vec<String> {
    let told = task.task_error.as_ref();
    let told = told.map(|error| format!("{}: {}", error.code, error.message));
    let mut troubles: Vec<String> = told.into_iter().chain(task.error.clone()).collect();
    for asset in &task.assets {
        if let Some(error) = asset
            .error
            .as_ref()
            .filter(|_| asset.state != AssetState::Archived)
        {
            troubles.push(format!("asset {}: {error}", asset.index));
        }
    }
    troubles.dedup();
    troubles
}

impl Asset {
    fn of(key: &TaskKey, asset: &AssetRecord, places: &Places, now: Timestamp) -> Self {
        let mut facts = Vec::new();
        let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
        let host = asset.url.host_str().unwrap_or_default();
        add("from", Some(format!("{host}{}", asset.url.path())));
        add(
            "size",
            asset
                .size
                .map(|size| format!("{} ({size} bytes)", ByteSize::bytes(size))),
        );
        add("type", asset.content_type.clone());
        let media = &asset.media;
        let pixels = media.width.zip(media.height);
        add(
            "picture",
            pixels.map(|(width, height)| format!("{width} x {height}")),
        );
        add(
            "plays for",
            media
                .duration
                .map(|span| format!("{:.1} s", record::seconds(span))),
        );
        add("codec", media.codec.as_ref().map(ToString::to_string));
        add("SHA-256", asset.sha256.as_ref().map(ToString::to_string));
        add(
            "CRC64NVME",
            asset.crc64nvme.as_ref().map(ToString::to_string),
        );
        let left = left_when_archived(asset).map(|left| format!(", with {left} left"));
        let archived = asset.archived_at;
        add(
            "archived",
            archived.map(|at| format!("{at} ({}{})", when(at, now), left.unwrap_or_default())),
        );
        let is_open = asset.state == AssetState::Due;
        let due = asset.due_at.filter(|_| is_open);
        add("next try", due.map(|at| when(at, now)));
        add("link dies", is_open.then(|| when(asset.deadline.at, now)));
        let tries = asset.attempts;
        add("failed tries", (tries > 0).then(|| tries.to_string()));
        let is_archived = asset.state == AssetState::Archived;
        Self {
            index: asset.index.to_string(),
            role: match asset.role {
                AssetRole::Video => "video",
                AssetRole::Image => "image",
                AssetRole::Audio => "audio",
                AssetRole::File => "file",
            },
            state: asset.state.as_str(),
            copy: is_archived.then(|| copy_of(key, asset.index)),
            facts,
            objects: asset
                .objects
                .iter()
                .map(|object| Object::of(asset.state, object, places))
                .collect(),
        }
    }
}

impl Object {
    fn of(asset: AssetState, object: &ObjectRecord, places: &Places) -> Self {
        let place = places.get(&object.destination).zip(object.key.as_ref());
        let verified = object
            .verified
            .map(|verified| format!("proven by {verified}"));
        let stored = ByteSize::bytes(object.bytes_stored);
        Self {
            destination: object.destination.to_string(),
            state: record::object_state(asset, object),
            place: place
                .map(|(place, key)| place.locate(key))
                .unwrap_or_default(),
            proof: verified.unwrap_or_else(|| match object.parts {
                0 => String::new(),
                parts => format!("{stored} in {parts} parts are there"),
            }),
        }
    }
}
