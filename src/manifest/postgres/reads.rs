//! Read-only views: records of tasks with all that hangs on them, and everything in numbers.

use std::collections::HashMap;
use std::str::FromStr;

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::columns::Columns;
use super::statement::Named;
use super::statement::Param;
use super::statement::ToParam as _;
use super::statement::named_params;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::Tally;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::model::task::TaskState;

/// Tasks that pass the filter, in the order in which they were learned, with their assets and objects.
///
/// Three queries, however many tasks.
pub(in crate::manifest) async fn tasks(
    tx: &Tx<'_>,
    filter: &TaskFilter,
    most: usize,
) -> Result<Vec<TaskRecord>, Fault> {
    let (sql, params) = select_tasks(filter, most);
    let read = |columns: &Columns<'_>| columns.task_record();
    let mut tasks = all(tx, &sql, params, "tasks", read).await?;
    let rows: Vec<i64> = tasks.iter().map(|task| task.row).collect();
    let mut assets: HashMap<i64, Vec<AssetRecord>> = HashMap::new();
    for (task, asset) in read_assets(tx, &rows).await? {
        assets.entry(task).or_default().push(asset);
    }
    for task in &mut tasks {
        task.assets = assets.remove(&task.row).unwrap_or_default();
    }
    Ok(tasks)
}

// What is few among all tasks is found first, as an array. Left to choose, the server walks along the tasks by their
// numbers until it has met enough that fit, and what is still at work are the last of a million.

/// As alarms have it.
const AT_RISK: &str = "
        AND id = ANY(ARRAY(
            SELECT tasks.id FROM tasks
            WHERE tasks.state = 'watching' AND tasks.deadline_at < :at_risk_before
                AND (tasks.deadline_at - :at_risk_at) * 3
                    < tasks.deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at)
            UNION
            SELECT assets.task FROM assets JOIN tasks ON tasks.id = assets.task
            WHERE assets.state = 'due' AND assets.deadline_at < :at_risk_before
                AND (assets.deadline_at - :at_risk_at) * 3
                    < assets.deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at)
        ))";

const FEW_IN_STATE: &str = "id = ANY(ARRAY(SELECT id FROM tasks WHERE state = :state))";

const FEW_WITH_ASSET: &str =
    "id = ANY(ARRAY(SELECT task FROM assets WHERE assets.state = :asset_state))";

const MANY_WITH_ASSET: &str = "id IN (SELECT task FROM assets WHERE assets.state = :asset_state)";

/// The query for a filter: only what is asked for stands in it, so that each question finds its index.
fn select_tasks(filter: &TaskFilter, most: usize) -> (String, Vec<Named>) {
    let mut sql = "-- manifest::tasks\n    SELECT * FROM tasks WHERE TRUE".to_owned();
    let mut params = vec![(":most", limit(most).to_param())];
    if let Some(danger) = filter.at_risk {
        sql.push_str(AT_RISK);
        params.push((":at_risk_at", danger.now.as_unix_millis().to_param()));
        params.push((":at_risk_before", danger.before.as_unix_millis().to_param()));
    }
    let mut restrict = |clause: &str, name: &'static str, param: Param| {
        if param != Param::Null {
            sql.push_str("\n        AND ");
            sql.push_str(clause);
            params.push((name, param));
        }
    };
    let id = filter.id.as_ref().map(TaskId::as_str);
    restrict("task_id = :task_id", ":task_id", id.to_param());
    // As a stretch of the index. No text goes on behind its last letter with a higher one than this.
    let prefix = filter.id_prefix.as_deref();
    restrict("task_id >= :prefix", ":prefix", prefix.to_param());
    let behind = prefix.map(|prefix| format!("{prefix}{}", char::MAX));
    restrict("task_id < :behind", ":behind", behind.to_param());
    let provider = filter.provider.as_ref().map(ProviderName::as_str);
    restrict("provider = :provider", ":provider", provider.to_param());
    let in_state = match filter.state {
        Some(state) if !state.is_final() => FEW_IN_STATE,
        Some(_) | None => "state = :state",
    };
    let state = filter.state.map(TaskState::as_str);
    restrict(in_state, ":state", state.to_param());
    let with_asset = match filter.asset_state {
        Some(AssetState::Due | AssetState::Lost | AssetState::Refused) => FEW_WITH_ASSET,
        Some(AssetState::Archived) | None => MANY_WITH_ASSET,
    };
    let asset_state = filter.asset_state.map(AssetState::as_str);
    restrict(with_asset, ":asset_state", asset_state.to_param());
    let since = filter.since.map(Timestamp::as_unix_millis);
    restrict("learned_at >= :since", ":since", since.to_param());
    let (after, order) = if filter.is_newest_first {
        ("id < :after", "\n    ORDER BY id DESC")
    } else {
        ("id > :after", "\n    ORDER BY id")
    };
    restrict(after, ":after", filter.after_row.to_param());
    sql.push_str(order);
    sql.push_str(" LIMIT :most");
    (sql, params)
}

const ASSETS: &str = "-- manifest::tasks
    SELECT * FROM assets
    WHERE task = ANY(:tasks) ORDER BY task, asset_index";

async fn read_assets(tx: &Tx<'_>, tasks: &Vec<i64>) -> Result<Vec<(i64, AssetRecord)>, Fault> {
    let mut objects: HashMap<i64, Vec<ObjectRecord>> = HashMap::new();
    for (asset, object) in read_objects(tx, tasks).await? {
        objects.entry(asset).or_default().push(object);
    }
    all(
        tx,
        ASSETS,
        named_params! { ":tasks": tasks },
        "assets",
        |columns| {
            let objects = objects.remove(&columns.id).unwrap_or_default();
            Ok((columns.get("task")?, columns.asset_record(objects)?))
        },
    )
    .await
}

const OBJECTS: &str = "-- manifest::tasks
    SELECT objects.*, there.parts AS parts_there, COALESCE(there.bytes, 0)::bigint AS bytes_there
    FROM assets
    JOIN objects ON objects.asset = assets.id
    LEFT JOIN (
        SELECT object, COUNT(*) AS parts, SUM(length) AS bytes FROM parts
        WHERE object IN (
            SELECT objects.id FROM objects JOIN assets ON assets.id = objects.asset
            WHERE assets.task = ANY(:tasks)
        )
        GROUP BY object
    ) AS there ON there.object = objects.id
    WHERE assets.task = ANY(:tasks)
    ORDER BY objects.asset, objects.position";

async fn read_objects(tx: &Tx<'_>, tasks: &Vec<i64>) -> Result<Vec<(i64, ObjectRecord)>, Fault> {
    all(
        tx,
        OBJECTS,
        named_params! { ":tasks": tasks },
        "objects",
        |columns| Ok((columns.get("asset")?, columns.object_record()?)),
    )
    .await
}

const TALLY_TASKS: &str = "-- manifest::tally
    SELECT 0::bigint AS id, state, SUM(rows)::bigint AS rows FROM counts
    WHERE kind = 'tasks' GROUP BY state HAVING SUM(rows) <> 0";

const TALLY_ASSETS: &str = "-- manifest::tally
    SELECT 0::bigint AS id, state, SUM(rows)::bigint AS rows FROM counts
    WHERE kind = 'assets' GROUP BY state HAVING SUM(rows) <> 0";

const TALLY_BYTES: &str = "-- manifest::tally
    SELECT COALESCE(SUM(bytes), 0)::bigint FROM counts WHERE kind = 'assets' AND state = 'archived'";

const TALLY_ORPHANS: &str = "-- manifest::tally
    SELECT COUNT(*) FROM orphans";

pub(super) const TALLY_DEADLINE: &str = "-- manifest::tally
    SELECT MIN(at) FROM (
        SELECT MIN(deadline_at) AS at FROM tasks WHERE state = 'watching'
        UNION ALL
        SELECT MIN(deadline_at) AS at FROM assets WHERE state = 'due'
    ) AS deadlines";

/// Everything in numbers.
pub(in crate::manifest) async fn tally(tx: &Tx<'_>) -> Result<Tally, Fault> {
    let next: Option<Option<i64>> = value(tx, TALLY_DEADLINE, []).await?;
    Ok(Tally {
        tasks: count_states(tx, TALLY_TASKS, "tasks").await?,
        assets: count_states(tx, TALLY_ASSETS, "assets").await?,
        bytes_archived: count(tx, TALLY_BYTES).await?,
        orphans: count(tx, TALLY_ORPHANS).await?,
        next_deadline: next.flatten().map(Timestamp::from_unix_millis),
    })
}

/// A count and a sum of lengths are never negative.
async fn count(tx: &Tx<'_>, sql: &str) -> Result<u64, Fault> {
    let count: Option<i64> = value(tx, sql, []).await?;
    Ok(count
        .and_then(|count| u64::try_from(count).ok())
        .unwrap_or(0))
}

async fn count_states<State: FromStr + Ord>(
    tx: &Tx<'_>,
    sql: &str,
    table: &'static str,
) -> Result<Vec<(State, u64)>, Fault> {
    let mut counts = all(tx, sql, [], table, |columns| {
        Ok((columns.word::<State>("state")?, columns.number("rows")?))
    })
    .await?;
    counts.sort();
    Ok(counts)
}
