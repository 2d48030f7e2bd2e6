//! Keys that a provider publishes for its signatures: fetched when needed, kept for a day, looked for anew when none
//! fits, and no more often than that makes sense.

use std::time::Duration;

use aws_lc_rs::signature;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::http::Http;
use crate::http::body;
use crate::provider::base64;
use crate::provider::hook::HookError;
use crate::units::ByteSize;

/// Keys are taken as the provider's for this long; it changes them with notice.
const KEPT: Duration = Duration::from_hours(24);

/// Callbacks that fit no key make us look for new ones this often at most, whoever sends them.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// A set of keys is a few hundred bytes.
const SET_BYTES_MAX: ByteSize = ByteSize::bytes(64 << 10);

/// The provider waits for our answer meanwhile.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// More keys than anybody rotates are not tried.
const KEYS_MAX: usize = 16;

/// The published keys.
#[derive(Debug)]
pub(super) struct Jwks {
    url: Url,
    http: Http,
    /// The lock is held over a fetch: whoever comes meanwhile waits for the same keys.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Vec<Vec<u8>>,
    fetched_at: Option<Instant>,
    /// When they were last asked for, in vain or not.
    asked_at: Option<Instant>,
}

/// The form of RFC 7517, as far as Ed25519 goes.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    crv: Option<String>,
    x: Option<String>,
}

impl Jwks {
    pub(super) fn new(url: Url, http: Http) -> Self {
        Self {
            url,
            http,
            kept: Mutex::default(),
        }
    }

    /// Whether one of `tags` over `message` is by one of the keys.
    pub(super) async fn verify(&self, message: &[u8], tags: &[Vec<u8>]) -> Result<(), HookError> {
        let mut kept = self.kept.lock().await;
        let is_fresh =
            |at: Option<Instant>, span: Duration| at.is_some_and(|at| at.elapsed() < span);
        if is_fresh(kept.fetched_at, KEPT) && fits(&kept.keys, message, tags) {
            return Ok(());
        }
        if is_fresh(kept.asked_at, LOOK_EVERY) {
            return if is_fresh(kept.fetched_at, KEPT) {
                Err(HookError::Forged("no signature fits".to_owned()))
            } else {
                Err(HookError::NoKeys("they were asked for just now".to_owned()))
            };
        }
        kept.asked_at = Some(Instant::now());
        match tokio::time::timeout(FETCH_TIME, self.fetch()).await {
            Ok(Ok(keys)) => {
                kept.keys = keys;
                kept.fetched_at = Some(Instant::now());
            }
            // Keys that were good a moment ago did not fit, and no others are to be had: who signed it is unknown.
            Ok(Err(what)) => return Err(HookError::NoKeys(what)),
            Err(_) => return Err(HookError::NoKeys("no answer in time".to_owned())),
        }
        if fits(&kept.keys, message, tags) {
            Ok(())
        } else {
            Err(HookError::Forged("no signature fits".to_owned()))
        }
    }

    async fn fetch(&self) -> Result<Vec<Vec<u8>>, String> {
        let request = http::Request::get(self.url.as_str()).body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.http.send(request).await;
        let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
        if !head.status.is_success() {
            return Err(format!("{} answers {}", self.url.path(), head.status));
        }
        let body = body::collect(body, SET_BYTES_MAX).await;
        let body = body.map_err(|error| error.to_string())?;
        let set: Set = serde_json::from_slice(&body).map_err(|_| "no set of keys".to_owned())?;
        let keys: Vec<Vec<u8>> = set
            .keys
            .into_iter()
            .filter(|key| key.crv.as_deref().is_none_or(|crv| crv == "Ed25519"))
            .filter_map(|key| base64::decode(&key.x?))
            .take(KEYS_MAX)
            .collect();
        if keys.is_empty() {
            return Err("no Ed25519 key is among them".to_owned());
        }
        Ok(keys)
    }
}

fn fits(keys: &[Vec<u8>], message: &[u8], tags: &[Vec<u8>]) -> bool {
    keys.iter().any(|key| {
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, key);
        tags.iter().any(|tag| key.verify(message, tag).is_ok())
    })
}
