//! Verbs on machines: who is there, by the server's clock.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::limit;
use super::claims::release_of;
use super::counts;
use super::execute;
use super::statement::named_params;
use super::value;
use crate::clock::Timestamp;
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

/// Announces a machine, and ends the leases of earlier runs under its name: whoever had them is dead, or finds by their
/// tokens that they are lost.
pub(in crate::manifest) async fn arrive(tx: &Tx<'_>, arrival: &Arrival) -> Result<Arrived, Fault> {
    execute(tx, FORGET, []).await?;
    let params = named_params! {
        ":name": arrival.name, ":run": arrival.run, ":version": arrival.version,
        ":gone_after": GONE_AFTER.as_millis_i64(),
    };
    if execute(tx, ARRIVE, params).await? == 1 {
        let params = named_params! { ":name": arrival.name };
        for table in Claimable::ALL {
            execute(tx, release_of(table), &params).await?;
        }
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

pub(super) const RELEASE_HELD: &str = "-- manifest::beat
    UPDATE tasks SET lease_owner = NULL, lease_expires_at = NULL
    WHERE id IN (
        SELECT id FROM tasks
        WHERE lease_expires_at IS NOT NULL AND starts_with(lease_owner, :name || '/')
        LIMIT :most
        -- Others who hear of it do the same.
        FOR NO KEY UPDATE SKIP LOCKED
    )";

/// For so long after a machine was heard of last the others see to what it held: after that its claims run out by
/// themselves.
const LATELY: Span = Span::from_secs(120);

/// Claims that are ended in one beat at most, so that no beat takes long.
const RELEASED_MAX: usize = 10_000;

/// Says that a machine is still there; whether it is this run's row. Tasks that a machine held which is gone are free
/// from then on: a hold is long, and nobody waits for its end. One that was only out of touch finds its claims lost.
pub(in crate::manifest) async fn beat(tx: &Tx<'_>, arrival: &Arrival) -> Result<bool, Fault> {
    counts::put_together(tx).await?;
    let params = named_params! {
        ":name": arrival.name, ":run": arrival.run,
        ":gone_after": GONE_AFTER.as_millis_i64(), ":lately": LATELY.as_millis_i64(),
    };
    let gone = all(tx, LATELY_GONE, params, "machines", |columns| {
        columns.get::<String>("name")
    });
    let gone = gone.await?;
    let params = named_params! { ":name": arrival.name, ":run": arrival.run };
    if execute(tx, BEAT, params).await? != 1 {
        return Ok(false);
    }
    for name in gone {
        let params = named_params! { ":name": name, ":most": limit(RELEASED_MAX) };
        execute(tx, RELEASE_HELD, params).await?;
    }
    Ok(true)
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
