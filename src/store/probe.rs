//! A destination tried out: every verb once, with an object that only the probe's nonce names.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

use crate::model::asset::AssetIndex;
use crate::model::digest::Crc64;
use crate::model::key::KeyError;
use crate::model::key::ObjectKey;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::store::BodyPolicy;
use crate::store::FinishedPart;
use crate::store::Identity;
use crate::store::NewObject;
use crate::store::PartBody;
use crate::store::PartSlot;
use crate::store::Standing;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::StoredParts;
use crate::store::Total;
use crate::store::Written;
use crate::store::failure::Call;
use crate::store::failure::Verb;

/// What the probe's object holds: a last part may be as short as this.
const CONTENT: &[u8] =
    b"Reelvault was here to see whether it may write. This file can be deleted.\n";

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct ProbeStep {
    /// What.
    pub name: &'static str,
    /// What came of it, in words.
    pub outcome: Result<String, StoreError>,
    /// Whether it works, but guards less than it does elsewhere.
    pub is_weak: bool,
}

/// See [`Store::probe`].
pub(super) async fn probe(store: &Store, nonce: &str) -> Vec<ProbeStep> {
    let mut probe = match Probe::new(store, nonce) {
        Ok(probe) => probe,
        Err(error) => {
            let call = Call {
                destination: store.name(),
                place: store.bucket().unwrap_or_default(),
                verb: Verb::Begin,
            };
            let outcome = Err(call.unanswered(StoreErrorKind::Rejected, error.to_string()));
            return vec![ProbeStep {
                name: "name an object",
                outcome,
                is_weak: false,
            }];
        }
    };
    if probe.write().await.is_some() {
        probe.look().await;
        probe.overwrite().await;
        probe.remove().await;
    }
    probe.steps
}

struct Probe<'a> {
    store: &'a Store,
    key: ObjectKey,
    identity: Identity,
    /// What was written, by the versions of a bucket that keeps them.
    versions: Vec<String>,
    steps: Vec<ProbeStep>,
}

impl<'a> Probe<'a> {
    fn new(store: &'a Store, nonce: &str) -> Result<Self, KeyError> {
        let name = utf8_percent_encode(nonce, NON_ALPHANUMERIC);
        Ok(Self {
            store,
            key: store.prefixed(format!(".reelvault-probe-{name}").parse()?)?,
            identity: Identity {
                provider: "probe".parse().expect("a plain word is a provider's name"),
                task_id: "probe".parse().expect("a plain word is a task ID"),
                index: AssetIndex(0),
                nonce: nonce.to_owned(),
            },
            versions: Vec::new(),
            steps: Vec::new(),
        })
    }

    /// HEAD for a key at which nothing stands, as before each write. Those who may not list are not told.
    async fn look_before(&mut self) {
        const STEP: &str = "look at a free key";
        match self.store.find(&self.key).await {
            Err(error) if error.may_be_absence() && self.store.quirks().conditional => {
                self.warn(
                    STEP,
                    "not told without s3:ListBucket: the condition of a write is its only guard",
                );
            }
            found => drop(self.note(STEP, found, |found| match found {
                Some(_) => "SOMETHING STANDS THERE".to_owned(),
                None => "nothing there".to_owned(),
            })),
        }
    }

    /// Writes the object in one part. `None` when it is not there in the end.
    async fn write(&mut self) -> Option<()> {
        let (upload, etag) = self.begin().await?;
        self.look_before().await;
        let listed = self.store.parts(&self.key, &upload).await;
        if matches!(&listed, Ok(StoredParts::Listed(parts)) if parts.is_empty()) {
            self.warn(
                "list the parts",
                "the part that was written is not listed: an upload that breaks off begins anew",
            );
        } else {
            self.note("list the parts", listed, |listed| match listed {
                StoredParts::Listed(parts) => format!("{} listed", parts.len()),
                StoredParts::AsRecorded => "not needed here".to_owned(),
            });
        }
        let finished = self.finish(&upload, etag).await;
        let is_there = finished.is_ok();
        let written = self.note("finish the upload", finished, |_| "in place".to_owned());
        self.versions.extend(written.and_then(|it| it.version_id));
        if !is_there {
            self.abort(&upload).await;
        }
        is_there.then_some(())
    }

    async fn begin(&mut self) -> Option<(UploadId, ETag)> {
        let begun = self.store.begin(&self.object()).await;
        let Some(upload) = self.note("begin an upload", begun, |_| "begun".to_owned()) else {
            // The store may have opened it and failed after that.
            for stray in self.store.open_uploads(&self.key).await.unwrap_or_default() {
                self.abort(&stray.id).await;
            }
            return None;
        };
        let slot = PartSlot {
            number: PartNumber(1),
            offset: 0,
        };
        let sent = self
            .store
            .put_part(&self.key, &upload, slot, self.body())
            .await;
        let etag = self.note("write a part", sent, |_| "written".to_owned());
        if etag.is_none() {
            self.abort(&upload).await;
        }
        Some((upload, etag?.etag))
    }

    /// HEAD says what will prove an object.
    async fn look(&mut self) {
        let found = self.store.find(&self.key).await;
        let found = found.and_then(|found| found.ok_or_else(|| self.missing()));
        let found = found.and_then(|found| match found.crc64nvme {
            Some(checksum) if checksum != total().crc64nvme => {
                let why = "its checksum over the whole is wrong".to_owned();
                Err(self.call().unanswered(StoreErrorKind::Rejected, why))
            }
            Some(_) | None => Ok(found),
        });
        let nonce = self.identity.nonce.clone();
        let has_identity = self.store.quirks().has_identity;
        self.note("find the object", found, |found| {
            describe(found, &nonce, has_identity)
        });
    }

    /// Neither a single write nor a completion may put something over what stands there.
    async fn overwrite(&mut self) {
        let put = self.store.put(&self.object(), self.body()).await;
        self.note_refusal("write over it at once", put);
        let Some((upload, etag)) = self.begin().await else {
            return;
        };
        let finished = self.finish(&upload, etag).await;
        self.note_refusal("write over it in parts", finished);
        self.abort(&upload).await;
        let open = self.store.open_uploads(&self.key).await;
        self.note("list open uploads", open, |open| {
            format!("{} open", open.len())
        });
    }

    /// Removes what was written, each version of it where the bucket keeps them.
    async fn remove(&mut self) {
        const STEP: &str = "remove the object";
        let key = self.key.clone();
        let has_versions = !self.versions.is_empty();
        let mut is_gone = has_versions;
        for version in std::mem::take(&mut self.versions) {
            is_gone &= self.store.remove_probe(&key, Some(&version)).await.is_ok();
        }
        if is_gone {
            return self.tell(STEP, Ok("removed".to_owned()), false);
        }
        match self.store.remove_probe(&key, None).await {
            Ok(()) if has_versions => {
                let why = "for want of s3:DeleteObjectVersion, or for its lock";
                self.warn(
                    STEP,
                    format!("hidden: the bucket keeps versions of {key} {why}"),
                );
            }
            Ok(()) => self.tell(STEP, Ok("removed".to_owned()), false),
            Err(error) => {
                self.tell(STEP, Err(error), false);
                self.warn("what is left", format!("{key} stays: delete it by hand"));
            }
        }
    }

    async fn finish(&self, upload: &UploadId, etag: ETag) -> Result<Written, StoreError> {
        let part = FinishedPart {
            number: PartNumber(1),
            etag,
            crc64nvme: Crc64::of(CONTENT),
        };
        let object = self.object();
        self.store.finish(&object, upload, &[part], &total()).await
    }

    async fn abort(&mut self, upload: &UploadId) {
        let aborted = self.store.abort(&self.key, upload).await;
        self.note("abort an upload", aborted, |()| "aborted".to_owned());
    }

    /// Notes what came of writing over the object: a refusal is what is hoped for.
    fn note_refusal(&mut self, step: &'static str, written: Result<Written, StoreError>) {
        match written {
            Ok(written) => {
                self.versions.extend(written.version_id);
                let what = if self.store.quirks().conditional {
                    "NOT REFUSED: the store ignores If-None-Match; only the look before a write guards"
                } else {
                    "not refused, as is known of this kind of store; only the look before a write guards"
                };
                self.warn(step, what);
            }
            Err(error) if error.kind == StoreErrorKind::Exists => {
                self.tell(step, Ok("refused, as it must be".to_owned()), false);
            }
            Err(error) => self.tell(step, Err(error), false),
        }
    }

    fn note<Found>(
        &mut self,
        name: &'static str,
        outcome: Result<Found, StoreError>,
        describe: impl FnOnce(&Found) -> String,
    ) -> Option<Found> {
        let (outcome, found) = match outcome {
            Ok(found) => (Ok(describe(&found)), Some(found)),
            Err(error) => (Err(error), None),
        };
        self.tell(name, outcome, false);
        found
    }

    fn warn(&mut self, name: &'static str, what: impl Into<String>) {
        self.tell(name, Ok(what.into()), true);
    }

    fn tell(&mut self, name: &'static str, outcome: Result<String, StoreError>, is_weak: bool) {
        self.steps.push(ProbeStep {
            name,
            outcome,
            is_weak,
        });
    }

    fn object(&self) -> NewObject<'_> {
        NewObject {
            key: &self.key,
            content_type: "text/plain",
            identity: &self.identity,
        }
    }

    /// The content in the form that the store's transfers have.
    fn body(&self) -> PartBody {
        let frame = Bytes::from_static(CONTENT);
        match self.store.quirks().body {
            BodyPolicy::PassThrough => PartBody::Stream {
                length: total().length,
                frames: stream::iter([Ok(frame)]).boxed(),
            },
            BodyPolicy::Filled => PartBody::Filled {
                frames: vec![frame],
                crc64nvme: Crc64::of(CONTENT),
            },
        }
    }

    fn missing(&self) -> StoreError {
        let why = "what was just written is not there".to_owned();
        self.call().unanswered(StoreErrorKind::Transient, why)
    }

    fn call(&self) -> Call<'_> {
        Call {
            destination: self.store.name(),
            place: self.store.bucket().unwrap_or_default(),
            verb: Verb::Find,
        }
    }
}

fn total() -> Total {
    Total {
        length: u64::try_from(CONTENT.len()).unwrap_or(u64::MAX),
        crc64nvme: Crc64::of(CONTENT),
    }
}

fn describe(found: &Standing, nonce: &str, has_identity: bool) -> String {
    let checksum = match found.crc64nvme {
        Some(_) => "its checksum is right",
        None => "no checksum over the whole",
    };
    let metadata = match (&found.nonce, has_identity) {
        (_, false) => "no metadata here",
        (Some(found), true) if found == nonce => "its metadata are ours",
        (Some(_), true) => "ITS METADATA ARE ANOTHER'S",
        (None, true) => "its metadata are lost, so that each object is read back",
    };
    format!("{} bytes, {checksum}, {metadata}", found.length)
}
