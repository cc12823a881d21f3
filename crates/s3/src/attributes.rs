//! What S3 keeps with an object: its headers and the user's metadata.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use onefold_files::Attributes;
use onefold_files::limits::PART_NUMBER_MAX;
use s3s::{S3Result, s3_error};

use crate::checksums::{Algorithm, TYPE_HEADER};
use crate::tags::{self, Tags};

/// System headers that are kept and given back as they came.
const KEPT_HEADERS: [&str; 4] =
    ["cache-control", "content-disposition", "content-language", "expires"];
/// S3's bound on user metadata: names and values together.
const METADATA_BYTES_MAX: usize = 2 << 10;
/// Under which the sizes of an object's parts are kept; never shown.
const PARTS_HEADER: &str = "x-onefold-part-sizes";
/// Longest list of part sizes that is kept.
const PARTS_BYTES_MAX: usize = 4 << 10;
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

/// What of an object's headers belongs to its bytes, and goes where they go.
pub(crate) fn headers_of_bytes(attributes: &Attributes) -> BTreeMap<String, String> {
    let mut headers = checksum_headers(attributes);
    if let Some(sizes) = attributes.headers.get(PARTS_HEADER) {
        headers.insert(PARTS_HEADER.to_owned(), sizes.clone());
    }
    headers
}

/// The tags that a request gives its object, as they are kept.
///
/// # Errors
/// `InvalidArgument`, `InvalidTag`.
pub(crate) fn tags(headers: &HeaderMap) -> S3Result<Option<String>> {
    let tags = header(headers, tags::HEADER)?.map(Tags::from_header).transpose()?;
    Ok(tags.map(|tags| tags.to_header()).filter(|tags| !tags.is_empty()))
}

/// The sizes of the parts of which an object was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartSizes(Vec<u64>);

impl PartSizes {
    /// Sizes in the order of the parts.
    pub(crate) fn new(sizes: impl IntoIterator<Item = u64>) -> Self {
        Self(sizes.into_iter().collect())
    }

    /// As they were kept with an object, if they were.
    pub(crate) fn of(attributes: &Attributes) -> Option<Self> {
        let mut sizes = Vec::new();
        for run in attributes.headers.get(PARTS_HEADER)?.split(',') {
            let (size, count) = run.split_once('x').unwrap_or((run, "1"));
            let (size, count): (u64, u16) = (size.parse().ok()?, count.parse().ok()?);
            sizes.extend(std::iter::repeat_n(size, count.into()));
        }
        (sizes.len() <= PART_NUMBER_MAX.into()).then_some(Self(sizes))
    }

    /// As they are kept: runs of `SIZE` or `SIZExCOUNT`. `None` when that is long, as no client
    /// makes it that does not mean to.
    pub(crate) fn to_header(&self) -> Option<(String, String)> {
        let runs = self.0.chunk_by(|left, right| left == right);
        let runs = runs.map(|run| match run.len() {
            1 => run[0].to_string(),
            count => format!("{}x{count}", run[0]),
        });
        let text = runs.collect::<Vec<_>>().join(",");
        (text.len() <= PARTS_BYTES_MAX).then(|| (PARTS_HEADER.to_owned(), text))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn sizes(&self) -> &[u64] {
        &self.0
    }

    /// The bytes of the part with this place, from 1.
    pub(crate) fn range(&self, number: u16) -> Option<std::ops::Range<u64>> {
        let at = usize::from(number).checked_sub(1)?;
        let size = self.0.get(at)?;
        let start: u64 = self.0[..at].iter().sum();
        Some(start..start + size)
    }
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
    fn part_sizes_are_kept_in_runs() {
        let sizes = PartSizes::new([8, 8, 8, 5]);
        let header = sizes.to_header().unwrap();
        assert_eq!(header.1, "8x3,5");
        let kept = Attributes { headers: [header].into(), ..Attributes::default() };
        let kept = PartSizes::of(&kept).unwrap();
        assert_eq!(kept, sizes);
        assert_eq!((kept.range(1), kept.range(4)), (Some(0..8), Some(24..29)));
        assert_eq!((kept.range(0), kept.range(5)), (None, None));
        assert_eq!(PartSizes::new(0..10_000).to_header(), None);
    }

    #[test]
    fn metadata_is_bounded_as_in_s3() {
        let metadata =
            |bytes: usize| Some([("k".to_owned(), "v".repeat(bytes - 1))].into_iter().collect());
        assert!(from_request(&HeaderMap::new(), None, metadata(2048)).is_ok());
        assert!(from_request(&HeaderMap::new(), None, metadata(2049)).is_err());
    }
}
