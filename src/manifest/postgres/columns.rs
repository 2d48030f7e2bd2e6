//! Stored columns as domain values: what cannot be read names its table, column and row.

use std::str::FromStr;

use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;
use url::Url;

use super::Fault;
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

/// One row that was read, with the name of the table that it stands for.
pub(super) struct Columns<'r> {
    row: &'r Row,
    table: &'static str,
    /// The row's ID.
    pub(super) id: i64,
}

impl<'r> Columns<'r> {
    /// Takes a row whose column `id` is its ID in `table`.
    pub(super) fn of(table: &'static str, row: &'r Row) -> Result<Self, Fault> {
        let id = row.try_get("id")?;
        Ok(Self { row, table, id })
    }

    /// A column as the engine has it.
    pub(super) fn get<T: FromSqlOwned>(&self, column: &'static str) -> Result<T, Fault> {
        self.row.try_get(column).map_err(|error| {
            let cause = std::error::Error::source(&error);
            match cause {
                Some(cause) => self.bad(column, &cause.to_string()),
                None => error.into(),
            }
        })
    }

    /// A text column as one of our words.
    pub(super) fn word<T: FromStr>(&self, column: &'static str) -> Result<T, Fault> {
        let text: String = self.get(column)?;
        text.parse().map_err(|_| self.bad(column, &text))
    }

    /// A text column as one of our words, where there is one.
    pub(super) fn word_opt<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, Fault> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|_| self.bad(column, &text)))
            .transpose()
    }

    /// A number in the range of its type.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, Fault> {
        let number: i64 = self.get(column)?;
        T::try_from(number).map_err(|_| self.bad(column, &number.to_string()))
    }

    /// A number in the range of its type, where there is one.
    pub(super) fn number_opt<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, Fault> {
        let number: Option<i64> = self.get(column)?;
        let convert =
            |number| T::try_from(number).map_err(|_| self.bad(column, &number.to_string()));
        number.map(convert).transpose()
    }

    /// An instant.
    pub(super) fn instant(&self, column: &'static str) -> Result<Timestamp, Fault> {
        self.instant_of(column, self.get(column)?)
    }

    /// An instant, where there is one.
    pub(super) fn instant_opt(&self, column: &'static str) -> Result<Option<Timestamp>, Fault> {
        let millis: Option<i64> = self.get(column)?;
        millis
            .map(|millis| self.instant_of(column, millis))
            .transpose()
    }

    /// A URL. The error does not show its query, which may be a signature.
    pub(super) fn url(&self, column: &'static str) -> Result<Url, Fault> {
        let text: String = self.get(column)?;
        Url::parse(&text).map_err(|_| {
            let shown = text.split(['?', '#']).next().unwrap_or_default();
            self.bad(column, shown)
        })
    }

    /// A URL, where there is one.
    pub(super) fn url_opt(&self, column: &'static str) -> Result<Option<Url>, Fault> {
        let text: Option<String> = self.get(column)?;
        text.map(|_| self.url(column)).transpose()
    }

    /// The tags.
    pub(super) fn tags(&self) -> Result<Tags, Fault> {
        let text: String = self.get("tags")?;
        serde_json::from_str(&text).map_err(|_| self.bad("tags", &text))
    }

    /// The names of a task.
    pub(super) fn task_key(&self) -> Result<TaskKey, Fault> {
        Ok(TaskKey {
            provider: self.word("provider")?,
            id: self.word("task_id")?,
        })
    }

    /// The deadline.
    pub(super) fn deadline(&self) -> Result<Deadline, Fault> {
        Ok(Deadline {
            at: self.instant("deadline_at")?,
            from: self.word("deadline_from")?,
        })
    }

    /// The lease of a row that was just claimed.
    pub(super) fn lease(&self) -> Result<Lease, Fault> {
        Ok(Lease {
            row: self.id,
            token: LeaseToken(self.get("lease_token")?),
            expires_at: self.instant("lease_expires_at")?,
        })
    }

    /// What the origin said of a body.
    pub(super) fn source(
        &self,
        [etag, last_modified, length]: [&'static str; 3],
    ) -> Result<SourceIdentity, Fault> {
        Ok(SourceIdentity {
            etag: self.get(etag)?,
            last_modified: self.get(last_modified)?,
            length: self.number_opt(length)?,
        })
    }

    /// What a player would show of a body.
    pub(super) fn media(&self) -> Result<MediaDetails, Fault> {
        Ok(MediaDetails {
            duration: self.number_opt("duration_ms")?.map(Span::from_millis),
            width: self.number_opt("width")?,
            height: self.number_opt("height")?,
            codec: self.word_opt("codec")?,
        })
    }

    /// The error for a column that we cannot have written.
    pub(super) fn bad(&self, column: &'static str, value: &str) -> Fault {
        Fault::Known(ManifestError::Inconsistent {
            table: self.table,
            column,
            row: self.id,
            value: value.chars().take(QUOTED_CHARS_MAX).collect(),
        })
    }

    fn instant_of(&self, column: &'static str, millis: i64) -> Result<Timestamp, Fault> {
        let instant = Timestamp::from_unix_millis(millis);
        let is_kept = instant.as_unix_millis() == millis;
        is_kept
            .then_some(instant)
            .ok_or_else(|| self.bad(column, &millis.to_string()))
    }
}
