//! What S3 keeps with an object: its headers and the user's metadata.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use onefold_files::Attributes;
use s3s::{S3Result, s3_error};

use crate::checksums::{Algorithm, TYPE_HEADER};

/// System headers that are kept and given back as they came.
const KEPT_HEADERS: [&str; 4] =
    ["cache-control", "content-disposition", "content-language", "expires"];
/// S3's bound on user metadata: names and values together.
const METADATA_BYTES_MAX: usize = 2 << 10;
/// What S3 answers for an object stored without a type.
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The attributes that a request gives its object. Metadata comes parsed, since its values may be
/// encoded (RFC 2047).
///
/// # Errors
/// `MetadataTooLarge`; `InvalidArgument` for a header that is not UTF-8.
pub(crate) fn from_request(
    headers: &HeaderMap,
    content_type: Option<String>,
    metadata: Option<s3s::dto::Metadata>,
) -> S3Result<Attributes> {
    let mut kept = BTreeMap::new();
    for name in KEPT_HEADERS {
        if let Some(value) = header(headers, name)? {
            kept.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(encoding) = header(headers, "content-encoding")?.and_then(without_framing) {
        kept.insert("content-encoding".to_owned(), encoding);
    }
    let metadata: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(s3_error!(
            MetadataTooLarge,
            "user metadata has {bytes} bytes; at most {METADATA_BYTES_MAX} are allowed"
        ));
    }
    Ok(Attributes { content_type, headers: kept, metadata })
}

/// The content encoding without the framing of the transfer, which is not the object's.
fn without_framing(encoding: &str) -> Option<String> {
    let codings = encoding.split(',').map(str::trim);
    let codings: Vec<&str> =
        codings.filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked")).collect();
    let codings = codings.join(",");
    (!codings.is_empty()).then_some(codings)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> S3Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| s3_error!(InvalidArgument, "the header {name} is not UTF-8"))?;
    Ok((!text.is_empty()).then_some(text))
}

/// The checksum headers kept with an object.
pub(crate) fn checksum_headers(attributes: &Attributes) -> BTreeMap<String, String> {
    let is_checksum = |name: &str| name == TYPE_HEADER || Algorithm::of_header(name).is_some();
    let headers = attributes.headers.iter().filter(|(name, _)| is_checksum(name));
    headers.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_framing_of_the_transfer_is_not_kept() {
        assert_eq!(without_framing("aws-chunked"), None);
        assert_eq!(without_framing("gzip, aws-chunked"), Some("gzip".to_owned()));
        assert_eq!(without_framing("gzip,br"), Some("gzip,br".to_owned()));
    }

    #[test]
    fn metadata_is_bounded_as_in_s3() {
        let metadata =
            |bytes: usize| Some([("k".to_owned(), "v".repeat(bytes - 1))].into_iter().collect());
        assert!(from_request(&HeaderMap::new(), None, metadata(2048)).is_ok());
        assert!(from_request(&HeaderMap::new(), None, metadata(2049)).is_err());
    }
}
