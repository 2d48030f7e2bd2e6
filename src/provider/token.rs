//! Tokens that are made anew from a key for every call: JSON web tokens, signed with HMAC-SHA256 (RFC 7519, RFC 7515).

use aws_lc_rs::hmac;

use crate::clock::Timestamp;
use crate::provider::base64::encode_url;
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
    let header = encode_url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", encode_url(claims.to_string().as_bytes()));
    let signer = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&signer, signed.as_bytes());
    Some(format!("{signed}.{}", encode_url(signature.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

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
