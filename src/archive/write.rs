//! The three ways in which a body gets to a destination: in one request, in parts of a known whole, and in parts
//! until it ends. All end in a proof.

use tokio::time::Instant;

use crate::archive::delivery::Delivery;
use crate::archive::delivery::Way;
use crate::archive::download::Download;
use crate::archive::download::ReadError;
use crate::archive::parts::Held;
use crate::archive::parts::Parts;
use crate::archive::parts::Target;
use crate::archive::parts::fill;
use crate::archive::parts::is_long_silence;
use crate::archive::progress::Progress;
use crate::archive::proof::Digests;
use crate::backoff;
use crate::manifest::row::NewUpload;
use crate::manifest::row::ObjectName;
use crate::manifest::row::PartRow;
use crate::manifest::row::Proof;
use crate::model::asset::SourceIdentity;
use crate::model::failure::Failure;
use crate::store::FinishedPart;
use crate::store::PartBody;
use crate::store::Standing;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::Total;
use crate::store::Written;

/// Tries of a body that is held in memory, before the whole transfer is put off.
const PUT_TRIES: u32 = 4;

impl Delivery<'_> {
    /// Opens an upload and writes it down before its first part.
    pub(crate) async fn open_upload(
        &self,
        name: &ObjectName,
        source: &SourceIdentity,
        part_size: u64,
    ) -> Result<Target, Failure> {
        // A machine that was frozen for longer than its lease may come to itself here, with the object archived by
        // another: an upload that it opened would be nobody's.
        self.check_lease().await?;
        let identity = self.identity(name);
        let upload = self.store.begin(&Self::new_object(name, &identity)).await;
        let id = upload.map_err(|error| self.of_store(&error))?;
        let upload = NewUpload {
            id,
            part_size,
            source: source.clone(),
        };
        let (lease, object) = (&self.transfer.asset.lease, self.object.row);
        let written = self.write(|| self.transfer.manifest.begin_upload(lease, object, &upload));
        if let Err(failure) = written.await {
            // Where this fails too, the next try finds it, if there is one.
            self.store.abort(&name.key, &upload.id).await.ok();
            return Err(failure);
        }
        Ok(Target {
            name: name.clone(),
            upload: upload.id,
            part_size,
        })
    }

    /// Writes what is missing of a body whose length is known, then finishes.
    pub(crate) async fn write_parts(
        &self,
        target: Target,
        stored: Vec<PartRow>,
        way: Way<'_>,
    ) -> Result<Proof, Failure> {
        let source = way.download.facts().identity.clone();
        let parts = Parts::new(self, &way, target.clone(), stored);
        let rows = parts.store_all(source.length.unwrap_or_default()).await?;
        drop(way);
        self.finish(&target, rows, &source).await
    }

    /// Writes a body in one request.
    pub(crate) async fn write_single(
        &self,
        name: &ObjectName,
        way: Way<'_>,
        total: u64,
    ) -> Result<Proof, Failure> {
        if !self.passes_through(way.download.facts()) {
            let _share = self.hold(total).await?;
            let held = self.fill(&way, total).await?;
            return self.write_held(name, way, held).await;
        }
        let pass = self.gate.pass().await;
        let transfer = self.transfer;
        let at_end = way.download.clone();
        let check = move || judge(&at_end).map(|_| ());
        let (body, _fed) = way.reader.feed(0, total, Some(Box::new(check)));
        let identity = self.identity(name);
        let object = Self::new_object(name, &identity);
        let began = Instant::now();
        let written = self.store.put(&object, body).await;
        drop(pass);
        if written
            .as_ref()
            .is_err_and(|error| error.kind == StoreErrorKind::Source)
        {
            if let Some(error) = way.download.failure() {
                return Err(transfer.of_origin(&error));
            }
            if way.download.ended().is_some() {
                judge(&way.download).map_err(|broken| transfer.refuse_late(broken))?;
            }
        }
        let written = match written {
            Err(error)
                if !is_long_silence(&error, began) && self.may_pass(name, &error).await? =>
            {
                tracing::debug!(%error, "writing from memory");
                self.gate.failed(&error, self.transfer.asset.lease.row);
                self.write_again(name, &way, total).await?
            }
            written => written,
        };
        self.note(&written);
        self.conclude(name, written, way).await
    }

    /// Whether a write that failed certainly wrote nothing, and the same bytes again may do.
    async fn may_pass(&self, name: &ObjectName, error: &StoreError) -> Result<bool, Failure> {
        Ok(match error.kind {
            StoreErrorKind::Transient | StoreErrorKind::Source => true,
            StoreErrorKind::Ambiguous => self.find_before(&name.key).await?.is_none(),
            StoreErrorKind::Blocked
            | StoreErrorKind::Exists
            | StoreErrorKind::Conflict
            | StoreErrorKind::UploadGone
            | StoreErrorKind::Rejected => false,
        })
    }

    /// Fetches a body again and writes it from memory: it broke in passing, by no fault of the origin's file.
    async fn write_again(
        &self,
        name: &ObjectName,
        way: &Way<'_>,
        total: u64,
    ) -> Result<Result<Written, StoreError>, Failure> {
        let of_origin = |error| self.transfer.of_origin(&error);
        // The rest is read for the digests all the same.
        way.reader.seek(total, None);
        let crc64nvme = way.download.sum(0, total).await.map_err(of_origin)?;
        judge(&way.download).map_err(|broken| self.transfer.refuse_late(broken))?;
        let _share = self.hold(total).await?;
        let held = self.transfer.fetch_whole(way.download.facts()).await?;
        if Some(held.crc64nvme) != crc64nvme {
            let what = "the origin sent other bytes than before";
            return Err(Failure::retry(what));
        }
        Ok(self.put_held(name, &held).await)
    }

    /// Writes a body that is held in memory, as often as it takes within the limit.
    async fn put_held(&self, name: &ObjectName, held: &Held) -> Result<Written, StoreError> {
        let identity = self.identity(name);
        let object = Self::new_object(name, &identity);
        let mut tries = 1;
        loop {
            let body = PartBody::Filled {
                frames: held.frames.clone(),
                crc64nvme: held.crc64nvme,
            };
            let pass = self.gate.pass().await;
            let began = Instant::now();
            let written = self.store.put(&object, body).await;
            drop(pass);
            match written {
                Err(error)
                    if error.kind == StoreErrorKind::Transient
                        && tries < PUT_TRIES
                        && !is_long_silence(&error, began) =>
                {
                    self.gate.failed(&error, self.transfer.asset.lease.row);
                    tries += 1;
                    let pause = backoff::delay(tries, None, self.transfer.dice);
                    tokio::time::sleep(pause.as_duration()).await;
                }
                written => return written,
            }
        }
    }

    /// Writes a body whose length nobody told.
    pub(crate) async fn write_unmeasured(
        &self,
        name: &ObjectName,
        way: Way<'_>,
    ) -> Result<Proof, Failure> {
        let limits = self.limits(way.download.facts());
        let part_size = limits.part_size.max(limits.part_size_min);
        let share = self.hold(part_size).await?;
        let held = self.fill(&way, part_size).await?;
        if held.length < part_size && limits.single_max.is_some() {
            return self.write_held(name, way, held).await;
        }
        let source = way.download.facts().identity.clone();
        let target = self.open_upload(name, &source, part_size).await?;
        let parts = Parts::new(self, &way, target.clone(), Vec::new());
        let rows = parts.store_until_end(held, share).await?;
        self.check_end(&way.download).await?;
        drop(way);
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
            let failure = self.transfer.refuse_late(broken.to_string());
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
        self.note(&written);
        let is_told = written.is_ok();
        let is_over = written.as_ref().is_err_and(|error| {
            matches!(
                error.kind,
                // Parts that a store does not take together never become an object, whatever they are completed with.
                StoreErrorKind::Conflict | StoreErrorKind::UploadGone | StoreErrorKind::Rejected
            )
        });
        let outcome = match self.took_effect(&target.name, written).await {
            Ok(effect) => {
                let told = effect.told();
                self.prove(&target.name, told, digests, source).await
            }
            Err(failure) => Err(failure),
        };
        // An object that stands there although no answer said so may have come of another upload, and this one be open.
        let is_left = match &outcome {
            Ok(_) => !is_told,
            Err(_) => is_over,
        };
        if is_left {
            self.retire().await?;
        }
        outcome
    }

    /// Reads up to `most` bytes from the start of the body into memory that was taken from the budget.
    async fn fill(&self, way: &Way<'_>, most: u64) -> Result<Held, Failure> {
        let filled = fill(&way.reader, 0, most).await;
        filled.map_err(|error| self.transfer.of_read(error))
    }

    /// Writes a whole body that is held in memory.
    async fn write_held(
        &self,
        name: &ObjectName,
        way: Way<'_>,
        held: Held,
    ) -> Result<Proof, Failure> {
        // The end of the body is where the next read finds nothing.
        let more = way.reader.next(held.length + 1).await;
        if matches!(more, Err(ReadError::Origin(_)) | Ok(Some(_))) {
            let failure = way.download.failure();
            return Err(failure.map_or_else(
                || Failure::retry("the body is longer than it said"),
                |error| self.transfer.of_origin(&error),
            ));
        }
        self.check_end(&way.download).await?;
        self.transfer.check_size(held.length)?;
        let written = self.put_held(name, &held).await;
        drop(held);
        self.note(&written);
        self.conclude(name, written, way).await
    }

    /// The gates at the end of a body: its structure adds up, and its end was an end and not a broken connection.
    /// Where neither can be told, a second reading has to give the same.
    pub(crate) async fn check_end(&self, download: &Download) -> Result<(), Failure> {
        let is_proven = judge(download).map_err(|broken| self.transfer.refuse_late(broken))?;
        if is_proven {
            return Ok(());
        }
        let again = self.transfer.read_again().await?;
        let length = download.head();
        let first = download.sum(0, length).await;
        let first = first.map_err(|error| self.transfer.of_origin(&error))?;
        if Some(again) == first.map(|crc64nvme| (length, crc64nvme)) {
            return Ok(());
        }
        let what = "the body came without a length, and a second reading gave another one";
        Err(self.transfer.refuse_late(what.to_owned()))
    }

    /// What the store's answer to a write in one request means: proven, not proven, or to be found out by looking.
    async fn conclude(
        &self,
        name: &ObjectName,
        written: Result<Written, StoreError>,
        way: Way<'_>,
    ) -> Result<Proof, Failure> {
        let written = match self.took_effect(name, written).await? {
            Effect::Told(written) => Some(written),
            Effect::Seen(standing) if standing.is_another(&name.nonce) => {
                return self.compare(name, &way, standing).await;
            }
            Effect::Seen(_) => None,
        };
        let download = way.download.clone();
        // Read to its end even where the store has it from elsewhere: the proof compares the whole.
        if let Some(total) = download.facts().identity.length {
            way.reader.seek(total, None);
        }
        let length = download.facts().identity.length;
        let length = length.unwrap_or_else(|| download.head());
        let digests = self.digests_of(&download, length).await?;
        drop(way);
        let source = &download.facts().identity;
        self.prove(name, written, digests, source).await
    }

    /// Whether a write took effect: by the store's own words, or by looking.
    async fn took_effect(
        &self,
        name: &ObjectName,
        written: Result<Written, StoreError>,
    ) -> Result<Effect, Failure> {
        let error = match written {
            Ok(written) => return Ok(Effect::Told(written)),
            Err(error) => error,
        };
        match error.kind {
            StoreErrorKind::Ambiguous | StoreErrorKind::Exists | StoreErrorKind::UploadGone => {
                tracing::info!(%error, "looking whether the write took effect");
                // Where something stands, a HEAD that is refused is no absence.
                let found = if error.kind == StoreErrorKind::Exists {
                    self.find(name).await?
                } else {
                    self.find_before(&name.key).await?
                };
                match found {
                    Some(standing) => Ok(Effect::Seen(standing)),
                    None => Err(self.of_store(&error)),
                }
            }
            StoreErrorKind::Transient
            | StoreErrorKind::Blocked
            | StoreErrorKind::Conflict
            | StoreErrorKind::Rejected
            | StoreErrorKind::Source => Err(self.of_store(&error)),
        }
    }

    /// Tells the gate of a success; failures are told where they are read.
    fn note(&self, written: &Result<Written, StoreError>) {
        if let Ok(written) = written {
            self.gate.succeeded(written.waited);
        }
    }
}

/// How it is known that something stands at a key after a write.
enum Effect {
    /// The store said so.
    Told(Written),
    /// Looking showed this, whoever wrote it.
    Seen(Standing),
}

impl Effect {
    fn told(self) -> Option<Written> {
        match self {
            Effect::Told(written) => Some(written),
            Effect::Seen(_) => None,
        }
    }
}

/// Judges a body by its end: whether its structure or its framing proves that it is whole, or why it cannot be.
fn judge(download: &Download) -> Result<bool, String> {
    let Some(progress) = download.ended() else {
        return Err("the body has not ended".to_owned());
    };
    let is_whole = progress.finish().map_err(|broken| broken.to_string())?;
    let facts = download.facts();
    Ok(is_whole || facts.identity.length.is_some() || facts.is_framed)
}
