//! The manifest on `SQLite`: one writer that commits in groups, a few readers, and the files beside the database.
//!
//! ```text
//!   verbs --> queue --> writer thread: BEGIN, verb, verb, verb, COMMIT (one sync) --> answers
//!   reads --> readers: each its own snapshot, never behind the writer
//! ```

pub(super) mod alarms;
pub(super) mod answers;
pub(super) mod assets;
pub(super) mod claims;
mod columns;
pub(super) mod deliveries;
pub(super) mod discoveries;
pub(super) mod elsewhere;
pub(super) mod events;
pub(super) mod health;
pub(super) mod hints;
pub(super) mod holds;
mod lock;
pub(super) mod moving;
pub(super) mod objects;
mod readers;
pub(super) mod reads;
pub(super) mod rebuild;
pub(super) mod tasks;
pub(super) mod uploads;
pub(super) mod waiting;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::Params;
use rusqlite::Row;
use rusqlite::config::DbConfig;
use tokio::sync::mpsc;
use tokio::sync::watch;

use self::columns::Columns;
use self::lock::DaemonLock;
use self::readers::Readers;
use self::writer::Desk;
use self::writer::Job;
pub(super) use self::writer::Lasting;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::manifest::Access;
use crate::manifest::ManifestError;
use crate::manifest::migrate;
use crate::manifest::migrate::MIGRATIONS;
use crate::manifest::migrate::Standing;
use crate::manifest::owner::give_to_owner_of_folder;
use crate::units::Span;

/// Verbs that may wait for the writer; whoever comes later waits for a place.
const QUEUE_MAX: usize = 1024;

/// How long one process waits for another's write: far longer than any verb, shorter than a person's patience.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The log is copied into the database at this length. Polls write the same pages of the indexes again and again; the
/// longer the log, the fewer of those copies are in vain.
const CHECKPOINT_PAGES: u32 = 4_000;

/// What the writer holds of the database at most: with 100,000 tasks, SQLite's own 2 MiB are read from the file over and
/// over.
const CACHE_KIB: i64 = 32 * 1024;

/// The log is cut back to this after a burst.
const LOG_BYTES_MAX: i64 = 64 << 20;

/// More prepared statements than there are constants with SQL.
const STATEMENTS_MAX: usize = 128;

/// An open database.
pub(super) struct Sqlite {
    path: PathBuf,
    access: Access,
    /// `None` once closed, and when opened for reading.
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    /// How many groups were committed; whoever waits for news listens here.
    commits: watch::Sender<u64>,
    /// What the file system calls the open file, whatever its name.
    identity: Option<(u64, u64)>,
}

/// How an open database is to be worked.
pub(super) struct Opening {
    pub(super) path: PathBuf,
    pub(super) access: Access,
    pub(super) clock: Clock,
    pub(super) lease: Span,
    /// Whether everything is done on the thread of whoever asks.
    pub(super) is_inline: bool,
}

enum Writer {
    Thread {
        jobs: mpsc::Sender<Job>,
        thread: JoinHandle<()>,
    },
    /// Where a foreign thread would make a run differ from the next.
    Inline(Box<Desk>),
}

impl Sqlite {
    /// Opens the database, making and migrating it where the access allows that.
    pub(super) fn open(opening: Opening) -> Result<Self, ManifestError> {
        let Opening { path, access, .. } = &opening;
        check_folder(path)?;
        let (commits, _) = watch::channel(0);
        let desk = match access {
            Access::Reader => {
                check_readable(path)?;
                None
            }
            Access::Writer => Some(desk(&opening, None, &commits)?),
            Access::Daemon => {
                let lock = DaemonLock::take(path)?;
                Some(desk(&opening, Some(lock), &commits)?)
            }
        };
        let writer = desk
            .map(|desk| start(desk, opening.is_inline))
            .transpose()?;
        Ok(Self {
            readers: Readers::new(path.clone()),
            access: *access,
            writer: Mutex::new(writer),
            identity: identity(path).ok(),
            path: opening.path,
            commits,
        })
    }

    /// Whether a daemon works on the manifest at `path`.
    pub(super) fn is_daemon_running(path: &Path) -> bool {
        DaemonLock::is_held(path)
    }

    /// Fails once the open file is not that which has its name: removed, or replaced by another.
    pub(super) fn check_in_place(&self) -> Result<(), ManifestError> {
        let is_there = match identity(&self.path) {
            Ok(found) => self.identity.is_none_or(|known| known == found),
            // A file system that does not answer says nothing of the file.
            Err(error) => error.kind() != ErrorKind::NotFound,
        };
        is_there
            .then_some(())
            .ok_or_else(|| ManifestError::Replaced {
                path: self.path.clone(),
            })
    }

    /// Does `work` in a transaction and answers when it is as lasting as asked.
    ///
    /// Dropped before it entered the queue, it does nothing; dropped later, it is done all the same.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        verb: &'static str,
        lasting: Lasting,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ManifestError> {
        let (job, answered) = writer::job(verb, lasting, work);
        if let Some((jobs, job)) = self.hand_in(job)? {
            jobs.send(job).await.map_err(|_| ManifestError::Closed)?;
        }
        answered.await.map_err(|_| ManifestError::Closed)?
    }

    /// Does `work` on one snapshot of what is committed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ManifestError> {
        let is_inline = matches!(*self.lock_writer(), Some(Writer::Inline(_)));
        if is_inline {
            self.readers.read_here(verb, work)
        } else {
            self.readers.read(verb, work).await
        }
    }

    /// Writes what is queued and closes every connection. Verbs fail from here on.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        let writer = self.lock_writer().take();
        match writer {
            None => {}
            Some(Writer::Inline(desk)) => desk.finish(),
            Some(Writer::Thread { jobs, thread }) => {
                drop(jobs);
                let joined = tokio::task::spawn_blocking(|| thread.join());
                // A writer that panicked has told everybody who waited for it.
                joined.await.ok();
            }
        }
    }

    /// How many groups of writes were committed.
    pub(super) fn commits(&self) -> u64 {
        *self.commits.borrow()
    }

    /// Changes with every group that is committed here.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Does the job here, or says where to send it.
    fn hand_in(&self, job: Job) -> Result<Option<(mpsc::Sender<Job>, Job)>, ManifestError> {
        match (&mut *self.lock_writer(), self.access) {
            (Some(Writer::Thread { jobs, .. }), _) => Ok(Some((jobs.clone(), job))),
            (Some(Writer::Inline(desk)), _) => {
                desk.commit(vec![job]);
                Ok(None)
            }
            (None, Access::Reader) => Err(ManifestError::ReadOnly {
                path: self.path.clone(),
            }),
            (None, Access::Writer | Access::Daemon) => Err(ManifestError::Closed),
        }
    }

    fn lock_writer(&self) -> std::sync::MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({}, {:?})", self.path.display(), self.access)
    }
}

/// What a writing verb works with.
pub(super) struct Tx<'c> {
    /// Inside a transaction.
    db: &'c Connection,
    /// The time of this verb.
    now: Timestamp,
    /// When a lease that is given or renewed now ends.
    lease_until: Timestamp,
    /// Who claims.
    owner: &'c str,
}

/// Why a verb's work failed, before the verb's name is put to it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The engine's trouble.
    Engine(EngineFault),
    /// A verb's own answer.
    Known(ManifestError),
}

/// What the engine reported.
#[derive(Clone, Debug)]
pub(super) struct EngineFault {
    code: Option<ErrorCode>,
    what: String,
}

impl EngineFault {
    fn rolled_back() -> Self {
        Self {
            code: None,
            what: "the engine rolled back the transaction".to_owned(),
        }
    }

    /// The engine's part of a fault.
    fn of(fault: Fault) -> Self {
        match fault {
            Fault::Engine(fault) => fault,
            Fault::Known(error) => Self {
                code: None,
                what: error.to_string(),
            },
        }
    }
}

impl Fault {
    /// The same as the verb's error: the one place where the engine's codes are read.
    pub(super) fn named(self, verb: &'static str) -> ManifestError {
        let EngineFault { code, what } = match self {
            Fault::Known(error) => return error,
            Fault::Engine(fault) => fault,
        };
        match code {
            Some(ErrorCode::DiskFull) => ManifestError::Full { verb, what },
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase,
            ) => ManifestError::Broken { verb, what },
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                ManifestError::Unfit { verb, what }
            }
            // A foreign enum: busy for too long, out of memory.
            Some(_) | None => ManifestError::Engine { verb, what },
        }
    }
}

impl Fault {
    /// The same where the database is opened, which names the file.
    pub(super) fn at(self, path: &Path) -> ManifestError {
        let EngineFault { code, what } = match self {
            Fault::Known(error) => return error,
            Fault::Engine(fault) => fault,
        };
        let is_forbidden = matches!(
            code,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied)
        );
        if is_forbidden {
            let path = path.to_owned();
            return ManifestError::Forbidden { path, what };
        }
        let what = format!("{}: {what}", path.display());
        Fault::Engine(EngineFault { code, what }).named("open")
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Engine(EngineFault {
            code: error.sqlite_error_code(),
            what: error.to_string(),
        })
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        Fault::Known(error)
    }
}

/// Runs a statement and tells how many rows it touched.
fn execute(db: &Connection, sql: &str, params: impl Params) -> Result<usize, Fault> {
    Ok(db.prepare_cached(sql)?.execute(params)?)
}

/// Every row that a statement gives, read as rows of `table`.
fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    table: &'static str,
    mut read: impl FnMut(&Columns<'_, '_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&Columns::of(table, row)?)?);
    }
    Ok(found)
}

/// The one value that a statement gives, if it gives a row.
fn value<T: rusqlite::types::FromSql>(
    db: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<Option<T>, Fault> {
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| row.get(0);
    match statement.query_row(params, read) {
        Ok(found) => Ok(Some(found)),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A count as the engine has numbers.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Whether there is a folder to put the database in.
fn check_folder(path: &Path) -> Result<(), ManifestError> {
    if path.is_dir() {
        return Err(ManifestError::NoFile {
            path: path.to_owned(),
        });
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder.filter(|folder| !folder.is_dir()) {
        None => Ok(()),
        Some(folder) => Err(ManifestError::Folder {
            path: folder.to_owned(),
        }),
    }
}

/// How often the change to the log ahead is tried beside other processes that do the same.
const MODE_TRIES: u32 = 20;

/// Settings that belong to a connection, not to the file.
fn prepare(connection: &Connection) -> Result<(), Fault> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "foreign_keys", true)?;
    // One plan for a statement, whatever it is asked with: else each time that a bound of a range is bound anew, the engine
    // compiles the statement again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Sorting must not depend on room in a folder for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

fn desk(
    opening: &Opening,
    lock: Option<DaemonLock>,
    commits: &watch::Sender<u64>,
) -> Result<Desk, ManifestError> {
    let path = &opening.path;
    let making = alone_in_folder(path);
    moving::check_finished(path)?;
    let mut connection = open_writable(path)?;
    moving::check_unmarked(&connection, path).map_err(|fault| fault.at(path))?;
    let standing = migrate::standing(&connection, path, MIGRATIONS)?;
    log_ahead(&connection, path)?;
    // A daemon that runs on an older schema must not find a newer one under its feet.
    let borrowed = match (&lock, standing) {
        (None, Standing::Older(_)) => Some(DaemonLock::take(path)?),
        (Some(_), _) | (None, Standing::Empty | Standing::Current) => None,
    };
    migrate::migrate(&mut connection, path, MIGRATIONS)?;
    drop(borrowed);
    drop(making);
    if lock.is_some() {
        claims::release_all(&connection).map_err(|fault| fault.named("open"))?;
    }
    Ok(Desk {
        connection,
        clock: opening.clock.clone(),
        lease: opening.lease,
        owner: format!("pid-{}", std::process::id()),
        commits: commits.clone(),
        lock,
        lasting: Lasting::ThroughPowerCuts,
    })
}

/// Keeps other processes from making or migrating a manifest in the same folder until it is dropped. A file system that
/// knows no such locks goes without.
fn alone_in_folder(path: &Path) -> Option<File> {
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

fn open_writable(path: &Path) -> Result<Connection, ManifestError> {
    make_file(path).map_err(|error| opening_failed(path, &error))?;
    let open = || -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        Ok(connection)
    };
    open().map_err(|fault| fault.at(path))
}

/// Why a file of the manifest's cannot be opened.
fn opening_failed(path: &Path, error: &std::io::Error) -> ManifestError {
    let is_forbidden = matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    );
    if is_forbidden {
        return ManifestError::Forbidden {
            path: path.to_owned(),
            what: error.to_string(),
        };
    }
    ManifestError::Engine {
        verb: "open",
        what: format!("{}: {error}", path.display()),
    }
}

/// Makes the file, if there is none, so that its entry in the folder survives a loss of power.
fn make_file(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // Links in the manifest are signed: the file is the service's alone, and so are those that SQLite puts beside it.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    give_to_owner_of_folder(&options.open(path)?, path)?;
    sync_folder(path)
}

/// Makes a name in a folder survive a loss of power.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Another process that opens the same new file in the same moment is in the way of this change, and SQLite does not
/// wait for it by itself as it does elsewhere; it waits for a transaction.
fn set_mode(connection: &Connection) -> rusqlite::Result<String> {
    let mut tries = 1;
    loop {
        let set = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match set {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && tries < MODE_TRIES =>
            {
                tries += 1;
                connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
            }
            set => return set,
        }
    }
}

/// Sets how commits reach the disk.
fn log_ahead(connection: &Connection, path: &Path) -> Result<(), ManifestError> {
    let set = || -> Result<String, Fault> {
        let mode = set_mode(connection)?;
        // Acknowledged means synced, but for leases: in WAL mode anything less loses the last commits with the power.
        connection.pragma_update(None, "synchronous", Lasting::ThroughPowerCuts.synchronous())?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        Ok(mode)
    };
    let mode = set().map_err(|fault| fault.named("open"))?;
    let is_logged = mode.eq_ignore_ascii_case("wal");
    is_logged
        .then_some(())
        .ok_or_else(|| ManifestError::Engine {
            verb: "open",
            what: format!("{}: no write-ahead log on this file system", path.display()),
        })
}

fn check_readable(path: &Path) -> Result<(), ManifestError> {
    let missing = || ManifestError::Missing {
        path: path.to_owned(),
    };
    moving::check_finished(path)?;
    if !path.is_file() {
        return Err(missing());
    }
    let check = |connection: &Connection| {
        moving::check_unmarked(connection, path)?;
        Ok(migrate::standing(connection, path, MIGRATIONS)?)
    };
    match Readers::new(path.to_owned()).look_first(check)? {
        Standing::Current => Ok(()),
        Standing::Empty => Err(missing()),
        Standing::Older(found) => Err(ManifestError::Older {
            found,
            known: migrate::newest(MIGRATIONS),
        }),
    }
}

fn start(desk: Desk, is_inline: bool) -> Result<Writer, ManifestError> {
    if is_inline {
        return Ok(Writer::Inline(Box::new(desk)));
    }
    let (jobs, queue) = mpsc::channel(QUEUE_MAX);
    let builder = std::thread::Builder::new().name("manifest".to_owned());
    let thread = builder.spawn(move || desk.work(queue));
    let thread = thread.map_err(|error| ManifestError::Engine {
        verb: "open",
        what: format!("start the writer: {error}"),
    })?;
    Ok(Writer::Thread { jobs, thread })
}
