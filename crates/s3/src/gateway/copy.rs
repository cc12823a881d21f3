//! CopyObject and UploadPartCopy.

use std::ops::Range as Bytes;

use futures::StreamExt as _;
use onefold_files::limits::PART_BYTES_MAX;
use onefold_files::{
    CopyOptions, FileInfo, FilePath, FileReader, FilesError, FinishOptions, VERSION_HEADER,
    Version, lock,
};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{etag, part_number, set_checksum, timestamp};
use super::lock::Asked;
use super::versions::{asked, from_read, told};
use crate::attributes::{self, checksum_headers, headers_of_bytes};
use crate::checksums::{Algorithm, Announced, Hasher, encode};
use crate::conditions::{ReadConditions, write_condition};
use crate::errors::{from_files, not_implemented, too_large};
use crate::tags;

const LOCK_HEADERS: [&str; 3] = [lock::MODE_HEADER, lock::UNTIL_HEADER, lock::HOLD_HEADER];
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
    let (from, version) = source(input.copy_source)?;
    let to = path(input.bucket, input.key)?;
    let directive = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
    let replaces = directive == Some(MetadataDirective::REPLACE);
    let directive = input.tagging_directive.as_ref().map(TaggingDirective::as_str);
    let replaces_tags = directive == Some(TaggingDirective::REPLACE);
    let tags = if replaces_tags { attributes::tags(&headers)? } else { None };
    if from == to && version.is_none() && !replaces && !replaces_tags {
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
    let asked_lock = Asked {
        mode: input.object_lock_mode,
        until: input.object_lock_retain_until_date,
        hold: input.object_lock_legal_hold_status,
    };
    let lock_headers = gateway.lock_headers(to.bucket(), asked_lock).await?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    let mut attempts = 1;
    let (info, source) = loop {
        let mut options =
            CopyOptions { condition: target_condition.clone(), ..CopyOptions::default() };
        let reader = gateway.files.open_version(from.bucket(), from.key(), version).await;
        let source = reader.map_err(|error| from_read(&error, version))?.info().clone();
        conditions.require(&source)?;
        // A lock does not go along with a copy.
        let is_locked =
            LOCK_HEADERS.iter().any(|name| source.attributes.headers.contains_key(*name));
        if replaces || replaces_tags || is_locked || !lock_headers.is_empty() {
            let kept = source.attributes.headers.get(tags::HEADER);
            let tags = if replaces_tags { tags.as_ref() } else { kept };
            // The bytes stay, and so does what belongs to them.
            let mut attributes = replacement.clone().unwrap_or_else(|| source.attributes.clone());
            attributes.headers.remove(VERSION_HEADER);
            attributes.headers.remove(tags::HEADER);
            attributes.headers.extend(tags.map(|tags| (tags::HEADER.to_owned(), tags.clone())));
            attributes.headers.extend(headers_of_bytes(&source.attributes));
            attributes.headers.retain(|name, _| !LOCK_HEADERS.contains(&name.as_str()));
            attributes.headers.extend(lock_headers.clone());
            options.attributes = Some(attributes);
        }
        if options.attributes.is_some() || !conditions.is_empty() {
            options.source_etag = Some(source.etag.clone());
        }
        match gateway.files.copy_version(&from, version, &to, options.clone()).await {
            Ok(info) => break (info, source),
            Err(FilesError::PreconditionFailed { .. })
                if attempts < ATTEMPTS_MAX && was_replaced(gateway, &from, &options).await =>
            {
                attempts += 1;
            }
            Err(error) => return Err(from_read(&error, version)),
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
        copy_source_version_id: told(&source),
        version_id: told(&info),
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
    let (from, version) = source(input.copy_source)?;
    let reader = gateway.files.open_version(from.bucket(), from.key(), version).await;
    let reader = reader.map_err(|error| from_read(&error, version))?;
    ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    }
    .require(reader.info())?;
    let bytes = part_range(input.copy_source_range.as_deref(), reader.info().size)?;
    let _place = gateway.admission.transfer(bytes.end - bytes.start).await?;
    let (info, checksum) =
        copy_bytes(gateway, &reader, bytes, &input.bucket, &input.key, &input.upload_id, number)
            .await
            .map_err(|error| from_files(&error))?;
    let mut result = CopyPartResult {
        e_tag: Some(etag(&info.etag)),
        last_modified: Some(timestamp(info.modified)),
        ..CopyPartResult::default()
    };
    set_checksum!(result, Some(checksum));
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: told(reader.info()),
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
) -> Result<(FileInfo, (Algorithm, String)), FilesError> {
    let mut writer = gateway.files.upload_part(bucket, key, upload, number).await?;
    let mut pieces = reader.read(bytes);
    let algorithm = Announced::DEFAULT.algorithm;
    let mut hasher = Hasher::new(algorithm);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        hasher.update(&piece);
        writer.write(piece).await?;
    }
    let checksum = encode(&hasher.finish());
    let headers = [(algorithm.header().to_owned(), checksum.clone())].into();
    let info = writer.finish(FinishOptions { headers, ..FinishOptions::default() }).await?;
    Ok((info, (algorithm, checksum)))
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

fn source(source: CopySource) -> S3Result<(FilePath, Option<Version>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok((path(bucket.into(), key.into())?, asked(version_id.as_deref())?))
        }
        _ => Err(not_implemented("a source that is an access point")),
    }
}

fn path(bucket: String, key: String) -> S3Result<FilePath> {
    FilePath::new(&bucket, &key).map_err(|error| from_files(&error))
}
