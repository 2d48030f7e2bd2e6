//! The store port: destinations, behind one face.
//!
//! A verb is one request, or one page after the other: nothing is tried twice in here. Bodies pass through or come
//! as frames, and are never copied into one buffer. Every error says what kind it is, so that nobody above reads
//! a status or a code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::http::client::ClientError;
use crate::http::roots::Roots;
use crate::model::asset::AssetIndex;
use crate::model::digest::Crc64;
use crate::model::key::KeyError;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::secret::SecretSource;
use crate::telemetry::metrics::Metrics;
use crate::units::ByteSize;
use crate::units::Span;

pub use address::Address;
pub use body::BrokenSource;
pub use body::PartBody;
pub use connect::ConnectError;
pub use connect::file_mode;
pub use contents::Described;
pub use contents::Keys;
pub use failure::StoreError;
pub use failure::StoreErrorDetails;
pub use failure::StoreErrorKind;
pub use probe::ProbeStep;
pub use quirks::BodyPolicy;
pub use quirks::Proof;
pub use quirks::Quirks;
pub use standing::Difference;
pub use standing::Expected;
pub use standing::Standing;

mod address;
mod body;
mod bucket;
mod connect;
mod contents;
mod count;
mod failure;
mod folder;
mod http_client;
mod object;
mod probe;
mod quirks;
mod standing;
#[cfg(test)]
mod tests;
mod upload;

use bucket::Bucket;
use folder::Folder;

/// One destination, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: DestinationName,
    quirks: Quirks,
    /// What stands before every key.
    prefix: String,
    address: Address,
    place: Place,
    /// Whether HEAD gave a checksum of the whole that nobody had sent: see [`Store::body_policy`].
    computes_checksum: AtomicBool,
    /// Where requests are counted, see [`Store::report_to`].
    metrics: OnceLock<Metrics>,
}

#[derive(Debug)]
enum Place {
    Bucket(Box<Bucket>),
    Folder(Folder),
}

/// An object to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewObject<'a> {
    /// Its key, prefix included.
    pub key: &'a ObjectKey,
    /// As in the `Content-Type` header.
    pub content_type: &'a str,
    /// Whose it is, for the object's metadata.
    pub identity: &'a Identity,
}

/// Whose object it is. Stands in the object's metadata, where the store has such, so that a HEAD tells ours from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider of the task.
    pub provider: ProviderName,
    /// The task.
    pub task_id: TaskId,
    /// The asset among the task's results.
    pub index: AssetIndex,
    /// What no other attempt at this or another object has.
    pub nonce: String,
}

/// What the store said of an object that it has just taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The store's tag; some stores give none before the first HEAD.
    pub etag: Option<ETag>,
    /// The store's version, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// How long the answer took after the last byte.
    pub waited: Duration,
}

/// What the store said of a part that it has just taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPart {
    /// The store's tag.
    pub etag: ETag,
    /// How long the answer took after the last byte.
    pub waited: Duration,
}

/// The place of a part in its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSlot {
    /// Its number.
    pub number: PartNumber,
    /// Where its first byte stands in the object.
    pub offset: u64,
}

/// What a store has of an open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredParts {
    /// These parts, by number.
    Listed(Vec<StoredPart>),
    /// The upload is open, and each part that was acknowledged is there; the store keeps no list of its own.
    AsRecorded,
}

/// A part as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Its number.
    pub number: PartNumber,
    /// Its length in bytes.
    pub length: u64,
    /// The store's tag of it.
    pub etag: ETag,
}

/// A part as the completion names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedPart {
    /// Its number.
    pub number: PartNumber,
    /// The tag that the store gave it.
    pub etag: ETag,
    /// The checksum of its bytes.
    pub crc64nvme: Crc64,
}

/// The object as a whole, as the completion names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Its length in bytes.
    pub length: u64,
    /// The checksum of its bytes.
    pub crc64nvme: Crc64,
}

/// An upload that the store lists as open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The store's name for it.
    pub id: UploadId,
    /// When it was begun, or last written to where the store does not keep that.
    pub initiated: Option<Timestamp>,
}

impl Store {
    /// Makes a destination of its configuration. Secrets are read here, through `env`; the store itself is not asked
    /// anything yet.
    pub async fn connect(
        name: DestinationName,
        config: &Config,
        env: &dyn Fn(&str) -> Option<String>,
        http: SharedHttpClient,
    ) -> Result<Store, ConnectError> {
        connect::connect(name, config, env, http).await
    }

    /// The transport of all S3 clients, which trusts `roots`.
    pub fn http_client(
        connect_timeout: Span,
        roots: &Roots,
    ) -> Result<SharedHttpClient, ClientError> {
        http_client::build(connect_timeout, roots)
    }

    /// The destination's name.
    pub fn name(&self) -> &DestinationName {
        &self.0.name
    }

    /// What this store can and cannot do.
    pub fn quirks(&self) -> &Quirks {
        &self.0.quirks
    }

    /// How a body is to be given now. A store of a kind that gets signed parts, since it might compute nothing by
    /// itself, gets its bodies passed through once HEAD has shown that it does.
    pub fn body_policy(&self) -> BodyPolicy {
        let has_shown = self.0.computes_checksum.load(Ordering::Relaxed);
        match self.0.quirks.proof {
            Proof::SignedPayload if has_shown => BodyPolicy::PassThrough,
            Proof::ByStore
            | Proof::Crc64nvme
            | Proof::Crc32
            | Proof::SignedPayload
            | Proof::Length => self.0.quirks.body,
        }
    }

    /// Takes note of what HEAD showed after a write: a checksum over the whole that equals ours, or none.
    pub fn note_proof(&self, has_checksum: bool) {
        self.0
            .computes_checksum
            .store(has_checksum, Ordering::Relaxed);
    }

    /// `key` with the destination's prefix before it.
    pub fn prefixed(&self, key: ObjectKey) -> Result<ObjectKey, KeyError> {
        if self.0.prefix.is_empty() {
            Ok(key)
        } else {
            format!("{}{key}", self.0.prefix).parse()
        }
    }

    /// The bucket; `None` for a folder.
    pub fn bucket(&self) -> Option<&str> {
        self.0.address.bucket()
    }

    /// Where the object of this key is, for people: `s3://bucket/key`, `r2://bucket/key`, `file:///folder/key`.
    pub fn locate(&self, key: &ObjectKey) -> String {
        self.0.address.locate(key)
    }

    // The SDK's futures are tens of kilobytes each, and stages nest them: they are on the heap while they last.

    /// What stands at `key`. A folder reads the whole file for its checksum.
    pub async fn find(&self, key: &ObjectKey) -> Result<Option<Standing>, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.find(key)).await,
            Place::Folder(folder) => folder.find(key).await,
        };
        self.count("find", done)
    }

    /// Writes an object in one request. Never over another one.
    pub async fn put(&self, object: &NewObject<'_>, body: PartBody) -> Result<Written, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.put(object, body)).await,
            Place::Folder(folder) => folder.put(object, body).await,
        };
        self.count("put", done)
    }

    /// Opens an upload in parts.
    pub async fn begin(&self, object: &NewObject<'_>) -> Result<UploadId, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.begin(object)).await,
            Place::Folder(folder) => folder.begin(object).await,
        };
        self.count("begin", done)
    }

    /// Writes one part. Several may be written at once, up to [`Quirks::parts_at_once`].
    pub async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        slot: PartSlot,
        body: PartBody,
    ) -> Result<WrittenPart, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.put_part(key, upload, slot, body)).await,
            Place::Folder(folder) => folder.put_part(key, upload, slot, body).await,
        };
        self.count("put_part", done)
    }

    /// What the store has of an open upload.
    pub async fn parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<StoredParts, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.parts(key, upload))
                .await
                .map(StoredParts::Listed),
            Place::Folder(folder) => folder.parts(key, upload).await,
        };
        self.count("parts", done)
    }

    /// Makes an object of the parts. Never over another one.
    pub async fn finish(
        &self,
        object: &NewObject<'_>,
        upload: &UploadId,
        parts: &[FinishedPart],
        total: &Total,
    ) -> Result<Written, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.finish(object, upload, parts, total)).await,
            Place::Folder(folder) => folder.finish(object, upload, total).await,
        };
        self.count("finish", done)
    }

    /// Throws an open upload away. One that is not there any more counts as done.
    pub async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.abort(key, upload)).await,
            Place::Folder(folder) => folder.abort(key, upload).await,
        };
        self.count("abort", done)
    }

    /// The uploads that are open for exactly this key; none where the store cannot list them.
    pub async fn open_uploads(&self, key: &ObjectKey) -> Result<Vec<OpenUpload>, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.open_uploads(key)).await,
            Place::Folder(folder) => folder.open_uploads(key).await,
        };
        self.count("open_uploads", done)
    }

    /// The bytes of an object, as they come.
    pub async fn read(
        &self,
        key: &ObjectKey,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        self.read_from(key, 0).await
    }

    /// The bytes of an object from `offset` on, as they come.
    pub async fn read_from(
        &self,
        key: &ObjectKey,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let done = match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.read(key, offset)).await,
            Place::Folder(folder) => folder.read(key, offset).await,
        };
        self.count("read", done)
    }

    /// A link by which anybody can get the object for as long as `lifetime`; none where the store has no such links.
    /// The store is not asked: a link to nothing can be made.
    pub async fn presign(
        &self,
        key: &ObjectKey,
        lifetime: Span,
    ) -> Result<Option<url::Url>, StoreError> {
        match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.presign(key, lifetime)).await.map(Some),
            Place::Folder(_) => Ok(None),
        }
    }

    /// Goes through all verbs with one small object that only `nonce` names, and removes it again: the outcome of
    /// each, up to the first without which the next makes no sense.
    pub async fn probe(&self, nonce: &str) -> Vec<ProbeStep> {
        probe::probe(self, nonce).await
    }

    /// Removes the object that [`Store::probe`] made, or one version of it. Nothing else is ever removed.
    async fn remove_probe(&self, key: &ObjectKey, version: Option<&str>) -> Result<(), StoreError> {
        match &self.0.place {
            Place::Bucket(bucket) => Box::pin(bucket.remove_probe(key, version)).await,
            Place::Folder(folder) => folder.remove_probe(key).await,
        }
    }
}

/// `[destination.NAME]`: exactly one of its sub-tables says what kind of store it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What a key is added to where anybody can get objects without a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<url::Url>,
    /// `[destination.NAME.s3]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Config>,
    /// `[destination.NAME.r2]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r2: Option<R2Config>,
    /// `[destination.NAME.fs]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<FolderConfig>,
}

/// S3, or any store that speaks its protocol.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// The region; from the environment or the profile where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another store's address instead of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<url::Url>,
    /// Whether the bucket stands in the path instead of the host name; yes where there is an `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// What kind of store answers, when it is not to be told from the endpoint: `aws`, `generic`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quirks: Option<String>,
    /// Where keys come from: the default chain, or `access_key` and `secret_key` below.
    #[serde(default)]
    pub credentials: Credentials,
    /// The profile of the default chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The static access key ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<SecretSource>,
    /// The static secret key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<SecretSource>,
    /// Stands before every key.
    #[serde(default)]
    pub prefix: String,
    /// `STANDARD`, `INTELLIGENT_TIERING`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// `"aes256"` or `{ kms = "alias/..." }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Object tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The checksum sent with each part, instead of what the quirks say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

/// Cloudflare R2.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct R2Config {
    /// The account's ID: 32 hexadecimal digits.
    pub account: String,
    /// The bucket.
    pub bucket: String,
    /// The token's access key ID.
    pub access_key: SecretSource,
    /// The token's secret.
    pub secret_key: SecretSource,
    /// `eu`, `fedramp`: buckets that stay there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// Stands before every key.
    #[serde(default)]
    pub prefix: String,
}

/// A local folder.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// The folder; it must exist.
    pub path: PathBuf,
    /// Whether files and folders are synced before they count as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsync: Option<bool>,
    /// The files' permissions, octal: `"0640"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Nothing is written when less than this would be left on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_min: Option<ByteSize>,
}

/// Where an S3 client's keys come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// Environment, profile, web identity, ECS, EC2.
    #[default]
    Default,
    /// `access_key` and `secret_key`.
    Static,
}

/// Encryption by the store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// The store's own keys.
    Aes256,
    /// A key of the account's key service.
    Kms(String),
}

/// What is sent with each part for the store to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// CRC64NVME.
    Crc64nvme,
    /// CRC32.
    Crc32,
    /// None.
    None,
}
