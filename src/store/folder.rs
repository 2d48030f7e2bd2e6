//! A local folder as a destination: parts are written into a hidden partial file, which is linked to its name when
//! it is whole.
//!
//! A link fails where something stands already, so nothing is ever overwritten, whoever else is at work.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use futures::stream::BoxStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::model::digest::Crc64Digester;
use crate::model::key::ObjectKey;
use crate::model::object::DestinationName;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::store::NewObject;
use crate::store::OpenUpload;
use crate::store::PartBody;
use crate::store::PartSlot;
use crate::store::Standing;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::StoredParts;
use crate::store::Total;
use crate::store::Written;
use crate::store::WrittenPart;
use crate::store::bucket::FINISH_TIMEOUT;
use crate::store::bucket::SMALL_VERB_TIMEOUT;
use crate::store::failure::Call;
use crate::store::failure::Verb;
use crate::units::ByteSize;
use crate::units::Span;

mod tree;

use tree::Tree;
use tree::Trouble;

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

/// Calls to one folder at once. Each has a thread, which a disk that hangs keeps for as long as it hangs: more of them
/// would take the threads of all else that blocks.
const CALLS_MAX: usize = 32;

/// Time for a call that has bytes on the disk before it returns: others may have filled its queue.
const SYNC_TIMEOUT: Span = FINISH_TIMEOUT;

/// How files are written in a folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct FolderRules {
    /// Whether files and folders are synced before they count as written.
    pub(super) is_synced: bool,
    /// The permissions of finished files.
    pub(super) mode: u32,
    /// Nothing is written when less than this would be left on the disk.
    pub(super) free_min: Option<ByteSize>,
}

/// A folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    destination: DestinationName,
    tree: Arc<Tree>,
    /// Places for calls.
    calls: Arc<Semaphore>,
    /// How many calls have ended.
    ended: Arc<AtomicU64>,
}

impl Folder {
    /// Takes the folder at `path`, which is absolute; or why it cannot be one.
    pub(super) async fn open(
        destination: DestinationName,
        path: PathBuf,
        rules: FolderRules,
    ) -> io::Result<Self> {
        let looking = tokio::task::spawn_blocking(move || Tree::at(&path, rules));
        let looked = tokio::time::timeout(SMALL_VERB_TIMEOUT.as_duration(), looking).await;
        let looked = looked.map_err(|_| {
            let what = "its disk, or the server behind it, hangs";
            io::Error::new(io::ErrorKind::TimedOut, what)
        })?;
        Ok(Self {
            destination,
            tree: Arc::new(looked??),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            ended: Arc::default(),
        })
    }

    pub(super) async fn find(&self, key: &ObjectKey) -> Result<Option<Standing>, StoreError> {
        let sought = key.clone();
        let found = self.on_disk(Verb::Find, key, move |tree| tree.find(&sought));
        let Some(mut digesting) = found.await? else {
            return Ok(None);
        };
        loop {
            let read = self.on_disk(Verb::Find, key, move |_| digesting.read_on());
            match read.await? {
                ControlFlow::Continue(further) => digesting = further,
                ControlFlow::Break(standing) => return Ok(Some(standing)),
            }
        }
    }

    /// The same as an upload of one part.
    pub(super) async fn put(
        &self,
        object: &NewObject<'_>,
        body: PartBody,
    ) -> Result<Written, StoreError> {
        let length = body.length();
        let upload = self.begin(object).await?;
        let slot = PartSlot {
            number: PartNumber(1),
            offset: 0,
        };
        let written = match self.write_part(object.key, &upload, slot, body).await {
            Ok(_) => self.link(object.key, &upload, length).await,
            Err(error) => Err(error),
        };
        if written.is_err() {
            // The first error is the one to tell; what an abort in vain leaves is found by `open_uploads`.
            drop(self.abort(object.key, &upload).await);
        }
        written
    }

    pub(super) async fn begin(&self, object: &NewObject<'_>) -> Result<UploadId, StoreError> {
        let (key, nonce) = (object.key.clone(), object.identity.nonce.clone());
        let begun = move |tree: &Tree| tree.begin(&key, &nonce);
        self.on_disk(Verb::Begin, object.key, begun).await
    }

    pub(super) async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        slot: PartSlot,
        body: PartBody,
    ) -> Result<WrittenPart, StoreError> {
        let etag = self.write_part(key, upload, slot, body).await?;
        Ok(WrittenPart {
            etag,
            waited: Duration::ZERO,
        })
    }

    pub(super) async fn parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<StoredParts, StoreError> {
        let (own_key, upload) = (key.clone(), upload.clone());
        let opened = move |tree: &Tree| tree.open_partial(&own_key, &upload).map(drop);
        self.on_disk(Verb::Parts, key, opened).await?;
        Ok(StoredParts::AsRecorded)
    }

    pub(super) async fn finish(
        &self,
        object: &NewObject<'_>,
        upload: &UploadId,
        total: &Total,
    ) -> Result<Written, StoreError> {
        self.link(object.key, upload, total.length).await
    }

    pub(super) async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let (own_key, upload) = (key.clone(), upload.clone());
        let aborted = move |tree: &Tree| tree.abort(&own_key, &upload);
        match self.on_disk(Verb::Abort, key, aborted).await {
            Err(error) if error.kind == StoreErrorKind::UploadGone => Ok(()),
            aborted => aborted,
        }
    }

    pub(super) async fn open_uploads(
        &self,
        key: &ObjectKey,
    ) -> Result<Vec<OpenUpload>, StoreError> {
        let sought = key.clone();
        let listed = move |tree: &Tree| tree.open_uploads(&sought);
        self.on_disk(Verb::OpenUploads, key, listed).await
    }

    pub(super) async fn read(
        &self,
        key: &ObjectKey,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let sought = key.clone();
        let file = self
            .on_disk(Verb::Read, key, move |tree| tree.open(&sought))
            .await?;
        let reading = Reading {
            folder: self.clone(),
            key: key.clone(),
            file: Arc::new(file),
            offset,
        };
        let frames = stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(frame) if frame.is_empty() => None,
                Ok(frame) => Some((Ok(frame), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(frames.boxed())
    }

    pub(super) async fn remove_probe(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let sought = key.clone();
        self.on_disk(Verb::Remove, key, move |tree| tree.remove(&sought))
            .await
    }

    /// Writes a part at its place and has it synced before it counts as written.
    async fn write_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        slot: PartSlot,
        body: PartBody,
    ) -> Result<ETag, StoreError> {
        let (own_key, own_upload, length) = (key.clone(), upload.clone(), body.length());
        let opened = move |tree: &Tree| {
            tree.check_free(length)?;
            tree.open_partial(&own_key, &own_upload)
        };
        let file = Arc::new(self.on_disk(Verb::PutPart, key, opened).await?);
        let mut frames = body.into_frames();
        let mut offset = slot.offset;
        let mut crc64nvme = Crc64Digester::new();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| {
                let broken = (StoreErrorKind::Source, error.to_string());
                self.with_call(Verb::PutPart, key, |call| {
                    call.refused_at_file(broken.0, broken.1)
                })
            })?;
            let length = u64::try_from(frame.len()).unwrap_or(u64::MAX);
            crc64nvme.update(&frame);
            let (file, at) = (Arc::clone(&file), offset);
            let written = move |_: &Tree| Ok(file.write_all_at(&frame, at)?);
            self.on_disk(Verb::PutPart, key, written).await?;
            offset = offset.saturating_add(length);
        }
        let synced = move |tree: &Tree| tree.sync_data(&file);
        self.within(SYNC_TIMEOUT, Verb::PutPart, key, synced)
            .await?;
        Ok(ETag(format!("\"{}\"", crc64nvme.value())))
    }

    async fn link(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        length: u64,
    ) -> Result<Written, StoreError> {
        let (own_key, upload) = (key.clone(), upload.clone());
        let linked = move |tree: &Tree| tree.finish(&own_key, &upload, length);
        self.within(SYNC_TIMEOUT, Verb::Finish, key, linked).await?;
        Ok(Written::default())
    }

    /// Does `work`, which moves no more than a stretch of bytes, where it may block.
    async fn on_disk<Output: Send + 'static>(
        &self,
        verb: Verb,
        key: &ObjectKey,
        work: impl FnOnce(&Tree) -> Result<Output, Trouble> + Send + 'static,
    ) -> Result<Output, StoreError> {
        self.within(SMALL_VERB_TIMEOUT, verb, key, work).await
    }

    /// Does `work` where it may block, and stops waiting for it after `allowed`: a call to a disk that hangs cannot be
    /// ended, and may still do later what it was to do.
    async fn within<Output: Send + 'static>(
        &self,
        allowed: Span,
        verb: Verb,
        key: &ObjectKey,
        work: impl FnOnce(&Tree) -> Result<Output, Trouble> + Send + 'static,
    ) -> Result<Output, StoreError> {
        let hung = |within| self.with_call(verb, key, |call| call.hung(within));
        let place = self.enter().await;
        let place = place.ok_or_else(|| hung(SMALL_VERB_TIMEOUT))?;
        let (tree, ended) = (Arc::clone(&self.tree), Arc::clone(&self.ended));
        let calling = tokio::task::spawn_blocking(move || {
            let _place = place;
            let done = work(&tree);
            ended.fetch_add(1, Ordering::Relaxed);
            done
        });
        let trouble = match tokio::time::timeout(allowed.as_duration(), calling).await {
            Ok(Ok(Ok(output))) => return Ok(output),
            Ok(Ok(Err(trouble))) => trouble,
            Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(Err(_)) => {
                Trouble::Refused(StoreErrorKind::Transient, "the daemon is stopping".into())
            }
            Err(_) => return Err(hung(allowed)),
        };
        Err(self.with_call(verb, key, |call| match trouble {
            Trouble::Io(error) => call.failed_at_file(&error),
            Trouble::Refused(kind, why) => call.refused_at_file(kind, why),
        }))
    }

    /// A place among the calls, waited for as long as others end: a disk that is slow is not one that hangs.
    async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.calls).acquire_owned();
        tokio::pin!(place);
        loop {
            let ended = self.ended.load(Ordering::Relaxed);
            match tokio::time::timeout(SMALL_VERB_TIMEOUT.as_duration(), &mut place).await {
                Ok(place) => return place.ok(),
                Err(_) if self.ended.load(Ordering::Relaxed) == ended => return None,
                Err(_) => {}
            }
        }
    }

    fn with_call(
        &self,
        verb: Verb,
        key: &ObjectKey,
        tell: impl FnOnce(Call<'_>) -> StoreError,
    ) -> StoreError {
        tell(Call {
            destination: &self.destination,
            place: &self.place(key),
            verb,
        })
    }

    fn place(&self, key: &ObjectKey) -> String {
        self.tree.root.join(key.as_str()).display().to_string()
    }
}

/// A file that is being read back.
struct Reading {
    folder: Folder,
    key: ObjectKey,
    file: Arc<File>,
    offset: u64,
}

impl Reading {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        let read = move |_: &Tree| {
            let mut frame = vec![0; READ_BYTES];
            let length = file.read_at(&mut frame, offset)?;
            frame.truncate(length);
            Ok(Bytes::from(frame))
        };
        let frame = self.folder.on_disk(Verb::Read, &self.key, read).await?;
        let length = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(length);
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
