//! The manifest on Postgres: for several machines, each of which claims what nobody else has.
//!
//! ```text
//!   verb --> connection out of the pool: BEGIN, statements, COMMIT --> answer
//!                 again when the server ended it for another's sake
//! ```
//!
//! The clock of leases and due times is the server's, so that machines whose clocks differ agree on who holds what.

pub(super) mod alarms;
pub(super) mod answers;
pub(super) mod assets;
pub(super) mod claims;
mod columns;
mod connect;
pub(super) mod counts;
pub(super) mod deliveries;
pub(super) mod discoveries;
pub(super) mod elsewhere;
pub(super) mod events;
pub(super) mod health;
pub(super) mod hints;
pub(super) mod holds;
pub(super) mod machines;
mod migrate;
pub(super) mod moving;
pub(super) mod objects;
pub(super) mod reads;
pub(super) mod rebuild;
mod statement;
pub(super) mod tasks;
pub(super) mod uploads;
pub(super) mod waiting;
mod wakes;

#[cfg(test)]
#[path = "../../tests/it/postgres/server.rs"]
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use deadpool_postgres::Client;
use deadpool_postgres::Object;
use deadpool_postgres::Pool;
use deadpool_postgres::PoolError;
use deadpool_postgres::TimeoutType;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSqlOwned;

use self::columns::Columns;
use self::connect::Way;
use self::migrate::Standing;
use self::statement::Named;
use self::wakes::Wakes;
use crate::clock::Clock;
use crate::manifest::Access;
use crate::manifest::Config;
use crate::manifest::ManifestError;
use crate::secret::Secret;
use crate::units::Span;

/// Whether a URL names a server and can be understood.
pub(super) fn is_url(url: &str) -> bool {
    connect::server_of(url).is_some()
}

/// Whether a password stands in a URL.
pub(super) fn has_password(url: &str) -> bool {
    connect::server_of(url).is_some_and(|server| server.get_password().is_some())
}

/// The parameter of a URL that is not taken, and what is taken in its place.
pub(super) fn wrong_parameter(url: &str) -> Option<(String, String)> {
    connect::wrong_parameter(url)
}

/// A URL as it may be shown: without a password.
pub(super) fn shown(url: &str) -> String {
    connect::shown(url)
}

/// How long a verb may take, from its first word to the server to the last from it. Longer than the server's own bounds,
/// which say more.
const VERB_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a migration may take: it may have to write every row anew.
const MIGRATION_TIMEOUT: Duration = Duration::from_hours(1);

/// How long a verb is waited for.
pub(super) fn patience(verb: &str) -> Duration {
    if verb == "migrate" {
        MIGRATION_TIMEOUT
    } else {
        VERB_TIMEOUT
    }
}

/// How often a verb is begun again that the server ended for the sake of another.
const TRIES: u32 = 8;

/// The wait before a verb is begun again, times the tries so far.
const TRY_AGAIN: Duration = Duration::from_millis(7);

/// An open manifest on a server.
pub(super) struct Postgres {
    pool: Pool,
    access: Access,
    /// The URL without its password.
    shown: String,
    time: Time,
    lease: Span,
    owner: String,
    /// Whether the server may be another one at each transaction, which knows no prepared statements of ours.
    is_pooled: bool,
    wakes: Wakes,
    /// How many verbs were committed; whoever waits for news listens here.
    commits: watch::Sender<u64>,
}

/// Whose clock says what is due.
#[derive(Clone, Debug)]
pub(super) enum Time {
    /// The server's.
    Server,
    /// A test's.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests that own the time"))]
    Handed(Clock),
}

/// What a verb's statements are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A transaction that writes.
    Write,
    /// One snapshot, read only.
    Snapshot,
}

impl Postgres {
    /// Opens the manifest, making and migrating it where the access allows that.
    pub(super) async fn open(
        config: &Config,
        password: Option<&Secret>,
        access: Access,
        time: Time,
    ) -> Result<Self, ManifestError> {
        let engine = Self::new(config, password, access, time)?;
        match access {
            Access::Reader => engine.check_readable().await?,
            Access::Writer | Access::Daemon => {
                transact!(&engine, "migrate", Kind::Write, |tx| migrate::migrate(tx)
                    .await)?;
            }
        }
        Ok(engine)
    }

    /// The way to the manifest. Nothing is sent yet.
    fn new(
        config: &Config,
        password: Option<&Secret>,
        access: Access,
        time: Time,
    ) -> Result<Self, ManifestError> {
        let way = Way::of(config, password)?;
        let pool = way.pool(config.connections)?;
        let (commits, _) = watch::channel(0);
        let is_wanted = config.notify && !config.pooler && access == Access::Daemon;
        let speaks = config.notify && !config.pooler;
        Ok(Self {
            wakes: Wakes::start(
                &way,
                &pool,
                is_wanted || (speaks && access == Access::Writer),
            ),
            pool,
            access,
            shown: way.shown,
            time,
            lease: config.lease,
            owner: format!("{}/{}", config.machine_name(), std::process::id()),
            is_pooled: config.pooler,
            commits,
        })
    }

    async fn check_readable(&self) -> Result<(), ManifestError> {
        let standing = transact!(self, "open", Kind::Snapshot, |tx| migrate::standing(tx)
            .await)?;
        match standing {
            Standing::Current => Ok(()),
            Standing::Empty => Err(ManifestError::Missing {
                path: self.shown.clone().into(),
            }),
            Standing::Older(found) => Err(ManifestError::Older {
                found,
                known: migrate::newest(),
            }),
        }
    }

    /// Whether a daemon could write there, or make a manifest: a server that takes no writes answers readers all the same.
    pub(super) async fn check_writable(
        config: &Config,
        password: Option<&Secret>,
    ) -> Result<(), ManifestError> {
        let engine = Self::new(config, password, Access::Reader, Time::Server)?;
        let checked = transact!(&engine, "check", Kind::Snapshot, |tx| {
            health::check_writable(tx).await
        });
        engine.close().await;
        checked
    }

    /// Closes every connection. Verbs fail from here on.
    pub(super) async fn close(&self) {
        self.wakes.stop();
        self.pool.close();
        // What is under way ends by itself, and its connection with it.
        tokio::task::yield_now().await;
    }

    /// How many verbs were committed here.
    pub(super) fn commits(&self) -> u64 {
        *self.commits.borrow()
    }

    /// Changes with every verb that is committed here.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Changes when there may be work that another machine made.
    pub(super) fn heard(&self) -> watch::Receiver<u64> {
        self.wakes.heard()
    }

    /// A connection of its own for one verb.
    pub(super) async fn hold(&self, kind: Kind) -> Result<Held<'_>, Fault> {
        if kind == Kind::Write && self.access == Access::Reader {
            return Err(Fault::Known(ManifestError::ReadOnly {
                path: self.shown.clone().into(),
            }));
        }
        let client = self.pool.get().await?;
        let begin = match kind {
            Kind::Write => "BEGIN",
            Kind::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        let mut held = Held {
            engine: self,
            client: Some(client),
        };
        let begun = held.client().batch_execute(begin).await;
        if let Err(error) = begun {
            held.discard();
            return Err(error.into());
        }
        Ok(held)
    }

    /// Whether a try of a verb was the last.
    pub(super) async fn judge<T>(
        &self,
        verb: &'static str,
        kind: Kind,
        tries: u32,
        tried: Result<Result<T, Fault>, tokio::time::error::Elapsed>,
    ) -> ControlFlow<Result<T, ManifestError>> {
        let fault = match tried {
            Ok(Ok(value)) => {
                if kind == Kind::Write {
                    self.commits
                        .send_modify(|count| *count = count.wrapping_add(1));
                    self.wakes.done(verb);
                }
                return ControlFlow::Break(Ok(value));
            }
            Ok(Err(fault)) => fault,
            Err(_) => Fault::Silent,
        };
        if tries < TRIES && fault.is_for_anothers_sake() {
            tokio::time::sleep(TRY_AGAIN * tries).await;
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Err(fault.named(verb, self)))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({}, {:?})", self.shown, self.access)
    }
}

/// Does a verb's work in a transaction of its own, anew when the server ended it for the sake of another.
///
/// A macro, since the work borrows the transaction and is done more than once.
macro_rules! transact {
    ($engine:expr, $verb:expr, $kind:expr, |$tx:ident| $work:expr) => {{
        let engine: &$crate::manifest::postgres::Postgres = $engine;
        let mut tries = 1;
        loop {
            let attempt = async {
                let held = engine.hold($kind).await?;
                let outcome = {
                    let $tx = &held.tx();
                    $work
                };
                held.end(outcome).await
            };
            let limit = $crate::manifest::postgres::patience($verb);
            let tried = tokio::time::timeout(limit, Box::pin(attempt)).await;
            match engine.judge($verb, $kind, tries, tried).await {
                std::ops::ControlFlow::Break(outcome) => break outcome,
                std::ops::ControlFlow::Continue(()) => tries += 1,
            }
        }
    }};
}
pub(super) use transact;

/// A connection with an open transaction.
///
/// One that is dropped in the middle, with the future of its verb, closes its connection: nobody else gets it with a
/// transaction on it, and the server undoes what was done.
pub(super) struct Held<'e> {
    engine: &'e Postgres,
    client: Option<Client>,
}

impl Held<'_> {
    /// What the verb works with.
    pub(super) fn tx(&self) -> Tx<'_> {
        Tx {
            client: self.client(),
            engine: self.engine,
        }
    }

    /// Makes what was done durable, or undoes it.
    pub(super) async fn end<T>(mut self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        let end = if outcome.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        let ended = self.client().batch_execute(end).await;
        match (&outcome, ended) {
            // Its prepared statements are of a schema that is gone.
            (Err(fault), _) if fault.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
                self.discard();
            }
            (_, Ok(())) => drop(self.client.take()),
            (Err(_), Err(_)) => self.discard(),
            (Ok(_), Err(error)) => {
                self.discard();
                return Err(error.into());
            }
        }
        outcome
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("taken at the end only")
    }

    fn discard(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// What a verb works with.
pub(super) struct Tx<'h> {
    client: &'h Client,
    engine: &'h Postgres,
}

impl Tx<'_> {
    /// Runs several statements without parameters.
    async fn batch(&self, sql: &str) -> Result<(), Fault> {
        Ok(self.client.batch_execute(sql).await?)
    }

    async fn rows(&self, sql: &str, params: &[Named]) -> Result<Vec<Row>, Fault> {
        let bound = self.engine.bind(sql, params)?;
        if self.engine.is_pooled {
            return Ok(self.client.query_typed(&bound.text, &bound.typed()).await?);
        }
        let statement = self.client.prepare_cached(&bound.text).await?;
        Ok(self.client.query(&statement, &bound.untyped()).await?)
    }

    async fn count(&self, sql: &str, params: &[Named]) -> Result<u64, Fault> {
        let bound = self.engine.bind(sql, params)?;
        if self.engine.is_pooled {
            return Ok(self
                .client
                .execute_typed(&bound.text, &bound.typed())
                .await?);
        }
        let statement = self.client.prepare_cached(&bound.text).await?;
        Ok(self.client.execute(&statement, &bound.untyped()).await?)
    }
}

/// Runs a statement and tells how many rows it touched.
async fn execute(tx: &Tx<'_>, sql: &str, params: impl AsRef<[Named]>) -> Result<usize, Fault> {
    let rows = tx.count(sql, params.as_ref()).await?;
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}

/// Every row that a statement gives, read as rows of `table`.
async fn all<T>(
    tx: &Tx<'_>,
    sql: &str,
    params: impl AsRef<[Named]>,
    table: &'static str,
    mut read: impl FnMut(&Columns<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let rows = tx.rows(sql, params.as_ref()).await?;
    let read = |row| read(&Columns::of(table, row)?);
    rows.iter().map(read).collect()
}

/// The one value that a statement gives, if it gives a row.
async fn value<T: FromSqlOwned>(
    tx: &Tx<'_>,
    sql: &str,
    params: impl AsRef<[Named]>,
) -> Result<Option<T>, Fault> {
    let rows = tx.rows(sql, params.as_ref()).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// A count as the engine has numbers.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Why a verb's work failed, before the verb's name is put to it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server's or the connection's trouble.
    Server(tokio_postgres::Error),
    /// No connection to be had.
    Pool(PoolError),
    /// The server did not answer in time.
    Silent,
    /// Something of ours that does not fit together.
    Ours(String),
    /// A verb's own answer.
    Known(ManifestError),
}

impl Fault {
    fn of_ours(what: String) -> Self {
        Fault::Ours(what)
    }

    /// What the client reported, if it did.
    fn error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Fault::Server(error) | Fault::Pool(PoolError::Backend(error)) => Some(error),
            Fault::Pool(_) | Fault::Silent | Fault::Ours(_) | Fault::Known(_) => None,
        }
    }

    fn code(&self) -> Option<&SqlState> {
        self.error().and_then(tokio_postgres::Error::code)
    }

    /// Whether another row has what must be one row's alone.
    fn is_duplicate(&self) -> bool {
        self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether the verb may simply be done again: nothing was written.
    fn is_for_anothers_sake(&self) -> bool {
        let again = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            // A statement prepared before another machine migrated.
            SqlState::FEATURE_NOT_SUPPORTED,
            // The mark of a move that ended between the look whether there is one and the look what it says.
            SqlState::UNDEFINED_TABLE,
        ];
        self.code().is_some_and(|code| again.contains(code))
    }

    /// The same as the verb's error: the one place where the server's codes are read.
    fn named(self, verb: &'static str, engine: &Postgres) -> ManifestError {
        let (what, shown) = (self.what(), engine.shown.as_str());
        let class = self
            .code()
            .map(|code| code.code().get(..2).unwrap_or_default().to_owned());
        let code = self.code().cloned();
        if let Some(error) = self.error().and_then(distrust) {
            return ManifestError::Untrusted {
                server: shown.to_owned(),
                what: error.to_string(),
            };
        }
        match (self, code, class.as_deref()) {
            (Fault::Known(error), _, _) => error,
            (_, Some(SqlState::READ_ONLY_SQL_TRANSACTION), _) => ManifestError::Standby {
                verb,
                server: shown.to_owned(),
            },
            // A server takes what is set at the start, and keeps what is prepared.
            (
                _,
                Some(
                    SqlState::PROTOCOL_VIOLATION
                    | SqlState::INVALID_SQL_STATEMENT_NAME
                    | SqlState::DUPLICATE_PSTATEMENT,
                ),
                _,
            ) if !engine.is_pooled => ManifestError::Pooler {
                server: shown.to_owned(),
                what,
            },
            (_, Some(SqlState::DISK_FULL), _) => ManifestError::Full { verb, what },
            // A schema that is not there is one that this role may not see.
            (
                _,
                Some(
                    SqlState::INSUFFICIENT_PRIVILEGE
                    | SqlState::INVALID_CATALOG_NAME
                    | SqlState::INVALID_SCHEMA_NAME,
                ),
                _,
            )
            | (_, _, Some("28")) => ManifestError::Denied {
                server: shown.to_owned(),
                what,
            },
            (_, Some(SqlState::IO_ERROR), _) | (_, _, Some("XX")) => {
                ManifestError::Broken { verb, what }
            }
            // What the row holds, not who else writes: a check, a missing value, a text or a number that cannot be.
            (_, Some(SqlState::CHECK_VIOLATION | SqlState::NOT_NULL_VIOLATION), _)
            | (_, _, Some("22" | "54")) => ManifestError::Unfit { verb, what },
            // Full house, shutdown, start-up, and a connection that is gone.
            (_, _, Some("53" | "57" | "08")) | (Fault::Silent, _, _) => away(verb, shown, what),
            (Fault::Pool(PoolError::Closed), _, _) => ManifestError::Closed,
            (Fault::Pool(PoolError::Backend(_) | PoolError::Timeout(_)), None, _) => {
                away(verb, shown, what)
            }
            (Fault::Server(error), None, _) if is_connection(&error) => away(verb, shown, what),
            (Fault::Server(_) | Fault::Pool(_) | Fault::Ours(_), _, _) => {
                ManifestError::Engine { verb, what }
            }
        }
    }

    fn what(&self) -> String {
        match self {
            Fault::Server(error) | Fault::Pool(PoolError::Backend(error)) => sentence(error),
            Fault::Pool(PoolError::Timeout(TimeoutType::Wait)) => {
                "every connection is in use: raise manifest.connections".to_owned()
            }
            Fault::Pool(PoolError::Timeout(TimeoutType::Create)) => {
                format!(
                    "no connection within {} s",
                    connect::CONNECT_TIMEOUT.as_secs()
                )
            }
            Fault::Pool(error) => error.to_string(),
            Fault::Silent => format!("no answer within {} s", VERB_TIMEOUT.as_secs()),
            Fault::Ours(what) => what.clone(),
            Fault::Known(error) => error.to_string(),
        }
    }
}

fn away(verb: &'static str, server: &str, what: String) -> ManifestError {
    ManifestError::Away {
        verb,
        server: server.to_owned(),
        what,
    }
}

fn is_connection(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || std::error::Error::source(error)
            .is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// What TLS has against the server, if that is what failed.
fn distrust(error: &tokio_postgres::Error) -> Option<&tokio_rustls::rustls::Error> {
    let cause = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    cause.get_ref()?.downcast_ref()
}

/// The error with its causes: the client's own words say only what it was doing.
fn sentence(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return said.message().to_owned();
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Fault::Server(error)
    }
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        Fault::Pool(error)
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        Fault::Known(error)
    }
}
