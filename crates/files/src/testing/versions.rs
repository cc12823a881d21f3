//! Versions in the model: a plain list for each key.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    File, MemoryFiles, MemorySource, Old, State, check_attributes, no_such_key, precondition_failed,
};
use crate::api::{
    CopyOptions, FileInfo, FilePath, FileReader, FilesError, HeaderChanges, RemoveTarget, Removed,
    Setting, VERSION_HEADER, Version, VersionEntry, VersionPage, VersionedFiles, Versioning,
    VersionsRequest, limits, lock, validate_key,
};

impl State {
    fn number(&mut self) -> Version {
        self.versions_made += 1;
        Version::Number(self.versions_made)
    }

    /// Takes away what must make room; says which version comes now.
    fn make_room(&mut self, bucket: &str, key: &str) -> Result<Option<Version>, FilesError> {
        let number = self.number();
        let bucket = self.bucket(bucket)?;
        let latest = bucket.files.remove(key);
        let old = bucket.old.entry(key.to_owned()).or_default();
        let latest = latest.map(|file| Old {
            version: file.info.attributes.version(),
            modified: file.info.modified,
            file: Some(file),
        });
        let version = match bucket.versioning {
            Versioning::Never => None,
            Versioning::Enabled => {
                old.extend(latest);
                Some(number)
            }
            Versioning::Suspended => {
                old.extend(latest);
                old.retain(|old| old.version != Version::Null);
                Some(Version::Null)
            }
        };
        if old.is_empty() {
            bucket.old.remove(key);
        }
        Ok(version)
    }

    pub(super) fn place(
        &mut self,
        bucket: &str,
        key: &str,
        mut file: File,
    ) -> Result<FileInfo, FilesError> {
        let version = self.make_room(bucket, key)?;
        let headers = &mut file.info.attributes.headers;
        match version {
            Some(version) => headers.insert(VERSION_HEADER.to_owned(), version.to_string()),
            None => headers.remove(VERSION_HEADER),
        };
        let info = file.info.clone();
        self.bucket(bucket)?.files.insert(key.to_owned(), file);
        Ok(info)
    }

    pub(super) fn remove_latest(
        &mut self,
        bucket: &str,
        key: &str,
        always: bool,
    ) -> Result<Removed, FilesError> {
        let modified = self.now();
        let found = self.bucket(bucket)?;
        let existed = found.files.contains_key(key);
        if !existed && (!always || found.versioning == Versioning::Never) {
            return Ok(Removed { existed, version: None, is_marker: false });
        }
        let version = self.make_room(bucket, key)?;
        if let Some(version) = version {
            let marker = Old { version, modified, file: None };
            self.bucket(bucket)?.old.entry(key.to_owned()).or_default().push(marker);
        }
        Ok(Removed { existed, version, is_marker: version.is_some() })
    }

    fn remove_version(
        &mut self,
        bucket: &str,
        key: &str,
        version: Version,
    ) -> Result<Removed, FilesError> {
        let bucket = self.bucket(bucket)?;
        let mut removed = Removed { existed: false, version: Some(version), is_marker: false };
        let is_it = |file: &File| file.info.attributes.version() == version;
        if bucket.files.get(key).is_some_and(is_it) {
            bucket.files.remove(key);
            removed.existed = true;
        }
        let Some(old) = bucket.old.get_mut(key) else { return Ok(removed) };
        if let Some(at) = old.iter().position(|old| old.version == version && !removed.existed) {
            removed.is_marker = old.remove(at).file.is_none();
            removed.existed = true;
        }
        if !bucket.files.contains_key(key) && old.last().is_some_and(|last| last.file.is_some()) {
            let file = old.pop().and_then(|last| last.file);
            bucket.files.extend(file.map(|file| (key.to_owned(), file)));
        }
        if old.is_empty() {
            bucket.old.remove(key);
        }
        Ok(removed)
    }

    fn version(
        &mut self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
    ) -> Result<&mut File, FilesError> {
        let found = self.bucket(bucket)?;
        let path = (bucket.to_owned(), key.to_owned());
        let latest = found.files.get_mut(key);
        let old = found.old.get_mut(key).into_iter().flatten();
        let Some(version) = version else {
            let marker = |old: &mut Old| {
                let (bucket, key) = path.clone();
                let (version, modified) = (old.version, old.modified);
                FilesError::DeleteMarker { bucket, key, version, modified }
            };
            return latest
                .ok_or_else(|| old.last().map_or_else(|| no_such_key(bucket, key), marker));
        };
        if let Some(file) = latest.filter(|file| file.info.attributes.version() == version) {
            return Ok(file);
        }
        let (bucket, key) = path;
        for Old { version: number, modified, file } in old {
            if *number == version {
                let modified = *modified;
                let missing = FilesError::DeleteMarker { bucket, key, version, modified };
                return file.as_mut().ok_or(missing);
            }
        }
        Err(FilesError::NoSuchVersion { bucket, key, version: version.to_string() })
    }

    fn refusal(&mut self, bucket: &str, target: &RemoveTarget) -> Option<FilesError> {
        let now = self.now();
        if let Some(version) = target.version
            && let Ok(file) = self.version(bucket, &target.key, Some(version))
            && let Some(reason) = lock::reason(&file.info.attributes, now, target.bypass_governance)
        {
            let (bucket, key) = (bucket.to_owned(), target.key.clone());
            return Some(FilesError::Protected { bucket, key, reason });
        }
        if target.condition.is_empty() {
            return None;
        }
        match self.version(bucket, &target.key, target.version) {
            Err(_) => Some(no_such_key(bucket, &target.key)),
            Ok(file) if target.condition.holds(&file.info) => None,
            Ok(_) => Some(precondition_failed(bucket, &target.key, "it is not as it was to be")),
        }
    }

    /// All versions, as a listing orders them.
    fn all_versions(&mut self, bucket: &str) -> Result<Vec<VersionEntry>, FilesError> {
        let bucket = self.bucket(bucket)?;
        let mut keys: Vec<&String> = bucket.files.keys().chain(bucket.old.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut all = Vec::new();
        for key in keys {
            let latest = bucket.files.get(key).map(|file| (file.info.modified, Some(file)));
            let latest = latest.map(|(modified, file)| {
                (file.map_or(Version::Null, |f| f.info.attributes.version()), modified, file)
            });
            let old = bucket.old.get(key).into_iter().flatten().rev();
            let old = old.map(|old| (old.version, old.modified, old.file.as_ref()));
            for (at, (version, modified, file)) in latest.into_iter().chain(old).enumerate() {
                let (key, file) = (key.clone(), file.map(|file| file.info.clone()));
                all.push(VersionEntry { key, version, is_latest: at == 0, modified, file });
            }
        }
        Ok(all)
    }
}

#[async_trait]
impl VersionedFiles for MemoryFiles {
    async fn versioning(&self, bucket: &str) -> Result<Versioning, FilesError> {
        Ok(self.state().bucket(bucket)?.versioning)
    }

    async fn set_versioning(&self, bucket: &str, versioning: Versioning) -> Result<(), FilesError> {
        let mut state = self.state();
        let bucket = state.bucket(bucket)?;
        if versioning == Versioning::Never && bucket.versioning != Versioning::Never {
            let reason = "versioning can be suspended, but not undone".to_owned();
            return Err(FilesError::Invalid { reason });
        }
        let can_be_locked = bucket.settings.contains_key(&Setting::ObjectLock);
        if versioning == Versioning::Suspended && can_be_locked {
            let reason = "versions can be locked here, so versioning stays enabled".to_owned();
            return Err(FilesError::Invalid { reason });
        }
        bucket.versioning = versioning;
        Ok(())
    }

    async fn open_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
    ) -> Result<FileReader, FilesError> {
        let file = self.state().version(bucket, key, version)?.clone();
        Ok(FileReader::new(file.info, Arc::new(MemorySource(file.data))))
    }

    async fn list_versions(&self, request: VersionsRequest) -> Result<VersionPage, FilesError> {
        let VersionsRequest { bucket, prefix, delimiter, after, limit } = request;
        let all = self.state().all_versions(&bucket)?;
        let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty());
        let start = match &after {
            None => 0,
            Some((key, version)) => {
                let is_it = |e: &VersionEntry| e.key == *key && Some(e.version) == *version;
                let found = all.iter().position(is_it).map(|at| at + 1);
                found.unwrap_or_else(|| all.partition_point(|entry| entry.key <= *key))
            }
        };
        let mut page = VersionPage::default();
        let mut last = None;
        for entry in all.into_iter().skip(start) {
            let Some(rest) = entry.key.strip_prefix(&prefix) else { continue };
            let rolled = delimiter.as_ref().and_then(|delimiter| {
                let end = rest.find(delimiter.as_str())? + delimiter.len();
                Some(format!("{prefix}{}", &rest[..end]))
            });
            if let Some(common) = &rolled {
                let is_after = after.as_ref().is_some_and(|(key, _)| key == common);
                if is_after || page.common_prefixes.last() == Some(common) {
                    continue;
                }
            }
            if page.entries.len() + page.common_prefixes.len()
                == limit.min(limits::PAGE_ENTRIES_MAX)
            {
                page.next = last;
                break;
            }
            match rolled {
                Some(common) => {
                    last = Some((common.clone(), None));
                    page.common_prefixes.push(common);
                }
                None => {
                    last = Some((entry.key.clone(), Some(entry.version)));
                    page.entries.push(entry);
                }
            }
        }
        Ok(page)
    }

    async fn remove_versions(
        &self,
        bucket: &str,
        targets: &[RemoveTarget],
    ) -> Result<Vec<Result<Removed, FilesError>>, FilesError> {
        let mut state = self.state();
        state.bucket(bucket)?;
        let remove = |target: &RemoveTarget| match state.refusal(bucket, target) {
            Some(refusal) => Err(refusal),
            None => match target.version {
                None => state.remove_latest(bucket, &target.key, true),
                Some(version) => state.remove_version(bucket, &target.key, version),
            },
        };
        Ok(targets.iter().map(remove).collect())
    }

    async fn copy_version(
        &self,
        from: &FilePath,
        version: Option<Version>,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError> {
        validate_key(to.key())?;
        let mut state = self.state();
        let mut file = state.version(from.bucket(), from.key(), version)?.clone();
        if options.source_etag.is_some_and(|etag| etag != file.info.etag) {
            let reason = "the source has another ETag";
            return Err(precondition_failed(from.bucket(), from.key(), reason));
        }
        state.check(to.bucket(), to.key(), &options.condition)?;
        file.info.modified = state.now();
        if let Some(attributes) = options.attributes {
            check_attributes(&attributes)?;
            file.info.attributes = attributes;
        }
        state.place(to.bucket(), to.key(), file)
    }

    async fn change_headers(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
        expected: HeaderChanges,
        changes: HeaderChanges,
    ) -> Result<FileInfo, FilesError> {
        let mut state = self.state();
        let file = state.version(bucket, key, version)?;
        let mut attributes = file.info.attributes.clone();
        let is_expected = |(name, value): &(String, Option<String>)| {
            attributes.headers.get(name) == value.as_ref()
        };
        if !expected.iter().all(is_expected) {
            return Err(precondition_failed(bucket, key, "its headers were changed meanwhile"));
        }
        for (name, value) in changes {
            match value {
                Some(value) => attributes.headers.insert(name, value),
                None => attributes.headers.remove(&name),
            };
        }
        check_attributes(&attributes)?;
        file.info.attributes = attributes;
        Ok(file.info.clone())
    }

    async fn setting(&self, bucket: &str, setting: Setting) -> Result<Option<Bytes>, FilesError> {
        Ok(self.state().bucket(bucket)?.settings.get(&setting).cloned())
    }

    async fn set_setting(
        &self,
        bucket: &str,
        setting: Setting,
        value: Option<Bytes>,
    ) -> Result<(), FilesError> {
        let mut state = self.state();
        let settings = &mut state.bucket(bucket)?.settings;
        match value {
            Some(value) => settings.insert(setting, value),
            None => settings.remove(&setting),
        };
        Ok(())
    }
}
