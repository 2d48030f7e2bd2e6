//! Read-only views: records of tasks with all that hangs on them, and everything in numbers.

use std::collections::HashMap;
use std::str::FromStr;

use rusqlite::Connection;
use rusqlite::named_params;
use rusqlite::types::Value;

use super::Fault;
use super::all;
use super::columns::Columns;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::Tally;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;

/// Tasks that pass the filter, in the order in which they were learned, with their assets and objects.
///
/// Three queries, however many tasks.
pub(in crate::manifest) fn tasks(
    db: &Connection,
    filter: &TaskFilter,
    most: usize,
) -> Result<Vec<TaskRecord>, Fault> {
    let (sql, params) = select_tasks(filter, most);
    let params = rusqlite::params_from_iter(params);
    let read = |columns: &Columns<'_, '_>| columns.task_record();
    let mut tasks = all(db, &sql, params, "tasks", read)?;
    let rows = json(tasks.iter().map(|task| task.row));
    let mut assets: HashMap<i64, Vec<AssetRecord>> = HashMap::new();
    for (task, asset) in read_assets(db, &rows)? {
        assets.entry(task).or_default().push(asset);
    }
    for task in &mut tasks {
        task.assets = assets.remove(&task.row).unwrap_or_default();
    }
    Ok(tasks)
}

/// As alarms have it. The instants stand once, since parameters are given by place.
const AT_RISK: &str = "
        AND id IN (
            WITH danger (at, before) AS (VALUES (?, ?))
            SELECT tasks.id FROM tasks, danger
            WHERE tasks.state = 'watching' AND tasks.deadline_at < danger.before
                AND (tasks.deadline_at - danger.at) * 3
                    < tasks.deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at)
            UNION
            SELECT assets.task FROM danger, assets JOIN tasks ON tasks.id = assets.task
            WHERE assets.state = 'due' AND assets.deadline_at < danger.before
                AND (assets.deadline_at - danger.at) * 3
                    < assets.deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at)
        )";

/// The query for a filter: only what is asked for stands in it, so that each question finds its index.
fn select_tasks(filter: &TaskFilter, most: usize) -> (String, Vec<Value>) {
    let mut sql = "-- manifest::tasks\n    SELECT * FROM tasks WHERE TRUE".to_owned();
    let mut params = Vec::new();
    let instant = |at: Timestamp| Value::Integer(at.as_unix_millis());
    if let Some(danger) = filter.at_risk {
        sql.push_str(AT_RISK);
        params.extend([instant(danger.now), instant(danger.before)]);
    }
    let mut restrict = |clause: &str, param: Option<Value>| {
        if let Some(param) = param {
            sql.push_str("\n        AND ");
            sql.push_str(clause);
            params.push(param);
        }
    };
    let text = |text: &str| Value::Text(text.to_owned());
    restrict(
        "task_id = ?",
        filter.id.as_ref().map(|id| text(id.as_str())),
    );
    // As a stretch of the index. No text goes on behind its last letter with a higher one than this.
    let prefix = filter.id_prefix.as_ref();
    restrict("task_id >= ?", prefix.map(|prefix| text(prefix)));
    let behind = prefix.map(|prefix| Value::Text(format!("{prefix}{}", char::MAX)));
    restrict("task_id < ?", behind);
    restrict(
        "provider = ?",
        filter.provider.as_ref().map(|name| text(name.as_str())),
    );
    restrict("state = ?", filter.state.map(|state| text(state.as_str())));
    restrict(
        "id IN (SELECT task FROM assets WHERE assets.state = ?)",
        filter.asset_state.map(|state| text(state.as_str())),
    );
    restrict("learned_at >= ?", filter.since.map(instant));
    let (after, order) = if filter.is_newest_first {
        ("id < ?", "\n    ORDER BY id DESC")
    } else {
        ("id > ?", "\n    ORDER BY id")
    };
    restrict(after, filter.after_row.map(Value::Integer));
    params.push(Value::Integer(i64::try_from(most).unwrap_or(i64::MAX)));
    sql.push_str(order);
    sql.push_str(" LIMIT ?");
    (sql, params)
}

const ASSETS: &str = "-- manifest::tasks
    SELECT * FROM assets
    WHERE task IN (SELECT value FROM json_each(:tasks)) ORDER BY task, asset_index";

fn read_assets(db: &Connection, tasks: &str) -> Result<Vec<(i64, AssetRecord)>, Fault> {
    let mut objects: HashMap<i64, Vec<ObjectRecord>> = HashMap::new();
    for (asset, object) in read_objects(db, tasks)? {
        objects.entry(asset).or_default().push(object);
    }
    all(
        db,
        ASSETS,
        named_params! { ":tasks": tasks },
        "assets",
        |columns| {
            let objects = objects.remove(&columns.id).unwrap_or_default();
            Ok((columns.get("task")?, columns.asset_record(objects)?))
        },
    )
}

const OBJECTS: &str = "-- manifest::tasks
    SELECT objects.*, there.parts AS parts_there, COALESCE(there.bytes, 0) AS bytes_there
    FROM assets
    JOIN objects ON objects.asset = assets.id
    LEFT JOIN (
        SELECT object, COUNT(*) AS parts, SUM(length) AS bytes FROM parts
        WHERE object IN (
            SELECT objects.id FROM objects JOIN assets ON assets.id = objects.asset
            WHERE assets.task IN (SELECT value FROM json_each(:tasks))
        )
        GROUP BY object
    ) AS there ON there.object = objects.id
    WHERE assets.task IN (SELECT value FROM json_each(:tasks))
    ORDER BY objects.asset, objects.position";

fn read_objects(db: &Connection, tasks: &str) -> Result<Vec<(i64, ObjectRecord)>, Fault> {
    all(
        db,
        OBJECTS,
        named_params! { ":tasks": tasks },
        "objects",
        |columns| Ok((columns.get("asset")?, columns.object_record()?)),
    )
}

const TALLY_TASKS: &str = "-- manifest::tally
    SELECT 0 AS id, state, rows FROM counts WHERE kind = 'tasks' AND rows <> 0";

const TALLY_ASSETS: &str = "-- manifest::tally
    SELECT 0 AS id, state, rows FROM counts WHERE kind = 'assets' AND rows <> 0";

const TALLY_BYTES: &str = "-- manifest::tally
    SELECT bytes FROM counts WHERE kind = 'assets' AND state = 'archived'";

const TALLY_ORPHANS: &str = "-- manifest::tally
    SELECT COUNT(*) FROM orphans";

pub(super) const TALLY_DEADLINE: &str = "-- manifest::tally
    SELECT MIN(at) FROM (
        SELECT MIN(deadline_at) AS at FROM tasks WHERE state = 'watching'
        UNION ALL
        SELECT MIN(deadline_at) AS at FROM assets WHERE state = 'due'
    )";

/// Everything in numbers.
pub(in crate::manifest) fn tally(db: &Connection) -> Result<Tally, Fault> {
    let count = |sql| {
        let count: Option<i64> = value(db, sql, [])?;
        // A count and a sum of lengths are never negative.
        Ok::<u64, Fault>(
            count
                .and_then(|count| u64::try_from(count).ok())
                .unwrap_or(0),
        )
    };
    let next: Option<Option<i64>> = value(db, TALLY_DEADLINE, [])?;
    Ok(Tally {
        tasks: count_states(db, TALLY_TASKS, "tasks")?,
        assets: count_states(db, TALLY_ASSETS, "assets")?,
        bytes_archived: count(TALLY_BYTES)?,
        orphans: count(TALLY_ORPHANS)?,
        next_deadline: next.flatten().map(Timestamp::from_unix_millis),
    })
}

fn count_states<State: FromStr + Ord>(
    db: &Connection,
    sql: &str,
    table: &'static str,
) -> Result<Vec<(State, u64)>, Fault> {
    let mut counts = all(db, sql, [], table, |columns| {
        Ok((columns.word::<State>("state")?, columns.number("rows")?))
    })?;
    counts.sort();
    Ok(counts)
}

fn json(rows: impl Iterator<Item = i64>) -> String {
    let rows: Vec<i64> = rows.collect();
    serde_json::to_string(&rows).expect("numbers are numbers")
}
