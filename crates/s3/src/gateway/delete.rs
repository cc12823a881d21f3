//! DeleteObject and DeleteObjects.

use onefold_files::limits::REMOVE_KEYS_MAX;
use onefold_files::validate_key;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use crate::errors::{from_files, not_implemented};

/// It is no error if there is no such object.
pub(super) async fn delete_object(
    gateway: &Gateway,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    let is_conditional = input.if_match.is_some()
        || input.if_match_size.is_some()
        || input.if_match_last_modified_time.is_some();
    if is_conditional {
        return Err(not_implemented("a conditional delete"));
    }
    let removed = gateway.files.remove(&input.bucket, &input.key).await;
    removed.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
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
    let mut keys = Vec::with_capacity(objects.len());
    let mut errors = Vec::new();
    for object in objects {
        match refusal(&object) {
            None => keys.push(object.key),
            Some((code, message)) => errors.push(Error {
                code: Some(code.to_owned()),
                key: Some(object.key),
                message: Some(message.to_owned()),
                version_id: object.version_id,
            }),
        }
    }
    let removed = gateway.files.remove_many(&input.bucket, &keys).await;
    removed.map_err(|error| from_files(&error))?;
    let deleted = (!input.delete.quiet.unwrap_or(false)).then(|| {
        let deleted = |key| DeletedObject { key: Some(key), ..DeletedObject::default() };
        keys.into_iter().map(deleted).collect()
    });
    let output = DeleteObjectsOutput {
        deleted,
        errors: (!errors.is_empty()).then_some(errors),
        ..DeleteObjectsOutput::default()
    };
    Ok(S3Response::new(output))
}

fn refusal(object: &ObjectIdentifier) -> Option<(&'static str, &'static str)> {
    let version = object.version_id.as_deref().unwrap_or("null");
    if object.e_tag.is_some() || object.size.is_some() || object.last_modified_time.is_some() {
        Some(("NotImplemented", "a conditional delete is not implemented by Onefold"))
    } else if version != "null" && !version.is_empty() {
        Some(("NoSuchVersion", "buckets have no versions"))
    } else if object.key.len() > onefold_files::limits::KEY_BYTES_MAX {
        Some(("KeyTooLongError", "a key has at most 1024 bytes of UTF-8"))
    } else if validate_key(&object.key).is_err() {
        Some(("UserKeyMustBeSpecified", "the key is empty"))
    } else {
        None
    }
}
