//! Events: appended by the transitions that people may hear of, read, replayed, and pruned once all have been told.

use std::collections::HashMap;

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::execute;
use super::statement::Named;
use super::statement::Param;
use super::statement::ToParam as _;
use super::statement::named_params;
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
use crate::model::task::TaskId;

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
pub(super) async fn append(tx: &Tx<'_>, happening: Happening<'_>) -> Result<(), Fault> {
    let reason: Option<String> = happening
        .reason
        .map(|reason| reason.chars().take(REASON_CHARS_MAX).collect());
    let params = named_params! {
    ":kind": happening.kind.as_str(), ":task": happening.task,
    ":asset_index": happening.index.map(|index| index.0), ":reason": reason,
    };
    execute(tx, APPEND, params).await.map(|_| ())
}

const ASSET: &str = "-- manifest::append_event
    SELECT id, task, asset_index FROM assets WHERE id = :asset";

/// Appends an event about one asset.
pub(super) async fn append_of_asset(
    tx: &Tx<'_>,
    kind: EventKind,
    asset: i64,
    reason: Option<&str>,
) -> Result<(), Fault> {
    let params = named_params! { ":asset": asset };
    let found = all(tx, ASSET, params, "assets", |columns| {
        let index = AssetIndex(columns.number("asset_index")?);
        Ok((columns.get("task")?, index))
    })
    .await?;
    for (task, index) in found {
        let happening = Happening {
            kind,
            task,
            index: Some(index),
            reason,
        };
        append(tx, happening).await?;
    }
    Ok(())
}

const ALL_ARCHIVED: &str = "-- manifest::append_event
    SELECT id FROM tasks
    WHERE id = :task AND NOT EXISTS (SELECT * FROM assets WHERE task = :task AND state <> 'archived')";

/// Differs from SQLite, where one transaction is written at a time: the last two assets of a task may be archived at
/// once, and each must see the other.
const LOCK_TASK: &str = "-- manifest::append_event
    SELECT id FROM tasks WHERE id = (SELECT task FROM assets WHERE id = :asset) FOR NO KEY UPDATE";

/// Appends that a task is archived, if the asset was the last of it.
pub(super) async fn append_if_all_archived(tx: &Tx<'_>, asset: i64) -> Result<(), Fault> {
    let task: Option<i64> = value(tx, LOCK_TASK, named_params! { ":asset": asset }).await?;
    let params = named_params! { ":task": task };
    let tasks = all(tx, ALL_ARCHIVED, params, "tasks", |columns| Ok(columns.id)).await?;
    for task in tasks {
        append(tx, Happening::to_task(EventKind::Archived, task)).await?;
    }
    Ok(())
}

const TELL_ENDS_AGAIN: &str = "-- manifest::learn
    UPDATE events SET is_fanned = 0 WHERE task = :task AND kind IN ('archived', 'failed', 'lost')";

/// Lets deliveries be made anew of how a task ended, for whom there are none yet.
pub(super) async fn tell_ends_again(tx: &Tx<'_>, task: i64) -> Result<(), Fault> {
    execute(tx, TELL_ENDS_AGAIN, named_params! { ":task": task })
        .await
        .map(|_| ())
}

/// Which events a filter means, as what stands after WHERE: only what is asked for, so that each question finds its
/// index.
fn restrictions(filter: &EventFilter) -> (String, Vec<Named>) {
    let mut sql = "TRUE".to_owned();
    let mut params = Vec::new();
    let mut restrict = |clause: &str, name: &'static str, param: Param| {
        if param != Param::Null {
            sql.push_str(" AND ");
            sql.push_str(clause);
            params.push((name, param));
        }
    };
    let numbers = (!filter.numbers.is_empty()).then(|| filter.numbers.clone());
    restrict("events.id = ANY(:numbers)", ":numbers", numbers.to_param());
    restrict("events.id > :after", ":after", filter.after.to_param());
    let since = filter.since.map(Timestamp::as_unix_millis);
    restrict("events.at >= :since", ":since", since.to_param());
    let kind = filter.kind.map(EventKind::as_str);
    restrict("events.kind = :kind", ":kind", kind.to_param());
    let task = filter.task.as_ref().map(TaskId::as_str);
    restrict(
        "events.task IN (SELECT id FROM tasks WHERE task_id = :task_id)",
        ":task_id",
        task.to_param(),
    );
    (sql, params)
}

/// Events that pass the filter in the order of their numbers, with their deliveries.
pub(in crate::manifest) async fn events(
    tx: &Tx<'_>,
    filter: &EventFilter,
    most: usize,
) -> Result<Vec<EventRecord>, Fault> {
    let (clauses, mut params) = restrictions(filter);
    params.push((":most", limit(most).to_param()));
    let sql = format!(
        "-- manifest::events
    SELECT events.*, tasks.provider, tasks.task_id
    FROM events JOIN tasks ON tasks.id = events.task
    WHERE {clauses}
    ORDER BY events.id LIMIT :most"
    );
    let events = all(tx, &sql, params, "events", |columns| {
        columns.event(columns.id)
    })
    .await?;
    let numbers: Vec<i64> = events.iter().map(|event| event.number).collect();
    let mut deliveries = read_deliveries(tx, &numbers).await?;
    let with_deliveries = |event: Event| EventRecord {
        deliveries: deliveries.remove(&event.number).unwrap_or_default(),
        event,
    };
    Ok(events.into_iter().map(with_deliveries).collect())
}

const DELIVERIES: &str = "-- manifest::events
    SELECT * FROM deliveries
    WHERE event = ANY(:events) ORDER BY id";

async fn read_deliveries(
    tx: &Tx<'_>,
    numbers: &[i64],
) -> Result<HashMap<i64, Vec<DeliveryRecord>>, Fault> {
    let params = named_params! { ":events": numbers.to_vec() };
    let rows = all(tx, DELIVERIES, params, "deliveries", |columns| {
        Ok((columns.get("event")?, columns.delivery_record()?))
    })
    .await?;
    let mut deliveries: HashMap<i64, Vec<DeliveryRecord>> = HashMap::new();
    for (event, delivery) in rows {
        deliveries.entry(event).or_default().push(delivery);
    }
    Ok(deliveries)
}

/// Makes every final delivery of these events due again, and those that the subscribers lack; tells of how many events
/// something is due then. With `only`, what others are told is left alone. A disabled endpoint is told nothing.
pub(in crate::manifest) async fn replay(
    tx: &Tx<'_>,
    filter: &EventFilter,
    subscribers: &[Subscriber],
    only: Option<&EndpointName>,
    nonce: &str,
) -> Result<u64, Fault> {
    let (clauses, params) = restrictions(filter);
    let of_one = if only.is_some() {
        "AND endpoint = :endpoint"
    } else {
        ""
    };
    let mut with_one = params.clone();
    with_one.push((":endpoint", only.map(EndpointName::as_str).to_param()));
    let due_again = format!(
        "-- manifest::replay
    UPDATE deliveries
    SET state = 'due', due_at = :now, begun_at = :now, attempts = 0, error = NULL
    WHERE state <> 'due' {of_one}
        AND endpoint NOT IN (SELECT name FROM endpoints WHERE disabled_at IS NOT NULL)
        AND event IN (SELECT id FROM events WHERE {clauses})"
    );
    execute(tx, &due_again, with_one.clone()).await?;
    let make = format!(
        "-- manifest::replay
    INSERT INTO deliveries (event, endpoint, message_id, state, due_at, begun_at)
    SELECT id, :endpoint::text, 'msg_' || :nonce::text || '_' || id || '_' || :place::bigint, 'due', :now, :now
    FROM events
    WHERE kind = ANY(:kinds::text[])
        AND :endpoint::text NOT IN (SELECT name FROM endpoints WHERE disabled_at IS NOT NULL)
        AND {clauses}
    ON CONFLICT (event, endpoint) DO NOTHING"
    );
    for (place, Subscriber { endpoint, kinds }) in (0_i64..).zip(subscribers) {
        let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        let mut values = params.clone();
        values.push((":endpoint", endpoint.as_str().to_param()));
        values.push((":nonce", nonce.to_param()));
        values.push((":place", place.to_param()));
        values.push((":kinds", kinds.to_param()));
        execute(tx, &make, values).await?;
    }
    let told = format!(
        "-- manifest::replay
    SELECT COUNT(*) FROM events WHERE {clauses} AND EXISTS (
        SELECT 1 FROM deliveries WHERE event = events.id AND state = 'due' {of_one}
    )"
    );
    let told: Option<i64> = value(tx, &told, with_one).await?;
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
pub(in crate::manifest) async fn prune(
    tx: &Tx<'_>,
    before: Timestamp,
    most: usize,
) -> Result<usize, Fault> {
    execute(tx, PRUNE_CALLBACKS, []).await?;
    let params = named_params! { ":before": before.as_unix_millis(), ":most": limit(most) };
    execute(tx, PRUNE, params).await
}

const PULSE: &str = "-- manifest::prove_writable
    INSERT INTO pulse (id, at) VALUES (1, :now) ON CONFLICT (id) DO UPDATE SET at = :now";

/// Writes the time, which can be done as long as anything can be written.
pub(in crate::manifest) async fn prove_writable(tx: &Tx<'_>) -> Result<(), Fault> {
    execute(tx, PULSE, named_params! {}).await.map(|_| ())
}
