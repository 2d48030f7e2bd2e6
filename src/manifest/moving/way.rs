//! The way of rows from one end of a move to the other: pages that are copied, and pages of both that are compared.

use futures::TryFutureExt as _;

use super::MoveError;
use super::Step;
use super::end::End;
use super::tables::Table;
use super::tables::ready;

/// The first rows of a table, as far as they are known to be the same at both ends.
pub(super) struct Alike {
    table: &'static Table,
    columns: Vec<String>,
    rows: u64,
    /// The key of the last of them.
    last: Vec<i64>,
}

impl Alike {
    /// Nothing is known of the table yet.
    pub(super) fn none(table: &'static Table, columns: Vec<String>) -> Self {
        Self {
            table,
            columns,
            rows: 0,
            last: table.before_all(),
        }
    }

    /// How many they are.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }
}

/// Both ends, and how far the rows between them are.
pub(super) struct Way<P> {
    source: End,
    target: End,
    rows_all: u64,
    done: u64,
    progress: P,
}

impl<P: FnMut(Step) + Send> Way<P> {
    /// A way for so many rows.
    pub(super) fn new(source: End, target: End, rows_all: u64, progress: P) -> Self {
        Self {
            source,
            target,
            rows_all,
            done: 0,
            progress,
        }
    }

    /// Compares the rows that an earlier try has left at the target. They stay if they are those of the source.
    pub(super) async fn go_on(&mut self, tables: &mut [Alike], rows: u64) -> Result<(), MoveError> {
        let rows_all = self.rows_all;
        (self.progress)(Step::GoesOn { rows, rows_all });
        self.done = rows;
        for alike in tables.iter_mut() {
            if self.compare(alike).await? {
                continue;
            }
            let table = alike.table.name;
            (self.progress)(Step::Anew { table });
            self.target.clear().await?;
            self.done = 0;
            for alike in tables {
                alike.rows = 0;
                alike.last = alike.table.before_all();
            }
            break;
        }
        Ok(())
    }

    /// Compares what the target has beyond the rows that are alike, and counts it to them. Tells whether all of it is:
    /// the source may have more.
    pub(super) async fn compare(&mut self, alike: &mut Alike) -> Result<bool, MoveError> {
        let table = alike.table;
        loop {
            let (mut here, there) = tokio::try_join!(
                self.source.page(table, &alike.columns, &alike.last),
                self.target.page(table, &alike.columns, &alike.last)
            )?;
            here.iter_mut().for_each(|row| ready(&alike.columns, row));
            here.truncate(there.len());
            let same = here
                .iter()
                .zip(&there)
                .take_while(|(one, other)| one == other);
            let same = same.count();
            alike.rows += count(same);
            if same < there.len() {
                return Ok(false);
            }
            let Some(last) = there.last() else {
                return Ok(true);
            };
            alike.last = table.key_of(&alike.columns, last)?;
            self.tell(table, true, same);
        }
    }

    /// Copies what the source has beyond the rows that are alike: while one page is written, the next is read.
    pub(super) async fn copy(&mut self, alike: &Alike) -> Result<(), MoveError> {
        let Alike { table, columns, .. } = alike;
        let mut page = self.source.page(table, columns, &alike.last).await?;
        loop {
            page.iter_mut().for_each(|row| ready(columns, row));
            let Some(last) = page.last() else {
                break;
            };
            let last = table.key_of(columns, last)?;
            let rows = page.len();
            let next = self.source.page(table, columns, &last);
            let put = self.target.put(table, columns, page);
            (page, ()) = tokio::try_join!(next.map_err(MoveError::from), put)?;
            self.tell(table, false, rows);
        }
        if table.has_ids {
            // IDs of rows that are gone are not given again.
            let last = self.source.last_id(table).await?;
            self.target.skip_ids(table, last).await?;
        }
        Ok(())
    }

    /// Lets others use the copy, and the source.
    pub(super) async fn finish(self) -> Result<(), MoveError> {
        self.target.finish().await?;
        self.source.leave().await;
        Ok(())
    }

    fn tell(&mut self, table: &Table, is_comparing: bool, rows: usize) {
        self.done += count(rows);
        (self.progress)(Step::Done {
            table: table.name,
            is_comparing,
            done: self.done,
            done_at_end: 2 * self.rows_all,
        });
    }
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
