//! How SQLite gives its columns.

use rusqlite::Row;
use rusqlite::types::FromSql;
use tokio_postgres::types::FromSqlOwned;

use super::Fault;
use crate::manifest::columns;
use crate::manifest::columns::EngineRow;
use crate::manifest::columns::Misread;

/// One row that was read.
pub(super) type Columns<'r, 's> = columns::Columns<'r, Row<'s>>;

impl EngineRow for Row<'_> {
    type Fault = Fault;

    fn cell<T: FromSql + FromSqlOwned>(&self, column: &'static str) -> Result<T, Misread<Fault>> {
        self.get(column).map_err(|error| {
            if let rusqlite::Error::InvalidColumnType(_, _, found) = &error {
                Misread::Bad(format!("a value of type {found}"))
            } else if let rusqlite::Error::FromSqlConversionFailure(_, _, cause) = &error {
                Misread::Bad(cause.to_string())
            } else {
                Misread::Engine(error.into())
            }
        })
    }
}
