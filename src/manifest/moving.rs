//! A move: everything of one manifest into another one on the other engine, compared before anybody may use it.
//!
//! ```text
//!   source  nobody works on it: locked, one snapshot  --pages--> digest
//!                                                         |        = ?
//!   target  marked as unfinished, nothing stands before the end --pages--> digest     then the mark goes
//! ```
//!
//! On a server the copy is one transaction, in a file it has another name until it is whole. Whoever dies in between
//! leaves a target with a mark and nothing else, which every other command refuses and the next try begins anew.

mod cell;
mod end;
mod tables;

#[cfg(test)]
mod tests;

pub(super) use self::cell::Cell;
pub(super) use self::cell::Row;
use self::cell::Tally;
use self::end::End;
pub(super) use self::tables::TABLES;
pub(super) use self::tables::Table;
use self::tables::ready;
use super::Config;
use super::ManifestError;

/// Why a manifest was not moved. The source is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the two cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Two files, or two servers.
    #[error("{from} and {to} are of one kind")]
    SameKind {
        /// The source.
        from: String,
        /// The target.
        to: String,
    },
    /// Daemons work on the source.
    #[error("{} of {server} still work on it: {}", machines(names.len()), names.join(", "))]
    Living {
        /// The source.
        server: String,
        /// Who works on it.
        names: Vec<String>,
    },
    /// Something stands where the copy is to be.
    #[error("there is a manifest at {target} already")]
    Occupied {
        /// The target.
        target: String,
    },
    /// Somebody else's unfinished move stands where the copy is to be.
    #[error("an unfinished move from {source_name} is at {target}")]
    OfAnother {
        /// The target.
        target: String,
        /// Where that one came from.
        source_name: String,
    },
    /// Another move to the target, or the start of a daemon on it, is under way.
    #[error("somebody else is just making a manifest at {target}")]
    Busy {
        /// The target.
        target: String,
    },
    /// The two engines do not have the same columns.
    #[error("table {table} has the columns {from} here and {to} there")]
    Columns {
        /// The table.
        table: &'static str,
        /// Those of the source.
        from: String,
        /// Those of the target.
        to: String,
    },
    /// What the target gives back is not what the source gave.
    #[error("table {table} differs: {rows_from} rows were read and {rows_to} are there")]
    Differs {
        /// The table.
        table: &'static str,
        /// Rows of the source.
        rows_from: u64,
        /// Rows of the target.
        rows_to: u64,
    },
}

fn machines(count: usize) -> String {
    match count {
        1 => "1 machine".to_owned(),
        count => format!("{count} machines"),
    }
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub table: &'static str,
    /// Whether rows are compared by now, not copied.
    pub is_comparing: bool,
    /// Rows that were just done.
    pub rows: u64,
    /// Rows that there are to be done: each is copied and compared.
    pub rows_all: u64,
}

/// What was moved, or would be: how many rows of each table.
pub type Moved = Vec<(&'static str, u64)>;

/// How a manifest is named in messages, and in the mark of an unfinished move: without a password.
pub fn name_of(config: &Config) -> String {
    super::database_path(&config.url).map_or_else(
        |_| super::postgres::shown(&config.url),
        |path| {
            let path = std::path::absolute(&path).unwrap_or(path);
            format!("sqlite:{}", path.display())
        },
    )
}

/// Says what would be moved. Nothing is written.
pub async fn look(from: &Config, to: &Config) -> Result<Moved, MoveError> {
    check_kinds(from, to)?;
    let mut source = End::source(from).await?;
    End::check_target(to, &name_of(from)).await?;
    counts(&mut source).await
}

/// Moves everything, and tells `progress` how far it is. Leases are ended in the copy; all else stays as it is.
pub async fn migrate(
    from: &Config,
    to: &Config,
    mut progress: impl FnMut(Step) + Send,
) -> Result<Moved, MoveError> {
    check_kinds(from, to)?;
    let mut source = End::source(from).await?;
    let counts = counts(&mut source).await?;
    let rows_all = 2 * counts.iter().map(|(_, rows)| rows).sum::<u64>();
    let mut target = End::target(to, &name_of(from)).await?;
    let mut read = Vec::with_capacity(TABLES.len());
    let mut tell = |table: &Table, is_comparing, rows| {
        progress(Step {
            table: table.name,
            is_comparing,
            rows,
            rows_all,
        });
    };
    for table in &TABLES {
        let columns = columns(table, &mut source, &mut target).await?;
        let told = |rows| tell(table, false, rows);
        let tally = copy(table, &columns, &mut source, &mut target, told).await?;
        if table.has_ids {
            // IDs of rows that are gone are not given again.
            let last = source.last_id(table).await?;
            target.skip_ids(table, last).await?;
        }
        read.push((columns, tally));
    }
    for ((table, (columns, read)), (_, rows_from)) in TABLES.iter().zip(&read).zip(counts) {
        let told = |rows| tell(table, true, rows);
        let there = count_up(table, columns, &mut target, told).await?;
        if there != *read || there.rows() != rows_from {
            return Err(MoveError::Differs {
                table: table.name,
                rows_from,
                rows_to: there.rows(),
            });
        }
    }
    target.finish().await?;
    source.leave().await;
    let moved = TABLES.iter().zip(read);
    Ok(moved
        .map(|(table, (_, tally))| (table.name, tally.rows()))
        .collect())
}

fn check_kinds(from: &Config, to: &Config) -> Result<(), MoveError> {
    if from.is_shared() == to.is_shared() {
        return Err(MoveError::SameKind {
            from: name_of(from),
            to: name_of(to),
        });
    }
    Ok(())
}

async fn counts(source: &mut End) -> Result<Moved, MoveError> {
    let mut counts = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        counts.push((table.name, source.count(table).await?));
    }
    Ok(counts)
}

/// The columns of a table, which both have to have.
async fn columns(
    table: &Table,
    source: &mut End,
    target: &mut End,
) -> Result<Vec<String>, MoveError> {
    let (from, to) = (source.columns(table).await?, target.columns(table).await?);
    if from != to {
        return Err(MoveError::Columns {
            table: table.name,
            from: from.join(", "),
            to: to.join(", "),
        });
    }
    Ok(from)
}

/// Copies a table page by page: while one is written, the next is read.
async fn copy(
    table: &Table,
    columns: &[String],
    source: &mut End,
    target: &mut End,
    mut told: impl FnMut(u64),
) -> Result<Tally, MoveError> {
    let mut tally = Tally::default();
    let mut page = source.page(table, columns, &table.before_all()).await?;
    loop {
        page.iter_mut().for_each(|row| ready(columns, row));
        let Some(last) = page.last() else {
            return Ok(tally);
        };
        let last = table.key_of(columns, last)?;
        let rows = tally.add_all(&page);
        let (next, ()) = tokio::try_join!(
            source.page(table, columns, &last),
            target.put(table, columns, page)
        )?;
        told(rows);
        page = next;
    }
}

/// Reads back what stands in the target.
async fn count_up(
    table: &Table,
    columns: &[String],
    target: &mut End,
    mut told: impl FnMut(u64),
) -> Result<Tally, MoveError> {
    let mut tally = Tally::default();
    let mut after = table.before_all();
    loop {
        let page = target.page(table, columns, &after).await?;
        let Some(last) = page.last() else {
            return Ok(tally);
        };
        after = table.key_of(columns, last)?;
        told(tally.add_all(&page));
    }
}
