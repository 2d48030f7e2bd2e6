//! How many rows stand in each state: kept by triggers, for each session of the server by itself.

use super::Fault;
use super::Tx;
use super::execute;

const PUT_TOGETHER: &str = "-- manifest::put_together
    WITH gone AS (
        DELETE FROM counts
        -- Each command that learns something is a session: as many numbers as are quickly added up may stay.
        WHERE (SELECT COUNT(*) FROM counts) > 500
            AND session <> 0 AND session NOT IN (SELECT pid FROM pg_stat_activity)
        RETURNING kind, state, rows, bytes
    )
    INSERT INTO counts AS known (kind, state, session, rows, bytes)
    SELECT kind, state, 0, SUM(rows)::bigint, SUM(bytes)::bigint FROM gone GROUP BY kind, state
    ON CONFLICT (kind, state, session) DO UPDATE
    SET rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes";

/// Puts the numbers of sessions that are gone under one, once there are many.
pub(in crate::manifest) async fn put_together(tx: &Tx<'_>) -> Result<(), Fault> {
    execute(tx, PUT_TOGETHER, []).await.map(|_| ())
}
