//! Quantities that carry their unit: [`ByteSize`], [`Span`], [`Rate`] and [`ByteRate`], as people write them in TOML.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

/// A quantity that was not written as "what it is, then its unit".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

/// A number of bytes: `"16 MiB"`, `"5GB"`, `"512"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The units of a size, largest first within each system, as they are printed and read.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Takes a number of bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Takes a number of MiB.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1 << 20))
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; saturates on 32-bit machines.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError {
            text: text.to_owned(),
            expected: "a size such as \"16 MiB\", \"5 GB\" or \"4096\"",
        };
        let (number, unit) = split_unit(text);
        let factor = if unit.is_empty() {
            1
        } else {
            let known = SIZE_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known.ok_or_else(bad)?.1
        };
        scale(number, factor).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS.iter().take(4);
        for (name, factor) in binary {
            if self.0 >= *factor {
                let tenths = u128::from(self.0) * 10 / u128::from(*factor);
                let (whole, tenth) = (tenths / 10, tenths % 10);
                return if self.0.is_multiple_of(*factor) || whole >= 100 {
                    write!(f, "{whole} {name}")
                } else {
                    write!(f, "{whole}.{tenth} {name}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A length of time: `"90s"`, `"24h"`, `"1h 30m"`. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(Duration::ZERO);

    /// Takes whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Takes milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The span as the standard library has it, for tokio's timers.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Whole milliseconds, saturating; for the manifest's columns.
    pub fn as_millis_i64(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }

    /// This span times `factor`, which is clamped to be a number from zero up.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let factor = if factor.is_finite() {
            factor.max(0.0)
        } else {
            1.0
        };
        Self(Duration::try_from_secs_f64(self.0.as_secs_f64() * factor).unwrap_or(Duration::MAX))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parsed = days(text).or_else(|| text.parse::<jiff::SignedDuration>().ok());
        let span = parsed.and_then(|duration| Duration::try_from(duration).ok());
        span.map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            expected: "a length of time such as \"90s\", \"24h\" or \"1h 30m\"",
        })
    }
}

/// Whole days, which are 24 hours here, however long a day of the calendar is.
fn days(text: &str) -> Option<jiff::SignedDuration> {
    let days: u32 = text.trim().strip_suffix('d')?.trim_end().parse().ok()?;
    Some(jiff::SignedDuration::from_hours(24 * i64::from(days)))
}

impl fmt::Display for Span {
    /// The two largest units that are not zero: `1 h 52 min`, `3 d 4 h`, `250 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
        let pairs = [
            ((days, "d"), (hours, "h")),
            ((hours, "h"), (minutes, "min")),
            ((minutes, "min"), (rest, "s")),
        ];
        for ((large, large_unit), (small, small_unit)) in pairs {
            if large > 0 && small > 0 {
                return write!(f, "{large} {large_unit} {small} {small_unit}");
            }
            if large > 0 {
                return write!(f, "{large} {large_unit}");
            }
        }
        if seconds > 0 {
            write!(f, "{seconds} s")
        } else {
            write!(f, "{} ms", self.0.as_millis())
        }
    }
}

/// How often something may happen: `"5/s"`, `"120/min"`, `"100/h"`. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    times: u32,
    per: Duration,
}

impl Rate {
    /// The time from one permitted event to the next.
    pub fn interval(self) -> Span {
        Span(self.per / self.times)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError {
            text: text.to_owned(),
            expected: "a rate such as \"5/s\" or \"120/min\"",
        };
        let (times, per) = text.split_once('/').ok_or_else(bad)?;
        let times: u32 = times.trim().parse().map_err(|_| bad())?;
        let per = match per.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            _ => return Err(bad()),
        };
        if times == 0 {
            Err(bad())
        } else {
            Ok(Self {
                times,
                per: Duration::from_secs(per),
            })
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.times)
    }
}

/// Bytes a second: `"50 MiB/s"`, `"400 Mbit/s"`. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(u64);

/// The units of a line's rate, in bytes.
const BIT_UNITS: [(&str, u64); 3] = [("Gbit", 125_000_000), ("Mbit", 125_000), ("kbit", 125)];

impl ByteRate {
    /// Takes a number of bytes a second, but at least one.
    pub const fn new(bytes: u64) -> Self {
        Self(if bytes == 0 { 1 } else { bytes })
    }

    /// The number of bytes a second.
    pub const fn bytes_a_second(self) -> u64 {
        self.0
    }

    /// How long `bytes` take.
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Reads an optional rate, of which an empty text is none.
    pub fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let rate = (!text.trim().is_empty()).then(|| text.parse());
        rate.transpose().map_err(serde::de::Error::custom)
    }
}

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError {
            text: text.to_owned(),
            expected: "bytes a second such as \"50 MiB/s\" or \"400 Mbit/s\"",
        };
        let amount = text.trim().strip_suffix("/s").ok_or_else(bad)?;
        let (number, unit) = split_unit(amount);
        let bits = BIT_UNITS.iter().find(|(name, _)| *name == unit);
        let bytes = match bits {
            Some((_, factor)) => scale(number, *factor),
            None => amount.parse::<ByteSize>().ok().map(ByteSize::as_u64),
        };
        bytes.filter(|bytes| *bytes > 0).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0))
    }
}

/// The serde form of what may be left out by writing `""`, since its default is something.
pub mod or_blank {
    use std::fmt;
    use std::str::FromStr;

    use serde::Deserialize as _;
    use serde::Deserializer;
    use serde::Serializer;

    /// Reads a text, of which an empty one is none.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: fmt::Display>,
    {
        let text = String::deserialize(deserializer)?;
        let read = (!text.trim().is_empty()).then(|| text.trim().parse());
        let read = read.transpose();
        read.map_err(|error| serde::de::Error::custom(format_args!("{text:?}: {error}")))
    }

    /// Writes the text, or an empty one.
    pub fn serialize<S, T>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: fmt::Display,
    {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }
}

/// Gives a quantity the serde form of its text.
macro_rules! text_serde {
    ($($quantity:ty),+) => {$(
        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $quantity {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}
text_serde!(ByteSize, Rate, ByteRate);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    /// The form that configuration takes, which knows no days: `24h`, not `1 d`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let duration = jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX);
        serializer.collect_str(&format_args!("{duration:#}"))
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// `number` times `factor` in whole bytes; a fraction is only taken where it comes out whole or is cut off.
fn scale(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let fraction = if fraction.is_empty() {
        0
    } else {
        let digits = u32::try_from(fraction.len())
            .ok()
            .filter(|digits| *digits <= 6)?;
        fraction.parse::<u64>().ok()?.checked_mul(factor)? / 10_u64.pow(digits)
    };
    whole.checked_mul(factor)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_size(text: &str, bytes: Option<u64>) {
        assert_eq!(
            text.parse::<ByteSize>().ok().map(ByteSize::as_u64),
            bytes,
            "{text:?}"
        );
    }

    #[test]
    fn sizes() {
        check_size("16 MiB", Some(16 << 20));
        check_size("16mib", Some(16 << 20));
        check_size("5 GB", Some(5_000_000_000));
        check_size("1.5 KiB", Some(1536));
        check_size("0", Some(0));
        check_size("4096", Some(4096));
        check_size("", None);
        check_size("MiB", None);
        check_size("-1", None);
        check_size("16 MiBs", None);
        check_size("99999999999 TiB", None);
        check_size("0.1234567 MiB", None);
    }

    #[test]
    fn rates_of_bytes() {
        let check = |text: &str, bytes: Option<u64>| {
            let rate = text.parse::<ByteRate>().ok();
            assert_eq!(rate.map(ByteRate::bytes_a_second), bytes, "{text:?}");
        };
        check("50 MiB/s", Some(50 << 20));
        check("400 Mbit/s", Some(50_000_000));
        check("1.5 kbit/s", Some(187));
        check("4096/s", Some(4096));
        check("0 B/s", None);
        check("50 MiB", None);
        check("400 mbit/s", None);
        check("", None);
        let rate: ByteRate = "2 MiB/s".parse().unwrap();
        assert_eq!(rate.time_for(1 << 20).as_millis(), 500);
        assert_eq!(rate.to_string(), "2 MiB/s");
    }

    #[test]
    fn sizes_print_as_people_read_them() {
        let printed = |bytes| ByteSize::bytes(bytes).to_string();
        assert_eq!(printed(0), "0 B");
        assert_eq!(printed(1023), "1023 B");
        assert_eq!(printed(16 << 20), "16 MiB");
        assert_eq!(printed((1 << 20) + (1 << 19)), "1.5 MiB");
        assert_eq!(printed(u64::MAX), "16777215 TiB");
    }

    #[track_caller]
    fn check_span(text: &str, seconds: Option<u64>, printed: &str) {
        let span = text.parse::<Span>().ok();
        assert_eq!(
            span.map(|span| span.as_duration().as_secs()),
            seconds,
            "{text:?}"
        );
        if let Some(span) = span {
            assert_eq!(span.to_string(), printed);
        }
    }

    #[test]
    fn spans() {
        check_span("90s", Some(90), "1 min 30 s");
        check_span("24h", Some(86_400), "1 d");
        check_span("1h 30m", Some(5_400), "1 h 30 min");
        check_span("250ms", Some(0), "250 ms");
        check_span("72h", Some(259_200), "3 d");
        check_span("30 d", Some(2_592_000), "30 d");
        check_span("d", None, "");
        check_span("-1d", None, "");
        check_span("-5s", None, "");
        check_span("24", None, "");
        check_span("soon", None, "");
    }

    #[test]
    fn rates() {
        assert_eq!(
            "5/s".parse::<Rate>().map(Rate::interval),
            Ok(Span::from_millis(200))
        );
        assert_eq!(
            "120/min".parse::<Rate>().map(|rate| rate.to_string()),
            Ok("120/min".to_owned())
        );
        for bad in ["0/s", "5", "5/day", "/s", "-1/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
