//! From the path that a caller sent to an address below the provider's base URL, and to no other.
//!
//! Servers differ in how they read dots, slashes and percent signs, so whatever could be read in two ways is refused
//! here. What is left is appended to the base URL as it came, and the address is believed only if a parser reads it back
//! byte for byte: no path leads above the base URL or to another host.

use url::Url;

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// `.` or `..`, in any spelling.
    #[error("the path has a segment of dots")]
    Dots,
    /// Two slashes in a row.
    #[error("the path has an empty segment")]
    Empty,
    /// A slash or a backslash that is not one, a control character, a percent sign without a number.
    #[error("the path has an escape that could be read in two ways")]
    Escape,
    /// Not ASCII, or not a path's character.
    #[error("the path has a character that does not belong there")]
    Character,
    /// The parser reads another address.
    #[error("the path does not lead where it seems to")]
    Elsewhere,
}

/// The address of `path` and `query` below `base`, all as they were sent. `path` begins with a slash.
pub(super) fn address(base: &Url, path: &str, query: Option<&str>) -> Result<Url, PathError> {
    judge(path)?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
    if query.is_some_and(|query| {
        !query
            .bytes()
            .all(|byte| is_plain(byte) || b"\\^`{|}".contains(&byte))
    }) {
        return Err(PathError::Character);
    }
    let mut text = base.as_str().trim_end_matches('/').to_owned();
    text.push_str(path);
    // The one character of a query that the parser escapes.
    let query = query.map(|query| query.replace('\'', "%27"));
    if let Some(query) = &query {
        text.push('?');
        text.push_str(query);
    }
    let url = Url::parse(&text).map_err(|_| PathError::Elsewhere)?;
    let is_same =
        url.as_str() == text && url.origin() == base.origin() && url.query() == query.as_deref();
    is_same.then_some(url).ok_or(PathError::Elsewhere)
}

fn judge(path: &str) -> Result<(), PathError> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#?\"<>\\^`{|}".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(is_plain) {
        return Err(PathError::Character);
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment.is_empty() && !is_last {
            return Err(PathError::Empty);
        }
        judge_segment(segment)?;
    }
    Ok(())
}

fn judge_segment(segment: &str) -> Result<(), PathError> {
    let decoded = decode(segment.as_bytes())?;
    // What a server that reads escapes twice would make of it; where that is none, it stays as it is.
    let twice = decode(&decoded).unwrap_or_else(|_| decoded.clone());
    for read in [&decoded, &twice] {
        if read
            .iter()
            .any(|byte| b"/\\".contains(byte) || byte.is_ascii_control())
        {
            return Err(PathError::Escape);
        }
        // Some servers cut off what follows a semicolon before they look at dots.
        let name = read.split(|byte| *byte == b';').next().unwrap_or_default();
        if matches!(name, b"." | b"..") {
            return Err(PathError::Dots);
        }
    }
    Ok(())
}

/// The bytes with each escape read once.
fn decode(bytes: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut left = bytes;
    while let Some((byte, rest)) = left.split_first() {
        left = rest;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, rest) = left.split_at_checked(2).ok_or(PathError::Escape)?;
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(value.ok_or(PathError::Escape)?);
        left = rest;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Url {
        "https://api.example.com/base".parse().unwrap()
    }

    #[track_caller]
    fn check(path: &str, expected: Result<&str, PathError>) {
        let got = address(&base(), path, None);
        assert_eq!(
            got.as_ref().map(Url::as_str).map_err(|why| *why),
            expected,
            "{path}"
        );
    }

    #[test]
    fn what_can_be_read_in_one_way_passes_as_it_is() {
        check("/v1/tasks/a", Ok("https://api.example.com/base/v1/tasks/a"));
        check("/v1/tasks/", Ok("https://api.example.com/base/v1/tasks/"));
        check("/", Ok("https://api.example.com/base/"));
        check(
            "/a%20b/%C3%BC/x:y@z;v=1/..a/a..",
            Ok("https://api.example.com/base/a%20b/%C3%BC/x:y@z;v=1/..a/a.."),
        );
        check("/a%2525", Ok("https://api.example.com/base/a%2525"));
        let with_query = address(&base(), "/a", Some("b=%2e%2e/../c&d={e}|f"));
        assert_eq!(
            with_query.unwrap().as_str(),
            "https://api.example.com/base/a?b=%2e%2e/../c&d={e}|f"
        );
        let empty = address(&base(), "/a", Some(""));
        assert_eq!(empty.unwrap().as_str(), "https://api.example.com/base/a?");
    }

    #[test]
    fn tricks_are_refused() {
        for dots in [
            "/..",
            "/../x",
            "/a/../../x",
            "/./x",
            "/%2e%2e/x",
            "/.%2E/x",
            "/%2e",
            "/..;/x",
            "/..;a=b/x",
            "/%252e%252e/x",
            "/.%252e/x",
            "/%2e%2e%3b/x",
        ] {
            check(dots, Err(PathError::Dots));
        }
        for escape in [
            "/a%2fb",
            "/a%2F..%2Fb",
            "/a%5cb",
            "/a%252fb",
            "/a%255Cb",
            "/a%00",
            "/a%0d%0aHost:x",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a%2500",
        ] {
            check(escape, Err(PathError::Escape));
        }
        for empty in ["//x", "/a//b", "//evil.example/x", "///"] {
            check(empty, Err(PathError::Empty));
        }
        for character in [
            "",
            "a",
            "http://evil.example/",
            "/a\\b",
            "/a b",
            "/ü",
            "/a\tb",
            "/a\r\nb",
            "/a#b",
            "/a?b",
            "/a\u{0}",
        ] {
            check(character, Err(PathError::Character));
        }
        assert_eq!(
            address(&base(), "/a", Some("b#c")),
            Err(PathError::Character)
        );
        assert_eq!(
            address(&base(), "/a", Some("b c")),
            Err(PathError::Character)
        );
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_base(path in "/?([a.%;/\\\\:@?#ü ]|%2[eEfF]|%5[cC]|%25|\\.\\.|//|[!-~]){0,12}", query in prop::option::of("[ -~]{0,12}")) {
            if let Ok(url) = address(&base(), &path, query.as_deref()) {
                prop_assert_eq!(url.origin(), base().origin());
                prop_assert!(url.path().starts_with("/base/"), "{}", url);
                prop_assert_eq!(url.path(), format!("/base{path}"));
                prop_assert_eq!(url.query().map(str::to_owned), query.map(|query| query.replace('\'', "%27")));
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
            }
        }

        #[test]
        fn no_bytes_panic_it(path in "\\PC{0,60}", query in "\\PC{0,60}") {
            drop(address(&base(), &path, Some(&query)));
        }
    }
}
