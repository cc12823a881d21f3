//! The cluster's files as tasks see them: streams read and written from threads that may block.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use onefold_files::{
    CreateOptions, FilePath, FileReader, FileSystem, FileWriter, FilesError, FinishOptions,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep};

use crate::api::limits::FILES_PATIENCE;
use crate::input::FileRange;
use crate::task::{InputFile, OutputFile, Pieces, TaskError, TaskFiles};

/// Pieces read ahead of a mapper, besides what the file system reads ahead itself.
const PIECES_AHEAD: usize = 2;

/// First pause before something is tried again; it doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The files of a cluster, and where one job's attempts write.
pub(super) struct ClusterFiles {
    pub(super) files: Arc<dyn FileSystem>,
    pub(super) runtime: Handle,
    /// Where attempts write their output.
    pub(super) bucket: String,
    /// Ends in `/`.
    pub(super) temporary: String,
}

impl TaskFiles for ClusterFiles {
    fn open(&self, range: &FileRange) -> Result<Box<dyn InputFile + '_>, TaskError> {
        let path: FilePath = range.file.parse()?;
        let reader = self.runtime.block_on(open(&self.files, &path, &range.etag))?;
        let source = Source { files: self.files.clone(), path, etag: range.etag.clone() };
        Ok(Box::new(ClusterFile { source, reader, runtime: self.runtime.clone() }))
    }

    fn create(&self, name: &str) -> Result<Box<dyn OutputFile + '_>, TaskError> {
        let key = format!("{}{name}", self.temporary);
        let create = || self.files.create(&self.bucket, &key, CreateOptions::default());
        let writer = self.runtime.block_on(patiently(create))?;
        Ok(Box::new(ClusterOutput { writer, runtime: self.runtime.clone() }))
    }
}

/// Tries again for a while what may succeed later.
async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, FilesError>
where
    F: Future<Output = Result<T, FilesError>>,
{
    let deadline = Instant::now() + FILES_PATIENCE;
    let mut pause = RETRY_PAUSE;
    loop {
        match attempt().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                tracing::debug!(%error, "trying again");
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
            result => return result,
        }
    }
}

async fn open(
    files: &Arc<dyn FileSystem>,
    path: &FilePath,
    etag: &str,
) -> Result<FileReader, FilesError> {
    let reader = patiently(|| files.open(path.bucket(), path.key())).await?;
    if reader.info().etag == etag {
        return Ok(reader);
    }
    Err(FilesError::PreconditionFailed {
        bucket: path.bucket().to_owned(),
        key: path.key().to_owned(),
        reason: "it was changed while the job ran; start the job again".to_owned(),
    })
}

#[derive(Clone)]
struct Source {
    files: Arc<dyn FileSystem>,
    path: FilePath,
    etag: String,
}

struct ClusterFile {
    source: Source,
    reader: FileReader,
    runtime: Handle,
}

impl InputFile for ClusterFile {
    fn size(&self) -> u64 {
        self.reader.info().size
    }

    fn read<'a>(&self, range: Range<u64>) -> Box<dyn Pieces + 'a>
    where
        Self: 'a,
    {
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        self.runtime.spawn(pump(self.source.clone(), self.reader.clone(), range, pieces));
        Box::new(Pumped(receiver))
    }
}

/// Reads a range to its end, through interruptions, until nobody listens any more.
async fn pump(
    source: Source,
    mut reader: FileReader,
    range: Range<u64>,
    pieces: mpsc::Sender<Result<Bytes, FilesError>>,
) {
    let end = range.end.min(reader.info().size);
    let mut position = range.start;
    let mut patience = Instant::now() + FILES_PATIENCE;
    while position < end {
        let mut stream = reader.read(position..end);
        let interruption = loop {
            match stream.next().await {
                Some(Ok(piece)) => {
                    position += piece.len() as u64;
                    patience = Instant::now() + FILES_PATIENCE;
                    if pieces.send(Ok(piece)).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => break error,
                None if position >= end => return,
                None => {
                    let reason = format!("{} ended early", source.path);
                    break FilesError::Unavailable { reason };
                }
            }
        };
        let retried = if interruption.is_retryable() && Instant::now() < patience {
            sleep(RETRY_PAUSE).await;
            open(&source.files, &source.path, &source.etag).await
        } else {
            Err(interruption)
        };
        match retried {
            Ok(reopened) => reader = reopened,
            Err(error) => {
                // Nobody may be listening; then it does not matter.
                let _ = pieces.send(Err(error)).await;
                return;
            }
        }
    }
}

struct Pumped(mpsc::Receiver<Result<Bytes, FilesError>>);

impl Pieces for Pumped {
    fn next(&mut self) -> Result<Option<Bytes>, TaskError> {
        Ok(self.0.blocking_recv().transpose()?)
    }
}

struct ClusterOutput {
    writer: Box<dyn FileWriter>,
    runtime: Handle,
}

impl OutputFile for ClusterOutput {
    fn write(&mut self, bytes: Bytes) -> Result<(), TaskError> {
        Ok(self.runtime.block_on(self.writer.write(bytes))?)
    }

    fn finish(self: Box<Self>) -> Result<(), TaskError> {
        let Self { writer, runtime } = *self;
        runtime.block_on(writer.finish(FinishOptions::default()))?;
        Ok(())
    }
}
