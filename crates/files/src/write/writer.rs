//! One file (or part of a multipart upload) being written on this node.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesOrdered;
use onefold_types::ChunkId;

use super::hasher::Hasher;
use super::held::{HeldChunks, Holder};
use super::pool::{ChunkPool, OwnedChunk};
use crate::api::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX, PART_BYTES_MAX, PIECE_BYTES_MAX};
use crate::api::{CreateOptions, FileInfo, FileWriter, FilesError, FinishOptions};
use crate::chunk::ChunkError;
use crate::commands::Commands;
use crate::etag;
use crate::namespace::{Command, Content, Extent, Reply};

/// Pieces of one file that are on their way to disk at once.
const PIECES_AHEAD: usize = 4;

/// What is being written.
pub(crate) enum Target {
    /// A file.
    File { bucket: String, key: String, options: CreateOptions },
    /// A part of a multipart upload.
    Part { bucket: String, key: String, upload: String, number: u16 },
}

type Append = BoxFuture<'static, (Bytes, ChunkId, Result<Extent, ChunkError>)>;

/// Writes one file.
pub(crate) struct LocalWriter {
    commands: Commands,
    pool: ChunkPool,
    target: Target,
    hasher: Hasher,
    size: u64,
    /// Bytes that do not fill a piece yet.
    buffer: BytesMut,
    chunk: Option<OwnedChunk>,
    /// The chunk before, as long as appends to it are under way.
    full: Option<OwnedChunk>,
    appends: FuturesOrdered<Append>,
    extents: Vec<Extent>,
    holder: Holder,
}

impl LocalWriter {
    pub(crate) fn new(
        commands: Commands,
        pool: ChunkPool,
        held: &HeldChunks,
        target: Target,
    ) -> Self {
        Self {
            commands,
            pool,
            target,
            hasher: Hasher::new(),
            size: 0,
            buffer: BytesMut::new(),
            chunk: None,
            full: None,
            appends: FuturesOrdered::new(),
            extents: Vec::new(),
            holder: held.holder(),
        }
    }

    fn check_size(&self, more: usize) -> Result<(), FilesError> {
        let (what, maximum) = match self.target {
            Target::File { .. } => ("the file", FILE_BYTES_MAX),
            Target::Part { .. } => ("the part", PART_BYTES_MAX),
        };
        let bytes = self.size + more as u64;
        if bytes <= maximum {
            return Ok(());
        }
        Err(FilesError::TooLarge { what: what.to_owned(), bytes, maximum })
    }

    /// Starts the append of a piece, once there are not too many under way.
    async fn submit(&mut self, piece: Bytes) -> Result<(), FilesError> {
        while self.appends.len() >= PIECES_AHEAD {
            self.settle_one().await?;
        }
        let grant = loop {
            if let Some(chunk) = &mut self.chunk {
                match chunk.reserve(piece.len()) {
                    Some(grant) => break grant,
                    None => self.full = self.chunk.take(),
                }
            } else {
                self.chunk = Some(self.pool.take().await?);
            }
        };
        let pool = self.pool.clone();
        let mut append: Append = Box::pin(async move {
            let result = pool.append_to(grant, piece.clone()).await;
            (piece, grant.at.chunk, result)
        });
        // The first poll places the piece: so pieces lie in the chunk in the order of the file.
        match futures::poll!(&mut append) {
            std::task::Poll::Ready(done) => {
                self.appends.push_back(futures::future::ready(done).boxed())
            }
            std::task::Poll::Pending => self.appends.push_back(append),
        }
        Ok(())
    }

    /// Waits for the oldest append; if it failed, its piece goes elsewhere.
    async fn settle_one(&mut self) -> Result<(), FilesError> {
        let Some((piece, chunk, result)) = self.appends.next().await else { return Ok(()) };
        // Appends end in order: with the first to another chunk, those to the full one are done.
        self.full.take_if(|full| full.id() != chunk);
        let extent = match result {
            Ok(extent) => extent,
            Err(error) => {
                if let Some(own) = self.chunk.take_if(|own| own.id() == chunk) {
                    own.retire();
                }
                let (extent, chunk) = self.pool.append_elsewhere(piece, error).await?;
                self.chunk.get_or_insert(chunk);
                extent
            }
        };
        self.add(extent);
        Ok(())
    }

    fn add(&mut self, extent: Extent) {
        self.holder.hold(extent.chunk);
        match self.extents.last_mut() {
            Some(last) if last.chunk == extent.chunk && last.end() == u64::from(extent.offset) => {
                last.length += extent.length;
            }
            _ => self.extents.push(extent),
        }
    }

    /// Has everything on disk, and says where.
    async fn content(&mut self) -> Result<Content, FilesError> {
        let rest = self.buffer.split().freeze();
        let is_file = matches!(self.target, Target::File { .. });
        let is_whole = rest.len() as u64 == self.size;
        if is_whole && (rest.is_empty() || is_file && rest.len() <= INLINE_BYTES_MAX) {
            return Ok(Content::Inline(rest));
        }
        if is_whole {
            let extent = self.pool.append_shared(rest).await?;
            self.add(extent);
        } else if !rest.is_empty() {
            self.submit(rest).await?;
        }
        while !self.appends.is_empty() {
            self.settle_one().await?;
        }
        let content = Content::Extents(std::mem::take(&mut self.extents));
        assert_eq!(content.size(), self.size, "every byte of the file lies in an extent");
        Ok(content)
    }
}

#[async_trait]
impl FileWriter for LocalWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), FilesError> {
        self.check_size(bytes.len())?;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            self.size += piece.len() as u64;
            self.hasher.update(piece.clone()).await?;
            if self.buffer.is_empty() && piece.len() == PIECE_BYTES_MAX {
                self.submit(piece).await?;
                continue;
            }
            let room = PIECE_BYTES_MAX - self.buffer.len();
            let (now, later) = piece.split_at(piece.len().min(room));
            self.buffer.extend_from_slice(now);
            if self.buffer.len() == PIECE_BYTES_MAX {
                let full = self.buffer.split().freeze();
                self.submit(full).await?;
                self.buffer.extend_from_slice(later);
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>, finish: FinishOptions) -> Result<FileInfo, FilesError> {
        let content = self.content().await?;
        let digest = self.hasher.finish().await?;
        etag::check(finish.expected_md5, digest)?;
        let etag = finish.etag.clone().unwrap_or_else(|| etag::plain(digest));
        let command = match &mut self.target {
            Target::File { bucket, key, options } => {
                options.attributes.headers.extend(finish.headers);
                let (bucket, key) = (std::mem::take(bucket), std::mem::take(key));
                let options = std::mem::take(options);
                Command::PutFile { bucket, key, content, etag, options }
            }
            Target::Part { bucket, key, upload, number } => {
                let (bucket, key) = (std::mem::take(bucket), std::mem::take(key));
                let (upload, number) = (std::mem::take(upload), *number);
                Command::PutPart { bucket, key, upload, number, content, etag, options: finish }
            }
        };
        match self.commands.run(&command).await? {
            Reply::File(info) => Ok(info),
            other => Err(FilesError::Internal { reason: format!("a file became {other:?}") }),
        }
    }

    async fn abort(self: Box<Self>) {}
}
