//! Archived copies: which there are by the manifest, and the bytes of one, read from its destination and checked.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::config::Config;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetIndex;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::digest::Sha256Digest;
use crate::model::digest::Sha256Digester;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ObjectState;
use crate::model::task::TaskKey;
use crate::store::Difference;
use crate::store::Expected;
use crate::store::Store;
use crate::store::StoreError;

/// One archived copy, and what the manifest knows of its bytes.
#[derive(Clone, Debug)]
pub(crate) struct ArchivedCopy {
    pub(crate) task: TaskKey,
    pub(crate) index: AssetIndex,
    pub(crate) destination: DestinationName,
    pub(crate) key: ObjectKey,
    pub(crate) length: u64,
    pub(crate) crc64nvme: Crc64,
    pub(crate) sha256: Option<Sha256Digest>,
    nonce: String,
}

/// The bytes of a copy, as they come.
pub(crate) type Body = BoxStream<'static, Result<Bytes, StoreError>>;

/// Why a copy cannot be had.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing stands there.
    Missing,
    /// Something else stands there.
    Differs(String),
    /// The destination does not say, or breaks off.
    Store(StoreError),
    /// The bytes cannot be written to where they are wanted.
    Sink(std::io::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

impl From<Difference> for Trouble {
    fn from(difference: Difference) -> Self {
        Trouble::Differs(difference.to_string())
    }
}

impl ArchivedCopy {
    fn new(task: &TaskKey, asset: &AssetRecord, object: &ObjectRecord) -> Option<Self> {
        let (length, crc64nvme) = (object.size?, object.crc64nvme?);
        // The digest is that of the copy written last, which others may have come before from another download.
        let is_last = (asset.size, asset.crc64nvme) == (Some(length), Some(crc64nvme));
        (object.state == ObjectState::Archived).then_some(Self {
            task: task.clone(),
            index: asset.index,
            destination: object.destination.clone(),
            key: object.key.clone()?,
            length,
            crc64nvme,
            sha256: asset.sha256.filter(|_| is_last),
            nonce: object.nonce.clone()?,
        })
    }

    /// Opens the copy for [`ArchivedCopy::pour`].
    pub(crate) async fn open(&self, store: &Store) -> Result<Body, Trouble> {
        match store.read(&self.key).await {
            Ok(body) => Ok(body),
            // Stores say in several ways that nothing is there; HEAD knows them all.
            Err(error) => match store.find(&self.key).await {
                Ok(None) => Err(Trouble::Missing),
                Ok(Some(_)) | Err(_) => Err(error.into()),
            },
        }
    }

    /// Writes what is read into `sink`, and compares its length and digests with the manifest's.
    pub(crate) async fn pour(
        &self,
        mut body: Body,
        mut sink: impl AsyncWrite + Unpin,
    ) -> Result<(), Trouble> {
        let (mut length, mut crc64nvme) = (0, Crc64Digester::new());
        let mut sha256 = self.sha256.map(|_| Sha256Digester::new());
        while let Some(frame) = body.next().await {
            let frame = frame?;
            length += u64::try_from(frame.len()).unwrap_or(u64::MAX);
            if length > self.length {
                let what = format!("it goes on after {} bytes", self.length);
                return Err(Trouble::Differs(what));
            }
            crc64nvme.update(&frame);
            sha256.iter_mut().for_each(|it| it.update(&frame));
            sink.write_all(&frame).await.map_err(Trouble::Sink)?;
        }
        sink.flush().await.map_err(Trouble::Sink)?;
        if length != self.length {
            return Err(Difference::Length(length, self.length).into());
        }
        if crc64nvme.value() != self.crc64nvme {
            return Err(Difference::Checksum(crc64nvme.value(), self.crc64nvme).into());
        }
        match sha256.map(|it| it.value()).zip(self.sha256) {
            Some((there, expected)) if there != expected => {
                let what = format!("its SHA-256 is {there}, and not {expected}");
                Err(Trouble::Differs(what))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Asks the destination what stands there. Whether it tells whose bytes these are: if not, they have to be read.
    pub(crate) async fn look(&self, store: &Store) -> Result<bool, Trouble> {
        let standing = store.find(&self.key).await?.ok_or(Trouble::Missing)?;
        let expected = Expected {
            length: self.length,
            crc64nvme: self.crc64nvme,
            nonce: &self.nonce,
        };
        match standing.compare(&expected) {
            Ok(_) => Ok(!store.is_nameless(&standing)),
            // Somebody else wrote the same: it was adopted, or put back.
            Err(Difference::Nonce) => match standing.crc64nvme {
                Some(there) if there != self.crc64nvme => {
                    Err(Difference::Checksum(there, self.crc64nvme).into())
                }
                there => Ok(there.is_some()),
            },
            Err(difference) => Err(difference.into()),
        }
    }
}

/// The archived copies of an asset, in the order of the route; only at `destination` where that is named.
pub(crate) fn of_asset<'a>(
    task: &'a TaskKey,
    asset: &'a AssetRecord,
    destination: Option<&'a DestinationName>,
) -> impl Iterator<Item = ArchivedCopy> + 'a {
    let objects = asset.objects.iter();
    let meant = objects.filter(move |it| destination.is_none_or(|name| *name == it.destination));
    meant.filter_map(|object| ArchivedCopy::new(task, asset, object))
}

/// The assets of a task that are meant: all of them, or the one of this number.
pub(crate) fn assets(
    task: &TaskRecord,
    number: Option<u32>,
) -> Result<Vec<&AssetRecord>, Complaint> {
    let assets = task.assets.iter();
    let meant: Vec<_> = assets
        .filter(|it| number.is_none_or(|number| it.index == AssetIndex(number)))
        .collect();
    match number {
        Some(number) if meant.is_empty() => {
            let what = format!("{} has no asset {number}", task.key.id);
            Err(Complaint::new(Exit::NotFound, what).hint(format!("it has {}", listed(task))))
        }
        Some(_) | None => Ok(meant),
    }
}

/// The assets of a task, for people.
pub(crate) fn listed(task: &TaskRecord) -> String {
    let assets = task.assets.iter();
    let told: Vec<String> = assets
        .map(|it| format!("{} ({}, {})", it.index, it.role, it.state))
        .collect();
    if told.is_empty() {
        "no assets yet".to_owned()
    } else {
        format!("assets {}", told.join(", "))
    }
}

/// What is said where no copy of what is meant is to be had.
pub(crate) fn none_archived(task: &TaskRecord) -> Complaint {
    let objects = task.assets.iter().flat_map(|asset| &asset.objects);
    let told: Vec<String> = objects
        .map(|it| format!("{} ({})", it.destination, it.state))
        .collect();
    let what = format!("no archived copy of {}", task.key.id);
    let hint = if told.is_empty() {
        format!("`reelvault task show {}` says how it stands", task.key.id)
    } else {
        let told = told.join(", ");
        format!("it has {told}; only what is archived at a configured destination can be had")
    };
    Complaint::new(Exit::NotFound, what).hint(hint)
}

/// Only a destination that is configured can be asked.
pub(crate) fn check_destination(
    config: &Config,
    name: Option<&DestinationName>,
) -> Result<(), Complaint> {
    let known = config.destination.keys().map(DestinationName::as_str);
    match name.filter(|name| !config.destination.contains_key(name)) {
        None => Ok(()),
        Some(name) => {
            Err(
                Complaint::new(Exit::Usage, format!("no destination {:?}", name.as_str())).hint(
                    format!("configured are: {}", known.collect::<Vec<_>>().join(", ")),
                ),
            )
        }
    }
}
