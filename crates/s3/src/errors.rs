//! Errors as S3 names them, in one place ("Error responses", S3 API reference).

use hyper::StatusCode;
use onefold_files::{ErrorKind, FilesError};
use s3s::{S3Error, S3ErrorCode, s3_error};

/// An error whose code the library beneath has no name for.
pub(crate) fn custom(
    code: &'static str,
    status: StatusCode,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> S3Error {
    let code = S3ErrorCode::Custom(code.into());
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(status);
    error
}

/// The body is not the one that was signed.
pub(crate) fn content_sha256_mismatch() -> S3Error {
    custom(
        "XAmzContentSHA256Mismatch",
        StatusCode::BAD_REQUEST,
        "the body does not have the SHA-256 that x-amz-content-sha256 gives",
    )
}

/// The body does not have the announced MD5.
pub(crate) fn content_md5_mismatch() -> S3Error {
    s3_error!(BadDigest, "the Content-MD5 you specified did not match what we received")
}

/// The body is shorter or longer than announced.
pub(crate) fn incomplete_body() -> S3Error {
    s3_error!(
        IncompleteBody,
        "the body does not have the number of bytes that the headers specify; nothing was stored"
    )
}

/// An object or part beyond S3's limits.
pub(crate) fn too_large(what: &str, maximum: u64) -> S3Error {
    s3_error!(EntityTooLarge, "a {what} has at most {maximum} bytes")
}

/// What is asked for exists in S3 and not here.
pub(crate) fn not_implemented(what: &str) -> S3Error {
    s3_error!(NotImplemented, "{what} is not implemented by Onefold")
}

/// The error of the file system, as a client of S3 knows it.
pub(crate) fn from_files(error: &FilesError) -> S3Error {
    let code = match error.kind() {
        ErrorKind::NoSuchBucket => S3ErrorCode::NoSuchBucket,
        ErrorKind::BucketExists => S3ErrorCode::BucketAlreadyOwnedByYou,
        ErrorKind::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
        ErrorKind::InvalidBucketName => S3ErrorCode::InvalidBucketName,
        ErrorKind::NoSuchKey => S3ErrorCode::NoSuchKey,
        ErrorKind::InvalidKey | ErrorKind::Invalid => S3ErrorCode::InvalidArgument,
        ErrorKind::PreconditionFailed => S3ErrorCode::PreconditionFailed,
        ErrorKind::NoSuchUpload => S3ErrorCode::NoSuchUpload,
        ErrorKind::InvalidPart => S3ErrorCode::InvalidPart,
        ErrorKind::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        ErrorKind::PartTooSmall => S3ErrorCode::EntityTooSmall,
        ErrorKind::BadDigest => S3ErrorCode::BadDigest,
        ErrorKind::TooLarge => S3ErrorCode::EntityTooLarge,
        ErrorKind::Unavailable => S3ErrorCode::ServiceUnavailable,
        ErrorKind::Overloaded => S3ErrorCode::SlowDown,
        ErrorKind::NoSuchVersion => S3ErrorCode::NoSuchVersion,
        ErrorKind::DeleteMarker => S3ErrorCode::MethodNotAllowed,
        ErrorKind::Protected => S3ErrorCode::AccessDenied,
        ErrorKind::NoSpace => {
            let status = StatusCode::INSUFFICIENT_STORAGE;
            return custom("InsufficientStorage", status, error.to_string());
        }
        ErrorKind::Unknown | ErrorKind::Corrupt | ErrorKind::Internal => {
            tracing::warn!(%error, "the file system failed a request");
            S3ErrorCode::InternalError
        }
    };
    S3Error::with_message(code, error.to_string())
}

/// The error of a body's stream. The layers in between report only texts; the front prefers the
/// body's own fault where there is one.
pub(crate) fn from_body(error: &s3s::StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        content_sha256_mismatch()
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "the signature of a chunk or trailer is wrong")
    } else if text.contains("FormatError") || text.contains("TooLarge") || text.contains("TooMany")
    {
        s3_error!(InvalidRequest, "malformed aws-chunked body: {text}")
    } else {
        incomplete_body()
    }
}

/// What an error says when nobody gave it words.
pub(crate) fn default_message(code: &str) -> &'static str {
    match code {
        "SignatureDoesNotMatch" => {
            "the signature we calculated does not match the one you provided; check your secret key \
             and how the request is signed"
        }
        "InvalidBucketName" => "the bucket name breaks S3's rules for bucket names",
        "InvalidURI" => "the path or query of the request cannot be parsed",
        "KeyTooLongError" => "a key has at most 1024 bytes of UTF-8",
        "MalformedXML" => "the XML you provided is not well-formed or does not fit its schema",
        "MaxMessageLengthExceeded" => "the body is longer than this operation allows",
        "MethodNotAllowed" => "the method is not allowed against this resource",
        "NotImplemented" => "the operation is not implemented by Onefold",
        "IncompleteBody" => "the body does not have the number of bytes that the headers specify",
        "MissingContentLength" => "a Content-Length header is needed",
        "InternalError" => "the request failed inside the cluster; try again",
        _ => "the request cannot be carried out",
    }
}
