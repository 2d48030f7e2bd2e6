//! Wall time: [`Timestamp`] in unix milliseconds, and the [`Clock`] that hands it out.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::units::Span;

/// An instant of wall time, in milliseconds since the unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first instant there is.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The furthest instant that still prints as a four-digit year; larger input is clamped to it.
    const LATEST_UNIX_MILLIS: i64 = 253_402_207_199_999;

    /// Takes milliseconds since the unix epoch, clamped to the years 1970 to 9999.
    pub fn from_unix_millis(millis: i64) -> Self {
        Self(millis.clamp(0, Self::LATEST_UNIX_MILLIS))
    }

    /// Takes whole seconds since the unix epoch, clamped like [`Timestamp::from_unix_millis`].
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_millis(seconds.saturating_mul(1000))
    }

    /// Reads an RFC 3339 instant.
    pub fn parse(text: &str) -> Option<Self> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Some(Self::from_unix_millis(instant.as_millisecond()))
    }

    /// Milliseconds since the unix epoch.
    pub fn as_unix_millis(self) -> i64 {
        self.0
    }

    /// This instant, moved later by `span`.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self::from_unix_millis(self.0.saturating_add(span.as_millis_i64()))
    }

    /// This instant, moved earlier by `span`.
    #[must_use]
    pub fn minus(self, span: Span) -> Self {
        Self::from_unix_millis(self.0.saturating_sub(span.as_millis_i64()))
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Span {
        Span::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Writes the instant through a strftime `format`, in UTC. `None` when the format is not valid.
    pub fn strftime(self, format: &str) -> Option<String> {
        jiff::fmt::strtime::format(format, self.instant()).ok()
    }

    fn instant(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).expect("clamped on the way in")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = self.instant();
        if self.0 % 1000 == 0 {
            write!(f, "{instant:.0}")
        } else {
            write!(f, "{instant:.3}")
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A day, which is its first instant in UTC, or an instant of RFC 3339.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let day = || Timestamp::parse(&format!("{text}T00:00:00Z"));
        Timestamp::parse(&text).or_else(day).ok_or_else(|| {
            let what = format!("{text:?} is no day such as \"2026-01-31\" and no time of RFC 3339");
            serde::de::Error::custom(what)
        })
    }
}

/// The one source of wall time: the system's in production, a test's own elsewhere.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self::new(|| Timestamp::from_unix_millis(jiff::Timestamp::now().as_millisecond()))
    }

    /// A clock that reads `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_milliseconds_only_where_there_are_some() {
        let whole = Timestamp::from_unix_seconds(1_774_857_405);
        assert_eq!(whole.to_string(), "2026-03-30T07:56:45Z");
        let fraction = Timestamp::from_unix_millis(1_774_857_405_120);
        assert_eq!(fraction.to_string(), "2026-03-30T07:56:45.120Z");
        assert_eq!(Timestamp::parse("2026-03-30T07:56:45.120Z"), Some(fraction));
    }

    #[test]
    fn absurd_instants_are_clamped_and_still_print() {
        for millis in [i64::MIN, -1, i64::MAX] {
            assert!(!Timestamp::from_unix_millis(millis).to_string().is_empty());
        }
        let latest = Timestamp::from_unix_millis(i64::MAX);
        assert_eq!(latest.plus(Span::from_secs(u64::MAX)), latest);
    }
}
