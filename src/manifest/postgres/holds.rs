//! Verbs on tasks that are held.

use std::collections::HashSet;

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::execute;
use super::statement::named_params;
use crate::clock::Timestamp;
use crate::manifest::row::HeldNews;
use crate::model::lease::Lease;

pub(super) const LOST: &str = "-- manifest::held_news
    SELECT ours.id FROM unnest(:ids::bigint[], :tokens::bigint[]) AS ours (id, token)
    LEFT JOIN tasks ON tasks.id = ours.id
    WHERE tasks.id IS NULL OR tasks.lease_token <> ours.token OR tasks.lease_expires_at IS NULL";

pub(super) const HEARD: &str = "-- manifest::held_news
    SELECT id, lease_token, lease_expires_at FROM tasks
    WHERE heard_at IS NOT NULL AND lease_expires_at IS NOT NULL AND lease_owner = :owner";

/// Tells which leases are lost, and which tasks were heard of.
pub(in crate::manifest) async fn news(tx: &Tx<'_>, leases: &[Lease]) -> Result<HeldNews, Fault> {
    let mut lost = Vec::new();
    if !leases.is_empty() {
        let (ids, tokens): (Vec<i64>, Vec<i64>) = leases
            .iter()
            .map(|lease| (lease.row, lease.token.0))
            .unzip();
        let params = named_params! { ":ids": ids, ":tokens": tokens };
        let rows: HashSet<i64> = all(tx, LOST, params, "tasks", |columns| Ok(columns.id))
            .await?
            .into_iter()
            .collect();
        let is_lost = |lease: &&Lease| rows.contains(&lease.row);
        lost.extend(leases.iter().filter(is_lost));
    }
    let lease = |columns: &Columns<'_>| columns.lease();
    let heard = all(tx, HEARD, [], "tasks", lease).await?;
    Ok(HeldNews { lost, heard })
}

pub(super) const LET_GO: &str = "-- manifest::let_go
    UPDATE tasks
    SET next_look_at = CASE WHEN heard_at IS NOT NULL THEN 0 ELSE ours.at END,
        heard_at = NULL,
        lease_owner = NULL,
        lease_expires_at = NULL
    FROM unnest(:ids::bigint[], :tokens::bigint[], :ats::bigint[]) AS ours (id, token, at)
    WHERE tasks.id = ours.id AND tasks.lease_token = ours.token AND tasks.lease_expires_at IS NOT NULL";

/// Ends claims, in one statement.
pub(in crate::manifest) async fn let_go(
    tx: &Tx<'_>,
    held: &[(Lease, Timestamp)],
) -> Result<(), Fault> {
    let ids: Vec<i64> = held.iter().map(|(lease, _)| lease.row).collect();
    let tokens: Vec<i64> = held.iter().map(|(lease, _)| lease.token.0).collect();
    let ats: Vec<i64> = held.iter().map(|(_, at)| at.as_unix_millis()).collect();
    let params = named_params! { ":ids": ids, ":tokens": tokens, ":ats": ats };
    execute(tx, LET_GO, params).await.map(|_| ())
}
