//! A file as one end of a move.
//!
//! The copy has a name of its own beside that of the manifest until it is whole: then it is renamed. Whoever finds the
//! other name knows that a move is unfinished. Where it comes from stands in a table of its own, which is made last and
//! goes last: a copy without it is begun anew.

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::ToSql;
use rusqlite::params_from_iter;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::Value;
use rusqlite::types::ValueRef;

use super::EngineFault;
use super::Fault;
use super::alone_in_folder;
use super::check_folder;
use super::check_readable;
use super::execute;
use super::lock::DaemonLock;
use super::log_ahead;
use super::open_writable;
use super::prepare;
use super::sync_folder;
use super::value;
use crate::manifest::ManifestError;
use crate::manifest::migrate;
use crate::manifest::migrate::MIGRATIONS;
use crate::manifest::migrate::Standing;
use crate::manifest::moving::Cell;
use crate::manifest::moving::MoveError;
use crate::manifest::moving::Row;
use crate::manifest::moving::Table;

const VERB: &str = "migrate";

/// Where the copy came from.
const MARK: &str = "CREATE TABLE reelvault_moving (source TEXT NOT NULL) STRICT";

const IS_MARKED: &str =
    "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'reelvault_moving')";

const READ_MARK: &str = "SELECT source FROM reelvault_moving";

/// The endings of the names of what SQLite puts beside a file.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A manifest that is moved, or that is being made.
pub(in crate::manifest) struct File {
    /// Taken while a thread works with it.
    held: Option<Held>,
    /// The manifest's own name.
    path: PathBuf,
}

/// The lock goes wherever the connection goes: whoever gets it finds nobody at work any more.
struct Held {
    connection: Connection,
    /// No daemon starts meanwhile, and no other move.
    lock: DaemonLock,
}

/// Where a copy is until it is whole.
fn unfinished_path(path: &Path) -> PathBuf {
    beside(path, ".moving")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Refuses a manifest that a move has not finished.
pub(super) fn check_finished(path: &Path) -> Result<(), ManifestError> {
    if !unfinished_path(path).exists() {
        return Ok(());
    }
    let from = source_of(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let from = from.ok().flatten();
    Err(ManifestError::Unfinished {
        target: shown(path),
        from: from.unwrap_or_else(|| "another manifest".to_owned()),
    })
}

/// Refuses the copy of a move that is not finished, whatever name it is opened by.
pub(super) fn check_unmarked(connection: &Connection, path: &Path) -> Result<(), Fault> {
    if value(connection, IS_MARKED, [])? != Some(true) {
        return Ok(());
    }
    let from = value(connection, READ_MARK, [])?;
    Err(Fault::Known(ManifestError::Unfinished {
        target: shown(path),
        from: from.unwrap_or_else(|| "another manifest".to_owned()),
    }))
}

/// Where an unfinished copy came from, if there is one and it got to say so.
fn source_of(path: &Path, access: OpenFlags) -> Result<Option<String>, ManifestError> {
    let unfinished = unfinished_path(path);
    let is_there = unfinished.try_exists();
    if !is_there.map_err(|error| failed(&unfinished, &error))? {
        return Ok(None);
    }
    let read = || -> Result<Option<String>, Fault> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&unfinished, flags)?;
        if value(&connection, IS_MARKED, [])? != Some(true) {
            return Ok(None);
        }
        value(&connection, READ_MARK, [])
    };
    read().map_err(|fault| failed(&unfinished, &EngineFault::of(fault).what))
}

/// Whether an earlier try has left a copy with its mark at `path`. What else is there is refused.
fn check_free(path: &Path, from: &str, access: OpenFlags) -> Result<bool, MoveError> {
    let target = shown(path);
    // A log that was left behind would be taken for that of the copy.
    if path.exists() || LOGS.iter().any(|ending| beside(path, ending).exists()) {
        return Err(MoveError::Occupied { target });
    }
    match source_of(path, access)? {
        Some(source_name) if source_name != from => Err(MoveError::OfAnother {
            target,
            source_name,
        }),
        source => Ok(source.is_some()),
    }
}

fn shown(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

impl File {
    /// The manifest at `path` as it is now. Nobody writes to it until this is dropped.
    pub(in crate::manifest) async fn source(path: PathBuf) -> Result<Self, ManifestError> {
        on_thread(move || {
            check_readable(&path)?;
            let lock = DaemonLock::take(&path)?;
            let open = || -> Result<Connection, Fault> {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&path, flags)?;
                prepare(&connection)?;
                // Nothing is written, but who holds this keeps commands from adding what would not be moved.
                execute(&connection, "BEGIN IMMEDIATE", [])?;
                Ok(connection)
            };
            let connection = open().map_err(|fault| fault.at(&path))?;
            Ok(Self {
                held: Some(Held { connection, lock }),
                path,
            })
        })
        .await
    }

    /// Whether a copy of the manifest named `from` may be made at `path`.
    pub(in crate::manifest) fn check_target(path: &Path, from: &str) -> Result<(), MoveError> {
        check_folder(path)?;
        check_free(path, from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        if DaemonLock::is_held(path) {
            return Err(MoveError::Busy {
                target: shown(path),
            });
        }
        Ok(())
    }

    /// The copy of the manifest named `from`, as an earlier try left it.
    pub(in crate::manifest) async fn target(
        path: PathBuf,
        from: String,
    ) -> Result<Self, MoveError> {
        on_thread(move || {
            check_folder(&path)?;
            let lock = DaemonLock::take(&path).map_err(|error| {
                if !matches!(error, ManifestError::Locked { .. }) {
                    return error.into();
                }
                let target = shown(&path);
                // A daemon that works there is no move.
                if path.exists() {
                    MoveError::Occupied { target }
                } else {
                    MoveError::Busy { target }
                }
            })?;
            // Nobody makes a manifest of this name between the look and the new file.
            let alone = alone_in_folder(&path);
            // Whoever died while the file was made has left something that SQLite rolls back first.
            let access = OpenFlags::SQLITE_OPEN_READ_WRITE;
            let left = if check_free(&path, &from, access)? {
                reopen(&path)?
            } else {
                None
            };
            let connection = match left {
                Some(connection) => connection,
                None => make(&path, &from)?,
            };
            drop(alone);
            Ok(Self {
                held: Some(Held { connection, lock }),
                path,
            })
        })
        .await
    }

    pub(in crate::manifest) async fn columns(
        &mut self,
        table: &Table,
    ) -> Result<Vec<String>, ManifestError> {
        let sql = format!("SELECT name FROM pragma_table_info('{}')", table.name);
        self.with(move |db| {
            let mut statement = db.prepare(&sql)?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<Vec<String>>>()?)
        })
        .await
    }

    pub(in crate::manifest) async fn count(&mut self, table: &Table) -> Result<i64, ManifestError> {
        let sql = format!("SELECT COUNT(*) FROM {}", table.name);
        self.with(move |db| Ok(value(db, &sql, [])?.unwrap_or_default()))
            .await
    }

    pub(in crate::manifest) async fn last_id(
        &mut self,
        table: &Table,
    ) -> Result<i64, ManifestError> {
        let name = table.name;
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        self.with(move |db| Ok(value(db, sql, [name])?.unwrap_or_default()))
            .await
    }

    pub(in crate::manifest) async fn skip_ids(
        &mut self,
        table: &Table,
        last: i64,
    ) -> Result<(), ManifestError> {
        let name = table.name;
        let raise = "UPDATE sqlite_sequence SET seq = MAX(seq, ?2) WHERE name = ?1";
        let begin = "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)";
        self.with(move |db| {
            // There is no row before the first ID is given, and no key that could be in conflict.
            if execute(db, raise, (name, last))? == 0 {
                execute(db, begin, (name, last))?;
            }
            Ok(())
        })
        .await
    }

    pub(in crate::manifest) async fn page(
        &mut self,
        table: &Table,
        columns: &[String],
        after: &[i64],
    ) -> Result<Vec<Row>, ManifestError> {
        let key = table.key.join(", ");
        let places = vec!["?"; after.len()].join(", ");
        let sql = format!(
            "SELECT {} FROM {} WHERE ({key}) > ({places}) ORDER BY {key} LIMIT {}",
            columns.join(", "),
            table.name,
            table.page
        );
        let (after, width) = (after.to_vec(), columns.len());
        self.with(move |db| {
            let mut statement = db.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(after))?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                let read = |place| cell(row.get_ref(place)?);
                page.push((0..width).map(read).collect::<Result<Row, Fault>>()?);
            }
            Ok(page)
        })
        .await
    }

    pub(in crate::manifest) async fn put(
        &mut self,
        table: &Table,
        columns: &[String],
        rows: Vec<Row>,
    ) -> Result<(), MoveError> {
        let places = vec!["?"; columns.len()].join(", ");
        let (name, columns) = (table.name, columns.join(", "));
        let sql = format!("INSERT INTO {name} ({columns}) VALUES ({places})");
        let put = self.with(move |db| {
            let tx = db.unchecked_transaction()?;
            for row in rows {
                execute(&tx, &sql, params_from_iter(row))?;
            }
            Ok(tx.commit()?)
        });
        Ok(put.await?)
    }

    /// Makes the copy anew, with nothing in it.
    pub(in crate::manifest) async fn clear(&mut self) -> Result<(), MoveError> {
        let from: Option<String> = self.with(|db| value(db, READ_MARK, [])).await?;
        let path = self.path.clone();
        let Held { connection, lock } = self.held.take().ok_or(ManifestError::Closed)?;
        let held = on_thread(move || {
            let alone = alone_in_folder(&path);
            drop(connection);
            let connection = make(&path, &from.unwrap_or_default())?;
            drop(alone);
            Ok::<_, ManifestError>(Held { connection, lock })
        });
        self.held = Some(held.await?);
        Ok(())
    }

    /// Gives the copy its name, once all of it is on the disk.
    pub(in crate::manifest) async fn finish(mut self) -> Result<(), ManifestError> {
        self.with(|db| {
            // Most of the work first: a copy that loses its mark before it has its name is begun anew.
            empty_log(db)?;
            execute(db, "DROP TABLE reelvault_moving", [])?;
            empty_log(db)
        })
        .await?;
        let Self { held, path } = self;
        let Held { connection, lock } = held.ok_or(ManifestError::Closed)?;
        on_thread(move || {
            drop(connection);
            let unfinished = unfinished_path(&path);
            let name = || -> std::io::Result<()> {
                fs::File::open(&unfinished)?.sync_all()?;
                let alone = alone_in_folder(&path);
                // Nothing else can have this name: who makes a manifest looks for the unfinished one first.
                fs::rename(&unfinished, &path)?;
                sync_folder(&path)?;
                drop(alone);
                Ok(())
            };
            ({ name })().map_err(|error| failed(&path, &error))?;
            drop(lock);
            Ok(())
        })
        .await
    }

    #[expect(clippy::unused_async, reason = "the other engine has to say goodbye")]
    pub(in crate::manifest) async fn leave(self) {
        drop(self);
    }

    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ManifestError> {
        let held = self.held.take().ok_or(ManifestError::Closed)?;
        let (held, outcome) = on_thread(move || {
            let outcome = work(&held.connection);
            Ok::<_, ManifestError>((held, outcome))
        })
        .await?;
        self.held = Some(held);
        outcome.map_err(|fault| fault.named(VERB))
    }
}

/// Opens the copy that an earlier try left, if it can be gone on with.
fn reopen(path: &Path) -> Result<Option<Connection>, ManifestError> {
    let unfinished = unfinished_path(path);
    let connection = open(&unfinished)?;
    Ok(
        match migrate::standing(&connection, &unfinished, MIGRATIONS)? {
            Standing::Current => Some(connection),
            Standing::Older(_) | Standing::Empty => None,
        },
    )
}

/// Makes the copy, without rows and with the mark in it, in the place of one that stands there.
fn make(path: &Path, from: &str) -> Result<Connection, ManifestError> {
    let unfinished = unfinished_path(path);
    let clear = || -> std::io::Result<()> {
        // Its name says that a move is unfinished, so it is emptied and not removed. That comes before its log goes,
        // without which it would be less than it says; beside an empty file SQLite takes a log for nothing.
        if unfinished.try_exists()? {
            fs::File::create(&unfinished)?.sync_all()?;
        }
        for ending in LOGS {
            match fs::remove_file(beside(&unfinished, ending)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    };
    ({ clear })().map_err(|error| failed(&unfinished, &error))?;
    let mut connection = open(&unfinished)?;
    migrate::migrate(&mut connection, &unfinished, MIGRATIONS)?;
    let mark = || -> Result<(), Fault> {
        let tx = connection.unchecked_transaction()?;
        execute(&tx, MARK, [])?;
        execute(&tx, "INSERT INTO reelvault_moving VALUES (?1)", [from])?;
        Ok(tx.commit()?)
    };
    mark().map_err(|fault| fault.named(VERB))?;
    Ok(connection)
}

fn open(unfinished: &Path) -> Result<Connection, ManifestError> {
    let connection = open_writable(unfinished)?;
    log_ahead(&connection, unfinished)?;
    // Rows that go with the power are copied again.
    let set = connection.pragma_update(None, "synchronous", "NORMAL");
    set.map_err(|error| Fault::from(error).named(VERB))?;
    Ok(connection)
}

/// Brings everything out of the log into the file, and onto the disk. Whoever just reads the mark is waited for.
fn empty_log(db: &Connection) -> Result<(), Fault> {
    let is_busy: Option<i64> = value(db, "PRAGMA wal_checkpoint(TRUNCATE)", [])?;
    if is_busy != Some(0) {
        return Err(Fault::Known(ManifestError::Engine {
            verb: VERB,
            what: "another program reads the copy".to_owned(),
        }));
    }
    Ok(())
}

fn failed(path: &Path, error: &impl Display) -> ManifestError {
    ManifestError::Engine {
        verb: VERB,
        what: format!("{}: {error}", path.display()),
    }
}

async fn on_thread<T: Send + 'static, E: From<ManifestError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ManifestError::Engine {
        verb: VERB,
        what: error.to_string(),
    })?
}

fn cell(value: ValueRef<'_>) -> Result<Cell, Fault> {
    match value {
        ValueRef::Null => Ok(Cell::Null),
        ValueRef::Integer(number) => Ok(Cell::Integer(number)),
        ValueRef::Text(text) => Ok(Cell::Text(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Blob(bytes) => Ok(Cell::Bytes(bytes.to_vec())),
        ValueRef::Real(_) => Err(Fault::Known(ManifestError::Engine {
            verb: VERB,
            what: "a number with a fraction, which no column holds".to_owned(),
        })),
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Null => ToSqlOutput::Owned(Value::Null),
            Cell::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}
