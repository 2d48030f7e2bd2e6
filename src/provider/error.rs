//! What can come of a call to a provider but an answer, told by status and code, never by text.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::clock::Timestamp;
use crate::http::pace;
use crate::model::task::ProviderName;
use crate::provider::description::status::Errors;
use crate::units::Span;

/// The longest that a `Retry-After` is believed.
pub(super) const PAUSE_MAX: Span = Span::from_secs(300);

/// No `Retry-After` is taken as shorter, so that `0` cannot make us spin.
const PAUSE_MIN: Span = Span::from_secs(1);

/// A provider's words on what went wrong, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who said it.
    pub provider: ProviderName,
    /// The HTTP status; `None` where no answer came.
    pub status: Option<u16>,
    /// The provider's own code.
    pub code: Option<String>,
    /// The provider's message, or ours where the answer makes no sense.
    pub message: Option<String>,
    /// Whether this was said to another call, for whose sake ours was not made.
    pub is_repeated: bool,
}

/// Why a look at a task gave no sighting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The provider knows no such task.
    #[error("{0}")]
    NoSuchTask(Said),
    /// Trouble with the account or its key, no matter which task: every task keeps its state, somebody must act.
    #[error("{said}")]
    Refused {
        /// No call is made before this.
        until: Timestamp,
        /// The provider's words.
        said: Said,
    },
    /// We ask too often.
    #[error("{said}")]
    Limited {
        /// No call is made before this.
        until: Timestamp,
        /// The provider's words.
        said: Said,
    },
    /// No answer, or one that tells of trouble on the other side.
    #[error("{0}")]
    Unavailable(Said),
    /// An answer that is not what the description promises.
    #[error("{0}")]
    Garbled(Said),
}

impl ProviderError {
    /// The provider's words.
    pub fn said(&self) -> &Said {
        match self {
            ProviderError::NoSuchTask(said)
            | ProviderError::Refused { said, .. }
            | ProviderError::Limited { said, .. }
            | ProviderError::Unavailable(said)
            | ProviderError::Garbled(said) => said,
        }
    }

    /// The same, for those that are not asked for its sake.
    pub(super) fn repeated(mut self) -> Self {
        match &mut self {
            ProviderError::NoSuchTask(said)
            | ProviderError::Refused { said, .. }
            | ProviderError::Limited { said, .. }
            | ProviderError::Unavailable(said)
            | ProviderError::Garbled(said) => said.is_repeated = true,
        }
        self
    }

    /// The kind of error in one word, for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            ProviderError::NoSuchTask(_) => "no_such_task",
            ProviderError::Refused { .. } => "refused",
            ProviderError::Limited { .. } => "limited",
            ProviderError::Unavailable(_) => "unavailable",
            ProviderError::Garbled(_) => "garbled",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let said = self.said();
        let section = format!("provider.{}", said.provider);
        match (self, said.status) {
            (ProviderError::Refused { .. }, Some(402)) => Some(format!(
                "top up the account of {section}; its tasks keep their state meanwhile"
            )),
            (ProviderError::Refused { .. }, Some(403)) => Some(format!(
                "the key in {section}.api_key may not read tasks, or this address may not use it"
            )),
            (ProviderError::Refused { .. }, _) => Some(format!(
                "check {section}.api_key: the provider does not accept this key or account"
            )),
            (ProviderError::Limited { .. }, _) => {
                Some(format!("lower {section}.requests if this happens often"))
            }
            (ProviderError::Garbled(_), _) => Some(format!(
                "check that {section}.base_url is the address of the task API and that the description fits it"
            )),
            (ProviderError::NoSuchTask(_) | ProviderError::Unavailable(_), _) => None,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "provider {}", self.provider)?;
        if let Some(status) = self.status {
            write!(f, " answered {status}")?;
        }
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// What a bad answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Gone,
    Refused,
    Limited,
    Unavailable,
    Garbled,
}

impl Meaning {
    /// The same words as [`ProviderError::as_str`].
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Meaning::Gone => "no_such_task",
            Meaning::Refused => "refused",
            Meaning::Limited => "limited",
            Meaning::Unavailable => "unavailable",
            Meaning::Garbled => "garbled",
        }
    }
}

/// What `status` and the provider's own `code` mean. The status goes first: it is set by every gateway on the way.
pub(super) fn meaning(
    errors: &Errors,
    status: StatusCode,
    code: Option<&str>,
    has_retry_after: bool,
) -> Meaning {
    let is_among = |codes: &[String]| code.is_some_and(|code| codes.iter().any(|c| c == code));
    match status.as_u16() {
        number if errors.gone_http.contains(&number) => Meaning::Gone,
        401..=403 => Meaning::Refused,
        429 => Meaning::Limited,
        503 if has_retry_after => Meaning::Limited,
        408 | 425 | 500..=599 => Meaning::Unavailable,
        _ if is_among(&errors.gone) => Meaning::Gone,
        _ if is_among(&errors.refused) => Meaning::Refused,
        _ if is_among(&errors.limited) => Meaning::Limited,
        // A good status, yet the answer says that it is an error, of a kind that the description does not name.
        200..=299 => Meaning::Unavailable,
        _ => Meaning::Garbled,
    }
}

/// How long a `Retry-After` asks us to wait: seconds or an HTTP date, within bounds.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Span> {
    let wait = pace::retry_after(value, now)?;
    Some(wait.clamp(PAUSE_MIN, PAUSE_MAX))
}

/// How long we stay away after the provider said `in_a_row` times that we ask too often, and not for how long.
pub(super) fn pause_unasked(in_a_row: u32) -> Span {
    const FIRST: Duration = Duration::from_secs(5);
    const MAX: Span = Span::from_secs(60);
    let doubled = FIRST.saturating_mul(1 << in_a_row.saturating_sub(1).min(8));
    Span::from(doubled).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, code: Option<&str>, expected: Meaning) {
        let errors = Errors {
            gone_http: vec![404],
            gone: vec!["gone".to_owned()],
            refused: vec!["1004".to_owned()],
            limited: vec!["slow".to_owned()],
            ..Errors::default()
        };
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            meaning(&errors, status, code, false),
            expected,
            "{status} {code:?}"
        );
    }

    #[test]
    fn every_status_means_something() {
        check(404, None, Meaning::Gone);
        check(400, Some("gone"), Meaning::Gone);
        check(400, Some("other"), Meaning::Garbled);
        check(400, None, Meaning::Garbled);
        for status in [401, 402, 403] {
            check(status, Some("gone"), Meaning::Refused);
        }
        check(429, Some("gone"), Meaning::Limited);
        for status in [408, 425, 500, 502, 503, 504, 520] {
            check(status, Some("gone"), Meaning::Unavailable);
        }
        check(200, Some("gone"), Meaning::Gone);
        check(200, Some("1004"), Meaning::Refused);
        check(200, Some("slow"), Meaning::Limited);
        check(200, Some("other"), Meaning::Unavailable);
        check(200, None, Meaning::Unavailable);
        for status in [301, 302, 307, 405, 410, 418] {
            check(status, None, Meaning::Garbled);
        }
        let said = meaning(
            &Errors::default(),
            StatusCode::SERVICE_UNAVAILABLE,
            None,
            true,
        );
        assert_eq!(said, Meaning::Limited);
        check(600, None, Meaning::Garbled);
    }

    #[track_caller]
    fn check_retry_after(value: &str, seconds: Option<u64>) {
        // 2026-11-24T14:00:00Z
        let now = Timestamp::from_unix_seconds(1_795_528_800);
        assert_eq!(
            retry_after(value, now),
            seconds.map(Span::from_secs),
            "{value:?}"
        );
    }

    #[test]
    fn retry_after_takes_seconds_and_dates_within_bounds() {
        check_retry_after("7", Some(7));
        check_retry_after(" 7 ", Some(7));
        check_retry_after("0", Some(1));
        check_retry_after("86400", Some(300));
        check_retry_after("99999999999999999999999", Some(300));
        check_retry_after("Tue, 24 Nov 2026 14:01:30 GMT", Some(90));
        check_retry_after("Tue, 24 Nov 2026 13:00:00 GMT", Some(1));
        check_retry_after("Wed, 25 Nov 2026 14:00:00 GMT", Some(300));
        for nonsense in ["", "-5", "soon", "1.5", "2026-11-24"] {
            check_retry_after(nonsense, None);
        }
    }

    #[test]
    fn an_unasked_pause_doubles_up_to_a_minute() {
        let seconds = |count| pause_unasked(count).as_duration().as_secs();
        assert_eq!([0, 1, 2, 3, 4].map(seconds), [5, 5, 10, 20, 40]);
        assert_eq!([5, 9, u32::MAX].map(seconds), [60, 60, 60]);
    }
}
