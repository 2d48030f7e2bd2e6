//! Verbs on what others say of tasks: never believed, but a reason to look.

use super::Fault;
use super::Tx;
use super::all;
use super::execute;
use super::statement::named_params;
use crate::manifest::row::Heard;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;

const FIND: &str = "-- manifest::hear
    SELECT id, state, next_look_at FROM tasks WHERE task_id = :task_id AND provider = :provider FOR NO KEY UPDATE";

const HEAR: &str = "-- manifest::hear
    UPDATE tasks
    SET next_look_at = CASE
            -- While it is claimed the claim goes on, and whoever holds it finds `heard_at`.
            -- Zero is before all that is due by itself: somebody waits for what this look finds.
            WHEN lease_expires_at IS NULL THEN 0
            ELSE next_look_at
        END,
        heard_at = CASE WHEN lease_expires_at IS NULL THEN NULL ELSE :now END
    WHERE id = :id AND next_look_at IS NOT NULL";

/// Makes a task due now, or once more after the look that is under way.
pub(in crate::manifest) async fn hear(tx: &Tx<'_>, key: &TaskKey) -> Result<Heard, Fault> {
    let params = named_params! { ":task_id": key.id.as_str(), ":provider": key.provider.as_str() };
    let found = all(tx, FIND, params, "tasks", |columns| {
        let state: TaskState = columns.word("state")?;
        let next: Option<i64> = columns.get("next_look_at")?;
        Ok((columns.id, state, next))
    })
    .await?;
    let Some((row, state, next)) = found.into_iter().next() else {
        return Ok(Heard::Unknown);
    };
    if next.is_none() {
        return Ok(Heard::Ended(state));
    }
    let params = named_params! { ":id": row, };
    execute(tx, HEAR, params).await?;
    Ok(Heard::Due)
}

const REVIVE: &str = "-- manifest::revive
    UPDATE tasks
    SET state = 'watching', next_look_at = 0, attempts = 0, misses = 0, error = NULL
    -- Failed and cancelled is what the provider itself said.
    WHERE state IN ('vanished', 'abandoned') AND task_id = :task_id AND provider = :provider";

/// Watches a task again that was given up.
pub(in crate::manifest) async fn revive(tx: &Tx<'_>, key: &TaskKey) -> Result<bool, Fault> {
    let params = named_params! {
        ":task_id": key.id.as_str(), ":provider": key.provider.as_str(),
    };
    Ok(execute(tx, REVIVE, params).await? > 0)
}
