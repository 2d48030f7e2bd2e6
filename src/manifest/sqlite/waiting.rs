//! What waits because something went wrong, by what that is: for reading.

use rusqlite::Connection;
use rusqlite::named_params;

use super::Fault;
use super::all;
use super::columns::Columns;
use crate::manifest::row::waiting::Waiting;

// Of each kind the most urgent are looked at, and no more, or this would cost as much as the backlog is long.
pub(super) const WAITING: &str = "-- manifest::waiting
    SELECT 0 AS id, what, provider, error, COUNT(*) AS waiting FROM (
        SELECT * FROM (
            SELECT 'tasks' AS what, provider, error FROM tasks
            WHERE state = 'watching' ORDER BY deadline_at LIMIT 10000
        )
        UNION ALL
        SELECT 'assets' AS what, tasks.provider, urgent.error FROM (
            SELECT task, error FROM assets WHERE state = 'due' ORDER BY deadline_at LIMIT 10000
        ) AS urgent
        JOIN tasks ON tasks.id = urgent.task
    )
    WHERE error IS NOT NULL
    GROUP BY what, provider, error ORDER BY waiting DESC, what, provider, error LIMIT :most";

/// The errors that most wait for.
pub(in crate::manifest) fn waiting(db: &Connection, most: usize) -> Result<Vec<Waiting>, Fault> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let params = named_params! { ":most": most };
    let read = |columns: &Columns<'_, '_>| columns.waiting();
    all(db, WAITING, params, "tasks", read)
}
