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

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::archive::download::Download;
use crate::archive::download::Facts;
use crate::archive::download::Reader;
use crate::archive::gate::Gate;
use crate::archive::naming::FreeKey;
use crate::archive::parts::Target;
use crate::archive::parts::first_missing;
use crate::archive::parts::progress_before;
use crate::archive::plan;
use crate::archive::plan::Limits;
use crate::archive::plan::Shape;
use crate::archive::plan::Slot as PartSlot;
use crate::archive::proof::Digests;
use crate::archive::slots::Slot;
use crate::archive::transfer::Transfer;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::ClaimedObject;
use crate::manifest::row::ObjectName;
use crate::manifest::row::OpenUpload;
use crate::manifest::row::PartRow;
use crate::manifest::row::Proof;
use crate::model::asset::SourceIdentity;
use crate::model::failure::Failure;
use crate::model::key::ObjectKey;
use crate::model::object::PartNumber;
use crate::origin::OriginError;
use crate::store::BodyPolicy;
use crate::store::Standing;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::StoredParts;
use crate::units::Span;
use crate::work::budget::Share;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::write_patiently;

/// How far a store's clock may be behind ours when we look for an upload that we may have opened.
const CLOCK_SKEW: Span = Span::from_secs(900);

/// The longest body that is passed through in one request, in parts: two requests fewer for most films, and not so
/// much that a request which breaks is dear.
const SINGLE_PARTS_MAX: u64 = 2;

/// One object on its way.
pub(crate) struct Delivery<'a> {
    /// What it shares with the other objects of its asset.
    pub(crate) transfer: &'a Transfer<'a>,
    /// The object.
    pub(crate) object: &'a ClaimedObject,
    /// Where it goes.
    pub(crate) store: &'a Store,
    /// How much its destination takes.
    pub(crate) gate: &'a Gate,
    /// Whether it is the one that tries a destination that is shut.
    pub(crate) has_turn: AtomicBool,
}

/// What an object needs to be archived.
pub(crate) enum Need {
    /// Nothing more.
    Nothing(Proof),
    /// The body from its first byte. Where its kind could be guessed, nothing stood at this key a moment ago.
    Body(Option<FreeKey>),
    /// The body, to compare it with what stands at the key.
    Comparison(ObjectName, Standing),
    /// The parts that an open upload lacks.
    Parts(Resumption),
    /// No byte: an upload that has all its parts is to be completed.
    Completion(Whole),
}

/// An upload that has all its parts.
pub(crate) struct Whole {
    target: Target,
    rows: Vec<PartRow>,
    source: SourceIdentity,
}

/// An upload to go on with.
pub(crate) struct Resumption {
    pub(crate) target: Target,
    pub(crate) rows: Vec<PartRow>,
    /// The body that its parts were cut from.
    pub(crate) source: SourceIdentity,
    pub(crate) missing: PartSlot,
    /// What is known of the bytes before.
    pub(crate) progress: Vec<u8>,
}

impl Need {
    /// Where reading begins, and what is known of the bytes before.
    pub(crate) fn start(&self) -> (u64, Option<Vec<u8>>) {
        match self.resumption() {
            Some(resume) => (resume.missing.offset, Some(resume.progress.clone())),
            None => (0, None),
        }
    }

    /// The upload to go on with, if there is one.
    pub(crate) fn resumption(&self) -> Option<&Resumption> {
        match self {
            Need::Parts(resume) => Some(resume),
            Need::Nothing(_) | Need::Body(_) | Need::Comparison(..) | Need::Completion(_) => None,
        }
    }
}

/// Where an object's bytes come from.
pub(crate) struct Way<'a> {
    pub(crate) download: Download,
    pub(crate) reader: Reader,
    /// The first bytes of the body, where it is read from its start.
    pub(crate) head: &'a [u8],
    /// Given back once the bytes are through.
    pub(crate) _slot: Arc<Slot>,
}

impl Delivery<'_> {
    /// Whether its destination takes anything now. Whoever has its turn keeps it to the end of this try.
    pub(crate) fn admit(&self) -> Result<(), Failure> {
        if self.has_turn.load(Ordering::Relaxed) {
            return Ok(());
        }
        let admitted = self.gate.admit(self.transfer.asset.lease.row);
        admitted.map_err(|shut| shut.failure(self.transfer.clock))?;
        let has_turn = self.gate.why_closed().is_some();
        self.has_turn.store(has_turn, Ordering::Relaxed);
        Ok(())
    }

    /// Finds out by asking the store what is still to be done.
    pub(crate) async fn look(&self) -> Result<Need, Failure> {
        let Some(name) = &self.object.name else {
            return self.look_ahead().await.map(Need::Body);
        };
        if let Some(standing) = self.find_before(&name.key).await? {
            return self.recover(name, standing).await;
        }
        match &self.object.upload {
            Some(upload) => self.take_up(name, upload).await,
            None => {
                self.retire_strays(name).await?;
                Ok(Need::Body(None))
            }
        }
    }

    /// Takes an object that needs no byte to its proof, and writes that down.
    pub(crate) async fn complete(&self, whole: Whole) -> Result<(), Failure> {
        let proof = self
            .finish(&whole.target, whole.rows, &whole.source)
            .await?;
        self.mark(&proof).await
    }

    /// Takes the object from what it needs to its proof, and writes that down.
    pub(crate) async fn deliver(&self, need: Need, way: Way<'_>) -> Result<(), Failure> {
        let proof = match need {
            Need::Nothing(proof) => proof,
            Need::Completion(whole) => return self.complete(whole).await,
            Need::Body(free) => Box::pin(self.begin(free, way)).await?,
            Need::Comparison(name, standing) => {
                match self.compare(&name, &way, standing.clone()).await {
                    Err(failure) => self.prove_alone(&name, &standing, failure).await?,
                    Ok(proof) => proof,
                }
            }
            Need::Parts(resume) => {
                let Resumption { target, rows, .. } = resume;
                Box::pin(self.write_parts(target, rows, way)).await?
            }
        };
        self.mark(&proof).await
    }

    /// Writes down a proof.
    pub(crate) async fn mark(&self, proof: &Proof) -> Result<(), Failure> {
        let Transfer { asset, .. } = self.transfer;
        let marked = write_patiently(self.transfer.dice, || {
            let manifest = self.transfer.manifest;
            manifest.mark_archived(&asset.lease, self.object.row, proof)
        });
        let marked = marked.await;
        let is_whole = marked.map_err(|error| {
            Failure::retry("the manifest does not take the proof").because(error)
        })?;
        self.gate.works();
        self.count(proof.size, is_whole);
        tracing::info!(
            destination.name = %self.object.destination,
            bytes = proof.size,
            verified = %proof.verified,
            margin = %asset.deadline.at.since(self.transfer.clock.now()),
            "archived"
        );
        Ok(())
    }

    /// Counts an object that was written down, and its asset with the last.
    fn count(&self, bytes: u64, is_whole: bool) {
        let Transfer { asset, metrics, .. } = self.transfer;
        metrics.stored(&self.object.destination, bytes);
        if is_whole {
            let now = self.transfer.clock.now();
            let (delay, margin) = (now.since(asset.waits_since), asset.deadline.at.since(now));
            metrics.archived(&asset.task.provider, delay, margin);
        }
    }

    /// What becomes of an object when the origin does not give its body.
    pub(crate) async fn without_origin(
        &self,
        need: Need,
        error: OriginError,
    ) -> Result<(), Failure> {
        let failure = self.transfer.of_origin(&error);
        match need {
            Need::Comparison(name, standing) => {
                let proof = self.prove_alone(&name, &standing, failure).await?;
                self.mark(&proof).await
            }
            Need::Completion(whole) => self.complete(whole).await,
            Need::Nothing(_) | Need::Body(_) | Need::Parts(_) => {
                if self.has_turn.swap(false, Ordering::Relaxed) {
                    self.gate.forgo();
                }
                Err(failure)
            }
        }
    }

    /// Gives an open upload up: the object is begun from the first byte.
    pub(crate) async fn begin_again(&self, need: &mut Need) {
        if need.resumption().is_some() {
            *need = Need::Body(None);
            if let Err(failure) = self.retire().await {
                // The upload stays in its row, and the one that is begun now takes its place there.
                tracing::debug!(%failure, "an upload was not retired");
            }
        }
    }

    /// The length of the parts that the body will be cut into; 0 where it is not.
    pub(crate) fn stride(&self, need: &Need, facts: &Facts) -> u64 {
        match need {
            Need::Parts(resume) => resume.target.part_size,
            Need::Body(_) => match plan::shape(facts.identity.length, &self.limits(facts)) {
                Ok(Shape::Parts { part_size }) => part_size,
                Ok(Shape::Single) | Err(_) => 0,
            },
            Need::Nothing(_) | Need::Comparison(..) | Need::Completion(_) => 0,
        }
    }

    /// Starts from the first byte.
    async fn begin(&self, free: Option<FreeKey>, way: Way<'_>) -> Result<Proof, Failure> {
        let media = self.sniff(way.head)?;
        let facts = way.download.facts();
        let total = facts.identity.length;
        self.transfer.check_size(total.unwrap_or_default())?;
        let shape = plan::shape(total, &self.limits(facts));
        let shape = shape.map_err(|error| Failure::dead(error.to_string()))?;

        let name = self.name(media).await?;
        let is_new = self.object.name.as_ref() != Some(&name);
        let is_free = free.is_some_and(|free| free.is_still(&name.key));
        // A store that knows no conditions has no other guard than the look right before the write.
        let has_looked = (is_free || !is_new) && self.store.quirks().conditional;
        if !has_looked && let Some(standing) = self.find_before(&name.key).await? {
            return self.compare(&name, &way, standing).await;
        }
        match (total, shape) {
            (Some(total), Shape::Single) => self.write_single(&name, way, total).await,
            (Some(_), Shape::Parts { part_size }) => {
                let opening = self.open_upload(&name, &facts.identity, part_size);
                let target = opening.await?;
                self.write_parts(target, Vec::new(), way).await
            }
            (None, Shape::Single | Shape::Parts { .. }) => self.write_unmeasured(&name, way).await,
        }
    }

    /// What an upload that an earlier try left open still needs.
    async fn take_up(&self, name: &ObjectName, upload: &OpenUpload) -> Result<Need, Failure> {
        let pinned = upload.source.length.filter(|_| {
            // Without one, what comes now might be another version of the file than what was stored.
            upload.source.validator().is_some()
        });
        let rows = match self.store.parts(&name.key, &upload.id).await {
            Ok(stored) => retained(&upload.parts, &stored),
            Err(error) if error.kind == StoreErrorKind::UploadGone => {
                self.retire().await?;
                return Ok(Need::Body(None));
            }
            // Then what it acknowledged is believed, and the completion finds out.
            Err(error) if error.is_of_action() => {
                tracing::warn!(%error, "going by the parts that were acknowledged");
                upload.parts.clone()
            }
            Err(error) => return Err(self.of_store(&error)),
        };
        let kept: Vec<PartNumber> = rows.iter().map(|row| row.number).collect();
        let (lease, object) = (&self.transfer.asset.lease, self.object.row);
        self.write(|| self.transfer.manifest.retain_parts(lease, object, &kept))
            .await?;

        let target = Target {
            name: name.clone(),
            upload: upload.id.clone(),
            part_size: upload.part_size,
        };
        let missing = upload
            .source
            .length
            .map(|total| first_missing(&rows, total, upload.part_size));
        let Some(missing) = missing else {
            self.retire().await?;
            return Ok(Need::Body(None));
        };
        let Some(missing) = missing else {
            if Digests::of_parts(&rows).is_none() {
                // What was kept with the parts is not readable, as after an update; nothing else tells what they are.
                self.retire().await?;
                return Ok(Need::Body(None));
            }
            let source = upload.source.clone();
            return Ok(Need::Completion(Whole {
                target,
                rows,
                source,
            }));
        };
        let sha256 = self.transfer.config.verify.sha256;
        match progress_before(&rows, missing, sha256).filter(|_| pinned.is_some()) {
            Some(progress) => Ok(Need::Parts(Resumption {
                target,
                rows,
                source: upload.source.clone(),
                missing,
                progress,
            })),
            None => {
                self.retire().await?;
                Ok(Need::Body(None))
            }
        }
    }

    /// Hands uploads on our key that no row knows to whoever aborts: a Create that was answered to a dead process.
    async fn retire_strays(&self, name: &ObjectName) -> Result<(), Failure> {
        let found = match self.store.open_uploads(&name.key).await {
            Ok(found) => found,
            Err(error) if error.is_of_action() || error.kind == StoreErrorKind::Rejected => {
                tracing::warn!(%error, "an upload that nobody finishes may stay open");
                return Ok(());
            }
            Err(error) => return Err(self.of_store(&error)),
        };
        let since = name.named_at.minus(CLOCK_SKEW);
        let strays: Vec<_> = found
            .into_iter()
            .filter(|upload| upload.initiated.is_none_or(|initiated| initiated >= since))
            .map(|upload| upload.id)
            .collect();
        if strays.is_empty() {
            return Ok(());
        }
        let (lease, object) = (&self.transfer.asset.lease, self.object.row);
        self.write(|| {
            let manifest = self.transfer.manifest;
            manifest.orphan_uploads(lease, object, &strays)
        })
        .await
    }

    /// Takes `bytes` for a part from the budget.
    pub(crate) async fn hold(&self, bytes: u64) -> Result<Share, Failure> {
        let share = self.transfer.budget.take(bytes).await;
        share.map_err(|error| Failure::retry(error.to_string()))
    }

    pub(crate) fn limits(&self, facts: &Facts) -> Limits {
        let quirks = self.store.quirks();
        let part_size = self.transfer.config.part_size.as_u64();
        let single_max = if self.passes_through(facts) {
            // It is sent again from memory, should it break.
            let twice = part_size.saturating_mul(SINGLE_PARTS_MAX);
            twice.min(self.transfer.budget.whole().as_u64())
        } else {
            part_size
        };
        Limits {
            part_size,
            part_size_min: quirks.part_size_min,
            single_max: quirks.single_put.then_some(single_max),
        }
    }

    pub(crate) fn parts_at_once(&self) -> usize {
        let ahead = self.transfer.config.parts_ahead;
        let at_once = ahead.min(self.store.quirks().parts_at_once).max(1);
        usize::try_from(at_once).unwrap_or(1)
    }

    pub(crate) async fn find(&self, name: &ObjectName) -> Result<Option<Standing>, Failure> {
        let found = self.store.find(&name.key).await;
        found.map_err(|error| self.of_store(&error))
    }

    /// What stands at a key that is to be written to. A key of the store's that may not list is not told, and then the
    /// condition of the write is the guard.
    pub(crate) async fn find_before(&self, key: &ObjectKey) -> Result<Option<Standing>, Failure> {
        match self.store.find(key).await {
            Err(error) if error.may_be_absence() && self.store.quirks().conditional => {
                tracing::debug!(%error, "taking the key for free");
                Ok(None)
            }
            found => found.map_err(|error| self.of_store(&error)),
        }
    }

    pub(crate) async fn record_part(&self, row: &PartRow) -> Result<(), Failure> {
        let (lease, object) = (&self.transfer.asset.lease, self.object.row);
        self.write(|| self.transfer.manifest.record_part(lease, object, row))
            .await?;
        self.transfer.note_part(self.object, row.number);
        Ok(())
    }

    /// Gives the open upload to whoever aborts.
    pub(crate) async fn retire(&self) -> Result<(), Failure> {
        let (lease, object) = (&self.transfer.asset.lease, self.object.row);
        self.write(|| self.transfer.manifest.retire_upload(lease, object))
            .await
    }

    /// Writes what the store has already done: the manifest must learn of it.
    pub(crate) async fn write<F>(&self, verb: impl FnMut() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), ManifestError>>,
    {
        let written = write_patiently(self.transfer.dice, verb).await;
        written.map_err(of_manifest)
    }

    /// Fails where somebody else has the asset by now, and makes sure that nobody has for another lease.
    pub(crate) async fn check_lease(&self) -> Result<(), Failure> {
        let Transfer {
            manifest, asset, ..
        } = self.transfer;
        let lost = manifest.renew(Claimable::Assets, &[asset.lease]).await;
        match lost.map_err(of_manifest)?.first() {
            None => Ok(()),
            Some(lease) => Err(of_manifest(ManifestError::Stale {
                table: Claimable::Assets.as_str(),
                lease: *lease,
            })),
        }
    }

    /// Whether frames may go straight to the store: it takes them so, and the origin can be asked for any part again.
    pub(crate) fn passes_through(&self, facts: &Facts) -> bool {
        match self.store.body_policy() {
            BodyPolicy::PassThrough => facts.is_resumable,
            BodyPolicy::Filled => false,
        }
    }

    /// What a store's error means for the asset: never that it is refused, since a store can be mended. The gate
    /// takes note.
    pub(crate) fn of_store(&self, error: &StoreError) -> Failure {
        self.gate.failed(error, self.transfer.asset.lease.row);
        self.meaning(error)
    }

    /// As [`Delivery::of_store`], of an error that the gate knows of.
    pub(crate) fn meaning(&self, error: &StoreError) -> Failure {
        let what = error.to_string();
        match error.kind {
            StoreErrorKind::Blocked | StoreErrorKind::Rejected => {
                let until = self.transfer.clock.now().plus(BLOCKED_PAUSE);
                Failure::wait_until(until, what)
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

/// What it means that the manifest does not take an outcome.
pub(crate) fn of_manifest(error: ManifestError) -> Failure {
    Failure::retry("the manifest does not take the outcome").because(error)
}

/// The recorded parts that the store really has: same number, same tag, same length.
fn retained(recorded: &[PartRow], stored: &StoredParts) -> Vec<PartRow> {
    match stored {
        StoredParts::AsRecorded => recorded.to_vec(),
        StoredParts::Listed(listed) => {
            let listed: HashMap<_, _> = listed
                .iter()
                .map(|part| (part.number, (&part.etag, part.length)))
                .collect();
            let is_there =
                |row: &&PartRow| listed.get(&row.number) == Some(&(&row.etag, row.length));
            recorded.iter().filter(is_there).cloned().collect()
        }
    }
}
