//! One object: recover what already stands at the destination, resume an upload that is open, or begin; then finish
//! and prove. Whatever died at whatever moment, the next try comes through here and finds its way by asking the store.
//!
//! ```text
//! named? --yes--> HEAD: stands --ours--> proof
//!    |              |             `-----> compare with the origin; else the key is taken
//!    |            nothing
//!    |              |--upload open--> ListParts, retain, resume at the first missing part
//!    `--no----------'--none---------> GET, sniff, name, begin
//! ```

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::archive::Config;
use crate::archive::cursor::Cursor;
use crate::archive::cursor::Held;
use crate::archive::gauge::Gauge;
use crate::archive::gauge::Moving;
use crate::archive::parts::Parts;
use crate::archive::parts::Target;
use crate::archive::plan;
use crate::archive::plan::Limits;
use crate::archive::plan::Shape;
use crate::archive::progress::Progress;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::ClaimedAsset;
use crate::manifest::row::ClaimedObject;
use crate::manifest::row::ObjectName;
use crate::manifest::row::OpenUpload;
use crate::manifest::row::PartRow;
use crate::manifest::row::Proof;
use crate::model::asset::MediaType;
use crate::model::asset::SourceIdentity;
use crate::model::failure::Failure;
use crate::model::key::KeyValues;
use crate::origin::OriginError;
use crate::origin::inspect;
use crate::origin::open::Origin;
use crate::store::Standing;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::StoredParts;
use crate::units::ByteSize;
use crate::units::Span;
use crate::work::budget::Budget;
use crate::work::budget::Share;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::write_patiently;

/// How far a store's clock may be behind ours when we look for an upload that we may have opened.
const CLOCK_SKEW: Span = Span::from_secs(900);

/// Everything that one object's way needs.
pub struct Transfer<'a> {
    /// The asset under lease.
    pub asset: &'a ClaimedAsset,
    /// The object of it that is to be archived.
    pub object: &'a ClaimedObject,
    /// Where it goes.
    pub store: &'a Store,
    /// Where it comes from.
    pub origin: Origin,
    /// Where it is recorded.
    pub manifest: &'a Manifest,
    /// `[transfer]`
    pub config: &'a Config,
    /// What the parts of all transfers may hold.
    pub budget: &'a Budget,
    /// What moves now.
    pub gauge: &'a Gauge,
    /// Wall time.
    pub clock: &'a Clock,
    /// For nonces and jitter.
    pub dice: &'a Dice,
    /// Asks the transfer to end at the next part.
    pub stop: &'a CancellationToken,
}

impl Transfer<'_> {
    /// Takes the object as far as it goes: to the proof, if nothing fails.
    pub async fn run(&self) -> Result<Proof, Failure> {
        let Some(name) = &self.object.name else {
            return self.begin().await;
        };
        if let Some(standing) = self.find(name).await? {
            return self.recover(name, standing).await;
        }
        match &self.object.upload {
            Some(upload) => self.resume(name, upload).await,
            None => {
                self.retire_strays(name).await?;
                self.begin().await
            }
        }
    }

    /// Starts from the first byte.
    async fn begin(&self) -> Result<Proof, Failure> {
        let progress = Progress::new(self.config.verify.sha256);
        let opened = self.open(0, None, progress).await;
        let mut cursor = opened.map_err(|error| self.of_origin(&error))?;
        let head = cursor
            .head()
            .await
            .map_err(|error| self.of_origin(&error))?;
        let media = self.sniff(&head)?;
        let total = cursor.identity().length;
        self.check_size(total.unwrap_or_default())?;

        let name = self.name(media).await?;
        if self.object.name.as_ref() != Some(&name)
            && let Some(standing) = self.find(&name).await?
        {
            return self.compare(&name, cursor, standing).await;
        }
        let shape = plan::shape(total, &self.limits());
        match (
            total,
            shape.map_err(|error| Failure::dead(error.to_string()))?,
        ) {
            (Some(total), Shape::Single) => self.write_single(&name, cursor, total).await,
            (Some(total), Shape::Parts { part_size }) => {
                let target = self
                    .open_upload(&name, cursor.identity(), part_size)
                    .await?;
                self.write_parts(target, Vec::new(), cursor, total).await
            }
            (None, Shape::Single | Shape::Parts { .. }) => {
                self.write_unmeasured(&name, cursor).await
            }
        }
    }

    /// Goes on with an upload that an earlier try left open.
    async fn resume(&self, name: &ObjectName, upload: &OpenUpload) -> Result<Proof, Failure> {
        let Some(total) = upload.source.length else {
            return self.begin_again().await;
        };
        let rows = match self.store.parts(&name.key, &upload.id).await {
            Ok(stored) => retained(&upload.parts, &stored),
            Err(error) if error.kind == StoreErrorKind::UploadGone => {
                return self.begin_again().await;
            }
            Err(error) => return Err(self.of_store(&error)),
        };
        let kept: Vec<_> = rows.iter().map(|row| row.number).collect();
        let (lease, object) = (&self.asset.lease, self.object.row);
        self.write(|| self.manifest.retain_parts(lease, object, &kept))
            .await?;

        let target = Target {
            name: name.clone(),
            upload: upload.id.clone(),
            part_size: upload.part_size,
        };
        let parts = Parts::new(self, target.clone(), rows.clone(), false);
        let Some(missing) = parts.first_missing(total) else {
            return self.finish(&target, rows, &upload.source).await;
        };
        let Some(progress) = parts.progress_before(missing) else {
            return self.begin_again().await;
        };
        match self
            .open(missing.offset, Some(&upload.source), progress)
            .await
        {
            Ok(cursor) => {
                tracing::info!(part = %missing.number, "resuming");
                self.write_parts(target, rows, cursor, total).await
            }
            Err(OriginError::Changed { .. } | OriginError::NoRange { .. }) => {
                self.begin_again().await
            }
            Err(error) => Err(self.of_origin(&error)),
        }
    }

    /// Gives an open upload up and starts from the first byte.
    async fn begin_again(&self) -> Result<Proof, Failure> {
        self.retire().await?;
        self.begin().await
    }

    /// Hands uploads on our key that no row knows to whoever aborts: a Create that was answered to a dead process.
    async fn retire_strays(&self, name: &ObjectName) -> Result<(), Failure> {
        let found = self.store.open_uploads(&name.key).await;
        let since = name.named_at.minus(CLOCK_SKEW);
        let strays: Vec<_> = found
            .map_err(|error| self.of_store(&error))?
            .into_iter()
            .filter(|upload| upload.initiated.is_none_or(|initiated| initiated >= since))
            .map(|upload| upload.id)
            .collect();
        if strays.is_empty() {
            return Ok(());
        }
        let (lease, object) = (&self.asset.lease, self.object.row);
        self.write(|| self.manifest.orphan_uploads(lease, object, &strays))
            .await
    }

    /// The object's name: the one that an earlier try fixed if it still fits the body, else a new one, written down.
    async fn name(&self, media: MediaType) -> Result<ObjectName, Failure> {
        if let Some(name) = self.object.name.as_ref().filter(|name| name.media == media) {
            return Ok(name.clone());
        }
        let values = KeyValues {
            provider: &self.asset.task.provider,
            model: self.asset.model.as_deref(),
            task_id: &self.asset.task.id,
            index: self.asset.index,
            extension: &media.extension,
            created: self.asset.created_at,
            tags: &self.asset.tags,
        };
        let key = self
            .object
            .key_template
            .render(&values)
            .and_then(|key| self.store.prefixed(key));
        let key = key.map_err(|error| Failure::dead("no key").because(error))?;
        let (nonce, named_at) = (self.dice.nonce(), self.clock.now());
        let name = ObjectName {
            key,
            nonce,
            media,
            named_at,
        };
        let (lease, object) = (&self.asset.lease, self.object.row);
        match self.manifest.name_object(lease, object, &name).await {
            Err(error @ ManifestError::KeyTaken { .. }) => Err(Failure::dead(error.to_string())),
            other => other.map(|()| name).map_err(of_manifest),
        }
    }

    fn sniff(&self, head: &[u8]) -> Result<MediaType, Failure> {
        match inspect::sniff(head) {
            Ok(media) => Ok(media),
            Err(inspect::NotMedia::Unknown(_)) if !self.config.verify.type_check => {
                Ok(inspect::untyped())
            }
            Err(error @ inspect::NotMedia::Empty) => Err(self.refuse_late(error.to_string())),
            Err(error) if self.config.verify.type_check => Err(self.refuse_late(error.to_string())),
            Err(_) => Ok(inspect::untyped()),
        }
    }

    /// A body that cannot be what was asked for: an origin's bad moment before the deadline, its last word after.
    pub(crate) fn refuse_late(&self, what: String) -> Failure {
        if self.clock.now() < self.asset.deadline.at {
            Failure::retry(what)
        } else {
            Failure::dead(what)
        }
    }

    /// Refuses what is over the limit.
    pub(crate) fn check_size(&self, length: u64) -> Result<(), Failure> {
        let size_max = self.config.size_max;
        if length <= size_max.as_u64() {
            return Ok(());
        }
        let length = ByteSize::bytes(length);
        Err(Failure::dead(format!(
            "the body is {length} or more, transfer.size_max is {size_max}"
        )))
    }

    /// Takes `bytes` for a part from the budget.
    pub(crate) async fn hold(&self, bytes: u64) -> Result<Share, Failure> {
        self.budget
            .take(bytes)
            .await
            .map_err(|error| Failure::retry(error.to_string()))
    }

    /// Reads up to `most` bytes into memory that was taken from the budget.
    pub(crate) async fn fill(&self, cursor: &mut Cursor, most: u64) -> Result<Held, Failure> {
        cursor
            .fill(most)
            .await
            .map_err(|error| self.of_origin(&error))
    }

    pub(crate) fn limits(&self) -> Limits {
        let quirks = self.store.quirks();
        Limits {
            part_size: self.config.part_size.as_u64(),
            part_size_min: quirks.part_size_min,
            has_single_put: quirks.single_put,
        }
    }

    pub(crate) fn parts_at_once(&self) -> usize {
        let at_once = self
            .config
            .parts_ahead
            .min(self.store.quirks().parts_at_once)
            .max(1);
        usize::try_from(at_once).unwrap_or(1)
    }

    pub(crate) async fn find(&self, name: &ObjectName) -> Result<Option<Standing>, Failure> {
        self.store
            .find(&name.key)
            .await
            .map_err(|error| self.of_store(&error))
    }

    pub(crate) async fn record_part(&self, row: &PartRow) -> Result<(), Failure> {
        self.write(|| {
            self.manifest
                .record_part(&self.asset.lease, self.object.row, row)
        })
        .await
    }

    /// Writes what the store has already done: the manifest must learn of it.
    pub(crate) async fn write<F>(&self, verb: impl FnMut() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), ManifestError>>,
    {
        write_patiently(self.dice, verb).await.map_err(of_manifest)
    }

    pub(crate) async fn open(
        &self,
        offset: u64,
        expected: Option<&SourceIdentity>,
        progress: Progress,
    ) -> Result<Cursor, OriginError> {
        let enter = |length| {
            self.gauge.enter(Moving {
                task: self.asset.task.clone(),
                index: self.asset.index,
                destination: self.object.destination.clone(),
                length,
                bytes: offset,
            })
        };
        let stall = self.config.stall_timeout;
        Cursor::open(
            self.origin.clone(),
            stall,
            offset,
            expected,
            progress,
            enter,
        )
        .await
    }

    /// What an origin's error means for the asset.
    pub(crate) fn of_origin(&self, error: &OriginError) -> Failure {
        match error {
            OriginError::Gone { .. } => Failure::gone(error.to_string()),
            OriginError::Status {
                retry_after: Some(seconds),
                ..
            } => {
                let wait = Span::from_secs(*seconds).min(BLOCKED_PAUSE);
                Failure::wait_until(self.clock.now().plus(wait), error.to_string())
            }
            OriginError::Changed { .. }
            | OriginError::NoRange { .. }
            | OriginError::Status { .. }
            | OriginError::Redirect { .. }
            | OriginError::Encoded { .. }
            | OriginError::Short { .. }
            | OriginError::Trickle { .. }
            | OriginError::Stalled { .. }
            | OriginError::Http(_) => Failure::retry(error.to_string()),
        }
    }

    /// What a store's error means for the asset: never that it is refused, since a store can be mended.
    pub(crate) fn of_store(&self, error: &StoreError) -> Failure {
        let what = error.to_string();
        match error.kind {
            StoreErrorKind::Blocked | StoreErrorKind::Rejected => {
                Failure::wait_until(self.clock.now().plus(BLOCKED_PAUSE), what)
            }
            StoreErrorKind::Transient
            | StoreErrorKind::Exists
            | StoreErrorKind::Conflict
            | StoreErrorKind::UploadGone
            | StoreErrorKind::Ambiguous
            | StoreErrorKind::Source => Failure::retry(what),
        }
    }
}

fn of_manifest(error: ManifestError) -> Failure {
    Failure::retry("the manifest does not take the outcome").because(error)
}

/// The recorded parts that the store really has: same number, same tag, same length.
fn retained(recorded: &[PartRow], stored: &StoredParts) -> Vec<PartRow> {
    match stored {
        StoredParts::AsRecorded => recorded.to_vec(),
        StoredParts::Listed(listed) => {
            let is_there = |row: &&PartRow| {
                listed.iter().any(|part| {
                    part.number == row.number && part.etag == row.etag && part.length == row.length
                })
            };
            recorded.iter().filter(is_there).cloned().collect()
        }
    }
}
