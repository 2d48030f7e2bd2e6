//! The proof: what the destination must show before a row says "archived".

use futures::StreamExt as _;

use crate::archive::VerifyAfter;
use crate::archive::delivery::Delivery;
use crate::archive::delivery::Need;
use crate::archive::delivery::Way;
use crate::archive::download::Download;
use crate::archive::progress::Progress;
use crate::archive::transfer::Transfer;
use crate::manifest::row::ObjectName;
use crate::manifest::row::PartRow;
use crate::manifest::row::Proof;
use crate::model::asset::MediaDetails;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::digest::Sha256Digest;
use crate::model::failure::Failure;
use crate::model::failure::Verdict;
use crate::model::object::Verified;
use crate::store::Difference;
use crate::store::Expected;
use crate::store::Identity;
use crate::store::NewObject;
use crate::store::Standing;
use crate::store::Written;
use crate::units::Span;

/// The time that reading an object back may take, besides that for its bytes.
const READ_BACK_SECONDS: u64 = 60;

/// The least rate at which an object is read back, in bytes a second: as slow as one may be written.
const READ_BACK_RATE_MIN: u64 = 64 << 10;

/// Tries after which what stands at a key is no bad moment of its store.
const DIFFERS_DOUBTED: u32 = 8;

/// How often such a key is looked at from then on: each time the body may be fetched to compare it.
const DIFFERS_PAUSE: Span = Span::from_secs(600);

/// What is said of a key at which somebody else's object stands.
const TAKEN: &str = "the key is taken by another object, which is not overwritten";

/// What we know of the bytes that we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// How many.
    pub length: u64,
    /// Their checksum.
    pub crc64nvme: Crc64,
    /// Their digest, where configured.
    pub sha256: Option<Sha256Digest>,
    /// What a player would show of them.
    pub media: MediaDetails,
    /// In how many parts they went; 0 for one request.
    pub parts: u32,
}

impl Digests {
    /// The digests of a whole from those of its parts, in order and without a gap; `None` where one is missing.
    pub fn of_parts(rows: &[PartRow]) -> Option<Self> {
        let mut whole = Self {
            length: 0,
            crc64nvme: Crc64::default(),
            sha256: None,
            media: MediaDetails::default(),
            parts: 0,
        };
        for row in rows {
            whole.parts += 1;
            if row.number.0 != whole.parts {
                return None;
            }
            whole.crc64nvme = whole.crc64nvme.followed_by(row.crc64nvme, row.length);
            whole.length += row.length;
        }
        let last = rows.last()?.progress.as_deref().and_then(Progress::load)?;
        whole.sha256 = last.sha256();
        whole.media = last.details();
        Some(whole)
    }
}

impl Delivery<'_> {
    /// Looks at the object and compares it with what was sent.
    pub(crate) async fn prove(
        &self,
        name: &ObjectName,
        written: Option<Written>,
        digests: Digests,
        source: &SourceIdentity,
    ) -> Result<Proof, Failure> {
        let proof = |standing: Option<&Standing>, verified| Proof {
            size: digests.length,
            etag: standing
                .and_then(|it| it.etag.clone())
                .or_else(|| written.as_ref()?.etag.clone()),
            version_id: standing
                .and_then(|it| it.version_id.clone())
                .or_else(|| written.as_ref()?.version_id.clone()),
            parts: digests.parts,
            crc64nvme: digests.crc64nvme,
            sha256: digests.sha256,
            media: digests.media,
            verified,
            source: source.clone(),
        };
        let after = self.transfer.config.verify.after;
        if written.is_some() && after == VerifyAfter::None {
            return Ok(proof(None, Verified::None));
        }
        let standing = self.find(name).await?;
        let standing = standing.ok_or_else(|| {
            Failure::retry(format!(
                "{} was written but is not there",
                self.store.locate(&name.key)
            ))
        })?;
        let verified = self.judge(name, &standing, &digests)?;
        self.store.note_proof(verified == Verified::Checksum);
        if after == VerifyAfter::Read || self.store.is_nameless(&standing) {
            let read = self.read_back(name, digests.length).await?;
            if (read.length, read.crc64nvme) != (digests.length, digests.crc64nvme) {
                return Err(self.differs(name, "reading it back gives other bytes"));
            }
            return Ok(proof(Some(&standing), Verified::Read));
        }
        Ok(proof(Some(&standing), verified))
    }

    /// What to make of an object that already stands at our key when a try begins.
    pub(crate) async fn recover(
        &self,
        name: &ObjectName,
        standing: Standing,
    ) -> Result<Need, Failure> {
        let recorded = self.object.upload.as_ref().and_then(|upload| {
            let digests = Digests::of_parts(&upload.parts)?;
            (digests.length == standing.length).then_some((digests, &upload.source))
        });
        let is_recorded = |digests: &Digests| self.judge(name, &standing, digests).is_ok();
        let need = match recorded {
            Some((digests, source)) if is_recorded(&digests) => {
                let proven = self.prove(name, None, digests, source).await;
                Need::Nothing(proven?)
            }
            Some(_) | None => Need::Comparison(name.clone(), standing),
        };
        if self.object.upload.is_some() {
            // Whether or not the object came of that upload, nobody would finish it any more.
            self.retire().await?;
        }
        Ok(need)
    }

    /// Reads the origin without writing anything, and takes the object that stands at our key for ours if it has the
    /// very same bytes: an earlier manifest's work. Anything else there is somebody else's.
    pub(crate) async fn compare(
        &self,
        name: &ObjectName,
        way: &Way<'_>,
        standing: Standing,
    ) -> Result<Proof, Failure> {
        let is_ours = standing.nonce.as_ref() == Some(&name.nonce);
        let taken = || {
            let what = if is_ours {
                "the origin sends other bytes than stand there"
            } else {
                TAKEN
            };
            self.differs(name, what)
        };
        self.sniff(way.head)?;
        let source = way.download.facts().identity.clone();
        if source
            .length
            .is_some_and(|length| length != standing.length)
        {
            return Err(taken());
        }
        self.read_through(way).await?;
        self.check_end(&way.download).await?;
        let digests = self.digests_of(&way.download, way.download.head()).await?;
        let there = match standing.crc64nvme {
            Some(crc64nvme) => (standing.length, crc64nvme),
            None => self
                .read_back(name, standing.length)
                .await
                .map(|read| (read.length, read.crc64nvme))?,
        };
        if there != (digests.length, digests.crc64nvme) {
            return Err(taken());
        }
        let verified = if standing.crc64nvme.is_some() {
            Verified::Checksum
        } else {
            Verified::Read
        };
        Ok(Proof {
            size: digests.length,
            etag: standing.etag,
            version_id: standing.version_id,
            parts: digests.parts,
            crc64nvme: digests.crc64nvme,
            sha256: digests.sha256,
            media: digests.media,
            verified,
            source,
        })
    }

    /// The proof of an object of ours where its link is dead, as `failure` says: written by us in one request it is
    /// whole, and only it can tell what it is.
    pub(crate) async fn prove_alone(
        &self,
        name: &ObjectName,
        standing: &Standing,
        failure: Failure,
    ) -> Result<Proof, Failure> {
        let Transfer { asset, clock, .. } = self.transfer;
        let is_dead = match failure.verdict() {
            Verdict::Gone | Verdict::Wrong => true,
            Verdict::Retry | Verdict::RetryAfter(_) => clock.now() >= asset.deadline.at,
            Verdict::WaitUntil(_) | Verdict::Dead | Verdict::Drained => false,
        };
        if !is_dead || standing.nonce.as_ref() != Some(&name.nonce) {
            return Err(failure);
        }
        tracing::info!(%failure, "reading the object of an earlier try, since its link is dead");
        let digests = self.read_back(name, standing.length).await?;
        self.prove(name, None, digests, &SourceIdentity::default())
            .await
    }

    /// The digests of a body of `length` bytes that is read to its end.
    pub(crate) async fn digests_of(
        &self,
        download: &Download,
        length: u64,
    ) -> Result<Digests, Failure> {
        let crc64nvme = download.sum(0, length).await;
        let crc64nvme = crc64nvme.map_err(|error| self.transfer.of_origin(&error))?;
        let crc64nvme = crc64nvme.ok_or_else(|| Failure::retry("the body was not read whole"))?;
        let ended = download.ended();
        Ok(Digests {
            length,
            crc64nvme,
            sha256: ended.as_ref().and_then(Progress::sha256),
            media: ended.as_ref().map(Progress::details).unwrap_or_default(),
            parts: 0,
        })
    }

    /// Has the body read to its end, for its digests.
    async fn read_through(&self, way: &Way<'_>) -> Result<(), Failure> {
        loop {
            let frame = way.reader.next(u64::MAX).await;
            let frame = frame.map_err(|error| self.transfer.of_read(error))?;
            if frame.is_none() {
                return Ok(());
            }
            self.transfer.check_size(way.download.head())?;
        }
    }

    /// Compares what HEAD shows with what was sent.
    fn judge(
        &self,
        name: &ObjectName,
        standing: &Standing,
        digests: &Digests,
    ) -> Result<Verified, Failure> {
        let compared = standing.compare(&Expected {
            length: digests.length,
            crc64nvme: digests.crc64nvme,
            nonce: &name.nonce,
        });
        compared.map_err(|difference| match difference {
            Difference::Nonce => self.differs(name, TAKEN),
            Difference::Length(..) | Difference::Checksum(..) => {
                self.differs(name, &difference.to_string())
            }
        })
    }

    /// Reads the object, which should have `expected` bytes, back and digests it.
    pub(crate) async fn read_back(
        &self,
        name: &ObjectName,
        expected: u64,
    ) -> Result<Digests, Failure> {
        let allowed = Span::from_secs(READ_BACK_SECONDS + expected / READ_BACK_RATE_MIN);
        let reading =
            tokio::time::timeout(allowed.as_duration(), self.digest_there(name, expected));
        reading.await.unwrap_or_else(|_| {
            let place = self.store.locate(&name.key);
            let what = format!("{place}: reading it back takes longer than {allowed}");
            Err(Failure::retry(what))
        })
    }

    async fn digest_there(&self, name: &ObjectName, expected: u64) -> Result<Digests, Failure> {
        let mut body = self
            .store
            .read(&name.key)
            .await
            .map_err(|error| self.of_store(&error))?;
        let (mut crc, mut length) = (Crc64Digester::new(), 0);
        let mut progress = Progress::new(self.transfer.config.verify.sha256);
        while let Some(frame) = body.next().await {
            let frame = frame.map_err(|error| self.of_store(&error))?;
            crc.update(&frame);
            length += crate::archive::length(&frame);
            progress.update(&frame);
            if length > expected {
                return Err(self.differs(name, "reading it back does not end where it should"));
            }
        }
        Ok(Digests {
            length,
            crc64nvme: crc.value(),
            sha256: progress.sha256(),
            media: progress.details(),
            parts: 0,
        })
    }

    /// What it means that what stands at the key is not what has to stand there: a store has bad moments, and whoever
    /// put something else there can take it away. Only once the link is dead nothing can come of it any more.
    fn differs(&self, name: &ObjectName, what: &str) -> Failure {
        let what = format!("{}: {what}", self.store.locate(&name.key));
        let Transfer { asset, clock, .. } = self.transfer;
        let until = clock.now().plus(DIFFERS_PAUSE);
        if asset.attempts >= DIFFERS_DOUBTED && until < asset.deadline.at {
            Failure::wait_until(until, what)
        } else {
            self.transfer.refuse_late(what)
        }
    }

    /// Who an object is, as its metadata says.
    pub(crate) fn identity(&self, name: &ObjectName) -> Identity {
        Identity {
            provider: self.transfer.asset.task.provider.clone(),
            task_id: self.transfer.asset.task.id.clone(),
            index: self.transfer.asset.index,
            nonce: name.nonce.clone(),
        }
    }

    /// An object as the store is told of it.
    pub(crate) fn new_object<'a>(name: &'a ObjectName, identity: &'a Identity) -> NewObject<'a> {
        NewObject {
            key: &name.key,
            content_type: &name.media.content_type,
            identity,
        }
    }
}
