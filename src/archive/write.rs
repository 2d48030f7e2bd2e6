//! The three ways in which a body gets to a destination: in one request, in parts of a known whole, and in parts
//! until it ends. All end in a proof.

use bytes::Bytes;

use crate::archive::cursor::Cursor;
use crate::archive::cursor::Held;
use crate::archive::cursor::length;
use crate::archive::parts::Parts;
use crate::archive::parts::Target;
use crate::archive::parts::pipe;
use crate::archive::progress::Progress;
use crate::archive::proof::Digests;
use crate::archive::transfer::Transfer;
use crate::manifest::row::NewUpload;
use crate::manifest::row::ObjectName;
use crate::manifest::row::PartRow;
use crate::manifest::row::Proof;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::failure::Failure;
use crate::store::BodyPolicy;
use crate::store::BrokenSource;
use crate::store::FinishedPart;
use crate::store::PartBody;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::Total;
use crate::store::Written;

impl Transfer<'_> {
    /// Opens an upload and writes it down before its first part.
    pub(crate) async fn open_upload(
        &self,
        name: &ObjectName,
        source: &SourceIdentity,
        part_size: u64,
    ) -> Result<Target, Failure> {
        let identity = self.identity(name);
        let upload = self.store.begin(&Self::new_object(name, &identity)).await;
        let id = upload.map_err(|error| self.of_store(&error))?;
        let upload = NewUpload {
            id,
            part_size,
            source: source.clone(),
        };
        let (lease, object) = (&self.asset.lease, self.object.row);
        self.write(|| self.manifest.begin_upload(lease, object, &upload))
            .await?;
        Ok(Target {
            name: name.clone(),
            upload: upload.id,
            part_size,
        })
    }

    /// Writes what is missing of a body with `total` bytes, then finishes.
    pub(crate) async fn write_parts(
        &self,
        target: Target,
        stored: Vec<PartRow>,
        mut cursor: Cursor,
        total: u64,
    ) -> Result<Proof, Failure> {
        let source = cursor.identity().clone();
        let parts = Parts::new(self, target.clone(), stored, self.passes_through(&cursor));
        let rows = parts.store_all(&mut cursor, total).await?;
        self.finish(&target, rows, &source).await
    }

    /// Writes a body in one request.
    pub(crate) async fn write_single(
        &self,
        name: &ObjectName,
        mut cursor: Cursor,
        total: u64,
    ) -> Result<Proof, Failure> {
        if !self.passes_through(&cursor) {
            let _held = self.hold(total).await?;
            let held = self.fill(&mut cursor, total).await?;
            return self.write_held(name, cursor, held).await;
        }
        let (feed, body) = pipe(total);
        let identity = self.identity(name);
        let object = Self::new_object(name, &identity);
        let (written, fed) = tokio::join!(self.store.put(&object, body), async {
            let fed = self.feed_whole(&mut cursor, total, &feed).await;
            if let Err(failure) = &fed {
                // Told to the store's request, so that it ends now and not at its time-out.
                feed.send(Err(BrokenSource::new(failure.to_string())))
                    .await
                    .ok();
            }
            drop(feed);
            fed
        });
        let crc64nvme = fed?;
        let digests = Digests {
            length: total,
            crc64nvme,
            sha256: cursor.progress().sha256(),
            media: cursor.progress().details(),
            parts: 0,
        };
        self.conclude(name, written, digests, cursor.identity())
            .await
    }

    /// Writes a body whose length nobody told.
    pub(crate) async fn write_unmeasured(
        &self,
        name: &ObjectName,
        mut cursor: Cursor,
    ) -> Result<Proof, Failure> {
        let limits = self.limits();
        let part_size = limits.part_size.max(limits.part_size_min);
        let share = self.hold(part_size).await?;
        let held = self.fill(&mut cursor, part_size).await?;
        if held.length < part_size && limits.has_single_put {
            return self.write_held(name, cursor, held).await;
        }
        let target = self.open_upload(name, cursor.identity(), part_size).await?;
        let parts = Parts::new(self, target.clone(), Vec::new(), false);
        let rows = parts.store_until_end(&mut cursor, held, share).await?;
        self.check_end(&cursor)?;
        let source = cursor.identity().clone();
        self.finish(&target, rows, &source).await
    }

    /// Completes an upload that has all its parts, and proves the object.
    pub(crate) async fn finish(
        &self,
        target: &Target,
        rows: Vec<PartRow>,
        source: &SourceIdentity,
    ) -> Result<Proof, Failure> {
        let digests =
            Digests::of_parts(&rows).ok_or_else(|| Failure::retry("parts are missing"))?;
        let last = rows
            .last()
            .and_then(|row| row.progress.as_deref())
            .and_then(Progress::load);
        if let Some(Err(broken)) = last.map(|progress| progress.finish()) {
            let failure = self.refuse_late(broken.to_string());
            self.retire().await?;
            return Err(failure);
        }
        let finished: Vec<FinishedPart> = rows
            .into_iter()
            .map(|row| FinishedPart {
                number: row.number,
                etag: row.etag,
                crc64nvme: row.crc64nvme,
            })
            .collect();
        let total = Total {
            length: digests.length,
            crc64nvme: digests.crc64nvme,
        };
        let identity = self.identity(&target.name);
        let object = Self::new_object(&target.name, &identity);
        let written = self
            .store
            .finish(&object, &target.upload, &finished, &total)
            .await;
        let is_over = written.as_ref().is_err_and(|error| {
            matches!(
                error.kind,
                StoreErrorKind::Conflict | StoreErrorKind::UploadGone
            )
        });
        let outcome = self.conclude(&target.name, written, digests, source).await;
        if is_over && outcome.is_err() {
            self.retire().await?;
        }
        outcome
    }

    /// Writes a whole body that is held in memory.
    async fn write_held(
        &self,
        name: &ObjectName,
        cursor: Cursor,
        held: Held,
    ) -> Result<Proof, Failure> {
        self.check_end(&cursor)?;
        self.check_size(held.length)?;
        let digests = Digests {
            length: held.length,
            crc64nvme: held.crc64nvme,
            sha256: cursor.progress().sha256(),
            media: cursor.progress().details(),
            parts: 0,
        };
        let identity = self.identity(name);
        let body = PartBody::Filled {
            frames: held.frames,
            crc64nvme: held.crc64nvme,
        };
        let written = self
            .store
            .put(&Self::new_object(name, &identity), body)
            .await;
        self.conclude(name, written, digests, cursor.identity())
            .await
    }

    /// Feeds a whole body to one request. The last frame is let go only after the gates, so that a body that fails
    /// them never becomes an object.
    async fn feed_whole(
        &self,
        cursor: &mut Cursor,
        total: u64,
        feed: &tokio::sync::mpsc::Sender<Result<Bytes, BrokenSource>>,
    ) -> Result<Crc64, Failure> {
        let mut crc = Crc64Digester::new();
        let mut left = total;
        while left > 0 {
            let frame = cursor
                .next(left)
                .await
                .map_err(|error| self.of_origin(&error))?;
            let frame = frame.ok_or_else(|| Failure::retry("the body ended before its length"))?;
            crc.update(&frame);
            left -= length(&frame);
            if left == 0 {
                self.check_end(cursor)?;
            }
            if feed.send(Ok(frame)).await.is_err() {
                // The request is over before its body was: its own outcome says why.
                break;
            }
        }
        Ok(crc.value())
    }

    /// The gates at the end of a body: its structure adds up, and its end was an end and not a broken connection.
    pub(crate) fn check_end(&self, cursor: &Cursor) -> Result<(), Failure> {
        let is_whole = cursor.progress().finish();
        let is_whole = is_whole.map_err(|broken| self.refuse_late(broken.to_string()))?;
        let has_end = cursor.identity().length.is_some() || cursor.is_framed();
        if is_whole || has_end {
            return Ok(());
        }
        let what = "the body came without a length and nothing in it proves that it is whole";
        Err(self.refuse_late(what.to_owned()))
    }

    /// What the store's answer to a write means: proven, not proven, or to be found out by looking.
    async fn conclude(
        &self,
        name: &ObjectName,
        written: Result<Written, StoreError>,
        digests: Digests,
        source: &SourceIdentity,
    ) -> Result<Proof, Failure> {
        match written {
            Ok(written) => self.prove(name, Some(written), digests, source).await,
            Err(error) => match error.kind {
                StoreErrorKind::Ambiguous | StoreErrorKind::Exists | StoreErrorKind::UploadGone => {
                    tracing::info!(%error, "looking whether the write took effect");
                    match self.find(name).await? {
                        Some(_) => self.prove(name, None, digests, source).await,
                        None => Err(self.of_store(&error)),
                    }
                }
                StoreErrorKind::Transient
                | StoreErrorKind::Blocked
                | StoreErrorKind::Conflict
                | StoreErrorKind::Rejected
                | StoreErrorKind::Source => Err(self.of_store(&error)),
            },
        }
    }

    /// Gives the open upload to whoever aborts.
    pub(crate) async fn retire(&self) -> Result<(), Failure> {
        self.write(|| {
            self.manifest
                .retire_upload(&self.asset.lease, self.object.row)
        })
        .await
    }

    /// Whether frames may go straight to the store: it takes them so, and the origin can be asked for any part again.
    fn passes_through(&self, cursor: &Cursor) -> bool {
        match self.store.body_policy() {
            BodyPolicy::PassThrough => cursor.is_resumable(),
            BodyPolicy::Filled => false,
        }
    }
}
