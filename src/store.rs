//! The store port: destinations, behind one face.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::secret::SecretSource;
use crate::units::ByteSize;

/// `[destination.NAME]`: exactly one of its sub-tables says what kind of store it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
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
