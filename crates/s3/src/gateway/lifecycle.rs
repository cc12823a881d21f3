//! Lifecycle rules: set, shown and removed here, carried out by [`crate::lifecycle`].

use onefold_files::Setting;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use crate::lifecycle::rules::Rules;
use crate::settings;

pub(super) async fn get_bucket_lifecycle_configuration(
    gateway: &Gateway,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let bucket = &request.input.bucket;
    let rules: Option<Rules> = settings::load(&*gateway.files, bucket, Setting::Lifecycle).await?;
    let rules = rules.ok_or_else(|| {
        s3_error!(NoSuchLifecycleConfiguration, "the lifecycle configuration does not exist")
    })?;
    Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
        rules: Some(rules.into_document()),
        ..GetBucketLifecycleConfigurationOutput::default()
    }))
}

pub(super) async fn put_bucket_lifecycle_configuration(
    gateway: &Gateway,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let input = request.input;
    let document = input
        .lifecycle_configuration
        .ok_or_else(|| s3_error!(MalformedXML, "the request has no lifecycle configuration"))?;
    let rules = Rules::from_document(document)?;
    settings::store(&*gateway.files, &input.bucket, Setting::Lifecycle, Some(&rules)).await?;
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
}

pub(super) async fn delete_bucket_lifecycle(
    gateway: &Gateway,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    let bucket = &request.input.bucket;
    settings::store::<Rules>(&*gateway.files, bucket, Setting::Lifecycle, None).await?;
    Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
}
