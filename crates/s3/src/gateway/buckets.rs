//! Buckets.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::Gateway;
use super::convert::{cursor, owner, page_limit, timestamp, token};
use crate::REGION;
use crate::errors::from_files;

/// Most buckets in one answer when the client asks for pages.
const PAGE_BUCKETS_DEFAULT: usize = 10_000;

pub(super) async fn list_buckets(
    gateway: &Gateway,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let input = request.input;
    let after = input.continuation_token.as_deref().map(cursor).transpose()?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let limit = match input.max_buckets {
        None => PAGE_BUCKETS_DEFAULT,
        asked => page_limit(asked, "max-buckets")?,
    };
    let mut buckets = gateway.files.list_buckets().await.map_err(|error| from_files(&error))?;
    buckets.retain(|bucket| {
        bucket.name.starts_with(&prefix) && after.as_ref().is_none_or(|after| bucket.name > *after)
    });
    let is_truncated = buckets.len() > limit;
    buckets.truncate(limit);
    let next = buckets.last().filter(|_| is_truncated).map(|bucket| token(&bucket.name));
    let buckets = buckets.into_iter().map(|bucket| Bucket {
        bucket_region: Some(REGION.to_owned()),
        creation_date: Some(timestamp(bucket.created)),
        name: Some(bucket.name),
    });
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets.collect()),
        continuation_token: next,
        owner: Some(owner()),
        prefix: input.prefix,
    }))
}

pub(super) async fn create_bucket(
    gateway: &Gateway,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let bucket = request.input.bucket;
    gateway.files.create_bucket(&bucket).await.map_err(|error| from_files(&error))?;
    if request.input.object_lock_enabled_for_bucket.unwrap_or_default() {
        gateway.enable_lock(&bucket).await?;
    }
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{bucket}")) }))
}

pub(super) async fn delete_bucket(
    gateway: &Gateway,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let bucket = request.input.bucket;
    gateway.files.delete_bucket(&bucket).await.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(DeleteBucketOutput {}))
}

pub(super) async fn head_bucket(
    gateway: &Gateway,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    let bucket = request.input.bucket;
    gateway.files.head_bucket(&bucket).await.map_err(|error| from_files(&error))?;
    let output =
        HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..HeadBucketOutput::default() };
    Ok(S3Response::new(output))
}

/// The answer for us-east-1 is, by tradition, an empty constraint.
pub(super) async fn get_bucket_location(
    gateway: &Gateway,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let bucket = request.input.bucket;
    gateway.files.head_bucket(&bucket).await.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(GetBucketLocationOutput::default()))
}
