//! Which part of a file a request asks for: `Range` and `If-Range`.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header;

/// What a request wants of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Unsatisfiable,
}

/// Reads the two headers against a file of `length` bytes. A range that cannot be read, or several, is no range
/// (RFC 9110, 14.2); neither is one under an `If-Range` that names another version.
pub(super) fn wanted(headers: &HeaderMap, length: u64, etag: &str, modified: &str) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_same = text(header::IF_RANGE).is_none_or(|version| {
        // A weak one never says that bytes are the same (RFC 9110, 13.1.5).
        (version == etag && !etag.starts_with("W/")) || version == modified
    });
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    match range {
        Some(range) if is_same => part(range.trim(), length),
        Some(_) | None => Wanted::Whole,
    }
}

fn part(range: &str, length: u64) -> Wanted {
    let Some((first, last)) = range.split_once('-') else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => within(first, last.saturating_add(1), length),
        (Some(first), None) if last.is_empty() => within(first, length, length),
        (None, Some(count)) if first.is_empty() && count > 0 => {
            within(length.saturating_sub(count), length, length)
        }
        (None, Some(0)) if first.is_empty() => Wanted::Unsatisfiable,
        (Some(_) | None, Some(_) | None) => Wanted::Whole,
    }
}

fn within(start: u64, end: u64, length: u64) -> Wanted {
    if start < length {
        Wanted::Part(start..end.min(length))
    } else {
        Wanted::Unsatisfiable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, if_range: Option<&'static str>, expected: &Wanted) {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        if let Some(version) = if_range {
            headers.insert(header::IF_RANGE, version.parse().unwrap());
        }
        assert_eq!(
            wanted(&headers, 100, "\"v1\"", "then"),
            *expected,
            "{range}"
        );
    }

    #[test]
    fn ranges() {
        check("bytes=0-0", None, &Wanted::Part(0..1));
        check("bytes=10-19", None, &Wanted::Part(10..20));
        check("bytes=10-", None, &Wanted::Part(10..100));
        check("bytes=-10", None, &Wanted::Part(90..100));
        check("bytes=-1000", None, &Wanted::Part(0..100));
        check(
            "bytes=99-18446744073709551615",
            None,
            &Wanted::Part(99..100),
        );
        check("bytes=100-", None, &Wanted::Unsatisfiable);
        check("bytes=-0", None, &Wanted::Unsatisfiable);
        for odd in [
            "bytes=9-1",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=+1-2",
        ] {
            check(odd, None, &Wanted::Whole);
        }
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        check("bytes=1-2", Some("\"v1\""), &Wanted::Part(1..3));
        check("bytes=1-2", Some("then"), &Wanted::Part(1..3));
        check("bytes=1-2", Some("\"v2\""), &Wanted::Whole);
        check("bytes=1-2", Some("W/\"v1\""), &Wanted::Whole);
    }
}
