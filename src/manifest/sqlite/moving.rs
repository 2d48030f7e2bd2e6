//! A file as one end of a move.
//!
//! The copy has a name of its own beside that of the manifest until it is whole: then it is renamed. Whoever finds the
//! other name knows that a move is unfinished.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::ToSql;
use rusqlite::params_from_iter;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::Value;
use rusqlite::types::ValueRef;

use super::Fault;
use super::alone_in_folder;
use super::check_folder;
use super::check_readable;
use super::execute;
use super::lock::DaemonLock;
use super::make_file;
use super::prepare;
use super::sync_folder;
use super::value;
use crate::manifest::ManifestError;
use crate::manifest::migrate;
use crate::manifest::migrate::MIGRATIONS;
use crate::manifest::moving::Cell;
use crate::manifest::moving::MoveError;
use crate::manifest::moving::Row;
use crate::manifest::moving::Table;

const VERB: &str = "migrate";

/// Where the copy came from.
const MARK: &str = "CREATE TABLE reelvault_moving (source TEXT NOT NULL) STRICT";

const READ_MARK: &str = "SELECT source FROM reelvault_moving";

/// A manifest that is moved, or that is being made.
pub(in crate::manifest) struct File {
    /// Taken while a thread works with it.
    connection: Option<Connection>,
    /// The manifest's own name.
    path: PathBuf,
    /// No daemon starts meanwhile.
    lock: DaemonLock,
}

/// Where a copy is until it is whole.
fn unfinished_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".moving");
    name.into()
}

/// Refuses a manifest that a move has not finished.
pub(super) fn check_finished(path: &Path) -> Result<(), ManifestError> {
    if !unfinished_path(path).exists() {
        return Ok(());
    }
    Err(ManifestError::Unfinished {
        target: format!("sqlite:{}", path.display()),
        from: source_of(path).unwrap_or_else(|| "another manifest".to_owned()),
    })
}

/// Where an unfinished copy came from, as far as it got to say so.
fn source_of(path: &Path) -> Option<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(unfinished_path(path), flags).ok()?;
    value(&connection, READ_MARK, []).ok()?
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
            let connection = open().map_err(|fault| fault.named(VERB))?;
            Ok(Self {
                connection: Some(connection),
                path,
                lock,
            })
        })
        .await
    }

    /// Whether a copy of the manifest named `from` may be made at `path`.
    pub(in crate::manifest) fn check_target(path: &Path, from: &str) -> Result<(), MoveError> {
        check_folder(path)?;
        let target = format!("sqlite:{}", path.display());
        if path.exists() {
            return Err(MoveError::Occupied { target });
        }
        match source_of(path) {
            Some(source_name) if source_name != from => Err(MoveError::OfAnother {
                target,
                source_name,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Begins the copy of the manifest named `from`, in the place of one that was begun before.
    pub(in crate::manifest) async fn target(
        path: PathBuf,
        from: String,
    ) -> Result<Self, MoveError> {
        on_thread(move || {
            check_folder(&path)?;
            let lock = DaemonLock::take(&path)?;
            // Nobody makes a manifest of this name between the look and the new file.
            let alone = alone_in_folder(&path);
            Self::check_target(&path, &from)?;
            let unfinished = unfinished_path(&path);
            let begin = || -> Result<Connection, ManifestError> {
                if unfinished.exists() {
                    fs::remove_file(&unfinished).map_err(|error| failed(&unfinished, &error))?;
                }
                make_file(&unfinished).map_err(|error| failed(&unfinished, &error))?;
                make(&unfinished, &from)
            };
            let connection = begin()?;
            drop(alone);
            Ok(Self {
                connection: Some(connection),
                path,
                lock,
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
    ) -> Result<(), ManifestError> {
        let places = vec!["?"; columns.len()].join(", ");
        let (name, columns) = (table.name, columns.join(", "));
        let sql = format!("INSERT INTO {name} ({columns}) VALUES ({places})");
        self.with(move |db| {
            let tx = db.unchecked_transaction()?;
            for row in rows {
                execute(&tx, &sql, params_from_iter(row))?;
            }
            Ok(tx.commit()?)
        })
        .await
    }

    /// Gives the copy its name, once all of it is on the disk.
    pub(in crate::manifest) async fn finish(mut self) -> Result<(), ManifestError> {
        self.with(|db| execute(db, "DROP TABLE reelvault_moving", []))
            .await?;
        on_thread(move || {
            let Self {
                connection,
                path,
                lock,
            } = self;
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
        let connection = self.connection.take().ok_or(ManifestError::Closed)?;
        let (connection, outcome) = on_thread(move || {
            let outcome = work(&connection);
            Ok::<_, ManifestError>((connection, outcome))
        })
        .await?;
        self.connection = Some(connection);
        outcome.map_err(|fault| fault.named(VERB))
    }
}

/// Makes a manifest without rows in an empty file, with the mark in it.
fn make(path: &Path, from: &str) -> Result<Connection, ManifestError> {
    let open = || -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        // What is left behind by a crash is begun anew, so nothing has to be on the disk before the end.
        connection.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(connection)
    };
    let mut connection = open().map_err(|fault| fault.named(VERB))?;
    migrate::migrate(&mut connection, path, MIGRATIONS)?;
    let mark = || -> Result<(), Fault> {
        execute(&connection, MARK, [])?;
        execute(
            &connection,
            "INSERT INTO reelvault_moving VALUES (?1)",
            [from],
        )?;
        Ok(())
    };
    mark().map_err(|fault| fault.named(VERB))?;
    Ok(connection)
}

fn failed(path: &Path, error: &std::io::Error) -> ManifestError {
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
