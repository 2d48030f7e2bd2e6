//! Why a verb did not do its work: one error for every engine.

use std::path::PathBuf;

use crate::model::key::ObjectKey;
use crate::model::lease::Lease;
use crate::model::object::DestinationName;

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
    /// The folder that the manifest is to be in does not exist.
    #[error("no folder {} to put the manifest in", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The manifest's file is a folder.
    #[error("{} is a folder, and a manifest is a file", path.display())]
    NoFile {
        /// The folder.
        path: PathBuf,
    },
    /// This user may not do with the manifest's files what it takes.
    #[error("{}: {what}", path.display())]
    Forbidden {
        /// The file.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
    /// The file that is open is not the one that has its name any more: what is written to it is lost.
    #[error("manifest {} was removed or replaced while it was open", path.display())]
    Replaced {
        /// The database.
        path: PathBuf,
    },
    /// A move to this manifest was not finished: what is there is not all of it.
    #[error("the move from {from} to {target} is not finished")]
    Unfinished {
        /// The manifest.
        target: String,
        /// Where it is moved from.
        from: String,
    },
    /// The manifest was written by an older Reelvault, and a reader changes nothing.
    #[error("manifest has schema {found}: the daemon brings it to schema {known} when it starts")]
    Older {
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// A database that is something else's.
    #[error("{} is a database, but no manifest", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// A server's schema in which another program has what our tables would be called.
    #[error("{server} is a database, but no manifest: another program has {names} there")]
    InTheWay {
        /// The server, as configured.
        server: String,
        /// What is in the way.
        names: String,
    },
    /// A database that cannot hold every character.
    #[error(
        "the database of {server} has the encoding {found}, which lacks characters that providers use"
    )]
    Encoding {
        /// The server, as configured.
        server: String,
        /// Its encoding.
        found: String,
    },
    /// A verb that writes, on a manifest that was opened for reading.
    #[error("manifest {} was opened for reading", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// Another object at the destination has this key: two assets never share one.
    #[error("key {key} at {destination} belongs to another object")]
    KeyTaken {
        /// The destination.
        destination: DestinationName,
        /// The key.
        key: ObjectKey,
    },
    /// A URL that names no engine we have.
    #[error(
        "{url:?} is no manifest URL: write sqlite:/path/to/manifest.db or postgres://user@host/database"
    )]
    Url {
        /// As configured.
        url: String,
    },
    /// The database server cannot be reached, or has no room for us now: a later try may do.
    #[error("{verb}: cannot reach {server}: {what}")]
    Away {
        /// The verb that failed.
        verb: &'static str,
        /// The server, as configured.
        server: String,
        /// What the connection met.
        what: String,
    },
    /// The database server does not let us in.
    #[error("{server} does not let us in: {what}")]
    Denied {
        /// The server, as configured.
        server: String,
        /// What it said.
        what: String,
    },
    /// The database server's certificate does not show that it is the one that was meant.
    #[error("the certificate of {server} is not trusted: {what}")]
    Untrusted {
        /// The server, as configured.
        server: String,
        /// What is wrong with it.
        what: String,
    },
    /// What answers is a transaction pooler, and we were not told.
    #[error("{server} is behind a pooler that does not keep what a connection was told: {what}")]
    Pooler {
        /// The server, as configured.
        server: String,
        /// What it said.
        what: String,
    },
    /// The database server takes no writes: it is a copy of another, or was told not to.
    #[error("{verb}: {server} takes no writes")]
    Standby {
        /// The verb that failed.
        verb: &'static str,
        /// The server, as configured.
        server: String,
    },
    /// The database server is too old.
    #[error("the server is PostgreSQL {found}, and {needed} is the oldest that will do")]
    OldServer {
        /// Its version.
        found: i64,
        /// The oldest that will do.
        needed: i64,
    },
    /// The password of the manifest's server cannot be had.
    #[error("manifest.password: {0}")]
    Password(#[from] crate::secret::SecretError),
    /// Another daemon of the fleet has this name.
    #[error("another machine works on this manifest as {name:?}")]
    NameTaken {
        /// The name.
        name: String,
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
    /// The disk is full: nothing was written, and nothing will be until there is room.
    #[error("{verb}: {what}")]
    Full {
        /// The verb that failed.
        verb: &'static str,
        /// What the engine says.
        what: String,
    },
    /// The disk or the database is broken: to go on writing could make it worse.
    #[error("{verb}: {what}")]
    Broken {
        /// The verb that failed.
        verb: &'static str,
        /// What the engine says.
        what: String,
    },
    /// The engine takes a value of this row at no time: nothing was written, and no later try will do.
    #[error("{verb}: {what}")]
    Unfit {
        /// The verb that failed.
        verb: &'static str,
        /// What the engine says.
        what: String,
    },
    /// The engine failed in another way, such as busy for too long: nothing was written, a later try may do.
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
