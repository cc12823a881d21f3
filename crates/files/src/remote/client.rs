//! [`FileSystem`] for a process that is no node.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use onefold_transport::{CallError, Class, Method, Peers};
use tokio::task::JoinHandle;

use super::methods::{
    AbortWriter, Call, FinishWriter, OpenWriter, Piece, ReadExtents, Request, Response,
    TRANSFER_BYTES_MAX, WritePiece, WriteTarget,
};
use crate::api::limits::PIECE_BYTES_MAX;
use crate::api::{
    BucketInfo, ByteStream, Condition, CopyOptions, CreateOptions, FileInfo, FilePath, FileReader,
    FileSystem, FileWriter, FilesError, FinishOptions, ListPage, ListRequest, PartPage,
    RangeSource, SplitPage, SplitRequest, UploadPage, Usage,
};
use crate::namespace::{Content, Extent};
use crate::read::{PIECES_AHEAD, inline, pieces, until_error};

/// How long a small request may take: longer than a node itself tries.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the list of nodes is gone through before a request fails.
const ROUNDS: usize = 3;

/// The pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// The file system through any of a list of nodes. Cheap to clone.
#[derive(Clone)]
pub struct RemoteFiles(Arc<Inner>);

struct Inner {
    peers: Peers,
    addresses: Vec<String>,
    /// The address that answered last.
    preferred: AtomicUsize,
}

fn unexpected<T>(response: &Response) -> Result<T, FilesError> {
    Err(FilesError::Internal { reason: format!("the node answered {response:?}") })
}

/// What a call's error means to the user of files.
fn files_error(error: &CallError) -> FilesError {
    let reason = error.to_string();
    match error {
        CallError::Overloaded { .. } => FilesError::Overloaded { reason },
        error if error.is_unsent() => FilesError::Unavailable { reason },
        CallError::Remote(_) => FilesError::Internal { reason },
        _ => FilesError::Unknown { reason },
    }
}

impl RemoteFiles {
    /// The file system of the cluster whose nodes listen at these addresses, `host:port` each.
    pub fn new(peers: Peers, addresses: Vec<String>) -> Self {
        Self(Arc::new(Inner { peers, addresses, preferred: AtomicUsize::new(0) }))
    }

    /// Calls one node after the other until one answers, beginning with the one that did last.
    /// Moves on only when that cannot carry out anything twice.
    async fn ask<M: Method>(
        &self,
        class: Class,
        request: &M::Request,
        is_read: bool,
        timeout: Duration,
    ) -> Result<(String, M::Response, Bytes), FilesError> {
        let Inner { peers, addresses, preferred } = &*self.0;
        let mut problem = FilesError::Invalid { reason: "no node's address is given".to_owned() };
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            let first = preferred.load(Ordering::Relaxed);
            for turn in 0..addresses.len() {
                let place = (first + turn) % addresses.len();
                let address = &addresses[place];
                let call =
                    peers.call_address::<M>(address, class, request, Bytes::new(), timeout).await;
                match call {
                    Ok((response, body)) => {
                        preferred.store(place, Ordering::Relaxed);
                        return Ok((address.clone(), response, body));
                    }
                    Err(error) if error.is_unsent() || is_read => problem = files_error(&error),
                    Err(error) => return Err(files_error(&error)),
                }
            }
        }
        Err(problem)
    }

    async fn call(&self, request: Request) -> Result<Response, FilesError> {
        let is_read = request.is_read();
        let asked = self.ask::<Call>(Class::Call, &request, is_read, CALL_TIMEOUT).await?;
        asked.1
    }

    async fn done(&self, request: Request) -> Result<(), FilesError> {
        match self.call(request).await? {
            Response::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    async fn file(&self, request: Request) -> Result<FileInfo, FilesError> {
        match self.call(request).await? {
            Response::File(info) => Ok(info),
            other => unexpected(&other),
        }
    }

    async fn writer(&self, target: WriteTarget) -> Result<Box<dyn FileWriter>, FilesError> {
        // A writer that was opened and not answered expires by itself: asking again is harmless.
        let opened = self.ask::<OpenWriter>(Class::Call, &target, true, CALL_TIMEOUT).await?;
        let (address, writer, _) = opened;
        let connection = Connection { peers: self.0.peers.clone(), address, writer: writer? };
        let (buffer, sequence, sending) = (BytesMut::new(), 0, None);
        Ok(Box::new(RemoteWriter { connection: Some(connection), buffer, sequence, sending }))
    }
}

/// The node that a file is written through.
#[derive(Clone)]
struct Connection {
    peers: Peers,
    address: String,
    writer: u64,
}

impl Connection {
    async fn send(&self, sequence: u64, bytes: Bytes) -> Result<(), FilesError> {
        let piece = Piece { writer: self.writer, sequence };
        let Self { peers, address, .. } = self;
        let class = Class::Bulk;
        let call = peers.call_address::<WritePiece>(address, class, &piece, bytes, PIECE_TIMEOUT);
        match call.await {
            Ok((answer, _)) => answer,
            // Nothing of the file is visible, so there is no doubt about that.
            Err(error) => Err(FilesError::Unavailable { reason: error.to_string() }),
        }
    }

    async fn abort(self) {
        let Self { peers, address, writer } = &self;
        let timeout = PIECE_TIMEOUT;
        let call = peers
            .call_address::<AbortWriter>(address, Class::Call, writer, Bytes::new(), timeout)
            .await;
        if let Err(error) = call {
            tracing::debug!(%error, "the node gives the file up when it was idle for long enough");
        }
    }
}

struct RemoteWriter {
    /// `None` once it was finished or aborted.
    connection: Option<Connection>,
    buffer: BytesMut,
    sequence: u64,
    /// The piece that is under way while the caller fetches the next.
    sending: Option<JoinHandle<Result<(), FilesError>>>,
}

impl RemoteWriter {
    async fn settle(&mut self) -> Result<(), FilesError> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        let stopped = |error| FilesError::Internal { reason: format!("a write stopped: {error}") };
        sending.await.map_err(stopped)?
    }

    async fn submit(&mut self, bytes: Bytes) -> Result<(), FilesError> {
        self.settle().await?;
        let ended = || FilesError::Invalid { reason: "the file was given up".to_owned() };
        let connection = self.connection.clone().ok_or_else(ended)?;
        let sequence = self.sequence;
        self.sequence += 1;
        self.sending = Some(tokio::spawn(async move { connection.send(sequence, bytes).await }));
        Ok(())
    }
}

#[async_trait]
impl FileWriter for RemoteWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), FilesError> {
        while !bytes.is_empty() {
            let room = TRANSFER_BYTES_MAX - self.buffer.len();
            self.buffer.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
            if self.buffer.len() == TRANSFER_BYTES_MAX {
                let full = self.buffer.split().freeze();
                self.submit(full).await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>, options: FinishOptions) -> Result<FileInfo, FilesError> {
        if !self.buffer.is_empty() {
            let rest = self.buffer.split().freeze();
            self.submit(rest).await?;
        }
        self.settle().await?;
        let ended = || FilesError::Invalid { reason: "the file was given up".to_owned() };
        let Connection { peers, address, writer } = self.connection.take().ok_or_else(ended)?;
        let request = (writer, options);
        let class = Class::Call;
        let call = peers.call_address::<FinishWriter>(
            &address,
            class,
            &request,
            Bytes::new(),
            PIECE_TIMEOUT,
        );
        match call.await {
            Ok((answer, _)) => answer,
            Err(error) => Err(files_error(&error)),
        }
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
        }
        if let Some(connection) = self.connection.take() {
            connection.abort().await;
        }
    }
}

impl Drop for RemoteWriter {
    fn drop(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
        }
        if let (Some(connection), Ok(runtime)) =
            (self.connection.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(connection.abort());
        }
    }
}

/// The content of a file that was opened through a node: any node reads it.
struct RemoteSource {
    files: RemoteFiles,
    content: Content,
}

impl RangeSource for RemoteSource {
    fn read(&self, range: Range<u64>) -> ByteStream {
        match &self.content {
            Content::Inline(data) => inline(data, range),
            Content::Extents(extents) => {
                let files = self.files.clone();
                let reads = batches(pieces(extents, range)).into_iter().map(move |batch| {
                    let files = files.clone();
                    async move { files.read(batch).await }
                });
                until_error(futures::stream::iter(reads).buffered(PIECES_AHEAD).boxed())
            }
        }
    }
}

/// Pieces that are fetched with one call: as many as fill one.
fn batches(pieces: Vec<Extent>) -> Vec<Vec<Extent>> {
    let mut batches: Vec<Vec<Extent>> = Vec::new();
    let mut bytes = 0;
    for piece in pieces {
        bytes += piece.length as usize;
        match batches.last_mut() {
            Some(batch) if bytes <= PIECE_BYTES_MAX => batch.push(piece),
            _ => {
                bytes = piece.length as usize;
                batches.push(vec![piece]);
            }
        }
    }
    batches
}

impl RemoteFiles {
    async fn read(&self, extents: Vec<Extent>) -> Result<Bytes, FilesError> {
        let wanted: u64 = extents.iter().map(|extent| u64::from(extent.length)).sum();
        let asked = self.ask::<ReadExtents>(Class::Bulk, &extents, true, PIECE_TIMEOUT).await?;
        let (_, answer, body) = asked;
        answer?;
        if body.len() as u64 == wanted {
            return Ok(body);
        }
        let reason = format!("{} bytes came instead of {wanted}", body.len());
        Err(FilesError::Internal { reason })
    }
}

#[async_trait]
impl FileSystem for RemoteFiles {
    async fn create_bucket(&self, bucket: &str) -> Result<(), FilesError> {
        self.done(Request::CreateBucket { bucket: bucket.to_owned() }).await
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), FilesError> {
        self.done(Request::DeleteBucket { bucket: bucket.to_owned() }).await
    }

    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, FilesError> {
        match self.call(Request::ListBuckets).await? {
            Response::Buckets(buckets) => Ok(buckets),
            other => unexpected(&other),
        }
    }

    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, FilesError> {
        match self.call(Request::HeadBucket { bucket: bucket.to_owned() }).await? {
            Response::Bucket(bucket) => Ok(bucket),
            other => unexpected(&other),
        }
    }

    async fn stat(&self, bucket: &str, key: &str) -> Result<FileInfo, FilesError> {
        self.file(Request::Stat { bucket: bucket.to_owned(), key: key.to_owned() }).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, FilesError> {
        match self.call(Request::List(request)).await? {
            Response::List(page) => Ok(page),
            other => unexpected(&other),
        }
    }

    async fn create(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<Box<dyn FileWriter>, FilesError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.writer(WriteTarget::File { bucket, key, options }).await
    }

    async fn open(&self, bucket: &str, key: &str) -> Result<FileReader, FilesError> {
        let request = Request::Open { bucket: bucket.to_owned(), key: key.to_owned() };
        match self.call(request).await? {
            Response::Opened(info, content) => {
                let source = RemoteSource { files: self.clone(), content };
                Ok(FileReader::new(info, Arc::new(source)))
            }
            other => unexpected(&other),
        }
    }

    async fn remove(&self, bucket: &str, key: &str) -> Result<bool, FilesError> {
        let removed = self.remove_many(bucket, &[key.to_owned()]).await?;
        Ok(removed.first().copied().unwrap_or_default())
    }

    async fn remove_many(&self, bucket: &str, keys: &[String]) -> Result<Vec<bool>, FilesError> {
        let request = Request::Remove { bucket: bucket.to_owned(), keys: keys.to_vec() };
        match self.call(request).await? {
            Response::Removed(removed) => Ok(removed),
            other => unexpected(&other),
        }
    }

    async fn remove_tree(&self, bucket: &str, prefix: &str) -> Result<u64, FilesError> {
        let mut removed = 0;
        loop {
            let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
            match self.call(Request::RemoveSome { bucket, prefix }).await? {
                Response::RemovedSome(count, more) => {
                    removed += count;
                    if !more {
                        return Ok(removed);
                    }
                }
                other => return unexpected(&other),
            }
        }
    }

    async fn rename(
        &self,
        from: &FilePath,
        to: &FilePath,
        condition: Condition,
    ) -> Result<(), FilesError> {
        self.done(Request::Rename { from: from.clone(), to: to.clone(), condition }).await
    }

    async fn copy(
        &self,
        from: &FilePath,
        to: &FilePath,
        options: CopyOptions,
    ) -> Result<FileInfo, FilesError> {
        self.file(Request::Copy { from: from.clone(), to: to.clone(), options }).await
    }

    async fn make_directory(&self, bucket: &str, key: &str) -> Result<(), FilesError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.done(Request::MakeDirectory { bucket, key }).await
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Result<String, FilesError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        match self.call(Request::CreateUpload { bucket, key, options }).await? {
            Response::Upload(upload) => Ok(upload),
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
        let (bucket, key, upload) = (bucket.to_owned(), key.to_owned(), upload.to_owned());
        self.writer(WriteTarget::Part { bucket, key, upload, number }).await
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
        self.file(Request::CompleteUpload { bucket, key, upload, parts, condition, options }).await
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload: &str) -> Result<(), FilesError> {
        let (bucket, key, upload) = (bucket.to_owned(), key.to_owned(), upload.to_owned());
        self.done(Request::AbortUpload { bucket, key, upload }).await
    }

    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, FilesError> {
        let (bucket, key, upload) = (bucket.to_owned(), key.to_owned(), upload.to_owned());
        match self.call(Request::ListParts { bucket, key, upload, after, limit }).await? {
            Response::Parts(page) => Ok(page),
            other => unexpected(&other),
        }
    }

    async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(String, Option<String>)>,
        limit: usize,
    ) -> Result<UploadPage, FilesError> {
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        match self.call(Request::ListUploads { bucket, prefix, after, limit }).await? {
            Response::Uploads(page) => Ok(page),
            other => unexpected(&other),
        }
    }

    async fn splits(&self, request: SplitRequest) -> Result<SplitPage, FilesError> {
        match self.call(Request::Splits(request)).await? {
            Response::Splits(page) => Ok(page),
            other => unexpected(&other),
        }
    }

    async fn usage(&self) -> Result<Usage, FilesError> {
        match self.call(Request::Usage).await? {
            Response::Usage(usage) => Ok(usage),
            other => unexpected(&other),
        }
    }
}
