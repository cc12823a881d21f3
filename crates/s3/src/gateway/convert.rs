//! Small conversions between the terms of S3 and those of the file system.

use std::time::{Duration, UNIX_EPOCH};

use onefold_types::Timestamp as Time;
use s3s::dto::{ETag, EncodingType, Owner, Timestamp, TimestampFormat};
use s3s::{S3Result, s3_error};

/// The account that owns everything: clusters have keys, not accounts.
pub(crate) const OWNER: &str = "onefold";

/// Milliseconds as a point in time.
pub(crate) fn timestamp(time: Time) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(time.get()))
}

/// The same as HTTP headers show it: in whole seconds.
pub(crate) fn http_date(time: Time) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(time.get() / 1000))
}

/// Seconds since the epoch.
///
/// # Errors
/// `InvalidArgument` for a time before it.
pub(crate) fn epoch_seconds(time: &Timestamp) -> S3Result<u64> {
    let mut text = Vec::new();
    let formatted = time.format(TimestampFormat::EpochSeconds, &mut text);
    let text = formatted.ok().and_then(|()| String::from_utf8(text).ok());
    let seconds = text.and_then(|text| text.split('.').next()?.parse().ok());
    seconds.ok_or_else(|| s3_error!(InvalidArgument, "a date is before 1970"))
}

/// A tag of the file system, which has no quotes, as S3 shows it.
pub(crate) fn etag(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// A size as S3's documents have it.
pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The owner of everything.
pub(crate) fn owner() -> Owner {
    Owner { display_name: Some(OWNER.to_owned()), id: Some(OWNER.to_owned()) }
}

/// How many entries a page may have: what is asked for, at most 1,000, which is the default.
///
/// # Errors
/// `InvalidArgument` for a negative number.
pub(crate) fn page_limit(asked: Option<i32>, name: &str) -> S3Result<usize> {
    const ENTRIES_MAX: usize = onefold_files::limits::PAGE_ENTRIES_MAX;
    let Some(asked) = asked else { return Ok(ENTRIES_MAX) };
    let asked = usize::try_from(asked)
        .map_err(|_| s3_error!(InvalidArgument, "{name} must not be negative"))?;
    Ok(asked.min(ENTRIES_MAX))
}

/// A part's number.
///
/// # Errors
/// `InvalidArgument` outside of 1 to 10,000.
pub(crate) fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok();
    number
        .filter(|number| (1..=onefold_files::limits::PART_NUMBER_MAX).contains(number))
        .ok_or_else(|| {
            s3_error!(InvalidArgument, "a part number must be an integer between 1 and 10000")
        })
}

/// Shows an `Option<(Algorithm, String)>` in an output, which has a field for each algorithm.
macro_rules! set_checksum {
    ($output:expr, $checksum:expr) => {
        match $checksum {
            Some((Algorithm::Crc32, value)) => $output.checksum_crc32 = Some(value),
            Some((Algorithm::Crc32c, value)) => $output.checksum_crc32c = Some(value),
            Some((Algorithm::Crc64Nvme, value)) => $output.checksum_crc64nvme = Some(value),
            Some((Algorithm::Sha1, value)) => $output.checksum_sha1 = Some(value),
            Some((Algorithm::Sha256, value)) => $output.checksum_sha256 = Some(value),
            None => {}
        }
    };
}
pub(super) use set_checksum;

/// How keys are written into a listing.
#[derive(Clone, Copy)]
pub(crate) enum KeyEncoding {
    Plain,
    Url,
}

impl KeyEncoding {
    /// # Errors
    /// `InvalidArgument` for an encoding that S3 does not know.
    pub(crate) fn parse(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some("url") => Ok(Self::Url),
            Some(_) => Err(s3_error!(InvalidArgument, "the only encoding type is url")),
        }
    }

    pub(crate) fn name(self) -> Option<EncodingType> {
        matches!(self, Self::Url).then(|| EncodingType::from_static(EncodingType::URL))
    }

    pub(crate) fn apply(self, text: String) -> String {
        match self {
            Self::Plain => text,
            Self::Url => percent_encode(&text),
        }
    }
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => {
                encoded.push('%');
                for digit in [byte >> 4, byte & 15] {
                    encoded.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
    encoded
}

/// A continuation token: opaque to clients, safe in a URL.
pub(crate) fn token(cursor: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(cursor)
}

/// # Errors
/// `InvalidArgument` for what [`token`] did not make.
pub(crate) fn cursor(token: &str) -> S3Result<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "the continuation token provided is incorrect"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_encoded_byte_by_byte_but_for_slashes() {
        assert_eq!(KeyEncoding::Url.apply("a b/ü+\u{1}".to_owned()), "a%20b/%C3%BC%2B%01");
        assert_eq!(KeyEncoding::Plain.apply("a b".to_owned()), "a b");
    }

    #[test]
    fn tokens_carry_any_key() {
        for key in ["", "a/b c", "ü\u{10ffff}"] {
            assert_eq!(cursor(&token(key)).unwrap(), key);
        }
        assert!(cursor("not a token!").is_err());
    }

    #[test]
    fn pages_and_part_numbers_are_bounded() {
        assert_eq!(page_limit(None, "max-keys").unwrap(), 1000);
        assert_eq!(page_limit(Some(5000), "max-keys").unwrap(), 1000);
        assert!(page_limit(Some(-1), "max-keys").is_err());
        assert_eq!(part_number(10_000).unwrap(), 10_000);
        for bad in [0, -1, 10_001, 65_537] {
            assert!(part_number(bad).is_err());
        }
    }
}
