//! What nears its deadline unarchived: for reading, and for an alarm that is raised once.

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::events;
use super::events::Happening;
use super::execute;
use super::statement::named_params;
use crate::manifest::row::AtRisk;
use crate::model::deadline::Danger;
use crate::model::event::EventKind;

/// Alarms of one call: a long outage puts everything at risk at once, and the rest comes with the next call. Differs from
/// SQLite, which takes more at once: each takes three answers of the server, and all of them no longer than a verb may.
const ALARMS_MAX: usize = 100;

pub(super) const AT_RISK: &str = "-- manifest::at_risk
    SELECT id, provider, task_id, NULL::bigint AS asset_index, deadline_at, deadline_from, error
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
    -- As on SQLite, what has no index comes first.
    ORDER BY deadline_at, provider, task_id, asset_index NULLS FIRST
    LIMIT :most";

/// What is unarchived and in danger, the most urgent first.
pub(in crate::manifest) async fn at_risk(
    tx: &Tx<'_>,
    danger: Danger,
    most: usize,
) -> Result<Vec<AtRisk>, Fault> {
    let found = find(tx, danger, most, false).await?;
    Ok(found.into_iter().map(|(_, risk)| risk).collect())
}

const REARM_TASKS: &str = "-- manifest::raise_alarms
    UPDATE tasks SET warned_at = NULL
    WHERE state = 'watching' AND warned_at IS NOT NULL AND deadline_at > :at
        AND (deadline_at >= :before OR (deadline_at - :at) * 3
            >= deadline_at - COALESCE(completed_at, last_unfinished_at, created_at, learned_at))";

const WARN_TASK: &str = "-- manifest::raise_alarms
    UPDATE tasks SET warned_at = :now WHERE id = :id AND warned_at IS NULL";

const WARN_ASSET: &str = "-- manifest::raise_alarms
    UPDATE assets SET warned_at = :now WHERE id = :id AND warned_at IS NULL";

/// The same, without those that an alarm was raised for already; marks them.
///
/// Each sighting of a running task may move its deadline: an alarm for it comes again only after it was out of danger.
pub(in crate::manifest) async fn raise(tx: &Tx<'_>, danger: Danger) -> Result<Vec<AtRisk>, Fault> {
    execute(
        tx,
        REARM_TASKS,
        named_params! { ":before": danger.before.as_unix_millis(), ":at": danger.now.as_unix_millis() },
    )
    .await?;
    let mut raised = Vec::new();
    for (row, risk) in find(tx, danger, ALARMS_MAX, true).await? {
        let sql = if risk.index.is_some() {
            WARN_ASSET
        } else {
            WARN_TASK
        };
        // Another machine may have raised it between the two statements.
        if execute(tx, sql, named_params! { ":id": row }).await? == 0 {
            continue;
        }
        let reason = risk.error.as_deref();
        if risk.index.is_some() {
            events::append_of_asset(tx, EventKind::AtRisk, row, reason).await?;
        } else {
            let happening = Happening::to_task(EventKind::AtRisk, row);
            let happening = Happening {
                reason,
                ..happening
            };
            events::append(tx, happening).await?;
        }
        raised.push(risk);
    }
    Ok(raised)
}

async fn find(
    tx: &Tx<'_>,
    danger: Danger,
    most: usize,
    is_unwarned: bool,
) -> Result<Vec<(i64, AtRisk)>, Fault> {
    let params = named_params! {
        ":before": danger.before.as_unix_millis(), ":at": danger.now.as_unix_millis(),
        ":is_unwarned": is_unwarned,
        ":most": i64::try_from(most).unwrap_or(i64::MAX),
    };
    let read = |columns: &Columns<'_>| Ok((columns.id, columns.at_risk()?));
    all(tx, AT_RISK, params, "assets", read).await
}
