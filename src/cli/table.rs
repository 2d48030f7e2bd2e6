//! Tables for people: columns as wide as their widest cell, nothing else.

use std::fmt;

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Whether there is nothing but headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row, one cell a heading.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |(column, heading): (usize, &&str)| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(heading.len())
        };
        let widths: Vec<usize> = self.headings.iter().enumerate().map(width).collect();
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|heading| heading.to_uppercase())
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["task", "state"]);
        table.row(vec!["a".to_owned(), "archived".to_owned()]);
        table.row(vec!["long-name".to_owned(), "due".to_owned()]);
        assert_eq!(
            table.to_string(),
            "TASK       STATE\na          archived\nlong-name  due\n"
        );
    }
}
