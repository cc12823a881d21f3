//! Tags of objects, which are kept among their headers, and of buckets.

use onefold_files::{FileInfo, Setting};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::versions::{asked, from_read, told};
use crate::errors::{custom, from_files};
use crate::tags::{BUCKET_TAGS_MAX, HEADER, OBJECT_TAGS_MAX, Tags};

/// How many tags an object has, for the header that tells it.
pub(super) fn count(info: &FileInfo) -> Option<i32> {
    let tags = info.attributes.headers.get(HEADER)?;
    i32::try_from(Tags::from_header(tags).ok()?.0.len()).ok()
}

pub(super) async fn get_object_tagging(
    gateway: &Gateway,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    let version = asked(input.version_id.as_deref())?;
    let found = gateway.files.open_version(&input.bucket, &input.key, version).await;
    let found = found.map_err(|error| from_read(&error, version))?;
    let header = found.info().attributes.headers.get(HEADER);
    let tags = header.map(|text| Tags::from_header(text)).transpose()?.unwrap_or_default();
    Ok(S3Response::new(GetObjectTaggingOutput {
        tag_set: tags.into_set(),
        version_id: told(found.info()),
    }))
}

pub(super) async fn put_object_tagging(
    gateway: &Gateway,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = request.input;
    let tags = Tags::from_set(input.tagging.tag_set, OBJECT_TAGS_MAX)?.to_header();
    let tags = (!tags.is_empty()).then_some(tags);
    let version_id =
        change(gateway, &input.bucket, &input.key, input.version_id.as_deref(), tags).await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
}

pub(super) async fn delete_object_tagging(
    gateway: &Gateway,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = request.input;
    let version_id =
        change(gateway, &input.bucket, &input.key, input.version_id.as_deref(), None).await?;
    Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
}

/// Sets or removes the tags, and answers the version that has them.
async fn change(
    gateway: &Gateway,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    tags: Option<String>,
) -> S3Result<Option<String>> {
    let version = asked(version)?;
    let changes = vec![(HEADER.to_owned(), tags)];
    let changed = gateway.files.change_headers(bucket, key, version, Vec::new(), changes).await;
    Ok(told(&changed.map_err(|error| from_read(&error, version))?))
}

pub(super) async fn get_bucket_tagging(
    gateway: &Gateway,
    request: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let kept = gateway.files.setting(&request.input.bucket, Setting::Tagging).await;
    let kept = kept.map_err(|error| from_files(&error))?.ok_or_else(|| {
        let status = hyper::StatusCode::NOT_FOUND;
        custom("NoSuchTagSet", status, "the bucket has no tags")
    })?;
    let text = std::str::from_utf8(&kept)
        .map_err(|_| s3_error!(InternalError, "the bucket's tags are damaged; set them again"))?;
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    let tags = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: Tags(tags).into_set() }))
}

/// Kept as lines of `KEY<tab>VALUE`, since neither may hold such a sign.
pub(super) async fn put_bucket_tagging(
    gateway: &Gateway,
    request: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let input = request.input;
    let tags = Tags::from_set(input.tagging.tag_set, BUCKET_TAGS_MAX)?;
    let lines: String = tags.0.iter().map(|(key, value)| format!("{key}\t{value}\n")).collect();
    let set = gateway.files.set_setting(&input.bucket, Setting::Tagging, Some(lines.into()));
    set.await.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(PutBucketTaggingOutput::default()))
}

pub(super) async fn delete_bucket_tagging(
    gateway: &Gateway,
    request: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    let set = gateway.files.set_setting(&request.input.bucket, Setting::Tagging, None).await;
    set.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
}
