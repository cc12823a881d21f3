//! Versions: what is kept when a file of a versioned bucket is replaced or removed.
//!
//! The tree holds the latest version of each key that is a file. Everything else lies in a list of its
//! own, `V`: older versions and delete markers, of each key the newest first. So a key that the tree
//! lacks but the list has is one whose newest version is a delete marker; when that marker is removed,
//! the file below it goes back into the tree. Whoever knows nothing of versions finds the tree as it
//! always was.

use onefold_table::{KeyRange, Order, TableError, View};
use onefold_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::files::{check_attributes, precondition_failed};
use super::keys;
use super::records::{BucketRecord, Content, DirectoryId, FileRecord, corrupt, decode, encode};
use super::state::{Applied, Change};
use super::tree::{find_file, get_bucket, no_such_bucket, no_such_key};
use crate::api::{
    FileInfo, FilesError, HeaderChanges, RemoveTarget, Removed, Setting, VERSION_HEADER, Version,
    Versioning, limits, lock,
};

/// An older version or a delete marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) version: Version,
    pub(crate) modified: Timestamp,
    /// `None` for a delete marker.
    pub(crate) file: Option<(FileInfo, Content)>,
}

/// Where a version is found.
pub(super) enum Place {
    /// It is the latest, and a file.
    Tree(FileRecord),
    /// In the list, under this sequence.
    List(u64, VersionRecord),
}

/// The list of a key's versions with their sequences, newest first, from below `below`.
pub(super) fn versions_of(
    view: &dyn View,
    root: DirectoryId,
    key: &str,
    below: u64,
) -> impl Iterator<Item = Result<(u64, VersionRecord), TableError>> {
    let all = KeyRange::prefix(&keys::versions_of(root, key));
    let range = all.rest_after(keys::version(root, key, below));
    view.scan(range, Order::Ascending).map(|pair| {
        let (key, value) = pair?;
        let (_, sequence) =
            keys::parse_version(&key).ok_or_else(|| corrupt("version", "malformed key"))?;
        Ok((sequence, decode("version", &value)?))
    })
}

/// The newest in the list of a key.
fn newest(
    view: &dyn View,
    root: DirectoryId,
    key: &str,
) -> Result<Option<(u64, VersionRecord)>, TableError> {
    versions_of(view, root, key, u64::MAX).next().transpose()
}

/// Under which sequence the list has a version, if it has it.
pub(super) fn sequence_of(
    view: &dyn View,
    root: DirectoryId,
    key: &str,
    version: Version,
) -> Result<Option<u64>, TableError> {
    match version {
        Version::Number(number) => Ok(Some(number)),
        Version::Null => {
            let sequence = view.get(&keys::null_version(root, key))?;
            sequence.map(|bytes| decode("null version", &bytes)).transpose()
        }
    }
}

/// Finds a version.
pub(super) fn find_version(
    view: &dyn View,
    root: DirectoryId,
    key: &str,
    version: Version,
) -> Result<Option<Place>, TableError> {
    if let Some(file) = find_file(view, root, key)?
        && file.info.attributes.version() == version
    {
        return Ok(Some(Place::Tree(file)));
    }
    let Some(sequence) = sequence_of(view, root, key, version)? else { return Ok(None) };
    let Some(bytes) = view.get(&keys::version(root, key, sequence))? else { return Ok(None) };
    Ok(Some(Place::List(sequence, decode("version", &bytes)?)))
}

fn delete_marker(bucket: &str, key: &str, record: &VersionRecord) -> FilesError {
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    FilesError::DeleteMarker { bucket, key, version: record.version, modified: record.modified }
}

/// The file that a request for a version, or for the latest, is about.
pub(super) fn get_version(
    view: &dyn View,
    (bucket, key): (&str, &str),
    version: Option<Version>,
) -> Result<FileRecord, super::state::Stop> {
    let root = get_bucket(view, bucket)?.ok_or_else(|| no_such_bucket(bucket))?.root;
    let Some(version) = version else {
        if let Some(file) = find_file(view, root, key)? {
            return Ok(file);
        }
        return Err(match newest(view, root, key)? {
            Some((_, record)) => delete_marker(bucket, key, &record).into(),
            None => no_such_key(bucket, key).into(),
        });
    };
    match find_version(view, root, key, version)? {
        Some(Place::Tree(file)) => Ok(file),
        Some(Place::List(_, VersionRecord { file: Some((info, content)), .. })) => {
            Ok(FileRecord { info, content })
        }
        Some(Place::List(_, record)) => Err(delete_marker(bucket, key, &record).into()),
        None => {
            let (bucket, key) = (bucket.to_owned(), key.to_owned());
            Err(FilesError::NoSuchVersion { bucket, key, version: version.to_string() }.into())
        }
    }
}

/// Whether a bucket has versions besides the files in its tree.
pub(super) fn has_versions(view: &dyn View, root: DirectoryId) -> Result<bool, TableError> {
    let range = KeyRange::prefix(&keys::versions_under(root, ""));
    Ok(view.scan(range, Order::Ascending).next().transpose()?.is_some())
}

impl Change<'_> {
    pub(super) fn bucket(&self, bucket: &str) -> Applied<BucketRecord> {
        Ok(get_bucket(&self.table, bucket)?.ok_or_else(|| no_such_bucket(bucket))?)
    }

    pub(super) fn set_versioning(
        &mut self,
        bucket: &str,
        versioning: Versioning,
    ) -> Applied<Reply> {
        let record = self.bucket(bucket)?;
        if versioning == Versioning::Never && record.versioning != Versioning::Never {
            let reason = "versioning can be suspended, but not undone".to_owned();
            return Err(FilesError::Invalid { reason }.into());
        }
        let lock = keys::setting(record.root, Setting::ObjectLock);
        if versioning == Versioning::Suspended && self.table.get(&lock)?.is_some() {
            let reason = "versions can be locked here, so versioning stays enabled".to_owned();
            return Err(FilesError::Invalid { reason }.into());
        }
        if record.versioning != versioning {
            self.table.put(keys::bucket(bucket), encode(&BucketRecord { versioning, ..record }));
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_setting(
        &mut self,
        bucket: &str,
        setting: Setting,
        value: Option<bytes::Bytes>,
    ) -> Applied<Reply> {
        let root = self.root(bucket)?;
        let key = keys::setting(root, setting);
        match value {
            None => self.table.delete(key),
            Some(value) if value.len() > limits::SETTING_BYTES_MAX => {
                return Err(FilesError::TooLarge {
                    what: "the bucket's setting".to_owned(),
                    bytes: value.len() as u64,
                    maximum: limits::SETTING_BYTES_MAX as u64,
                }
                .into());
            }
            Some(value) => self.table.put(key, value.to_vec()),
        }
        Ok(Reply::Done)
    }

    /// Puts a file, whose content is referenced already, in the place of what was there, as the
    /// bucket's versioning says, and answers it as it is now.
    pub(super) fn place(
        &mut self,
        bucket: &BucketRecord,
        key: &str,
        mut file: FileRecord,
    ) -> Applied<FileInfo> {
        self.counters.files += 1;
        self.counters.file_bytes += file.info.size;
        let version = self.make_room(bucket, key)?;
        let headers = &mut file.info.attributes.headers;
        match version {
            Some(version) => headers.insert(VERSION_HEADER.to_owned(), version.to_string()),
            None => headers.remove(VERSION_HEADER),
        };
        let info = file.info.clone();
        self.enter_file(bucket.root, key, file)?;
        Ok(info)
    }

    /// Leaves no file in the tree under the key, and says which version comes now, in a bucket that
    /// has any.
    fn make_room(&mut self, bucket: &BucketRecord, key: &str) -> Applied<Option<Version>> {
        let root = bucket.root;
        match bucket.versioning {
            Versioning::Never => {
                self.drop_file(root, key)?;
                Ok(None)
            }
            Versioning::Enabled => {
                self.keep_latest(root, key)?;
                Ok(Some(Version::Number(self.next_id())))
            }
            Versioning::Suspended => {
                self.drop_null(root, key)?;
                self.keep_latest(root, key)?;
                Ok(Some(Version::Null))
            }
        }
    }

    /// Moves the file in the tree, if there is one, into the list.
    fn keep_latest(&mut self, root: DirectoryId, key: &str) -> Applied<()> {
        let Some(FileRecord { info, content }) = self.take_file(root, key)? else { return Ok(()) };
        let version = info.attributes.version();
        let record =
            VersionRecord { version, modified: info.modified, file: Some((info, content)) };
        self.enter_version(root, key, &record);
        Ok(())
    }

    /// Puts a version on top of the list. A null version gets a sequence above all before it.
    fn enter_version(&mut self, root: DirectoryId, key: &str, record: &VersionRecord) {
        let sequence = match record.version {
            Version::Number(number) => number,
            Version::Null => {
                let sequence = self.next_id();
                self.table.put(keys::null_version(root, key), encode(&sequence));
                sequence
            }
        };
        self.table.put(keys::version(root, key, sequence), encode(record));
    }

    /// Removes the null version, wherever it is.
    fn drop_null(&mut self, root: DirectoryId, key: &str) -> Applied<()> {
        match find_version(&self.table, root, key, Version::Null)? {
            Some(Place::Tree(_)) => self.drop_file(root, key).map(drop),
            Some(Place::List(sequence, record)) => self.drop_listed(root, key, sequence, record),
            None => Ok(()),
        }
    }

    fn drop_listed(
        &mut self,
        root: DirectoryId,
        key: &str,
        sequence: u64,
        record: VersionRecord,
    ) -> Applied<()> {
        self.forget_listed(root, key, sequence, record.version);
        if let Some((info, content)) = record.file {
            self.counters.files -= 1;
            self.counters.file_bytes -= info.size;
            self.unreference(&content)?;
        }
        Ok(())
    }

    fn forget_listed(&mut self, root: DirectoryId, key: &str, sequence: u64, version: Version) {
        self.table.delete(keys::version(root, key, sequence));
        if version == Version::Null {
            self.table.delete(keys::null_version(root, key));
        }
    }

    /// Removes a file as its bucket's versioning says; says whether there was one. In a bucket with
    /// versions a delete marker takes its place, and with `always` even the place of none.
    pub(super) fn remove_latest(
        &mut self,
        bucket: &BucketRecord,
        key: &str,
        always: bool,
    ) -> Applied<Removed> {
        let existed = find_file(&self.table, bucket.root, key)?.is_some();
        if !existed && (!always || bucket.versioning == Versioning::Never) {
            return Ok(Removed { existed, version: None, is_marker: false });
        }
        let version = self.make_room(bucket, key)?;
        if let Some(version) = version {
            let record = VersionRecord { version, modified: self.time, file: None };
            self.enter_version(bucket.root, key, &record);
        }
        Ok(Removed { existed, version, is_marker: version.is_some() })
    }

    /// Removes a version for good. If it was the latest, the one before it takes its place.
    fn remove_version(
        &mut self,
        root: DirectoryId,
        key: &str,
        version: Version,
    ) -> Applied<Removed> {
        let gone = |existed, is_marker| Removed { existed, version: Some(version), is_marker };
        let removed = match find_version(&self.table, root, key, version)? {
            None => return Ok(gone(false, false)),
            Some(Place::Tree(_)) => {
                self.drop_file(root, key)?;
                gone(true, false)
            }
            Some(Place::List(sequence, record)) => {
                let is_marker = record.file.is_none();
                self.drop_listed(root, key, sequence, record)?;
                gone(true, is_marker)
            }
        };
        if find_file(&self.table, root, key)?.is_none()
            && let Some((sequence, record)) = newest(&self.table, root, key)?
            && let Some((info, content)) = record.file
        {
            self.forget_listed(root, key, sequence, record.version);
            self.enter_file(root, key, FileRecord { info, content })?;
        }
        Ok(removed)
    }

    pub(super) fn remove_versions(
        &mut self,
        bucket: &str,
        targets: &[RemoveTarget],
    ) -> Applied<Reply> {
        if targets.len() > limits::REMOVE_KEYS_MAX {
            let reason = format!("{} keys; at most 1,000 are removed at once", targets.len());
            return Err(FilesError::Invalid { reason }.into());
        }
        let record = self.bucket(bucket)?;
        let mut removed = Vec::with_capacity(targets.len());
        for target in targets {
            removed.push(match self.refusal(bucket, record.root, target)? {
                Some(refusal) => Err(refusal),
                None => Ok(match target.version {
                    None => self.remove_latest(&record, &target.key, true)?,
                    Some(version) => self.remove_version(record.root, &target.key, version)?,
                }),
            });
        }
        Ok(Reply::RemovedVersions(removed))
    }

    /// Why a target must stay, if it must.
    fn refusal(
        &self,
        bucket: &str,
        root: DirectoryId,
        target: &RemoveTarget,
    ) -> Applied<Option<FilesError>> {
        if target.condition.is_empty() && target.version.is_none() {
            return Ok(None);
        }
        let found = match target.version {
            None => find_file(&self.table, root, &target.key)?.map(|file| file.info),
            Some(version) => match find_version(&self.table, root, &target.key, version)? {
                Some(Place::Tree(file)) => Some(file.info),
                Some(Place::List(_, record)) => record.file.map(|(info, _)| info),
                None => None,
            },
        };
        let locked = found
            .as_ref()
            .filter(|_| target.version.is_some())
            .and_then(|info| lock::reason(&info.attributes, self.time, target.bypass_governance));
        if let Some(reason) = locked {
            let (bucket, key) = (bucket.to_owned(), target.key.clone());
            return Ok(Some(FilesError::Protected { bucket, key, reason }));
        }
        if target.condition.is_empty() {
            return Ok(None);
        }
        Ok(match found {
            None => Some(no_such_key(bucket, &target.key)),
            Some(info) if target.condition.holds(&info) => None,
            Some(_) => {
                let reason = "it is not as it was to be when it is removed";
                Some(precondition_failed(bucket, &target.key, reason))
            }
        })
    }

    pub(super) fn change_headers(
        &mut self,
        path: (&str, &str),
        version: Option<Version>,
        expected: &HeaderChanges,
        changes: HeaderChanges,
    ) -> Applied<Reply> {
        let (bucket, key) = path;
        let root = self.root(bucket)?;
        let mut file = get_version(&self.table, path, version)?;
        let headers = &file.info.attributes.headers;
        if expected.iter().any(|(name, value)| headers.get(name) != value.as_ref()) {
            let reason = "its headers were changed meanwhile";
            return Err(precondition_failed(bucket, key, reason).into());
        }
        let kept = file.info.attributes.headers.get(VERSION_HEADER).cloned();
        for (name, value) in changes {
            match value {
                Some(value) => file.info.attributes.headers.insert(name, value),
                None => file.info.attributes.headers.remove(&name),
            };
        }
        file.info.attributes.headers.remove(VERSION_HEADER);
        check_attributes(&file.info.attributes)?;
        if let Some(kept) = kept {
            file.info.attributes.headers.insert(VERSION_HEADER.to_owned(), kept);
        }
        let info = file.info.clone();
        match find_version(&self.table, root, key, info.attributes.version())? {
            Some(Place::List(sequence, record)) => {
                let file = Some((file.info, file.content));
                let record = VersionRecord { file, ..record };
                self.table.put(keys::version(root, key, sequence), encode(&record));
            }
            _ => self.enter_file(root, key, file)?,
        }
        Ok(Reply::File(info))
    }
}
