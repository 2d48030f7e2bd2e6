//! The two engines behind one face: each verb has a function of the same name and arguments in both.

use std::sync::Arc;

use super::postgres::Postgres;
use super::sqlite::Sqlite;

/// What a manifest is kept in.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    /// A file, for one machine.
    Sqlite(Arc<Sqlite>),
    /// A server, for several.
    Postgres(Arc<Postgres>),
}

/// A verb that writes, in a transaction of its own.
macro_rules! change {
    ($manifest:expr, $name:expr, $room:ident::$verb:ident($($argument:expr),*)) => {
        $crate::manifest::engine::change!(
            $manifest, $name, $crate::manifest::sqlite::Lasting::ThroughPowerCuts,
            $room::$verb($($argument),*)
        )
    };
    ($manifest:expr, $name:expr, $lasting:expr, $room:ident::$verb:ident($($argument:expr),*)) => {
        match &$manifest.engine {
            $crate::manifest::engine::Engine::Sqlite(engine) => {
                let work = move |tx: &$crate::manifest::sqlite::Tx<'_>| {
                    $crate::manifest::sqlite::$room::$verb(tx, $($argument),*)
                };
                engine.write($name, $lasting, work).await
            }
            $crate::manifest::engine::Engine::Postgres(engine) => {
                $crate::manifest::postgres::transact!(
                    engine,
                    $name,
                    $crate::manifest::postgres::Kind::Write,
                    |tx| $crate::manifest::postgres::$room::$verb(tx, $($argument),*).await
                )
            }
        }
    };
}
pub(super) use change;

/// A verb that gives or renews leases. A file of one machine need not sync for them: a power cut ends whoever holds one.
/// A server must, since it may fall alone.
macro_rules! lease {
    ($manifest:expr, $name:expr, $room:ident::$verb:ident($($argument:expr),*)) => {
        $crate::manifest::engine::change!(
            $manifest, $name, $crate::manifest::sqlite::Lasting::AsLongAsProcesses,
            $room::$verb($($argument),*)
        )
    };
}
pub(super) use lease;

/// A verb that reads, from one snapshot.
macro_rules! look {
    ($manifest:expr, $name:literal, $room:ident::$verb:ident($($argument:expr),*)) => {
        match &$manifest.engine {
            $crate::manifest::engine::Engine::Sqlite(engine) => {
                let work = move |db: &$crate::manifest::sqlite::Connection| {
                    $crate::manifest::sqlite::$room::$verb(db, $($argument),*)
                };
                engine.read($name, work).await
            }
            $crate::manifest::engine::Engine::Postgres(engine) => {
                $crate::manifest::postgres::transact!(
                    engine,
                    $name,
                    $crate::manifest::postgres::Kind::Snapshot,
                    |tx| $crate::manifest::postgres::$room::$verb(tx, $($argument),*).await
                )
            }
        }
    };
}
pub(super) use look;
