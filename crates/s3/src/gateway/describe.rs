//! GetObjectAttributes: what is known of an object, without its bytes.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{page_limit, set_checksum, size, timestamp};
use super::versions::{asked, from_read, told};
use crate::attributes::{PartSizes, checksum_headers};
use crate::checksums::{Algorithm, TYPE_HEADER};

pub(super) async fn get_object_attributes(
    gateway: &Gateway,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = request.input;
    let version = asked(input.version_id.as_deref())?;
    let found = gateway.files.open_version(&input.bucket, &input.key, version).await;
    let found = found.map_err(|error| from_read(&error, version))?;
    let info = found.info();
    if input.object_attributes.is_empty() {
        return Err(s3_error!(InvalidRequest, "missing required header: x-amz-object-attributes"));
    }
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(timestamp(info.modified)),
        version_id: told(info),
        ..GetObjectAttributesOutput::default()
    };
    // One header may hold several names.
    let names = input.object_attributes.iter().flat_map(|names| names.as_str().split(','));
    for name in names {
        match name.trim() {
            ObjectAttributes::ETAG => output.e_tag = Some(ETag::Strong(info.etag.clone())),
            ObjectAttributes::OBJECT_SIZE => output.object_size = Some(size(info.size)),
            ObjectAttributes::STORAGE_CLASS => {
                output.storage_class = Some(StorageClass::from_static(StorageClass::STANDARD));
            }
            ObjectAttributes::CHECKSUM => output.checksum = checksum(info),
            ObjectAttributes::OBJECT_PARTS => {
                let limit = page_limit(input.max_parts, "max-parts")?;
                let after = input.part_number_marker.unwrap_or_default();
                let sizes = PartSizes::of(&info.attributes);
                output.object_parts = sizes.map(|sizes| parts(&sizes, after, limit));
            }
            _ => return Err(s3_error!(InvalidArgument, "invalid attribute name specified")),
        }
    }
    Ok(S3Response::new(output))
}

fn checksum(info: &onefold_files::FileInfo) -> Option<Checksum> {
    let mut headers = checksum_headers(&info.attributes);
    let kind = headers.remove(TYPE_HEADER);
    let mut found = headers.into_iter();
    let value = found.find_map(|(name, value)| Some((Algorithm::of_header(&name)?, value)))?;
    let checksum_type = kind.map(ChecksumType::from);
    let mut checksum = Checksum { checksum_type, ..Checksum::default() };
    set_checksum!(checksum, Some(value));
    Some(checksum)
}

fn parts(sizes: &PartSizes, after: i32, limit: usize) -> GetObjectAttributesParts {
    let start = usize::try_from(after).unwrap_or_default();
    let numbered = (1..).zip(sizes.sizes().iter().copied()).skip(start).take(limit);
    let parts: Vec<ObjectPart> = numbered
        .map(|(number, bytes)| ObjectPart {
            part_number: Some(number),
            size: Some(size(bytes)),
            ..ObjectPart::default()
        })
        .collect();
    let next = parts.last().and_then(|part| part.part_number).unwrap_or(after);
    let is_truncated = usize::try_from(next).is_ok_and(|next| next < sizes.count());
    GetObjectAttributesParts {
        is_truncated: Some(is_truncated),
        max_parts: i32::try_from(limit).ok(),
        next_part_number_marker: Some(next),
        part_number_marker: Some(after),
        total_parts_count: i32::try_from(sizes.count()).ok(),
        parts: Some(parts),
    }
}
