//! ListObjectsV2 and its predecessor.

use onefold_files::{ListEntry, ListPage, ListRequest};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::Gateway;
use super::convert::{KeyEncoding, cursor, etag, owner, page_limit, size, timestamp, token};
use crate::errors::from_files;

pub(super) async fn list_objects_v2(
    gateway: &Gateway,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let encoding = KeyEncoding::parse(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let after = match &input.continuation_token {
        Some(token) => Some(cursor(token)?),
        None => input.start_after.clone(),
    };
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone();
    let page = page(gateway, &input.bucket, prefix, delimiter, after, limit).await?;
    let with_owner = input.fetch_owner.unwrap_or(false);
    let count = page.entries.len() + page.common_prefixes.len();
    let (contents, common_prefixes) =
        entries(page.entries, page.common_prefixes, encoding, with_owner);
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.apply(input.prefix.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        key_count: i32::try_from(count).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_deref().map(token),
        contents,
        common_prefixes,
        delimiter: input.delimiter.map(|delimiter| encoding.apply(delimiter)),
        encoding_type: encoding.name(),
        start_after: input.start_after.map(|key| encoding.apply(key)),
        ..ListObjectsV2Output::default()
    }))
}

pub(super) async fn list_objects(
    gateway: &Gateway,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let encoding = KeyEncoding::parse(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = input.marker.clone().filter(|marker| !marker.is_empty());
    let delimiter = input.delimiter.clone();
    let page = page(gateway, &input.bucket, prefix, delimiter, after, limit).await?;
    let (contents, common_prefixes) = entries(page.entries, page.common_prefixes, encoding, true);
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.apply(input.prefix.unwrap_or_default())),
        marker: Some(encoding.apply(input.marker.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(page.next.is_some()),
        contents,
        common_prefixes,
        delimiter: input.delimiter.map(|delimiter| encoding.apply(delimiter)),
        next_marker: page.next.map(|key| encoding.apply(key)),
        encoding_type: encoding.name(),
        ..ListObjectsOutput::default()
    }))
}

/// A page that was asked to be empty is empty, and the last.
async fn page(
    gateway: &Gateway,
    bucket: &str,
    prefix: String,
    delimiter: Option<String>,
    start_after: Option<String>,
    limit: usize,
) -> S3Result<ListPage> {
    if limit == 0 {
        gateway.files.head_bucket(bucket).await.map_err(|error| from_files(&error))?;
        return Ok(ListPage::default());
    }
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty());
    let start_after = start_after.filter(|key| !key.is_empty());
    let request = ListRequest { bucket: bucket.to_owned(), prefix, delimiter, start_after, limit };
    gateway.files.list(request).await.map_err(|error| from_files(&error))
}

fn entries(
    entries: Vec<ListEntry>,
    prefixes: Vec<String>,
    encoding: KeyEncoding,
    with_owner: bool,
) -> (Option<ObjectList>, Option<CommonPrefixList>) {
    let entries = entries.into_iter().map(|entry| Object {
        e_tag: Some(etag(&entry.info.etag)),
        key: Some(encoding.apply(entry.key)),
        last_modified: Some(timestamp(entry.info.modified)),
        owner: with_owner.then(owner),
        size: Some(size(entry.info.size)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Object::default()
    });
    (Some(entries.collect()), Some(common_prefixes(prefixes, encoding)))
}

pub(super) fn common_prefixes(prefixes: Vec<String>, encoding: KeyEncoding) -> CommonPrefixList {
    let prefixes = prefixes.into_iter();
    prefixes.map(|prefix| CommonPrefix { prefix: Some(encoding.apply(prefix)) }).collect()
}
