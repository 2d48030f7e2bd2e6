//! Claims: rows that are due go to one worker at a time, the most urgent first, under a lease that runs out.
//!
//! Rows that another machine is just claiming are passed over, not waited for: `SKIP LOCKED` in both branches, one for
//! each index, and the most urgent of what both found.

use std::collections::HashMap;

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::execute;
use super::statement::named_params;
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
    -- Of a backlog not all is sorted at each claim: those that have waited longest, those that are nearest to their
    -- deadline, and those whose lease ran out, since who held it is gone or too slow.
    WITH candidates AS (
        (SELECT id FROM tasks
        WHERE lease_expires_at IS NULL AND next_look_at <= :now AND provider <> ALL(:except)
        ORDER BY next_look_at LIMIT :window)
        UNION
        (SELECT id FROM tasks WHERE state = 'watching' ORDER BY deadline_at LIMIT :most)
        UNION
        (SELECT id FROM tasks
        WHERE lease_expires_at <= :now AND next_look_at <= :now AND provider <> ALL(:except)
        ORDER BY lease_expires_at LIMIT :window)
    ), chosen AS (
        -- Only what is claimed is locked: another claim passes over it and finds the rest of its candidates free.
        SELECT id FROM tasks
        WHERE id IN (SELECT id FROM candidates)
            AND next_look_at <= :now AND (lease_expires_at IS NULL OR lease_expires_at <= :now)
            AND provider <> ALL(:except)
        -- What somebody asks for goes first (`hear`).
        ORDER BY next_look_at > 0, deadline_at, next_look_at, id LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE tasks
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :now + :hold
    FROM chosen WHERE tasks.id = chosen.id
    RETURNING tasks.*";

/// How many times as many tasks as are claimed are sorted by their deadlines.
const WINDOW: usize = 4;

/// The least that is sorted, so that small claims at once do not all have the same few candidates.
const WINDOW_MIN: usize = 256;

/// Claims tasks to be looked at, for a lease or for `hold`.
pub(in crate::manifest) async fn claim_tasks(
    tx: &Tx<'_>,
    most: usize,
    except: &[ProviderName],
    hold: Option<Span>,
) -> Result<Vec<ClaimedTask>, Fault> {
    let except: Vec<String> = except.iter().map(ToString::to_string).collect();
    let params = named_params! {
        ":except": except, ":most": limit(most), ":window": limit(most.saturating_mul(WINDOW).max(WINDOW_MIN)),
        ":hold": hold.unwrap_or(tx.engine.lease).as_millis_i64(),
    };
    let mut claimed = all(tx, CLAIM_TASKS, params, "tasks", |columns| {
        let urgency = columns.urgency("next_look_at")?;
        Ok((
            (urgency.1 > Timestamp::EPOCH, urgency),
            columns.claimed_task()?,
        ))
    })
    .await?;
    // The order of returned rows is the engine's own.
    claimed.sort_by_key(|(urgency, _)| *urgency);
    Ok(claimed.into_iter().map(|(_, task)| task).collect())
}

/// How many assets are sorted by their deadlines: more than are under way, of which most of these may be, and a single one is
/// claimed where a place is free.
const ASSETS_WINDOW: usize = 512;

pub(super) const CLAIM_ASSETS: &str = "-- manifest::claim_assets
    -- Of a backlog not all is sorted at each claim: those that are nearest to their deadline, and where those are not all,
    -- those that have waited longest. Where this daemon lacks something, all is: most may be for others.
    WITH nearest AS MATERIALIZED (
        SELECT id, due_at, lease_expires_at FROM assets
        WHERE state = 'due' AND deadline_at < :before
        ORDER BY deadline_at LIMIT :window
    ), candidates AS (
        SELECT id FROM nearest
        WHERE due_at <= :now AND (lease_expires_at IS NULL OR lease_expires_at <= :now)
        UNION
        (SELECT id FROM assets
        WHERE lease_expires_at IS NULL AND due_at <= :now AND deadline_at < :before
        ORDER BY due_at
        LIMIT (
            SELECT CASE WHEN COUNT(*) < :window THEN 0 WHEN :lacks_nothing THEN :window END FROM nearest
        ))
        UNION
        -- A lease that ran out: who held it is gone or too slow.
        (SELECT id FROM assets
        WHERE lease_expires_at <= :now AND due_at <= :now AND deadline_at < :before
        ORDER BY lease_expires_at LIMIT CASE WHEN :lacks_nothing THEN :window END)
    ), chosen AS (
        -- Only what is claimed is locked: another claim passes over it and finds the rest of its candidates free.
        SELECT id FROM assets
        WHERE id IN (SELECT id FROM candidates)
            AND due_at <= :now AND (lease_expires_at IS NULL OR lease_expires_at <= :now)
            -- Where this daemon lacks nothing, nothing more is asked. Else something must be left that it can do.
            AND (:lacks_nothing OR (
                NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = assets.task AND provider = ANY(:providers))
                AND EXISTS (
                    SELECT 1 FROM objects
                    WHERE asset = assets.id AND objects.state <> 'archived' AND destination <> ALL(:destinations)
                )
            ))
        ORDER BY deadline_at, due_at, id LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE assets
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    FROM chosen WHERE assets.id = chosen.id
    RETURNING assets.*";

pub(super) const READ_CLAIMED_ASSETS: &str = "-- manifest::claim_assets
    SELECT assets.*, tasks.provider, tasks.task_id, tasks.tags, tasks.model,
        COALESCE(tasks.created_at, tasks.learned_at) AS created_at,
        -- Not every provider says when a task was completed.
        COALESCE(tasks.completed_at, tasks.last_unfinished_at, tasks.learned_at) AS waits_since,
        tasks.deadline_at AS task_deadline_at,
        -- A task that has assets is looked at for fresh links only.
        tasks.next_look_at IS NOT NULL AS is_refresh_pending
    FROM assets JOIN tasks ON tasks.id = assets.task
    WHERE assets.id = ANY(:ids)";

/// Claims assets to be archived; with `before`, only those that die before it. Four statements, however many assets.
pub(in crate::manifest) async fn claim_assets(
    tx: &Tx<'_>,
    most: usize,
    before: Option<Timestamp>,
    others: &Elsewhere,
) -> Result<Vec<ClaimedAsset>, Fault> {
    let before = before.map_or(i64::MAX, Timestamp::as_unix_millis);
    let params = named_params! {
        ":before": before, ":most": limit(most), ":window": limit(most.max(ASSETS_WINDOW)),
        ":lacks_nothing": others.is_empty(),
        ":providers": names(others.providers.keys()), ":destinations": names(others.destinations.keys()),
    };
    let ids = all(tx, CLAIM_ASSETS, params, "assets", |columns| Ok(columns.id)).await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut objects = claimed_objects(tx, &ids).await?;
    let params = named_params! { ":ids": ids };
    let mut claimed = all(tx, READ_CLAIMED_ASSETS, params, "assets", |columns| {
        let objects = objects.remove(&columns.id).unwrap_or_default();
        Ok((columns.urgency("due_at")?, columns.claimed_asset(objects)?))
    })
    .await?;
    claimed.sort_by_key(|(urgency, _)| *urgency);
    Ok(claimed.into_iter().map(|(_, asset)| asset).collect())
}

pub(super) const CLAIM_ORPHANS: &str = "-- manifest::claim_orphans
    WITH free AS (
        SELECT id, due_at FROM orphans
        WHERE lease_expires_at IS NULL AND due_at <= :now AND destination <> ALL(:destinations)
        ORDER BY due_at, id LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    ), left_behind AS (
        -- A lease that ran out: who held it is gone or too slow.
        SELECT id, due_at FROM orphans
        WHERE lease_expires_at <= :now AND due_at <= :now AND destination <> ALL(:destinations)
        ORDER BY due_at, id LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    ), chosen AS (
        SELECT id FROM (SELECT * FROM free UNION ALL SELECT * FROM left_behind) AS found
        ORDER BY due_at, id LIMIT :most
    )
    UPDATE orphans
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    FROM chosen WHERE orphans.id = chosen.id
    RETURNING orphans.*";

/// Claims uploads to be aborted.
pub(in crate::manifest) async fn claim_orphans(
    tx: &Tx<'_>,
    most: usize,
    others: &Elsewhere,
) -> Result<Vec<ClaimedOrphan>, Fault> {
    let destinations = names(others.destinations.keys());
    let params = named_params! { ":most": limit(most), ":destinations": destinations };
    let mut claimed = all(tx, CLAIM_ORPHANS, params, "orphans", |columns| {
        let urgency = (columns.instant("due_at")?, columns.id);
        Ok((urgency, columns.claimed_orphan()?))
    })
    .await?;
    claimed.sort_by_key(|(urgency, _)| *urgency);
    Ok(claimed.into_iter().map(|(_, orphan)| orphan).collect())
}

fn names<N: ToString>(names: impl Iterator<Item = N>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}

/// A statement that is the same for every table with leases.
macro_rules! per_table {
    ($table:expr, $($piece:literal),+; $($end:literal),+) => {
        match $table {
            Claimable::Tasks => concat!($($piece, "tasks",)+ $($end),+),
            Claimable::Assets => concat!($($piece, "assets",)+ $($end),+),
            Claimable::Orphans => concat!($($piece, "orphans",)+ $($end),+),
            Claimable::Deliveries => concat!($($piece, "deliveries",)+ $($end),+),
            Claimable::Discoveries => concat!($($piece, "discoveries",)+ $($end),+),
        }
    };
}

pub(super) fn renewal(table: Claimable) -> &'static str {
    per_table!(
        table,
        "-- manifest::renew
    UPDATE ";
        " AS held SET lease_expires_at = GREATEST(held.lease_expires_at, :lease_until)
    FROM unnest(:ids::bigint[], :tokens::bigint[]) AS ours (id, token)
    WHERE held.id = ours.id AND held.lease_token = ours.token AND held.lease_expires_at IS NOT NULL
    RETURNING held.id, held.lease_token"
    )
}

/// Renews the leases in one statement, of which none gets shorter; those that are lost come back.
pub(in crate::manifest) async fn renew(
    tx: &Tx<'_>,
    table: Claimable,
    leases: &[Lease],
) -> Result<Vec<Lease>, Fault> {
    let (ids, tokens): (Vec<i64>, Vec<i64>) = leases
        .iter()
        .map(|lease| (lease.row, lease.token.0))
        .unzip();
    let params = named_params! { ":ids": ids, ":tokens": tokens };
    let name = table.as_str();
    // With the token: a row that was lost and claimed again is held under two leases, of which one still counts.
    let held = |columns: &Columns<'_>| Ok((columns.id, columns.get("lease_token")?));
    let renewed: Vec<(i64, i64)> = all(tx, renewal(table), params, name, held).await?;
    let is_lost = |lease: &&Lease| !renewed.contains(&(lease.row, lease.token.0));
    Ok(leases.iter().filter(is_lost).copied().collect())
}

/// Ends leases of every run of one machine. Their tokens do not come back.
pub(super) fn release_of(table: Claimable) -> &'static str {
    per_table!(
        table,
        "-- manifest::arrive
    UPDATE ",
        " SET lease_owner = NULL, lease_expires_at = NULL
    WHERE id = ANY(ARRAY(
        SELECT id FROM ";
        "
        WHERE lease_expires_at IS NOT NULL AND starts_with(lease_owner, :name || '/')
        LIMIT :most
        -- What an earlier run has locked is waited for: it is to be free too.
        FOR NO KEY UPDATE
    ))"
    )
}

/// Makes due now what is due in more than `longest`.
pub(in crate::manifest) async fn pull_in(
    tx: &Tx<'_>,
    table: Claimable,
    longest: Span,
) -> Result<usize, Fault> {
    let params =
        named_params! { ":longest": longest.as_millis_i64(), ":most": limit(ROWS_AT_ONCE) };
    execute(tx, pull_in_of(table), params).await
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
                " = :now WHERE id = ANY(ARRAY(
        SELECT id FROM ",
                $table,
                " WHERE ",
                $due,
                " > :now + :longest AND lease_expires_at IS NULL LIMIT :most
        FOR NO KEY UPDATE SKIP LOCKED
    ))"
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

pub(super) const HOLD_ASSET: &str = "-- manifest::hold
    SELECT id FROM assets
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL
    -- Differs from SQLite, where one transaction is written at a time: nobody claims it until this one ends.
    FOR NO KEY UPDATE";

/// Fails unless the lease on an asset is still ours: for writes to what belongs to the asset.
pub(super) async fn hold_asset(tx: &Tx<'_>, lease: &Lease) -> Result<(), Fault> {
    let params = named_params! { ":id": lease.row, ":token": lease.token.0 };
    let held: Option<i64> = value(tx, HOLD_ASSET, params).await?;
    held.map(|_| ())
        .ok_or_else(|| stale(Claimable::Assets, lease))
}

/// Checks that a fenced write touched its row.
pub(super) fn touched(rows: usize, table: Claimable, lease: &Lease) -> Result<(), Fault> {
    (rows == 1).then_some(()).ok_or_else(|| stale(table, lease))
}

pub(super) fn next_due_of(table: Claimable) -> &'static str {
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
        -- What is claimed was due then: it can be claimed again when its lease ends. The first of its index, however
        -- many are held.
        (SELECT lease_expires_at AS at FROM ",
                $table,
                "
        WHERE lease_expires_at IS NOT NULL AND ",
                $due,
                " IS NOT NULL
        ORDER BY lease_expires_at LIMIT 1)
    ) AS instants"
            )
        };
    }
    match table {
        Claimable::Tasks => next_due!("tasks", "next_look_at"),
        Claimable::Assets => next_due!("assets", "due_at"),
        Claimable::Orphans => next_due!("orphans", "due_at"),
        Claimable::Deliveries => next_due!("deliveries", "due_at"),
        Claimable::Discoveries => next_due!("discoveries", "due_at"),
    }
}

/// The earliest instant at which a row of the table can be claimed.
pub(in crate::manifest) async fn next_due(
    tx: &Tx<'_>,
    table: Claimable,
) -> Result<Option<Timestamp>, Fault> {
    let millis: Option<Option<i64>> = value(tx, next_due_of(table), []).await?;
    Ok(millis.flatten().map(Timestamp::from_unix_millis))
}

fn stale(table: Claimable, lease: &Lease) -> Fault {
    Fault::Known(ManifestError::Stale {
        table: table.as_str(),
        lease: *lease,
    })
}

pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

pub(super) const READ_OBJECTS: &str = "-- manifest::claim_assets
    SELECT * FROM objects WHERE asset = ANY(:assets) ORDER BY asset, position";

pub(super) const READ_PARTS: &str = "-- manifest::claim_assets
    SELECT object AS id, number, length, etag, crc64nvme, progress
    FROM parts WHERE object IN (
        SELECT id FROM objects WHERE asset = ANY(:assets) AND upload_id IS NOT NULL
    )
    ORDER BY object, number";

/// The objects of each asset, in the order of its route.
async fn claimed_objects(
    tx: &Tx<'_>,
    assets: &[i64],
) -> Result<HashMap<i64, Vec<ClaimedObject>>, Fault> {
    let params = named_params! { ":assets": assets.to_vec() };
    let mut parts: HashMap<i64, Vec<PartRow>> = HashMap::new();
    let read = |columns: &Columns<'_>| Ok((columns.id, columns.part()?));
    for (object, part) in all(tx, READ_PARTS, &params, "parts", read).await? {
        parts.entry(object).or_default().push(part);
    }
    let mut objects: HashMap<i64, Vec<ClaimedObject>> = HashMap::new();
    let read = |columns: &Columns<'_>| {
        let parts = parts.remove(&columns.id).unwrap_or_default();
        let object = columns.claimed_object(parts)?;
        Ok((columns.get::<i64>("asset")?, object))
    };
    for (asset, object) in all(tx, READ_OBJECTS, &params, "objects", read).await? {
        objects.entry(asset).or_default().push(object);
    }
    Ok(objects)
}
