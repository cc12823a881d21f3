//! A file system in memory, for the tests of the crates above this one (feature `testing`).
//!
//! It keeps the contract of [`FileSystem`] by the plainest means, a map of whole files behind one
//! lock, and is the model that the real one is tested against.

mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use md5::{Digest, Md5};
use onefold_types::{NodeId, Timestamp};

use crate::api::{
    Attributes, BucketInfo, ByteStream, Condition, CopyOptions, CreateOptions, FileInfo, FilePath,
    FileReader, FileSystem, FileWriter, FilesError, FinishOptions, ListEntry, ListPage,
    ListRequest, PartInfo, PartPage, RangeSource, Setting, Split, SplitPage, SplitRequest,
    UploadInfo, UploadPage, Usage, Version, VersionedFiles, Versioning, limits,
    validate_bucket_name, validate_key,
};
use crate::etag;

#[derive(Clone)]
struct File {
    info: FileInfo,
    data: Bytes,
}

struct Upload {
    created: Timestamp,
    options: CreateOptions,
    parts: BTreeMap<u16, (PartInfo, Bytes)>,
}

/// A version that is not the latest file of its key, or a delete marker.
struct Old {
    version: Version,
    modified: Timestamp,
    file: Option<File>,
}

struct Bucket {
    created: Timestamp,
    versioning: Versioning,
    files: BTreeMap<String, File>,
    /// By key, the oldest first.
    old: BTreeMap<String, Vec<Old>>,
    settings: BTreeMap<Setting, Bytes>,
    uploads: BTreeMap<(String, String), Upload>,
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    clock: u64,
    uploads_created: u64,
    versions_made: u64,
}

impl State {
    fn now(&mut self) -> Timestamp {
        let wall =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        self.clock = self.clock.max(u64::try_from(wall).unwrap_or(u64::MAX));
        Timestamp(self.clock)
    }

    fn bucket(&mut self, bucket: &str) -> Result<&mut Bucket, FilesError> {
        let missing = || FilesError::NoSuchBucket { bucket: bucket.to_owned() };
        self.buckets.get_mut(bucket).ok_or_else(missing)
    }

    fn file(&mut self, bucket: &str, key: &str) -> Result<&mut File, FilesError> {
        self.bucket(bucket)?.files.get_mut(key).ok_or_else(|| no_such_key(bucket, key))
    }

    fn upload(&mut self, bucket: &str, key: &str, upload: &str) -> Result<&mut Upload, FilesError> {
        let missing = || FilesError::NoSuchUpload { upload: upload.to_owned() };
        let id = (key.to_owned(), upload.to_owned());
        self.bucket(bucket)?.uploads.get_mut(&id).ok_or_else(missing)
    }

    fn check(&mut self, bucket: &str, key: &str, condition: &Condition) -> Result<(), FilesError> {
        let file = self.bucket(bucket)?.files.get(key);
        let reason = match (condition, file) {
            (Condition::Always, _) | (Condition::IfAbsent, None) => return Ok(()),
            (Condition::IfMatch(etag), Some(file)) if file.info.etag == *etag => return Ok(()),
            (Condition::IfAbsent, Some(_)) => "the file exists",
            (Condition::IfMatch(_), Some(_)) => "the file has another ETag",
            (Condition::IfMatch(_), None) => return Err(no_such_key(bucket, key)),
        };
        Err(precondition_failed(bucket, key, reason))
    }
}

fn no_such_key(bucket: &str, key: &str) -> FilesError {
    FilesError::NoSuchKey { bucket: bucket.to_owned(), key: key.to_owned() }
}

fn precondition_failed(bucket: &str, key: &str, reason: &str) -> FilesError {
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    FilesError::PreconditionFailed { bucket, key, reason: reason.to_owned() }
}

fn check_attributes(attributes: &Attributes) -> Result<(), FilesError> {
    let bytes = attributes.size_bytes();
    if bytes <= limits::ATTRIBUTE_BYTES_MAX {
        return Ok(());
    }
    Err(FilesError::TooLarge {
        what: "the file's metadata".to_owned(),
        bytes: bytes as u64,
        maximum: limits::ATTRIBUTE_BYTES_MAX as u64,
    })
}

/// A whole file system in memory.
#[derive(Clone, Default)]
pub struct MemoryFiles {
    state: Arc<Mutex<State>>,
    hosts: Arc<Vec<NodeId>>,
}

impl MemoryFiles {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty file system whose splits name these nodes in turn.
    pub fn with_hosts(hosts: Vec<NodeId>) -> Self {
        Self { state: Arc::default(), hosts: Arc::new(hosts) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct MemorySource(Bytes);

impl RangeSource for MemorySource {
    fn read(&self, range: Range<u64>) -> ByteStream {
        let range = range.start as usize..range.end as usize;
        let mut rest = self.0.slice(range);
        let pieces = std::iter::from_fn(move || {
            let length = rest.len().min(limits::PIECE_BYTES_MAX);
            (length > 0).then(|| Ok(rest.split_to(length)))
        });
        futures::stream::iter(pieces).boxed()
    }
}

enum Target {
    File(CreateOptions),
    Part { upload: String, number: u16 },
}

struct MemoryWriter {
    files: MemoryFiles,
    bucket: String,
    key: String,
    target: Target,
    data: BytesMut,
}

#[async_trait]
impl FileWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), FilesError> {
        self.data.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>, finish: FinishOptions) -> Result<FileInfo, FilesError> {
        let Self { files, bucket, key, target, data } = *self;
        let data = data.freeze();
        let digest: [u8; 16] = Md5::digest(&data).into();
        etag::check(finish.expected_md5, digest)?;
        let etag = finish.etag.unwrap_or_else(|| etag::plain(digest));
        let mut state = files.state();
        let modified = state.now();
        let size = data.len() as u64;
        match target {
            Target::File(mut options) => {
                options.attributes.headers.extend(finish.headers);
                check_attributes(&options.attributes)?;
                state.check(&bucket, &key, &options.condition)?;
                let info = FileInfo { size, etag, modified, attributes: options.attributes };
                state.place(&bucket, &key, File { info, data })
            }
            Target::Part { upload, number } => {
                let headers = finish.headers;
                let upload = state.upload(&bucket, &key, &upload)?;
                let part = PartInfo { number, size, etag: etag.clone(), modified, headers };
                upload.parts.insert(number, (part, data));
                Ok(FileInfo { size, etag, modified, attributes: Attributes::default() })
            }
        }
    }

    async fn abort(self: Box<Self>) {}
}

#[async_trait]
impl FileSystem for MemoryFiles {
    async fn create_bucket(&self, bucket: &str) -> Result<(), FilesError> {
        validate_bucket_name(bucket)?;
        let mut state = self.state();
        if state.buckets.contains_key(bucket) {
            return Err(FilesError::BucketExists { bucket: bucket.to_owned() });
        }
        let created = state.now();
        let made = Bucket {
            created,
            versioning: Versioning::Never,
            files: BTreeMap::new(),
            old: BTreeMap::new(),
            settings: BTreeMap::new(),
            uploads: BTreeMap::new(),
        };
        state.buckets.insert(bucket.to_owned(), made);
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), FilesError> {
        let mut state = self.state();
        let found = state.bucket(bucket)?;
        if !found.files.is_empty() || !found.old.is_empty() || !found.uploads.is_empty() {
            return Err(FilesError::BucketNotEmpty { bucket: bucket.to_owned() });
        }
        state.buckets.remove(bucket);
        Ok(())
    }

    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, FilesError> {
        let state = self.state();
        let buckets = state.buckets.iter();
        Ok(buckets.map(|(name, b)| BucketInfo { name: name.clone(), created: b.created }).collect())
    }

    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, FilesError> {
        let created = self.state().bucket(bucket)?.created;
        Ok(BucketInfo { name: bucket.to_owned(), created })
    }

    async fn stat(&self, bucket: &str, key: &str) -> Result<FileInfo, FilesError> {
        Ok(self.state().file(bucket, key)?.info.clone())
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, FilesError> {
        let mut state = self.state();
        let files = &state.bucket(&request.bucket)?.files;
        let limit = request.limit.min(limits::PAGE_ENTRIES_MAX);
        let after = request.start_after.as_deref();
        let delimiter = request.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let mut page = ListPage::default();
        let mut last = None;
        for (key, file) in files.range(request.prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&request.prefix) else { break };
            if after.is_some_and(|after| key.as_str() <= after) {
                continue;
            }
            let rolled = delimiter.and_then(|delimiter| {
                let end = rest.find(delimiter)? + delimiter.len();
                Some(format!("{}{}", request.prefix, &rest[..end]))
            });
            if let Some(common) = &rolled
                && (after == Some(common) || page.common_prefixes.last() == Some(common))
            {
                continue;
            }
            if page.entries.len() + page.common_prefixes.len() == limit {
                page.next = last;
                break;
            }
            last = Some(rolled.clone().unwrap_or_else(|| key.clone()));
            match rolled {
                Some(common) => page.common_prefixes.push(common),
                None => page.entries.push(ListEntry { key: key.clone(), info: file.info.clone() }),
            }
        }
        Ok(page)
    }

    async fn create(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<Box<dyn FileWriter>, FilesError> {
        validate_key(key)?;
        check_attributes(&options.attributes)?;
        self.state().check(bucket, key, &options.condition)?;
        Ok(Box::new(MemoryWriter {
            files: self.clone(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            target: Target::File(options),
            data: BytesMut::new(),
        }))
    }

    async fn open(&self, bucket: &str, key: &str) -> Result<FileReader, FilesError> {
        let file = self.state().file(bucket, key)?.clone();
        Ok(FileReader::new(file.info, Arc::new(MemorySource(file.data))))
    }

    async fn remove(&self, bucket: &str, key: &str) -> Result<bool, FilesError> {
        Ok(self.state().remove_latest(bucket, key, false)?.existed)
    }

    async fn remove_many(&self, bucket: &str, keys: &[String]) -> Result<Vec<bool>, FilesError> {
        if keys.len() > limits::REMOVE_KEYS_MAX {
            let reason = format!("{} keys; at most 1,000 are removed at once", keys.len());
            return Err(FilesError::Invalid { reason });
        }
        let mut state = self.state();
        let remove = |key: &String| Ok(state.remove_latest(bucket, key, false)?.existed);
        keys.iter().map(remove).collect()
    }

    async fn remove_tree(&self, bucket: &str, prefix: &str) -> Result<u64, FilesError> {
        let mut state = self.state();
        let keys = state.bucket(bucket)?.files.keys();
        let keys: Vec<String> = keys.filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in &keys {
            state.remove_latest(bucket, key, false)?;
        }
        Ok(keys.len() as u64)
    }

    async fn rename(
        &self,
        from: &FilePath,
        to: &FilePath,
        condition: Condition,
    ) -> Result<(), FilesError> {
        let mut state = self.state();
        state.bucket(to.bucket())?;
        if from.is_bucket() || to.is_bucket() || from.is_directory() != to.is_directory() {
            let reason = "a file is renamed to a file, a folder to a folder".to_owned();
            return Err(FilesError::Invalid { reason });
        }
        let source = state.bucket(from.bucket())?;
        if !from.is_directory() {
            let found = source.files.get(from.key()).cloned();
            let file = found.ok_or_else(|| no_such_key(from.bucket(), from.key()))?;
            state.check(to.bucket(), to.key(), &condition)?;
            if from != to {
                state.place(to.bucket(), to.key(), file)?;
                state.remove_latest(from.bucket(), from.key(), false)?;
            }
            return Ok(());
        }
        let is_versioned = source.versioning != Versioning::Never;
        if is_versioned || state.bucket(to.bucket())?.versioning != Versioning::Never {
            let reason = "a folder cannot be renamed in a bucket with versions".to_owned();
            return Err(FilesError::Invalid { reason });
        }
        let source = &mut state.bucket(from.bucket())?.files;
        let keys: Vec<String> = source
            .range(from.key().to_owned()..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(from.key()))
            .collect();
        if keys.is_empty() {
            return Err(no_such_key(from.bucket(), from.key()));
        }
        if from == to {
            return Ok(());
        }
        if from.bucket() == to.bucket() && to.key().starts_with(from.key()) {
            let reason = format!("{from} cannot be moved into itself");
            return Err(FilesError::Invalid { reason });
        }
        let target = &state.bucket(to.bucket())?.files;
        if target.range(to.key().to_owned()..).next().is_some_and(|(k, _)| k.starts_with(to.key()))
        {
            return Err(precondition_failed(to.bucket(), to.key(), "the folder exists"));
        }
        for key in keys {
            let moved = state.bucket(from.bucket())?.files.remove(&key);
            let target = &mut state.bucket(to.bucket())?.files;
            let suffix = &key[from.key().len()..];
            target.extend(moved.map(|file| (format!("{}{suffix}", to.key()), file)));
        }
        Ok(())
    }

    async fn copy(
        &self,
        from: &FilePath,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError> {
        self.copy_version(from, None, to, options).await
    }

    async fn make_directory(&self, bucket: &str, key: &str) -> Result<(), FilesError> {
        let key = format!("{}/", key.strip_suffix('/').unwrap_or(key));
        validate_key(&key)?;
        let modified = self.state().now();
        let (etag, attributes) = (etag::plain(Md5::digest(b"").into()), Attributes::default());
        let info = FileInfo { size: 0, etag, modified, attributes };
        let mut state = self.state();
        if !state.bucket(bucket)?.files.contains_key(&key) {
            state.place(bucket, &key, File { info, data: Bytes::new() })?;
        }
        Ok(())
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<String, FilesError> {
        validate_key(key)?;
        check_attributes(&options.attributes)?;
        let mut state = self.state();
        let created = state.now();
        state.uploads_created += 1;
        let id = format!("{:016x}", state.uploads_created);
        let upload = Upload { created, options, parts: BTreeMap::new() };
        state.bucket(bucket)?.uploads.insert((key.to_owned(), id.clone()), upload);
        Ok(id)
    }

    async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: u16,
    ) -> Result<Box<dyn FileWriter>, FilesError> {
        if !(1..=limits::PART_NUMBER_MAX).contains(&number) {
            let reason = "part numbers go from 1 to 10,000".to_owned();
            return Err(FilesError::InvalidPart { number, reason });
        }
        self.state().upload(bucket, key, upload)?;
        Ok(Box::new(MemoryWriter {
            files: self.clone(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            target: Target::Part { upload: upload.to_owned(), number },
            data: BytesMut::new(),
        }))
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        parts: &[(u16, String)],
        condition: Condition,
        options: FinishOptions,
    ) -> Result<FileInfo, FilesError> {
        let mut state = self.state();
        let modified = state.now();
        let found = state.upload(bucket, key, upload)?;
        if parts.is_empty() {
            let reason = "an upload is completed with at least one part".to_owned();
            return Err(FilesError::Invalid { reason });
        }
        if !parts.is_sorted_by(|left, right| left.0 < right.0) {
            return Err(FilesError::InvalidPartOrder);
        }
        let mut data = BytesMut::new();
        let (mut etags, mut sizes) = (Vec::new(), Vec::new());
        for (number, etag) in parts {
            let number = *number;
            let Some((part, bytes)) = found.parts.get(&number).filter(|(p, _)| p.etag == *etag)
            else {
                let reason = "it was not uploaded, or its ETag is another".to_owned();
                return Err(FilesError::InvalidPart { number, reason });
            };
            sizes.push((number, part.size));
            data.extend_from_slice(bytes);
            etags.push(part.etag.as_str());
        }
        let minimum = limits::PART_BYTES_MIN;
        let small = sizes.iter().rev().skip(1).rev().find(|(_, bytes)| *bytes < minimum);
        if let Some(&(number, bytes)) = small {
            return Err(FilesError::PartTooSmall { number, bytes, minimum });
        }
        let etag = options.etag.unwrap_or_else(|| etag::multipart(etags.into_iter()));
        let CreateOptions { mut attributes, condition: created_with } = found.options.clone();
        attributes.headers.extend(options.headers);
        check_attributes(&attributes)?;
        state.check(bucket, key, &created_with)?;
        state.check(bucket, key, &condition)?;
        let info = FileInfo { size: data.len() as u64, etag, modified, attributes };
        state.bucket(bucket)?.uploads.remove(&(key.to_owned(), upload.to_owned()));
        state.place(bucket, key, File { info, data: data.freeze() })
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: &str) -> Result<(), FilesError> {
        let mut state = self.state();
        state.upload(bucket, key, upload)?;
        state.bucket(bucket)?.uploads.remove(&(key.to_owned(), upload.to_owned()));
        Ok(())
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, FilesError> {
        let mut state = self.state();
        let upload = state.upload(bucket, key, upload)?;
        let mut rest = upload.parts.range(after.saturating_add(1)..).map(|(_, (part, _))| part);
        let limit = limit.min(limits::PAGE_ENTRIES_MAX);
        let parts: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let next = rest.next().and(parts.last()).map(|part| part.number);
        Ok(PartPage { parts, next, options: upload.options.clone() })
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, Option<String>)>,
        limit: usize,
    ) -> Result<UploadPage, FilesError> {
        let mut state = self.state();
        let is_after = |key: &String, id: &String| match &after {
            None => true,
            Some((after, None)) => key > after,
            Some((after, Some(after_id))) => (key, id) > (after, after_id),
        };
        let uploads = &state.bucket(bucket)?.uploads;
        let mut rest =
            uploads.iter().filter(|((key, id), _)| key.starts_with(prefix) && is_after(key, id));
        let uploads: Vec<_> = rest
            .by_ref()
            .take(limit.min(limits::PAGE_ENTRIES_MAX))
            .map(|((key, id), upload)| {
                let (key, upload_id) = (key.clone(), id.clone());
                UploadInfo { key, upload: upload_id, created: upload.created }
            })
            .collect();
        let more = rest.next().is_some();
        let last = uploads.last().map(|last| (last.key.clone(), last.upload.clone()));
        Ok(UploadPage { next: last.filter(|_| more), uploads })
    }

    async fn splits(&self, request: SplitRequest) -> Result<SplitPage, FilesError> {
        let mut state = self.state();
        let files = &state.bucket(&request.bucket)?.files;
        let after = request.start_after.as_deref();
        let mut rest = files
            .range(request.prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&request.prefix))
            .filter(|(key, _)| !request.exact || **key == request.prefix)
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let mut page = SplitPage::default();
        let mut last = None;
        for (key, file) in rest.by_ref().take(request.limit.min(limits::PAGE_ENTRIES_MAX)) {
            let mut offset = 0;
            while offset < file.info.size {
                let length = request.target_bytes.max(1).min(file.info.size - offset);
                let turn = page.splits.len();
                let hosts = self.hosts.get(turn % self.hosts.len().max(1)).copied();
                page.splits.push(Split {
                    file: FilePath::new(&request.bucket, key)?,
                    etag: file.info.etag.clone(),
                    offset,
                    length,
                    hosts: hosts.into_iter().collect(),
                });
                offset += length;
            }
            last = Some(key.clone());
        }
        page.next = rest.next().and(last);
        Ok(page)
    }

    async fn usage(&self) -> Result<Usage, FilesError> {
        let state = self.state();
        let files = || {
            let of = |bucket: &'_ Bucket| -> Vec<File> {
                let old = bucket.old.values().flatten().filter_map(|old| old.file.clone());
                bucket.files.values().cloned().chain(old).collect()
            };
            state.buckets.values().flat_map(of)
        };
        let file_bytes = files().map(|file| file.info.size).sum();
        let distinct: BTreeSet<_> =
            files().map(|file| (file.data.as_ptr(), file.data.len())).collect();
        Ok(Usage {
            buckets: state.buckets.len() as u64,
            files: files().count() as u64,
            file_bytes,
            live_bytes: distinct.iter().map(|(_, length)| *length as u64).sum(),
            ..Usage::default()
        })
    }
}
