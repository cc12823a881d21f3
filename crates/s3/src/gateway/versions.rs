//! Versions of objects: switched on and listed here, named by requests everywhere.

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue, LAST_MODIFIED};
use onefold_files::{
    FileInfo, FilesError, VERSION_HEADER, Version, VersionEntry, Versioning, VersionsRequest,
};
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{KeyEncoding, etag, http_date, owner, page_limit, size, timestamp};
use super::listing::common_prefixes;
use crate::errors::{from_files, not_implemented};

/// The version that a request names.
///
/// # Errors
/// `InvalidArgument` for what is no version id of ours.
pub(crate) fn asked(version: Option<&str>) -> S3Result<Option<Version>> {
    let Some(text) = version.filter(|text| !text.is_empty()) else { return Ok(None) };
    let version = Version::parse(text);
    version.map(Some).ok_or_else(|| s3_error!(InvalidArgument, "invalid version id specified"))
}

/// The version id of an answer about a file; none in a bucket that never had versions.
pub(crate) fn told(info: &FileInfo) -> Option<String> {
    info.attributes.headers.get(VERSION_HEADER).cloned()
}

/// The error of a read of a version. A delete marker that was asked for is no object to get; one that
/// nobody asked for means that there is none. Both say what it was.
pub(crate) fn from_read(error: &FilesError, asked: Option<Version>) -> S3Error {
    let FilesError::DeleteMarker { version, modified, .. } = error else {
        return from_files(error);
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(value) = HeaderValue::from_str(&version.to_string()) {
        headers.insert(VERSION_HEADER, value);
    }
    let mut error = if asked.is_some() {
        let mut date = Vec::new();
        let formatted = http_date(*modified).format(TimestampFormat::HttpDate, &mut date);
        if let (Ok(()), Ok(value)) = (formatted, HeaderValue::from_bytes(&date)) {
            headers.insert(LAST_MODIFIED, value);
        }
        let mut error = s3_error!(MethodNotAllowed, "the version is a delete marker");
        error.set_status_code(StatusCode::METHOD_NOT_ALLOWED);
        error
    } else {
        s3_error!(NoSuchKey, "the object was deleted: its latest version is a delete marker")
    };
    error.set_headers(headers);
    error
}

pub(super) async fn get_bucket_versioning(
    gateway: &Gateway,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let versioning = gateway.files.versioning(&request.input.bucket).await;
    let status = match versioning.map_err(|error| from_files(&error))? {
        Versioning::Never => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    let status = status.map(BucketVersioningStatus::from_static);
    Ok(S3Response::new(GetBucketVersioningOutput {
        status,
        ..GetBucketVersioningOutput::default()
    }))
}

pub(super) async fn put_bucket_versioning(
    gateway: &Gateway,
    request: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let input = request.input;
    let asked = input.versioning_configuration;
    let with_mfa = asked.mfa_delete.as_ref().map(MFADelete::as_str);
    if with_mfa.is_some_and(|status| status != MFADelete::DISABLED) {
        return Err(not_implemented("MFA delete"));
    }
    let versioning = match asked.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) if gateway.is_lockable(&input.bucket).await? => {
            return Err(s3_error!(
                InvalidBucketState,
                "an Object Lock configuration is present on this bucket, so the versioning state \
                 cannot be changed"
            ));
        }
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => return Err(s3_error!(MalformedXML, "Status must be Enabled or Suspended")),
    };
    let set = gateway.files.set_versioning(&input.bucket, versioning).await;
    set.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(PutBucketVersioningOutput::default()))
}

pub(super) async fn list_object_versions(
    gateway: &Gateway,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    let encoding = KeyEncoding::parse(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let version = asked(input.version_id_marker.as_deref())?;
    let key = input.key_marker.clone().filter(|key| !key.is_empty());
    if key.is_none() && version.is_some() {
        return Err(s3_error!(
            InvalidArgument,
            "a version-id marker cannot be specified without a key marker"
        ));
    }
    let listing = VersionsRequest {
        bucket: input.bucket.clone(),
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        after: key.map(|key| (key, version)),
        limit: limit.max(1),
    };
    let page = gateway.files.list_versions(listing).await.map_err(|error| from_files(&error))?;
    let page = if limit == 0 { Default::default() } else { page };
    let (mut versions, mut markers) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry.file {
            Some(_) => versions.push(version_of(entry, encoding)),
            None => markers.push(marker_of(entry, encoding)),
        }
    }
    let (next_key, next_version) = page.next.unzip();
    Ok(S3Response::new(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.apply(input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| encoding.apply(delimiter)),
        encoding_type: encoding.name(),
        key_marker: Some(encoding.apply(input.key_marker.unwrap_or_default())),
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key.map(|key| encoding.apply(key)),
        next_version_id_marker: next_version.flatten().map(|version| version.to_string()),
        versions: Some(versions),
        delete_markers: Some(markers),
        common_prefixes: Some(common_prefixes(page.common_prefixes, encoding)),
        ..ListObjectVersionsOutput::default()
    }))
}

fn version_of(entry: VersionEntry, encoding: KeyEncoding) -> ObjectVersion {
    let info = entry.file.as_ref();
    ObjectVersion {
        e_tag: info.map(|info| etag(&info.etag)),
        size: info.map(|info| size(info.size)),
        is_latest: Some(entry.is_latest),
        key: Some(encoding.apply(entry.key)),
        last_modified: Some(timestamp(entry.modified)),
        owner: Some(owner()),
        storage_class: Some(ObjectVersionStorageClass::from_static(
            ObjectVersionStorageClass::STANDARD,
        )),
        version_id: Some(entry.version.to_string()),
        ..ObjectVersion::default()
    }
}

fn marker_of(entry: VersionEntry, encoding: KeyEncoding) -> DeleteMarkerEntry {
    DeleteMarkerEntry {
        is_latest: Some(entry.is_latest),
        key: Some(encoding.apply(entry.key)),
        last_modified: Some(timestamp(entry.modified)),
        owner: Some(owner()),
        version_id: Some(entry.version.to_string()),
    }
}
