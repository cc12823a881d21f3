//! Getting the segments of one partition from all map outputs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use onefold_transport::{CallError, Class, Peers, RemoteCode};
use tokio::time::{Instant, sleep};

use super::folder::Folder;
use super::serve::{FetchRequest, FetchResponse};
use crate::api::limits::FETCHES_MAX;
use crate::job::{MapSource, WorkerId};
use crate::service::FetchMethod;
use crate::shuffle::{Run, Source, SourceBytes};
use crate::task::{Attempt, TaskError};

/// How long one piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a piece is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The input of one reduce task on its way here.
pub(super) struct Fetch {
    pub(super) attempt: Arc<Attempt>,
    pub(super) me: WorkerId,
    pub(super) folder: Folder,
    pub(super) peers: Peers,
    /// How long to try to get at one map output.
    pub(super) patience: Duration,
    /// Bytes that may still be kept in memory.
    memory: AtomicUsize,
    spool: Spool,
}

/// One file for all segments that do not fit into memory.
struct Spool {
    file: Arc<File>,
    end: AtomicU64,
}

/// A segment, and how many records it has. `None` when it is empty.
type Fetched = Option<(Source, u64)>;

impl Fetch {
    /// A fetch with an empty spool.
    pub(super) async fn open(
        attempt: Arc<Attempt>,
        me: WorkerId,
        folder: Folder,
        peers: Peers,
        patience: Duration,
    ) -> Result<Self, TaskError> {
        let path = attempt.scratch.join("fetched");
        let file = blocking(move || {
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            file.map_err(|source| TaskError::disk("create", &path, source))
        });
        let spool = Spool { file: Arc::new(file.await?), end: AtomicU64::new(0) };
        let memory = AtomicUsize::new(attempt.limits.fetch_bytes);
        Ok(Self { attempt, me, folder, peers, patience, memory, spool })
    }

    /// Fetches a segment from each map output; those that are not empty, in the order of the map
    /// tasks, and the number of records in all.
    pub(super) async fn run(self, sources: &[MapSource]) -> Result<(Vec<Source>, u64), TaskError> {
        let this = &self;
        let sources = sources.iter().copied();
        let fetches = (0_u32..).zip(sources).map(|(map, source)| this.segment(map, source));
        let fetched: Vec<Fetched> =
            futures::stream::iter(fetches).buffered(FETCHES_MAX).try_collect().await?;
        let (mut segments, mut records) = (Vec::new(), 0);
        for (source, records_in) in fetched.into_iter().flatten() {
            segments.push(source);
            records += records_in;
        }
        Ok((segments, records))
    }

    async fn segment(&self, map: u32, source: MapSource) -> Result<Fetched, TaskError> {
        self.attempt.stop.check()?;
        if source.worker == self.me {
            return self.local_segment(map, source).await;
        }
        let (response, first) = self.piece(map, source, 0).await?;
        if response.length == 0 {
            return Ok(None);
        }
        let bytes = self.rest(map, source, response, first).await?;
        self.attempt.count("shuffled_bytes", response.length);
        Ok(Some((Source { bytes, origin: Some(map) }, response.records)))
    }

    /// What this node made itself is read where it lies.
    async fn local_segment(&self, map: u32, source: MapSource) -> Result<Fetched, TaskError> {
        let path = self.folder.map_output(self.attempt.job, map, source.attempt);
        let partition = self.attempt.task.index;
        let found = blocking(move || {
            let segment = Run::open(&path)?.segment(partition)?;
            Ok((path, segment))
        });
        let (path, segment) = found.await.map_err(|error| lost(map, &error))?;
        self.attempt.stop.note_activity();
        if segment.length == 0 {
            return Ok(None);
        }
        self.attempt.count("local_shuffle_bytes", segment.length);
        let (offset, length) = (segment.offset, segment.length);
        let bytes = SourceBytes::Path { path, offset, length };
        Ok(Some((Source { bytes, origin: Some(map) }, segment.records)))
    }

    /// All pieces of a segment, in memory if there is room, else in the spool.
    async fn rest(
        &self,
        map: u32,
        source: MapSource,
        expected: FetchResponse,
        first: Bytes,
    ) -> Result<SourceBytes, TaskError> {
        let length = expected.length;
        let in_memory = self.reserve(length);
        let mut memory = Vec::with_capacity(in_memory.unwrap_or(0));
        let spooled = match in_memory {
            Some(_) => 0,
            None => self.spool.end.fetch_add(length, Ordering::Relaxed),
        };
        let (mut piece, mut offset) = (first, 0);
        loop {
            let bytes = piece.len() as u64;
            if bytes == 0 || offset + bytes > length {
                let reason = "its worker sent more or less than there is".to_owned();
                return Err(TaskError::Fetch { map, reason });
            }
            if in_memory.is_some() {
                memory.extend_from_slice(&piece);
            } else {
                let (file, at) = (self.spool.file.clone(), spooled + offset);
                let scratch = self.attempt.scratch.clone();
                blocking(move || {
                    let written = file.write_all_at(&piece, at);
                    written.map_err(|error| TaskError::disk("write in", &scratch, error))
                })
                .await?;
            }
            offset += bytes;
            if offset == length {
                break;
            }
            let (response, next) = self.piece(map, source, offset).await?;
            if response != expected {
                let reason = "it changed while it was fetched".to_owned();
                return Err(TaskError::Fetch { map, reason });
            }
            piece = next;
        }
        Ok(match in_memory {
            Some(_) => SourceBytes::Memory(memory.into()),
            None => SourceBytes::File { file: self.spool.file.clone(), offset: spooled, length },
        })
    }

    /// Takes so many bytes from what may be kept in memory.
    fn reserve(&self, length: u64) -> Option<usize> {
        let length = usize::try_from(length).ok()?;
        let take = |left: usize| left.checked_sub(length);
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(|_| length)
    }

    async fn piece(
        &self,
        map: u32,
        source: MapSource,
        offset: u64,
    ) -> Result<(FetchResponse, Bytes), TaskError> {
        let request = FetchRequest {
            worker: source.worker,
            job: self.attempt.job,
            map,
            attempt: source.attempt,
            partition: self.attempt.task.index,
            offset,
        };
        let deadline = Instant::now() + self.patience;
        loop {
            self.attempt.stop.check()?;
            let call = self.peers.call::<FetchMethod>(
                source.worker.node,
                Class::Bulk,
                &request,
                Bytes::new(),
                PIECE_TIMEOUT,
            );
            match call.await {
                Ok(answer) => {
                    self.attempt.stop.note_activity();
                    return Ok(answer);
                }
                Err(error) if is_hopeless(&error) || Instant::now() >= deadline => {
                    return Err(TaskError::Fetch { map, reason: error.to_string() });
                }
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    }
}

/// Whether asking the same worker again cannot help.
fn is_hopeless(error: &CallError) -> bool {
    matches!(
        error.remote_code(),
        Some(RemoteCode::NotFound | RemoteCode::Corrupt | RemoteCode::Invalid)
    )
}

fn lost(map: u32, error: &TaskError) -> TaskError {
    TaskError::Fetch { map, reason: error.to_string() }
}

/// Runs what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TaskError> + Send + 'static,
) -> Result<T, TaskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is shutting down, or the work panicked.
        Err(_) => Err(TaskError::Stopped),
    }
}
