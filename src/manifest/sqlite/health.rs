//! Whether anything can be written at all.

use super::Fault;
use super::Tx;
use super::execute;
use super::value;

const VERSION: &str = "-- manifest::try_write
    PRAGMA user_version";

/// Writes the database's first page as it is, which has to reach the disk like any other write.
pub(in crate::manifest) fn try_write(tx: &Tx<'_>) -> Result<(), Fault> {
    let version: Option<i64> = value(tx.db, VERSION, [])?;
    // A pragma takes no parameters; a number is a number.
    let write = format!("PRAGMA user_version = {}", version.unwrap_or_default());
    execute(tx.db, &write, []).map(drop)
}
