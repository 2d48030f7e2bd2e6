//! The verbs of a fleet: who works on this manifest. On a file that is one daemon, and its lock says so.

use std::fmt;

use super::Manifest;
use super::ManifestError;
use super::ROWS_AT_ONCE;
use super::engine::Engine;
use super::postgres;
use super::postgres::Kind;
use super::postgres::transact;
use crate::clock::Clock;
use crate::manifest::row::Claimable;
use crate::manifest::row::machine::Arrival;
use crate::manifest::row::machine::Arrived;
use crate::manifest::row::machine::MachineRecord;
use crate::units::Span;

/// How often a machine says that it is there.
pub const BEAT_EVERY: Span = Span::from_secs(3);

/// A machine that was not heard of for this long counts as gone.
pub const GONE_AFTER: Span = Span::from_secs(15);

/// How far a clock may be from the manifest's before it is worth a word.
pub const SKEW_MAX: Span = Span::from_secs(5);

/// How far a machine's clock is from the manifest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// By how much.
    pub by: Span,
    /// Whether the machine's is ahead.
    pub is_ahead: bool,
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_ahead { "ahead of" } else { "behind" };
        write!(
            f,
            "this machine's clock is {} {side} the manifest's",
            self.by
        )
    }
}

impl Manifest {
    /// Announces a machine, in the place of an earlier run of its name that is gone. All that such runs held is free then.
    pub async fn arrive(&self, arrival: &Arrival) -> Result<Arrived, ManifestError> {
        let Engine::Postgres(engine) = &self.engine else {
            return Ok(Arrived::Yes);
        };
        let arrived = transact!(engine, "arrive", Kind::Write, |tx| {
            postgres::machines::arrive(tx, arrival).await
        })?;
        if arrived == Arrived::Yes {
            for table in Claimable::ALL {
                let release = async || {
                    transact!(engine, "arrive", Kind::Write, |tx| {
                        postgres::machines::release(tx, table, &arrival.name).await
                    })
                };
                while release().await? == ROWS_AT_ONCE {}
            }
        }
        Ok(arrived)
    }

    /// Says that the machine is still there. Which others fell silent lately; `None` when another run has its name by now.
    pub async fn beat(&self, arrival: &Arrival) -> Result<Option<Vec<String>>, ManifestError> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(Some(Vec::new())),
            Engine::Postgres(engine) => transact!(engine, "beat", Kind::Write, |tx| {
                postgres::machines::beat(tx, arrival).await
            }),
        }
    }

    /// Frees tasks that machines held which are gone, a bounded number at once: a hold is long, and nobody waits for its
    /// end. One that was only out of touch finds its claims lost.
    pub async fn free_held(&self, gone: &[String]) -> Result<(), ManifestError> {
        let Engine::Postgres(engine) = &self.engine else {
            return Ok(());
        };
        transact!(engine, "free_held", Kind::Write, |tx| {
            postgres::machines::free_held(tx, gone).await
        })?;
        transact!(engine, "put_together", Kind::Write, |tx| {
            postgres::counts::put_together(tx).await
        })
    }

    /// Fails once the manifest is no longer where it was opened. A server sees to that by itself.
    pub fn check_in_place(&self) -> Result<(), ManifestError> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.check_in_place(),
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// Says that the machine goes.
    pub async fn leave(&self, arrival: &Arrival) -> Result<(), ManifestError> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(()),
            Engine::Postgres(engine) => transact!(engine, "leave", Kind::Write, |tx| {
                postgres::machines::leave(tx, arrival).await
            }),
        }
    }

    /// How far a machine's clock is from the manifest's, if that is more than [`SKEW_MAX`]. Never where they are one.
    pub async fn skew(&self, clock: &Clock) -> Result<Option<Skew>, ManifestError> {
        let before = clock.now();
        let there = match &self.engine {
            Engine::Sqlite(_) => return Ok(None),
            Engine::Postgres(engine) => transact!(engine, "skew", Kind::Snapshot, |tx| {
                postgres::machines::now(tx).await
            })?,
        };
        // It was read between the two.
        let (ahead, behind) = (before.since(there), there.since(clock.now()));
        let by = ahead.max(behind);
        Ok((by > SKEW_MAX).then_some(Skew {
            by,
            is_ahead: ahead > behind,
        }))
    }

    /// Every machine that was heard of in the last day, by name. None where one file has one daemon.
    pub async fn machines(&self) -> Result<Vec<MachineRecord>, ManifestError> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(Vec::new()),
            Engine::Postgres(engine) => transact!(engine, "machines", Kind::Snapshot, |tx| {
                postgres::machines::machines(tx).await
            }),
        }
    }
}
