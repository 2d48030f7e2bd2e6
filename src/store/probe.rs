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
            }];
        }
    };
    if probe.write().await.is_some() {
        probe.look().await;
        probe.overwrite().await;
        let removed = store.remove_probe(&probe.key).await;
        probe.note("remove the object", removed, |()| "removed".to_owned());
    }
    probe.steps
}

struct Probe<'a> {
    store: &'a Store,
    key: ObjectKey,
    identity: Identity,
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
            steps: Vec::new(),
        })
    }

    /// HEAD for a key at which nothing stands, as before each write. Those who may not list are not told.
    async fn look_before(&mut self) {
        let said = match self.store.find(&self.key).await {
            Ok(Some(_)) => Ok("SOMETHING STANDS THERE"),
            Ok(None) => Ok("nothing there"),
            Err(error) if error.may_be_absence() && self.store.quirks().conditional => {
                Ok("not told without s3:ListBucket: writes rest on their condition")
            }
            Err(error) => Err(error),
        };
        self.note("look at a free key", said, |said| (*said).to_owned());
    }

    /// Writes the object in one part. `None` when it is not there in the end.
    async fn write(&mut self) -> Option<()> {
        let (upload, etag) = self.begin().await?;
        self.look_before().await;
        let listed = self.store.parts(&self.key, &upload).await;
        self.note("list the parts", listed, |listed| match listed {
            StoredParts::Listed(parts) => format!("{} listed", parts.len()),
            StoredParts::AsRecorded => "not needed here".to_owned(),
        });
        let finished = self.finish(&upload, etag).await;
        let is_there = finished.is_ok();
        self.note("finish the upload", finished, |()| "in place".to_owned());
        if !is_there {
            self.abort(&upload).await;
        }
        is_there.then_some(())
    }

    async fn begin(&mut self) -> Option<(UploadId, ETag)> {
        let begun = self.store.begin(&self.object()).await;
        let upload = self.note("begin an upload", begun, |_| "begun".to_owned())?;
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
        let conditional = self.store.quirks().conditional;
        let put = refusal(put.map(drop), conditional);
        self.note("write over it at once", put, |said| (*said).to_owned());
        let Some((upload, etag)) = self.begin().await else {
            return;
        };
        let finished = refusal(self.finish(&upload, etag).await, conditional);
        self.note("write over it in parts", finished, |said| {
            (*said).to_owned()
        });
        self.abort(&upload).await;
        let open = self.store.open_uploads(&self.key).await;
        self.note("list open uploads", open, |open| {
            format!("{} open", open.len())
        });
    }

    async fn finish(&self, upload: &UploadId, etag: ETag) -> Result<(), StoreError> {
        let part = FinishedPart {
            number: PartNumber(1),
            etag,
            crc64nvme: Crc64::of(CONTENT),
        };
        let object = self.object();
        let finished = self.store.finish(&object, upload, &[part], &total()).await;
        finished.map(drop)
    }

    async fn abort(&mut self, upload: &UploadId) {
        let aborted = self.store.abort(&self.key, upload).await;
        self.note("abort an upload", aborted, |()| "aborted".to_owned());
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
        self.steps.push(ProbeStep { name, outcome });
        found
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

/// A refusal is what is hoped for.
fn refusal(written: Result<(), StoreError>, conditional: bool) -> Result<&'static str, StoreError> {
    match written {
        Ok(()) if conditional => Ok(
            "NOT REFUSED: the store ignores If-None-Match; only the look before each write guards",
        ),
        Ok(()) => Ok("not refused, as is known of this kind of store"),
        Err(error) if error.kind == StoreErrorKind::Exists => Ok("refused, as it must be"),
        Err(error) => Err(error),
    }
}
