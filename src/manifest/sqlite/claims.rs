//! Claims: rows that are due go to one worker at a time, the most urgent first, under a lease that runs out.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::named_params;

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::execute;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::ManifestError;
use crate::manifest::ROWS_AT_ONCE;
use crate::manifest::elsewhere::Elsewhere;
use crate::manifest::row::Claimable;
use crate::manifest::row::ClaimedAsset;
use crate::manifest::row::ClaimedObject;
use crate::manifest::row::ClaimedOrphan;
use crate::manifest::row::ClaimedTask;
use crate::manifest::row::PartRow;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;
use crate::units::Span;

pub(super) const CLAIM_TASKS: &str = "-- manifest::claim_tasks
    -- Of a backlog not all is sorted at each claim: those that have waited longest ...
    WITH waiting AS MATERIALIZED (
        SELECT id, deadline_at, next_look_at FROM tasks
        WHERE lease_expires_at IS NULL AND next_look_at <= :now
            AND provider NOT IN (SELECT value FROM json_each(:except))
        ORDER BY next_look_at
        LIMIT :window
    )
    UPDATE tasks
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    WHERE id IN (
        SELECT id FROM (
            SELECT id, deadline_at, next_look_at FROM waiting
            UNION ALL
            -- ... and those that are nearest to their deadline, as far as they are due. Where all that are due are above,
            -- nobody is looked for: most of these rows are held, and nothing but time tells.
            SELECT id, deadline_at, next_look_at FROM (
                SELECT id, deadline_at, next_look_at, lease_expires_at, provider FROM tasks
                WHERE state = 'watching'
                ORDER BY deadline_at
                LIMIT (SELECT CASE WHEN COUNT(*) < :window THEN 0 ELSE :most END FROM waiting)
            )
            WHERE lease_expires_at IS NULL AND next_look_at <= :now
                AND provider NOT IN (SELECT value FROM json_each(:except))
            UNION ALL
            -- A lease that ran out: who held it is gone or too slow. A branch of its own for its own index.
            SELECT id, deadline_at, next_look_at FROM (
                SELECT id, deadline_at, next_look_at FROM tasks
                WHERE lease_expires_at <= :now AND next_look_at <= :now
                    AND provider NOT IN (SELECT value FROM json_each(:except))
                ORDER BY lease_expires_at
                LIMIT :window
            )
        )
        -- A task may be among both. UNION would sort each branch by ID, and scan the table for that.
        GROUP BY id
        -- What somebody asks for goes first (`hear`).
        ORDER BY MIN(next_look_at) > 0, MIN(deadline_at), MIN(next_look_at), id
        LIMIT :most
    )
    -- Columns are found by their names, one name after the other: no more than are read.
    RETURNING id, lease_token, lease_expires_at, provider, task_id, state, tags, model, kind, learned_at,
        created_at, last_unfinished_at, status, percent, error, deadline_at, deadline_from, looks, misses, attempts,
        next_look_at";

/// How many times as many tasks as are claimed are sorted by their deadlines.
const WINDOW: usize = 4;

/// Claims tasks to be looked at, for a lease or for `hold`.
pub(in crate::manifest) fn claim_tasks(
    tx: &Tx<'_>,
    most: usize,
    except: &[ProviderName],
    hold: Option<Span>,
) -> Result<Vec<ClaimedTask>, Fault> {
    let except = serde_json::to_string(except).expect("names are strings");
    let until = hold.map_or(tx.lease_until, |hold| tx.now.plus(hold));
    let params = named_params! {
        ":owner": tx.owner, ":lease_until": until.as_unix_millis(),
        ":now": tx.now.as_unix_millis(), ":except": except, ":most": limit(most),
        ":window": limit(most.saturating_mul(WINDOW)),
    };
    let mut claimed = all(tx.db, CLAIM_TASKS, params, "tasks", |columns| {
        let urgency = columns.urgency("next_look_at")?;
        Ok((
            (urgency.1 > Timestamp::EPOCH, urgency),
            columns.claimed_task()?,
        ))
    })?;
    // The order of returned rows is the engine's own.
    claimed.sort_by_key(|(urgency, _)| *urgency);
    Ok(claimed.into_iter().map(|(_, task)| task).collect())
}

/// How many assets are sorted by their deadlines: more than are under way, of which most of these may be, and a single one is
/// claimed where a place is free.
const ASSETS_WINDOW: usize = 512;

pub(super) const CLAIM_ASSETS: &str = "-- manifest::claim_assets
    -- Of a backlog not all is sorted at each claim: those that are nearest to their deadline ...
    WITH nearest AS MATERIALIZED (
        SELECT id, deadline_at, due_at, lease_expires_at FROM assets
        WHERE state = 'due' AND deadline_at < :before
        ORDER BY deadline_at
        LIMIT :window
    )
    UPDATE assets
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    WHERE id IN (
        SELECT id FROM (
            SELECT id, deadline_at, due_at FROM nearest
            WHERE due_at <= :now AND (lease_expires_at IS NULL OR lease_expires_at <= :now)
            UNION ALL
            -- ... and where those are not all, those that have waited longest. Where this daemon lacks something, all is
            -- sorted: most may be for others.
            SELECT id, deadline_at, due_at FROM (
                SELECT id, deadline_at, due_at FROM assets
                WHERE lease_expires_at IS NULL AND due_at <= :now AND deadline_at < :before
                ORDER BY due_at
                LIMIT (
                    SELECT CASE WHEN COUNT(*) < :window THEN 0 WHEN :lacks_nothing THEN :window ELSE -1 END
                    FROM nearest
                )
            )
            UNION ALL
            -- A lease that ran out: who held it is gone or too slow. A branch of its own for its own index.
            SELECT id, deadline_at, due_at FROM (
                SELECT id, deadline_at, due_at FROM assets
                WHERE lease_expires_at <= :now AND due_at <= :now AND deadline_at < :before
                ORDER BY lease_expires_at
                LIMIT CASE WHEN :lacks_nothing THEN :window ELSE -1 END
            )
        ) AS found
        -- Where this daemon lacks nothing, nothing more is asked: the index has all of it. Else something must be left
        -- that it can do.
        WHERE :lacks_nothing OR (
            NOT EXISTS (
                SELECT 1 FROM assets JOIN tasks ON tasks.id = assets.task
                WHERE assets.id = found.id AND provider IN (SELECT value FROM json_each(:providers))
            )
            AND EXISTS (
                SELECT 1 FROM objects
                WHERE asset = found.id AND state <> 'archived'
                    AND destination NOT IN (SELECT value FROM json_each(:destinations))
            )
        )
        -- An asset may be among several.
        GROUP BY id
        ORDER BY deadline_at, due_at, id
        LIMIT :most
    )
    RETURNING id";

const READ_CLAIMED_ASSETS: &str = "-- manifest::claim_assets
    SELECT assets.*, tasks.provider, tasks.task_id, tasks.tags, tasks.model,
        COALESCE(tasks.created_at, tasks.learned_at) AS created_at,
        -- Not every provider says when a task was completed.
        COALESCE(tasks.completed_at, tasks.last_unfinished_at, tasks.learned_at) AS waits_since,
        tasks.deadline_at AS task_deadline_at,
        -- A task that has assets is looked at for fresh links only.
        tasks.next_look_at IS NOT NULL AS is_refresh_pending
    FROM assets JOIN tasks ON tasks.id = assets.task
    WHERE assets.id IN (SELECT value FROM json_each(:ids))";

/// Claims assets to be archived; with `before`, only those that die before it.
pub(in crate::manifest) fn claim_assets(
    tx: &Tx<'_>,
    most: usize,
    before: Option<Timestamp>,
    others: &Elsewhere,
) -> Result<Vec<ClaimedAsset>, Fault> {
    let before = before.map_or(i64::MAX, Timestamp::as_unix_millis);
    let params = named_params! {
        ":owner": tx.owner, ":lease_until": tx.lease_until.as_unix_millis(),
        ":now": tx.now.as_unix_millis(), ":before": before, ":most": limit(most),
        ":window": limit(most.max(ASSETS_WINDOW)), ":lacks_nothing": others.is_empty(), ":providers": names(others.providers.keys()),
        ":destinations": names(others.destinations.keys()),
    };
    let ids: Vec<i64> = all(tx.db, CLAIM_ASSETS, params, "assets", |columns| {
        Ok(columns.id)
    })?;
    let ids = serde_json::to_string(&ids).expect("numbers are numbers");
    let mut objects = claimed_objects(tx.db, &ids)?;
    let params = named_params! { ":ids": ids };
    let mut claimed = all(tx.db, READ_CLAIMED_ASSETS, params, "assets", |columns| {
        let objects = objects.remove(&columns.id).unwrap_or_default();
        Ok((columns.urgency("due_at")?, columns.claimed_asset(objects)?))
    })?;
    claimed.sort_by_key(|(urgency, _)| *urgency);
    Ok(claimed.into_iter().map(|(_, asset)| asset).collect())
}

pub(super) const CLAIM_ORPHANS: &str = "-- manifest::claim_orphans
    UPDATE orphans
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    WHERE id IN (
        SELECT id FROM (
            SELECT id, due_at FROM orphans WHERE lease_expires_at IS NULL AND due_at <= :now
            UNION ALL
            SELECT id, due_at FROM orphans WHERE lease_expires_at <= :now AND due_at <= :now
        ) AS found
        WHERE :lacks_nothing OR NOT EXISTS (
            SELECT 1 FROM orphans
            WHERE orphans.id = found.id AND destination IN (SELECT value FROM json_each(:destinations))
        )
        ORDER BY due_at, id
        LIMIT :most
    )
    RETURNING *";

/// Claims uploads to be aborted.
pub(in crate::manifest) fn claim_orphans(
    tx: &Tx<'_>,
    most: usize,
    others: &Elsewhere,
) -> Result<Vec<ClaimedOrphan>, Fault> {
    let params = named_params! {
        ":owner": tx.owner, ":lease_until": tx.lease_until.as_unix_millis(),
        ":now": tx.now.as_unix_millis(), ":most": limit(most),
        ":lacks_nothing": others.is_empty(), ":destinations": names(others.destinations.keys()),
    };
    let mut claimed = all(tx.db, CLAIM_ORPHANS, params, "orphans", |columns| {
        let urgency = (columns.instant("due_at")?, columns.id);
        Ok((urgency, columns.claimed_orphan()?))
    })?;
    claimed.sort_by_key(|(urgency, _)| *urgency);
    Ok(claimed.into_iter().map(|(_, orphan)| orphan).collect())
}

/// A statement that is the same for every table with leases.
macro_rules! per_table {
    ($verb:literal, $table:expr, $sql:literal) => {
        match $table {
            Claimable::Tasks => {
                concat!("-- manifest::", $verb, "\n    UPDATE tasks ", $sql)
            }
            Claimable::Assets => {
                concat!("-- manifest::", $verb, "\n    UPDATE assets ", $sql)
            }
            Claimable::Orphans => {
                concat!("-- manifest::", $verb, "\n    UPDATE orphans ", $sql)
            }
            Claimable::Deliveries => {
                concat!("-- manifest::", $verb, "\n    UPDATE deliveries ", $sql)
            }
            Claimable::Discoveries => {
                concat!("-- manifest::", $verb, "\n    UPDATE discoveries ", $sql)
            }
        }
    };
}

/// Renews each lease, of which none gets shorter; those that are lost come back.
pub(in crate::manifest) fn renew(
    tx: &Tx<'_>,
    table: Claimable,
    leases: &[Lease],
) -> Result<Vec<Lease>, Fault> {
    let sql = per_table!(
        "renew",
        table,
        "SET lease_expires_at = MAX(lease_expires_at, :lease_until)
        WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL"
    );
    let mut lost = Vec::new();
    for lease in leases {
        let params = named_params! {
            ":lease_until": tx.lease_until.as_unix_millis(), ":id": lease.row, ":token": lease.token.0,
        };
        if execute(tx.db, sql, params)? == 0 {
            lost.push(*lease);
        }
    }
    Ok(lost)
}

/// Ends every lease: for a daemon that starts, since whoever gave them is dead. Their tokens do not come back.
pub(super) fn release_all(db: &Connection) -> Result<(), Fault> {
    for table in Claimable::ALL {
        let sql = per_table!(
            "release_all",
            table,
            "SET lease_owner = NULL, lease_expires_at = NULL WHERE lease_expires_at IS NOT NULL"
        );
        execute(db, sql, [])?;
    }
    Ok(())
}

/// Makes due now what is due in more than `longest`.
pub(in crate::manifest) fn pull_in(
    tx: &Tx<'_>,
    table: Claimable,
    longest: Span,
) -> Result<usize, Fault> {
    let params = named_params! {
        ":now": tx.now.as_unix_millis(), ":latest": tx.now.plus(longest).as_unix_millis(),
        ":most": limit(ROWS_AT_ONCE),
    };
    execute(tx.db, pull_in_of(table), params)
}

pub(super) fn pull_in_of(table: Claimable) -> &'static str {
    macro_rules! pull_in {
        ($table:literal, $due:literal) => {
            concat!(
                "-- manifest::pull_in
                UPDATE ",
                $table,
                " SET ",
                $due,
                " = :now WHERE id IN (
                    SELECT id FROM ",
                $table,
                " WHERE ",
                $due,
                " > :latest AND lease_expires_at IS NULL LIMIT :most
                )"
            )
        };
    }
    match table {
        Claimable::Tasks => pull_in!("tasks", "next_look_at"),
        Claimable::Assets => pull_in!("assets", "due_at"),
        Claimable::Orphans => pull_in!("orphans", "due_at"),
        Claimable::Deliveries => pull_in!("deliveries", "due_at"),
        Claimable::Discoveries => pull_in!("discoveries", "due_at"),
    }
}

const HOLD_ASSET: &str = "-- manifest::hold
    SELECT id FROM assets
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Fails unless the lease on an asset is still ours: for writes to what belongs to the asset.
///
/// Good for the rest of the transaction, since this engine has one writer at a time.
pub(super) fn hold_asset(tx: &Tx<'_>, lease: &Lease) -> Result<(), Fault> {
    let params = named_params! { ":id": lease.row, ":token": lease.token.0 };
    let held: Option<i64> = value(tx.db, HOLD_ASSET, params)?;
    held.map(|_| ())
        .ok_or_else(|| stale(Claimable::Assets, lease))
}

/// Checks that a fenced write touched its row.
pub(super) fn touched(rows: usize, table: Claimable, lease: &Lease) -> Result<(), Fault> {
    (rows == 1).then_some(()).ok_or_else(|| stale(table, lease))
}

/// The earliest instant at which a row of the table can be claimed.
pub(in crate::manifest) fn next_due(
    db: &Connection,
    table: Claimable,
) -> Result<Option<Timestamp>, Fault> {
    macro_rules! next_due {
        ($table:literal, $due:literal) => {
            concat!(
                "-- manifest::next_due
                SELECT MIN(at) FROM (
                    SELECT MIN(",
                $due,
                ") AS at FROM ",
                $table,
                "
                    WHERE ",
                $due,
                " IS NOT NULL AND lease_expires_at IS NULL
                    UNION ALL
                    -- What is claimed was due then: it can be claimed again when its lease ends. The first of its index,
                    -- however many are held.
                    SELECT at FROM (
                        SELECT lease_expires_at AS at FROM ",
                $table,
                "
                        WHERE lease_expires_at IS NOT NULL AND ",
                $due,
                " IS NOT NULL
                        ORDER BY lease_expires_at LIMIT 1
                    )
                )"
            )
        };
    }
    let sql = match table {
        Claimable::Tasks => next_due!("tasks", "next_look_at"),
        Claimable::Assets => next_due!("assets", "due_at"),
        Claimable::Orphans => next_due!("orphans", "due_at"),
        Claimable::Deliveries => next_due!("deliveries", "due_at"),
        Claimable::Discoveries => next_due!("discoveries", "due_at"),
    };
    let millis: Option<Option<i64>> = value(db, sql, [])?;
    Ok(millis.flatten().map(Timestamp::from_unix_millis))
}

fn stale(table: Claimable, lease: &Lease) -> Fault {
    Fault::Known(ManifestError::Stale {
        table: table.as_str(),
        lease: *lease,
    })
}

/// Names for `json_each`.
fn names<N: serde::Serialize>(names: impl Iterator<Item = N>) -> String {
    serde_json::to_string(&names.collect::<Vec<_>>()).expect("names are strings")
}

pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

const READ_OBJECTS: &str = "-- manifest::claim_assets
    SELECT * FROM objects WHERE asset IN (SELECT value FROM json_each(:assets)) ORDER BY asset, position";

const READ_PARTS: &str = "-- manifest::claim_assets
    SELECT object AS id, number, length, etag, crc64nvme, progress
    FROM parts WHERE object IN (
        SELECT id FROM objects
        WHERE asset IN (SELECT value FROM json_each(:assets)) AND upload_id IS NOT NULL
    )
    ORDER BY object, number";

/// The objects of each asset, in the order of its route.
fn claimed_objects(
    db: &Connection,
    assets: &str,
) -> Result<HashMap<i64, Vec<ClaimedObject>>, Fault> {
    let params = named_params! { ":assets": assets };
    let mut parts: HashMap<i64, Vec<PartRow>> = HashMap::new();
    let read = |columns: &Columns<'_, '_>| Ok((columns.id, columns.part()?));
    for (object, part) in all(db, READ_PARTS, params, "parts", read)? {
        parts.entry(object).or_default().push(part);
    }
    let mut objects: HashMap<i64, Vec<ClaimedObject>> = HashMap::new();
    let read = |columns: &Columns<'_, '_>| {
        let parts = parts.remove(&columns.id).unwrap_or_default();
        let object = columns.claimed_object(parts)?;
        Ok((columns.get::<i64>("asset")?, object))
    };
    for (asset, object) in all(db, READ_OBJECTS, params, "objects", read)? {
        objects.entry(asset).or_default().push(object);
    }
    Ok(objects)
}
