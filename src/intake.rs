//! The intake stage: the one door by which a task becomes known. It validates, writes, and the rest follows.

pub mod api;
pub mod discover;
pub mod gateway;
pub mod hooks;
pub mod import;
pub mod line;
pub mod spool;

use url::Url;

use crate::clock::Timestamp;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Learned;
use crate::manifest::row::NewLink;
use crate::manifest::row::NewTask;
use crate::manifest::row::ObjectPlan;
use crate::manifest::row::SeenAsset;
use crate::model::asset::AssetRole;
use crate::model::deadline;
use crate::model::deadline::Deadline;
use crate::model::digest::Sha256Digester;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::ResultLink;
use crate::model::task::Tags;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::provider::signature;
use crate::units::Span;

/// A task as somebody announced it.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Its names.
    pub key: TaskKey,
    /// Its labels.
    pub tags: Tags,
    /// How it came.
    pub via: LearnedVia,
    /// How long its provider's links live.
    pub ttl: Span,
    /// Where whoever announced it wants to be called once it is archived, failed or lost.
    pub callback: Option<Url>,
}

/// So many tasks that are announced together are somebody's who waits for them, and are asked about before all that is due
/// by itself. More are a list, whose tasks wait for their turn.
pub const ASKED_FOR_MAX: usize = 20;

/// Learns tasks, each once: announcing a known task again changes nothing but the tags and the callback that it
/// lacked.
pub async fn learn(
    manifest: &Manifest,
    announced: Vec<Announcement>,
    now: Timestamp,
) -> Result<Vec<Learned>, ManifestError> {
    let next_look_at = if announced.len() <= ASKED_FOR_MAX {
        Timestamp::EPOCH
    } else {
        now
    };
    let new_task = |it: Announcement| NewTask {
        deadline: earliest(now, it.ttl, None, None),
        key: it.key,
        tags: it.tags,
        via: it.via,
        next_look_at,
        callback: it.callback,
    };
    manifest
        .learn(announced.into_iter().map(new_task).collect())
        .await
}

/// Learns tasks that the list of `provider` tells of, with the time that each was made where the row says so: the deadline
/// of one is counted from there, so that the oldest links go first.
pub async fn learn_listed(
    manifest: &Manifest,
    provider: &ProviderName,
    listed: Vec<(TaskId, Option<Timestamp>)>,
    ttl: Span,
    now: Timestamp,
) -> Result<Vec<Learned>, ManifestError> {
    let new_task = |(id, created): (TaskId, Option<Timestamp>)| NewTask {
        deadline: earliest(now, ttl, created, None),
        key: TaskKey {
            provider: provider.clone(),
            id,
        },
        tags: Tags::new(),
        via: LearnedVia::Discovery,
        next_look_at: now,
        callback: None,
    };
    manifest
        .learn(listed.into_iter().map(new_task).collect())
        .await
}

/// Learns a bare link that no task stands behind. The same link, whatever its signature, is the same task.
pub async fn learn_link(
    manifest: &Manifest,
    url: Url,
    tags: Tags,
    objects: Vec<ObjectPlan>,
    ttl: Span,
    now: Timestamp,
) -> Result<(TaskKey, Learned), ManifestError> {
    let expires = signature::expiry(&url, now);
    let key = link_key(&url);
    let new = NewLink {
        key: key.clone(),
        tags,
        asset: SeenAsset {
            deadline: earliest(now, ttl, None, expires),
            link: ResultLink {
                url,
                role: AssetRole::File,
                expires,
            },
        },
        objects,
    };
    manifest.learn_link(new).await.map(|learned| (key, learned))
}

fn earliest(
    now: Timestamp,
    ttl: Span,
    created: Option<Timestamp>,
    signature: Option<Timestamp>,
) -> Deadline {
    deadline::deadline(&deadline::Known {
        expires: None,
        signature,
        completed: None,
        created,
        last_unfinished: None,
        learned: now,
        ttl,
    })
}

/// What the query parameters begin with that only sign a link, in lower case.
const SIGNING: [&str; 3] = ["x-amz-", "x-tos-", "x-goog-"];

/// The query parameters that only sign a link, in lower case.
const SIGNING_WORDS: [&str; 8] = [
    "expires",
    "signature",
    "sig",
    "key-pair-id",
    "policy",
    "se",
    "st",
    "awsaccesskeyid",
];

/// The task ID of a link: made from the link without what only signs it, since that changes with every answer.
fn link_key(url: &Url) -> TaskKey {
    let mut unsigned = url.clone();
    unsigned.set_fragment(None);
    let is_kept = |name: &str| {
        let name = name.to_ascii_lowercase();
        !SIGNING.iter().any(|prefix| name.starts_with(prefix))
            && !SIGNING_WORDS.contains(&name.as_str())
    };
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| is_kept(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    unsigned.set_query(None);
    if !kept.is_empty() {
        unsigned.query_pairs_mut().extend_pairs(kept);
    }
    let mut digest = Sha256Digester::new();
    digest.update(unsigned.as_str().as_bytes());
    let name: String = digest.value().to_string().chars().take(24).collect();
    TaskKey {
        provider: FETCH_PROVIDER
            .parse()
            .expect("a constant that is a provider name"),
        id: format!("link-{name}")
            .parse()
            .expect("hexadecimal digits are a task ID"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_the_same_task_whatever_its_signature() {
        let key = |url: &str| link_key(&url.parse().unwrap()).id.to_string();
        assert_eq!(
            key("https://cdn/a.mp4?sig=1"),
            key("https://cdn/a.mp4?sig=2#t")
        );
        assert_eq!(
            key("https://cdn/get?id=7&X-Amz-Signature=1&X-Amz-Date=2"),
            key("https://cdn/get?id=7&X-Amz-Signature=3")
        );
        assert_ne!(
            key("https://cdn/get?id=7&sig=1"),
            key("https://cdn/get?id=8&sig=1")
        );
        assert_ne!(key("https://cdn/a.mp4"), key("https://cdn/b.mp4"));
        assert_ne!(key("https://cdn/a.mp4"), key("https://cdn2/a.mp4"));
    }
}
