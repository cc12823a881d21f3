//! [`VersionedFiles`] on a node that hosts the namespace's group.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::files::{LocalFiles, unexpected};
use crate::api::{
    CopyOptions, FileInfo, FilePath, FileReader, FilesError, HeaderChanges, RemoveTarget, Removed,
    Setting, Version, VersionPage, VersionedFiles, Versioning, VersionsRequest,
};
use crate::namespace::{Command, FileRecord, Query, Reply};
use crate::read::LocalSource;

#[async_trait]
impl VersionedFiles for LocalFiles {
    async fn versioning(&self, bucket: &str) -> Result<Versioning, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).versioning(bucket)
    }

    async fn set_versioning(&self, bucket: &str, versioning: Versioning) -> Result<(), FilesError> {
        self.done(Command::SetVersioning { bucket: bucket.to_owned(), versioning }).await
    }

    async fn open_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
    ) -> Result<FileReader, FilesError> {
        let view = self.commands.view().await?;
        let FileRecord { info, content } = Query(&view).version(bucket, key, version)?;
        let (reader, content) = (self.reader.clone(), Arc::new(content));
        Ok(FileReader::new(info, Arc::new(LocalSource { reader, content })))
    }

    async fn list_versions(&self, request: VersionsRequest) -> Result<VersionPage, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).list_versions(&request)
    }

    async fn remove_versions(
        &self,
        bucket: &str,
        targets: &[RemoveTarget],
    ) -> Result<Vec<Result<Removed, FilesError>>, FilesError> {
        let (bucket, targets) = (bucket.to_owned(), targets.to_vec());
        match self.commands.run(&Command::RemoveVersions { bucket, targets }).await? {
            Reply::RemovedVersions(removed) => Ok(removed),
            other => unexpected(&other),
        }
    }

    async fn copy_version(
        &self,
        from: &FilePath,
        version: Option<Version>,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError> {
        let (from, to) = (from.clone(), to.clone());
        self.file(Command::CopyVersion { from, version, to, options }).await
    }

    async fn change_headers(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Version>,
        expected: HeaderChanges,
        changes: HeaderChanges,
    ) -> Result<FileInfo, FilesError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.file(Command::ChangeHeaders { bucket, key, version, expected, changes }).await
    }

    async fn setting(&self, bucket: &str, setting: Setting) -> Result<Option<Bytes>, FilesError> {
        let view = self.commands.view().await?;
        Query(&view).setting(bucket, setting)
    }

    async fn set_setting(
        &self,
        bucket: &str,
        setting: Setting,
        value: Option<Bytes>,
    ) -> Result<(), FilesError> {
        self.done(Command::SetSetting { bucket: bucket.to_owned(), setting, value }).await
    }
}
