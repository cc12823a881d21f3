//! Tags of objects and buckets ("Categorizing your objects using tags", S3 user guide).

use s3s::dto::Tag;
use s3s::{S3Error, S3Result, s3_error};

/// The header that gives an object its tags, under which they are kept.
pub(crate) const HEADER: &str = "x-amz-tagging";
/// Most tags of an object.
pub(crate) const OBJECT_TAGS_MAX: usize = 10;
/// Most tags of a bucket.
pub(crate) const BUCKET_TAGS_MAX: usize = 50;
const KEY_CHARS_MAX: usize = 128;
const VALUE_CHARS_MAX: usize = 256;

/// Tags: names and values, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags(pub(crate) Vec<(String, String)>);

impl Tags {
    /// Tags as a document has them.
    ///
    /// # Errors
    /// `InvalidTag` for too many, too long or repeated ones.
    pub(crate) fn from_set(set: Vec<Tag>, tags_max: usize) -> S3Result<Self> {
        let pairs = set.into_iter().map(|tag| {
            let key = tag.key.ok_or_else(|| s3_error!(MalformedXML, "a tag has no Key"))?;
            let value = tag.value.ok_or_else(|| s3_error!(MalformedXML, "a tag has no Value"))?;
            Ok((key, value))
        });
        Self(pairs.collect::<S3Result<_>>()?).checked(tags_max)
    }

    /// Tags as the header has them: the query of a URL.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none; `InvalidTag` as for a document.
    pub(crate) fn from_header(text: &str) -> S3Result<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        Self(pairs.collect::<S3Result<_>>()?).checked(OBJECT_TAGS_MAX)
    }

    /// What [`Tags::from_header`] reads.
    pub(crate) fn to_header(&self) -> String {
        let pairs = self.0.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    pub(crate) fn into_set(self) -> Vec<Tag> {
        let tags = self.0.into_iter();
        tags.map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect()
    }

    fn checked(self, tags_max: usize) -> S3Result<Self> {
        if self.0.len() > tags_max {
            return Err(invalid("there are too many tags"));
        }
        for (at, (key, value)) in self.0.iter().enumerate() {
            if key.is_empty() || key.chars().count() > KEY_CHARS_MAX || !is_allowed(key) {
                return Err(invalid("the TagKey you have provided is invalid"));
            }
            if value.chars().count() > VALUE_CHARS_MAX || !is_allowed(value) {
                return Err(invalid("the TagValue you have provided is invalid"));
            }
            if self.0[..at].iter().any(|(earlier, _)| earlier == key) {
                return Err(invalid("cannot provide multiple tags with the same key"));
            }
        }
        Ok(self)
    }
}

fn invalid(why: &'static str) -> S3Error {
    s3_error!(InvalidTag, "{why}")
}

/// Letters, digits and spaces of any language, and some signs.
fn is_allowed(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c))
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str) -> S3Result<String> {
    let malformed = || s3_error!(InvalidArgument, "the header {HEADER} is malformed");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let value = high.zip(low).ok_or_else(malformed)?;
                u8::try_from(value.0 << 4 | value.1).map_err(|_| malformed())?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tags_go_through_the_header_and_back() {
        let tags = Tags::from_header("a=1&b+c=%C3%BC%20%2F&empty").unwrap();
        let expected = [("a", "1"), ("b c", "ü /"), ("empty", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(tags.0, expected);
        assert_eq!(Tags::from_header(&tags.to_header()).unwrap(), tags);
    }

    #[test]
    fn tags_are_bounded_as_in_s3() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v&")).collect::<String>();
        assert!(Tags::from_header(&many(10)).is_ok());
        for bad in [many(11), "a=1&a=2".to_owned(), "=v".to_owned(), "a=%".to_owned()] {
            assert!(Tags::from_header(&bad).is_err(), "{bad}");
        }
        assert!(Tags::from_header(&format!("{}=", "k".repeat(129))).is_err());
        assert!(Tags::from_header(&format!("k={}", "v".repeat(257))).is_err());
        assert!(Tags::from_header("k=%3Cscript%3E").is_err());
    }
}
