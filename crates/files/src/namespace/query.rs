//! Reads of the namespace: plain functions of one consistent view, without the log.

use std::str;

use bytes::Bytes;
use onefold_table::{KeyRange, Order, TableError, View};
use onefold_types::{ChunkId, NodeId, Timestamp};

use super::chunks::get_chunk;
use super::keys;
use super::records::{
    BucketRecord, ChunkRecord, Content, Counters, DirectoryId, EntryHead, FileRecord, UploadId,
    UploadRecord, corrupt, decode,
};
use super::state::Stop;
use super::tree::{find_file, get_bucket, no_such_bucket, no_such_key};
use super::uploads::{get_upload, no_such_upload, parts};
use super::versions::get_version;
use super::walk::{Found, Walk, after_prefix};
use crate::api::{
    BucketInfo, FilesError, ListEntry, ListPage, ListRequest, PartInfo, PartPage, Setting,
    UploadInfo, UploadPage, Version, VersionPage, Versioning, VersionsRequest, limits,
};

/// Reads of one view of the namespace.
pub(crate) struct Query<'a>(pub(crate) &'a dyn View);

type Answer<T> = Result<T, FilesError>;

impl From<Stop> for FilesError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(error) => error,
            Stop::Table(error) => error.into(),
        }
    }
}

impl From<TableError> for FilesError {
    fn from(error: TableError) -> Self {
        Self::Internal { reason: format!("the namespace cannot be read: {error}") }
    }
}

pub(super) fn text(key: Vec<u8>) -> Answer<String> {
    String::from_utf8(key).map_err(|error| corrupt("name", error).into())
}

impl Query<'_> {
    fn bucket_record(&self, bucket: &str) -> Answer<BucketRecord> {
        get_bucket(self.0, bucket)?.ok_or_else(|| no_such_bucket(bucket))
    }

    fn root(&self, bucket: &str) -> Answer<DirectoryId> {
        Ok(self.bucket_record(bucket)?.root)
    }

    pub(crate) fn counters(&self) -> Answer<Counters> {
        let value = self.0.get(keys::COUNTERS)?;
        Ok(value.map_or(Ok(Counters::default()), |bytes| decode("counters", &bytes))?)
    }

    pub(crate) fn bucket(&self, bucket: &str) -> Answer<BucketInfo> {
        let created = self.bucket_record(bucket)?.created;
        Ok(BucketInfo { name: bucket.to_owned(), created })
    }

    pub(crate) fn buckets(&self) -> Answer<Vec<BucketInfo>> {
        let mut buckets = Vec::new();
        for pair in self.0.scan(KeyRange::prefix(&keys::buckets()), Order::Ascending) {
            let (key, value) = pair?;
            let record = BucketRecord::decode(&value)?;
            buckets.push(BucketInfo { name: text(key[1..].to_vec())?, created: record.created });
        }
        Ok(buckets)
    }

    pub(crate) fn file(&self, bucket: &str, key: &str) -> Answer<FileRecord> {
        let root = self.root(bucket)?;
        find_file(self.0, root, key)?.ok_or_else(|| no_such_key(bucket, key))
    }

    pub(crate) fn find_file(&self, bucket: &str, key: &str) -> Answer<Option<FileRecord>> {
        Ok(find_file(self.0, self.root(bucket)?, key)?)
    }

    pub(crate) fn versioning(&self, bucket: &str) -> Answer<Versioning> {
        Ok(self.bucket_record(bucket)?.versioning)
    }

    pub(crate) fn setting(&self, bucket: &str, setting: Setting) -> Answer<Option<Bytes>> {
        Ok(self.0.get(&keys::setting(self.root(bucket)?, setting))?)
    }

    /// A version of a file, or the latest.
    pub(crate) fn version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
    ) -> Answer<FileRecord> {
        Ok(get_version(self.0, (bucket, key), version)?)
    }

    pub(crate) fn list_versions(&self, request: &VersionsRequest) -> Answer<VersionPage> {
        super::version_list::list(self.0, request)
    }

    /// Files whose keys start with `prefix`, after a key, with their content.
    pub(crate) fn files_under(
        &self,
        bucket: &str,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Answer<Vec<(String, FileRecord)>> {
        let mut walk = self.walk(self.root(bucket)?, prefix, start_after)?;
        let mut files = Vec::new();
        while files.len() < limit
            && let Some(found) = walk.next()?
            && found.key.starts_with(prefix.as_bytes())
        {
            let super::records::Entry::File(file) = found.entry()? else { continue };
            files.push((text(found.key)?, file));
        }
        Ok(files)
    }

    fn walk(&self, root: DirectoryId, prefix: &str, after: Option<&str>) -> Answer<Walk<'_>> {
        let mut from = prefix.as_bytes().to_vec();
        if let Some(after) = after
            && after.as_bytes() >= from.as_slice()
        {
            from = [after.as_bytes(), b"\0"].concat();
        }
        Ok(Walk::starting_at(self.0, root, &from)?)
    }

    /// A page of keys, rolled up at the delimiter. What a common prefix hides is not walked.
    pub(crate) fn list(&self, request: &ListRequest) -> Answer<ListPage> {
        let root = self.root(&request.bucket)?;
        let limit = request.limit.min(limits::PAGE_ENTRIES_MAX);
        let delimiter = request.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let after = request.start_after.as_deref();
        let mut walk = self.walk(root, &request.prefix, after)?;
        let mut page = ListPage::default();
        let mut last = None;
        while let Some(Found { key, value }) = walk.next()?
            && key.starts_with(request.prefix.as_bytes())
        {
            let key = text(key)?;
            let rolled = delimiter.and_then(|delimiter| {
                let end = key[request.prefix.len()..].find(delimiter)? + delimiter.len();
                Some(key[..request.prefix.len() + end].to_owned())
            });
            let seen = rolled.is_some() && rolled.as_deref() == after;
            if !seen && page.entries.len() + page.common_prefixes.len() == limit {
                page.next = last;
                break;
            }
            if let Some(common) = rolled {
                let next = after_prefix(common.as_bytes());
                if !seen {
                    last = Some(common.clone());
                    page.common_prefixes.push(common);
                }
                match next {
                    Some(next) => walk.seek(&next)?,
                    None => break,
                }
            } else {
                let EntryHead::File(info, _) = EntryHead::decode(&value)? else { continue };
                last = Some(key.clone());
                page.entries.push(ListEntry { key, info });
            }
        }
        Ok(page)
    }

    fn upload(&self, bucket: &str, key: &str, upload: &str) -> Answer<(UploadId, UploadRecord)> {
        let root = self.root(bucket)?;
        let id = UploadId::parse(upload).ok_or_else(|| no_such_upload(upload))?;
        let record = get_upload(self.0, root, key, id)?;
        Ok((id, record.ok_or_else(|| no_such_upload(upload))?))
    }

    pub(crate) fn check_upload(&self, bucket: &str, key: &str, upload: &str) -> Answer<()> {
        self.upload(bucket, key, upload).map(drop)
    }

    pub(crate) fn parts(
        &self,
        (bucket, key, upload): (&str, &str, &str),
        after: u16,
        limit: usize,
    ) -> Answer<PartPage> {
        let (id, record) = self.upload(bucket, key, upload)?;
        let limit = limit.min(limits::PAGE_ENTRIES_MAX);
        let mut page = PartPage { options: record.options, ..PartPage::default() };
        for part in parts(self.0, id, after) {
            let (number, part) = part?;
            if page.parts.len() == limit {
                page.next = page.parts.last().map(|part| part.number);
                break;
            }
            let (size, etag) = (part.content.size(), part.etag);
            let (modified, headers) = (part.modified, part.headers);
            page.parts.push(PartInfo { number, size, etag, modified, headers });
        }
        Ok(page)
    }

    pub(crate) fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&(String, Option<String>)>,
        limit: usize,
    ) -> Answer<UploadPage> {
        let root = self.root(bucket)?;
        let mut range = KeyRange::prefix(&keys::uploads_under(root, prefix));
        if let Some((key, upload)) = after {
            let end = match upload.as_deref().map(UploadId::parse) {
                Some(Some(upload)) => keys::upload(root, key, upload),
                Some(None) => return Err(no_such_upload(upload.as_deref().unwrap_or_default())),
                None => keys::upload(root, key, UploadId(u64::MAX)),
            };
            if range.contains(&end) {
                range = range.rest_after(end);
            } else if end > keys::uploads_under(root, prefix) {
                return Ok(UploadPage::default());
            }
        }
        let limit = limit.min(limits::PAGE_ENTRIES_MAX);
        let mut page = UploadPage::default();
        for pair in self.0.scan(range, Order::Ascending) {
            let (key, value) = pair?;
            if page.uploads.len() == limit {
                page.next = page.uploads.last().map(|last| (last.key.clone(), last.upload.clone()));
                break;
            }
            let (key, id) = keys::parse_upload(&key).ok_or_else(|| corrupt("upload", "key"))?;
            let record: UploadRecord = decode("upload", &value)?;
            let (upload, created) = (id.to_string(), record.created);
            page.uploads.push(UploadInfo { key, upload, created });
        }
        Ok(page)
    }

    pub(crate) fn chunk(&self, chunk: ChunkId) -> Answer<Option<ChunkRecord>> {
        Ok(get_chunk(self.0, chunk)?)
    }

    /// The records of the chunks of a content.
    pub(crate) fn chunks_of(&self, content: &Content) -> Answer<Vec<(ChunkId, ChunkRecord)>> {
        let mut chunks: Vec<ChunkId> = content.extents().iter().map(|e| e.chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let record = |chunk| {
            let record = get_chunk(self.0, chunk)?;
            Ok((chunk, record.ok_or_else(|| corrupt("file", "its chunk has no record"))?))
        };
        chunks.into_iter().map(record).collect()
    }

    fn chunks_in(
        &self,
        prefix: &[u8],
        after: Option<ChunkId>,
        limit: usize,
    ) -> Answer<Vec<ChunkId>> {
        let mut range = KeyRange::prefix(prefix);
        if let Some(after) = after {
            range = range.rest_after([prefix, &after.0.to_be_bytes()].concat());
        }
        let mut chunks = Vec::new();
        for pair in self.0.scan(range, Order::Ascending).take(limit) {
            let (key, _): (Bytes, Bytes) = pair?;
            chunks.push(keys::trailing_chunk(&key).ok_or_else(|| corrupt("chunk", "short key"))?);
        }
        Ok(chunks)
    }

    /// Whether a chunk has been without references since before `due`, counted from the epoch.
    pub(crate) fn has_garbage(&self, due: std::time::Duration) -> Answer<bool> {
        let due = Timestamp(u64::try_from(due.as_millis()).unwrap_or(u64::MAX));
        let (start, end) = keys::garbage_until(due);
        let mut garbage = self.0.scan(KeyRange::half_open(start, end), Order::Ascending);
        Ok(garbage.next().transpose()?.is_some())
    }

    /// Chunks that are not sealed, after a chunk.
    pub(crate) fn open_chunks(&self, after: Option<ChunkId>, limit: usize) -> Answer<Vec<ChunkId>> {
        self.chunks_in(&keys::open_chunks(), after, limit)
    }

    /// Chunks with a replica on the node, after a chunk.
    pub(crate) fn chunks_on(
        &self,
        node: NodeId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Answer<Vec<ChunkId>> {
        self.chunks_in(&keys::replicas(node), after, limit)
    }

    /// Sealed chunks with this number of replicas, fewer than wanted, after a chunk.
    pub(crate) fn chunks_wanting(
        &self,
        replicas: usize,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Answer<Vec<ChunkId>> {
        self.chunks_in(&keys::wanting_with(replicas), after, limit)
    }
}
