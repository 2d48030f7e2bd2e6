//! The end of life that a signed URL carries in itself, in the spellings of the clouds that sign.
//!
//! A deadline that is too late loses a video; one that is too early only hurries. So whatever is in doubt is `None`, and
//! of several ends the earliest counts.

use std::borrow::Cow;

use serde_json::Value;
use url::Url;

use crate::clock::Timestamp;
use crate::provider::base64;
use crate::units::Span;

/// The longest life that a `-Date` and `-Expires` pair can have: the clouds refuse to sign for longer than seven days.
const PAIR_LIFE_MAX: u64 = 7 * 86_400;

/// An end further away than this is a link without an end, so it says nothing; the longest life that a provider promises is
/// 30 days.
const LIFE_MAX: Span = Span::from_secs(31 * 86_400);

/// No link was signed before 2015; a smaller number is a length of time or no time at all.
const EARLIEST: i64 = 1_420_070_400;

/// A number from here on counts milliseconds: as seconds it would lie beyond the year 5000.
const MILLIS_FROM: i64 = 100_000_000_000;

/// The names of the moment of signing and of the seconds that the signature holds from then on.
const PAIRS: [(&str, &str); 4] = [
    ("x-amz-date", "x-amz-expires"),
    ("x-goog-date", "x-goog-expires"),
    ("x-tos-date", "x-tos-expires"),
    ("x-oss-date", "x-oss-expires"),
];

/// The names of Akamai's tokens: fields with `~` between them.
const EDGE_TOKENS: [&str; 4] = ["hdnts", "hdnea", "hdntl", "__token__"];

/// When the signature inside `url` ends, as seen at `now`; `None` where it carries none that makes sense.
pub fn expiry(url: &Url, now: Timestamp) -> Option<Timestamp> {
    let query = Query(url);
    let pairs = PAIRS
        .iter()
        .filter_map(|(date, life)| pair(query.get(date)?.as_ref(), query.get(life)?.as_ref()));
    let absolute = [
        query.get("expires").and_then(|text| unix(&text)),
        query.get("expiry").and_then(|text| unix(&text)),
        query.get("exp").and_then(|text| unix(&text)),
        query
            .get("q-sign-time")
            .and_then(|text| unix(text.split_once(';')?.1)),
        // Some take it for the moment of signing: then it is past, and says nothing.
        query
            .get("auth_key")
            .and_then(|text| unix(text.split_once('-')?.0))
            .filter(|at| *at > now),
        query.get("policy").and_then(|text| policy(&text)),
        // Azure; the bare name is too short to be trusted without its signature.
        query
            .get("sig")
            .and_then(|_| query.get("se"))
            .and_then(|text| Timestamp::parse(&text)),
    ];
    let edge = EDGE_TOKENS
        .iter()
        .filter_map(|name| edge_token(query.get(name)?.as_ref()));
    let tokens = url.query_pairs().filter_map(|(_, value)| token(&value));
    let ends = pairs
        .chain(absolute.into_iter().flatten())
        .chain(edge)
        .chain(tokens);
    let earliest = Timestamp::from_unix_seconds(EARLIEST);
    let sensible = ends.filter(|end| *end >= earliest && *end <= now.plus(LIFE_MAX));
    sensible.min()
}

/// A query whose names are read without regard to case. The first of equal names counts, as it does for the signers.
struct Query<'u>(&'u Url);

impl<'u> Query<'u> {
    fn get(&self, name: &str) -> Option<Cow<'u, str>> {
        let mut pairs = self.0.query_pairs();
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

/// `20261124T140000Z` and a number of seconds.
fn pair(date: &str, life: &str) -> Option<Timestamp> {
    let life: u64 = life.parse().ok()?;
    let signed = Timestamp::parse(date)?;
    (life <= PAIR_LIFE_MAX).then(|| signed.plus(Span::from_secs(life)))
}

fn unix(text: &str) -> Option<Timestamp> {
    unix_number(text.parse().ok()?)
}

fn unix_number(number: i64) -> Option<Timestamp> {
    match number {
        ..EARLIEST => None,
        EARLIEST..MILLIS_FROM => Some(Timestamp::from_unix_seconds(number)),
        MILLIS_FROM.. => Some(Timestamp::from_unix_millis(number)),
    }
}

/// `st=1795528800~exp=1795532400~acl=/*~hmac=...`
fn edge_token(text: &str) -> Option<Timestamp> {
    unix(
        text.split('~')
            .find_map(|field| field.strip_prefix("exp="))?,
    )
}

/// `CloudFront`'s own policy: base64 with `+=/` written as `-_~`, so `_` is padding here and no digit.
fn policy(text: &str) -> Option<Timestamp> {
    let json = decode_json(&text.replace('_', "=").replace('~', "/"))?;
    let statements = json.get("Statement")?.as_array()?;
    let end = |statement: &Value| {
        let pointer = "/Condition/DateLessThan/AWS:EpochTime";
        unix_number(statement.pointer(pointer)?.as_i64()?)
    };
    statements.iter().filter_map(end).min()
}

/// The `exp` of a JSON web token: three base64url parts, the first of which begins an object.
fn token(text: &str) -> Option<Timestamp> {
    let mut parts = text.split('.');
    let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !header.starts_with("eyJ") {
        return None;
    }
    let exp = decode_json(claims)?.get("exp")?.as_i64()?;
    unix_number(exp)
}

fn decode_json(text: &str) -> Option<Value> {
    serde_json::from_slice(&base64::decode(text)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-24T14:00:00Z
    const NOW: i64 = 1_795_528_800;

    fn at(query: &str) -> Option<i64> {
        let url = Url::parse(&format!("https://cdn.example.com/v.mp4?{query}")).unwrap();
        let end = expiry(&url, Timestamp::from_unix_seconds(NOW));
        end.map(|end| (end.as_unix_millis() - NOW * 1000) / 1000)
    }

    /// The end of `query`, in seconds from `NOW` on.
    #[track_caller]
    fn check(query: &str, seconds: Option<i64>) {
        assert_eq!(at(query), seconds, "{query}");
    }

    #[test]
    fn pairs_of_date_and_life() {
        check("X-Amz-Date=20261124T140000Z&X-Amz-Expires=3600", Some(3600));
        check("x-amz-expires=3600&x-amz-date=20261124T140000Z", Some(3600));
        check(
            "X-Goog-Date=20261124T133000Z&X-Goog-Expires=3600",
            Some(1800),
        );
        check(
            "X-Tos-Date=20261124T140000Z&X-Tos-Expires=86400",
            Some(86_400),
        );
        check("x-oss-date=20261124T140000Z&x-oss-expires=60", Some(60));
        check(
            "X-Amz-Date=20261123T140000Z&X-Amz-Expires=3600",
            Some(-82_800),
        );
        for nonsense in [
            "X-Amz-Expires=3600",
            "X-Amz-Date=20261124T140000Z",
            "X-Amz-Date=20261124T140000Z&X-Amz-Expires=604801",
            "X-Amz-Date=20261124T140000Z&X-Amz-Expires=-1",
            "X-Amz-Date=20261324T140000Z&X-Amz-Expires=3600",
            "X-Amz-Date=&X-Amz-Expires=",
            "X-Amz-Date=19700101T000000Z&X-Amz-Expires=3600",
            "X-Amz-Date=20991124T140000Z&X-Amz-Expires=3600",
            "X-Amz-Date=20261124T140000Z&X-Goog-Expires=3600",
        ] {
            check(nonsense, None);
        }
    }

    #[test]
    fn absolute_ends() {
        check("Expires=1795532400&Signature=x&Key-Pair-Id=K1", Some(3600));
        check("OSSAccessKeyId=a&expires=1795532400", Some(3600));
        check("Expires=1795532400000", Some(3600));
        check("exp=1795532400&sig=x", Some(3600));
        check("expiry=1795532400&sig=x", Some(3600));
        check("hdnts=exp=1795532400~acl=/*~hmac=x", Some(3600));
        check(
            "hdnea=st=1795528800~exp=1795532400~acl=%2f*~hmac=x",
            Some(3600),
        );
        check("__token__=exp%3D1795532400~hmac=x", Some(3600));
        check(
            "q-sign-algorithm=sha1&q-sign-time=1795528800;1795532400",
            Some(3600),
        );
        check("q-sign-time=1795528800%3B1795532400", Some(3600));
        check("auth_key=1795532400-0-0-abc", Some(3600));
        check("sv=2024&se=2026-11-24T15%3A00%3A00Z&sig=x", Some(3600));
        check("sv=2024&se=2026-11-24T15:00Z&sig=x", Some(3600));
        for nonsense in [
            "Expires=3600",
            "Expires=4102444800",
            "Expires=9223372036854775807",
            "Expires=99999999999999999999",
            "Expires=-1795532400",
            "Expires=Tue,%2024%20Nov%202026",
            "Expires=",
            "se=2026-11-24T15:00:00Z",
            "se=tomorrow&sig=x",
            "size=1795532400",
            "exp=30",
            "hdnts=st=1795528800~hmac=x",
            "token=exp=1795532400~hmac=x",
            "q-sign-time=1795532400",
            "auth_key=1795528800-0-0-abc",
            "auth_key=1795532400",
            "",
        ] {
            check(nonsense, None);
        }
    }

    #[test]
    fn the_first_of_equal_names_and_the_earliest_of_several_ends_count() {
        check("Expires=1795532400&Expires=1795530000", Some(3600));
        check(
            "Expires=1795532400&X-Amz-Date=20261124T140000Z&X-Amz-Expires=60",
            Some(60),
        );
    }

    fn encode(json: &str, alphabet: [char; 3]) -> String {
        let digits: Vec<char> = ('A'..='Z')
            .chain('a'..='z')
            .chain('0'..='9')
            .chain(alphabet.into_iter().take(2))
            .collect();
        let mut text = String::new();
        for chunk in json.as_bytes().chunks(3) {
            let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for i in 0..4 {
                let digit = usize::try_from(bits >> (18 - 6 * i) & 63).unwrap();
                text.push(if i > chunk.len() {
                    alphabet[2]
                } else {
                    digits[digit]
                });
            }
        }
        text
    }

    #[test]
    fn tokens() {
        let token = |claims: &str| {
            let claims = encode(claims, ['-', '_', '=']);
            format!(
                "token=eyJhbGciOiJub25lIn0.{}.c2ln",
                claims.trim_end_matches('=')
            )
        };
        check(&token(r#"{"exp":1795532400}"#), Some(3600));
        check(&token(r#"{"name":"?>ÿÿ","exp":1795532400}"#), Some(3600));
        check(&token(r#"{"exp":"soon"}"#), None);
        check(&token(r#"{"iat":1795532400}"#), None);
        check(&token("[]"), None);
        check("token=eyJ.%00.x", None);
        check("token=eyJhbGciOiJub25lIn0.e30", None);
        check("token=a.b.c", None);
    }

    #[test]
    fn cloudfront_policies() {
        let json = r#"{"Statement":[{"Resource":"https://a/*?>","Condition":{"DateLessThan":{"AWS:EpochTime":1795532400}}}]}"#;
        let policy = encode(json, ['-', '~', '_']);
        check(
            &format!("Policy={policy}&Signature=x&Key-Pair-Id=K1"),
            Some(3600),
        );
        check("Policy=e30_", None);
        check("Policy=!!!", None);
    }

    proptest! {
        #[test]
        fn no_query_panics_and_no_end_is_absurd(query in "((X-Amz-Date|X-Amz-Expires|expires|se|sig|Policy|t)=[0-9TZ.eyJA-z-]{0,20}&?){0,6}|\\PC{0,60}") {
            if let Some(seconds) = at(&query) {
                prop_assert!(seconds <= 31 * 86_400);
            }
        }
    }
}
