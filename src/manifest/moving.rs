//! A move: everything of one manifest into another one on the other engine, compared before anybody may use it.
//!
//! ```text
//!   source  nobody works on it: locked, one snapshot
//!              | 1. compare what is there   | 2. copy the rest   | 3. compare what was copied
//!   target  marked as unfinished, each page is a transaction                                  then the mark goes
//! ```
//!
//! Nothing says how far a move is but the rows of the copy: each table is filled in the order of its keys. Whoever dies
//! in between leaves a target that every other command refuses. The next try compares what is there with the source as it
//! is by then, and goes on behind it; where the two differ, the source has changed meanwhile, and all is copied anew. So
//! each row of the copy is compared once by the try that ends the move, whoever wrote it.

mod cell;
mod end;
mod tables;
mod way;

#[cfg(test)]
mod tests;

pub(super) use self::cell::Cell;
pub(super) use self::cell::Row;
use self::end::End;
pub(super) use self::tables::TABLES;
pub(super) use self::tables::Table;
use self::way::Alike;
use self::way::Way;
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
    #[error("table {table} differs after its first {rows} rows")]
    Differs {
        /// The table.
        table: &'static str,
        /// Rows that are the same.
        rows: u64,
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
pub enum Step {
    /// It was broken off before. What was copied is compared first.
    GoesOn {
        /// Rows that the target has.
        rows: u64,
        /// Rows that the source has.
        rows_all: u64,
    },
    /// What was copied before is not what the source has by now, and is thrown away.
    Anew {
        /// The first table that differs.
        table: &'static str,
    },
    /// Rows were copied or compared.
    Done {
        /// Their table.
        table: &'static str,
        /// Whether they were compared, not copied.
        is_comparing: bool,
        /// What is done by now: each row is copied and compared.
        done: u64,
        /// What there is to be done.
        done_at_end: u64,
    },
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

/// Moves everything, or what an earlier try has left, and tells `progress` how far it is. Leases are ended in the copy;
/// all else stays as it is.
pub async fn migrate(
    from: &Config,
    to: &Config,
    progress: impl FnMut(Step) + Send,
) -> Result<Moved, MoveError> {
    check_kinds(from, to)?;
    let mut source = End::source(from).await?;
    let counts = counts(&mut source).await?;
    let mut target = End::target(to, &name_of(from)).await?;
    let mut tables = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        let columns = columns(table, &mut source, &mut target).await?;
        tables.push(Alike::none(table, columns));
    }
    let there = sum(&self::counts(&mut target).await?);
    let mut way = Way::new(source, target, sum(&counts), progress);
    if there > 0 {
        way.go_on(&mut tables, there).await?;
    }
    for alike in &tables {
        way.copy(alike).await?;
    }
    for (alike, (table, rows)) in tables.iter_mut().zip(&counts) {
        if !way.compare(alike).await? || alike.rows() != *rows {
            let rows = alike.rows();
            return Err(MoveError::Differs { table, rows });
        }
    }
    way.finish().await?;
    Ok(counts)
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

async fn counts(end: &mut End) -> Result<Moved, MoveError> {
    let mut counts = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        counts.push((table.name, end.count(table).await?));
    }
    Ok(counts)
}

fn sum(counts: &Moved) -> u64 {
    counts.iter().map(|(_, rows)| rows).sum()
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
