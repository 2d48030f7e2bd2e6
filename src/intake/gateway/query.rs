//! The callback of a submission where it travels in the query: ours put in, the caller's own taken out.

use url::Url;
use url::form_urlencoded;

/// The query with `ours` as parameter `name`, and the values that were there, decoded; the others stay as they were
/// sent.
pub(super) fn swap(
    query: Option<&str>,
    name: &str,
    ours: Option<&Url>,
) -> (Option<String>, Vec<String>) {
    let mut kept: Vec<String> = Vec::new();
    let mut taken = Vec::new();
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        match form_urlencoded::parse(pair.as_bytes()).next() {
            Some((own, value)) if own == name => taken.push(value.into_owned()),
            Some(_) | None => kept.push(pair.to_owned()),
        }
    }
    if let Some(ours) = ours {
        let pair = form_urlencoded::Serializer::new(String::new())
            .append_pair(name, ours.as_str())
            .finish();
        kept.push(pair);
    }
    let is_empty = kept.is_empty();
    ((!is_empty).then(|| kept.join("&")), taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: Option<&str>, ours: Option<&str>, expected: Option<&str>, taken: &[&str]) {
        let ours = ours.map(|ours| ours.parse().unwrap());
        let (swapped, out) = swap(query, "hook", ours.as_ref());
        assert_eq!(swapped.as_deref(), expected);
        assert_eq!(out, taken);
    }

    #[test]
    fn only_the_parameter_changes() {
        check(None, None, None, &[]);
        check(Some("a=1&b=%7e"), None, Some("a=1&b=%7e"), &[]);
        check(
            None,
            Some("https://o/h?t=1&u"),
            Some("hook=https%3A%2F%2Fo%2Fh%3Ft%3D1%26u"),
            &[],
        );
        check(
            Some("a=1&hook=https%3A%2F%2Fc%2F&b"),
            None,
            Some("a=1&b"),
            &["https://c/"],
        );
        check(
            Some("h%6fok=x&hook&hooks=y"),
            Some("https://o/"),
            Some("hooks=y&hook=https%3A%2F%2Fo%2F"),
            &["x", ""],
        );
        check(Some("hook=x"), None, None, &["x"]);
        check(Some(""), None, Some(""), &[]);
    }
}
