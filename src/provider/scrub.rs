//! Foreign words made fit for logs, rows and terminals: no key, no URL's query, no control character, no great length.

use std::borrow::Cow;

use crate::secret::Secret;
use crate::telemetry::redact;

/// The most characters of a message that are kept.
pub(super) const MESSAGE_CHARS: usize = 300;

/// The most characters of a status, a code, a model's name that are kept.
pub(super) const WORD_CHARS: usize = 100;

/// What may be shown of `text`: at most `chars_max` characters, and `key` never.
pub(super) fn scrub(text: &str, chars_max: usize, key: Option<&Secret>) -> String {
    let keyless = match key {
        Some(key) if text.contains(key.expose()) => Cow::Owned(text.replace(key.expose(), "***")),
        Some(_) | None => Cow::Borrowed(text),
    };
    let shown = redact::scrub(keyless.trim());
    match shown.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let key = Secret::new("canary-key");
        assert_eq!(scrub(text, 60, Some(&key)), expected);
    }

    #[test]
    fn keeps_what_may_be_shown() {
        check("no such task", "no such task");
        check("is it \"ready\"? ask", "is it \"ready\"? ask");
        check("invalid_api_key", "invalid_api_key");
        check("", "");
        check(" padded \r\n", "padded");
        check("line\nline\u{1b}[31m", "line\\nline\\u{1b}[31m");
        check("no key canary-key here", "no key *** here");
        check(
            "cannot read https://a/b?X-Amz-Signature=s now",
            "cannot read https://a/b?… now",
        );
        check(&"ü".repeat(61), &("ü".repeat(60) + "…"));
        check(&"ü".repeat(60), &"ü".repeat(60));
    }
}
