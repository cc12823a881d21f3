//! What can go wrong with a file, in terms that a user of S3 or of the command line knows.

use onefold_types::{ChunkId, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::versions::Version;

/// An error of the file system. It travels between processes unchanged.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilesError {
    /// The bucket does not exist.
    #[error("there is no bucket {bucket:?}; create it first")]
    NoSuchBucket {
        /// The bucket asked for.
        bucket: String,
    },
    /// A bucket of that name exists already.
    #[error("the bucket {bucket:?} exists already")]
    BucketExists {
        /// The bucket to be created.
        bucket: String,
    },
    /// Only an empty bucket, without open uploads, can be deleted.
    #[error("the bucket {bucket:?} is not empty; remove its files and abort its uploads first")]
    BucketNotEmpty {
        /// The bucket to be deleted.
        bucket: String,
    },
    /// S3's rules for bucket names forbid the name.
    #[error("{bucket:?} is not a valid bucket name: {reason}")]
    InvalidBucketName {
        /// The name given.
        bucket: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// No file has that key.
    #[error("there is no file /{bucket}/{key}")]
    NoSuchKey {
        /// The bucket asked for.
        bucket: String,
        /// The key asked for.
        key: String,
    },
    /// The key or path is empty, too long or malformed.
    #[error("{key:?} is not a valid key: {reason}")]
    InvalidKey {
        /// The key given.
        key: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// The caller's condition on the state of the file does not hold (S3: 412).
    #[error("the condition on /{bucket}/{key} does not hold: {reason}")]
    PreconditionFailed {
        /// The bucket of the file.
        bucket: String,
        /// The key of the file.
        key: String,
        /// What was expected and what is.
        reason: String,
    },
    /// The multipart upload does not exist, or was completed or aborted.
    #[error("there is no multipart upload {upload:?}; it may have been completed or aborted")]
    NoSuchUpload {
        /// The upload id given.
        upload: String,
    },
    /// A part named at completion was not uploaded, or has another ETag.
    #[error("part {number} of the multipart upload cannot be used: {reason}")]
    InvalidPart {
        /// The part's number.
        number: u16,
        /// Why not.
        reason: String,
    },
    /// The parts named at completion do not ascend.
    #[error("the parts of a multipart upload must be listed in ascending order")]
    InvalidPartOrder,
    /// A part other than the last is smaller than S3 allows.
    #[error("part {number} has {bytes} bytes; every part but the last needs at least {minimum}")]
    PartTooSmall {
        /// The part's number.
        number: u16,
        /// Its size.
        bytes: u64,
        /// The least size.
        minimum: u64,
    },
    /// The bytes received do not have the digest that the caller announced.
    #[error("the data does not have the announced MD5: expected {expected}, got {actual}")]
    BadDigest {
        /// Hexadecimal digest announced.
        expected: String,
        /// Hexadecimal digest of what arrived.
        actual: String,
    },
    /// A file, part or attribute exceeds its bound.
    #[error("{what} is too large: {bytes} bytes, at most {maximum} are allowed")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        maximum: u64,
    },
    /// Any other request that can never succeed as it is.
    #[error("invalid request: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Not enough nodes answer. Trying again may succeed.
    #[error("the file system cannot do this now: {reason}; try again")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The command was sent, and no answer tells whether it was carried out. Look before you retry
    /// what is not idempotent.
    #[error("it is not known whether this was carried out: {reason}; check, then try again")]
    Unknown {
        /// What happened to the answer.
        reason: String,
    },
    /// A bound on concurrent work is reached. Trying again later succeeds.
    #[error("too much work at once: {reason}; try again later")]
    Overloaded {
        /// The bound.
        reason: String,
    },
    /// No node has room for the data.
    #[error("no space is left for new data: {reason}; remove files or add a node")]
    NoSpace {
        /// Which nodes were tried.
        reason: String,
    },
    /// A replica's bytes do not match their checksum, and no other replica could serve them.
    #[error("chunk {chunk} on node {node} is corrupt: {reason}")]
    Corrupt {
        /// The chunk.
        chunk: ChunkId,
        /// The node that holds the replica.
        node: NodeId,
        /// What does not match.
        reason: String,
    },
    /// A bug or a broken disk: the message is for the log and for us.
    #[error("internal error: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
    /// The file has no such version.
    #[error("/{bucket}/{key} has no version {version:?}")]
    NoSuchVersion {
        /// The bucket of the file.
        bucket: String,
        /// The key of the file.
        key: String,
        /// The version asked for.
        version: String,
    },
    /// The version is a delete marker, which has no bytes.
    #[error("the version {version} of /{bucket}/{key} is a delete marker")]
    DeleteMarker {
        /// The bucket of the file.
        bucket: String,
        /// The key of the file.
        key: String,
        /// The marker.
        version: Version,
        /// When it was made.
        modified: Timestamp,
    },
    /// A lock forbids it.
    #[error("/{bucket}/{key} is locked: {reason}")]
    Protected {
        /// The bucket of the file.
        bucket: String,
        /// The key of the file.
        key: String,
        /// Which lock, and until when.
        reason: String,
    },
}

/// The stable kind of a [`FilesError`], for mapping to status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is documented at the error of the same name")]
pub enum ErrorKind {
    NoSuchBucket,
    BucketExists,
    BucketNotEmpty,
    InvalidBucketName,
    NoSuchKey,
    InvalidKey,
    PreconditionFailed,
    NoSuchUpload,
    InvalidPart,
    InvalidPartOrder,
    PartTooSmall,
    BadDigest,
    TooLarge,
    Invalid,
    Unavailable,
    Unknown,
    Overloaded,
    NoSpace,
    Corrupt,
    Internal,
    NoSuchVersion,
    DeleteMarker,
    Protected,
}

impl FilesError {
    /// The stable kind.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchBucket { .. } => ErrorKind::NoSuchBucket,
            Self::BucketExists { .. } => ErrorKind::BucketExists,
            Self::BucketNotEmpty { .. } => ErrorKind::BucketNotEmpty,
            Self::InvalidBucketName { .. } => ErrorKind::InvalidBucketName,
            Self::NoSuchKey { .. } => ErrorKind::NoSuchKey,
            Self::InvalidKey { .. } => ErrorKind::InvalidKey,
            Self::PreconditionFailed { .. } => ErrorKind::PreconditionFailed,
            Self::NoSuchUpload { .. } => ErrorKind::NoSuchUpload,
            Self::InvalidPart { .. } => ErrorKind::InvalidPart,
            Self::InvalidPartOrder => ErrorKind::InvalidPartOrder,
            Self::PartTooSmall { .. } => ErrorKind::PartTooSmall,
            Self::BadDigest { .. } => ErrorKind::BadDigest,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Internal { .. } => ErrorKind::Internal,
            Self::NoSuchVersion { .. } => ErrorKind::NoSuchVersion,
            Self::DeleteMarker { .. } => ErrorKind::DeleteMarker,
            Self::Protected { .. } => ErrorKind::Protected,
        }
    }

    /// Whether the same request may succeed later without anything being changed by a person.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::Overloaded)
    }
}
