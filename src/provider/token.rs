//! Tokens that are made anew from a key for every call: JSON web tokens, signed with HMAC-SHA256 (RFC 7519, RFC 7515).

use aws_lc_rs::hmac;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::units::Span;

/// How long a token holds: far longer than a call takes, short enough to be of no use to who finds it.
const LIFE: Span = Span::from_secs(1800);

/// A token holds from a little before now: the other side's clock may be behind.
const LEEWAY_SECONDS: i64 = 5;

/// The token for a key of the form `ACCESS:SECRET` at `now`; `None` where the key has another form.
pub(super) fn mint(key: &Secret, now: Timestamp) -> Option<String> {
    let (access, secret) = key.expose().split_once(':')?;
    let seconds = now.as_unix_millis() / 1000;
    let end = now.plus(LIFE).as_unix_millis() / 1000;
    let claims = serde_json::json!({ "iss": access, "exp": end, "nbf": seconds - LEEWAY_SECONDS });
    let header = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", base64url(claims.to_string().as_bytes()));
    let signer = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&signer, signed.as_bytes());
    Some(format!("{signed}.{}", base64url(signature.as_ref())))
}

/// Base64 in the alphabet of URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits =
            [18, 12, 6, 0].map(|shift| usize::try_from(bits >> shift & 63).unwrap_or_default());
        // One byte takes two digits, two bytes take three.
        for digit in digits.iter().take(chunk.len() + 1) {
            text.push(
                DIGITS
                    .get(*digit)
                    .copied()
                    .map(char::from)
                    .unwrap_or_default(),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_rfc_4648() {
        for (plain, expected) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("??>", "Pz8-"),
            ("\u{7ff}", "378"),
        ] {
            assert_eq!(base64url(plain.as_bytes()), expected, "{plain}");
        }
        assert_eq!(base64url(&[0xff, 0xef, 0xff]), "_-__");
    }

    /// Compared with what `openssl dgst -sha256 -hmac` makes of the same header and claims.
    #[test]
    fn a_token_is_signed_as_others_would() {
        let now = Timestamp::from_unix_seconds(1_795_528_800);
        let token = mint(&Secret::new("ak-1:sk-2"), now).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(
            signed,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
             eyJleHAiOjE3OTU1MzA2MDAsImlzcyI6ImFrLTEiLCJuYmYiOjE3OTU1Mjg3OTV9"
        );
        assert_eq!(signature, "4bSNRHp6RarTjpyFqASxzMF6Tws8rU2reBWZwMAkXIw");
        assert_eq!(mint(&Secret::new("a-plain-key"), now), None);
    }
}
