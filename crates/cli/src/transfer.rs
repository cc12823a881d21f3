//! Copies between local files and files of the cluster, several at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream};
use onefold_files::{
    CreateOptions, ErrorKind, FileInfo, FilePath, FileSystem, FilesError, FinishOptions,
    ListRequest,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::output::{Progress, Unit};

/// Files that are copied at the same time.
const PARALLEL: usize = 8;
const BUFFER_BYTES: usize = 1 << 20;
/// How long a file is tried again while the cluster replaces a node.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A local file and where it goes or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub local: PathBuf,
    pub remote: FilePath,
    pub bytes: u64,
}

/// Every file below a local folder, sorted, paired with its place below `target`. A link to a file
/// counts as that file; what is skipped is said on standard error.
pub fn pairs_below(folder: &Path, target: &FilePath) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let entries = std::fs::read_dir(&current)
            .with_context(|| format!("cannot read the folder {}", current.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", current.display()))?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if std::fs::metadata(&path).is_ok_and(|kind| kind.is_file()) {
                let relative = path.strip_prefix(folder).context("a child is below its folder")?;
                let key = relative.to_str().with_context(|| {
                    format!("the name of {} is not UTF-8; rename it first", path.display())
                })?;
                let bytes = std::fs::metadata(&path)?.len();
                pairs.push(Pair { remote: target.join(key)?, local: path, bytes });
            } else {
                eprintln!("skipped: {} is neither a file nor a folder", path.display());
            }
        }
    }
    pairs.sort_by(|a, b| a.remote.cmp(&b.remote));
    Ok(pairs)
}

/// Stores many local files.
pub async fn upload_all(files: &Arc<dyn FileSystem>, pairs: Vec<Pair>) -> anyhow::Result<()> {
    let total = pairs.iter().map(|pair| pair.bytes).sum();
    let mut progress = Progress::new("storing", Unit::Bytes, total);
    let mut copies = stream::iter(pairs)
        .map(|pair| async move { upload_file(files, &pair).await })
        .buffer_unordered(PARALLEL);
    while let Some(bytes) = copies.try_next().await? {
        progress.add(bytes);
    }
    progress.finish();
    Ok(())
}

/// Stores a local file, once more from its start when the node that took it is lost on the way.
async fn upload_file(files: &Arc<dyn FileSystem>, pair: &Pair) -> anyhow::Result<u64> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let source = tokio::fs::File::open(&pair.local)
            .await
            .with_context(|| format!("cannot read {}", pair.local.display()))?;
        match upload(files, source, &pair.remote).await {
            Ok(info) => return Ok(info.size),
            Err(error) if is_retryable(&error) && Instant::now() < give_up => {
                tracing::debug!("storing {} again: {error}", pair.local.display());
            }
            Err(error) => {
                return Err(error.context(format!("cannot store {}", pair.local.display())));
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// A file whose fate is not known can be stored again too: it becomes the same file.
fn is_retryable(error: &anyhow::Error) -> bool {
    let error: Option<&FilesError> = error.downcast_ref();
    error.is_some_and(|error| error.is_retryable() || error.kind() == ErrorKind::Unknown)
}

/// Stores what a reader gives.
pub async fn upload(
    files: &Arc<dyn FileSystem>,
    mut source: impl AsyncRead + Unpin,
    target: &FilePath,
) -> anyhow::Result<FileInfo> {
    ensure!(!target.is_directory(), "{target} names a folder; give the file a name");
    let mut writer = files.create(target.bucket(), target.key(), CreateOptions::default()).await?;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER_BYTES);
        if source.read_buf(&mut buffer).await? == 0 {
            break;
        }
        writer.write(buffer.split().freeze()).await?;
    }
    Ok(writer.finish(FinishOptions::default()).await?)
}

/// Writes a file of the cluster to a writer.
pub async fn download(
    files: &Arc<dyn FileSystem>,
    source: &FilePath,
    target: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> anyhow::Result<u64> {
    let reader = files.open(source.bucket(), source.key()).await?;
    let mut pieces = reader.read(0..u64::MAX);
    while let Some(piece) = pieces.try_next().await? {
        target.write_all(&piece).await?;
    }
    target.flush().await?;
    Ok(reader.info().size)
}

/// Fetches a file of the cluster into a local file, which appears only when it is whole.
pub async fn fetch(
    files: &Arc<dyn FileSystem>,
    source: &FilePath,
    target: &Path,
) -> anyhow::Result<u64> {
    let cannot_write = || format!("cannot write {}", target.display());
    if let Some(parent) = target.parent() {
        tokio::fs::create_dir_all(parent).await.with_context(cannot_write)?;
    }
    let name = target.file_name().with_context(|| format!("{} names no file", target.display()))?;
    let partial = target.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    let mut file = tokio::fs::File::create(&partial).await.with_context(cannot_write)?;
    let outcome = async {
        let bytes = download(files, source, &mut file).await?;
        tokio::fs::rename(&partial, target).await.with_context(cannot_write)?;
        anyhow::Ok(bytes)
    };
    let outcome = outcome.await;
    if outcome.is_err() && tokio::fs::remove_file(&partial).await.is_err() {
        tracing::debug!("{} is left behind", partial.display());
    }
    outcome
}

/// Fetches every file below a folder of the cluster.
pub async fn fetch_all(
    files: &Arc<dyn FileSystem>,
    source: &FilePath,
    target: &Path,
) -> anyhow::Result<u64> {
    let mut pairs = Vec::new();
    let mut keys = keys_below(files, source);
    while let Some((key, info)) = keys.try_next().await? {
        let relative = &key[source.key().len()..];
        if key.ends_with('/') {
            continue;
        }
        ensure!(
            !relative.split('/').any(|part| part == ".." || part.is_empty()),
            "the key {key:?} cannot become the name of a local file; fetch it by itself"
        );
        let remote = FilePath::new(source.bucket(), &key)?;
        pairs.push(Pair { local: target.join(relative), remote, bytes: info.size });
    }
    let mut progress =
        Progress::new("fetching", Unit::Bytes, pairs.iter().map(|pair| pair.bytes).sum());
    let count = pairs.len() as u64;
    let mut copies = stream::iter(pairs)
        .map(|pair| async move { fetch(files, &pair.remote, &pair.local).await })
        .buffer_unordered(PARALLEL);
    while let Some(bytes) = copies.try_next().await? {
        progress.add(bytes);
    }
    progress.finish();
    Ok(count)
}

/// All files whose keys start with the path's key, page by page.
pub fn keys_below<'a>(
    files: &'a Arc<dyn FileSystem>,
    path: &'a FilePath,
) -> stream::BoxStream<'a, anyhow::Result<(String, FileInfo)>> {
    let pages = stream::try_unfold(Some(None), move |cursor| async move {
        let Some(start_after) = cursor else { return anyhow::Ok(None) };
        let request = ListRequest {
            bucket: path.bucket().to_owned(),
            prefix: path.key().to_owned(),
            start_after,
            limit: usize::MAX,
            ..ListRequest::default()
        };
        let page = files.list(request).await?;
        let entries = page.entries.into_iter().map(|entry| Ok((entry.key, entry.info)));
        Ok(Some((stream::iter(entries), page.next.map(Some))))
    });
    pages.try_flatten().boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_below_a_folder_keep_their_relative_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/c.txt"), "123").unwrap();
        std::fs::write(folder.path().join("z"), "").unwrap();
        let pairs = pairs_below(folder.path(), &"/data/in/".parse().unwrap()).unwrap();
        let remotes: Vec<_> = pairs.iter().map(|pair| pair.remote.to_string()).collect();
        assert_eq!(remotes, ["/data/in/a/b/c.txt", "/data/in/z"]);
        assert_eq!(pairs[0].bytes, 3);
    }
}
