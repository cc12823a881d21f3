//! GetObject and HeadObject.

use std::ops::Range as Bytes;

use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use onefold_files::FileInfo;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{etag, http_date, part_number, size};
use super::download::Download;
use super::versions::{asked, from_read, told};
use super::{lock, tagging};
use crate::attributes::{DEFAULT_CONTENT_TYPE, PartSizes, checksum_headers};
use crate::checksums::TYPE_HEADER;
use crate::conditions::{ReadConditions, Verdict};
use crate::errors::{custom, from_files};

/// The part of an object that an answer is about.
struct Selection {
    bytes: Bytes<u64>,
    /// `Content-Range`, when it is not the whole object.
    header: Option<String>,
    /// Of how many parts the object was made, when one of them was asked for.
    parts: Option<i32>,
}

/// Fills in what GetObject and HeadObject answer alike.
macro_rules! describe {
    ($output:ident, $info:expr, $selection:expr, $with_checksums:expr) => {{
        let info: &FileInfo = $info;
        let header = |name: &str| info.attributes.headers.get(name).cloned();
        let content_type = info.attributes.content_type.clone();
        let locked = lock::shown(&info.attributes);
        let metadata: Metadata = info.attributes.metadata.clone().into_iter().collect();
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: header("cache-control"),
            content_disposition: header("content-disposition"),
            content_encoding: header("content-encoding"),
            content_language: header("content-language"),
            content_length: Some(size($selection.bytes.end - $selection.bytes.start)),
            content_range: $selection.header.clone(),
            content_type: Some(content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())),
            e_tag: Some(etag(&info.etag)),
            expires: header("expires")
                .and_then(|text| Timestamp::parse(TimestampFormat::HttpDate, &text).ok()),
            last_modified: Some(http_date(info.modified)),
            metadata: (!metadata.is_empty()).then_some(metadata),
            object_lock_legal_hold_status: locked.hold,
            object_lock_mode: locked.mode,
            object_lock_retain_until_date: locked.until,
            parts_count: $selection.parts,
            version_id: told(info),
            ..$output::default()
        };
        if $with_checksums && $selection.header.is_none() {
            let mut checksums = checksum_headers(&info.attributes);
            let kind = checksums.remove(TYPE_HEADER).map(ChecksumType::from);
            output.checksum_type = kind.filter(|_| !checksums.is_empty());
            output.checksum_crc32 = checksums.remove("x-amz-checksum-crc32");
            output.checksum_crc32c = checksums.remove("x-amz-checksum-crc32c");
            output.checksum_crc64nvme = checksums.remove("x-amz-checksum-crc64nvme");
            output.checksum_sha1 = checksums.remove("x-amz-checksum-sha1");
            output.checksum_sha256 = checksums.remove("x-amz-checksum-sha256");
        }
        output
    }};
}

pub(super) async fn get_object(
    gateway: &Gateway,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = request.input;
    let version = asked(input.version_id.as_deref())?;
    let reader = gateway.files.open_version(&input.bucket, &input.key, version).await;
    let reader = reader.map_err(|error| from_read(&error, version))?;
    let info = reader.info();
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    check(&conditions, info)?;
    let selection = select(input.range, input.part_number, info)?;
    let with_checksums = is_enabled(input.checksum_mode.as_ref());
    let mut output = describe!(GetObjectOutput, info, &selection, with_checksums);
    output.tag_count = tagging::count(info);
    let length = selection.bytes.end - selection.bytes.start;
    let place = gateway.admission.transfer(length).await?;
    let download = Download::start(reader.read(selection.bytes), length, place).await;
    let download = download.map_err(|error| from_files(&error))?;
    output.body = Some(StreamingBlob::new(download));
    Ok(S3Response::new(output))
}

pub(super) async fn head_object(
    gateway: &Gateway,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    let version = asked(input.version_id.as_deref())?;
    let reader = gateway.files.open_version(&input.bucket, &input.key, version).await;
    let reader = reader.map_err(|error| from_read(&error, version))?;
    let info = reader.info();
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    check(&conditions, info)?;
    let selection = select(input.range, input.part_number, info)?;
    let with_checksums = is_enabled(input.checksum_mode.as_ref());
    let output = describe!(HeadObjectOutput, info, &selection, with_checksums);
    Ok(S3Response::new(output))
}

fn is_enabled(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// The validators that a "not modified" carries (RFC 9110, section 15.4.5).
fn check(conditions: &ReadConditions, info: &FileInfo) -> S3Result<()> {
    match conditions.judge(info) {
        Verdict::Proceed => Ok(()),
        Verdict::PreconditionFailed => Err(s3_error!(
            PreconditionFailed,
            "at least one of the preconditions you specified did not hold"
        )),
        Verdict::NotModified => {
            let mut error = s3_error!(NotModified, "not modified");
            error.set_status_code(StatusCode::NOT_MODIFIED);
            let mut headers = HeaderMap::new();
            if let Ok(value) = etag(&info.etag).to_http_header() {
                headers.insert(ETAG, value);
            }
            let mut date = Vec::new();
            let formatted = http_date(info.modified).format(TimestampFormat::HttpDate, &mut date);
            if let (Ok(()), Ok(value)) = (formatted, HeaderValue::from_bytes(&date)) {
                headers.insert(LAST_MODIFIED, value);
            }
            error.set_headers(headers);
            Err(error)
        }
    }
}

fn select(range: Option<Range>, part: Option<i32>, info: &FileInfo) -> S3Result<Selection> {
    let (bytes, parts) = match (range, part) {
        (None, None) => return Ok(Selection { bytes: 0..info.size, header: None, parts: None }),
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "cannot specify both Range header and partNumber query parameter"
            ));
        }
        (Some(range), None) => {
            let bytes = range.check(info.size).map_err(|_| invalid_range(info.size))?;
            if bytes.is_empty() {
                return Err(invalid_range(info.size));
            }
            (bytes, None)
        }
        (None, Some(number)) => part_of(number, info)?,
    };
    let header = match bytes.is_empty() {
        true => None,
        false => Some(format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, info.size)),
    };
    Ok(Selection { bytes, header, parts })
}

/// The bytes of a part, and how many parts there are; an object that was not made of parts is one.
fn part_of(number: i32, info: &FileInfo) -> S3Result<(Bytes<u64>, Option<i32>)> {
    let number = part_number(number)?;
    let sizes = PartSizes::of(&info.attributes);
    let count = sizes.as_ref().map(PartSizes::count);
    let bytes = match &sizes {
        Some(sizes) => sizes.range(number),
        None => (number == 1).then_some(0..info.size),
    };
    let bytes = bytes.ok_or_else(|| {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        custom("InvalidPartNumber", status, "the requested part number is not satisfiable")
    })?;
    Ok((bytes, count.and_then(|count| i32::try_from(count).ok())))
}

fn invalid_range(size: u64) -> S3Error {
    let mut error = s3_error!(
        InvalidRange,
        "the requested range is not satisfiable: the object has {size} bytes"
    );
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        headers.insert(CONTENT_RANGE, value);
    }
    error.set_headers(headers);
    error
}
