//! What waits for a provider or a destination that a daemon does not have.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::named_params;

use super::Fault;
use super::all;
use super::columns::Columns;
use crate::manifest::elsewhere::Elsewhere;
use crate::manifest::elsewhere::Known;

// What is under lease is in good hands. Said in the words of the indexes of what is due, which then serve.
pub(super) const PROVIDERS: &str = "-- manifest::look_elsewhere
    SELECT 0 AS id, name, COUNT(*) AS waiting FROM (
        SELECT provider AS name FROM tasks
        WHERE next_look_at IS NOT NULL AND lease_expires_at IS NULL
        UNION ALL
        SELECT tasks.provider AS name FROM assets JOIN tasks ON tasks.id = assets.task
        WHERE assets.due_at IS NOT NULL AND assets.lease_expires_at IS NULL
    )
    WHERE name NOT IN (SELECT value FROM json_each(:known))
    GROUP BY name";

pub(super) const DESTINATIONS: &str = "-- manifest::look_elsewhere
    SELECT 0 AS id, name, COUNT(*) AS waiting FROM (
        SELECT objects.destination AS name FROM assets JOIN objects ON objects.asset = assets.id
        WHERE assets.due_at IS NOT NULL AND assets.lease_expires_at IS NULL AND objects.state <> 'archived'
        UNION ALL
        SELECT destination AS name FROM orphans WHERE due_at IS NOT NULL AND lease_expires_at IS NULL
    )
    WHERE name NOT IN (SELECT value FROM json_each(:known))
    GROUP BY name";

/// Counts what waits for what is not known.
pub(in crate::manifest) fn find(db: &Connection, known: &Known) -> Result<Elsewhere, Fault> {
    let waiting = |columns: &Columns<'_, '_>| columns.number("waiting");
    let providers = serde_json::to_string(&known.providers).expect("names are strings");
    let params = named_params! { ":known": providers };
    let providers = all(db, PROVIDERS, params, "tasks", |columns| {
        Ok((columns.word("name")?, waiting(columns)?))
    })?;
    let destinations = serde_json::to_string(&known.destinations).expect("names are strings");
    let params = named_params! { ":known": destinations };
    let destinations = all(db, DESTINATIONS, params, "objects", |columns| {
        Ok((columns.word("name")?, waiting(columns)?))
    })?;
    Ok(Elsewhere {
        providers: BTreeMap::from_iter(providers),
        destinations: BTreeMap::from_iter(destinations),
    })
}
