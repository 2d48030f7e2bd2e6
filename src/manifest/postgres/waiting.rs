//! What waits because something went wrong, by what that is: for reading.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::columns::Columns;
use super::statement::named_params;
use crate::manifest::row::waiting::Waiting;

// Of each kind the most urgent are looked at, and no more, or this would cost as much as the backlog is long.
pub(super) const WAITING: &str = "-- manifest::waiting
    SELECT 0::bigint AS id, what, provider, error, COUNT(*) AS waiting FROM (
        SELECT * FROM (
            SELECT 'tasks' AS what, provider, error FROM tasks
            WHERE state = 'watching' ORDER BY deadline_at LIMIT 10000
        ) AS watched
        UNION ALL
        SELECT 'assets' AS what, tasks.provider, urgent.error FROM (
            SELECT task, error FROM assets WHERE state = 'due' ORDER BY deadline_at LIMIT 10000
        ) AS urgent
        JOIN tasks ON tasks.id = urgent.task
    ) AS at_work
    WHERE error IS NOT NULL
    GROUP BY what, provider, error ORDER BY waiting DESC, what, provider, error LIMIT :most";

/// The errors that most wait for.
pub(in crate::manifest) async fn waiting(tx: &Tx<'_>, most: usize) -> Result<Vec<Waiting>, Fault> {
    let params = named_params! { ":most": limit(most) };
    let read = |columns: &Columns<'_>| columns.waiting();
    all(tx, WAITING, params, "tasks", read).await
}
