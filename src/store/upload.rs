//! An object in parts: begin, write and list parts, finish, abort, and list what is open.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use aws_sdk_s3::operation::list_parts::ListPartsOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_sdk_s3::types::CompletedMultipartUpload;
use aws_sdk_s3::types::CompletedPart;
use aws_sdk_s3::types::MultipartUpload;
use aws_sdk_s3::types::Part;

use crate::model::key::ObjectKey;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::store::FinishedPart;
use crate::store::NewObject;
use crate::store::OpenUpload;
use crate::store::PartBody;
use crate::store::PartSlot;
use crate::store::Proof;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::StoredPart;
use crate::store::Total;
use crate::store::Written;
use crate::store::WrittenPart;
use crate::store::body::Payload;
use crate::store::body::in_base64;
use crate::store::bucket::Bucket;
use crate::store::failure::Verb;
use crate::store::object::encryption;
use crate::store::object::is_no_bucket;
use crate::store::object::metadata;
use crate::store::object::timestamp;
use crate::store::object::written;

/// A listing that has not ended after this many pages never will. Even a store that gives one part a page needs no
/// more than an upload can have parts.
const PAGES_MAX: u32 = PartNumber::MAX.0 + 1;

/// A listing of more than this is no honest one: an upload has at most 10,000 parts, and a key has few uploads.
const LISTED_MAX: usize = 10_000;

/// Uploads of which the CRC32s are known. Some are ended by others, which nobody tells us; what is still needed when so
/// many have come together the store's list tells, or the upload is begun anew.
pub(super) const CRC32S_MAX: usize = 1_024;

impl Bucket {
    pub(super) async fn begin(&self, object: &NewObject<'_>) -> Result<UploadId, StoreError> {
        let (encryption, kms_key) = encryption(self.extras.encryption.as_ref());
        let request = self
            .client
            .create_multipart_upload()
            .bucket(self.name())
            .key(object.key.as_str())
            .content_type(object.content_type)
            .set_metadata(Some(metadata(object.identity)))
            .set_storage_class(self.extras.storage_class.clone())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_tagging(self.extras.tags.clone())
            .set_checksum_algorithm(declared(self.quirks.proof));
        let answer = self.ask(Verb::Begin, Box::pin(request.send())).await?;
        let id = answer.upload_id().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| {
            self.call(Verb::Begin)
                .senseless("the answer names no upload")
        })?;
        Ok(UploadId(id.to_owned()))
    }

    pub(super) async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        slot: PartSlot,
        body: PartBody,
    ) -> Result<WrittenPart, StoreError> {
        let length = body.length();
        let payload = Payload::new(body, self.quirks.proof);
        let (number, crc32) = (wire_number(slot.number), payload.crc32.clone());
        let request = self
            .client
            .upload_part()
            .bucket(self.name())
            .key(key.as_str())
            .upload_id(&upload.0)
            .part_number(number)
            .set_checksum_crc64_nvme(payload.crc64nvme)
            .set_checksum_crc32(payload.crc32)
            .body(ByteStream::new(payload.body))
            .customize()
            .interceptor(payload.signing);
        let sent = self.send(
            Verb::PutPart,
            length,
            payload.clock,
            Box::pin(request.send()),
        );
        let (answer, waited) = sent.await?;
        let etag = answer.e_tag().filter(|etag| !etag.is_empty());
        let etag = etag.ok_or_else(|| {
            self.call(Verb::PutPart)
                .senseless("the answer gives the part no ETag")
        })?;
        if let Some(crc32) = crc32 {
            let mut known = self.crc32s();
            if known.len() >= CRC32S_MAX && !known.contains_key(upload) {
                known.clear();
            }
            known
                .entry(upload.clone())
                .or_default()
                .insert(number, crc32);
        }
        Ok(WrittenPart {
            etag: ETag(etag.to_owned()),
            waited,
        })
    }

    pub(super) async fn parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Vec<StoredPart>, StoreError> {
        let listed = self.list_parts(key, upload).await?;
        let mut parts: Vec<StoredPart> = listed.iter().filter_map(stored_part).collect();
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::new();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let request = self
                .client
                .list_parts()
                .bucket(self.name())
                .key(key.as_str())
                .upload_id(&upload.0)
                .set_part_number_marker(after.clone());
            let page = self.ask(Verb::Parts, Box::pin(request.send())).await?;
            let next = next_page(&page);
            parts.extend(page.parts.unwrap_or_default());
            if next.is_none() {
                return Ok(parts);
            }
            if next == after || parts.len() > LISTED_MAX {
                break;
            }
            after = next;
        }
        Err(self
            .call(Verb::Parts)
            .senseless("the list of parts has no end"))
    }

    pub(super) async fn finish(
        &self,
        object: &NewObject<'_>,
        upload: &UploadId,
        parts: &[FinishedPart],
        total: &Total,
    ) -> Result<Written, StoreError> {
        if !self.quirks.completes_conditionally {
            self.check_free(object.key).await?;
        }
        let parts = self.completed_parts(object.key, upload, parts).await?;
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let whole = (self.quirks.proof == Proof::Crc64nvme).then(|| in_base64(total.crc64nvme));
        let length = i64::try_from(total.length).ok();
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(self.name())
            .key(object.key.as_str())
            .upload_id(&upload.0)
            .multipart_upload(parts)
            .set_checksum_crc64_nvme(whole)
            .set_mpu_object_size(length.filter(|_| self.quirks.declares_length))
            .set_if_none_match(self.condition());
        let answer = self.ask(Verb::Finish, Box::pin(request.send())).await?;
        self.crc32s().remove(upload);
        Ok(written(answer.e_tag(), answer.version_id()))
    }

    /// Where nobody knows whether a condition is heeded, this look is what keeps another's object: without its answer
    /// nothing is completed.
    async fn check_free(&self, key: &ObjectKey) -> Result<(), StoreError> {
        match self.find(key).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                let what = "something stands at the key".to_owned();
                let call = self.call(Verb::Finish);
                Err(call.unanswered(StoreErrorKind::Exists, what))
            }
            Err(error) if error.may_be_absence() && self.condition().is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The parts as the completion names them, with the checksums that the store has acknowledged.
    async fn completed_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[FinishedPart],
    ) -> Result<Vec<CompletedPart>, StoreError> {
        let mut parts: Vec<&FinishedPart> = parts.iter().collect();
        parts.sort_by_key(|part| part.number);
        let crc32s = match self.quirks.proof {
            Proof::Crc32 => self.crc32s_of(key, upload, &parts).await?,
            Proof::ByStore | Proof::Crc64nvme | Proof::SignedPayload | Proof::Length => {
                HashMap::new()
            }
        };
        let is_sent = self.quirks.proof == Proof::Crc64nvme;
        let completed = parts.into_iter().map(|part| {
            let number = wire_number(part.number);
            CompletedPart::builder()
                .part_number(number)
                .e_tag(&part.etag.0)
                .set_checksum_crc64_nvme(is_sent.then(|| in_base64(part.crc64nvme)))
                .set_checksum_crc32(crc32s.get(&number).cloned())
                .build()
        });
        Ok(completed.collect())
    }

    /// The CRC32 of each part. It does not combine, so no row keeps it: those of an earlier process the store's own list
    /// has to tell, which not every store does.
    async fn crc32s_of(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[&FinishedPart],
    ) -> Result<HashMap<i32, String>, StoreError> {
        let mut known = self.crc32s().get(upload).cloned().unwrap_or_default();
        let is_known = |known: &HashMap<i32, String>| {
            let mut numbers = parts.iter().map(|part| wire_number(part.number));
            numbers.all(|number| known.contains_key(&number))
        };
        if !is_known(&known) {
            let listed = self.list_parts(key, upload).await?.into_iter();
            let listed = listed.filter_map(|part| Some((part.part_number?, part.checksum_crc32?)));
            known.extend(listed);
        }
        if is_known(&known) {
            return Ok(known);
        }
        let what = "the CRC32s of parts from before a restart are not in its list".to_owned();
        Err(self
            .call(Verb::Finish)
            .unanswered(StoreErrorKind::Conflict, what))
    }

    fn crc32s(&self) -> MutexGuard<'_, HashMap<UploadId, HashMap<i32, String>>> {
        self.crc32s.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(self.name())
            .key(key.as_str())
            .upload_id(&upload.0);
        self.crc32s().remove(upload);
        match self.ask(Verb::Abort, Box::pin(request.send())).await {
            Ok(_) => Ok(()),
            // A proxy that does not find the store says 404 as well, without a code.
            Err(error) if error.kind == StoreErrorKind::UploadGone && error.code.is_some() => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn open_uploads(
        &self,
        key: &ObjectKey,
    ) -> Result<Vec<OpenUpload>, StoreError> {
        let mut open = Vec::new();
        let mut after = (None, None);
        for _ in 0..PAGES_MAX {
            let request = self
                .client
                .list_multipart_uploads()
                .bucket(self.name())
                .prefix(key.as_str())
                .set_key_marker(after.0.clone())
                .set_upload_id_marker(after.1.clone());
            let page = match self.ask(Verb::OpenUploads, Box::pin(request.send())).await {
                Ok(page) => page,
                Err(error) if cannot_list(&error) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let has_more = page.is_truncated() == Some(true);
            let next = (page.next_key_marker, page.next_upload_id_marker);
            let uploads = page.uploads.unwrap_or_default();
            open.extend(uploads.iter().filter_map(|upload| open_upload(key, upload)));
            if !has_more || next.0.is_none() {
                return Ok(open);
            }
            if next == after || open.len() > LISTED_MAX {
                break;
            }
            after = next;
        }
        Err(self
            .call(Verb::OpenUploads)
            .senseless("the list of uploads has no end"))
    }
}

/// Whether a store says that it has no list of uploads, rather than that something is wrong.
fn cannot_list(error: &StoreError) -> bool {
    matches!(error.status, Some(404 | 405 | 501)) && !is_no_bucket(error)
}

/// What every part of the upload carries; an algorithm that is declared without them makes AWS refuse the parts.
fn declared(proof: Proof) -> Option<ChecksumAlgorithm> {
    match proof {
        Proof::Crc64nvme => Some(ChecksumAlgorithm::Crc64Nvme),
        Proof::Crc32 => Some(ChecksumAlgorithm::Crc32),
        Proof::ByStore | Proof::SignedPayload | Proof::Length => None,
    }
}

fn wire_number(number: PartNumber) -> i32 {
    i32::try_from(number.0).unwrap_or(i32::MAX)
}

/// Where the next page of parts begins, if there is one.
fn next_page(page: &ListPartsOutput) -> Option<String> {
    let marker = page.next_part_number_marker();
    let marker = marker.filter(|_| page.is_truncated() == Some(true));
    marker.map(str::to_owned)
}

/// A listed part; one without number, length or tag cannot be named in a completion, so it counts as not there.
fn stored_part(part: &Part) -> Option<StoredPart> {
    Some(StoredPart {
        number: PartNumber(u32::try_from(part.part_number()?).ok()?),
        length: u64::try_from(part.size()?).ok()?,
        etag: ETag(part.e_tag()?.to_owned()),
    })
}

fn open_upload(key: &ObjectKey, upload: &MultipartUpload) -> Option<OpenUpload> {
    let id = upload
        .upload_id()
        .filter(|_| upload.key() == Some(key.as_str()))?;
    Some(OpenUpload {
        id: UploadId(id.to_owned()),
        initiated: upload.initiated().and_then(timestamp),
    })
}
