//! Rows on their way: what either engine can hold in a column, and the digest of many rows in their order.

use sha2::Digest as _;
use sha2::Sha256;

/// What a column holds. Where one engine has a boolean, it is 0 or 1 here as it is on the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manifest) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// The cells of a row in the order of its columns.
pub(in crate::manifest) type Row = Vec<Cell>;

/// How many rows passed, and what they were.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    rows: u64,
    digest: Sha256,
}

impl Tally {
    /// Counts rows in. Tells how many.
    pub(super) fn add_all(&mut self, rows: &[Row]) -> u64 {
        for cell in rows.iter().flatten() {
            // Kind and length go before the content: no two rows look alike.
            match cell {
                Cell::Null => self.digest.update([0]),
                Cell::Integer(number) => {
                    self.digest.update([1]);
                    self.digest.update(number.to_be_bytes());
                }
                Cell::Text(text) => self.add_content(2, text.as_bytes()),
                Cell::Bytes(bytes) => self.add_content(3, bytes),
            }
        }
        let rows = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        self.rows += rows;
        rows
    }

    /// How many rows passed.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    fn add_content(&mut self, kind: u8, content: &[u8]) {
        self.digest.update([kind]);
        self.digest.update(content.len().to_be_bytes());
        self.digest.update(content);
    }
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.digest.clone().finalize() == other.digest.clone().finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(rows: &[Row]) -> Tally {
        let mut tally = Tally::default();
        tally.add_all(rows);
        tally
    }

    #[test]
    fn rows_that_differ_anywhere_have_another_digest() {
        let text = |text: &str| Cell::Text(text.to_owned());
        let row = vec![Cell::Integer(1), text("ab"), Cell::Null];
        let one = || tally(std::slice::from_ref(&row));
        assert!(one() == one());
        let others = [
            vec![Cell::Integer(2), text("ab"), Cell::Null],
            vec![Cell::Integer(1), text("a"), text("b")],
            vec![Cell::Integer(1), text("ab"), text("")],
            vec![Cell::Integer(1), Cell::Bytes(b"ab".to_vec()), Cell::Null],
            vec![Cell::Integer(1), Cell::Null, text("ab")],
        ];
        for other in others {
            assert!(one() != tally(std::slice::from_ref(&other)), "{other:?}");
        }
        assert!(one() != tally(&[row.clone(), row.clone()]));
    }
}
