//! Standard Webhooks: how a message to somebody's endpoint is signed, and how one from somebody else is judged.
//!
//! Three headers stand beside a body: `webhook-id`, the same at every try; `webhook-timestamp`, in unix seconds; and
//! `webhook-signature`, one or several of `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. A key is
//! `whsec_` and base64. While a key is changed both are in use: whoever signs puts a signature of each, whoever
//! verifies takes one of either.

use aws_lc_rs::hmac;
use aws_smithy_types::base64;
use http::HeaderMap;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::units::Span;

/// The header with the message's ID.
pub const ID: &str = "webhook-id";

/// The header with the time at which the message was signed.
pub const TIMESTAMP: &str = "webhook-timestamp";

/// The header with the signatures.
pub const SIGNATURE: &str = "webhook-signature";

/// What a key begins with, where it is written.
const KEY_PREFIX: &str = "whsec_";

/// What a signature of this kind begins with.
const SCHEME: &str = "v1,";

/// A shorter key could be guessed; the standard advises 24.
const KEY_BYTES_MIN: usize = 16;

/// How far the clocks of both sides may be apart, and how long a message may be on its way: what is older may be
/// somebody's recording.
pub const TOLERANCE: Span = Span::from_secs(5 * 60);

/// Signatures that are tried: whoever sends more is not changing a key.
const SIGNATURES_MAX: usize = 8;

/// A longer ID is none that we would keep.
const ID_BYTES_MAX: usize = 256;

/// A key that signs and verifies. Never prints.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

/// A secret that is no key. The message never shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// What follows the prefix is not base64.
    #[error("not a signing key: write {KEY_PREFIX} and base64 after it")]
    Encoding,
    /// The key is guessable.
    #[error("a signing key of {0} bytes is too short: at least {KEY_BYTES_MIN}, better 32")]
    Short(usize),
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// A header is missing or cannot be read.
    #[error("the header {0} is missing or unreadable")]
    Header(&'static str),
    /// The message was signed too long ago, or in the future.
    #[error("the message was signed more than {TOLERANCE} from now")]
    Time,
    /// No signature fits any key.
    #[error("no signature fits")]
    Signature,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl SigningKey {
    /// Reads a key as it is written: `whsec_` and base64. The prefix may be left out.
    pub fn read(secret: &Secret) -> Result<Self, KeyError> {
        let written = secret.expose();
        let encoded = written.strip_prefix(KEY_PREFIX).unwrap_or(written);
        let bytes = base64::decode(encoded).map_err(|_| KeyError::Encoding)?;
        if bytes.len() < KEY_BYTES_MIN {
            return Err(KeyError::Short(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

/// The headers of a message with this `id`, signed at `at` by each of `keys`.
pub fn sign(keys: &[SigningKey], id: &str, at: Timestamp, body: &[u8]) -> HeaderMap {
    let seconds = at.as_unix_millis().div_euclid(1000).to_string();
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| {
            let tag = hmac::sign(&key.0, &signed(id, &seconds, body));
            format!("{SCHEME}{}", base64::encode(tag))
        })
        .collect();
    let value = |text: &str| {
        HeaderValue::from_str(text).expect("IDs, numbers and base64 are visible characters")
    };
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(ID, value(id));
    headers.insert(TIMESTAMP, value(&seconds));
    headers.insert(SIGNATURE, value(&signatures.join(" ")));
    headers
}

/// Judges a message that arrived at `now`; gives its ID, by which a repetition is told.
///
/// A signature that fits takes as long to find as one that does not: each is compared in constant time.
pub fn verify<'h>(
    keys: &[SigningKey],
    headers: &'h HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<&'h str, Distrust> {
    let read = |name: &'static str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or(Distrust::Header(name))
    };
    let id = read(ID)?;
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(Distrust::Header(ID));
    }
    let written = read(TIMESTAMP)?;
    let seconds: i64 = written.parse().map_err(|_| Distrust::Header(TIMESTAMP))?;
    let at = Timestamp::from_unix_seconds(seconds);
    if now.since(at) > TOLERANCE || at.since(now) > TOLERANCE {
        return Err(Distrust::Time);
    }
    let message = signed(id, written, body);
    let tags = read(SIGNATURE)?
        .split_ascii_whitespace()
        .filter_map(|signature| signature.strip_prefix(SCHEME))
        .take(SIGNATURES_MAX)
        .filter_map(|encoded| base64::decode(encoded).ok());
    let mut fits = false;
    for tag in tags {
        for key in keys {
            fits |= hmac::verify(&key.0, &message, &tag).is_ok();
        }
    }
    fits.then_some(id).ok_or(Distrust::Signature)
}

/// What is signed.
fn signed(id: &str, seconds: &str, body: &[u8]) -> Vec<u8> {
    [
        id.as_bytes(),
        b".".as_slice(),
        seconds.as_bytes(),
        b".",
        body,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example that the standard's own libraries are tested with.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const MESSAGE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECONDS: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    const OTHER_KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const OTHER_SIGNED: &str = "v1,78nXHjpFP0tVJQW5D0SBwmVyyW87BV/rL6MgfM/Bw44=";

    fn key(text: &str) -> SigningKey {
        SigningKey::read(&Secret::new(text)).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn signs_as_the_standard_does() {
        let headers = sign(&[key(KEY)], MESSAGE, at(SECONDS), BODY);
        assert_eq!(headers[ID], MESSAGE);
        assert_eq!(headers[TIMESTAMP], SECONDS.to_string());
        assert_eq!(headers[SIGNATURE], SIGNED);
        // Fractions of a second are not told, and so not signed.
        let late = Timestamp::from_unix_millis(SECONDS * 1000 + 999);
        assert_eq!(sign(&[key(KEY)], MESSAGE, late, BODY), headers);
    }

    #[test]
    fn while_a_key_is_changed_either_fits() {
        let headers = sign(&[key(KEY), key(OTHER_KEY)], MESSAGE, at(SECONDS), BODY);
        assert_eq!(headers[SIGNATURE], format!("{SIGNED} {OTHER_SIGNED}"));
        for only in [KEY, OTHER_KEY] {
            let id = verify(&[key(only)], &headers, BODY, at(SECONDS));
            assert_eq!(id, Ok(MESSAGE));
        }
        let old = sign(&[key(KEY)], MESSAGE, at(SECONDS), BODY);
        assert!(verify(&[key(OTHER_KEY), key(KEY)], &old, BODY, at(SECONDS)).is_ok());
        assert_eq!(
            verify(&[key(OTHER_KEY)], &old, BODY, at(SECONDS)),
            Err(Distrust::Signature)
        );
        assert_eq!(
            verify(&[], &old, BODY, at(SECONDS)),
            Err(Distrust::Signature)
        );
    }

    #[test]
    fn a_message_is_good_for_five_minutes_either_way() {
        let headers = sign(&[key(KEY)], MESSAGE, at(SECONDS), BODY);
        for offset in [-300, 0, 300] {
            assert!(verify(&[key(KEY)], &headers, BODY, at(SECONDS + offset)).is_ok());
        }
        for offset in [-301, 301, 86_400] {
            let judged = verify(&[key(KEY)], &headers, BODY, at(SECONDS + offset));
            assert_eq!(judged, Err(Distrust::Time));
        }
    }

    #[test]
    fn whatever_is_missing_or_changed_is_told() {
        let good = sign(&[key(KEY)], MESSAGE, at(SECONDS), BODY);
        let check = |name: &'static str, value: Option<&str>, expected: Distrust| {
            let mut headers = good.clone();
            headers.remove(name);
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
            let judged = verify(&[key(KEY)], &headers, BODY, at(SECONDS));
            assert_eq!(judged, Err(expected), "{name}: {value:?}");
        };
        for name in [ID, TIMESTAMP, SIGNATURE] {
            check(name, None, Distrust::Header(name));
        }
        check(ID, Some(""), Distrust::Header(ID));
        check(ID, Some(&"x".repeat(257)), Distrust::Header(ID));
        check(ID, Some("msg_other"), Distrust::Signature);
        for time in ["", "soon", "1e9", "99999999999999999999", "1614265330.0"] {
            check(TIMESTAMP, Some(time), Distrust::Header(TIMESTAMP));
        }
        check(TIMESTAMP, Some("9223372036854775807"), Distrust::Time);
        check(TIMESTAMP, Some("-1"), Distrust::Time);
        check(TIMESTAMP, Some("1614265331"), Distrust::Signature);
        let digest = SIGNED.trim_start_matches("v1,");
        for signature in [
            "",
            digest,
            &format!("v2,{digest}"),
            "v1,",
            "v1,!!",
            "v1,AAAA",
            &format!("{}{SIGNED}", "v1,AAAA ".repeat(SIGNATURES_MAX)),
        ] {
            check(SIGNATURE, Some(signature), Distrust::Signature);
        }
        let judged = verify(&[key(KEY)], &good, b"{}", at(SECONDS));
        assert_eq!(judged, Err(Distrust::Signature));
    }

    #[test]
    fn a_secret_that_is_no_key_is_not_shown() {
        let check = |text: &str, expected| {
            let error = SigningKey::read(&Secret::new(text)).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("canary"), "{error}");
        };
        check("whsec_canary!", KeyError::Encoding);
        check("whsec_", KeyError::Short(0));
        check("whsec_c2hvcnQ=", KeyError::Short(5));
        assert_eq!(format!("{:?}", key(KEY)), "***");
        // Some write keys without the prefix.
        let bare = key(KEY.trim_start_matches(KEY_PREFIX));
        let headers = sign(&[bare], MESSAGE, at(SECONDS), BODY);
        assert_eq!(headers[SIGNATURE], SIGNED);
    }

    proptest! {
        #[test]
        fn what_was_signed_is_believed_and_nothing_else(
            body: Vec<u8>,
            id in "[a-z0-9_]{1,40}",
            seconds in 0_i64..10_000_000_000,
            flipped: prop::sample::Index,
        ) {
            let headers = sign(&[key(KEY)], &id, at(seconds), &body);
            prop_assert_eq!(verify(&[key(KEY)], &headers, &body, at(seconds)), Ok(id.as_str()));
            let mut other = body.clone();
            other.push(0);
            let at_byte = flipped.index(other.len());
            other[at_byte] ^= 1;
            prop_assert!(verify(&[key(KEY)], &headers, &other, at(seconds)).is_err());
        }

        #[test]
        fn no_headers_can_panic_us(values in prop::array::uniform3("[ -~]{0,40}")) {
            let mut headers = HeaderMap::new();
            for (name, value) in [ID, TIMESTAMP, SIGNATURE].into_iter().zip(&values) {
                headers.insert(name, value.parse().unwrap());
            }
            prop_assert!(verify(&[key(KEY)], &headers, b"", at(SECONDS)).is_err());
        }
    }
}
