//! `onefold fs`: files and folders. A path is `/BUCKET/KEY`, the same objects that S3 shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use futures::TryStreamExt;
use onefold_client::Client;
use onefold_files::{
    Condition, CopyOptions, FileInfo, FilePath, FileSystem, FilesError, ListRequest,
};
use serde::Serialize;

use crate::output::{Format, bytes, print_json, print_rows, time};
use crate::transfer;

/// What can be done with files.
#[derive(Subcommand)]
pub enum FsCommand {
    /// List buckets, or what is in a bucket or folder.
    Ls {
        /// /BUCKET/FOLDER; without it, the buckets.
        path: Option<String>,
        /// Everything below, not only the folder itself.
        #[arg(short, long)]
        recursive: bool,
    },
    /// Store local files or folders.
    Put {
        /// Local files, folders (with -r), or - for standard input; then the target. A target that
        /// is a bucket or ends in / is a folder to put things into.
        #[arg(required = true, num_args = 2.., value_name = "SOURCE… TARGET")]
        paths: Vec<String>,
        /// Store whole folders.
        #[arg(short, long)]
        recursive: bool,
    },
    /// Fetch a file or a folder.
    Get {
        /// /BUCKET/KEY
        source: String,
        /// A local file or folder, or - for standard output.
        #[arg(default_value = ".")]
        target: PathBuf,
        /// Fetch everything below a folder.
        #[arg(short, long)]
        recursive: bool,
    },
    /// Print files.
    Cat {
        /// /BUCKET/KEY, one or more.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Copy a file within the cluster; its bytes are shared, not copied.
    Cp {
        /// /BUCKET/KEY
        source: String,
        /// /BUCKET/KEY, or a folder ending in /
        target: String,
    },
    /// Move a file, or a folder with everything in it, in one atomic step.
    Mv {
        /// /BUCKET/KEY, or a folder
        source: String,
        /// /BUCKET/KEY, or a folder ending in /
        target: String,
    },
    /// Remove files.
    Rm {
        /// /BUCKET/KEY, one or more.
        #[arg(required = true)]
        paths: Vec<String>,
        /// Remove folders, or a bucket, with everything in them.
        #[arg(short, long)]
        recursive: bool,
        /// No error for what does not exist.
        #[arg(short, long)]
        force: bool,
    },
    /// Create a bucket or a folder.
    Mkdir {
        /// /BUCKET or /BUCKET/FOLDER, one or more.
        #[arg(required = true)]
        paths: Vec<String>,
        /// Create the bucket too, and no error for what exists.
        #[arg(short, long)]
        parents: bool,
    },
    /// Show what is known of a file.
    Stat {
        /// /BUCKET/KEY
        path: String,
    },
    /// Show how many files and bytes are below a path.
    Du {
        /// /BUCKET/FOLDER
        path: String,
    },
    /// Show how much the cluster holds and has room for.
    Df,
}

type Files = Arc<dyn FileSystem>;

/// Runs the verb.
pub async fn run(command: FsCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    let files = client.files();
    match command {
        FsCommand::Ls { path, recursive } => ls(&files, path, recursive, format).await,
        FsCommand::Put { paths, recursive } => put(&files, &paths, recursive).await,
        FsCommand::Get { source, target, recursive } => {
            get(&files, &source, &target, recursive).await
        }
        FsCommand::Cat { paths } => cat(&files, &paths).await,
        FsCommand::Cp { source, target } => copy(&files, &source, &target).await,
        FsCommand::Mv { source, target } => rename(&files, &source, &target).await,
        FsCommand::Rm { paths, recursive, force } => {
            for path in &paths {
                match remove(&files, path, recursive).await {
                    Err(error) if force && is_missing(&error) => {}
                    outcome => outcome?,
                }
            }
            Ok(())
        }
        FsCommand::Mkdir { paths, parents } => {
            for path in &paths {
                mkdir(&files, path, parents).await?;
            }
            Ok(())
        }
        FsCommand::Stat { path } => stat(&files, &path, format).await,
        FsCommand::Du { path } => du(&files, &path, format).await,
        FsCommand::Df => df(&files, format).await,
    }
}

#[derive(Serialize)]
struct Row {
    path: String,
    kind: &'static str,
    size: Option<u64>,
    modified_ms: Option<u64>,
    etag: Option<String>,
}

impl Row {
    fn file(path: String, info: FileInfo) -> Self {
        Self {
            path,
            kind: "file",
            size: Some(info.size),
            modified_ms: Some(info.modified.get()),
            etag: Some(info.etag),
        }
    }

    fn folder(path: String, kind: &'static str) -> Self {
        Self { path, kind, size: None, modified_ms: None, etag: None }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.modified_ms.map(time).unwrap_or_default(),
            self.size.map(|size| size.to_string()).unwrap_or_else(|| self.kind.to_owned()),
            self.path.clone(),
        ]
    }
}

async fn ls(
    files: &Files,
    path: Option<String>,
    recursive: bool,
    format: Format,
) -> anyhow::Result<()> {
    let rows = match path.as_deref() {
        None | Some("/") => {
            let buckets = files.list_buckets().await?.into_iter();
            let row = |bucket: onefold_files::BucketInfo| Row {
                modified_ms: Some(bucket.created.get()),
                ..Row::folder(format!("/{}", bucket.name), "bucket")
            };
            buckets.map(row).collect()
        }
        Some(path) => ls_path(files, &path.parse()?, recursive).await?,
    };
    print_rows(format, &["modified", "size", "path"], &rows, Row::cells)
}

async fn ls_path(files: &Files, path: &FilePath, recursive: bool) -> anyhow::Result<Vec<Row>> {
    let mut folder = path.clone();
    if !path.is_directory() {
        match files.stat(path.bucket(), path.key()).await {
            Ok(info) => return Ok(vec![Row::file(path.to_string(), info)]),
            Err(FilesError::NoSuchKey { .. }) => folder = path.join("/")?,
            Err(error) => return Err(error.into()),
        }
    }
    let mut rows = Vec::new();
    let mut found = false;
    let mut start_after = None;
    loop {
        let request = ListRequest {
            bucket: folder.bucket().to_owned(),
            prefix: folder.key().to_owned(),
            delimiter: (!recursive).then(|| "/".to_owned()),
            start_after,
            limit: usize::MAX,
        };
        let page = files.list(request).await?;
        found |= !page.entries.is_empty() || !page.common_prefixes.is_empty();
        for entry in page.entries {
            // A folder's marker is the folder, not something in it.
            if entry.key != folder.key() {
                rows.push(Row::file(format!("/{}/{}", folder.bucket(), entry.key), entry.info));
            }
        }
        for prefix in page.common_prefixes {
            rows.push(Row::folder(format!("/{}/{prefix}", folder.bucket()), "folder"));
        }
        start_after = page.next;
        if start_after.is_none() {
            break;
        }
    }
    ensure!(found || folder.is_bucket(), "there is no file or folder {path}");
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(rows)
}

async fn put(files: &Files, paths: &[String], recursive: bool) -> anyhow::Result<()> {
    let (target, sources) = paths.split_last().context("put needs a source and a target")?;
    let target: FilePath = target.parse()?;
    ensure!(
        sources.len() == 1 || target.is_directory(),
        "{target} is no folder; to store several files, end the target in /"
    );
    let mut pairs = Vec::new();
    for source in sources {
        if source == "-" {
            transfer::upload(files, tokio::io::stdin(), &target).await?;
            continue;
        }
        let local = Path::new(source);
        let kind = std::fs::metadata(local).with_context(|| format!("cannot read {source}"))?;
        if kind.is_dir() {
            ensure!(recursive, "{source} is a folder; store it with -r");
            let mut below =
                if target.is_directory() { target.clone() } else { target.join("/")? };
            if sources.len() > 1 {
                // Several folders keep their names, so that their files don't replace each other.
                let name = local.file_name().and_then(|name| name.to_str());
                let name = name.with_context(|| format!("{source} has no usable name"))?;
                below = below.join(&format!("{name}/"))?;
            }
            pairs.extend(transfer::pairs_below(local, &below)?);
            continue;
        }
        let remote = match local.file_name().and_then(|name| name.to_str()) {
            Some(name) if target.is_directory() => target.join(name)?,
            _ => target.clone(),
        };
        pairs.push(transfer::Pair { local: local.to_owned(), remote, bytes: kind.len() });
    }
    transfer::upload_all(files, pairs).await
}

async fn get(files: &Files, source: &str, target: &Path, recursive: bool) -> anyhow::Result<()> {
    let source: FilePath = source.parse()?;
    if recursive {
        let source = if source.is_directory() { source } else { source.join("/")? };
        let count = transfer::fetch_all(files, &source, target).await?;
        ensure!(count > 0, "there is no folder {source}");
        return Ok(());
    }
    ensure!(!source.is_directory(), "{source} is a folder; fetch it with -r");
    if target == Path::new("-") {
        transfer::download(files, &source, &mut tokio::io::stdout()).await?;
        return Ok(());
    }
    let target = if target.is_dir() { target.join(source.file_name()) } else { target.to_owned() };
    transfer::fetch(files, &source, &target).await?;
    Ok(())
}

async fn cat(files: &Files, paths: &[String]) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    for path in paths {
        let path: FilePath = path.parse()?;
        ensure!(!path.is_directory(), "{path} is a folder");
        transfer::download(files, &path, &mut out).await?;
    }
    Ok(())
}

/// The target of a copy or move: in a folder, the source keeps its name.
fn into_folder(source: &FilePath, target: FilePath) -> anyhow::Result<FilePath> {
    if !target.is_directory() {
        return Ok(target);
    }
    let slash = if source.is_directory() { "/" } else { "" };
    Ok(target.join(&format!("{}{slash}", source.file_name()))?)
}

async fn copy(files: &Files, source: &str, target: &str) -> anyhow::Result<()> {
    let source: FilePath = source.parse()?;
    let target = into_folder(&source, target.parse()?)?;
    files.copy(&source, &target, CopyOptions::default()).await?;
    Ok(())
}

async fn rename(files: &Files, source: &str, target: &str) -> anyhow::Result<()> {
    let mut source: FilePath = source.parse()?;
    ensure!(!source.is_bucket(), "a bucket cannot be moved; move what is in it");
    let mut target: FilePath = target.parse()?;
    let is_file = !source.is_directory()
        && match files.stat(source.bucket(), source.key()).await {
            Ok(_) => true,
            Err(FilesError::NoSuchKey { .. }) => false,
            Err(error) => return Err(error.into()),
        };
    if is_file {
        target = into_folder(&source, target)?;
    } else {
        // `mv /b/old /b/new` gives a folder another name, `mv /b/old /b/there/` moves it into one
        // that exists.
        if !source.is_directory() {
            source = source.join("/")?;
        }
        if target.is_bucket() || (target.is_directory() && folder_exists(files, &target).await?) {
            target = into_folder(&source, target)?;
        } else if !target.is_directory() {
            target = target.join("/")?;
        }
    }
    files.rename(&source, &target, Condition::Always).await?;
    Ok(())
}

async fn folder_exists(files: &Files, folder: &FilePath) -> anyhow::Result<bool> {
    Ok(transfer::keys_below(files, folder).try_next().await?.is_some())
}

async fn remove(files: &Files, path: &str, recursive: bool) -> anyhow::Result<()> {
    let path: FilePath = path.parse()?;
    if path.is_bucket() {
        if recursive {
            files.remove_tree(path.bucket(), "").await?;
        }
        return Ok(files.delete_bucket(path.bucket()).await?);
    }
    if !path.is_directory() && files.remove(path.bucket(), path.key()).await? {
        return Ok(());
    }
    let folder = if path.is_directory() { path.clone() } else { path.join("/")? };
    if !folder_exists(files, &folder).await? {
        return Err(FilesError::NoSuchKey {
            bucket: path.bucket().to_owned(),
            key: path.key().to_owned(),
        }
        .into());
    }
    ensure!(recursive, "{path} is a folder; remove it with -r");
    files.remove_tree(folder.bucket(), folder.key()).await?;
    Ok(())
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(FilesError::NoSuchKey { .. } | FilesError::NoSuchBucket { .. })
    )
}

async fn mkdir(files: &Files, path: &str, parents: bool) -> anyhow::Result<()> {
    let path: FilePath = path.parse()?;
    if path.is_bucket() || parents {
        match files.create_bucket(path.bucket()).await {
            Err(FilesError::BucketExists { .. }) if parents => {}
            outcome => outcome?,
        }
    }
    if !path.is_bucket() {
        files.make_directory(path.bucket(), path.key()).await?;
    }
    Ok(())
}

async fn stat(files: &Files, path: &str, format: Format) -> anyhow::Result<()> {
    let path: FilePath = path.parse()?;
    if path.is_bucket() {
        let bucket = files.head_bucket(path.bucket()).await?;
        return match format {
            Format::Json => print_json(&bucket),
            Format::Table => {
                println!("bucket    {}\ncreated   {}", bucket.name, time(bucket.created.get()));
                Ok(())
            }
        };
    }
    let info = files.stat(path.bucket(), path.key()).await?;
    if format == Format::Json {
        return print_json(&info);
    }
    println!("path      {path}");
    println!("size      {} ({} bytes)", bytes(info.size), info.size);
    println!("modified  {}", time(info.modified.get()));
    println!("etag      {}", info.etag);
    if let Some(content_type) = &info.attributes.content_type {
        println!("type      {content_type}");
    }
    for (name, value) in info.attributes.headers.iter().chain(&info.attributes.metadata) {
        println!("{name:9} {value}");
    }
    Ok(())
}

#[derive(Serialize)]
struct Sum {
    path: String,
    files: u64,
    bytes: u64,
}

async fn du(files: &Files, path: &str, format: Format) -> anyhow::Result<()> {
    let path: FilePath = path.parse()?;
    let mut sum = Sum { path: path.to_string(), files: 0, bytes: 0 };
    let mut keys = transfer::keys_below(files, &path);
    while let Some((_, info)) = keys.try_next().await? {
        sum.files += 1;
        sum.bytes += info.size;
    }
    print_rows(format, &["bytes", "files", "path"], &[sum], |sum| {
        vec![sum.bytes.to_string(), sum.files.to_string(), sum.path.clone()]
    })
}

async fn df(files: &Files, format: Format) -> anyhow::Result<()> {
    let usage = files.usage().await?;
    if format == Format::Json {
        return print_json(&usage);
    }
    if usage.servers.is_empty() {
        bail!("no node has reported its disk yet; try again in a few seconds");
    }
    print_rows(format, &["node", "state", "used", "free", "chunks"], &usage.servers, |server| {
        vec![
            server.node.to_string(),
            if server.alive { "alive" } else { "dead" }.to_owned(),
            bytes(server.used_bytes),
            bytes(server.free_bytes),
            server.chunks.to_string(),
        ]
    })?;
    println!(
        "\n{} files, {} in {} chunks; {} chunks short of replicas, {} without any; {} to collect",
        usage.files,
        bytes(usage.file_bytes),
        usage.chunks,
        usage.chunks_under_replicated,
        usage.chunks_unavailable,
        bytes(usage.garbage_bytes),
    );
    Ok(())
}
