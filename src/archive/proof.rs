//! The proof: what the destination must show before a row says "archived".

use futures::StreamExt as _;

use crate::archive::VerifyAfter;
use crate::archive::cursor::Cursor;
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
use crate::model::digest::Sha256Digester;
use crate::model::failure::Failure;
use crate::model::object::Verified;
use crate::origin::OriginError;
use crate::store::Identity;
use crate::store::NewObject;
use crate::store::Standing;
use crate::store::Written;
use crate::units::ByteSize;

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

impl Transfer<'_> {
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
        if written.is_some() && self.config.verify.after == VerifyAfter::None {
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
        if self.config.verify.after == VerifyAfter::Read {
            let read = self.read_back(name).await?;
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
    ) -> Result<Proof, Failure> {
        let recorded = self.object.upload.as_ref().and_then(|upload| {
            let digests = Digests::of_parts(&upload.parts)?;
            (digests.length == standing.length).then_some((digests, &upload.source))
        });
        if let Some((digests, source)) = recorded
            && self.judge(name, &standing, &digests).is_ok()
        {
            return self.prove(name, None, digests, source).await;
        }
        if self.object.upload.is_some() {
            // Whatever stands there did not come of that upload, which nobody would finish any more.
            self.retire().await?;
        }
        let progress = Progress::new(self.config.verify.sha256);
        match self.open(0, None, progress).await {
            Ok(cursor) => self.compare(name, cursor, standing).await,
            Err(OriginError::Gone { .. }) if standing.nonce.as_ref() == Some(&name.nonce) => {
                // Written by us in one request, so it is whole; with the link dead only it can tell what it is.
                let digests = self.read_back(name).await?;
                self.prove(name, None, digests, &SourceIdentity::default())
                    .await
            }
            Err(error) => Err(self.of_origin(&error)),
        }
    }

    /// Reads the origin without writing anything, and takes the object that stands at our key for ours if it has the
    /// very same bytes: an earlier manifest's work. Anything else there is somebody else's.
    pub(crate) async fn compare(
        &self,
        name: &ObjectName,
        mut cursor: Cursor,
        standing: Standing,
    ) -> Result<Proof, Failure> {
        let taken = || {
            self.differs(
                name,
                "the key is taken by another object, which is not overwritten",
            )
        };
        if cursor
            .identity()
            .length
            .is_some_and(|length| length != standing.length)
        {
            return Err(taken());
        }
        let mut crc = Crc64Digester::new();
        while let Some(frame) = cursor
            .next(u64::MAX)
            .await
            .map_err(|error| self.of_origin(&error))?
        {
            crc.update(&frame);
            self.check_size(cursor.offset())?;
        }
        self.check_end(&cursor)?;
        let digests = Digests {
            length: cursor.offset(),
            crc64nvme: crc.value(),
            sha256: cursor.progress().sha256(),
            media: cursor.progress().details(),
            parts: 0,
        };
        let there = match standing.crc64nvme {
            Some(crc64nvme) => (standing.length, crc64nvme),
            None => self
                .read_back(name)
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
            parts: 0,
            crc64nvme: digests.crc64nvme,
            sha256: digests.sha256,
            media: digests.media,
            verified,
            source: cursor.identity().clone(),
        })
    }

    /// Compares what HEAD shows with what was sent.
    fn judge(
        &self,
        name: &ObjectName,
        standing: &Standing,
        digests: &Digests,
    ) -> Result<Verified, Failure> {
        if standing.length != digests.length {
            let (there, sent) = (
                ByteSize::bytes(standing.length),
                ByteSize::bytes(digests.length),
            );
            return Err(self.differs(name, &format!("it holds {there} of {sent}")));
        }
        if self.store.quirks().has_identity && standing.nonce.as_ref() != Some(&name.nonce) {
            return Err(self.differs(
                name,
                "the key is taken by another object, which is not overwritten",
            ));
        }
        match standing.crc64nvme {
            Some(there) if there == digests.crc64nvme => Ok(Verified::Checksum),
            Some(there) => {
                let what = format!("its checksum is {there}, sent was {}", digests.crc64nvme);
                Err(self.differs(name, &what))
            }
            None => Ok(Verified::Head),
        }
    }

    /// Reads the object back and digests it.
    async fn read_back(&self, name: &ObjectName) -> Result<Digests, Failure> {
        let mut body = self
            .store
            .read(&name.key)
            .await
            .map_err(|error| self.of_store(&error))?;
        let (mut crc, mut length) = (Crc64Digester::new(), 0);
        let mut sha256 = self.config.verify.sha256.then(Sha256Digester::new);
        while let Some(frame) = body.next().await {
            let frame = frame.map_err(|error| self.of_store(&error))?;
            crc.update(&frame);
            length += crate::archive::cursor::length(&frame);
            if let Some(sha256) = &mut sha256 {
                sha256.update(&frame);
            }
        }
        let sha256 = sha256.map(|sha256| sha256.value());
        Ok(Digests {
            length,
            crc64nvme: crc.value(),
            sha256,
            media: MediaDetails::default(),
            parts: 0,
        })
    }

    fn differs(&self, name: &ObjectName, what: &str) -> Failure {
        Failure::dead(format!("{}: {what}", self.store.locate(&name.key)))
    }

    /// Who an object is, as its metadata says.
    pub(crate) fn identity(&self, name: &ObjectName) -> Identity {
        Identity {
            provider: self.asset.task.provider.clone(),
            task_id: self.asset.task.id.clone(),
            index: self.asset.index,
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
