//! Names of buckets and files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::FilesError;
use super::limits::KEY_BYTES_MAX;

/// `/BUCKET/KEY…`: a bucket and a key in it. The key may be empty (the bucket itself) and may end in
/// `/` (a folder).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FilePath {
    bucket: String,
    key: String,
}

impl FilePath {
    /// A path from its two parts.
    ///
    /// # Errors
    /// [`FilesError::InvalidBucketName`] and [`FilesError::InvalidKey`].
    pub fn new(bucket: &str, key: &str) -> Result<Self, FilesError> {
        validate_bucket_name(bucket)?;
        if !key.is_empty() {
            validate_key(key)?;
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key within the bucket; empty for the bucket itself.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether the path names the bucket itself.
    pub fn is_bucket(&self) -> bool {
        self.key.is_empty()
    }

    /// Whether the path names a folder (or the bucket).
    pub fn is_directory(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// The last component of the key, without a folder's `/`; empty for the bucket.
    pub fn file_name(&self) -> &str {
        let key = self.key.strip_suffix('/').unwrap_or(&self.key);
        key.rsplit('/').next().unwrap_or(key)
    }

    /// The path whose key is this one's with `suffix` appended.
    ///
    /// # Errors
    /// [`FilesError::InvalidKey`] when the key becomes too long.
    pub fn join(&self, suffix: &str) -> Result<Self, FilesError> {
        Self::new(&self.bucket, &format!("{}{suffix}", self.key))
    }
}

impl FromStr for FilePath {
    type Err = FilesError;

    fn from_str(text: &str) -> Result<Self, FilesError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(FilesError::InvalidKey {
                key: text.to_owned(),
                reason: "a path starts with /BUCKET".to_owned(),
            });
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        Self::new(bucket, key)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.bucket, self.key)
    }
}

/// Checks a key: 1 to [`KEY_BYTES_MAX`] bytes of UTF-8.
///
/// # Errors
/// [`FilesError::InvalidKey`].
pub fn validate_key(key: &str) -> Result<(), FilesError> {
    let reason = if key.is_empty() {
        "it is empty"
    } else if key.len() > KEY_BYTES_MAX {
        "it is longer than 1,024 bytes"
    } else {
        return Ok(());
    };
    let shown: String = key.chars().take(64).collect();
    Err(FilesError::InvalidKey { key: shown, reason: reason.to_owned() })
}

/// Checks a bucket's name against S3's rules ("Bucket naming rules", general purpose buckets).
///
/// # Errors
/// [`FilesError::InvalidBucketName`] with the first rule broken.
pub fn validate_bucket_name(bucket: &str) -> Result<(), FilesError> {
    match broken_bucket_rule(bucket) {
        None => Ok(()),
        Some(reason) => Err(FilesError::InvalidBucketName {
            bucket: bucket.chars().take(80).collect(),
            reason: reason.to_owned(),
        }),
    }
}

fn broken_bucket_rule(bucket: &str) -> Option<&'static str> {
    const PREFIXES: [&str; 4] = ["xn--", "sthree-", "sthree-configurator", "amzn-s3-demo-"];
    const SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = bucket.as_bytes();
    if !(3..=63).contains(&bytes.len()) {
        return Some("it must have 3 to 63 characters");
    }
    if !bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'.' || byte == b'-') {
        return Some("only lower-case letters, digits, dots and hyphens are allowed");
    }
    if !alphanumeric(bytes[0]) || !alphanumeric(bytes[bytes.len() - 1]) {
        return Some("it must begin and end with a letter or a digit");
    }
    if bucket.contains("..") {
        return Some("two dots must not follow each other");
    }
    if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some("it must not look like an IP address");
    }
    if PREFIXES.iter().any(|prefix| bucket.starts_with(prefix)) {
        return Some("this prefix is reserved");
    }
    if SUFFIXES.iter().any(|suffix| bucket.ends_with(suffix)) {
        return Some("this suffix is reserved");
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_split_at_the_second_slash() {
        let path: FilePath = "/books/a//b/".parse().unwrap();
        assert_eq!((path.bucket(), path.key()), ("books", "a//b/"));
        assert!(path.is_directory());
        assert_eq!(path.file_name(), "b");
        let bucket: FilePath = "/books".parse().unwrap();
        assert!(bucket.is_bucket());
        assert_eq!(bucket, "/books/".parse().unwrap());
        assert!("books/a".parse::<FilePath>().is_err());
    }

    #[test]
    fn bucket_names_follow_the_rules_of_s3() {
        for good in ["abc", "a.b.c", "my-bucket-1", "123", &"a".repeat(63)] {
            assert!(validate_bucket_name(good).is_ok(), "{good}");
        }
        let bad = ["", "ab", "Abc", "a_b", "-abc", "abc.", "a..b", "192.168.5.4", "xn--abc"];
        for bad in bad.into_iter().chain(["abc-s3alias", "a/b", "ä-bucket", &"a".repeat(64)]) {
            assert!(validate_bucket_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_bounded() {
        assert!(validate_key("").is_err());
        assert!(validate_key(&"k".repeat(1024)).is_ok());
        assert!(validate_key(&"k".repeat(1025)).is_err());
    }
}
