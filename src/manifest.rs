//! The manifest: the durable record of tasks, assets and objects, and the only hand-over between stages.
//!
//! Verbs, not tables. Each verb is one transaction; every write to a claimed row compares the lease's token and
//! fails with [`ManifestError::Stale`] when the claim is no longer ours. No verb is held open over network I/O.

pub mod row;

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::model::lease::Lease;
use crate::units::Span;

/// `[manifest]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sqlite:/path/to/manifest.db`
    pub url: String,
    /// How long a claim holds without being renewed.
    pub lease: Span,
}

/// Why a verb did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Somebody else claimed the row since, or it is gone: what was written changed nothing.
    #[error("the lease on row {} of {table} is no longer ours", lease.row)]
    Stale {
        /// The table of the claim.
        table: &'static str,
        /// The claim that is over.
        lease: Lease,
    },
    /// Another daemon works on this manifest.
    #[error("manifest {} is in use by the daemon with process ID {pid}", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
        /// The other daemon's process, as it wrote it down; "unknown" if it did not.
        pid: String,
    },
    /// The manifest was written by a newer Reelvault.
    #[error("manifest has schema {found}, this program knows schemas up to {known}")]
    Newer {
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// No manifest where one was expected.
    #[error("no manifest at {}", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// A URL that names no engine we have.
    #[error("{url:?} is no manifest URL: write sqlite:/path/to/manifest.db")]
    Url {
        /// As configured.
        url: String,
    },
    /// A stored value that we cannot have written.
    #[error("column {column} of {table}, row {row}, holds {value:?}")]
    Inconsistent {
        /// Its table.
        table: &'static str,
        /// Its column.
        column: &'static str,
        /// Its row.
        row: i64,
        /// What stands there.
        value: String,
    },
    /// The engine failed: disk full, I/O, corruption, busy for too long.
    #[error("{verb}: {what}")]
    Engine {
        /// The verb that failed.
        verb: &'static str,
        /// What the engine says.
        what: String,
    },
    /// The manifest was closed.
    #[error("the manifest is closed")]
    Closed,
}
