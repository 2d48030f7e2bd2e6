//! Tables for people: columns as wide as their widest cell, nothing else.

/// Rows under headings, written a page at a time: however many there are, no more than a page is held.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Option<Vec<String>>,
    /// Columns keep the width that earlier pages needed.
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            widths: headings.iter().map(|heading| heading.len()).collect(),
            headings: Some(headings.iter().map(|it| it.to_uppercase()).collect()),
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell a heading.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there never was anything but headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.headings.is_some() && self.rows.is_empty()
    }

    /// The rows since the last page, under headings if they are the first.
    pub(crate) fn page(&mut self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        for row in &self.rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut page = String::new();
        for row in self.headings.take().into_iter().chain(self.rows.drain(..)) {
            let cells = row.iter().zip(&self.widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            page.push_str(line.join("  ").trim_end());
            page.push('\n');
        }
        page
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
        assert!(!table.is_empty());
        assert_eq!(
            table.page(),
            "TASK       STATE\na          archived\nlong-name  due\n"
        );
        table.row(vec!["b".to_owned(), "due".to_owned()]);
        table.row(vec!["longer-name".to_owned(), "due".to_owned()]);
        assert_eq!(table.page(), "b            due\nlonger-name  due\n");
        assert_eq!((table.page(), table.is_empty()), (String::new(), false));
    }
}
