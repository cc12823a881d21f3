//! CopyObject and UploadPartCopy.

use std::ops::Range as Bytes;

use futures::StreamExt as _;
use onefold_files::limits::PART_BYTES_MAX;
use onefold_files::{CopyOptions, FileInfo, FilePath, FileReader, FilesError, FinishOptions};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{etag, part_number, set_checksum, timestamp};
use crate::attributes::{self, checksum_headers};
use crate::checksums::Algorithm;
use crate::conditions::{ReadConditions, write_condition};
use crate::errors::{from_files, not_implemented, too_large};

/// How often a copy starts again because its source was replaced under it.
const ATTEMPTS_MAX: usize = 4;

/// Copies share their bytes, so the size does not matter.
pub(super) async fn copy_object(
    gateway: &Gateway,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let S3Request { input, headers, .. } = request;
    let condition_of = |name: &str| {
        let value =
            headers.get(name).map(|value| ETagCondition::parse_http_header(value.as_bytes()));
        value.transpose().map_err(|_| s3_error!(InvalidArgument, "the header {name} is malformed"))
    };
    let target_condition = write_condition(
        condition_of("if-match")?.as_ref(),
        condition_of("if-none-match")?.as_ref(),
    )?;
    let from = source(input.copy_source)?;
    let to = path(input.bucket, input.key)?;
    let directive = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
    let replaces = directive == Some(MetadataDirective::REPLACE);
    if from == to && !replaces {
        return Err(s3_error!(
            InvalidRequest,
            "an object can be copied to itself only with its metadata replaced"
        ));
    }
    let replacement = if replaces {
        Some(attributes::from_request(&headers, input.content_type, input.metadata)?)
    } else {
        None
    };
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let mut attempts = 1;
    let info = loop {
        let mut options =
            CopyOptions { condition: target_condition.clone(), ..CopyOptions::default() };
        if replaces || !conditions.is_empty() {
            let info = gateway.files.stat(from.bucket(), from.key()).await;
            let info = info.map_err(|error| from_files(&error))?;
            conditions.require(&info)?;
            // The bytes stay, and so do their checksums.
            options.attributes = replacement.clone().map(|mut attributes| {
                attributes.headers.extend(checksum_headers(&info.attributes));
                attributes
            });
            options.source_etag = Some(info.etag);
        }
        match gateway.files.copy(&from, &to, options.clone()).await {
            Ok(info) => break info,
            Err(FilesError::PreconditionFailed { .. })
                if attempts < ATTEMPTS_MAX && was_replaced(gateway, &from, &options).await =>
            {
                attempts += 1;
            }
            Err(error) => return Err(from_files(&error)),
        }
    };
    let mut result = CopyObjectResult {
        e_tag: Some(etag(&info.etag)),
        last_modified: Some(timestamp(info.modified)),
        ..CopyObjectResult::default()
    };
    set_checksum!(result, kept_checksum(&info));
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        ..CopyObjectOutput::default()
    }))
}

/// Whether it was the source, pinned by its tag, that no longer is what it was.
async fn was_replaced(gateway: &Gateway, from: &FilePath, options: &CopyOptions) -> bool {
    let Some(pinned) = &options.source_etag else { return false };
    let now = gateway.files.stat(from.bucket(), from.key()).await;
    now.is_ok_and(|now| now.etag != *pinned)
}

fn kept_checksum(info: &FileInfo) -> Option<(Algorithm, String)> {
    let headers = checksum_headers(&info.attributes).into_iter();
    headers.into_iter().find_map(|(name, value)| Some((Algorithm::of_header(&name)?, value)))
}

pub(super) async fn upload_part_copy(
    gateway: &Gateway,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = request.input;
    let number = part_number(input.part_number)?;
    let from = source(input.copy_source)?;
    let reader = gateway.files.open(from.bucket(), from.key()).await;
    let reader = reader.map_err(|error| from_files(&error))?;
    ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    }
    .require(reader.info())?;
    let bytes = part_range(input.copy_source_range.as_deref(), reader.info().size)?;
    let _place = gateway.admission.transfer(bytes.end - bytes.start).await?;
    let info =
        copy_bytes(gateway, &reader, bytes, &input.bucket, &input.key, &input.upload_id, number)
            .await
            .map_err(|error| from_files(&error))?;
    let result = CopyPartResult {
        e_tag: Some(etag(&info.etag)),
        last_modified: Some(timestamp(info.modified)),
        ..CopyPartResult::default()
    };
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        ..UploadPartCopyOutput::default()
    }))
}

async fn copy_bytes(
    gateway: &Gateway,
    reader: &FileReader,
    bytes: Bytes<u64>,
    bucket: &str,
    key: &str,
    upload: &str,
    number: u16,
) -> Result<FileInfo, FilesError> {
    let mut writer = gateway.files.upload_part(bucket, key, upload, number).await?;
    let mut pieces = reader.read(bytes);
    while let Some(piece) = pieces.next().await {
        writer.write(piece?).await?;
    }
    writer.finish(FinishOptions::default()).await
}

/// The range of a part's source: `bytes=FIRST-LAST`, which must lie within the object.
fn part_range(range: Option<&str>, size: u64) -> S3Result<Bytes<u64>> {
    let bytes = match range {
        None => 0..size,
        Some(range) => match Range::parse(range) {
            Ok(Range::Int { first, last: Some(last) }) if last < size => first..last + 1,
            Ok(Range::Int { .. }) => {
                return Err(s3_error!(InvalidRange, "the source has only {size} bytes"));
            }
            _ => {
                return Err(s3_error!(
                    InvalidArgument,
                    "x-amz-copy-source-range must be of the form bytes=first-last"
                ));
            }
        },
    };
    if bytes.end - bytes.start > PART_BYTES_MAX {
        return Err(too_large("part", PART_BYTES_MAX));
    }
    Ok(bytes)
}

fn source(source: CopySource) -> S3Result<FilePath> {
    match source {
        CopySource::Bucket { version_id: Some(version), .. } if &*version != "null" => {
            Err(s3_error!(NoSuchVersion, "buckets have no versions"))
        }
        CopySource::Bucket { bucket, key, .. } => path(bucket.into(), key.into()),
        _ => Err(not_implemented("a source that is an access point")),
    }
}

fn path(bucket: String, key: String) -> S3Result<FilePath> {
    FilePath::new(&bucket, &key).map_err(|error| from_files(&error))
}
