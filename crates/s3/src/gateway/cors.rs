//! Which web pages may use a bucket: set, shown and removed here, applied in front.

use onefold_files::Setting;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use crate::cors::Rules;
use crate::settings;

pub(super) async fn get_bucket_cors(
    gateway: &Gateway,
    request: S3Request<GetBucketCorsInput>,
) -> S3Result<S3Response<GetBucketCorsOutput>> {
    let rules: Option<Rules> =
        settings::load(&*gateway.files, &request.input.bucket, Setting::Cors).await?;
    let rules = rules.ok_or_else(|| {
        s3_error!(NoSuchCORSConfiguration, "the CORS configuration does not exist")
    })?;
    Ok(S3Response::new(GetBucketCorsOutput { cors_rules: Some(rules.into_document()) }))
}

pub(super) async fn put_bucket_cors(
    gateway: &Gateway,
    request: S3Request<PutBucketCorsInput>,
) -> S3Result<S3Response<PutBucketCorsOutput>> {
    let input = request.input;
    let rules = Rules::from_document(input.cors_configuration)?;
    settings::store(&*gateway.files, &input.bucket, Setting::Cors, Some(&rules)).await?;
    Ok(S3Response::new(PutBucketCorsOutput::default()))
}

pub(super) async fn delete_bucket_cors(
    gateway: &Gateway,
    request: S3Request<DeleteBucketCorsInput>,
) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
    let bucket = &request.input.bucket;
    settings::store::<Rules>(&*gateway.files, bucket, Setting::Cors, None).await?;
    Ok(S3Response::new(DeleteBucketCorsOutput::default()))
}
