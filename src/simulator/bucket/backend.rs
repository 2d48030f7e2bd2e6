//! S3's operations over the shelves; what reads and lists is in `reading`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use futures::future::BoxFuture;
use s3s::S3;
use s3s::S3Request;
use s3s::S3Response;
use s3s::S3Result;
use s3s::TrailingHeaders;
use s3s::dto;
use s3s::dto::AbortMultipartUploadInput;
use s3s::dto::AbortMultipartUploadOutput;
use s3s::dto::CompleteMultipartUploadInput;
use s3s::dto::CompleteMultipartUploadOutput;
use s3s::dto::CreateBucketInput;
use s3s::dto::CreateBucketOutput;
use s3s::dto::CreateMultipartUploadInput;
use s3s::dto::CreateMultipartUploadOutput;
use s3s::dto::DeleteObjectInput;
use s3s::dto::DeleteObjectOutput;
use s3s::dto::ETag;
use s3s::dto::GetObjectInput;
use s3s::dto::GetObjectOutput;
use s3s::dto::HeadBucketInput;
use s3s::dto::HeadBucketOutput;
use s3s::dto::HeadObjectInput;
use s3s::dto::HeadObjectOutput;
use s3s::dto::ListMultipartUploadsInput;
use s3s::dto::ListMultipartUploadsOutput;
use s3s::dto::ListObjectsV2Input;
use s3s::dto::ListObjectsV2Output;
use s3s::dto::ListPartsInput;
use s3s::dto::ListPartsOutput;
use s3s::dto::PutObjectInput;
use s3s::dto::PutObjectOutput;
use s3s::dto::StreamingBlob;
use s3s::dto::UploadPartInput;
use s3s::dto::UploadPartOutput;
use s3s::s3_error;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::simulator::bucket::Quirks;
use crate::simulator::bucket::body::Keeping;
use crate::simulator::bucket::body::Received;
use crate::simulator::bucket::checksum::Algorithm;
use crate::simulator::bucket::checksum::Checksum;
use crate::simulator::bucket::checksum::checksum_of;
use crate::simulator::bucket::checksum::tell_checksum;
use crate::simulator::bucket::shelf::Completion;
use crate::simulator::bucket::shelf::Label;
use crate::simulator::bucket::shelf::ListedPart;
use crate::simulator::bucket::shelf::Object;
use crate::simulator::bucket::shelf::Part;
use crate::simulator::bucket::shelf::Shelf;
use crate::simulator::bucket::shelf::Upload;

/// All buckets of one endpoint.
#[derive(Debug)]
pub(super) struct Backend {
    shelves: Mutex<BTreeMap<String, Shelf>>,
    pub(super) quirks: Quirks,
    keeping: Keeping,
    clock: Clock,
    dice: Dice,
}

impl Backend {
    /// Starts with one empty bucket.
    pub(super) fn new(
        bucket: &str,
        quirks: Quirks,
        keeping: Keeping,
        clock: Clock,
        dice: Dice,
    ) -> Self {
        let shelves = BTreeMap::from([(bucket.to_owned(), Shelf::default())]);
        Self {
            shelves: Mutex::new(shelves),
            quirks,
            keeping,
            clock,
            dice,
        }
    }

    /// Works on one bucket's content, with all others kept out.
    pub(super) fn with<T>(
        &self,
        bucket: &str,
        work: impl FnOnce(&mut Shelf) -> S3Result<T>,
    ) -> S3Result<T> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shelves.get_mut(bucket);
        work(found.ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?)
    }

    /// The store's copy of an object goes bad: other bytes, and a checksum over these.
    pub(super) fn damage(&self, bucket: &str, key: &str) -> bool {
        let damaged = self.with(bucket, |shelf| {
            let damaged = shelf.objects.get(key).and_then(|object| object.damaged());
            Ok(damaged.map(|object| shelf.objects.insert(key.to_owned(), object.into())))
        });
        damaged.is_ok_and(|damaged| damaged.is_some())
    }

    /// Somebody else puts an object at `key`, whatever stands there.
    pub(super) async fn replace(&self, bucket: &str, key: &str, bytes: Bytes) -> S3Result<()> {
        let body = StreamingBlob::from(s3s::Body::from(bytes));
        let received = Received::read(Some(body), None, &self.keeping).await?;
        let object = Object::whole(Label::default(), received, self.clock.now());
        self.with(bucket, |shelf| {
            shelf.objects.insert(key.to_owned(), object.into());
            Ok(())
        })
    }

    /// Somebody else opens uploads of `key`.
    pub(super) fn open_others(&self, bucket: &str, key: &str, count: usize) {
        for _ in 0..count {
            let upload = Upload {
                key: key.to_owned(),
                label: Label::default(),
                declared: None,
                parts: BTreeMap::new(),
                opened: self.clock.now(),
            };
            let opened = self.with(bucket, |shelf| {
                shelf.uploads.insert(self.dice.nonce(), upload);
                Ok(())
            });
            opened.expect("the first bucket is never deleted");
        }
    }

    fn create_bucket(&self, input: &CreateBucketInput) -> S3Result<CreateBucketOutput> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if shelves.contains_key(&input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let location = Some(format!("/{}", input.bucket));
        shelves.insert(input.bucket.clone(), Shelf::default());
        Ok(CreateBucketOutput { location })
    }

    fn head_bucket(&self, input: &HeadBucketInput) -> S3Result<HeadBucketOutput> {
        self.with(&input.bucket, |_| Ok(HeadBucketOutput::default()))
    }

    async fn put_object(
        &self,
        input: PutObjectInput,
        carried: Carried,
    ) -> S3Result<PutObjectOutput> {
        let said = checksum_of!(input)?;
        let wanted = carried.algorithm(said.as_ref())?;
        let received = Received::read(input.body, wanted, &self.keeping).await?;
        let said = carried.or_trailer(said)?;
        received.verify(
            input.content_length,
            input.content_md5.as_deref(),
            said.as_ref(),
        )?;
        let only_new = only_new(input.if_none_match.as_ref(), input.if_match.as_ref())?;
        let label = Label::new(input.content_type, input.metadata)?;
        let object = Object::whole(label, received, self.clock.now());
        let mut output = PutObjectOutput {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            ..PutObjectOutput::default()
        };
        self.tell(&object, |checksum, coverage| {
            tell_checksum!(output, Some(checksum));
            output.checksum_type = Some(coverage);
        });
        self.with(&input.bucket, |shelf| {
            shelf.check_new(&input.key, only_new, &self.quirks)?;
            shelf.write(&input.key, object);
            Ok(output)
        })
    }

    fn delete_object(&self, input: &DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
        self.with(&input.bucket, |shelf| {
            shelf.objects.remove(&input.key);
            Ok(DeleteObjectOutput::default())
        })
    }

    fn create_multipart_upload(
        &self,
        input: &CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        let algorithm = input.checksum_algorithm.as_ref();
        let algorithm = algorithm
            .map(|name| Algorithm::named(name.as_str()))
            .transpose()?;
        let asked = input.checksum_type.as_ref().map(dto::ChecksumType::as_str);
        if algorithm.is_none() && asked.is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm \
                 header."
            ));
        }
        let coverage = algorithm.map(|algorithm| algorithm.coverage(asked));
        let upload = Upload {
            key: input.key.clone(),
            label: Label::new(input.content_type.clone(), input.metadata.clone())?,
            declared: algorithm.zip(coverage.transpose()?),
            parts: BTreeMap::new(),
            opened: self.clock.now(),
        };
        let id = self.dice.nonce();
        self.with(&input.bucket, |shelf| {
            shelf.uploads.insert(id.clone(), upload);
            Ok(())
        })?;
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm.clone(),
            checksum_type: input.checksum_type.clone(),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(
        &self,
        input: UploadPartInput,
        carried: Carried,
    ) -> S3Result<UploadPartOutput> {
        let said = checksum_of!(input)?;
        let wanted = carried.algorithm(said.as_ref())?;
        let received = Received::read(input.body, wanted, &self.keeping).await?;
        let said = carried.or_trailer(said)?;
        received.verify(
            input.content_length,
            input.content_md5.as_deref(),
            said.as_ref(),
        )?;
        let part = Part::new(received, self.clock.now());
        let mut output = UploadPartOutput {
            e_tag: Some(ETag::Strong(part.etag.clone())),
            ..UploadPartOutput::default()
        };
        tell_checksum!(output, &part.checksum);
        self.with(&input.bucket, |shelf| {
            let upload = shelf.upload(&input.key, &input.upload_id)?;
            upload.admit(input.part_number, wanted)?;
            upload.parts.insert(input.part_number, part);
            Ok(output)
        })
    }

    fn complete_multipart_upload(
        &self,
        input: &CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let asked = Completion {
            total: checksum_of!(input)?,
            coverage: input
                .checksum_type
                .as_ref()
                .map(|name| name.as_str().to_owned()),
            length: input.mpu_object_size,
            parts: listed(input.multipart_upload.as_ref())?,
        };
        let only_new = only_new(input.if_none_match.as_ref(), input.if_match.as_ref())?;
        let (key, id) = (&input.key, &input.upload_id);
        let mut output = CompleteMultipartUploadOutput::default();
        self.with(&input.bucket, |shelf| {
            let upload = shelf.upload(key, id)?;
            let object = upload.assemble(&asked, &self.quirks, self.clock.now());
            let checked = shelf.check_new(key, only_new, &self.quirks);
            if (object.is_err() || checked.is_err()) && self.quirks.failed_complete_ends_upload {
                shelf.close(key, id)?;
            }
            let object = checked.and(object)?;
            output.e_tag = Some(ETag::Strong(object.etag.clone()));
            self.tell(&object, |checksum, coverage| {
                tell_checksum!(output, Some(checksum));
                output.checksum_type = Some(coverage);
            });
            shelf.close(key, id)?;
            shelf.write(key, object);
            Ok(())
        })?;
        output.location = Some(format!("/{}/{key}", input.bucket));
        output.bucket = Some(input.bucket.clone());
        output.key = Some(key.clone());
        Ok(output)
    }

    fn abort_multipart_upload(
        &self,
        input: &AbortMultipartUploadInput,
    ) -> S3Result<AbortMultipartUploadOutput> {
        self.with(&input.bucket, |shelf| {
            shelf.close(&input.key, &input.upload_id)?;
            Ok(AbortMultipartUploadOutput::default())
        })
    }

    /// Hands out the checksum that readers of `object` are told, if there is one.
    pub(super) fn tell(&self, object: &Object, tell: impl FnOnce(&Checksum, dto::ChecksumType)) {
        if let Some((checksum, coverage)) = object.told(&self.quirks) {
            tell(&checksum, dto::ChecksumType::from_static(coverage.name()));
        }
    }
}

/// Checksums that come apart from the parsed request: named ahead of the body, and behind it.
struct Carried {
    /// The request says that it carries one, somewhere.
    named: bool,
    announced: Option<Algorithm>,
    trailers: Option<TrailingHeaders>,
}

impl Carried {
    fn new<T>(request: &S3Request<T>) -> Self {
        let text = |name: &str| {
            request
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let announced = text("x-amz-trailer").map(str::trim);
        let announced = announced.and_then(|name| {
            let mut all = Algorithm::ALL.into_iter();
            all.find(|known| known.header().eq_ignore_ascii_case(name))
        });
        Self {
            named: text("x-amz-sdk-checksum-algorithm").is_some(),
            announced,
            trailers: request.trailing_headers.clone(),
        }
    }

    /// The checksum to compute: that of the header, else that of the trailer. Refuses a name without either.
    fn algorithm(&self, said: Option<&Checksum>) -> S3Result<Option<Algorithm>> {
        let found = said.map(|checksum| checksum.algorithm).or(self.announced);
        if found.is_none() && self.named {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* \
                 or x-amz-trailer headers were found."
            ));
        }
        Ok(found)
    }

    /// The checksum of the header, else the one behind the body, which was read by now.
    fn or_trailer(&self, said: Option<Checksum>) -> S3Result<Option<Checksum>> {
        let (None, Some(algorithm)) = (&said, self.announced) else {
            return Ok(said);
        };
        let read = |trailers: &http::HeaderMap| {
            let value = trailers.get(algorithm.header())?.to_str().ok()?;
            let value = value.trim().to_owned();
            Some(Checksum { algorithm, value })
        };
        let trailer = self
            .trailers
            .as_ref()
            .and_then(|trailers| trailers.read(read)?);
        trailer
            .map(Some)
            .ok_or_else(|| s3_error!(InvalidRequest, "the announced trailer is missing"))
    }
}

/// Whether a write must not replace anything: `If-None-Match: *`, the only condition that S3 takes here.
fn only_new(
    none_match: Option<&dto::IfNoneMatch>,
    matches: Option<&dto::IfMatch>,
) -> S3Result<bool> {
    match (none_match, matches) {
        (None, None) => Ok(false),
        (Some(condition), None) if condition.is_any() => Ok(true),
        (_, _) => Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        )),
    }
}

fn listed(upload: Option<&dto::CompletedMultipartUpload>) -> S3Result<Vec<ListedPart>> {
    let parts = upload.and_then(|upload| upload.parts.as_deref());
    let parts = parts.unwrap_or_default().iter().map(|part| {
        let checksum = checksum_of!(part)?;
        let (Some(number), Some(etag)) = (part.part_number, &part.e_tag) else {
            return Err(s3_error!(
                MalformedXML,
                "a listed part has its number and its ETag"
            ));
        };
        Ok(ListedPart {
            number,
            etag: etag.value().to_owned(),
            checksum,
        })
    });
    parts.collect()
}

/// S3's operations, each led to its function of the backend.
pub(super) struct Lead(pub(super) Arc<Backend>);

/// Leads S3's operations to the backend's functions of the same name. The signatures are those that the
/// attribute on the trait makes of its async functions.
macro_rules! lead {
    (@call $backend:expr, $request:ident, $operation:ident) => {
        $backend.$operation(&$request.input)
    };
    (@call $backend:expr, $request:ident, $operation:ident, $carried:ident) => {{
        let $carried = Carried::new(&$request);
        $backend.$operation($request.input, $carried).await
    }};
    ($($operation:ident($input:ident $(, $carried:ident)?) -> $output:ident;)+) => {
        impl S3 for Lead {
            $(
                fn $operation<'life0, 'async_trait>(
                    &'life0 self,
                    request: S3Request<$input>,
                ) -> BoxFuture<'async_trait, S3Result<S3Response<$output>>>
                where
                    'life0: 'async_trait,
                    Self: 'async_trait,
                {
                    Box::pin(async move {
                        let output = lead!(@call self.0, request, $operation $(, $carried)?);
                        output.map(S3Response::new)
                    })
                }
            )+
        }
    };
}

lead! {
    create_bucket(CreateBucketInput) -> CreateBucketOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    put_object(PutObjectInput, carried) -> PutObjectOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    upload_part(UploadPartInput, carried) -> UploadPartOutput;
    list_parts(ListPartsInput) -> ListPartsOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
}
