//! One end of a move, on either engine.

use super::MoveError;
use super::Row;
use super::Table;
use crate::manifest::Config;
use crate::manifest::ManifestError;
use crate::manifest::database_path;
use crate::manifest::postgres::moving::Server;
use crate::manifest::sqlite::moving::File;

/// A manifest that nobody else works on, or one that is being made.
pub(super) enum End {
    File(File),
    Server(Box<Server>),
}

macro_rules! at_end {
    ($end:expr, |$it:ident| $work:expr) => {
        match $end {
            End::File($it) => $work.await,
            End::Server($it) => $work.await,
        }
    };
}

impl End {
    /// The manifest that is moved. It is read as it is now, and nobody writes to it until this is dropped.
    pub(super) async fn source(config: &Config) -> Result<Self, MoveError> {
        Ok(if config.is_shared() {
            End::Server(Box::new(Server::source(config).await?))
        } else {
            End::File(File::source(database_path(&config.url)?).await?)
        })
    }

    /// Whether a copy of the manifest named `from` may be made there.
    pub(super) async fn check_target(config: &Config, from: &str) -> Result<(), MoveError> {
        if config.is_shared() {
            Server::check_target(config, from).await
        } else {
            File::check_target(&database_path(&config.url)?, from)
        }
    }

    /// The copy, which has all tables, and the rows of an earlier try.
    pub(super) async fn target(config: &Config, from: &str) -> Result<Self, MoveError> {
        Ok(if config.is_shared() {
            End::Server(Box::new(Server::target(config, from).await?))
        } else {
            let path = database_path(&config.url)?;
            End::File(File::target(path, from.to_owned()).await?)
        })
    }

    /// The names of a table's columns, sorted.
    pub(super) async fn columns(&mut self, table: &Table) -> Result<Vec<String>, ManifestError> {
        let mut columns = at_end!(self, |it| it.columns(table))?;
        columns.sort_unstable();
        Ok(columns)
    }

    /// How many rows a table has.
    pub(super) async fn count(&mut self, table: &Table) -> Result<u64, ManifestError> {
        let rows = at_end!(self, |it| it.count(table))?;
        Ok(u64::try_from(rows).unwrap_or_default())
    }

    /// The last ID that was given in a table; 0 where none was.
    pub(super) async fn last_id(&mut self, table: &Table) -> Result<i64, ManifestError> {
        at_end!(self, |it| it.last_id(table))
    }

    /// Gives no ID of a table again up to `last`.
    pub(super) async fn skip_ids(&mut self, table: &Table, last: i64) -> Result<(), ManifestError> {
        at_end!(self, |it| it.skip_ids(table, last))
    }

    /// The rows that come after a key, by their keys, at most a page.
    pub(super) async fn page(
        &mut self,
        table: &Table,
        columns: &[String],
        after: &[i64],
    ) -> Result<Vec<Row>, ManifestError> {
        at_end!(self, |it| it.page(table, columns, after))
    }

    /// Writes rows, all or none. They outlive whatever becomes of this process.
    pub(super) async fn put(
        &mut self,
        table: &Table,
        columns: &[String],
        rows: Vec<Row>,
    ) -> Result<(), MoveError> {
        at_end!(self, |it| it.put(table, columns, rows))
    }

    /// Throws away every row.
    pub(super) async fn clear(&mut self) -> Result<(), MoveError> {
        at_end!(self, |it| it.clear())
    }

    /// Makes the copy a manifest like any other, durably.
    pub(super) async fn finish(self) -> Result<(), ManifestError> {
        at_end!(self, |it| it.finish())
    }

    /// Lets others work on it again.
    pub(super) async fn leave(self) {
        at_end!(self, |it| it.leave());
    }
}
