//! The first page: what may be lost, what moves, who takes part, and the tasks.

use askama::Template;

use crate::clock::Timestamp;
use crate::http::problem::Problem;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::deadline::Danger;
use crate::model::task::TaskState;
use crate::report::overview::Seen;
use crate::report::page::Asked;
use crate::report::page::Page;
use crate::report::page::Peer;
use crate::report::page::Refusal;
use crate::report::page::address_of;
use crate::report::page::when;
use crate::report::record::dies_at;
use crate::report::record::is_without_files;
use crate::report::record::state;
use crate::report::status::Headline;
use crate::units::ByteSize;
use crate::units::Span;

use super::KEPT;

/// Tasks on a page: with them it stays small.
const TASKS: usize = 20;

/// The newest tasks, from which it is told how much time was left.
const SAMPLE: usize = 200;

/// What is asked for like a state, and is a nearness of deadlines.
const AT_RISK: &str = "at_risk";

/// Transfers that are shown.
const MOVING: usize = 20;

/// Machines that are shown.
const MACHINES: usize = 50;

/// How much time was left, from the worst to the best.
const BUCKETS: [(&str, Span); 5] = [
    ("too late", Span::from_secs(0)),
    ("under 1 h", Span::from_secs(3600)),
    ("1 to 6 h", Span::from_secs(6 * 3600)),
    ("6 to 20 h", Span::from_secs(20 * 3600)),
    ("over 20 h", Span::from_secs(u64::MAX)),
];

#[derive(Template)]
#[template(path = "home.html")]
pub(super) struct Home {
    headlines: Vec<Headline>,
    tiles: Vec<Tile>,
    moving: Vec<Transfer>,
    moving_more: usize,
    margins: Margins,
    destinations: Vec<Peer>,
    providers: Vec<Peer>,
    machines: Vec<Machine>,
    tasks: Vec<Row>,
    q: String,
    state: String,
    states: Vec<&'static str>,
    next: Option<String>,
    is_first: bool,
}

struct Tile {
    name: &'static str,
    value: String,
    kind: &'static str,
}

struct Transfer {
    id: String,
    address: String,
    destination: String,
    bytes: u64,
    length: Option<u64>,
    told: String,
}

/// How much time was left when the newest were archived.
struct Margins {
    count: usize,
    least: String,
    median: String,
    rows: Vec<(&'static str, usize)>,
}

struct Machine {
    name: String,
    version: String,
    since: String,
    heard: String,
    is_living: bool,
}

struct Row {
    id: String,
    address: String,
    provider: String,
    model: String,
    state: &'static str,
    learned: String,
    left: String,
    size: String,
    error: String,
}

impl Home {
    pub(super) async fn read(page: &Page, asked: &Asked) -> Result<Self, Refusal> {
        let now = page.clock.now();
        let seen = page.overview.see(KEPT).await;
        let mut moving: Vec<Transfer> = (page.moving)().iter().map(Transfer::of).collect();
        let moving_count = moving.len();
        moving.truncate(MOVING);
        // Where the manifest does not answer, the page tells that, and what else is known here.
        let (sample, tasks, next) = if seen.is_answering {
            let sample = newest(page, TaskFilter::default(), SAMPLE).await?;
            let (tasks, next) = tasks(page, asked).await?;
            (sample, tasks, next)
        } else {
            (Vec::new(), Vec::new(), None)
        };
        Ok(Self {
            headlines: headlines(&seen, now),
            tiles: tiles(&seen, moving_count, now),
            moving_more: moving_count - moving.len(),
            moving,
            margins: Margins::of(&sample),
            destinations: (page.destinations)(),
            providers: (page.providers)(),
            machines: machines(&seen, now),
            tasks: tasks.iter().map(|task| Row::of(task, now)).collect(),
            q: asked.q.clone(),
            state: asked.state.clone(),
            states: states(),
            next,
            is_first: asked.after.is_none(),
        })
    }
}

/// The tasks that are asked for, and where the page after this one begins.
async fn tasks(page: &Page, asked: &Asked) -> Result<(Vec<TaskRecord>, Option<String>), Refusal> {
    let mut filter = TaskFilter {
        after_row: asked.after,
        ..TaskFilter::default()
    };
    let wanted = asked.q.trim();
    // No task ID has anything else in it, and not every engine takes it.
    if !wanted.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok((Vec::new(), None));
    }
    if !wanted.is_empty() {
        filter.id_prefix = Some(wanted.to_owned());
    }
    if asked.state == AT_RISK {
        filter.at_risk = Some(Danger::within(page.warn, page.clock.now()));
    } else if !asked.state.is_empty() {
        let known = filter.set_state(&asked.state);
        known.map_err(|words| {
            Problem::bad_request(format!("{:?} is no state", asked.state)).hint(words)
        })?;
    }
    let mut tasks = newest(page, filter, TASKS + 1).await?;
    let has_more = tasks.len() > TASKS;
    tasks.truncate(TASKS);
    let next = tasks.last().filter(|_| has_more).map(|last| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("q", wanted);
        query.append_pair("state", &asked.state);
        query.append_pair("after", &last.row.to_string());
        format!("/?{}", query.finish())
    });
    Ok((tasks, next))
}

async fn newest(page: &Page, filter: TaskFilter, most: usize) -> Result<Vec<TaskRecord>, Problem> {
    let filter = TaskFilter {
        is_newest_first: true,
        ..filter
    };
    let found = page.manifest.tasks(&filter, most).await;
    found.map_err(|error| Problem::unavailable(format!("the manifest cannot be read: {error}")))
}

/// What stands in front: the words of `status`, and whether they are of now.
fn headlines(seen: &Seen, now: Timestamp) -> Vec<Headline> {
    let mut lines = Vec::new();
    if !seen.is_answering {
        let age = seen.status.as_ref().map(|(_, age)| Span::from(*age));
        let what = match age {
            Some(age) => format!("the manifest does not answer; what stands here is {age} old"),
            None => "the manifest does not answer".to_owned(),
        };
        lines.push(Headline {
            word: "MUTE",
            what,
            cause: None,
            hint: Some("/readyz tells why; transfers that are under way go on".to_owned()),
        });
    }
    if let Some((status, _)) = &seen.status {
        lines.extend(status.headlines(now));
    }
    lines
}

fn tiles(seen: &Seen, moving: usize, now: Timestamp) -> Vec<Tile> {
    let Some((status, _)) = &seen.status else {
        return Vec::new();
    };
    let tally = &status.tally;
    let count = |name, count: u64, kind| Tile {
        name,
        value: count.to_string(),
        kind: if count > 0 { kind } else { "" },
    };
    let failed = tally.tasks_in(TaskState::Failed) + tally.tasks_in(TaskState::Cancelled);
    let given_up = tally.tasks_in(TaskState::Vanished) + tally.tasks_in(TaskState::Abandoned);
    let next = status.next_deadline.map_or_else(
        || "none".to_owned(),
        |at| {
            if at > now {
                at.since(now).to_string()
            } else {
                "past".to_owned()
            }
        },
    );
    let mut tiles = vec![
        count("watched", tally.tasks_in(TaskState::Watching), ""),
        count("due", tally.assets_in(AssetState::Due), ""),
        count("moving here", u64::try_from(moving).unwrap_or(u64::MAX), ""),
        count("archived", tally.assets_in(AssetState::Archived), "good"),
        Tile {
            name: "archived bytes",
            value: ByteSize::bytes(tally.bytes_archived).to_string(),
            kind: "",
        },
        Tile {
            name: "next link dies in",
            value: next,
            kind: "",
        },
        count("lost", status.lost, "bad"),
        count("refused", status.refused, "warn"),
        count("failed upstream", failed, "warn"),
    ];
    if given_up > 0 {
        tiles.push(count("given up", given_up, "warn"));
    }
    if status.orphans > 0 {
        tiles.push(count("uploads to abort", status.orphans, ""));
    }
    tiles
}

fn machines(seen: &Seen, now: Timestamp) -> Vec<Machine> {
    let machines = seen.status.iter().flat_map(|(status, _)| &status.machines);
    let machines = machines.take(MACHINES).map(|machine| Machine {
        name: machine.name.clone(),
        version: machine.version.clone(),
        since: when(machine.started_at, now),
        heard: format!("{} ago", now.since(machine.beat_at)),
        is_living: machine.is_living,
    });
    machines.collect()
}

fn states() -> Vec<&'static str> {
    let tasks = TaskState::ALL.iter().map(|state| state.as_str());
    std::iter::once(AT_RISK)
        .chain(tasks)
        .chain(AssetState::ALL.iter().map(|state| state.as_str()))
        .collect()
}

impl Transfer {
    fn of(moving: &super::Moving) -> Self {
        let bytes = ByteSize::bytes(moving.bytes);
        Self {
            id: moving.task.id.to_string(),
            address: address_of(&moving.task),
            destination: moving.destination.to_string(),
            bytes: moving.bytes,
            length: moving.length,
            told: match moving.length {
                Some(length) => format!("{bytes} of {}", ByteSize::bytes(length)),
                None => bytes.to_string(),
            },
        }
    }
}

impl Margins {
    fn of(tasks: &[TaskRecord]) -> Self {
        let assets = tasks.iter().flat_map(|task| &task.assets);
        let mut left: Vec<Span> = assets.filter_map(left_when_archived).collect();
        left.sort_unstable();
        let mut rows: Vec<(&'static str, usize)> = Vec::new();
        let mut counted = 0;
        for (name, up_to) in BUCKETS {
            let below = left.partition_point(|span| *span <= up_to);
            rows.push((name, below - counted));
            counted = below;
        }
        let told = |at: usize| left.get(at).map(ToString::to_string).unwrap_or_default();
        Self {
            count: left.len(),
            least: told(0),
            median: told(left.len() / 2),
            rows,
        }
    }
}

/// How much time was left when an asset was archived; none where it was too late.
pub(super) fn left_when_archived(asset: &AssetRecord) -> Option<Span> {
    Some(asset.deadline.at.since(asset.archived_at?))
}

impl Row {
    fn of(task: &TaskRecord, now: Timestamp) -> Self {
        let state = state(task);
        let size: u64 = task.assets.iter().filter_map(|asset| asset.size).sum();
        let error = task.assets.iter().find_map(|asset| asset.error.clone());
        let told = task.task_error.as_ref().map(|error| error.message.clone());
        let has_no_file = is_without_files(task);
        let is_open = matches!(state, "watching" | "completed") && !has_no_file;
        Self {
            id: task.key.id.to_string(),
            address: address_of(&task.key),
            provider: task.key.provider.to_string(),
            model: task.model.clone().unwrap_or_default(),
            state,
            learned: when(task.learned_at, now),
            left: match task.assets.iter().filter_map(left_when_archived).min() {
                Some(left) if state == "archived" => format!("{left} was left"),
                _ if has_no_file => "no file to archive".to_owned(),
                _ if !is_open => String::new(),
                _ => match dies_at(task) {
                    None => String::new(),
                    Some(at) if at > now => format!("dies in {}", at.since(now)),
                    Some(_) => "its link is past its end".to_owned(),
                },
            },
            size: if size > 0 {
                ByteSize::bytes(size).to_string()
            } else {
                String::new()
            },
            error: if state == "archived" {
                String::new()
            } else {
                error
                    .or_else(|| task.error.clone())
                    .or(told)
                    .unwrap_or_default()
            },
        }
    }
}
