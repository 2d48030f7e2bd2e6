//! A server as one end of a move.
//!
//! The copy is made with a mark in it, which is the last to go: as long as it is there, nobody takes the database for a
//! manifest. Each page is a transaction, and the next one is open already when it has ended. All of them have the lock
//! that makers of manifests take, and go on only under the token that this try was given: in the moment between two,
//! another try may have begun. Whoever else takes the lock there is waited for: a daemon that looks what is there, or a
//! move to another schema of the database.

use bytes::Bytes;
use deadpool_postgres::Client;
use deadpool_postgres::Object;
use futures::SinkExt as _;
use tokio_postgres::Column;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::Fault;
use super::Kind;
use super::Postgres;
use super::Time;
use super::Tx;
use super::execute;
use super::machines;
use super::migrate;
use super::migrate::Standing;
use super::statement::Named;
use super::statement::ToParam as _;
use super::statement::named_params;
use super::transact;
use super::value;
use crate::manifest::Access;
use crate::manifest::Config;
use crate::manifest::ManifestError;
use crate::manifest::moving::Cell;
use crate::manifest::moving::MoveError;
use crate::manifest::moving::Row;
use crate::manifest::moving::TABLES;
use crate::manifest::moving::Table;

const VERB: &str = "migrate";

/// One snapshot for all that is read.
const BEGIN_SOURCE: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

/// The bounds of verbs are not for this: a move takes as long as there are rows. Another's lock is waited for no longer.
const PATIENCE_OF_SOURCE: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

/// What a server that dies loses of the last pages is copied again, so none of them waits for its disk.
const PATIENCE_OF_TARGET: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s';
    SET LOCAL synchronous_commit = off";

/// What a machine that vanished had locked is free in less than a minute. Nothing else ends a COPY whose rows do not
/// come any more: the server looks at its bounds between rows. Over a socket of its own it takes no notice of these.
const SILENCE_OF_CLIENT: &str =
    "SET LOCAL tcp_keepalives_idle = 20; SET LOCAL tcp_keepalives_interval = 5;
    SET LOCAL tcp_user_timeout = '40s'";

/// The last of all waits, and the disk has everything before it by then.
const FINISH: &str = "SET LOCAL synchronous_commit TO DEFAULT; DROP TABLE reelvault_moving; COMMIT";

const MARK: &str =
    "CREATE TABLE reelvault_moving (source TEXT NOT NULL, token BIGINT NOT NULL DEFAULT 0)";

const NEXT_TOKEN: &str = "UPDATE reelvault_moving SET token = token + 1 RETURNING token";

/// The parts of a key by their names as parameters. No key has more.
const KEY_PARAMS: [&str; 2] = [":first", ":second"];

/// A manifest that is moved, or that is being made.
pub(in crate::manifest) struct Server {
    engine: Postgres,
    /// With an open transaction. It is closed with this, and what was not committed never was.
    client: Option<Client>,
    /// That of this try. 0 for a source.
    token: i64,
}

impl Server {
    /// The manifest as it is now. Nobody writes to it until this is dropped.
    pub(in crate::manifest) async fn source(config: &Config) -> Result<Self, MoveError> {
        let mut server = Self::of(config)?;
        server.engine.check_readable().await?;
        // Before the tables are locked too: daemons at work are not held up by somebody who is refused.
        let seen = transact!(&server.engine, "machines", Kind::Snapshot, |tx| {
            machines::machines(tx).await
        });
        server.check_nobody_lives(seen?)?;
        server.begin(BEGIN_SOURCE, PATIENCE_OF_SOURCE).await?;
        let tables: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let lock = format!("LOCK TABLE machines, {} IN SHARE MODE", tables.join(", "));
        let locked = server.tx()?.batch(&lock).await;
        locked.map_err(|fault| server.named(fault))?;
        let seen = machines::machines(&server.tx()?).await;
        server.check_nobody_lives(seen.map_err(|fault| server.named(fault))?)?;
        Ok(server)
    }

    /// Whether a copy of the manifest named `from` may be made there.
    pub(in crate::manifest) async fn check_target(
        config: &Config,
        from: &str,
    ) -> Result<(), MoveError> {
        let mut server = Self::of(config)?;
        server.begin("BEGIN READ ONLY", PATIENCE_OF_TARGET).await?;
        let checked = server.check_free(from).await;
        // The lock is free before anybody hears of it.
        server.run("ROLLBACK").await?;
        server.leave().await;
        checked.map(|_| ())
    }

    /// The copy of the manifest named `from`, as an earlier try left it.
    pub(in crate::manifest) async fn target(
        config: &Config,
        from: &str,
    ) -> Result<Self, MoveError> {
        let mut server = Self::of(config)?;
        server.begin("BEGIN", PATIENCE_OF_TARGET).await?;
        let is_marked = server.check_free(from).await?;
        let token = server.mark(from, is_marked).await;
        server.token = token.map_err(|fault| server.named(fault))?;
        server.commit().await?;
        Ok(server)
    }

    pub(in crate::manifest) async fn columns(
        &mut self,
        table: &Table,
    ) -> Result<Vec<String>, ManifestError> {
        let sql = "SELECT attname::text AS name FROM pg_attribute
            WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped";
        let params = named_params! { ":table": *table.name };
        let rows = self.tx()?.rows(sql, &params).await;
        let rows = rows.map_err(|fault| self.named(fault))?;
        let name = |row: &tokio_postgres::Row| row.try_get(0).map_err(Fault::from);
        let names = rows.iter().map(name).collect::<Result<_, Fault>>();
        names.map_err(|fault| self.named(fault))
    }

    pub(in crate::manifest) async fn count(&mut self, table: &Table) -> Result<i64, ManifestError> {
        let sql = format!("SELECT COUNT(*) FROM {}", table.name);
        let count: Result<Option<i64>, Fault> = value(&self.tx()?, &sql, []).await;
        Ok(count
            .map_err(|fault| self.named(fault))?
            .unwrap_or_default())
    }

    pub(in crate::manifest) async fn last_id(
        &mut self,
        table: &Table,
    ) -> Result<i64, ManifestError> {
        let sql = "SELECT pg_sequence_last_value(pg_get_serial_sequence(:table, 'id')::regclass)";
        let params = named_params! { ":table": *table.name };
        let last: Result<Option<Option<i64>>, Fault> = value(&self.tx()?, sql, params).await;
        let last = last.map_err(|fault| self.named(fault))?;
        Ok(last.flatten().unwrap_or_default())
    }

    pub(in crate::manifest) async fn skip_ids(
        &mut self,
        table: &Table,
        last: i64,
    ) -> Result<(), ManifestError> {
        // A sequence begins at 1, and cannot be set to what it never gave.
        if last < 1 {
            return Ok(());
        }
        let sql = "SELECT setval(pg_get_serial_sequence(:table, 'id')::regclass, :last)";
        let params = named_params! { ":table": *table.name, ":last": last };
        let set = execute(&self.tx()?, sql, params).await;
        set.map_err(|fault| self.named(fault)).map(|_| ())
    }

    pub(in crate::manifest) async fn page(
        &mut self,
        table: &Table,
        columns: &[String],
        after: &[i64],
    ) -> Result<Vec<Row>, ManifestError> {
        let key = table.key.join(", ");
        let params: Vec<Named> = KEY_PARAMS
            .iter()
            .zip(after)
            .map(|(name, part)| (*name, part.to_param()))
            .collect();
        let places: Vec<&str> = params.iter().map(|(name, _)| *name).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE ({key}) > ({}) ORDER BY {key} LIMIT {}",
            columns.join(", "),
            table.name,
            places.join(", "),
            table.page
        );
        let rows = self.tx()?.rows(&sql, &params).await;
        let rows = rows.map_err(|fault| self.named(fault))?;
        let read = |row: &tokio_postgres::Row| {
            let places = 0..columns.len();
            places.map(|place| cell(row, place)).collect()
        };
        let page: Result<Vec<Row>, Fault> = rows.iter().map(read).collect();
        page.map_err(|fault| self.named(fault))
    }

    pub(in crate::manifest) async fn put(
        &mut self,
        table: &Table,
        columns: &[String],
        rows: Vec<Row>,
    ) -> Result<(), MoveError> {
        let (name, columns) = (table.name, columns.join(", "));
        let sql = format!("COPY {name} ({columns}) FROM STDIN");
        let text = rows.iter().fold(Vec::new(), |mut text, row| {
            write_row(&mut text, row);
            text
        });
        let client = self.client.as_ref().ok_or(ManifestError::Closed)?;
        let copied = async {
            let mut sink = Box::pin(client.copy_in::<_, Bytes>(&sql).await?);
            sink.send(Bytes::from(text)).await?;
            sink.as_mut().finish().await
        };
        let copied = copied.await.map_err(|error| self.named(error.into()))?;
        let sent = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        if copied != sent {
            let what = format!("of {sent} rows of {name} the server took {copied}");
            return Err(self.named(Fault::of_ours(what)).into());
        }
        self.commit().await
    }

    pub(in crate::manifest) async fn clear(&mut self) -> Result<(), MoveError> {
        let tables: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let clear = format!("TRUNCATE counts, {} RESTART IDENTITY", tables.join(", "));
        self.run(&clear).await?;
        self.commit().await
    }

    /// Takes the mark away and makes all of it durable.
    pub(in crate::manifest) async fn finish(mut self) -> Result<(), ManifestError> {
        self.run(FINISH).await?;
        self.leave().await;
        Ok(())
    }

    pub(in crate::manifest) async fn leave(mut self) {
        self.hang_up();
        self.engine.close().await;
    }

    fn of(config: &Config) -> Result<Self, ManifestError> {
        let config = Config {
            notify: false,
            ..config.clone()
        };
        let password = config.read_password()?;
        let engine = Postgres::new(&config, password.as_ref(), Access::Writer, Time::Server)?;
        Ok(Self {
            engine,
            client: None,
            token: 0,
        })
    }

    async fn begin(&mut self, begin: &str, patience: &str) -> Result<(), ManifestError> {
        if self.client.is_none() {
            let client = self.engine.pool.get().await;
            self.client = Some(client.map_err(|error| self.named(error.into()))?);
        }
        self.run(&format!("{begin}; {patience}; {SILENCE_OF_CLIENT}"))
            .await
    }

    /// Ends the transaction and begins the next one, in which nobody else writes to the copy. All at once, so that few
    /// come in between.
    async fn commit(&mut self) -> Result<(), MoveError> {
        let lock = migrate::LOCK;
        let next = format!("COMMIT; BEGIN; {PATIENCE_OF_TARGET}; {SILENCE_OF_CLIENT}; {lock}");
        match self.tx()?.batch(&next).await {
            Err(fault) if fault.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(self.busy());
            }
            begun => begun.map_err(|fault| self.named(fault))?,
        }
        let mark = migrate::mark(&self.tx()?).await;
        let mark = mark.map_err(|fault| self.named(fault))?;
        match mark {
            Some(mark) if mark.token == self.token => Ok(()),
            Some(_) | None => Err(self.busy()),
        }
    }

    async fn run(&mut self, sql: &str) -> Result<(), ManifestError> {
        let done = self.tx()?.batch(sql).await;
        done.map_err(|fault| self.named(fault))
    }

    fn busy(&self) -> MoveError {
        MoveError::Busy {
            target: self.engine.shown.clone(),
        }
    }

    /// Whether the mark of an earlier try is there already. What else is there is refused, and others are kept from
    /// making or migrating a manifest here until the transaction ends.
    async fn check_free(&self, from: &str) -> Result<bool, MoveError> {
        let locked = value(&self.tx()?, migrate::TRY_LOCK, []).await;
        if locked.map_err(|fault| self.named(fault))? != Some(true) {
            return Err(self.busy());
        }
        let target = self.engine.shown.clone();
        let standing = migrate::standing(&self.tx()?).await;
        match standing {
            Ok(Standing::Empty) => Ok(false),
            Ok(Standing::Older(_) | Standing::Current) => Err(MoveError::Occupied { target }),
            Err(Fault::Known(ManifestError::Unfinished { from: it, .. })) if it == from => Ok(true),
            Err(Fault::Known(ManifestError::Unfinished { from: it, .. })) => {
                Err(MoveError::OfAnother {
                    target,
                    source_name: it,
                })
            }
            Err(fault) => Err(self.named(fault).into()),
        }
    }

    /// Makes the tables, or brings up those of an earlier try. Gives the token of this one.
    async fn mark(&self, from: &str, is_marked: bool) -> Result<i64, Fault> {
        let tx = self.tx()?;
        if !is_marked {
            tx.batch(MARK).await?;
            let params = named_params! { ":from": *from };
            execute(&tx, "INSERT INTO reelvault_moving VALUES (:from)", params).await?;
        }
        migrate::bring_up(&tx, migrate::standing_of_tables(&tx).await?).await?;
        Ok(value(&tx, NEXT_TOKEN, []).await?.unwrap_or_default())
    }

    fn check_nobody_lives(
        &self,
        machines: Vec<crate::manifest::row::machine::MachineRecord>,
    ) -> Result<(), MoveError> {
        let living = machines.into_iter().filter(|machine| machine.is_living);
        let names: Vec<String> = living.map(|machine| machine.name).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(MoveError::Living {
            server: self.engine.shown.clone(),
            names,
        })
    }

    fn tx(&self) -> Result<Tx<'_>, ManifestError> {
        Ok(Tx {
            client: self.client.as_ref().ok_or(ManifestError::Closed)?,
            engine: &self.engine,
        })
    }

    fn named(&self, fault: Fault) -> ManifestError {
        fault.named(VERB, &self.engine)
    }

    /// Closes the connection, and with it whatever is open on it.
    fn hang_up(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.hang_up();
    }
}

fn cell(row: &tokio_postgres::Row, place: usize) -> Result<Cell, Fault> {
    let kind = row.columns().get(place).map(Column::type_);
    Ok(match kind {
        Some(&Type::INT8) => row
            .try_get::<_, Option<i64>>(place)?
            .map_or(Cell::Null, Cell::Integer),
        Some(&Type::BOOL) => row
            .try_get::<_, Option<bool>>(place)?
            .map_or(Cell::Null, |is_true| Cell::Integer(i64::from(is_true))),
        Some(&Type::TEXT) => row
            .try_get::<_, Option<String>>(place)?
            .map_or(Cell::Null, Cell::Text),
        Some(&Type::BYTEA) => row
            .try_get::<_, Option<Vec<u8>>>(place)?
            .map_or(Cell::Null, Cell::Bytes),
        other => {
            return Err(Fault::of_ours(format!(
                "a column of type {other:?}, which no table has"
            )));
        }
    })
}

/// Writes a row in the form that COPY reads: tabs between the cells, backslashes before what would be read otherwise.
fn write_row(text: &mut Vec<u8>, row: &[Cell]) {
    for (place, cell) in row.iter().enumerate() {
        if place > 0 {
            text.push(b'\t');
        }
        match cell {
            Cell::Null => text.extend(b"\\N"),
            Cell::Integer(number) => text.extend(number.to_string().as_bytes()),
            Cell::Text(content) => content.bytes().for_each(|byte| match byte {
                b'\\' => text.extend(b"\\\\"),
                b'\n' => text.extend(b"\\n"),
                b'\r' => text.extend(b"\\r"),
                b'\t' => text.extend(b"\\t"),
                other => text.push(other),
            }),
            Cell::Bytes(bytes) => {
                text.extend(b"\\\\x");
                for byte in bytes {
                    text.extend([hexadecimal(byte >> 4), hexadecimal(byte & 0xf)]);
                }
            }
        }
    }
    text.push(b'\n');
}

fn hexadecimal(digit: u8) -> u8 {
    if digit < 10 {
        b'0' + digit
    } else {
        b'a' + digit - 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_so_that_nothing_in_it_ends_it() {
        let check = |cells: &[Cell], expected: &str| {
            let mut text = Vec::new();
            write_row(&mut text, cells);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        };
        let text = |text: &str| Cell::Text(text.to_owned());
        check(&[Cell::Null, Cell::Integer(-7)], "\\N\t-7\n");
        check(&[text("a\tb\nc\rd\\.")], "a\\tb\\nc\\rd\\\\.\n");
        check(&[text("\\N"), text("")], "\\\\N\t\n");
        check(&[Cell::Bytes(vec![0, 255, 0x5c])], "\\\\x00ff5c\n");
    }
}
