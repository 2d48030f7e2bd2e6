//! Migrations: numbered SQL files, forward only, all in one transaction under a lock that every program of ours takes.

use super::Fault;
use super::Tx;
use super::execute;
use super::statement::named_params;
use super::value;
use crate::manifest::ManifestError;
use crate::manifest::moving::TABLES;

/// Every migration in order: the first makes schema 1 out of nothing. A released one is never edited.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("001_begin.sql")];

/// The first server that has all that the statements use and that its makers still mend.
const SERVER_MIN: i64 = 140_000;

/// Two programs that start at once bring the schema up one after the other. The number is this lock's own.
pub(super) const LOCK: &str = "-- manifest::migrate
    SELECT pg_advisory_xact_lock(7453291001)";

/// The same lock, for who does not wait for it.
pub(super) const TRY_LOCK: &str = "-- manifest::migrate
    SELECT pg_try_advisory_xact_lock(7453291001)";

// Tables are looked up as rows. By their names the server would look into a cache, which goes on saying "none" within a
// transaction that has once found none.

/// Whether a move to here was begun: its mark is a table of its own, until all of it is there.
const IS_UNFINISHED: &str = "-- manifest::migrate
    SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'reelvault_moving' AND pg_table_is_visible(oid))";

const MARK: &str = "
    SELECT source, token FROM reelvault_moving";

/// The bounds of verbs are not for this.
const PATIENCE: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0";

const SERVER: &str = "-- manifest::migrate
    SELECT current_setting('server_version_num')::bigint";

const STANDS: &str = "-- manifest::migrate
    SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'reelvault_schema' AND pg_table_is_visible(oid))";

/// What another program has under the names of our tables, in the schema in which they would be made. Tables of other
/// names are in nobody's way.
const IN_THE_WAY: &str = "-- manifest::migrate
    SELECT string_agg(relname::text, ', ' ORDER BY relname) FROM pg_class
    WHERE relname = ANY(:tables)
        AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())";

const ENCODING: &str = "-- manifest::migrate
    SELECT current_setting('server_encoding')";

/// The one encoding that has every character, and the one that takes bytes as they come.
const ENCODINGS: [&str; 2] = ["UTF8", "SQL_ASCII"];

/// Tables that no move takes along.
const OWN_TABLES: [&str; 2] = ["machines", "counts"];

const VERSION: &str = "-- manifest::migrate
    SELECT MAX(version) FROM reelvault_schema";

const BEGIN: &str = "
    CREATE TABLE reelvault_schema (version BIGINT PRIMARY KEY, at BIGINT NOT NULL)";

/// How the database stands to the schemas that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is no manifest in it.
    Empty,
    /// It has this schema, which is not the newest.
    Older(u32),
    /// It has the newest schema.
    Current,
}

/// The newest schema that this program knows.
pub(super) fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

/// The mark of a move that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Where it comes from.
    pub(super) source: String,
    /// One more at each try.
    pub(super) token: i64,
}

/// The names of all tables of a manifest, but for those that say what it is.
pub(super) fn tables() -> Vec<String> {
    let moved = TABLES.iter().map(|table| table.name);
    moved.chain(OWN_TABLES).map(str::to_owned).collect()
}

/// Tells how the database stands. An older server, an encoding that will not do, an unfinished move, a newer schema and
/// somebody else's tables are errors.
pub(super) async fn standing(tx: &Tx<'_>) -> Result<Standing, Fault> {
    let server: Option<i64> = value(tx, SERVER, []).await?;
    check_server(server.unwrap_or_default())?;
    check_encoding(tx).await?;
    if let Some(mark) = mark(tx).await? {
        return Err(Fault::Known(ManifestError::Unfinished {
            target: tx.engine.shown.clone(),
            from: mark.source,
        }));
    }
    standing_of_tables(tx).await
}

/// The same, whether they are the copy of an unfinished move or not.
pub(super) async fn standing_of_tables(tx: &Tx<'_>) -> Result<Standing, Fault> {
    if value(tx, STANDS, []).await? != Some(true) {
        let tables = named_params! { ":tables": tables() };
        let found: Option<Option<String>> = value(tx, IN_THE_WAY, tables).await?;
        let Some(names) = found.flatten() else {
            return Ok(Standing::Empty);
        };
        // Another daemon may have made all of it between the two looks.
        if value(tx, STANDS, []).await? != Some(true) {
            let server = tx.engine.shown.clone();
            return Err(Fault::Known(ManifestError::InTheWay { server, names }));
        }
    }
    let found: Option<Option<i64>> = value(tx, VERSION, []).await?;
    let found = u32::try_from(found.flatten().unwrap_or_default()).unwrap_or(u32::MAX);
    let known = newest();
    match found {
        found if found > known => Err(Fault::Known(ManifestError::Newer { found, known })),
        found if found < known => Ok(Standing::Older(found)),
        _ => Ok(Standing::Current),
    }
}

/// The mark of a move that was not finished, if there is one. Without the lock it may go between the two looks: the
/// server's fault is then one of those for which a verb is done again.
pub(super) async fn mark(tx: &Tx<'_>) -> Result<Option<Mark>, Fault> {
    if value(tx, IS_UNFINISHED, []).await? != Some(true) {
        return Ok(None);
    }
    let rows = tx.rows(MARK, &[]).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Mark {
            source: row.try_get(0)?,
            token: row.try_get(1)?,
        })
    };
    rows.first().map(read).transpose()
}

/// Refuses a server that lacks what the statements use. The version is the server's own number for it.
pub(super) fn check_server(version: i64) -> Result<(), ManifestError> {
    if version < SERVER_MIN {
        return Err(ManifestError::OldServer {
            found: version / 10_000,
            needed: SERVER_MIN / 10_000,
        });
    }
    Ok(())
}

/// Refuses a database that lacks characters: the first message of a provider that has one could not be written.
async fn check_encoding(tx: &Tx<'_>) -> Result<(), Fault> {
    let found: Option<String> = value(tx, ENCODING, []).await?;
    let found = found.unwrap_or_default();
    if ENCODINGS.contains(&found.as_str()) {
        return Ok(());
    }
    let server = tx.engine.shown.clone();
    Err(Fault::Known(ManifestError::Encoding { server, found }))
}

/// Brings the database to the newest schema.
pub(super) async fn migrate(tx: &Tx<'_>) -> Result<(), Fault> {
    tx.batch(PATIENCE).await?;
    // Once without waiting: a move that is under way has the lock nearly all the time.
    standing(tx).await?;
    execute(tx, LOCK, []).await?;
    bring_up(tx, standing(tx).await?).await
}

/// Brings a database that stands like this to the newest schema, under the lock.
pub(super) async fn bring_up(tx: &Tx<'_>, standing: Standing) -> Result<(), Fault> {
    let done = match standing {
        Standing::Current => return Ok(()),
        Standing::Older(found) => found,
        Standing::Empty => 0,
    };
    if done == 0 {
        tx.batch(BEGIN).await?;
    }
    for (version, migration) in (1_u32..).zip(MIGRATIONS) {
        if version > done {
            tx.batch(migration).await?;
            tx.batch(&format!(
                "INSERT INTO reelvault_schema (version, at)
                VALUES ({version}, FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint)"
            ))
            .await?;
        }
    }
    Ok(())
}
