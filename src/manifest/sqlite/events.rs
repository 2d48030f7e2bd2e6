//! Events: appended by the transitions that people may hear of, read, replayed, and pruned once all have been told.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::named_params;
use rusqlite::types::Value;

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::execute;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::row::event::DeliveryRecord;
use crate::manifest::row::event::Event;
use crate::manifest::row::event::EventFilter;
use crate::manifest::row::event::EventRecord;
use crate::manifest::row::event::Subscriber;
use crate::model::asset::AssetIndex;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;

/// The most of a reason that is kept: a provider chooses some of these words, and an event is a line.
const REASON_CHARS_MAX: usize = 500;

/// Something that has just happened to a task in this transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happening<'a> {
    pub(super) kind: EventKind,
    pub(super) task: i64,
    pub(super) index: Option<AssetIndex>,
    pub(super) reason: Option<&'a str>,
}

impl Happening<'_> {
    /// Something that happened to the whole task, for no reason that needs telling.
    pub(super) fn to_task(kind: EventKind, task: i64) -> Self {
        Self {
            kind,
            task,
            index: None,
            reason: None,
        }
    }
}

const APPEND: &str = "-- manifest::append_event
    INSERT INTO events (kind, task, asset_index, reason, at)
    VALUES (:kind, :task, :asset_index, :reason, :now)";

/// Appends an event to the transaction that made it.
pub(super) fn append(tx: &Tx<'_>, happening: Happening<'_>) -> Result<(), Fault> {
    let reason: Option<String> = happening
        .reason
        .map(|reason| reason.chars().take(REASON_CHARS_MAX).collect());
    let params = named_params! {
        ":kind": happening.kind.as_str(), ":task": happening.task,
        ":asset_index": happening.index.map(|index| index.0), ":reason": reason,
        ":now": tx.now.as_unix_millis(),
    };
    execute(tx.db, APPEND, params).map(|_| ())
}

const ASSET: &str = "-- manifest::append_event
    SELECT id, task, asset_index FROM assets WHERE id = :asset";

/// Appends an event about one asset.
pub(super) fn append_of_asset(
    tx: &Tx<'_>,
    kind: EventKind,
    asset: i64,
    reason: Option<&str>,
) -> Result<(), Fault> {
    let params = named_params! { ":asset": asset };
    let found = all(tx.db, ASSET, params, "assets", |columns| {
        let index = AssetIndex(columns.number("asset_index")?);
        Ok((columns.get("task")?, index))
    })?;
    for (task, index) in found {
        let happening = Happening {
            kind,
            task,
            index: Some(index),
            reason,
        };
        append(tx, happening)?;
    }
    Ok(())
}

const ALL_ARCHIVED: &str = "-- manifest::append_event
    SELECT id FROM tasks
    WHERE id = (SELECT task FROM assets WHERE id = :asset)
        AND NOT EXISTS (SELECT * FROM assets WHERE task = tasks.id AND state <> 'archived')";

/// Appends that a task is archived, if the asset was the last of it.
pub(super) fn append_if_all_archived(tx: &Tx<'_>, asset: i64) -> Result<(), Fault> {
    let params = named_params! { ":asset": asset };
    let tasks = all(tx.db, ALL_ARCHIVED, params, "tasks", |columns| {
        Ok(columns.id)
    })?;
    for task in tasks {
        append(tx, Happening::to_task(EventKind::Archived, task))?;
    }
    Ok(())
}

const TELL_ENDS_AGAIN: &str = "-- manifest::learn
    UPDATE events SET is_fanned = 0 WHERE task = :task AND kind IN ('archived', 'failed', 'lost')";

/// Lets deliveries be made anew of how a task ended, for whom there are none yet.
pub(super) fn tell_ends_again(tx: &Tx<'_>, task: i64) -> Result<(), Fault> {
    execute(tx.db, TELL_ENDS_AGAIN, named_params! { ":task": task }).map(|_| ())
}

/// Which events a filter means, as what stands after WHERE: only what is asked for, so that each question finds its
/// index.
fn restrictions(filter: &EventFilter) -> (String, Vec<Value>) {
    let mut sql = "TRUE".to_owned();
    let mut params = Vec::new();
    let mut restrict = |clause: &str, param: Option<Value>| {
        if let Some(param) = param {
            sql.push_str(" AND ");
            sql.push_str(clause);
            params.push(param);
        }
    };
    let numbers = (!filter.numbers.is_empty()).then(|| Value::Text(json(&filter.numbers)));
    restrict("events.id IN (SELECT value FROM json_each(?))", numbers);
    restrict("events.id > ?", filter.after.map(Value::Integer));
    let since = filter.since.map(Timestamp::as_unix_millis);
    restrict("events.at >= ?", since.map(Value::Integer));
    let kind = filter.kind.map(|kind| kind.as_str().to_owned());
    restrict("events.kind = ?", kind.map(Value::Text));
    let task = filter.task.as_ref().map(|id| id.as_str().to_owned());
    restrict(
        "events.task IN (SELECT id FROM tasks WHERE task_id = ?)",
        task.map(Value::Text),
    );
    (sql, params)
}

/// Events that pass the filter in the order of their numbers, with their deliveries.
pub(in crate::manifest) fn events(
    db: &Connection,
    filter: &EventFilter,
    most: usize,
) -> Result<Vec<EventRecord>, Fault> {
    let (clauses, mut params) = restrictions(filter);
    params.push(Value::Integer(limit(most)));
    let sql = format!(
        "-- manifest::events
    SELECT events.*, tasks.provider, tasks.task_id
    FROM events JOIN tasks ON tasks.id = events.task
    WHERE {clauses}
    ORDER BY events.id LIMIT ?"
    );
    let params = rusqlite::params_from_iter(params);
    let events = all(db, &sql, params, "events", |columns| {
        columns.event(columns.id)
    })?;
    let numbers: Vec<i64> = events.iter().map(|event| event.number).collect();
    let mut deliveries = read_deliveries(db, &numbers)?;
    let with_deliveries = |event: Event| EventRecord {
        deliveries: deliveries.remove(&event.number).unwrap_or_default(),
        event,
    };
    Ok(events.into_iter().map(with_deliveries).collect())
}

const DELIVERIES: &str = "-- manifest::events
    SELECT * FROM deliveries
    WHERE event IN (SELECT value FROM json_each(:events)) ORDER BY id";

fn read_deliveries(
    db: &Connection,
    numbers: &[i64],
) -> Result<HashMap<i64, Vec<DeliveryRecord>>, Fault> {
    let params = named_params! { ":events": json(numbers) };
    let rows = all(db, DELIVERIES, params, "deliveries", |columns| {
        Ok((columns.get("event")?, columns.delivery_record()?))
    })?;
    let mut deliveries: HashMap<i64, Vec<DeliveryRecord>> = HashMap::new();
    for (event, delivery) in rows {
        deliveries.entry(event).or_default().push(delivery);
    }
    Ok(deliveries)
}

/// Makes every final delivery of these events due again, and those that the subscribers lack; tells of how many events
/// something is due then. With `only`, what others are told is left alone. A disabled endpoint is told nothing.
pub(in crate::manifest) fn replay(
    tx: &Tx<'_>,
    filter: &EventFilter,
    subscribers: &[Subscriber],
    only: Option<&EndpointName>,
    nonce: &str,
) -> Result<u64, Fault> {
    let (clauses, params) = restrictions(filter);
    let text = |text: &str| Value::Text(text.to_owned());
    let (of_one, one) = match only {
        Some(endpoint) => ("AND endpoint = ?", Some(text(endpoint.as_str()))),
        None => ("", None),
    };
    let now = Value::Integer(tx.now.as_unix_millis());
    let due_again = format!(
        "-- manifest::replay
    UPDATE deliveries
    SET state = 'due', due_at = ?, begun_at = ?, attempts = 0, error = NULL
    WHERE state <> 'due' {of_one}
        AND endpoint NOT IN (SELECT name FROM endpoints WHERE disabled_at IS NOT NULL)
        AND event IN (SELECT id FROM events WHERE {clauses})"
    );
    let values = [now.clone(), now.clone()].into_iter().chain(one.clone());
    let values = values.chain(params.iter().cloned());
    execute(tx.db, &due_again, rusqlite::params_from_iter(values))?;
    let make = format!(
        "-- manifest::replay
    INSERT INTO deliveries (event, endpoint, message_id, state, due_at, begun_at)
    SELECT id, ?, 'msg_' || ? || '_' || id || '_' || ?, 'due', ?, ?
    FROM events
    WHERE kind IN (SELECT value FROM json_each(?))
        AND ? NOT IN (SELECT name FROM endpoints WHERE disabled_at IS NOT NULL)
        AND {clauses}
    ON CONFLICT (event, endpoint) DO NOTHING"
    );
    for (place, Subscriber { endpoint, kinds }) in subscribers.iter().enumerate() {
        let endpoint = text(endpoint.as_str());
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let kinds = serde_json::to_string(&kinds).expect("words are strings");
        let values = [
            endpoint.clone(),
            text(nonce),
            text(&place.to_string()),
            now.clone(),
            now.clone(),
            Value::Text(kinds),
            endpoint,
        ];
        let values = values.into_iter().chain(params.iter().cloned());
        execute(tx.db, &make, rusqlite::params_from_iter(values))?;
    }
    let told = format!(
        "-- manifest::replay
    SELECT COUNT(*) FROM events WHERE {clauses} AND EXISTS (
        SELECT 1 FROM deliveries WHERE event = events.id AND state = 'due' {of_one}
    )"
    );
    let values = rusqlite::params_from_iter(params.into_iter().chain(one));
    let told: Option<i64> = value(tx.db, &told, values)?;
    Ok(u64::try_from(told.unwrap_or_default()).unwrap_or_default())
}

pub(super) const PRUNE: &str = "-- manifest::prune_events
    DELETE FROM events WHERE id IN (
        SELECT id FROM events
        WHERE at < :before AND is_fanned = 1
            AND NOT EXISTS (SELECT * FROM deliveries WHERE event = events.id AND state = 'due')
        ORDER BY at LIMIT :most
    )";

/// What is known of hosts of callbacks goes when nobody there waits any more. Configured endpoints are few.
const PRUNE_CALLBACKS: &str = "-- manifest::prune_events
    DELETE FROM endpoints
    WHERE name LIKE 'callback:%' AND NOT EXISTS (
        SELECT * FROM deliveries WHERE endpoint = endpoints.name AND due_at IS NOT NULL
    )";

/// Deletes events from before `before` that everybody has been told of, or will not be, with their deliveries.
pub(in crate::manifest) fn prune(
    tx: &Tx<'_>,
    before: Timestamp,
    most: usize,
) -> Result<usize, Fault> {
    execute(tx.db, PRUNE_CALLBACKS, [])?;
    let params = named_params! { ":before": before.as_unix_millis(), ":most": limit(most) };
    execute(tx.db, PRUNE, params)
}

const PULSE: &str = "-- manifest::prove_writable
    INSERT INTO pulse (id, at) VALUES (1, :now) ON CONFLICT (id) DO UPDATE SET at = :now";

/// Writes the time, which can be done as long as anything can be written.
pub(in crate::manifest) fn prove_writable(tx: &Tx<'_>) -> Result<(), Fault> {
    execute(
        tx.db,
        PULSE,
        named_params! { ":now": tx.now.as_unix_millis() },
    )
    .map(|_| ())
}

fn json(numbers: &[i64]) -> String {
    serde_json::to_string(numbers).expect("numbers are numbers")
}
