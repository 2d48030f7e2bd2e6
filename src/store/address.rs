//! Where a destination is, for people and records: told from the configuration alone, without a key or a connection.

use std::fmt;
use std::path::PathBuf;

use crate::model::key::ObjectKey;
use crate::store::Config;

/// A destination's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A bucket of S3 or of a store that speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
    },
    /// A bucket of R2.
    R2 {
        /// The bucket.
        bucket: String,
    },
    /// A local folder.
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

impl Address {
    /// The place that `config` names; `None` where it names none.
    pub fn of(config: &Config) -> Option<Self> {
        let s3 = config.s3.as_ref().map(|s3| Address::S3 {
            bucket: s3.bucket.clone(),
        });
        let r2 = config.r2.as_ref().map(|r2| Address::R2 {
            bucket: r2.bucket.clone(),
        });
        let folder = config.fs.as_ref().map(|fs| Address::Folder {
            path: fs.path.clone(),
        });
        s3.or(r2).or(folder)
    }

    /// The bucket, where there is one.
    pub fn bucket(&self) -> Option<&str> {
        match self {
            Address::S3 { bucket } | Address::R2 { bucket } => Some(bucket),
            Address::Folder { .. } => None,
        }
    }

    /// The object at `key` as an address: `s3://bucket/key`, `r2://bucket/key`, `file:///folder/key`.
    pub fn locate(&self, key: &ObjectKey) -> String {
        match self {
            Address::S3 { bucket } => format!("s3://{bucket}/{key}"),
            Address::R2 { bucket } => format!("r2://{bucket}/{key}"),
            Address::Folder { path } => format!("file://{}", path.join(key.as_str()).display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::S3 { bucket } => write!(f, "s3://{bucket}"),
            Address::R2 { bucket } => write!(f, "r2://{bucket}"),
            Address::Folder { path } => write!(f, "file://{}", path.display()),
        }
    }
}
