//! Migrations: numbered SQL files, forward only, each in one transaction; a copy of the database is made first.

use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::TransactionBehavior;

use crate::manifest::ManifestError;
use crate::manifest::owner::give_to_owner_of_folder;
use crate::manifest::sqlite::Fault;

/// Every migration in order: the first makes schema 1 out of an empty file. A released one is never edited.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("sqlite/001_begin.sql"),
    include_str!("sqlite/002_media.sql"),
    include_str!("sqlite/003_outbox.sql"),
    include_str!("sqlite/004_hints.sql"),
    include_str!("sqlite/005_gateway.sql"),
    include_str!("sqlite/006_discovery.sql"),
    include_str!("sqlite/007_holds.sql"),
    include_str!("sqlite/008_counts.sql"),
    include_str!("sqlite/009_warned.sql"),
];

/// "Reel", as the first migration writes it.
const APPLICATION_ID: i64 = 1_382_376_812;

const VERB: &str = "migrate";

/// How a database stands to the schemas that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is nothing in it.
    Empty,
    /// It has this schema, which is not the newest.
    Older(u32),
    /// It has the newest schema.
    Current,
}

/// Tells how the database stands to `migrations`. A newer one and one that is no manifest are errors.
pub(super) fn standing(
    connection: &Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<Standing, ManifestError> {
    let found = read_version(connection, path)?;
    let known = newest(migrations);
    match found {
        0 => Ok(Standing::Empty),
        found if found > known => Err(ManifestError::Newer { found, known }),
        found if found < known => Ok(Standing::Older(found)),
        _ => Ok(Standing::Current),
    }
}

/// Brings the database to the newest schema. An older one is copied beside itself first.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), ManifestError> {
    if let Standing::Older(found) = standing(connection, path, migrations)? {
        back_up(connection, path, found)?;
    }
    for (version, migration) in (1_u32..).zip(migrations) {
        let step = || -> Result<(), Fault> {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have been here between the look and the transaction.
            if read_version(&transaction, path)? < version {
                transaction.execute_batch(migration)?;
                transaction.pragma_update(None, "user_version", version)?;
            }
            Ok(transaction.commit()?)
        };
        ({ step })().map_err(|fault| fault.named(VERB))?;
    }
    Ok(())
}

/// The newest schema of `migrations`.
pub(super) fn newest(migrations: &[&str]) -> u32 {
    u32::try_from(migrations.len()).expect("there are few migrations")
}

/// Where the copy of a database with schema `version` goes.
pub(super) fn backup_path(path: &Path, version: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".schema-{version}.bak"));
    name.into()
}

/// The schema of the database, 0 if there is nothing in it.
fn read_version(connection: &Connection, path: &Path) -> Result<u32, ManifestError> {
    let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let engine = |error| Fault::from(error).at(path);
    let foreign = || ManifestError::Foreign {
        path: path.to_owned(),
    };
    let mut version = read("PRAGMA user_version").map_err(engine)?;
    let is_empty = version == 0 && read("SELECT COUNT(*) FROM sqlite_master").map_err(engine)? == 0;
    if version == 0 && !is_empty {
        // Another process may have made the first schema between the two looks; it did so in one transaction.
        version = read("PRAGMA user_version").map_err(engine)?;
    }
    let is_ours = match version {
        0 => is_empty,
        _ => read("PRAGMA application_id").map_err(engine)? == APPLICATION_ID,
    };
    let version = u32::try_from(version).ok().filter(|_| is_ours);
    version.ok_or_else(foreign)
}

/// Copies the database, whole and synced, before its name says that it is there.
fn back_up(connection: &Connection, path: &Path, version: u32) -> Result<(), ManifestError> {
    let backup = backup_path(path, version);
    let partial = backup.with_extension("partial");
    let failed = |error: std::io::Error| ManifestError::Engine {
        verb: VERB,
        what: format!("copy to {}: {error}", backup.display()),
    };
    // Links in the manifest are signed: nobody else reads the copy either.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let made = options.open(&partial).map_err(failed)?;
    give_to_owner_of_folder(&made, &partial).map_err(failed)?;
    let copied = connection.execute("VACUUM INTO ?1", [partial.to_string_lossy()]);
    copied.map_err(|error| Fault::from(error).named(VERB))?;
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    std::fs::rename(&partial, &backup).map_err(failed)?;
    let folder = backup
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, PathBuf, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.db");
        let connection = Connection::open(&path).unwrap();
        (folder, path, connection)
    }

    #[test]
    fn an_older_schema_is_copied_and_then_brought_up() {
        let (_folder, path, mut connection) = database();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        let learned =
            "INSERT INTO orphans (destination, key, upload_id, due_at) VALUES ('a', 'k', 'u', 1)";
        connection.execute(learned, []).unwrap();
        assert!(
            !backup_path(&path, 1).exists(),
            "nothing to copy when it is made"
        );

        let mut later = MIGRATIONS.to_vec();
        later.push("ALTER TABLE orphans ADD COLUMN note TEXT;");
        assert_eq!(
            standing(&connection, &path, &later).unwrap(),
            Standing::Older(newest(MIGRATIONS))
        );
        migrate(&mut connection, &path, &later).unwrap();
        assert_eq!(
            standing(&connection, &path, &later).unwrap(),
            Standing::Current
        );
        connection
            .execute("UPDATE orphans SET note = 'x'", [])
            .unwrap();

        let copy = Connection::open(backup_path(&path, newest(MIGRATIONS))).unwrap();
        assert_eq!(
            standing(&copy, &path, MIGRATIONS).unwrap(),
            Standing::Current
        );
        let rows: i64 = copy
            .query_row("SELECT COUNT(*) FROM orphans", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let (_folder, path, mut connection) = database();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        let mut later = MIGRATIONS.to_vec();
        later.push("CREATE TABLE half (id INTEGER); ALTER TABLE nonsense ADD COLUMN note TEXT;");
        assert!(migrate(&mut connection, &path, &later).is_err());
        assert_eq!(
            standing(&connection, &path, MIGRATIONS).unwrap(),
            Standing::Current
        );
        let made = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'half'";
        let made: i64 = connection.query_row(made, [], |row| row.get(0)).unwrap();
        assert_eq!(made, 0);
    }

    #[test]
    fn a_newer_schema_and_a_foreign_database_are_refused() {
        let (_folder, path, mut connection) = database();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let newer = standing(&connection, &path, MIGRATIONS);
        assert!(
            matches!(newer, Err(ManifestError::Newer { found: 99, .. })),
            "{newer:?}"
        );

        for theirs in ["CREATE TABLE mail (id INTEGER)", "PRAGMA user_version = 1"] {
            let (_folder, path, mut connection) = database();
            connection.execute_batch(theirs).unwrap();
            let foreign = migrate(&mut connection, &path, MIGRATIONS);
            assert!(
                matches!(foreign, Err(ManifestError::Foreign { .. })),
                "{foreign:?}"
            );
        }
    }
}
