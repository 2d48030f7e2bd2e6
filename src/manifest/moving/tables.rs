//! What is moved: every table that says something of tasks and their copies, in an order in which rows may refer.

use super::Cell;
use super::Row;
use crate::manifest::ManifestError;

/// A table. Its columns are asked of the engines, so that a new one is moved as well.
#[derive(Clone, Copy, Debug)]
pub(in crate::manifest) struct Table {
    pub(in crate::manifest) name: &'static str,
    /// The integers that tell its rows apart, and their order on both engines.
    pub(in crate::manifest) key: &'static [&'static str],
    /// Whether the engine gives the IDs.
    pub(in crate::manifest) has_ids: bool,
    /// Rows that are in memory at once.
    pub(in crate::manifest) page: usize,
}

/// Of rows that are a few KiB at most.
const PAGE: usize = 2_000;

/// Of rows with an answer of up to 256 KiB.
const PAGE_OF_ANSWERS: usize = 64;

const fn with_ids(name: &'static str) -> Table {
    Table {
        name,
        key: &["id"],
        has_ids: true,
        page: PAGE,
    }
}

const fn keyed(name: &'static str, key: &'static [&'static str], page: usize) -> Table {
    Table {
        name,
        key,
        has_ids: false,
        page,
    }
}

/// All that is moved. The machines that work on a manifest are not, since they announce themselves where they work, nor
/// the counts, which each engine keeps by itself.
pub(in crate::manifest) const TABLES: [Table; 11] = [
    with_ids("tasks"),
    with_ids("assets"),
    with_ids("objects"),
    keyed("parts", &["object", "number"], PAGE),
    with_ids("orphans"),
    with_ids("events"),
    with_ids("deliveries"),
    with_ids("endpoints"),
    keyed("answers", &["task"], PAGE_OF_ANSWERS),
    with_ids("discoveries"),
    keyed("pulse", &["id"], PAGE),
];

/// Who claimed a row, and until when: nobody does in a copy. The token stays, so that no late write fits.
const LEASE: [&str; 2] = ["lease_owner", "lease_expires_at"];

impl Table {
    /// A key before that of every row.
    pub(super) fn before_all(&self) -> Vec<i64> {
        vec![i64::MIN; self.key.len()]
    }

    /// The key of a row.
    pub(super) fn key_of(&self, columns: &[String], row: &Row) -> Result<Vec<i64>, ManifestError> {
        let part = |name: &&'static str| {
            let place = columns.iter().position(|column| column == name);
            match place.and_then(|place| row.get(place)) {
                Some(Cell::Integer(number)) => Ok(*number),
                other => Err(ManifestError::Inconsistent {
                    table: self.name,
                    column: name,
                    row: 0,
                    value: format!("{other:?}"),
                }),
            }
        };
        self.key.iter().map(part).collect()
    }
}

/// Makes a row of the source ready: its lease is over, and texts have no zero bytes, of which a server takes none.
pub(super) fn ready(columns: &[String], row: &mut Row) {
    for (name, cell) in columns.iter().zip(row) {
        if LEASE.contains(&name.as_str()) {
            *cell = Cell::Null;
        }
        if let Cell::Text(text) = cell
            && text.contains('\0')
        {
            *text = text.replace('\0', "\u{fffd}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_moved_as_it_is_but_for_its_lease_and_for_zero_bytes() {
        let columns =
            ["error", "lease_expires_at", "lease_owner", "lease_token"].map(str::to_owned);
        let text = |text: &str| Cell::Text(text.to_owned());
        let mut row = vec![
            text("a\0b"),
            Cell::Integer(7),
            text("one"),
            Cell::Integer(3),
        ];
        ready(&columns, &mut row);
        let expected = vec![text("a\u{fffd}b"), Cell::Null, Cell::Null, Cell::Integer(3)];
        assert_eq!(row, expected);
    }
}
