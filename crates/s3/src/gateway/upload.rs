//! PutObject and UploadPart.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use onefold_files::limits::PART_BYTES_MAX;
use onefold_files::{CreateOptions, FinishOptions};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use super::Gateway;
use super::convert::{etag, part_number, set_checksum};
use super::lock::Asked;
use super::versions::told;
use crate::attributes;
use crate::checksums::{Algorithm, Announced, FULL_OBJECT, TYPE_HEADER, content_md5};
use crate::conditions::write_condition;
use crate::errors::{from_files, too_large};
use crate::ingest::Ingest;
use crate::tags;

/// Most bytes in one PutObject (S3's bound; larger objects take a multipart upload).
const PUT_BYTES_MAX: u64 = 5 << 30;

pub(super) async fn put_object(
    gateway: &Gateway,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request { input, headers, trailing_headers, .. } = request;
    let ingest = ingest(input.body, &headers, input.content_length, trailing_headers)?;
    if ingest.length > PUT_BYTES_MAX {
        return Err(too_large("single upload", PUT_BYTES_MAX));
    }
    let expected_md5 = input.content_md5.as_deref().map(content_md5).transpose()?;
    let mut attributes = attributes::from_request(&headers, input.content_type, input.metadata)?;
    if let Some(tags) = attributes::tags(&headers)? {
        attributes.headers.insert(tags::HEADER.to_owned(), tags);
    }
    let asked = Asked {
        mode: input.object_lock_mode,
        until: input.object_lock_retain_until_date,
        hold: input.object_lock_legal_hold_status,
    };
    let options = CreateOptions {
        attributes,
        condition: write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?,
    };
    let writer = gateway.files.create(&input.bucket, &input.key, options).await;
    let writer = writer.map_err(|error| from_files(&error))?;
    let lock = gateway.lock_headers(&input.bucket, asked);
    let ((writer, checksum), lock) = tokio::try_join!(ingest.store(writer), lock)?;
    let mut headers = checksum_header(&checksum);
    headers.extend(lock);
    headers.insert(TYPE_HEADER.to_owned(), FULL_OBJECT.to_owned());
    let finish = FinishOptions { expected_md5, headers, ..FinishOptions::default() };
    let info = writer.finish(finish).await.map_err(|error| from_files(&error))?;
    let mut output =
        PutObjectOutput { e_tag: Some(etag(&info.etag)), ..PutObjectOutput::default() };
    output.version_id = told(&info);
    output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
    set_checksum!(output, Some(checksum));
    Ok(S3Response::new(output))
}

pub(super) async fn upload_part(
    gateway: &Gateway,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request { input, headers, trailing_headers, .. } = request;
    let number = part_number(input.part_number)?;
    let ingest = ingest(input.body, &headers, input.content_length, trailing_headers)?;
    if ingest.length > PART_BYTES_MAX {
        return Err(too_large("part", PART_BYTES_MAX));
    }
    let expected_md5 = input.content_md5.as_deref().map(content_md5).transpose()?;
    let writer =
        gateway.files.upload_part(&input.bucket, &input.key, &input.upload_id, number).await;
    let writer = writer.map_err(|error| from_files(&error))?;
    let (writer, checksum) = ingest.store(writer).await?;
    let finish = FinishOptions {
        expected_md5,
        headers: checksum_header(&checksum),
        ..FinishOptions::default()
    };
    let info = writer.finish(finish).await.map_err(|error| from_files(&error))?;
    let mut output =
        UploadPartOutput { e_tag: Some(etag(&info.etag)), ..UploadPartOutput::default() };
    set_checksum!(output, Some(checksum));
    Ok(S3Response::new(output))
}

fn checksum_header((algorithm, value): &(Algorithm, String)) -> BTreeMap<String, String> {
    BTreeMap::from([(algorithm.header().to_owned(), value.clone())])
}

fn ingest(
    body: Option<StreamingBlob>,
    headers: &HeaderMap,
    content_length: Option<i64>,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Ingest> {
    let decoded = headers.get("x-amz-decoded-content-length");
    let decoded = decoded.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let length = decoded.or_else(|| u64::try_from(content_length?).ok());
    let length = length.ok_or_else(|| {
        s3_error!(MissingContentLength, "you must provide the Content-Length HTTP header")
    })?;
    Ok(Ingest {
        body: body.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty())),
        length,
        checksum: Announced::from_headers(headers)?.unwrap_or(Announced::DEFAULT),
        trailers,
    })
}
