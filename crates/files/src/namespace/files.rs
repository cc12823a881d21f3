//! Commands on buckets and files.

use bytes::Bytes;
use onefold_table::{KeyRange, Order, TableError, View};

use super::command::Reply;
use super::keys;
use super::records::{BucketRecord, Content, DirectoryId, FileRecord, encode};
use super::state::{Applied, Change};
use super::tree::{
    components, find_directory, find_file, get_bucket, get_entry, is_empty, no_such_key,
};
use super::versions::{get_version, has_versions};
use super::walk::Walk;
use crate::api::{
    Attributes, Condition, CopyOptions, CreateOptions, FileInfo, FilePath, FilesError, Version,
    Versioning, limits, validate_bucket_name, validate_key,
};

/// Most buckets of a cluster (S3's bound on an account).
const BUCKETS_MAX: u64 = 10_000;

pub(super) fn precondition_failed(bucket: &str, key: &str, reason: &str) -> FilesError {
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    FilesError::PreconditionFailed { bucket, key, reason: reason.to_owned() }
}

fn invalid(reason: impl Into<String>) -> FilesError {
    FilesError::Invalid { reason: reason.into() }
}

/// Whether a condition holds for the file that is (or is not) there.
pub(crate) fn check_condition(
    path: (&str, &str),
    file: Option<&FileInfo>,
    condition: &Condition,
) -> Result<(), FilesError> {
    let (bucket, key) = path;
    match (condition, file) {
        (Condition::Always, _) | (Condition::IfAbsent, None) => Ok(()),
        (Condition::IfAbsent, Some(_)) => {
            Err(precondition_failed(bucket, key, "it was to be absent, and it exists"))
        }
        (Condition::IfMatch(_), None) => Err(no_such_key(bucket, key)),
        (Condition::IfMatch(etag), Some(file)) if file.etag == *etag => Ok(()),
        (Condition::IfMatch(etag), Some(file)) => {
            let reason = format!("its ETag was to be {etag} and is {}", file.etag);
            Err(precondition_failed(bucket, key, &reason))
        }
    }
}

/// Bounds what is stored with a file.
pub(crate) fn check_attributes(attributes: &Attributes) -> Result<(), FilesError> {
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

/// Bounds a content that is to be a whole file.
pub(super) fn check_size(content: &Content) -> Result<(), FilesError> {
    let bytes = content.size();
    if let Content::Inline(data) = content
        && data.len() > limits::INLINE_BYTES_MAX
    {
        return Err(invalid(format!("{} bytes are too many to be kept inline", data.len())));
    }
    if bytes <= limits::FILE_BYTES_MAX {
        return Ok(());
    }
    let maximum = limits::FILE_BYTES_MAX;
    Err(FilesError::TooLarge { what: "the file".to_owned(), bytes, maximum })
}

impl Change<'_> {
    pub(super) fn create_bucket(&mut self, bucket: &str) -> Applied<Reply> {
        validate_bucket_name(bucket)?;
        if get_bucket(&self.table, bucket)?.is_some() {
            return Err(FilesError::BucketExists { bucket: bucket.to_owned() }.into());
        }
        if self.counters.buckets >= BUCKETS_MAX {
            return Err(
                invalid(format!("there are {BUCKETS_MAX} buckets; no more can be had")).into()
            );
        }
        let root = DirectoryId(self.next_id());
        self.counters.buckets += 1;
        let versioning = Versioning::Never;
        let record = BucketRecord { root, created: self.time, versioning };
        self.table.put(keys::bucket(bucket), encode(&record));
        Ok(Reply::Done)
    }

    pub(super) fn delete_bucket(&mut self, bucket: &str) -> Applied<Reply> {
        let root = self.root(bucket)?;
        let is_empty = is_empty(&self.table, root)? && !has_versions(&self.table, root)?;
        if !is_empty || self.has_uploads(root)? {
            return Err(FilesError::BucketNotEmpty { bucket: bucket.to_owned() }.into());
        }
        let settings = KeyRange::prefix(&keys::settings(root));
        let settings: Result<Vec<_>, TableError> =
            self.table.scan(settings, Order::Ascending).map(|pair| Ok(pair?.0)).collect();
        for setting in settings? {
            self.table.delete(setting.to_vec());
        }
        self.counters.buckets -= 1;
        self.table.delete(keys::bucket(bucket));
        Ok(Reply::Done)
    }

    pub(super) fn put_file(
        &mut self,
        bucket: &str,
        key: &str,
        content: Content,
        etag: String,
        options: CreateOptions,
    ) -> Applied<Reply> {
        validate_key(key)?;
        check_attributes(&options.attributes)?;
        check_size(&content)?;
        let record = self.bucket(bucket)?;
        let conditions = [&options.condition];
        self.check_target(record.root, (bucket, key), &conditions)?;
        self.reference(&content)?;
        let attributes = options.attributes;
        let info = FileInfo { size: content.size(), etag, modified: self.time, attributes };
        Ok(Reply::File(self.place(&record, key, FileRecord { info, content })?))
    }

    pub(super) fn check_target(
        &self,
        root: DirectoryId,
        path: (&str, &str),
        conditions: &[&Condition],
    ) -> Applied<()> {
        if conditions.iter().all(|condition| **condition == Condition::Always) {
            return Ok(());
        }
        let file = find_file(&self.table, root, path.1)?;
        for condition in conditions {
            check_condition(path, file.as_ref().map(|file| &file.info), condition)?;
        }
        Ok(())
    }

    /// Removes the file in the tree for good; says whether there was one.
    pub(super) fn drop_file(&mut self, root: DirectoryId, key: &str) -> Applied<bool> {
        let Some(file) = self.take_file(root, key)? else { return Ok(false) };
        self.counters.files -= 1;
        self.counters.file_bytes -= file.info.size;
        self.unreference(&file.content)?;
        Ok(true)
    }

    pub(super) fn make_directory(
        &mut self,
        bucket: &str,
        key: &str,
        etag: String,
    ) -> Applied<Reply> {
        validate_key(key)?;
        if !key.ends_with('/') {
            return Err(invalid("a folder's key ends in a slash").into());
        }
        let record = self.bucket(bucket)?;
        if find_file(&self.table, record.root, key)?.is_none() {
            let (modified, attributes) = (self.time, Attributes::default());
            let info = FileInfo { size: 0, etag, modified, attributes };
            let content = Content::Inline(Bytes::new());
            self.place(&record, key, FileRecord { info, content })?;
        }
        Ok(Reply::Done)
    }

    pub(super) fn remove(&mut self, bucket: &str, keys: &[String]) -> Applied<Reply> {
        if keys.len() > limits::REMOVE_KEYS_MAX {
            let reason = format!("{} keys; at most 1,000 are removed at once", keys.len());
            return Err(invalid(reason).into());
        }
        let record = self.bucket(bucket)?;
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            removed.push(self.remove_latest(&record, key, false)?.existed);
        }
        Ok(Reply::Removed(removed))
    }

    pub(super) fn remove_prefix(
        &mut self,
        bucket: &str,
        prefix: &str,
        limit: u32,
    ) -> Applied<Reply> {
        let record = self.bucket(bucket)?;
        let limit = (limit as usize).min(limits::REMOVE_KEYS_MAX);
        let mut found = Vec::new();
        let mut walk = Walk::starting_at(&self.table, record.root, prefix.as_bytes())?;
        while found.len() < limit
            && let Some(file) = walk.next()?
            && file.key.starts_with(prefix.as_bytes())
        {
            found.push(file.key);
        }
        drop(walk);
        for key in &found {
            let key = std::str::from_utf8(key);
            let key = key.map_err(|error| super::records::corrupt("name", error))?;
            self.remove_latest(&record, key, false)?;
        }
        Ok(Reply::RemovedSome { count: found.len() as u64, more: found.len() == limit })
    }

    pub(super) fn rename(
        &mut self,
        from: &FilePath,
        to: &FilePath,
        condition: &Condition,
    ) -> Applied<Reply> {
        let (target, source) = (self.bucket(to.bucket())?, self.bucket(from.bucket())?);
        let (to_root, from_root) = (target.root, source.root);
        if from.is_bucket() || to.is_bucket() || from.is_directory() != to.is_directory() {
            return Err(invalid("a file is renamed to a file, a folder to a folder").into());
        }
        validate_key(to.key())?;
        let has_versions =
            [&source, &target].iter().any(|bucket| bucket.versioning != Versioning::Never);
        if from.is_directory() {
            if has_versions {
                return Err(invalid(
                    "a folder cannot be renamed in a bucket with versions; copy its files and \
                     remove them",
                )
                .into());
            }
            return self.rename_directory((from, from_root), (to, to_root));
        }
        let Some(file) = find_file(&self.table, from_root, from.key())? else {
            return Err(no_such_key(from.bucket(), from.key()).into());
        };
        self.check_target(to_root, (to.bucket(), to.key()), &[condition])?;
        if from == to {
            return Ok(Reply::Done);
        }
        if has_versions {
            self.reference(&file.content)?;
            self.place(&target, to.key(), file)?;
            self.remove_latest(&source, from.key(), false)?;
            return Ok(Reply::Done);
        }
        self.drop_file(to_root, to.key())?;
        let file = self.take_file(from_root, from.key())?.expect("it was found just now");
        self.enter_file(to_root, to.key(), file)?;
        Ok(Reply::Done)
    }

    fn rename_directory(
        &mut self,
        (from, from_root): (&FilePath, DirectoryId),
        (to, to_root): (&FilePath, DirectoryId),
    ) -> Applied<Reply> {
        let (from_names, _) = components(from.key());
        let (to_names, _) = components(to.key());
        if find_directory(&self.table, from_root, &from_names)?.is_none() {
            return Err(no_such_key(from.bucket(), from.key()).into());
        }
        if from == to {
            return Ok(Reply::Done);
        }
        if from.bucket() == to.bucket() && to.key().starts_with(from.key()) {
            return Err(invalid(format!("{from} cannot be moved into itself")).into());
        }
        let (to_name, to_above) = to_names.split_last().expect("a folder's key has a component");
        let (from_name, from_above) =
            from_names.split_last().expect("a folder's key has a component");
        if let Some(parent) = find_directory(&self.table, to_root, to_above)?
            && get_entry(&self.table, parent, to_name)?.is_some()
        {
            return Err(precondition_failed(to.bucket(), to.key(), "the folder exists").into());
        }
        let directory = self.take_directory(from_root, from_above, from_name)?;
        let directory = directory.expect("it was found just now");
        self.enter_directory(to_root, to_above, to_name, directory)?;
        Ok(Reply::Done)
    }

    pub(super) fn copy(
        &mut self,
        from: &FilePath,
        version: Option<Version>,
        to: &FilePath,
        options: CopyOptions,
    ) -> Applied<Reply> {
        validate_key(to.key())?;
        let mut file = get_version(&self.table, (from.bucket(), from.key()), version)?;
        if let Some(etag) = &options.source_etag
            && *etag != file.info.etag
        {
            let reason = format!("its ETag was to be {etag} and is {}", file.info.etag);
            return Err(precondition_failed(from.bucket(), from.key(), &reason).into());
        }
        let target = self.bucket(to.bucket())?;
        self.check_target(target.root, (to.bucket(), to.key()), &[&options.condition])?;
        file.info.modified = self.time;
        if let Some(attributes) = options.attributes {
            check_attributes(&attributes)?;
            file.info.attributes = attributes;
        }
        self.reference(&file.content)?;
        Ok(Reply::File(self.place(&target, to.key(), file)?))
    }
}
