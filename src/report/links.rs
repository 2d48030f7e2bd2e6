//! Durable links: where the archived copy of an asset can be had, for whoever asks instead of the link that dies.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde::Serialize;
use url::Url;

use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetState;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ObjectState;
use crate::model::task::TaskKey;
use crate::secret::Secret;
use crate::store::Store;
use crate::store::StoreError;
use crate::units::Span;

/// What of a name is written otherwise in a path or a query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A name as it stands in a path or a query.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The length of a seal: nobody guesses 128 bits.
const SEAL_BYTES: usize = 16;

/// `[links]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What a durable link is.
    pub kind: Kind,
    /// How long a presigned link lives.
    pub presigned: Span,
}

/// What a durable link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The object under its destination's `public_url`; without one, as `Daemon`.
    Public,
    /// An address of this daemon, which leads to the object whenever it is called.
    Daemon,
    /// A link that the store signed, for a time; where it cannot, as `Daemon`.
    Presigned,
}

/// What links are made of.
#[derive(Clone, Debug)]
pub struct Links {
    /// `[links]`
    pub config: Config,
    /// The destinations.
    pub stores: BTreeMap<DestinationName, Store>,
    /// What a key is added to, where a destination is public.
    pub public: BTreeMap<DestinationName, Url>,
    /// What addresses of this daemon begin with; none where it has no listener.
    pub base: Option<Url>,
    /// Where the daemon asks for a token, its own links carry a proof instead, which only this secret makes.
    pub token: Option<Secret>,
    /// The secret before that one, whose proofs were given out and are still good.
    pub token_old: Option<Secret>,
}

/// Where the bytes of an asset are.
pub enum Bytes {
    /// Whoever wants them is sent there.
    Elsewhere(Url),
    /// They are read here.
    Here(Store, ObjectKey),
}

impl Links {
    /// The durable link of an asset; none before it is archived, and where no kind of link can be made.
    pub async fn durable(
        &self,
        task: &TaskKey,
        asset: &AssetRecord,
    ) -> Result<Option<Url>, StoreError> {
        if asset.state != AssetState::Archived {
            return Ok(None);
        }
        let own = || self.own(task, asset.index);
        match self.config.kind {
            Kind::Daemon => match own() {
                Some(own) => Ok(Some(own)),
                None => self.presigned(asset).await,
            },
            Kind::Public => match self.public(asset).or_else(own) {
                Some(link) => Ok(Some(link)),
                None => self.presigned(asset).await,
            },
            Kind::Presigned => match self.presigned(asset).await? {
                Some(link) => Ok(Some(link)),
                None => Ok(own().or_else(|| self.public(asset))),
            },
        }
    }

    /// Where to get an asset now; none where no copy is at a destination that is configured.
    pub async fn bytes(&self, asset: &AssetRecord) -> Result<Option<Bytes>, StoreError> {
        if let Some(link) = self.public(asset) {
            return Ok(Some(Bytes::Elsewhere(link)));
        }
        if let Some(link) = self.presigned(asset).await? {
            return Ok(Some(Bytes::Elsewhere(link)));
        }
        let here = self.copies(asset).next();
        Ok(here.map(|(_, store, key)| Bytes::Here(store.clone(), key.clone())))
    }

    /// The address of this daemon that leads to an asset.
    pub fn own(&self, task: &TaskKey, index: AssetIndex) -> Option<Url> {
        let (id, provider) = (escaped(task.id.as_str()), escaped(task.provider.as_str()));
        let base = self.base.as_ref()?.as_str().trim_end_matches('/');
        let seal = self.token.as_ref().map(|token| seal(token, task, index));
        let seal = seal.map(|seal| format!("&sig={seal}")).unwrap_or_default();
        let url = format!("{base}/api/v1/tasks/{id}/assets/{index}?provider={provider}{seal}");
        url.parse().ok()
    }

    /// Whether `shown` is the proof in this daemon's own link to an asset.
    pub fn is_sealed(&self, task: &TaskKey, index: AssetIndex, shown: &str) -> bool {
        let tokens = self.token.iter().chain(&self.token_old);
        tokens.fold(false, |is_one, token| {
            is_one | Secret::new(&seal(token, task, index)).is(shown)
        })
    }

    fn public(&self, asset: &AssetRecord) -> Option<Url> {
        self.copies(asset).find_map(|(object, _, key)| {
            let base = self.public.get(&object.destination)?.as_str();
            let key: Vec<String> = key.as_str().split('/').map(escaped).collect();
            format!("{}/{}", base.trim_end_matches('/'), key.join("/"))
                .parse()
                .ok()
        })
    }

    async fn presigned(&self, asset: &AssetRecord) -> Result<Option<Url>, StoreError> {
        for (_, store, key) in self.copies(asset) {
            if let Some(link) = store.presign(key, self.config.presigned).await? {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }

    /// The archived copies at destinations that are configured, in the order of the route.
    fn copies<'a>(
        &'a self,
        asset: &'a AssetRecord,
    ) -> impl Iterator<Item = (&'a ObjectRecord, &'a Store, &'a ObjectKey)> {
        let archived = asset
            .objects
            .iter()
            .filter(|object| object.state == ObjectState::Archived);
        archived.filter_map(|object| {
            Some((
                object,
                self.stores.get(&object.destination)?,
                object.key.as_ref()?,
            ))
        })
    }
}

/// The proof that a link to an asset is ours.
fn seal(token: &Secret, task: &TaskKey, index: AssetIndex) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes());
    let what = format!("reelvault asset\n{}\n{}\n{index}", task.provider, task.id);
    let tag = hmac::sign(&key, what.as_bytes());
    let bytes = tag.as_ref().iter().take(SEAL_BYTES);
    bytes.fold(String::new(), |seal, byte| format!("{seal}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_outlives_the_token_that_it_was_sealed_with() {
        let links = |token: Option<&str>, token_old: Option<&str>| Links {
            config: Config {
                kind: Kind::Daemon,
                presigned: Span::from_secs(1),
            },
            stores: BTreeMap::new(),
            public: BTreeMap::new(),
            base: Some("https://archive.example.com".parse().unwrap()),
            token: token.map(Secret::new),
            token_old: token_old.map(Secret::new),
        };
        let task = TaskKey {
            provider: "evolink".parse().unwrap(),
            id: "t-1".parse().unwrap(),
        };
        let index = AssetIndex(0);
        let given = links(Some("one"), None).own(&task, index).unwrap();
        let (_, seal) = given.as_str().split_once("&sig=").unwrap();
        let check = |token, token_old, expected| {
            let links = links(token, token_old);
            assert_eq!(
                links.is_sealed(&task, index, seal),
                expected,
                "{token:?} {token_old:?}"
            );
            assert!(!links.is_sealed(&task, AssetIndex(1), seal));
        };
        check(Some("one"), None, true);
        check(Some("two"), Some("one"), true);
        check(Some("two"), None, false);
        check(None, None, false);
        assert_ne!(
            links(Some("two"), Some("one")).own(&task, index).unwrap(),
            given
        );
    }
}
