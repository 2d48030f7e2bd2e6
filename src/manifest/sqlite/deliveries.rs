//! Deliveries: made of events, claimed a few for each endpoint, and settled, with what that says of the endpoint.

use std::collections::HashSet;

use rusqlite::Connection;
use rusqlite::named_params;
use url::Url;

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::claims::touched;
use super::columns::Columns;
use super::execute;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::ROWS_AT_ONCE;
use crate::manifest::row::Claimable;
use crate::manifest::row::event::ClaimedDelivery;
use crate::manifest::row::event::DeliverySettlement;
use crate::manifest::row::event::EndpointTrouble;
use crate::manifest::row::event::FannedOut;
use crate::manifest::row::event::Subscriber;
use crate::model::event::DeliveryState;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::model::lease::Lease;
use crate::units::Span;

/// An endpoint that failed for longer than this has deliveries that wait for hours: when it works again they are due.
const LONG_FAILURE: Span = Span::from_secs(600);

/// Deliveries at once to an endpoint that fails: a look whether it works again.
const FAILING_AT_ONCE: usize = 1;

pub(super) const UNFANNED: &str = "-- manifest::fan_out
    SELECT events.id, events.kind, tasks.callback_url
    FROM events JOIN tasks ON tasks.id = events.task
    WHERE events.is_fanned = 0 ORDER BY events.id LIMIT :most";

const HAS_UNFANNED: &str = "-- manifest::has_unfanned
    SELECT EXISTS (SELECT * FROM events WHERE is_fanned = 0)";

/// Whether there are events without deliveries.
pub(in crate::manifest) fn has_unfanned(db: &Connection) -> Result<bool, Fault> {
    Ok(value(db, HAS_UNFANNED, [])?.unwrap_or(false))
}

const DISABLED: &str = "-- manifest::fan_out
    SELECT id, name FROM endpoints WHERE disabled_at IS NOT NULL";

const MAKE: &str = "-- manifest::fan_out
    INSERT INTO deliveries (event, endpoint, message_id, state, due_at, begun_at, error)
    VALUES (:event, :endpoint, :message_id, :state, :due_at, :now, :error)
    -- Made before, when the event was fanned for somebody else.
    ON CONFLICT (event, endpoint) DO NOTHING";

const FANNED: &str = "-- manifest::fan_out
    UPDATE events SET is_fanned = 1 WHERE id = :event";

/// Makes the deliveries of events that have none yet. `nonce` makes message IDs that no other manifest has.
pub(in crate::manifest) fn fan_out(
    tx: &Tx<'_>,
    subscribers: &[Subscriber],
    nonce: &str,
    most: usize,
) -> Result<FannedOut, Fault> {
    let params = named_params! { ":most": limit(most) };
    let found = all(tx.db, UNFANNED, params, "events", |columns| {
        let callback = columns.get::<Option<String>>("callback_url")?;
        Ok((columns.id, columns.word::<EventKind>("kind")?, callback))
    })?;
    let mut fanned = FannedOut::default();
    if found.is_empty() {
        return Ok(fanned);
    }
    let disabled = all(tx.db, DISABLED, [], "endpoints", |columns| {
        columns.word::<EndpointName>("name")
    })?;
    let disabled: HashSet<EndpointName> = disabled.into_iter().collect();
    for (event, kind, callback) in found {
        let wanting = subscribers
            .iter()
            .filter(|subscriber| subscriber.kinds.contains(&kind))
            .map(|subscriber| subscriber.endpoint.clone());
        let callback = callback
            .filter(|_| kind.is_an_end())
            .and_then(|url| EndpointName::of_callback(&Url::parse(&url).ok()?));
        for (place, endpoint) in wanting.chain(callback).enumerate() {
            let is_disabled = disabled.contains(&endpoint);
            let message_id = format!("msg_{nonce}_{event}_{place}");
            fanned.deliveries += make(tx, event, &endpoint, &message_id, is_disabled)?;
        }
        execute(tx.db, FANNED, named_params! { ":event": event })?;
        fanned.events += 1;
    }
    Ok(fanned)
}

fn make(
    tx: &Tx<'_>,
    event: i64,
    endpoint: &EndpointName,
    message_id: &str,
    is_disabled: bool,
) -> Result<usize, Fault> {
    let now = tx.now.as_unix_millis();
    let (state, due_at, error) = if is_disabled {
        let error = Some("the endpoint is disabled");
        (DeliveryState::GivenUp, None, error)
    } else {
        (DeliveryState::Due, Some(now), None)
    };
    let params = named_params! {
        ":event": event, ":endpoint": endpoint.as_str(), ":message_id": message_id,
        ":state": state.as_str(), ":due_at": due_at, ":now": now, ":error": error,
    };
    execute(tx.db, MAKE, params)
}

pub(super) const WAITING: &str = "-- manifest::claim_deliveries
    -- One step of the index for each endpoint, however much is due there.
    WITH RECURSIVE waiting (endpoint) AS (
        SELECT MIN(endpoint) FROM deliveries WHERE due_at IS NOT NULL
        UNION ALL
        SELECT (
            SELECT MIN(endpoint) FROM deliveries
            WHERE due_at IS NOT NULL AND endpoint > waiting.endpoint
        )
        FROM waiting WHERE waiting.endpoint IS NOT NULL
    )
    SELECT 0 AS id, waiting.endpoint, endpoints.failing_since IS NOT NULL AS is_failing,
        (
            SELECT COUNT(*) FROM deliveries
            WHERE deliveries.endpoint = waiting.endpoint AND lease_expires_at > :now
        ) AS under_way,
        (
            SELECT MIN(due_at) FROM deliveries
            WHERE deliveries.endpoint = waiting.endpoint AND due_at IS NOT NULL
        ) AS first_due_at
    FROM waiting LEFT JOIN endpoints ON endpoints.name = waiting.endpoint
    WHERE waiting.endpoint IS NOT NULL
        AND (endpoints.paused_until IS NULL OR endpoints.paused_until <= :now)
        -- Where nothing is due yet, nobody has to look.
        AND EXISTS (
            SELECT 1 FROM deliveries WHERE deliveries.endpoint = waiting.endpoint AND due_at <= :now
        )
    ORDER BY first_due_at, waiting.endpoint";

pub(super) const CLAIM: &str = "-- manifest::claim_deliveries
    UPDATE deliveries
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    WHERE id IN (
        SELECT id FROM deliveries
        WHERE endpoint = :endpoint AND lease_expires_at IS NULL AND due_at <= :now
        ORDER BY due_at, id LIMIT :most
    )
    RETURNING id";

pub(super) const CLAIM_LEFT: &str = "-- manifest::claim_deliveries
    UPDATE deliveries
    SET lease_token = lease_token + 1, lease_owner = :owner, lease_expires_at = :lease_until
    WHERE id IN (
        SELECT id FROM deliveries
        WHERE lease_expires_at <= :now AND due_at <= :now
        ORDER BY due_at, id LIMIT :most
    )
    RETURNING id";

const READ_CLAIMED: &str = "-- manifest::claim_deliveries
    SELECT deliveries.*, events.kind, events.asset_index, events.reason, events.at,
        tasks.provider, tasks.task_id, tasks.callback_url
    FROM deliveries
    JOIN events ON events.id = deliveries.event
    JOIN tasks ON tasks.id = events.task
    WHERE deliveries.id = :id";

/// Claims at most `most` deliveries, of each endpoint as many as make `at_once` with those that are under way.
pub(in crate::manifest) fn claim(
    tx: &Tx<'_>,
    most: usize,
    at_once: usize,
) -> Result<Vec<ClaimedDelivery>, Fault> {
    let now = tx.now.as_unix_millis();
    let params = named_params! {
        ":owner": tx.owner, ":lease_until": tx.lease_until.as_unix_millis(), ":now": now,
        ":most": limit(most),
    };
    // Whoever held them is gone or too slow. They are few: at most what one process had room for.
    let mut ids = all(tx.db, CLAIM_LEFT, params, "deliveries", |columns| {
        Ok(columns.id)
    })?;
    let params = named_params! { ":now": now };
    let waiting = all(tx.db, WAITING, params, "deliveries", |columns| {
        let endpoint: EndpointName = columns.word("endpoint")?;
        let is_failing: bool = columns.get("is_failing")?;
        Ok((endpoint, is_failing, columns.number::<usize>("under_way")?))
    })?;
    for (endpoint, is_failing, under_way) in waiting {
        let bound = if is_failing { FAILING_AT_ONCE } else { at_once };
        let room = bound
            .saturating_sub(under_way)
            .min(most.saturating_sub(ids.len()));
        if room == 0 {
            continue;
        }
        let params = named_params! {
            ":owner": tx.owner, ":lease_until": tx.lease_until.as_unix_millis(), ":now": now,
            ":endpoint": endpoint.as_str(), ":most": limit(room),
        };
        ids.extend(all(tx.db, CLAIM, params, "deliveries", |columns| {
            Ok(columns.id)
        })?);
    }
    let mut claimed = Vec::with_capacity(ids.len());
    for id in ids {
        let params = named_params! { ":id": id };
        claimed.extend(all(tx.db, READ_CLAIMED, params, "deliveries", delivery)?);
    }
    Ok(claimed)
}

const SENT: &str = "-- manifest::mark_sent
    UPDATE deliveries
    SET state = 'sent', due_at = NULL, error = NULL, lease_owner = NULL, lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

const WORKS: &str = "-- manifest::mark_sent
    DELETE FROM endpoints
    WHERE disabled_at IS NULL AND name = (SELECT endpoint FROM deliveries WHERE id = :id)
    RETURNING *";

const DUE_NOW: &str = "-- manifest::mark_sent
    UPDATE deliveries SET due_at = :now
    WHERE id IN (
        SELECT id FROM deliveries
        WHERE endpoint = :endpoint AND lease_expires_at IS NULL AND due_at > :now
        ORDER BY due_at LIMIT :most
    )";

/// Writes that an endpoint took its message; gives the trouble that is over with it. After a long one, what waits for
/// its next try is due now, or a good part of it.
pub(in crate::manifest) fn mark_sent(
    tx: &Tx<'_>,
    lease: &Lease,
) -> Result<Option<EndpointTrouble>, Fault> {
    let params = named_params! { ":id": lease.row, ":token": lease.token.0 };
    touched(execute(tx.db, SENT, params)?, Claimable::Deliveries, lease)?;
    let params = named_params! { ":id": lease.row };
    let over = all(tx.db, WORKS, params, "endpoints", trouble)?;
    let over = over.into_iter().next();
    if let Some(over) = &over
        && tx.now.since(over.failing_since) >= LONG_FAILURE
    {
        let endpoint = over.endpoint.as_str();
        let params = named_params! {
            ":now": tx.now.as_unix_millis(), ":endpoint": endpoint, ":most": limit(ROWS_AT_ONCE),
        };
        execute(tx.db, DUE_NOW, params)?;
    }
    Ok(over)
}

const FAILS: &str = "-- manifest::settle_delivery
    INSERT INTO endpoints (name, failing_since, paused_until, error)
    SELECT endpoint, :now, :paused_until, :error FROM deliveries WHERE id = :id
    ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until, error = excluded.error";

const TROUBLE_OF: &str = "-- manifest::settle_delivery
    SELECT * FROM endpoints WHERE name = (SELECT endpoint FROM deliveries WHERE id = :id)";

const SETTLE: &str = "-- manifest::settle_delivery
    UPDATE deliveries
    SET state = :state,
        due_at = :due_at,
        error = :error,
        attempts = attempts + :is_attempt,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Ends the claim on a delivery that was not taken; gives the trouble that its endpoint is in. At a disabled one it is
/// given up whatever was asked for.
pub(in crate::manifest) fn settle(
    tx: &Tx<'_>,
    lease: &Lease,
    settlement: &DeliverySettlement,
) -> Result<Option<EndpointTrouble>, Fault> {
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_unix_millis);
    if settlement.is_endpoint_failing {
        let params = named_params! {
            ":now": tx.now.as_unix_millis(), ":paused_until": millis(settlement.paused_until),
            ":error": settlement.error, ":id": lease.row,
        };
        execute(tx.db, FAILS, params)?;
    }
    let params = named_params! { ":id": lease.row };
    let found = all(tx.db, TROUBLE_OF, params, "endpoints", trouble)?;
    let found = found.into_iter().next();
    let is_disabled = found.as_ref().is_some_and(|it| it.disabled_at.is_some());
    let due_at = settlement.due_at.filter(|_| !is_disabled);
    let state = match due_at {
        Some(_) => DeliveryState::Due,
        None => DeliveryState::GivenUp,
    };
    let params = named_params! {
        ":state": state.as_str(), ":due_at": millis(due_at), ":error": settlement.error,
        ":is_attempt": settlement.is_attempt, ":id": lease.row, ":token": lease.token.0,
    };
    touched(
        execute(tx.db, SETTLE, params)?,
        Claimable::Deliveries,
        lease,
    )?;
    Ok(found)
}

const DISABLE: &str = "-- manifest::disable_endpoint
    INSERT INTO endpoints (name, failing_since, disabled_at, error)
    VALUES (:name, :now, :now, :error)
    ON CONFLICT (name) DO UPDATE SET disabled_at = :now, error = :error
    WHERE endpoints.disabled_at IS NULL";

const GIVE_UP_ALL: &str = "-- manifest::disable_endpoint
    UPDATE deliveries SET state = 'given_up', due_at = NULL, error = :error
    WHERE id IN (
        SELECT id FROM deliveries
        -- Those under way end by themselves, and may still be taken.
        WHERE endpoint = :name AND lease_expires_at IS NULL AND due_at IS NOT NULL
        LIMIT :most
    )";

/// Sends nothing to an endpoint any more and gives up some of what is due there; whether it was not disabled before, and how
/// many were given up.
pub(in crate::manifest) fn disable(
    tx: &Tx<'_>,
    name: &EndpointName,
    error: &str,
) -> Result<(bool, usize), Fault> {
    let params = named_params! {
        ":name": name.as_str(), ":now": tx.now.as_unix_millis(), ":error": error,
    };
    let is_new = execute(tx.db, DISABLE, params)? == 1;
    let params =
        named_params! { ":name": name.as_str(), ":error": error, ":most": limit(ROWS_AT_ONCE) };
    Ok((is_new, execute(tx.db, GIVE_UP_ALL, params)?))
}

const ENABLE: &str = "-- manifest::enable_endpoints
    DELETE FROM endpoints WHERE disabled_at IS NOT NULL RETURNING *";

/// Enables what is disabled; gives the trouble that it was in.
pub(in crate::manifest) fn enable(tx: &Tx<'_>) -> Result<Vec<EndpointTrouble>, Fault> {
    all(tx.db, ENABLE, [], "endpoints", trouble)
}

const TROUBLES: &str = "-- manifest::endpoint_troubles
    SELECT * FROM endpoints ORDER BY failing_since, name";

/// Every endpoint that does not work.
pub(in crate::manifest) fn troubles(db: &Connection) -> Result<Vec<EndpointTrouble>, Fault> {
    all(db, TROUBLES, [], "endpoints", trouble)
}

fn delivery(columns: &Columns<'_, '_>) -> Result<ClaimedDelivery, Fault> {
    columns.claimed_delivery()
}

fn trouble(columns: &Columns<'_, '_>) -> Result<EndpointTrouble, Fault> {
    columns.trouble()
}
