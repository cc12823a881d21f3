//! Settings of buckets as documents of ours: JSON in the namespace, whatever the XML was.

use bytes::Bytes;
use onefold_files::{Setting, VersionedFiles};
use s3s::{S3Result, s3_error};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errors::from_files;

/// A setting, if the bucket has it.
///
/// # Errors
/// `NoSuchBucket`; `InternalError` for a damaged setting.
pub(crate) async fn load<T: DeserializeOwned>(
    files: &dyn VersionedFiles,
    bucket: &str,
    setting: Setting,
) -> S3Result<Option<T>> {
    let kept = files.setting(bucket, setting).await.map_err(|error| from_files(&error))?;
    let parsed = kept.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    parsed.map_err(|error| {
        tracing::warn!(bucket, ?setting, %error, "a setting of a bucket is damaged");
        s3_error!(InternalError, "the bucket's setting is damaged; set it again")
    })
}

/// Sets a setting, or removes it.
///
/// # Errors
/// `NoSuchBucket`, `EntityTooLarge`.
pub(crate) async fn store<T: Serialize>(
    files: &dyn VersionedFiles,
    bucket: &str,
    setting: Setting,
    value: Option<&T>,
) -> S3Result<()> {
    let bytes = value.map(serde_json::to_vec).transpose();
    let bytes = bytes.map_err(|error| s3_error!(InternalError, "{error}"))?.map(Bytes::from);
    files.set_setting(bucket, setting, bytes).await.map_err(|error| from_files(&error))
}
