//! Rows on their way: what either engine can hold in a column.

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
