//! Stored columns as domain values, whichever engine read them: what cannot be read names its table, column and row.

mod rows;

use std::str::FromStr;

use rusqlite::types::FromSql;
use tokio_postgres::types::FromSqlOwned;
use url::Url;

use crate::clock::Timestamp;
use crate::manifest::ManifestError;
use crate::model::asset::MediaDetails;
use crate::model::asset::SourceIdentity;
use crate::model::deadline::Deadline;
use crate::model::lease::Lease;
use crate::model::lease::LeaseToken;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::units::Span;

/// No error message quotes more of a stored value.
const QUOTED_CHARS_MAX: usize = 120;

/// A row as an engine gives it.
pub(super) trait EngineRow {
    /// What goes wrong with that engine.
    type Fault: From<ManifestError>;

    /// A column as the engine has it.
    fn cell<T: FromSql + FromSqlOwned>(
        &self,
        column: &'static str,
    ) -> Result<T, Misread<Self::Fault>>;
}

/// Why a column was not read.
pub(super) enum Misread<Fault> {
    /// It holds what we cannot have written.
    Bad(String),
    /// The engine's trouble.
    Engine(Fault),
}

/// One row that was read, with the name of the table that it stands for.
pub(super) struct Columns<'r, R> {
    row: &'r R,
    table: &'static str,
    /// The row's ID.
    pub(super) id: i64,
}

impl<'r, R: EngineRow> Columns<'r, R> {
    /// Takes a row whose column `id` is its ID in `table`.
    pub(in crate::manifest) fn of(table: &'static str, row: &'r R) -> Result<Self, R::Fault> {
        let mut columns = Self { row, table, id: 0 };
        columns.id = columns.get("id")?;
        Ok(columns)
    }

    /// A column as the engine has it.
    pub(in crate::manifest) fn get<T: FromSql + FromSqlOwned>(
        &self,
        column: &'static str,
    ) -> Result<T, R::Fault> {
        self.row.cell(column).map_err(|misread| match misread {
            Misread::Bad(found) => self.bad(column, &found),
            Misread::Engine(fault) => fault,
        })
    }

    /// A text column as one of our words.
    pub(in crate::manifest) fn word<T: FromStr>(
        &self,
        column: &'static str,
    ) -> Result<T, R::Fault> {
        let text: String = self.get(column)?;
        text.parse().map_err(|_| self.bad(column, &text))
    }

    /// A text column as one of our words, where there is one.
    pub(in crate::manifest) fn word_opt<T: FromStr>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, R::Fault> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|_| self.bad(column, &text)))
            .transpose()
    }

    /// A number in the range of its type.
    pub(in crate::manifest) fn number<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<T, R::Fault> {
        let number: i64 = self.get(column)?;
        T::try_from(number).map_err(|_| self.bad(column, &number.to_string()))
    }

    /// A number in the range of its type, where there is one.
    pub(in crate::manifest) fn number_opt<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, R::Fault> {
        let number: Option<i64> = self.get(column)?;
        let convert =
            |number| T::try_from(number).map_err(|_| self.bad(column, &number.to_string()));
        number.map(convert).transpose()
    }

    /// An instant.
    pub(in crate::manifest) fn instant(&self, column: &'static str) -> Result<Timestamp, R::Fault> {
        self.instant_of(column, self.get(column)?)
    }

    /// An instant, where there is one.
    pub(in crate::manifest) fn instant_opt(
        &self,
        column: &'static str,
    ) -> Result<Option<Timestamp>, R::Fault> {
        let millis: Option<i64> = self.get(column)?;
        millis
            .map(|millis| self.instant_of(column, millis))
            .transpose()
    }

    /// A URL. The error does not show its query, which may be a signature.
    pub(in crate::manifest) fn url(&self, column: &'static str) -> Result<Url, R::Fault> {
        let text: String = self.get(column)?;
        Url::parse(&text).map_err(|_| {
            let shown = text.split(['?', '#']).next().unwrap_or_default();
            self.bad(column, shown)
        })
    }

    /// A URL, where there is one.
    pub(in crate::manifest) fn url_opt(
        &self,
        column: &'static str,
    ) -> Result<Option<Url>, R::Fault> {
        let text: Option<String> = self.get(column)?;
        text.map(|_| self.url(column)).transpose()
    }

    /// The tags.
    pub(in crate::manifest) fn tags(&self) -> Result<Tags, R::Fault> {
        let text: String = self.get("tags")?;
        serde_json::from_str(&text).map_err(|_| self.bad("tags", &text))
    }

    /// The names of a task.
    pub(in crate::manifest) fn task_key(&self) -> Result<TaskKey, R::Fault> {
        Ok(TaskKey {
            provider: self.word("provider")?,
            id: self.word("task_id")?,
        })
    }

    /// The deadline.
    pub(in crate::manifest) fn deadline(&self) -> Result<Deadline, R::Fault> {
        Ok(Deadline {
            at: self.instant("deadline_at")?,
            from: self.word("deadline_from")?,
        })
    }

    /// The lease of a row that was just claimed.
    pub(in crate::manifest) fn lease(&self) -> Result<Lease, R::Fault> {
        Ok(Lease {
            row: self.id,
            token: LeaseToken(self.get("lease_token")?),
            expires_at: self.instant("lease_expires_at")?,
        })
    }

    /// What the origin said of a body.
    pub(in crate::manifest) fn source(
        &self,
        [etag, last_modified, length]: [&'static str; 3],
    ) -> Result<SourceIdentity, R::Fault> {
        Ok(SourceIdentity {
            etag: self.get(etag)?,
            last_modified: self.get(last_modified)?,
            length: self.number_opt(length)?,
        })
    }

    /// What a player would show of a body.
    pub(in crate::manifest) fn media(&self) -> Result<MediaDetails, R::Fault> {
        Ok(MediaDetails {
            duration: self.number_opt("duration_ms")?.map(Span::from_millis),
            width: self.number_opt("width")?,
            height: self.number_opt("height")?,
            codec: self.word_opt("codec")?,
        })
    }

    /// The error for a column that we cannot have written.
    pub(in crate::manifest) fn bad(&self, column: &'static str, value: &str) -> R::Fault {
        ManifestError::Inconsistent {
            table: self.table,
            column,
            row: self.id,
            value: value.chars().take(QUOTED_CHARS_MAX).collect(),
        }
        .into()
    }

    fn instant_of(&self, column: &'static str, millis: i64) -> Result<Timestamp, R::Fault> {
        let instant = Timestamp::from_unix_millis(millis);
        let is_kept = instant.as_unix_millis() == millis;
        is_kept
            .then_some(instant)
            .ok_or_else(|| self.bad(column, &millis.to_string()))
    }
}
