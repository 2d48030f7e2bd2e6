//! What nears its deadline unarchived: for reading, and for an alarm that is raised once.

use rusqlite::Connection;
use rusqlite::named_params;

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::events;
use super::events::Happening;
use super::execute;
use crate::manifest::row::AtRisk;
use crate::model::deadline::Danger;
use crate::model::event::EventKind;

/// Alarms of one call: a long outage puts everything at risk at once, and the rest comes with the next call.
const ALARMS_MAX: usize = 1000;

pub(super) const AT_RISK: &str = "-- manifest::at_risk
    SELECT id, provider, task_id, NULL AS asset_index, deadline_at, deadline_from, error
    FROM tasks
    WHERE state = 'watching' AND deadline_at < :before
        -- The last third of the links' life, as far as it is known when that begins.
        AND (deadline_at - :at) * 3 < deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at)
        AND (NOT :is_unwarned OR warned_at IS NULL)
    UNION ALL
    SELECT assets.id, provider, task_id, asset_index, assets.deadline_at, assets.deadline_from,
        assets.error
    FROM assets JOIN tasks ON tasks.id = assets.task
    WHERE assets.state = 'due' AND assets.deadline_at < :before
        AND (assets.deadline_at - :at) * 3
            < assets.deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at)
        AND (NOT :is_unwarned OR assets.warned_at IS NULL)
    ORDER BY deadline_at, provider, task_id, asset_index
    LIMIT :most";

/// What is unarchived and in danger, the most urgent first.
pub(in crate::manifest) fn at_risk(
    db: &Connection,
    danger: Danger,
    most: usize,
) -> Result<Vec<AtRisk>, Fault> {
    let found = find(db, danger, most, false)?;
    Ok(found.into_iter().map(|(_, risk)| risk).collect())
}

pub(super) const REARM_TASKS: &str = "-- manifest::raise_alarms
    UPDATE tasks SET warned_at = NULL
    -- The plus: not by the index of states, which has all that are watched.
    WHERE +state = 'watching' AND warned_at IS NOT NULL AND deadline_at > :at
        AND (deadline_at >= :before OR (deadline_at - :at) * 3
            >= deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at))";

const WARN_TASK: &str = "-- manifest::raise_alarms
    UPDATE tasks SET warned_at = :now WHERE id = :id";

const WARN_ASSET: &str = "-- manifest::raise_alarms
    UPDATE assets SET warned_at = :now WHERE id = :id";

/// The same, without those that an alarm was raised for already; marks them.
///
/// Each sighting of a running task may move its deadline: an alarm for it comes again only after it was out of danger.
pub(in crate::manifest) fn raise(tx: &Tx<'_>, danger: Danger) -> Result<Vec<AtRisk>, Fault> {
    execute(
        tx.db,
        REARM_TASKS,
        named_params! { ":before": danger.before.as_unix_millis(), ":at": danger.now.as_unix_millis() },
    )?;
    let found = find(tx.db, danger, ALARMS_MAX, true)?;
    for (row, risk) in &found {
        let sql = if risk.index.is_some() {
            WARN_ASSET
        } else {
            WARN_TASK
        };
        let params = named_params! { ":now": tx.now.as_unix_millis(), ":id": row };
        execute(tx.db, sql, params)?;
        let reason = risk.error.as_deref();
        if risk.index.is_some() {
            events::append_of_asset(tx, EventKind::AtRisk, *row, reason)?;
        } else {
            let happening = Happening::to_task(EventKind::AtRisk, *row);
            events::append(
                tx,
                Happening {
                    reason,
                    ..happening
                },
            )?;
        }
    }
    Ok(found.into_iter().map(|(_, risk)| risk).collect())
}

fn find(
    db: &Connection,
    danger: Danger,
    most: usize,
    is_unwarned: bool,
) -> Result<Vec<(i64, AtRisk)>, Fault> {
    let params = named_params! {
        ":before": danger.before.as_unix_millis(), ":at": danger.now.as_unix_millis(),
        ":is_unwarned": is_unwarned,
        ":most": i64::try_from(most).unwrap_or(i64::MAX),
    };
    let read = |columns: &Columns<'_, '_>| Ok((columns.id, columns.at_risk()?));
    all(db, AT_RISK, params, "assets", read)
}
