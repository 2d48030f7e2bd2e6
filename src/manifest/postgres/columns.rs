//! How Postgres gives its columns.

use rusqlite::types::FromSql;
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use super::Fault;
use crate::manifest::columns;
use crate::manifest::columns::EngineRow;
use crate::manifest::columns::Misread;

/// One row that was read.
pub(super) type Columns<'r> = columns::Columns<'r, Row>;

impl EngineRow for Row {
    type Fault = Fault;

    fn cell<T: FromSql + FromSqlOwned>(&self, column: &'static str) -> Result<T, Misread<Fault>> {
        self.try_get(column).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            match cause {
                Some(cause) => Misread::Bad(cause),
                None => Misread::Engine(error.into()),
            }
        })
    }
}
