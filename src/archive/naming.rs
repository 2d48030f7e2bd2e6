//! An object's name: its kind by the first bytes, the key that follows, and the nonce by which it is known as ours;
//! written down before the store hears of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::archive::delivery::Delivery;
use crate::archive::delivery::of_manifest;
use crate::archive::transfer::Transfer;
use crate::manifest::ManifestError;
use crate::manifest::row::ObjectName;
use crate::model::asset::MediaType;
use crate::model::failure::Failure;
use crate::model::key::KeyValues;
use crate::model::key::ObjectKey;
use crate::origin::inspect;

/// Kinds of body that their link's extension tells well enough to look at the key before the first byte is there.
const GUESSED: [&str; 6] = ["mp4", "mov", "webm", "png", "jpg", "mp3"];

/// How long a look at a key holds: a slot may be waited for in between.
const STAYS_FREE: Duration = Duration::from_secs(10);

/// A key at which nothing stood.
pub(crate) struct FreeKey {
    key: ObjectKey,
    seen_at: Instant,
}

impl FreeKey {
    /// Whether this is the key, and was looked at lately.
    pub(crate) fn is_still(&self, key: &ObjectKey) -> bool {
        self.key == *key && self.seen_at.elapsed() < STAYS_FREE
    }
}

impl Delivery<'_> {
    /// Looks at the key that the object will most likely get, while nobody waits for it yet.
    pub(crate) async fn look_ahead(&self) -> Result<Option<FreeKey>, Failure> {
        let path = self.transfer.asset.url.path();
        let extension = path.rsplit_once('.').map(|(_, extension)| extension);
        let Some(extension) = extension.filter(|it| GUESSED.contains(it)) else {
            return Ok(None);
        };
        let (key, seen_at) = (self.key(extension)?, Instant::now());
        let found = self.find_before(&key).await?;
        Ok(found.is_none().then_some(FreeKey { key, seen_at }))
    }

    /// The body's kind by its first bytes.
    pub(crate) fn sniff(&self, head: &[u8]) -> Result<MediaType, Failure> {
        let is_checked = self.transfer.config.verify.type_check;
        let error = match inspect::sniff(head) {
            Ok(media) => return Ok(media),
            Err(error) => error,
        };
        let refusal = format!("{error} (transfer.verify.type_check)");
        match error {
            inspect::NotMedia::Empty => Err(self.transfer.refuse_late(error.to_string())),
            _ if !is_checked => Ok(inspect::untyped()),
            // Most likely of a link that has expired: a login, or a page that says so.
            inspect::NotMedia::Page(_) | inspect::NotMedia::Text { .. } => {
                Err(Failure::wrong(refusal))
            }
            inspect::NotMedia::Unknown(_) => Err(self.transfer.refuse_late(refusal)),
        }
    }

    /// The object's name: the one that an earlier try fixed if it still fits the body, else a new one, written down.
    pub(crate) async fn name(&self, media: MediaType) -> Result<ObjectName, Failure> {
        if let Some(name) = self.object.name.as_ref().filter(|name| name.media == media) {
            return Ok(name.clone());
        }
        let Transfer { asset, .. } = self.transfer;
        let key = self.key(&media.extension)?;
        let (nonce, named_at) = (self.transfer.dice.nonce(), self.transfer.clock.now());
        let name = ObjectName {
            key,
            nonce,
            media,
            named_at,
        };
        let manifest = self.transfer.manifest;
        let named = manifest.name_object(&asset.lease, self.object.row, &name);
        match named.await {
            Err(error @ ManifestError::KeyTaken { .. }) => Err(Failure::dead(error.to_string())),
            other => other.map(|()| name).map_err(of_manifest),
        }
    }

    /// The object's key, if its body is of the kind that has this extension.
    fn key(&self, extension: &str) -> Result<ObjectKey, Failure> {
        let Transfer { asset, .. } = self.transfer;
        let values = KeyValues {
            provider: &asset.task.provider,
            model: asset.model.as_deref(),
            task_id: &asset.task.id,
            index: asset.index,
            extension,
            created: asset.created_at,
            tags: &asset.tags,
        };
        let key = self.object.key_template.render(&values);
        let key = key.and_then(|key| self.store.prefixed(key));
        key.map_err(|error| Failure::dead("no key").because(error))
    }
}
