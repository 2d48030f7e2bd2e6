//! Callbacks of a provider: whether it sent one, and which task that is about. Nothing else in one is believed.

mod jwks;

use std::borrow::Cow;

use aws_lc_rs::hmac;
use aws_smithy_types::base64;
use http::HeaderMap;
use http::HeaderName;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::http::Http;
use crate::http::standard_webhooks::TOLERANCE;
use crate::model::digest::Sha256Digester;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::provider::Config;
use crate::provider::ConnectError;
use crate::provider::answer::as_text;
use crate::provider::description::webhook::Encoding;
use crate::provider::description::webhook::Only;
use crate::provider::description::webhook::Piece;
use crate::provider::description::webhook::Signed;
use crate::provider::description::webhook::Verify;
use crate::provider::description::webhook::Webhook;
use crate::provider::hook::jwks::Jwks;
use crate::provider::json;
use crate::provider::pointer::Pointer;
use crate::provider::pointer::Pointers;
use crate::secret::Secret;
use crate::secret::SecretSource;

/// A shorter token in an address can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

/// What of a token is written otherwise in an address.
const TOKEN_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Signatures of one callback that are tried: whoever sends more is not changing a key.
const SIGNATURES_MAX: usize = 8;

/// What a callback said, once it is known who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSaid {
    /// The task that it is about; none in a call that only tries whether the address is ours, or tells of something else.
    pub id: Option<TaskId>,
    /// What has to be sent back.
    pub echo: Option<Value>,
}

/// A callback that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Nothing proves that the provider sent it, or it is a recording.
    #[error("{0}")]
    Forged(String),
    /// It is about no task.
    #[error("{0}")]
    Garbled(String),
    /// The provider's keys cannot be had now.
    #[error("the provider's keys cannot be had: {0}")]
    NoKeys(String),
}

/// How callbacks of one provider are judged.
#[derive(Debug)]
pub(super) struct Hook {
    tokens: Vec<Secret>,
    id: Pointers,
    only: Option<Only>,
    echo: Option<(String, Pointer)>,
    proof: Proof,
}

/// What proves a callback, with the keys to it.
#[derive(Debug)]
enum Proof {
    Token,
    Hmac(Signed, Vec<HmacKey>),
    Ed25519(Signed, Jwks),
}

/// Never prints.
struct HmacKey(hmac::Key);

impl std::fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Hook {
    /// Reads what `[provider.NAME]` says about callbacks; none where it wants none.
    pub(super) fn read(
        name: &ProviderName,
        config: &Config,
        webhook: Option<&Webhook>,
        http: &Http,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConnectError> {
        if !config.webhook {
            return Ok(None);
        }
        let wrong = |key: &'static str, what: String| ConnectError::Hook {
            provider: name.clone(),
            key,
            what,
        };
        let webhook = webhook.ok_or_else(|| {
            let what = "its description has no [webhook], so no task is to be told from a callback";
            wrong("webhook", what.to_owned())
        })?;
        let secrets = |keys: [(&'static str, &Option<SecretSource>); 2]| {
            let given = keys
                .into_iter()
                .filter_map(|(key, source)| Some((key, source.as_ref()?)));
            let read = given.map(|(key, source)| match source.read(env) {
                Ok(secret) => Ok((key, secret)),
                Err(error) => Err(wrong(key, error.to_string())),
            });
            read.collect::<Result<Vec<_>, _>>()
        };
        let mut tokens = Vec::new();
        for (key, token) in secrets([
            ("hook_secret", &config.hook_secret),
            ("hook_secret_old", &config.hook_secret_old),
        ])? {
            if token.expose().len() < TOKEN_BYTES_MIN {
                let what = format!(
                    "shorter than {TOKEN_BYTES_MIN} characters; better are 32 random bytes"
                );
                return Err(wrong(key, what));
            }
            tokens.push(token);
        }
        if config.hook_secret.is_none() {
            let what = "missing: the token in the address of its webhooks";
            return Err(wrong("hook_secret", what.to_owned()));
        }
        let keys = secrets([
            ("hook_key", &config.hook_key),
            ("hook_key_old", &config.hook_key_old),
        ])?;
        let needs_key = matches!(webhook.verify, Verify::Hmac { .. });
        if needs_key && config.hook_key.is_none() {
            let what = "missing: the key that the provider signs its webhooks with";
            return Err(wrong("hook_key", what.to_owned()));
        }
        if let (false, Some((key, _))) = (needs_key, keys.first()) {
            return Err(wrong(
                key,
                "the provider signs with no key of yours".to_owned(),
            ));
        }
        let proof = match &webhook.verify {
            Verify::UrlToken => Proof::Token,
            Verify::Hmac {
                signed,
                key: form,
                key_prefix,
            } => {
                let keys = keys.into_iter().map(|(key, secret)| {
                    let written = secret.expose();
                    let bare = written.strip_prefix(key_prefix.as_str());
                    let bytes = decode(*form, bare.unwrap_or(written));
                    let bytes = bytes.ok_or_else(|| {
                        wrong(key, "not written as the provider's keys are".to_owned())
                    })?;
                    Ok(HmacKey(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
                });
                Proof::Hmac(signed.clone(), keys.collect::<Result<_, _>>()?)
            }
            Verify::Ed25519Jwks { signed, jwks } => {
                Proof::Ed25519(signed.clone(), Jwks::new(jwks.clone(), http.clone()))
            }
        };
        let echo = webhook.echo.clone().map(|pointer| {
            let written = pointer.to_string();
            let name = written.rsplit('/').next().unwrap_or_default();
            (name.to_owned(), pointer)
        });
        Ok(Some(Self {
            tokens,
            id: webhook.id.clone(),
            only: webhook.only.clone(),
            echo,
            proof,
        }))
    }

    /// Whether `shown` is a token of the address. Each is compared, in constant time.
    pub(super) fn is_token(&self, shown: &str) -> bool {
        self.tokens
            .iter()
            .fold(false, |is_one, token| is_one | token.is(shown))
    }

    /// The path of the address, with the token that is not on its way out.
    pub(super) fn path(&self, name: &ProviderName) -> Option<String> {
        let token = self.tokens.first()?.expose();
        let token = utf8_percent_encode(token, TOKEN_ESCAPED);
        Some(format!("/hooks/{name}/{token}"))
    }

    /// A text in which a token stood, without it; none where none did.
    pub(super) fn without_tokens(&self, said: &str) -> Option<String> {
        let mut hidden = None;
        for token in &self.tokens {
            let token = token.expose();
            let written = utf8_percent_encode(token, TOKEN_ESCAPED).to_string();
            for form in [token, written.as_str()] {
                let text = hidden.as_deref().unwrap_or(said);
                if text.contains(form) {
                    hidden = Some(text.replace(form, "***"));
                }
            }
        }
        hidden
    }

    /// Judges a callback that came at `now`, and reads which task it is about.
    pub(super) async fn judge(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<HookSaid, HookError> {
        let said = self.said(body);
        let id = said.as_ref().ok().and_then(|said| said.id.as_ref());
        match &self.proof {
            Proof::Token => {}
            Proof::Hmac(signed, keys) => {
                let (message, tags) = signed.read(headers, body, id, now)?;
                let fits = tags.iter().fold(false, |fits, tag| {
                    keys.iter().fold(fits, |fits, key| {
                        fits | hmac::verify(&key.0, &message, tag).is_ok()
                    })
                });
                if !fits {
                    return Err(HookError::Forged("no signature fits".to_owned()));
                }
            }
            Proof::Ed25519(signed, jwks) => {
                let (message, tags) = signed.read(headers, body, id, now)?;
                jwks.verify(&message, &tags).await?;
            }
        }
        said
    }

    /// What the body says, whoever sent it.
    fn said(&self, body: &[u8]) -> Result<HookSaid, HookError> {
        let value = json::parse(body)
            .map_err(|why| HookError::Garbled(format!("the body is no JSON: {why}")))?;
        let echo = self.echo.as_ref().and_then(|(name, pointer)| {
            let echoed = pointer
                .first(&value)
                .filter(|it| it.is_string() || it.is_number())?;
            Some(serde_json::json!({ name.as_str(): echoed }))
        });
        let tells_of = |only: &Only| {
            let said = only.pointer.first(&value);
            let said = said.as_ref().and_then(as_text);
            said.is_none_or(|said| only.values.iter().any(|known| *known == said))
        };
        if !self.only.as_ref().is_none_or(tells_of) {
            return Ok(HookSaid { id: None, echo });
        }
        let id = self
            .id
            .find(&value, |value| as_text(value).map(Cow::into_owned));
        match id.map(|(id, _)| id.parse::<TaskId>()) {
            Some(Ok(id)) => Ok(HookSaid { id: Some(id), echo }),
            None if echo.is_some() => Ok(HookSaid { id: None, echo }),
            None => {
                let places: Vec<String> = self.id.iter().map(ToString::to_string).collect();
                let what = format!("no task ID at {}", places.join(" or "));
                Err(HookError::Garbled(what))
            }
            Some(Err(error)) => Err(HookError::Garbled(error.to_string())),
        }
    }
}

impl Signed {
    /// What is signed in a request, and the signatures that it shows.
    fn read(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        id: Option<&TaskId>,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), HookError> {
        let text = |name: &HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| {
                HookError::Forged(format!("the header {name} is missing or unreadable"))
            })
        };
        if let Some(name) = &self.timestamp {
            let seconds: i64 = text(name)?
                .parse()
                .map_err(|_| HookError::Forged(format!("the header {name} is no time")))?;
            let at = Timestamp::from_unix_seconds(seconds);
            if now.since(at) > TOLERANCE || at.since(now) > TOLERANCE {
                let what = format!("it was signed more than {TOLERANCE} from now");
                return Err(HookError::Forged(what));
            }
        }
        let mut message = Vec::new();
        for piece in &self.template {
            match piece {
                Piece::Text(text) => message.extend_from_slice(text.as_bytes()),
                Piece::Body => message.extend_from_slice(body),
                Piece::BodySha256 => {
                    let mut digest = Sha256Digester::new();
                    digest.update(body);
                    message.extend_from_slice(digest.value().to_string().as_bytes());
                }
                Piece::Id => {
                    let id = id.ok_or_else(|| HookError::Garbled("no task ID in it".to_owned()))?;
                    message.extend_from_slice(id.as_str().as_bytes());
                }
                Piece::Header(name) => message.extend_from_slice(text(name)?.as_bytes()),
            }
        }
        let tags = text(&self.header)?
            .split_ascii_whitespace()
            .filter_map(|written| written.strip_prefix(self.prefix.as_str()))
            .take(SIGNATURES_MAX)
            .filter_map(|written| decode(self.encoding, written))
            .collect();
        Ok((message, tags))
    }
}

fn decode(encoding: Encoding, written: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Text => Some(written.as_bytes().to_vec()),
        Encoding::Base64 => base64::decode(written).ok(),
        Encoding::Hex => unhex(written),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests;
