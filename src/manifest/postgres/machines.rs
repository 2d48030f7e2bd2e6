//! Verbs on machines: who is there, by the server's clock.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::claims::release_of;
use super::execute;
use super::statement::named_params;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::ROWS_AT_ONCE;
use crate::manifest::machines::GONE_AFTER;
use crate::manifest::row::Claimable;
use crate::manifest::row::machine::Arrival;
use crate::manifest::row::machine::Arrived;
use crate::manifest::row::machine::MachineRecord;
use crate::units::Span;

/// A machine that was not heard of for a day is no news any more.
const FORGET: &str = "-- manifest::arrive
    DELETE FROM machines WHERE beat_at < :now - 86400000";

pub(super) const ARRIVE: &str = "-- manifest::arrive
    INSERT INTO machines (name, run, version, started_at, beat_at)
    VALUES (:name, :run, :version, :now, :now)
    ON CONFLICT (name) DO UPDATE
    SET run = excluded.run, version = excluded.version, started_at = excluded.started_at,
        beat_at = excluded.beat_at
    -- Nobody else's name is taken, unless whoever had it fell silent.
    WHERE machines.run = excluded.run OR machines.beat_at < :now - :gone_after::bigint";

const TAKEN: &str = "-- manifest::arrive
    SELECT beat_at FROM machines WHERE name = :name";

/// Announces a machine.
pub(in crate::manifest) async fn arrive(tx: &Tx<'_>, arrival: &Arrival) -> Result<Arrived, Fault> {
    execute(tx, FORGET, []).await?;
    let params = named_params! {
        ":name": arrival.name, ":run": arrival.run, ":version": arrival.version,
        ":gone_after": GONE_AFTER.as_millis_i64(),
    };
    if execute(tx, ARRIVE, params).await? == 1 {
        return Ok(Arrived::Yes);
    }
    let params = named_params! { ":name": arrival.name };
    let beat_at: Option<i64> = value(tx, TAKEN, params).await?;
    Ok(Arrived::Taken(Timestamp::from_unix_millis(
        beat_at.unwrap_or_default(),
    )))
}

const BEAT: &str = "-- manifest::beat
    UPDATE machines SET beat_at = :now WHERE name = :name AND run = :run";

pub(super) const LATELY_GONE: &str = "-- manifest::beat
    SELECT 0::bigint AS id, gone.name FROM machines AS gone
    -- Who was out of touch for as long, with a server that was away, judges nobody.
    JOIN machines AS own
        ON own.name = :name AND own.run = :run AND own.beat_at >= :now - :gone_after::bigint
    WHERE gone.beat_at < :now - :gone_after::bigint AND gone.beat_at >= :now - :lately::bigint";

/// For so long after a machine was heard of last the others see to what it held: after that its claims run out by
/// themselves.
const LATELY: Span = Span::from_secs(120);

/// Says that a machine is still there; which others fell silent lately, or `None` where the row is another run's.
pub(in crate::manifest) async fn beat(
    tx: &Tx<'_>,
    arrival: &Arrival,
) -> Result<Option<Vec<String>>, Fault> {
    let params = named_params! {
        ":name": arrival.name, ":run": arrival.run,
        ":gone_after": GONE_AFTER.as_millis_i64(), ":lately": LATELY.as_millis_i64(),
    };
    let gone = all(tx, LATELY_GONE, params, "machines", |columns| {
        columns.get::<String>("name")
    });
    let gone = gone.await?;
    let params = named_params! { ":name": arrival.name, ":run": arrival.run };
    let is_ours = execute(tx, BEAT, params).await? == 1;
    Ok(is_ours.then_some(gone))
}

/// Ends leases of earlier runs of a machine: whoever had them is dead, or finds by their tokens that they are lost. How many.
pub(in crate::manifest) async fn release(
    tx: &Tx<'_>,
    table: Claimable,
    name: &str,
) -> Result<usize, Fault> {
    let params = named_params! { ":name": name, ":most": limit(ROWS_AT_ONCE) };
    execute(tx, release_of(table), params).await
}

const STILL_GONE: &str = "-- manifest::free_held
    SELECT beat_at FROM machines WHERE name = :name AND beat_at < :now - :gone_after::bigint
    -- Until it is seen to, it cannot come back; while it is coming back, it is not gone.
    FOR SHARE SKIP LOCKED";

pub(super) const FREE_HELD: &str = "-- manifest::free_held
    UPDATE tasks SET lease_owner = NULL, lease_expires_at = NULL
    WHERE id = ANY(ARRAY(
        SELECT id FROM tasks
        WHERE lease_expires_at IS NOT NULL AND starts_with(lease_owner, :name || '/')
        LIMIT :most
        -- Others who hear of it do the same.
        FOR NO KEY UPDATE SKIP LOCKED
    ))";

/// Frees some of the tasks that machines held which are gone: those that are not back since that was found out.
pub(in crate::manifest) async fn free_held(tx: &Tx<'_>, gone: &[String]) -> Result<(), Fault> {
    for name in gone {
        let params = named_params! { ":name": name, ":gone_after": GONE_AFTER.as_millis_i64() };
        let beat_at: Option<i64> = value(tx, STILL_GONE, params).await?;
        if beat_at.is_some() {
            let params = named_params! { ":name": name, ":most": limit(ROWS_AT_ONCE) };
            execute(tx, FREE_HELD, params).await?;
        }
    }
    Ok(())
}

const LEAVE: &str = "-- manifest::leave
    DELETE FROM machines WHERE name = :name AND run = :run";

/// Takes the machine's row away, if it is this run's.
pub(in crate::manifest) async fn leave(tx: &Tx<'_>, arrival: &Arrival) -> Result<(), Fault> {
    let params = named_params! { ":name": arrival.name, ":run": arrival.run };
    execute(tx, LEAVE, params).await.map(|_| ())
}

const NOW: &str = "-- manifest::skew
    SELECT :now";

/// What time it is.
pub(in crate::manifest) async fn now(tx: &Tx<'_>) -> Result<Timestamp, Fault> {
    let now: Option<i64> = value(tx, NOW, []).await?;
    Ok(Timestamp::from_unix_millis(now.unwrap_or_default()))
}

pub(super) const MACHINES: &str = "-- manifest::machines
    SELECT 0::bigint AS id, name, version, started_at, beat_at,
        beat_at >= :now - :gone_after::bigint AS is_living
    FROM machines WHERE beat_at >= :now - 86400000 ORDER BY name";

/// Every machine that was heard of lately.
pub(in crate::manifest) async fn machines(tx: &Tx<'_>) -> Result<Vec<MachineRecord>, Fault> {
    let params = named_params! { ":gone_after": GONE_AFTER.as_millis_i64() };
    all(tx, MACHINES, params, "machines", |columns| {
        Ok(MachineRecord {
            name: columns.get("name")?,
            version: columns.get("version")?,
            started_at: columns.instant("started_at")?,
            beat_at: columns.instant("beat_at")?,
            is_living: columns.get("is_living")?,
        })
    })
    .await
}
