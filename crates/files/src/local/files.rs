//! [`FileSystem`] on a node that hosts the namespace's group.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use md5::{Digest, Md5};
use onefold_types::{ChunkId, NodeId};

use super::splits;
use crate::api::{
    BucketInfo, Condition, CopyOptions, CreateOptions, FileInfo, FilePath, FileReader, FileSystem,
    FileWriter, FilesError, FinishOptions, ListPage, ListRequest, PartPage, SplitPage,
    SplitRequest, UploadPage, Usage, limits, validate_key,
};
use crate::commands::Commands;
use crate::etag;
use crate::master::Leader;
use crate::namespace::{
    Command, Content, FileRecord, Query, Reply, check_attributes, check_condition,
};
use crate::read::{ChunkReader, LocalSource};
use crate::write::{ChunkPool, HeldChunks, LocalWriter, Target};

/// Files that one step of removing a tree removes.
const REMOVE_STEP: u32 = 500;

/// The file system on a node. Cheap to clone; all clones share the node's open chunks.
#[derive(Clone)]
pub struct LocalFiles {
    pub(super) commands: Commands,
    pub(super) pool: ChunkPool,
    pub(super) held: HeldChunks,
    pub(super) reader: ChunkReader,
    pub(super) leader: Leader,
}

pub(super) fn unexpected<T>(reply: &Reply) -> Result<T, FilesError> {
    Err(FilesError::Internal { reason: format!("the namespace answered {reply:?}") })
}

impl LocalFiles {
    pub(super) async fn done(&self, command: Command) -> Result<(), FilesError> {
        match self.commands.run(&command).await? {
            Reply::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    pub(super) async fn file(&self, command: Command) -> Result<FileInfo, FilesError> {
        match self.commands.run(&command).await? {
            Reply::File(info) => Ok(info),
            other => unexpected(&other),
        }
    }

    /// Whether this node leads the namespace's group, as far as it knows: for work that one node does
    /// for all.
    pub fn leads(&self) -> bool {
        self.commands.group().leadership().borrow().is_self
    }

    /// A file's description and where its bytes are.
    pub(crate) async fn find(&self, bucket: &str, key: &str) -> Result<FileRecord, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).file(bucket, key)
    }

    /// Removes a bounded number of files under a prefix; says how many, and whether there may be
    /// more.
    pub(crate) async fn remove_some(
        &self,
        bucket: &str,
        prefix: &str,
    ) -> Result<(u64, bool), FilesError> {
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        let command = Command::RemovePrefix { bucket, prefix, limit: REMOVE_STEP };
        match self.commands.run(&command).await? {
            Reply::RemovedSome { count, more } => Ok((count, more)),
            other => unexpected(&other),
        }
    }

    /// Reads chunks on behalf of this node.
    pub(crate) fn reader(&self) -> &ChunkReader {
        &self.reader
    }

    fn writer(&self, target: Target) -> Box<dyn FileWriter> {
        let (commands, pool) = (self.commands.clone(), self.pool.clone());
        Box::new(LocalWriter::new(commands, pool, &self.held, target))
    }
}

#[async_trait]
impl FileSystem for LocalFiles {
    async fn create_bucket(&self, bucket: &str) -> Result<(), FilesError> {
        self.done(Command::CreateBucket { bucket: bucket.to_owned() }).await
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), FilesError> {
        self.done(Command::DeleteBucket { bucket: bucket.to_owned() }).await
    }

    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).buckets()
    }

    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).bucket(bucket)
    }

    async fn stat(&self, bucket: &str, key: &str) -> Result<FileInfo, FilesError> {
        Ok(self.find(bucket, key).await?.info)
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).list(&request)
    }

    async fn create(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<Box<dyn FileWriter>, FilesError> {
        validate_key(key)?;
        check_attributes(&options.attributes)?;
        // Refusing now saves the caller's bytes; what counts is checked at the end.
        let view = self.commands.view().await?;
        let query = Query(&view);
        query.bucket(bucket)?;
        if options.condition != Condition::Always {
            let file = query.find_file(bucket, key)?;
            check_condition(
                (bucket, key),
                file.map(|file| file.info).as_ref(),
                &options.condition,
            )?;
        }
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        Ok(self.writer(Target::File { bucket, key, options }))
    }

    async fn open(&self, bucket: &str, key: &str) -> Result<FileReader, FilesError> {
        let FileRecord { info, content } = self.find(bucket, key).await?;
        let (reader, content) = (self.reader.clone(), Arc::new(content));
        Ok(FileReader::new(info, Arc::new(LocalSource { reader, content })))
    }

    async fn remove(&self, bucket: &str, key: &str) -> Result<bool, FilesError> {
        let removed = self.remove_many(bucket, &[key.to_owned()]).await?;
        Ok(removed.first().copied().unwrap_or_default())
    }

    async fn remove_many(&self, bucket: &str, keys: &[String]) -> Result<Vec<bool>, FilesError> {
        let command = Command::Remove { bucket: bucket.to_owned(), keys: keys.to_vec() };
        match self.commands.run(&command).await? {
            Reply::Removed(removed) => Ok(removed),
            other => unexpected(&other),
        }
    }

    async fn remove_tree(&self, bucket: &str, prefix: &str) -> Result<u64, FilesError> {
        let mut removed = 0;
        loop {
            let (count, more) = self.remove_some(bucket, prefix).await?;
            removed += count;
            if !more {
                return Ok(removed);
            }
        }
    }

    async fn rename(
        &self,
        from: &FilePath,
        to: &FilePath,
        condition: Condition,
    ) -> Result<(), FilesError> {
        self.done(Command::Rename { from: from.clone(), to: to.clone(), condition }).await
    }

    async fn copy(
        &self,
        from: &FilePath,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError> {
        self.file(Command::Copy { from: from.clone(), to: to.clone(), options }).await
    }

    async fn make_directory(&self, bucket: &str, key: &str) -> Result<(), FilesError> {
        let key = format!("{}/", key.strip_suffix('/').unwrap_or(key));
        let etag = etag::plain(Md5::digest(b"").into());
        self.done(Command::MakeDirectory { bucket: bucket.to_owned(), key, etag }).await
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<String, FilesError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        match self.commands.run(&Command::CreateUpload { bucket, key, options }).await? {
            Reply::Upload(upload) => Ok(upload),
            other => unexpected(&other),
        }
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
        let view = self.commands.view().await?;
        Query(&view).check_upload(bucket, key, upload)?;
        let (bucket, key, upload) = (bucket.to_owned(), key.to_owned(), upload.to_owned());
        Ok(self.writer(Target::Part { bucket, key, upload, number }))
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
        let (bucket, key, upload) = (bucket.to_owned(), key.to_owned(), upload.to_owned());
        let parts = parts.to_vec();
        self.file(Command::CompleteUpload { bucket, key, upload, parts, condition, options }).await
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: &str) -> Result<(), FilesError> {
        let (bucket, key, upload) = (bucket.to_owned(), key.to_owned(), upload.to_owned());
        self.done(Command::AbortUpload { bucket, key, upload }).await
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).parts((bucket, key, upload), after, limit)
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, Option<String>)>,
        limit: usize,
    ) -> Result<UploadPage, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).uploads(bucket, prefix, after.as_ref(), limit)
    }

    async fn splits(&self, request: SplitRequest) -> Result<SplitPage, FilesError> {
        let view = self.commands.view().await?;
        let query = Query(&view);
        let SplitRequest { bucket, prefix, exact, target_bytes, start_after, limit } = request;
        let after = start_after.as_deref();
        let limit = limit.min(limits::PAGE_ENTRIES_MAX);
        let files = if exact {
            let file = query.find_file(&bucket, &prefix)?;
            let is_wanted = after.is_none_or(|after| after < prefix.as_str());
            file.filter(|_| is_wanted).map(|file| (prefix, file)).into_iter().collect()
        } else {
            query.files_under(&bucket, &prefix, after, limit + 1)?
        };
        let is_more = files.len() > limit;
        let mut page = SplitPage::default();
        for (key, file) in files.into_iter().take(limit) {
            let mut replicas: BTreeMap<ChunkId, Vec<NodeId>> = BTreeMap::new();
            for (chunk, record) in query.chunks_of(&file.content)? {
                replicas.insert(chunk, record.replicas);
            }
            let path = FilePath::new(&bucket, &key)?;
            let (etag, content): (_, &Content) = (&file.info.etag, &file.content);
            page.splits.extend(splits::split(&path, etag, content, target_bytes, &replicas));
            page.next = is_more.then_some(key);
        }
        Ok(page)
    }

    async fn usage(&self) -> Result<Usage, FilesError> {
        self.leader.usage().await
    }
}
