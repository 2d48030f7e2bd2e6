//! S3's reading operations: objects whole, in ranges and by their heads; and the listings, page by page.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::Body;
use s3s::S3Result;
use s3s::StdError;
use s3s::dto;
use s3s::dto::ETag;
use s3s::dto::GetObjectInput;
use s3s::dto::GetObjectOutput;
use s3s::dto::HeadObjectInput;
use s3s::dto::HeadObjectOutput;
use s3s::dto::ListMultipartUploadsInput;
use s3s::dto::ListMultipartUploadsOutput;
use s3s::dto::ListObjectsV2Input;
use s3s::dto::ListObjectsV2Output;
use s3s::dto::ListPartsInput;
use s3s::dto::ListPartsOutput;
use s3s::s3_error;

use crate::clock::Timestamp;
use crate::simulator::bucket::backend::Backend;
use crate::simulator::bucket::checksum::tell_checksum;
use crate::simulator::bucket::shelf::Object;
use crate::simulator::bucket::shelf::Part;
use crate::simulator::bucket::shelf::Upload;

/// S3's limit on the entries of one page.
const PAGE_ENTRIES_MAX: i32 = 1_000;

impl Backend {
    /// Reads an object, or a range of it.
    pub(super) fn get_object(&self, input: &GetObjectInput) -> S3Result<GetObjectOutput> {
        let object = self.object(&input.bucket, &input.key)?;
        let range = range_of(input.range, object.length)?;
        let content_range = range.clone().map(|range| {
            let last = range.end.saturating_sub(1);
            format!("bytes {}-{last}/{}", range.start, object.length)
        });
        let range = range.unwrap_or(0..object.length);
        if object.bodies.is_empty() && object.length > 0 {
            return Err(s3_error!(
                NotImplemented,
                "this bucket discards the bodies that it is given"
            ));
        }
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(range.end - range.start)),
            content_range,
            content_type: object.label.content_type.clone(),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(timestamp(object.modified)),
            metadata: metadata_of(&object),
            parts_count: object.parts,
            ..GetObjectOutput::default()
        };
        let whole = output.content_range.is_none();
        if whole && wants_checksum(input.checksum_mode.as_ref()) {
            self.tell(&object, |checksum, coverage| {
                tell_checksum!(output, Some(checksum));
                output.checksum_type = Some(coverage);
            });
        }
        output.body = Some(Body::http_body(frames_of(&object, &range)).into());
        Ok(output)
    }

    /// Asks about an object.
    pub(super) fn head_object(&self, input: &HeadObjectInput) -> S3Result<HeadObjectOutput> {
        let object = self.object(&input.bucket, &input.key)?;
        let mut output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(object.length)),
            content_type: object.label.content_type.clone(),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(timestamp(object.modified)),
            metadata: metadata_of(&object).filter(|_| self.quirks.keeps_metadata),
            parts_count: object.parts,
            ..HeadObjectOutput::default()
        };
        if wants_checksum(input.checksum_mode.as_ref()) {
            self.tell(&object, |checksum, coverage| {
                tell_checksum!(output, Some(checksum));
                output.checksum_type = Some(coverage);
            });
        }
        Ok(output)
    }

    /// Lists the objects by key.
    pub(super) fn list_objects_v2(
        &self,
        input: &ListObjectsV2Input,
    ) -> S3Result<ListObjectsV2Output> {
        refuse_delimiter(input.delimiter.as_deref())?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input
            .continuation_token
            .as_ref()
            .or(input.start_after.as_ref());
        let after = after.cloned().unwrap_or_default();
        let entries = self.with(&input.bucket, |shelf| {
            let found = shelf.objects.iter();
            let found = found.filter(|(key, _)| key.starts_with(&prefix) && **key > after);
            Ok(found
                .map(|(key, object)| listed_object(key, object))
                .collect())
        })?;
        let (page, more) = self.page_of(entries, input.max_keys)?;
        let last = page
            .last()
            .and_then(|object: &dto::Object| object.key.clone());
        Ok(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: input.prefix.clone(),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_ENTRIES_MAX)),
            key_count: i32::try_from(page.len()).ok(),
            is_truncated: Some(more),
            continuation_token: input.continuation_token.clone(),
            next_continuation_token: last.filter(|_| more),
            start_after: input.start_after.clone(),
            contents: Some(page),
            ..ListObjectsV2Output::default()
        })
    }

    /// Lists the parts of an upload by number.
    pub(super) fn list_parts(&self, input: &ListPartsInput) -> S3Result<ListPartsOutput> {
        let marker = input.part_number_marker.unwrap_or(0);
        let (parts, declared) = self.with(&input.bucket, |shelf| {
            let upload = shelf.upload(&input.key, &input.upload_id)?;
            let after = upload.parts.iter().filter(|(number, _)| **number > marker);
            let parts = after
                .map(|(number, part)| listed_part(*number, part))
                .collect();
            Ok((parts, upload.declared))
        })?;
        let (page, more) = self.page_of(parts, input.max_parts)?;
        let last = page.last().and_then(|part: &dto::Part| part.part_number);
        let algorithm = declared.map(|(algorithm, _)| algorithm.name());
        let coverage = declared.map(|(_, coverage)| coverage.name());
        Ok(ListPartsOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(input.upload_id.clone()),
            checksum_algorithm: algorithm.map(dto::ChecksumAlgorithm::from_static),
            checksum_type: coverage.map(dto::ChecksumType::from_static),
            is_truncated: Some(more),
            max_parts: Some(input.max_parts.unwrap_or(PAGE_ENTRIES_MAX)),
            part_number_marker: Some(marker),
            next_part_number_marker: last.filter(|_| more),
            parts: Some(page),
            ..ListPartsOutput::default()
        })
    }

    /// Lists the open uploads by key, and those of one key by age.
    pub(super) fn list_multipart_uploads(
        &self,
        input: &ListMultipartUploadsInput,
    ) -> S3Result<ListMultipartUploadsOutput> {
        refuse_delimiter(input.delimiter.as_deref())?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let mut uploads: Vec<_> = self.with(&input.bucket, |shelf| {
            let found = shelf.uploads.iter();
            let found = found.filter(|(_, upload)| upload.key.starts_with(&prefix));
            Ok(found
                .map(|(id, upload)| listed_upload(id, upload))
                .collect())
        })?;
        uploads.sort_by(|one, other| order_of(one).cmp(&order_of(other)));
        let rest = after_marker(
            uploads,
            input.key_marker.as_ref(),
            input.upload_id_marker.as_ref(),
        );
        let (page, more) = self.page_of(rest, input.max_uploads)?;
        let last = page.last().filter(|_| more);
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket.clone()),
            prefix: input.prefix.clone(),
            max_uploads: Some(input.max_uploads.unwrap_or(PAGE_ENTRIES_MAX)),
            is_truncated: Some(more),
            key_marker: input.key_marker.clone(),
            upload_id_marker: input.upload_id_marker.clone(),
            next_key_marker: last.and_then(|upload| upload.key.clone()),
            next_upload_id_marker: last.and_then(|upload| upload.upload_id.clone()),
            uploads: Some(page),
            ..ListMultipartUploadsOutput::default()
        })
    }

    fn page_of<T>(&self, entries: Vec<T>, asked: Option<i32>) -> S3Result<(Vec<T>, bool)> {
        let own = self.quirks.page_entries_max.min(PAGE_ENTRIES_MAX);
        page_of(entries, Some(asked.unwrap_or(own).min(own)))
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.with(bucket, |shelf| {
            let found = shelf.objects.get(key).cloned();
            found.ok_or_else(|| {
                if self.quirks.may_list {
                    s3_error!(NoSuchKey, "The specified key does not exist.")
                } else {
                    s3_error!(AccessDenied)
                }
            })
        })
    }
}

/// The frames that make up `range` of an object.
pub(super) fn slices_of(object: &Object, range: &Range<u64>) -> Vec<Bytes> {
    let mut start = 0;
    let mut slices = Vec::new();
    for frame in object.bodies.iter().flat_map(|body| &body.frames) {
        let length = u64::try_from(frame.len()).expect("no frame is longer than the address space");
        let (from, to) = (range.start.max(start), range.end.min(start + length));
        if from < to {
            let within = |offset: u64| {
                usize::try_from(offset - start)
                    .expect("an offset within a frame is its length at most")
            };
            slices.push(frame.slice(within(from)..within(to)));
        }
        start += length;
    }
    slices
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, StdError>>>>;

fn frames_of(object: &Object, range: &Range<u64>) -> Frames {
    let frames = slices_of(object, range)
        .into_iter()
        .map(|slice| Ok(Frame::data(slice)));
    StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))
}

fn range_of(asked: Option<dto::Range>, length: u64) -> S3Result<Option<Range<u64>>> {
    let range = asked.map(|range| range.check(length)).transpose();
    range.map_err(|_| s3_error!(InvalidRange, "The requested range is not satisfiable"))
}

fn wants_checksum(mode: Option<&dto::ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == dto::ChecksumMode::ENABLED)
}

fn metadata_of(object: &Object) -> Option<dto::Metadata> {
    let metadata = &object.label.metadata;
    (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect())
}

fn listed_object(key: &str, object: &Object) -> dto::Object {
    dto::Object {
        key: Some(key.to_owned()),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        size: Some(signed(object.length)),
        last_modified: Some(timestamp(object.modified)),
        ..dto::Object::default()
    }
}

fn listed_part(number: i32, part: &Part) -> dto::Part {
    let mut listed = dto::Part {
        part_number: Some(number),
        e_tag: Some(ETag::Strong(part.etag.clone())),
        size: Some(signed(part.length)),
        last_modified: Some(timestamp(part.modified)),
        ..dto::Part::default()
    };
    tell_checksum!(listed, &part.checksum);
    listed
}

fn listed_upload(id: &str, upload: &Upload) -> dto::MultipartUpload {
    dto::MultipartUpload {
        key: Some(upload.key.clone()),
        upload_id: Some(id.to_owned()),
        initiated: Some(timestamp(upload.opened)),
        ..dto::MultipartUpload::default()
    }
}

fn order_of(upload: &dto::MultipartUpload) -> impl Ord + '_ {
    (&upload.key, &upload.initiated, &upload.upload_id)
}

/// What comes after the markers: greater keys, and of the marked key what follows the marked upload.
fn after_marker(
    uploads: Vec<dto::MultipartUpload>,
    key: Option<&String>,
    id: Option<&String>,
) -> Vec<dto::MultipartUpload> {
    let Some(key) = key else { return uploads };
    let marked = uploads.iter().position(|upload| {
        upload.key.as_ref() == Some(key) && id.is_some() && upload.upload_id.as_ref() == id
    });
    let passed = marked.map_or_else(
        || {
            uploads
                .iter()
                .filter(|upload| upload.key.as_ref() <= Some(key))
                .count()
        },
        |marked| marked + 1,
    );
    uploads.into_iter().skip(passed).collect()
}

/// The first entries, and whether others follow.
fn page_of<T>(mut entries: Vec<T>, asked: Option<i32>) -> S3Result<(Vec<T>, bool)> {
    let entries_max = asked.unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX);
    let entries_max = usize::try_from(entries_max);
    let entries_max = entries_max.map_err(|_| s3_error!(InvalidArgument, "a page has entries"))?;
    let more = entries.len() > entries_max;
    entries.truncate(entries_max);
    Ok((entries, more))
}

fn refuse_delimiter(delimiter: Option<&str>) -> S3Result<()> {
    delimiter.map_or(Ok(()), |_| {
        Err(s3_error!(
            NotImplemented,
            "listings are not grouped by a delimiter here"
        ))
    })
}

fn timestamp(instant: Timestamp) -> dto::Timestamp {
    let millis = u64::try_from(instant.as_unix_millis()).unwrap_or(0);
    (SystemTime::UNIX_EPOCH + Duration::from_millis(millis)).into()
}

fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
