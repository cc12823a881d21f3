//! Versions of files and the settings of buckets: what only the S3 gateway asks for.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use onefold_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::FilesError;
use super::info::{Attributes, CopyOptions, FileInfo};
use super::path::FilePath;
use super::system::{FileReader, FileSystem};

/// The header among a file's attributes that names its version. The namespace writes it; files of
/// buckets that never had versions have none.
pub const VERSION_HEADER: &str = "x-amz-version-id";

/// Whether a bucket keeps what is replaced and removed ("Using versioning in S3 buckets").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// It never did.
    #[default]
    Never,
    /// Every change makes a version with a number of its own.
    Enabled,
    /// Versions made before are kept; changes make and replace the null version.
    Suspended,
}

/// One version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// The one made while the bucket's versioning was not enabled.
    Null,
    /// Later versions of a file have greater numbers.
    Number(u64),
}

impl Version {
    /// Reads what [`fmt::Display`] wrote; `None` for what it never writes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text {
            "null" => Some(Self::Null),
            _ if is_hex => u64::from_str_radix(text, 16).ok().map(Self::Number),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Number(number) => write!(f, "{number:016x}"),
        }
    }
}

impl Attributes {
    /// Which version of its file these belong to.
    pub fn version(&self) -> Version {
        let named = self.headers.get(VERSION_HEADER);
        named.and_then(|text| Version::parse(text)).unwrap_or(Version::Null)
    }
}

/// One version in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionEntry {
    /// The key.
    pub key: String,
    /// Which version of it.
    pub version: Version,
    /// Whether it is the one that a request without a version finds.
    pub is_latest: bool,
    /// When it was made.
    pub modified: Timestamp,
    /// The file; `None` for a delete marker.
    pub file: Option<FileInfo>,
}

/// Which versions to list: by ascending key, of each key the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionsRequest {
    /// The bucket.
    pub bucket: String,
    /// Only keys that start with this.
    pub prefix: String,
    /// Rolls keys up, as in [`ListRequest`](super::ListRequest).
    pub delimiter: Option<String>,
    /// Only what comes after this version of this key; without a version, after all of the key.
    pub after: Option<(String, Option<Version>)>,
    /// Most versions and common prefixes together; at most
    /// [`PAGE_ENTRIES_MAX`](super::limits::PAGE_ENTRIES_MAX), which larger values mean too.
    pub limit: usize,
}

/// One page of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// Versions.
    pub entries: Vec<VersionEntry>,
    /// Common prefixes, ascending.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts; `None` when this is the last.
    pub next: Option<(String, Option<Version>)>,
}

/// What to remove, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveTarget {
    /// The key.
    pub key: String,
    /// This version for good; `None` removes the file as its bucket's versioning says.
    pub version: Option<Version>,
    /// Only if the file (or version) is there and this holds.
    pub condition: RemoveCondition,
    /// Whether a retention in governance mode does not count.
    pub bypass_governance: bool,
}

/// What must hold of a file that is removed; what is `None` may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveCondition {
    /// Its ETag; `*` for any.
    pub etag: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
    /// When it was modified, in seconds since the epoch.
    pub modified_s: Option<u64>,
}

impl RemoveCondition {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it holds for a file.
    pub fn holds(&self, file: &FileInfo) -> bool {
        let same_etag = self.etag.as_ref().is_none_or(|etag| etag == "*" || *etag == file.etag);
        same_etag
            && self.size.is_none_or(|size| size == file.size)
            && self.modified_s.is_none_or(|second| second == file.modified.0 / 1000)
    }
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Whether there was anything to remove.
    pub existed: bool,
    /// The version that is gone for good, or the delete marker that was made.
    pub version: Option<Version>,
    /// Whether that version is (or was) a delete marker.
    pub is_marker: bool,
}

/// Headers among a file's attributes, changed or expected: `None` removes one, or means that there is
/// none.
pub type HeaderChanges = Vec<(String, Option<String>)>;

/// What a bucket can be told besides versioning. The namespace keeps each as the bytes that it was
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Setting {
    /// Tags of the bucket.
    Tagging,
    /// Which web pages may use it.
    Cors,
    /// What expires when.
    Lifecycle,
    /// That versions can be locked, and for how long new ones are. A bucket that has it keeps its
    /// versioning enabled.
    ObjectLock,
}

/// How a version is protected from being removed ("Locking objects with Object Lock").
pub mod lock {
    use onefold_types::Timestamp;

    use super::Attributes;

    /// The header with the mode of a retention.
    pub const MODE_HEADER: &str = "x-amz-object-lock-mode";
    /// The header with the end of a retention, in seconds since the epoch.
    pub const UNTIL_HEADER: &str = "x-amz-object-lock-retain-until-date";
    /// The header that says whether there is a legal hold.
    pub const HOLD_HEADER: &str = "x-amz-object-lock-legal-hold";
    /// Nobody ends the retention early.
    pub const COMPLIANCE: &str = "COMPLIANCE";
    /// Who asks for it may end the retention early.
    pub const GOVERNANCE: &str = "GOVERNANCE";
    /// There is a legal hold.
    pub const ON: &str = "ON";

    /// Mode and end, in seconds since the epoch, of a retention that is not over.
    pub fn retention(attributes: &Attributes, now: Timestamp) -> Option<(&str, u64)> {
        let mode = attributes.headers.get(MODE_HEADER)?;
        let until_s = attributes.headers.get(UNTIL_HEADER)?.parse().ok()?;
        (now.0 / 1000 < until_s).then_some((mode.as_str(), until_s))
    }

    /// Why a version cannot be removed now, if it cannot.
    pub fn reason(attributes: &Attributes, now: Timestamp, bypass: bool) -> Option<String> {
        if attributes.headers.get(HOLD_HEADER).is_some_and(|hold| hold == ON) {
            return Some("it is under a legal hold".to_owned());
        }
        let (mode, until_s) = retention(attributes, now)?;
        if mode == GOVERNANCE && bypass {
            return None;
        }
        Some(format!("its retention in {mode} mode ends at second {until_s} of the epoch"))
    }
}

/// A file system with versions.
#[async_trait]
pub trait VersionedFiles: FileSystem {
    /// Whether the bucket has versions.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn versioning(&self, bucket: &str) -> Result<Versioning, FilesError>;

    /// Enables or suspends versions.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Invalid` for `Never`, since what has versions keeps them, and for `Suspended`
    /// where versions can be locked.
    async fn set_versioning(&self, bucket: &str, versioning: Versioning) -> Result<(), FilesError>;

    /// Opens a version of a file, or (`None`) the latest.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `DeleteMarker`.
    async fn open_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
    ) -> Result<FileReader, FilesError>;

    /// A page of versions.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn list_versions(&self, request: VersionsRequest) -> Result<VersionPage, FilesError>;

    /// Removes files or versions of them in one atomic step, up to
    /// [`REMOVE_KEYS_MAX`](super::limits::REMOVE_KEYS_MAX), and says of each what became of it.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Invalid` for too many; for one target `PreconditionFailed`, `Protected`.
    async fn remove_versions(
        &self,
        bucket: &str,
        targets: &[RemoveTarget],
    ) -> Result<Vec<Result<Removed, FilesError>>, FilesError>;

    /// [`FileSystem::copy`] from a version.
    ///
    /// # Errors
    /// Those of `copy`, `NoSuchVersion`, `DeleteMarker`.
    async fn copy_version(
        &self,
        from: &FilePath,
        version: Option<Version>,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError>;

    /// Changes headers of a version or of the latest, if those in `expected` are so; its bytes and its
    /// date stay.
    ///
    /// # Errors
    /// Those of `open_version`; `TooLarge`, `PreconditionFailed`.
    async fn change_headers(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
        expected: HeaderChanges,
        changes: HeaderChanges,
    ) -> Result<FileInfo, FilesError>;

    /// A setting of a bucket.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn setting(&self, bucket: &str, setting: Setting) -> Result<Option<Bytes>, FilesError>;

    /// Sets or (`None`) removes a setting.
    ///
    /// # Errors
    /// `NoSuchBucket`; `TooLarge` beyond
    /// [`SETTING_BYTES_MAX`](super::limits::SETTING_BYTES_MAX).
    async fn set_setting(
        &self,
        bucket: &str,
        setting: Setting,
        value: Option<Bytes>,
    ) -> Result<(), FilesError>;
}
