//! DeleteObject and DeleteObjects.

use onefold_files::limits::REMOVE_KEYS_MAX;
use onefold_files::{RemoveCondition, RemoveTarget, Removed, validate_key};
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::epoch_seconds;
use super::versions::asked;
use crate::errors::{custom, from_files};

/// It is no error if there is no such object, unless something was said about it.
pub(super) async fn delete_object(
    gateway: &Gateway,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    let target = RemoveTarget {
        version: asked(input.version_id.as_deref())?,
        condition: RemoveCondition {
            etag: input.if_match.as_ref().map(|condition| match condition {
                ETagCondition::Any => "*".to_owned(),
                ETagCondition::ETag(etag) => etag.value().to_owned(),
            }),
            ..condition(None, input.if_match_size, input.if_match_last_modified_time.as_ref())?
        },
        key: input.key,
        bypass_governance: input.bypass_governance_retention.unwrap_or_default(),
    };
    let removed = gateway.files.remove_versions(&input.bucket, &[target]).await;
    let removed = removed.map_err(|error| from_files(&error))?.pop();
    let removed = removed.ok_or_else(|| s3_error!(InternalError))?;
    let removed = removed.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(DeleteObjectOutput {
        delete_marker: removed.is_marker.then_some(true),
        version_id: removed.version.map(|version| version.to_string()),
        ..DeleteObjectOutput::default()
    }))
}

fn condition(
    etag: Option<&ETag>,
    size: Option<i64>,
    modified: Option<&Timestamp>,
) -> S3Result<RemoveCondition> {
    let size = size.map(u64::try_from).transpose();
    Ok(RemoveCondition {
        etag: etag.map(|etag| etag.value().to_owned()),
        size: size.map_err(|_| s3_error!(InvalidArgument, "a size must not be negative"))?,
        modified_s: modified.map(epoch_seconds).transpose()?,
    })
}

pub(super) async fn delete_objects(
    gateway: &Gateway,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let S3Request { input, headers, .. } = request;
    let is_protected = headers.contains_key("content-md5")
        || headers.keys().any(|name| name.as_str().starts_with("x-amz-checksum-"));
    if !is_protected {
        return Err(s3_error!(
            InvalidRequest,
            "missing required header: Content-MD5 or a checksum"
        ));
    }
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > REMOVE_KEYS_MAX {
        return Err(s3_error!(MalformedXML, "a request deletes 1 to {REMOVE_KEYS_MAX} objects"));
    }
    let bypass_governance = input.bypass_governance_retention.unwrap_or_default();
    let mut targets = Vec::with_capacity(objects.len());
    let mut errors = Vec::new();
    for object in objects {
        match target(&object, bypass_governance) {
            Ok(target) => targets.push(target),
            Err(error) => errors.push(failure(&error, object.key, object.version_id)),
        }
    }
    let removed = gateway.files.remove_versions(&input.bucket, &targets).await;
    let removed = removed.map_err(|error| from_files(&error))?;
    let mut deleted = Vec::with_capacity(targets.len());
    for (target, removed) in targets.into_iter().zip(removed) {
        let version = target.version.map(|version| version.to_string());
        match removed {
            Ok(removed) => deleted.push(success(target.key, version, removed)),
            Err(error) => errors.push(failure(&from_files(&error), target.key, version)),
        }
    }
    let output = DeleteObjectsOutput {
        deleted: (!input.delete.quiet.unwrap_or(false)).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        ..DeleteObjectsOutput::default()
    };
    Ok(S3Response::new(output))
}

fn target(object: &ObjectIdentifier, bypass_governance: bool) -> S3Result<RemoveTarget> {
    if object.key.len() > onefold_files::limits::KEY_BYTES_MAX {
        return Err(s3_error!(KeyTooLongError, "a key has at most 1024 bytes of UTF-8"));
    }
    if validate_key(&object.key).is_err() {
        let status = hyper::StatusCode::BAD_REQUEST;
        return Err(custom("UserKeyMustBeSpecified", status, "the key is empty"));
    }
    Ok(RemoveTarget {
        key: object.key.clone(),
        version: asked(object.version_id.as_deref())?,
        condition: condition(
            object.e_tag.as_ref(),
            object.size,
            object.last_modified_time.as_ref(),
        )?,
        bypass_governance,
    })
}

fn success(key: String, version_id: Option<String>, removed: Removed) -> DeletedObject {
    let marker = removed.version.filter(|_| removed.is_marker);
    DeletedObject {
        delete_marker: marker.map(|_| true),
        delete_marker_version_id: marker.map(|version| version.to_string()),
        key: Some(key),
        version_id,
    }
}

fn failure(error: &S3Error, key: String, version_id: Option<String>) -> Error {
    Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(key),
        message: error.message().map(str::to_owned),
        version_id,
    }
}
