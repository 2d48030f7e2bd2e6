//! What waits for a provider or a destination that a daemon does not have.

use std::collections::BTreeMap;

use super::Fault;
use super::Tx;
use super::all;
use super::columns::Columns;
use super::statement::named_params;
use crate::manifest::elsewhere::Elsewhere;
use crate::manifest::elsewhere::Known;

// What is under lease is in good hands. Said in the words of the indexes of what is due, which then serve.
pub(super) const PROVIDERS: &str = "-- manifest::look_elsewhere
    SELECT 0::bigint AS id, name, COUNT(*) AS waiting FROM (
        SELECT provider AS name FROM tasks
        WHERE next_look_at IS NOT NULL AND lease_expires_at IS NULL
        UNION ALL
        SELECT tasks.provider AS name FROM assets JOIN tasks ON tasks.id = assets.task
        WHERE assets.due_at IS NOT NULL AND assets.lease_expires_at IS NULL
    ) AS due
    WHERE name <> ALL(:known)
    GROUP BY name";

pub(super) const DESTINATIONS: &str = "-- manifest::look_elsewhere
    SELECT 0::bigint AS id, name, COUNT(*) AS waiting FROM (
        SELECT objects.destination AS name FROM assets JOIN objects ON objects.asset = assets.id
        WHERE assets.due_at IS NOT NULL AND assets.lease_expires_at IS NULL AND objects.state <> 'archived'
        UNION ALL
        SELECT destination AS name FROM orphans WHERE due_at IS NOT NULL AND lease_expires_at IS NULL
    ) AS due
    WHERE name <> ALL(:known)
    GROUP BY name";

/// Counts what waits for what is not known.
pub(in crate::manifest) async fn find(tx: &Tx<'_>, known: &Known) -> Result<Elsewhere, Fault> {
    let waiting = |columns: &Columns<'_>| columns.number("waiting");
    let providers: Vec<String> = known.providers.iter().map(ToString::to_string).collect();
    let params = named_params! { ":known": providers };
    let providers = all(tx, PROVIDERS, params, "tasks", |columns| {
        Ok((columns.word("name")?, waiting(columns)?))
    })
    .await?;
    let destinations: Vec<String> = known.destinations.iter().map(ToString::to_string).collect();
    let params = named_params! { ":known": destinations };
    let destinations = all(tx, DESTINATIONS, params, "objects", |columns| {
        Ok((columns.word("name")?, waiting(columns)?))
    })
    .await?;
    Ok(Elsewhere {
        providers: BTreeMap::from_iter(providers),
        destinations: BTreeMap::from_iter(destinations),
    })
}
