//! Redaction: URLs without what signs them, and foreign text without what looks like a secret.

use std::fmt;

use url::Url;

/// A URL as it may be printed: scheme, host and path. The query, where signatures stand, shows as `?…`.
#[derive(Clone, Copy)]
pub struct Redacted<'a>(pub &'a Url);

/// The longest path that is printed whole.
const PATH_CHARS_MAX: usize = 300;

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(host) = self.0.host() else {
            // What stands behind `data:` or `mailto:` has no parts to choose from.
            return write!(f, "{}:{CUT}", self.0.scheme());
        };
        write!(f, "{}://{host}", self.0.scheme())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        // A parsed path is ASCII, so that its bytes are its characters.
        match self.0.path().get(..PATH_CHARS_MAX) {
            Some(start) if self.0.path().len() > PATH_CHARS_MAX => write!(f, "{start}{CUT}")?,
            Some(_) | None => f.write_str(self.0.path())?,
        }
        match self.0.query() {
            Some(_) => write!(f, "?{CUT}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What stands where something was left out for its length, or for being a query.
const CUT: char = '…';

/// What stands where a secret was.
const MASK: &str = "***";

/// The longest text that [`scrub`] gives out, in characters.
const SCRUBBED_CHARS_MAX: usize = 500;

/// How much [`scrub`] reads at most: answers can be large, and only their start is told.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Makes foreign text fit to be told: an error of a library, the start of an answer's body.
///
/// Queries of URLs, credentials before a host, and what follows the name of a secret are masked; control characters
/// and those that reorder text are escaped; the length is bounded. In doubt it masks: an innocent word lost costs less
/// than a signature told.
pub fn scrub(text: &str) -> String {
    if is_plain_word(text) {
        return text.to_owned();
    }
    let text = text
        .get(..text.floor_char_boundary(READ_BYTES_MAX))
        .unwrap_or(text);
    let mut scrubber = Scrubber {
        told: String::new(),
        expecting: Expecting::Nothing,
    };
    for piece in text.split_inclusive(ends_word) {
        let word = piece.strip_suffix(ends_word).unwrap_or(piece);
        scrubber.word(word);
        scrubber.tell(piece.strip_prefix(word).unwrap_or_default());
    }
    bounded(&scrubber.told)
}

/// Whether nothing in `text` can be a reason to change it, as in `processing` or a model's name.
fn is_plain_word(text: &str) -> bool {
    let is_plain = |byte: u8| is_token_char(char::from(byte));
    text.len() <= SCRUBBED_CHARS_MAX && text.bytes().all(is_plain) && !is_key(text)
}

/// What ends a word: nothing that can stand unescaped in a URL's query.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '<' | '>')
}

fn bounded(text: &str) -> String {
    let mut chars = text.chars();
    let mut start: String = chars.by_ref().take(SCRUBBED_CHARS_MAX).collect();
    if chars.next().is_some() {
        start.push(CUT);
    }
    start
}

/// What the words so far make of the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expecting {
    Nothing,
    /// The name of a secret was told: a value if a colon or an equals sign comes first.
    Assignment,
    /// A secret.
    Value,
}

struct Scrubber {
    told: String,
    expecting: Expecting,
}

impl Scrubber {
    fn tell(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_control() || reorders(c) {
                self.told.extend(c.escape_default());
            } else {
                self.told.push(c);
            }
        }
    }

    fn word(&mut self, word: &str) {
        if word.is_empty() {
            return;
        }
        match self.expecting {
            Expecting::Nothing => self.free_word(word),
            Expecting::Assignment => {
                self.expecting = Expecting::Nothing;
                let value = word.trim_start_matches(ASSIGNS);
                if value.len() == word.len() {
                    self.free_word(word);
                } else {
                    let (start, value) = word.split_at(word.len() - value.len());
                    self.assigned(start, value);
                }
            }
            Expecting::Value if word.chars().all(|c| ASSIGNS.contains(&c)) => self.tell(word),
            Expecting::Value if is_auth_scheme(word) => self.tell(word),
            Expecting::Value => {
                self.expecting = Expecting::Nothing;
                self.tell(MASK);
            }
        }
    }

    /// Tells `start`, and `value`, which stands for a secret, masked.
    fn assigned(&mut self, start: &str, value: &str) {
        self.tell(start);
        if value.is_empty() || is_auth_scheme(value) {
            self.tell(value);
            self.expecting = Expecting::Value;
        } else {
            self.tell(MASK);
        }
    }

    fn free_word(&mut self, word: &str) {
        let (word, query) = split_query(word);
        let (scheme, rest) = split_credentials(word);
        self.tell(scheme);
        match split_assignment(rest) {
            Some((start, value)) => self.assigned(start, value),
            None => self.plain_word(rest),
        }
        if query {
            self.tell("?");
            self.told.push(CUT);
        }
    }

    fn plain_word(&mut self, word: &str) {
        if is_auth_scheme(word) {
            self.expecting = Expecting::Value;
        } else if names_secret(word) {
            self.expecting = Expecting::Assignment;
        }
        for token in word.split_inclusive(|c| !is_token_char(c)) {
            let bare = token.trim_end_matches(|c| !is_token_char(c));
            let end = token.strip_prefix(bare).unwrap_or_default();
            self.tell(if is_key(bare) { MASK } else { bare });
            self.tell(end);
        }
    }
}

/// Characters between the name of a secret and its value, a backslash being JSON within JSON.
const ASSIGNS: [char; 3] = [':', '=', '\\'];

/// Cuts a word at its query, also where the URL was encoded to stand in another one; says whether there was one.
fn split_query(word: &str) -> (&str, bool) {
    let marks = ["?", "%3F", "%3f"];
    let found = marks.iter().filter_map(|mark| word.split_once(mark));
    match found.min_by_key(|(start, _)| start.len()) {
        Some((start, query)) if !query.is_empty() => (start, true),
        Some(_) | None => (word, false),
    }
}

/// Splits `https://user:password@host/path` into `https://` and `host/path`; other words are all rest.
fn split_credentials(word: &str) -> (&str, &str) {
    let Some(at) = word.find("://") else {
        return ("", word);
    };
    let (scheme, rest) = word.split_at(at + "://".len());
    let end = rest.find(['/', '#', '\\']).unwrap_or(rest.len());
    let (authority, _) = rest.split_at(end);
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    (scheme, rest.split_at(host).1)
}

/// Splits `name=value` or `name:value` behind the sign, at the first name that is a secret's.
fn split_assignment(word: &str) -> Option<(&str, &str)> {
    let mut signs = word.match_indices([':', '=']);
    let (at, sign) = signs.find(|(at, _)| names_secret(word.split_at(*at).0))?;
    Some(word.split_at(at + sign.len()))
}

/// Endings of the names of secrets, in lower case and without hyphens or underscores.
const SECRET_NAMES: [&str; 11] = [
    "accesskey",
    "accesskeyid",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "password",
    "secret",
    "secretkey",
    "signature",
    "token",
];

/// Whether the last name in `text` is a secret's: `X-Amz-Signature`, `{api_key`, `&sig`.
fn names_secret(text: &str) -> bool {
    let text = text.trim_end_matches(|c| !is_token_char(c));
    let name = text.rsplit(|c| !is_token_char(c) || c == '.').next();
    let name = name
        .unwrap_or_default()
        .replace(['-', '_'], "")
        .to_ascii_lowercase();
    name == "sig" || SECRET_NAMES.iter().any(|ending| name.ends_with(ending))
}

/// Whether what follows `word` is a credential.
fn is_auth_scheme(word: &str) -> bool {
    let word = word.trim_matches(|c| !is_token_char(c));
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// How keys and tokens begin that are told apart by it: of APIs, of webhooks, of AWS, and JWTs.
const KEY_STARTS: [&str; 8] = ["sk-", "sk_", "pk_", "r8_", "whsec_", "AKIA", "ASIA", "eyJ"];

/// The shortest rest that makes such a beginning a key.
const KEY_REST_CHARS_MIN: usize = 6;

fn is_key(token: &str) -> bool {
    let mut rests = KEY_STARTS
        .iter()
        .filter_map(|start| token.strip_prefix(start));
    rests.any(|rest| rest.len() >= KEY_REST_CHARS_MIN)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Invisible characters that make text look other than it is.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_url(url: &str, printed: &str) {
        let url = Url::parse(url).unwrap();
        assert_eq!(Redacted(&url).to_string(), printed);
        assert_eq!(format!("{:?}", Redacted(&url)), printed);
    }

    #[test]
    fn urls_print_without_query_and_credentials() {
        check_url(
            "https://files.example.com/a/v.mp4",
            "https://files.example.com/a/v.mp4",
        );
        check_url(
            "https://e.com/v.mp4?X-Amz-Signature=c#f",
            "https://e.com/v.mp4?…",
        );
        check_url("https://u:canary@e.com:8443/v?", "https://e.com:8443/v?…");
        check_url("http://[::1]:9000/", "http://[::1]:9000/");
        check_url("data:text/plain,canary", "data:…");
        let long = format!("https://e.com/{}", "a".repeat(PATH_CHARS_MAX));
        let printed = format!("https://e.com/{}…", "a".repeat(PATH_CHARS_MAX - 1));
        check_url(&long, &printed);
    }

    #[track_caller]
    fn check(text: &str, scrubbed: &str) {
        assert_eq!(scrub(text), scrubbed, "{text:?}");
    }

    #[test]
    fn innocent_text_stays() {
        for text in [
            "",
            "task-unified-1774857405-abcd1234 failed: content_policy_violation",
            "no connection to api.evolink.ai: Connection refused (os error 111)",
            r#"{"error":{"code":"task_not_found","message":"no such task"}}"#,
            "is it there? no",
            "key: eu/2026/03/30/task-unified-1/00.mp4",
            "https://files.example.com/v.mp4, then https://e.com/b.mp4",
            "  two  spaces\u{a0}stay ",
            "ünïcödé bleibt",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn queries_are_cut() {
        check(
            "GET https://e.com/v?X-Sig=canary failed",
            "GET https://e.com/v?… failed",
        );
        check("/v.mp4?a=1,2;b='canary'", "/v.mp4?…");
        check(
            r#"{"url":"https://e.com/v?a=1\u0026Sig=canary","n":1}"#,
            r#"{"url":"https://e.com/v?…","n":1}"#,
        );
        check(
            "<a href=\"https://e.com/v?canary\">x</a>",
            "<a href=\"https://e.com/v?…\">x</a>",
        );
        check(
            "u=https%3A%2F%2Fe.com%2Fv%3FSig%3Dcanary",
            "u=https%3A%2F%2Fe.com%2Fv?…",
        );
        check(
            "u=https%3a%2f%2fe.com%2fv%3fSig%3dcanary",
            "u=https%3a%2f%2fe.com%2fv?…",
        );
        check("https://e.com/v?a=canary?b=canary", "https://e.com/v?…");
    }

    #[test]
    fn credentials_are_masked() {
        check("https://user:canary@e.com/v", "https://e.com/v");
        check("postgres://reelvault:can@ary@db/x", "postgres://db/x");
        check("Authorization: Bearer canary", "Authorization: Bearer ***");
        check(
            "authorization: Basic canary, next",
            "authorization: Basic *** next",
        );
        check("Authorization:Bearer canary", "Authorization:Bearer ***");
        check("sent bearer canary to e.com", "sent bearer *** to e.com");
        check("X-Api-Key: canary", "X-Api-Key: ***");
        check("api_key = canary", "api_key = ***");
        check("password=canary", "password=***");
        check("a=1&X-Amz-Signature=canary&b=2", "a=1&X-Amz-Signature=***");
        check(
            r#"{"api_key":"canary","id":7}"#,
            r#"{"api_key":"***","id":7}"#,
        );
        check(r#"{"token": "canary"}"#, r#"{"token": "***"}"#);
        check(r#"{"token":12345678,"a":1}"#, r#"{"token":***"a":1}"#);
        check(r#""{\"secret\":\"canary\"}""#, r#""{\"secret\":\"***"}""#);
        check("the token expired", "the token expired");
        check("used sk-canary-123 here", "used *** here");
        check("(eyJhbGciOi.eyJzdWIi.canary)", "(***)");
        check("AKIAIOSFODNN7EXAMPLE/20260330", "***/20260330");
    }

    #[test]
    fn control_characters_are_escaped() {
        check("a\nb\u{1b}[31mc\0", "a\\nb\\u{1b}[31mc\\u{0}");
        check("v\u{202e}4pm", "v\\u{202e}4pm");
    }

    #[test]
    fn length_is_bounded() {
        let long = "word ".repeat(1 << 18);
        let scrubbed = scrub(&long);
        assert_eq!(scrubbed.chars().count(), SCRUBBED_CHARS_MAX + 1);
        assert!(scrubbed.ends_with('…'));
        assert_eq!(
            scrub(&"ü".repeat(1 << 20)).chars().count(),
            SCRUBBED_CHARS_MAX + 1
        );
    }
}
