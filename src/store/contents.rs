//! What a bucket holds of ours, for a manifest that is to be rebuilt from it: its keys, page by page, and of each object
//! what HEAD tells. A folder does not say whose its files are, and so holds nothing of ours.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use super::Identity;
use super::Place;
use super::Standing;
use super::Store;
use super::StoreError;
use super::bucket::Bucket;
use super::failure::Verb;
use super::object::identity;
use super::object::standing;
use crate::model::key::ObjectKey;

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Those on it that can be ours, in the store's order.
    pub keys: Vec<ObjectKey>,
    /// How many more there are.
    pub others: u64,
    /// What the next page is asked for with, if there is one.
    pub next: Option<String>,
}

/// An object that says that it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Whose it is.
    pub identity: Identity,
    /// As in the `Content-Type` header.
    pub content_type: Option<String>,
    /// What stands there.
    pub standing: Standing,
}

impl Store {
    /// A page of the keys that begin with the destination's prefix: the first, or the one that `next` of the page before
    /// it names.
    pub async fn keys(&self, next: Option<&str>) -> Result<Keys, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.keys(&self.0.prefix, next)).await,
            Place::Folder(_) => Ok(Keys::default()),
        };
        self.count("list", done)
    }

    /// What stands at `key` and whose it is; `None` if that is nobody's, or of somebody else.
    pub async fn describe(&self, key: &ObjectKey) -> Result<Option<Described>, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.describe(key)).await,
            Place::Folder(_) => Ok(None),
        };
        self.count("find", done)
    }
}

impl Bucket {
    async fn keys(&self, prefix: &str, next: Option<&str>) -> Result<Keys, StoreError> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(self.name())
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            // Other people's keys may have characters that XML has no words for.
            .encoding_type(EncodingType::Url)
            .set_continuation_token(next.map(str::to_owned));
        let page = self.ask(Verb::List, Box::pin(request.send())).await?;
        let keys = read_keys(&page);
        let has_more = page.is_truncated() == Some(true);
        if has_more && (keys.next.is_none() || keys.next.as_deref() == next) {
            let what = "the list says that it goes on, and not where";
            return Err(self.call(Verb::List).senseless(what));
        }
        Ok(keys)
    }

    async fn describe(&self, key: &ObjectKey) -> Result<Option<Described>, StoreError> {
        let Some(answer) = self.head(key).await? else {
            return Ok(None);
        };
        let standing = standing(&self.call(Verb::Find), &answer)?;
        let identity = answer.metadata().and_then(identity);
        Ok(identity.map(|identity| Described {
            identity,
            content_type: answer.content_type().map(str::to_owned),
            standing,
        }))
    }
}

fn read_keys(page: &ListObjectsV2Output) -> Keys {
    // Some stores do not know the encoding, and say so by not naming it.
    let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
    let decode = |key: &str| {
        let spaced = key.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8();
        decoded.map(std::borrow::Cow::into_owned).ok()
    };
    let listed = page.contents().iter().filter_map(|object| object.key());
    let mut keys = Keys {
        next: (page.is_truncated() == Some(true))
            .then(|| page.next_continuation_token().map(str::to_owned))
            .flatten(),
        ..Keys::default()
    };
    for key in listed {
        let key = if is_encoded {
            decode(key)
        } else {
            Some(key.to_owned())
        };
        match key.and_then(|key| key.parse().ok()) {
            Some(key) => keys.keys.push(key),
            None => keys.others += 1,
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::Object;

    use super::*;

    #[test]
    fn keys_are_read_as_the_store_says_that_they_are_written() {
        let check = |listed: &str, encoding: Option<EncodingType>, key: Option<&str>| {
            let page = ListObjectsV2Output::builder()
                .contents(Object::builder().key(listed).build())
                .set_encoding_type(encoding)
                .next_continuation_token("of a page that is not there")
                .build();
            let read = read_keys(&page);
            let keys: Vec<_> = read.keys.iter().map(ObjectKey::as_str).collect();
            assert_eq!(keys, Vec::from_iter(key), "{listed}");
            let others = u64::from(key.is_none());
            assert_eq!((read.others, read.next), (others, None), "{listed}");
        };
        let url = || Some(EncodingType::Url);
        check("a/b=20c.mp4", None, Some("a/b=20c.mp4"));
        check("a/b%3D20c+d.mp4", url(), Some("a/b=20c d.mp4"));
        check("a+b%20c", None, Some("a+b%20c"));
        check("a/", None, None);
        check("a%01b", url(), None);
        check("%ff", url(), None);
    }
}
