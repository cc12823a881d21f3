//! The traits: a file system, a file being written, a file being read.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::error::FilesError;
use super::info::{
    BucketInfo, Condition, CopyOptions, CreateOptions, FileInfo, FinishOptions, ListPage,
    ListRequest, PartPage, SplitPage, SplitRequest, UploadPage, Usage,
};
use super::path::FilePath;

/// Pieces of a file in order, each at most [`PIECE_BYTES_MAX`](super::limits::PIECE_BYTES_MAX) and
/// verified. After an error the stream ends.
pub type ByteStream = BoxStream<'static, Result<Bytes, FilesError>>;

/// A file system: buckets of files. Every method sees every change that was acknowledged before it
/// was called, on whichever node.
///
/// A dropped future leaves no half-done change: a command is carried out whole or not at all.
#[async_trait]
pub trait FileSystem: Send + Sync {
    /// Creates a bucket.
    ///
    /// # Errors
    /// `InvalidBucketName`, `BucketExists`.
    async fn create_bucket(&self, bucket: &str) -> Result<(), FilesError>;

    /// Deletes a bucket without files and uploads.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`.
    async fn delete_bucket(&self, bucket: &str) -> Result<(), FilesError>;

    /// All buckets by name; at most 10,000 exist.
    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, FilesError>;

    /// One bucket.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, FilesError>;

    /// One file.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    async fn stat(&self, bucket: &str, key: &str) -> Result<FileInfo, FilesError>;

    /// A page of keys.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn list(&self, request: ListRequest) -> Result<ListPage, FilesError>;

    /// Starts a file. Nothing is visible until [`FileWriter::finish`].
    ///
    /// # Errors
    /// `NoSuchBucket`, `InvalidKey`, `TooLarge` attributes, `PreconditionFailed`.
    async fn create(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<Box<dyn FileWriter>, FilesError>;

    /// Opens the file as it is now: what is read later is this content, even if the key is written
    /// or removed meanwhile (for as long as removed bytes are kept: at least some minutes).
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    async fn open(&self, bucket: &str, key: &str) -> Result<FileReader, FilesError>;

    /// Removes a file; says whether there was one.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn remove(&self, bucket: &str, key: &str) -> Result<bool, FilesError>;

    /// Removes up to [`REMOVE_KEYS_MAX`](super::limits::REMOVE_KEYS_MAX) files in one atomic step;
    /// says for each whether it was there.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Invalid` for too many keys.
    async fn remove_many(&self, bucket: &str, keys: &[String]) -> Result<Vec<bool>, FilesError>;

    /// Removes every file whose key starts with `prefix`, in many steps, and says how many. To make
    /// a folder disappear at once, rename it first.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn remove_tree(&self, bucket: &str, prefix: &str) -> Result<u64, FilesError>;

    /// Gives a file another key, or (both keys end in `/`) a folder with everything in it another
    /// name, atomically and in constant time, within a bucket or across buckets. The condition is on
    /// the target: `Always` replaces a file. A folder's target must not exist.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `PreconditionFailed`, `Invalid` (file onto folder, folder into
    /// itself).
    async fn rename(
        &self,
        from: &FilePath,
        to: &FilePath,
        condition: Condition,
    ) -> Result<(), FilesError>;

    /// Makes a second file of the same bytes, sharing them: constant time in bytes.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `PreconditionFailed`.
    async fn copy(
        &self,
        from: &FilePath,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError>;

    /// Creates the marker of a folder: an empty file whose key ends in `/` (the slash is added if it
    /// is missing). It is no error if it exists.
    ///
    /// # Errors
    /// `NoSuchBucket`, `InvalidKey`.
    async fn make_directory(&self, bucket: &str, key: &str) -> Result<(), FilesError>;

    /// Starts a multipart upload and answers its id.
    ///
    /// # Errors
    /// `NoSuchBucket`, `InvalidKey`, `TooLarge` attributes.
    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<String, FilesError>;

    /// Starts a part; it replaces an earlier part of that number when its writer finishes.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`.
    async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: u16,
    ) -> Result<Box<dyn FileWriter>, FilesError>;

    /// Makes the named parts (number, ETag without quotes) the content of the file, in one atomic
    /// step, and drops the others. `options.etag` and `options.headers` apply to the file. The
    /// condition is checked beside that of the upload's creation.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `PartTooSmall`, `PreconditionFailed`.
    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        parts: &[(u16, String)],
        condition: Condition,
        options: FinishOptions,
    ) -> Result<FileInfo, FilesError>;

    /// Drops an upload and its parts.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    async fn abort_upload(&self, bucket: &str, key: &str, upload: &str) -> Result<(), FilesError>;

    /// Parts uploaded so far, with numbers greater than `after`; `limit` up to
    /// [`PAGE_ENTRIES_MAX`](super::limits::PAGE_ENTRIES_MAX).
    ///
    /// # Errors
    /// `NoSuchUpload`.
    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, FilesError>;

    /// Uploads in progress whose key starts with `prefix`, after the given key and id. `None` for
    /// the id skips all uploads of that key.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, Option<String>)>,
        limit: usize,
    ) -> Result<UploadPage, FilesError>;

    /// Ranges of files for parallel reading, with the nodes that hold them.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    async fn splits(&self, request: SplitRequest) -> Result<SplitPage, FilesError>;

    /// What is stored, and how well.
    async fn usage(&self) -> Result<Usage, FilesError>;
}

/// A file (or part of a multipart upload) being written. Dropping it is aborting it.
#[async_trait]
pub trait FileWriter: Send {
    /// Appends bytes, as many as one likes; waits when storage is slower than the caller. After an
    /// error the writer can only be aborted.
    ///
    /// # Errors
    /// `TooLarge`, `Unavailable`, `NoSpace`.
    async fn write(&mut self, bytes: Bytes) -> Result<(), FilesError>;

    /// Makes the file visible with everything written, atomically and durably.
    ///
    /// # Errors
    /// `PreconditionFailed`, `BadDigest`, `NoSuchUpload`, `NoSuchBucket`, and those of `write`.
    /// After an error nothing is visible, but for `Unknown`, when it may be.
    async fn finish(self: Box<Self>, options: FinishOptions) -> Result<FileInfo, FilesError>;

    /// Gives up: nothing of it was visible, and its bytes become garbage.
    async fn abort(self: Box<Self>);
}

/// Where a [`FileReader`] gets its bytes from.
pub trait RangeSource: Send + Sync {
    /// The bytes of the range, which lies within the file.
    fn read(&self, range: Range<u64>) -> ByteStream;
}

/// One file, opened: its content does not change while it is open.
#[derive(Clone)]
pub struct FileReader {
    info: FileInfo,
    source: Arc<dyn RangeSource>,
}

impl FileReader {
    /// A reader of a file that is as `info` says.
    pub fn new(info: FileInfo, source: Arc<dyn RangeSource>) -> Self {
        Self { info, source }
    }

    /// The file.
    pub fn info(&self) -> &FileInfo {
        &self.info
    }

    /// The bytes from `range.start` to before `range.end`, cut to the file's size. A stream that
    /// ends without an error has given them all.
    pub fn read(&self, range: Range<u64>) -> ByteStream {
        let end = range.end.min(self.info.size);
        if range.start >= end {
            return futures::stream::empty().boxed();
        }
        self.source.read(range.start..end)
    }

    /// The bytes of the range in one buffer; the caller bounds the range.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn read_bytes(&self, range: Range<u64>) -> Result<Bytes, FilesError> {
        let mut stream = self.read(range);
        let Some(first) = stream.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        let mut all = BytesMut::from(first);
        while let Some(piece) = stream.next().await.transpose()? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader").field("info", &self.info).finish_non_exhaustive()
    }
}
