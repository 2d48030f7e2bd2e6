//! Verbs on tasks that are held.

use rusqlite::Connection;
use rusqlite::named_params;

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::execute;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::row::HeldNews;
use crate::model::lease::Lease;

const IS_HELD: &str = "-- manifest::held_news
    SELECT id FROM tasks
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

// Differs from Postgres, where several machines work: whoever holds anything is the one daemon.
pub(super) const HEARD: &str = "-- manifest::held_news
    SELECT id, lease_token, lease_expires_at FROM tasks
    WHERE heard_at IS NOT NULL AND lease_expires_at IS NOT NULL";

/// Tells which leases are lost, and which tasks were heard of.
pub(in crate::manifest) fn news(db: &Connection, leases: &[Lease]) -> Result<HeldNews, Fault> {
    let mut lost = Vec::new();
    for lease in leases {
        let params = named_params! { ":id": lease.row, ":token": lease.token.0 };
        if value::<i64>(db, IS_HELD, params)?.is_none() {
            lost.push(*lease);
        }
    }
    let lease = |columns: &Columns<'_, '_>| columns.lease();
    let heard = all(db, HEARD, [], "tasks", lease)?;
    Ok(HeldNews { lost, heard })
}

const LET_GO: &str = "-- manifest::let_go
    UPDATE tasks
    SET next_look_at = CASE WHEN heard_at IS NOT NULL THEN 0 ELSE :at END,
        heard_at = NULL,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Ends claims.
pub(in crate::manifest) fn let_go(tx: &Tx<'_>, held: &[(Lease, Timestamp)]) -> Result<(), Fault> {
    for (lease, at) in held {
        let params = named_params! {
            ":at": at.as_unix_millis(), ":id": lease.row, ":token": lease.token.0,
        };
        execute(tx.db, LET_GO, params)?;
    }
    Ok(())
}
