//! `[webhook]`: which task a provider's callback is about, and how it proves that the provider sent it.

use http::HeaderName;
use serde::Deserialize;
use url::Url;

use crate::http::standard_webhooks;
use crate::provider::pointer::Pointer;
use crate::provider::pointer::Pointers;

/// `[webhook]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The task's ID in the body, the first that is there: all that is ever taken from it.
    pub id: Pointers,
    /// Which callbacks are about tasks; absent = all.
    pub only: Option<Only>,
    /// How the sender proves itself, besides the token in the address.
    #[serde(default)]
    pub verify: Verify,
    /// A value that is sent back under its own name, by which the provider tells that the address is ours.
    pub echo: Option<Pointer>,
}

/// `only`: `{ pointer = "/type", values = ["video.completed"] }`. Where nothing stands there it is about a task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Only {
    /// Where a callback says what it tells of.
    pub pointer: Pointer,
    /// What it says there if that is a task.
    pub values: Vec<String>,
}

/// How a callback proves that the provider sent it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "VerifyForm")]
pub enum Verify {
    /// By nothing but the token in the address.
    #[default]
    UrlToken,
    /// By HMAC-SHA256 with a key that both have.
    Hmac {
        /// What is signed, and where the signature stands.
        signed: Signed,
        /// How the key is written.
        key: Encoding,
        /// What may stand before the key and is no part of it.
        key_prefix: String,
    },
    /// By Ed25519 with a key that the provider publishes.
    Ed25519Jwks {
        /// What is signed, and where the signature stands.
        signed: Signed,
        /// Where the keys are.
        jwks: Url,
    },
}

/// A signature over what a template makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What is signed.
    pub template: Vec<Piece>,
    /// The header with the signature, or several between spaces.
    pub header: HeaderName,
    /// What stands before each signature.
    pub prefix: String,
    /// How a signature is written.
    pub encoding: Encoding,
    /// The header with the time of signing in unix seconds; one that is long past is a recording.
    pub timestamp: Option<HeaderName>,
}

/// A piece of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// `{body}`
    Body,
    /// `{body_sha256}`, hexadecimal.
    BodySha256,
    /// `{id}`, the task's.
    Id,
    /// `{header.NAME}`
    Header(HeaderName),
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
    /// As they are: a key only.
    Text,
}

/// `verify` as written; an enum that carries its tag inside would lose the key from its errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyForm {
    scheme: Scheme,
    template: Option<String>,
    header: Option<String>,
    prefix: Option<String>,
    encoding: Option<Encoding>,
    key: Option<Encoding>,
    key_prefix: Option<String>,
    timestamp: Option<String>,
    jwks: Option<Url>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scheme {
    UrlToken,
    Standard,
    Hmac,
    Ed25519Jwks,
}

impl TryFrom<VerifyForm> for Verify {
    type Error = String;

    fn try_from(form: VerifyForm) -> Result<Self, String> {
        let is_bare = form.template.is_none()
            && form.header.is_none()
            && form.prefix.is_none()
            && form.encoding.is_none()
            && form.timestamp.is_none();
        let says_key = form.key.is_some() || form.key_prefix.is_some();
        match form.scheme {
            Scheme::UrlToken | Scheme::Standard if !is_bare || says_key || form.jwks.is_some() => {
                Err("the schemes \"url_token\" and \"standard\" have nothing to set".to_owned())
            }
            Scheme::UrlToken => Ok(Verify::UrlToken),
            Scheme::Standard => Ok(Verify::Hmac {
                signed: standard(),
                key: Encoding::Base64,
                key_prefix: "whsec_".to_owned(),
            }),
            Scheme::Hmac if form.jwks.is_some() => {
                Err("`jwks` goes with the scheme \"ed25519_jwks\"".to_owned())
            }
            Scheme::Hmac => Ok(Verify::Hmac {
                key: form.key.unwrap_or(Encoding::Text),
                key_prefix: form.key_prefix.clone().unwrap_or_default(),
                signed: form.signed()?,
            }),
            Scheme::Ed25519Jwks if says_key => {
                Err("`key` and `key_prefix` go with the scheme \"hmac\"".to_owned())
            }
            Scheme::Ed25519Jwks => Ok(Verify::Ed25519Jwks {
                jwks: form.jwks.clone().ok_or("`jwks` is missing")?,
                signed: form.signed()?,
            }),
        }
    }
}

impl VerifyForm {
    fn signed(self) -> Result<Signed, String> {
        let header = |name: &str| {
            name.parse::<HeaderName>()
                .map_err(|_| format!("{name:?} is no header's name"))
        };
        let encoding = self.encoding.unwrap_or(Encoding::Hex);
        if encoding == Encoding::Text {
            return Err("a signature is written in \"hex\" or \"base64\"".to_owned());
        }
        Ok(Signed {
            template: template(self.template.as_deref().unwrap_or("{body}"))?,
            header: header(self.header.as_deref().ok_or("`header` is missing")?)?,
            prefix: self.prefix.unwrap_or_default(),
            encoding,
            timestamp: self.timestamp.as_deref().map(header).transpose()?,
        })
    }
}

/// What Standard Webhooks sign.
fn standard() -> Signed {
    let [id, timestamp, header] = [
        standard_webhooks::ID,
        standard_webhooks::TIMESTAMP,
        standard_webhooks::SIGNATURE,
    ]
    .map(HeaderName::from_static);
    let dot = || Piece::Text(".".to_owned());
    Signed {
        template: vec![
            Piece::Header(id),
            dot(),
            Piece::Header(timestamp.clone()),
            dot(),
            Piece::Body,
        ],
        header,
        prefix: "v1,".to_owned(),
        encoding: Encoding::Base64,
        timestamp: Some(timestamp),
    }
}

/// Reads a template: text with pieces in braces.
fn template(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| format!("{text:?} has a brace that does not end"))?;
        pieces.push(piece(name)?);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    if pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) {
        return Err(format!("{text:?} signs nothing of a request"));
    }
    Ok(pieces)
}

fn piece(name: &str) -> Result<Piece, String> {
    match (name, name.strip_prefix("header.")) {
        ("body", _) => Ok(Piece::Body),
        ("body_sha256", _) => Ok(Piece::BodySha256),
        ("id", _) => Ok(Piece::Id),
        (_, Some(header)) => header
            .parse()
            .map(Piece::Header)
            .map_err(|_| format!("{header:?} is no header's name")),
        (_, None) => Err(format!(
            "{{{name}}} is none of {{body}}, {{body_sha256}}, {{id}} and {{header.NAME}}"
        )),
    }
}
