//! One object in one request: HEAD, GET and `PutObject`.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::ChecksumMode;
use aws_sdk_s3::types::ChecksumType;
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use futures::stream::BoxStream;
use percent_encoding::AsciiSet;
use percent_encoding::CONTROLS;
use percent_encoding::percent_decode_str;
use percent_encoding::utf8_percent_encode;
use url::Url;

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::digest::Crc64;
use crate::model::key::ObjectKey;
use crate::model::object::ETag;
use crate::store::Encryption;
use crate::store::Identity;
use crate::store::NewObject;
use crate::store::PartBody;
use crate::store::Standing;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::Written;
use crate::store::body::Payload;
use crate::store::body::from_base64;
use crate::store::bucket::Bucket;
use crate::store::failure::Call;
use crate::store::failure::Verb;
use crate::units::Span;

/// A body that gives nothing for this long is given up.
const READ_STALL: Duration = Duration::from_secs(30);

/// The metadata that says whose an object is; S3 puts `x-amz-meta-` before each.
const PROVIDER: &str = "reelvault-provider";
const TASK: &str = "reelvault-task";
const ASSET: &str = "reelvault-asset";
const NONCE: &str = "reelvault-nonce";

/// What a header's value cannot hold, or what a proxy might change in it.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

impl Bucket {
    pub(super) async fn find(&self, key: &ObjectKey) -> Result<Option<Standing>, StoreError> {
        let answer = self.head(key).await?;
        let standing = answer.map(|answer| standing(&self.call(Verb::Find), &answer));
        standing.transpose()
    }

    /// What HEAD tells of the object, if there is one.
    pub(super) async fn head(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<HeadObjectOutput>, StoreError> {
        let request = self
            .client
            .head_object()
            .bucket(self.name())
            .key(key.as_str())
            .checksum_mode(ChecksumMode::Enabled);
        match self.ask(Verb::Find, Box::pin(request.send())).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.status == Some(404) && !is_no_bucket(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put(
        &self,
        object: &NewObject<'_>,
        body: PartBody,
    ) -> Result<Written, StoreError> {
        let length = body.length();
        let payload = Payload::new(body, self.quirks.proof);
        let (encryption, kms_key) = encryption(self.extras.encryption.as_ref());
        let request = self
            .client
            .put_object()
            .bucket(self.name())
            .key(object.key.as_str())
            .content_type(object.content_type)
            .set_metadata(Some(metadata(object.identity)))
            .set_storage_class(self.extras.storage_class.clone())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_tagging(self.extras.tags.clone())
            .set_if_none_match(self.condition())
            .set_checksum_crc64_nvme(payload.crc64nvme)
            .set_checksum_crc32(payload.crc32)
            .body(ByteStream::new(payload.body))
            .customize()
            .interceptor(payload.signing);
        let sent = self.send(Verb::Put, length, payload.clock, Box::pin(request.send()));
        let (answer, waited) = sent.await?;
        Ok(Written {
            waited,
            ..written(answer.e_tag(), answer.version_id())
        })
    }

    pub(super) async fn read(
        &self,
        key: &ObjectKey,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let request = self
            .client
            .get_object()
            .bucket(self.name())
            .key(key.as_str())
            .set_range((offset > 0).then(|| format!("bytes={offset}-")));
        let answer = self.ask(Verb::Read, Box::pin(request.send())).await?;
        let reading = Reading {
            body: answer.body,
            destination: self.call(Verb::Read).destination.clone(),
            bucket: self.name().to_owned(),
        };
        let frames = stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.next().await? {
                Ok(frame) => Some((Ok(frame), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(frames.boxed())
    }

    /// A signed link. Keys are looked up, which may ask whoever gives them; the store itself is not.
    pub(super) async fn presign(&self, key: &ObjectKey, lifetime: Span) -> Result<Url, StoreError> {
        let wrong = |what: String| {
            let why = format!("no link can be signed: {what}");
            self.call(Verb::Read)
                .unanswered(StoreErrorKind::Blocked, why)
        };
        let presigning = PresigningConfig::expires_in(lifetime.as_duration());
        let presigning = presigning.map_err(|error| wrong(error.to_string()))?;
        let request = self
            .client
            .get_object()
            .bucket(self.name())
            .key(key.as_str());
        let signed = self
            .ask(Verb::Read, Box::pin(request.presigned(presigning)))
            .await?;
        let link: Result<Url, _> = signed.uri().parse();
        link.map_err(|error| wrong(error.to_string()))
    }

    pub(super) async fn remove_probe(
        &self,
        key: &ObjectKey,
        version: Option<&str>,
    ) -> Result<(), StoreError> {
        let request = self
            .client
            .delete_object()
            .bucket(self.name())
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned));
        self.ask(Verb::Remove, Box::pin(request.send()))
            .await
            .map(drop)
    }

    /// "Only if nothing stands there", where the store knows how to say that.
    pub(super) fn condition(&self) -> Option<String> {
        self.quirks.conditional.then(|| "*".to_owned())
    }
}

/// Whether it is the bucket that is missing, and not what was looked for in it.
pub(super) fn is_no_bucket(error: &StoreError) -> bool {
    error.code.as_deref() == Some("NoSuchBucket")
}

/// What a store says of an object that it has just taken. An empty tag is none.
pub(super) fn written(etag: Option<&str>, version_id: Option<&str>) -> Written {
    Written {
        etag: tag(etag),
        version_id: version_id
            .filter(|version| *version != "null")
            .map(str::to_owned),
        waited: Duration::ZERO,
    }
}

/// The metadata of a new object.
pub(super) fn metadata(identity: &Identity) -> HashMap<String, String> {
    let encode = |value: &str| utf8_percent_encode(value, NOT_IN_HEADERS).to_string();
    HashMap::from([
        (PROVIDER.to_owned(), encode(identity.provider.as_str())),
        (TASK.to_owned(), encode(identity.task_id.as_str())),
        (ASSET.to_owned(), identity.index.to_string()),
        (NONCE.to_owned(), encode(&identity.nonce)),
    ])
}

/// Whose an object is, by its metadata; none if that is not of the kind that we write.
pub(super) fn identity(metadata: &HashMap<String, String>) -> Option<Identity> {
    let decoded = |name: &str| {
        let value = percent_decode_str(metadata.get(name)?);
        Some(value.decode_utf8().ok()?.into_owned())
    };
    Some(Identity {
        provider: decoded(PROVIDER)?.parse().ok()?,
        task_id: decoded(TASK)?.parse().ok()?,
        index: AssetIndex(decoded(ASSET)?.parse().ok()?),
        nonce: decoded(NONCE).filter(|nonce| !nonce.is_empty())?,
    })
}

/// The two headers that a kind of encryption is asked for with.
pub(super) fn encryption(
    encryption: Option<&Encryption>,
) -> (Option<ServerSideEncryption>, Option<String>) {
    match encryption {
        None => (None, None),
        Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
        Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), Some(key.clone())),
    }
}

/// An instant as the SDK has it.
pub(super) fn timestamp(instant: &DateTime) -> Option<Timestamp> {
    instant.to_millis().ok().map(Timestamp::from_unix_millis)
}

fn tag(etag: Option<&str>) -> Option<ETag> {
    let etag = etag.filter(|etag| !etag.trim_matches('"').is_empty());
    etag.map(|etag| ETag(etag.to_owned()))
}

pub(super) fn standing(call: &Call<'_>, answer: &HeadObjectOutput) -> Result<Standing, StoreError> {
    let length = answer.content_length().map(u64::try_from);
    let Some(Ok(length)) = length else {
        return Err(call.senseless("the answer tells no length"));
    };
    let Written {
        etag, version_id, ..
    } = written(answer.e_tag(), answer.version_id());
    let nonce = answer.metadata().and_then(|metadata| metadata.get(NONCE));
    Ok(Standing {
        length,
        etag,
        version_id,
        crc64nvme: whole_checksum(answer),
        nonce: nonce.map(|nonce| percent_decode_str(nonce).decode_utf8_lossy().into_owned()),
        last_modified: answer.last_modified().and_then(timestamp),
    })
}

/// The checksum over the whole object; one over checksums of parts has a number of parts behind it, or says so.
fn whole_checksum(answer: &HeadObjectOutput) -> Option<Crc64> {
    let checksum = from_base64(answer.checksum_crc64_nvme()?);
    checksum.filter(|_| answer.checksum_type() != Some(&ChecksumType::Composite))
}

/// An object that is being read back.
struct Reading {
    body: ByteStream,
    destination: crate::model::object::DestinationName,
    bucket: String,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let call = Call {
            destination: &self.destination,
            place: &self.bucket,
            verb: Verb::Read,
        };
        match tokio::time::timeout(READ_STALL, self.body.next()).await {
            Ok(frame) => frame.map(|frame| {
                frame.map_err(|error| {
                    let broken = format!("the body broke: {error}");
                    call.unanswered(StoreErrorKind::Transient, broken)
                })
            }),
            Err(_) => Some(Err(call.timed_out(READ_STALL.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_ascii_and_come_back() {
        let ours = Identity {
            provider: "evolink".parse().unwrap(),
            task_id: "task-1:a\"b,c".parse().unwrap(),
            index: AssetIndex(3),
            nonce: "ü 1%\n".to_owned(),
        };
        let metadata = metadata(&ours);
        assert_eq!(identity(&metadata), Some(ours));
        for (name, value) in [(PROVIDER, "No!"), (TASK, ""), (ASSET, "-1"), (NONCE, "")] {
            let mut spoilt = metadata.clone();
            spoilt.insert(name.to_owned(), value.to_owned());
            assert_eq!(identity(&spoilt), None, "{name}");
            spoilt.remove(name);
            assert_eq!(identity(&spoilt), None, "{name}");
        }
        assert_eq!(metadata[PROVIDER], "evolink");
        assert_eq!(metadata[TASK], "task-1:a\"b,c");
        assert_eq!(metadata[ASSET], "3");
        assert!(
            metadata
                .values()
                .all(|value| value.bytes().all(|byte| byte.is_ascii_graphic()))
        );

        let head = HeadObjectOutput::builder()
            .content_length(5)
            .set_metadata(Some(metadata))
            .build();
        let destination = "main".parse().unwrap();
        let call = Call {
            destination: &destination,
            place: "films",
            verb: Verb::Find,
        };
        let standing = standing(&call, &head).unwrap();
        assert_eq!(standing.nonce.as_deref(), Some("ü 1%\n"));
    }

    #[test]
    fn only_a_checksum_over_the_whole_counts() {
        let head = |value: &str, kind: Option<ChecksumType>| {
            let head = HeadObjectOutput::builder().checksum_crc64_nvme(value);
            whole_checksum(&head.set_checksum_type(kind).build())
        };
        let whole = Some(Crc64::of(b"123456789"));
        assert_eq!(head("rosUhgp5mIg=", None), whole);
        assert_eq!(head("rosUhgp5mIg=", Some(ChecksumType::FullObject)), whole);
        assert_eq!(head("rosUhgp5mIg=", Some(ChecksumType::Composite)), None);
        assert_eq!(head("rosUhgp5mIg=-2", None), None);
    }

    #[test]
    fn empty_tags_are_none() {
        assert_eq!(written(Some(""), Some("null")), Written::default());
        assert_eq!(written(Some("\"\""), None), Written::default());
        assert_eq!(
            written(Some("\"a\""), Some("v")).etag,
            Some(ETag("\"a\"".to_owned()))
        );
    }
}
