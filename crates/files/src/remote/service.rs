//! A node's side of [`RemoteFiles`](super::RemoteFiles).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use onefold_transport::Router;
use tokio_util::sync::CancellationToken;

use super::methods::{
    AbortWriter, Call, FinishWriter, OpenWriter, Piece, ReadExtents, Request, Response,
    TRANSFER_BYTES_MAX, WritePiece, WriteTarget,
};
use crate::api::{FileInfo, FileSystem, FileWriter, FilesError, FinishOptions};
use crate::local::LocalFiles;
use crate::namespace::{Extent, FileRecord};
use crate::read::PIECES_AHEAD;

/// Most files that clients write through one node at once.
const WRITERS_MAX: usize = 1024;

/// A writer that its client has not used for so long is given up.
const WRITER_IDLE: Duration = Duration::from_secs(60);

/// Most extents in one read.
const READ_EXTENTS_MAX: usize = 8192;

/// Does what clients ask, with the node's own file system. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RemoteService(Arc<Inner>);

struct Inner {
    files: LocalFiles,
    writers: Mutex<BTreeMap<u64, Entry>>,
}

struct Entry {
    used: Instant,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

struct Writer {
    /// `None` when it was finished, or an error ended it.
    writer: Option<Box<dyn FileWriter>>,
    next: u64,
}

fn no_such_writer() -> FilesError {
    let reason = "the node does not know this writer: it was finished, idle for too long, or the \
                  node was restarted; write the file again";
    FilesError::Unavailable { reason: reason.to_owned() }
}

impl RemoteService {
    pub(crate) fn new(files: LocalFiles) -> Self {
        Self(Arc::new(Inner { files, writers: Mutex::default() }))
    }

    fn writers(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.0.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up writers whose clients are gone, until shutdown.
    pub(crate) async fn expire(self, shutdown: CancellationToken) {
        let pause = WRITER_IDLE / 4;
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            self.writers().retain(|_, entry| {
                let is_used = Arc::strong_count(&entry.writer) > 1;
                is_used || entry.used.elapsed() < WRITER_IDLE
            });
        }
    }

    async fn call(&self, request: Request) -> Result<Response, FilesError> {
        let files = &self.0.files;
        Ok(match request {
            Request::CreateBucket { bucket } => {
                files.create_bucket(&bucket).await?;
                Response::Done
            }
            Request::DeleteBucket { bucket } => {
                files.delete_bucket(&bucket).await?;
                Response::Done
            }
            Request::ListBuckets => Response::Buckets(files.list_buckets().await?),
            Request::HeadBucket { bucket } => Response::Bucket(files.head_bucket(&bucket).await?),
            Request::Open { bucket, key } => {
                let FileRecord { info, content } = files.find(&bucket, &key).await?;
                Response::Opened(info, content)
            }
            Request::Stat { bucket, key } => Response::File(files.stat(&bucket, &key).await?),
            Request::List(request) => Response::List(files.list(request).await?),
            Request::Remove { bucket, keys } => {
                Response::Removed(files.remove_many(&bucket, &keys).await?)
            }
            Request::RemoveSome { bucket, prefix } => {
                let (count, more) = files.remove_some(&bucket, &prefix).await?;
                Response::RemovedSome(count, more)
            }
            Request::Rename { from, to, condition } => {
                files.rename(&from, &to, condition).await?;
                Response::Done
            }
            Request::Copy { from, to, options } => {
                Response::File(files.copy(&from, &to, options).await?)
            }
            Request::MakeDirectory { bucket, key } => {
                files.make_directory(&bucket, &key).await?;
                Response::Done
            }
            Request::CreateUpload { bucket, key, options } => {
                Response::Upload(files.create_upload(&bucket, &key, options).await?)
            }
            Request::CompleteUpload { bucket, key, upload, parts, condition, options } => {
                let done =
                    files.complete_upload(&bucket, &key, &upload, &parts, condition, options);
                Response::File(done.await?)
            }
            Request::AbortUpload { bucket, key, upload } => {
                files.abort_upload(&bucket, &key, &upload).await?;
                Response::Done
            }
            Request::ListParts { bucket, key, upload, after, limit } => {
                Response::Parts(files.list_parts(&bucket, &key, &upload, after, limit).await?)
            }
            Request::ListUploads { bucket, prefix, after, limit } => {
                Response::Uploads(files.list_uploads(&bucket, &prefix, after, limit).await?)
            }
            Request::Splits(request) => Response::Splits(files.splits(request).await?),
            Request::Usage => Response::Usage(files.usage().await?),
        })
    }

    async fn open_writer(&self, target: WriteTarget) -> Result<u64, FilesError> {
        let full = || FilesError::Overloaded {
            reason: format!("{WRITERS_MAX} files are being written through this node"),
        };
        if self.writers().len() >= WRITERS_MAX {
            return Err(full());
        }
        let files = &self.0.files;
        let writer = match target {
            WriteTarget::File { bucket, key, options } => {
                files.create(&bucket, &key, options).await?
            }
            WriteTarget::Part { bucket, key, upload, number } => {
                files.upload_part(&bucket, &key, &upload, number).await?
            }
        };
        let mut writers = self.writers();
        if writers.len() >= WRITERS_MAX {
            return Err(full());
        }
        let id = rand::random();
        let writer = Arc::new(tokio::sync::Mutex::new(Writer { writer: Some(writer), next: 0 }));
        writers.insert(id, Entry { used: Instant::now(), writer });
        Ok(id)
    }

    fn writer(&self, id: u64) -> Result<Arc<tokio::sync::Mutex<Writer>>, FilesError> {
        let mut writers = self.writers();
        let entry = writers.get_mut(&id).ok_or_else(no_such_writer)?;
        entry.used = Instant::now();
        Ok(entry.writer.clone())
    }

    async fn write(&self, piece: Piece, bytes: Bytes) -> Result<(), FilesError> {
        let writer = self.writer(piece.writer)?;
        let mut writer = writer.lock().await;
        if piece.sequence + 1 == writer.next {
            return Ok(());
        }
        if piece.sequence != writer.next || bytes.len() > TRANSFER_BYTES_MAX {
            let reason = format!("piece {} came instead of {}", piece.sequence, writer.next);
            return Err(FilesError::Invalid { reason });
        }
        // Taken out meanwhile: if this call is given up half-way, the writer is too.
        let mut inner = writer.writer.take().ok_or_else(no_such_writer)?;
        inner.write(bytes).await?;
        writer.writer = Some(inner);
        writer.next += 1;
        Ok(())
    }

    async fn finish(&self, id: u64, options: FinishOptions) -> Result<FileInfo, FilesError> {
        let writer = self.writer(id)?;
        let inner = writer.lock().await.writer.take().ok_or_else(no_such_writer)?;
        self.writers().remove(&id);
        inner.finish(options).await
    }

    async fn abort(&self, id: u64) {
        let removed = self.writers().remove(&id);
        if let Some(entry) = removed
            && let Some(inner) = entry.writer.lock().await.writer.take()
        {
            inner.abort().await;
        }
    }

    async fn read(&self, extents: Vec<Extent>) -> Result<Bytes, FilesError> {
        let bytes: u64 = extents.iter().map(|extent| u64::from(extent.length)).sum();
        if bytes > TRANSFER_BYTES_MAX as u64 || extents.len() > READ_EXTENTS_MAX {
            let reason = format!("{bytes} bytes in {} extents are too many", extents.len());
            return Err(FilesError::Invalid { reason });
        }
        let is_one = extents.len() == 1;
        let reader = self.0.files.reader();
        let reads = extents.into_iter().map(|extent| {
            let reader = reader.clone();
            async move { reader.read(extent).await }
        });
        let mut pieces = futures::stream::iter(reads).buffered(PIECES_AHEAD);
        let mut all = BytesMut::with_capacity(bytes as usize);
        while let Some(piece) = pieces.try_next().await? {
            if is_one {
                return Ok(piece);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Enters the methods into the node's router.
    pub(crate) fn register(&self, router: &mut Router) {
        let service = self.clone();
        router.call::<Call, _, _>(move |_, request, _| {
            let service = service.clone();
            async move { Ok((service.call(request).await, Bytes::new())) }
        });
        let service = self.clone();
        router.call::<OpenWriter, _, _>(move |_, target, _| {
            let service = service.clone();
            async move { Ok((service.open_writer(target).await, Bytes::new())) }
        });
        let service = self.clone();
        router.call::<WritePiece, _, _>(move |_, piece, body| {
            let service = service.clone();
            async move { Ok((service.write(piece, body).await, Bytes::new())) }
        });
        let service = self.clone();
        router.call::<FinishWriter, _, _>(move |_, (id, options), _| {
            let service = service.clone();
            async move { Ok((service.finish(id, options).await, Bytes::new())) }
        });
        let service = self.clone();
        router.call::<AbortWriter, _, _>(move |_, id, _| {
            let service = service.clone();
            async move {
                service.abort(id).await;
                Ok(((), Bytes::new()))
            }
        });
        let service = self.clone();
        router.call::<ReadExtents, _, _>(move |_, extents, _| {
            let service = service.clone();
            async move {
                Ok(match service.read(extents).await {
                    Ok(bytes) => (Ok(()), bytes),
                    Err(error) => (Err(error), Bytes::new()),
                })
            }
        });
    }
}
