//! The open chunks of a node's writers: a few that small files share, and one for each big file.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onefold_transport::Peers;
use onefold_types::limits::CHUNK_BYTES_MAX;
use onefold_types::{ChunkId, NodeId};

use crate::api::FilesError;
use crate::api::limits::PIECE_BYTES_MAX;
use crate::chunk::methods::Append;
use crate::chunk::{ChunkError, ChunkServer, chunk_error, class};
use crate::master::Leader;
use crate::master::methods::Grant;
use crate::namespace::Extent;

/// Most chunks that wait for small files or the next big one.
const SHARED_MAX: usize = 4;

/// Another shared chunk is opened when so many appends are under way in each.
const APPENDS_MAX: usize = 16;

/// How long one append may take; longer than a primary waits for its secondaries.
const APPEND_TIMEOUT: Duration = Duration::from_secs(7);

/// Chunks that are tried for one piece.
const ATTEMPTS_MAX: u32 = 6;

/// The pause after a failed attempt, doubled by each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The open chunks of one node's writers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ChunkPool(Arc<Inner>);

struct Inner {
    chunks: ChunkServer,
    peers: Peers,
    leader: Leader,
    state: Mutex<State>,
    /// Held while a shared chunk is allocated, so that those who wait find it.
    allocating: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    shared: Vec<Shared>,
    /// Chunks that writers have for themselves.
    owned: BTreeSet<ChunkId>,
}

struct Shared {
    chunk: OpenChunk,
    /// Appends under way.
    appends: usize,
}

/// An open chunk, and how much of it this node has used.
#[derive(Clone, Copy, Debug)]
struct OpenChunk {
    grant: Grant,
    used: u64,
}

impl OpenChunk {
    fn id(&self) -> ChunkId {
        self.grant.at.chunk
    }

    /// Counts a piece in, if there is room for it.
    fn reserve(&mut self, bytes: usize) -> bool {
        let fits = self.used + bytes as u64 <= CHUNK_BYTES_MAX;
        if fits {
            self.used += bytes as u64;
        }
        fits
    }

    fn has_room(&self) -> bool {
        self.used + PIECE_BYTES_MAX as u64 <= CHUNK_BYTES_MAX
    }
}

impl ChunkPool {
    pub(crate) fn new(chunks: ChunkServer, peers: Peers, leader: Leader) -> Self {
        let (state, allocating) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Self(Arc::new(Inner { chunks, peers, leader, state, allocating }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> NodeId {
        self.0.chunks.store().node()
    }

    /// Open chunks that writers of this node use: their leases are to be renewed.
    pub(crate) fn writing(&self) -> Vec<ChunkId> {
        let state = self.state();
        let shared = state.shared.iter().map(|shared| shared.chunk.id());
        shared.chain(state.owned.iter().copied()).collect()
    }

    /// Appends a piece to one chunk.
    pub(super) async fn append_to(&self, grant: Grant, bytes: Bytes) -> Result<Extent, ChunkError> {
        let (Grant { at, primary }, length) = (grant, bytes.len());
        let offset = if primary == self.node() {
            self.0.chunks.append(at, bytes).await?
        } else {
            let class = class(length);
            let peers = &self.0.peers;
            let call = peers.call::<Append>(primary, class, &at, bytes, APPEND_TIMEOUT).await;
            call.map_err(|error| chunk_error(at.chunk, primary, &error))?.0
        };
        let end = offset + length as u64;
        if length == 0 || end > CHUNK_BYTES_MAX {
            let reason = format!("{length} bytes were placed at {offset}");
            return Err(ChunkError::NotWritable { chunk: at.chunk, node: primary, reason });
        }
        Ok(Extent { chunk: at.chunk, offset: offset as u32, length: length as u32 })
    }

    /// Appends a small file's bytes to whichever shared chunk is free.
    pub(super) async fn append_shared(&self, bytes: Bytes) -> Result<Extent, FilesError> {
        let mut pause = RETRY_PAUSE;
        let mut problem = None;
        for _ in 0..ATTEMPTS_MAX {
            let grant = self.pick_shared(bytes.len()).await?;
            let use_of = SharedUse { pool: self, chunk: grant.at.chunk };
            match self.append_to(grant, bytes.clone()).await {
                Ok(extent) => return Ok(extent),
                Err(error) => problem = Some(error),
            }
            drop(use_of);
            self.retire(grant.at.chunk);
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(problem.expect("at least one attempt is made").into())
    }

    async fn pick_shared(&self, bytes: usize) -> Result<Grant, FilesError> {
        if let Some(grant) = self.try_shared(bytes, APPENDS_MAX) {
            return Ok(grant);
        }
        let _turn = self.0.allocating.lock().await;
        if let Some(grant) = self.try_shared(bytes, APPENDS_MAX) {
            return Ok(grant);
        }
        if self.state().shared.len() >= SHARED_MAX
            && let Some(grant) = self.try_shared(bytes, usize::MAX)
        {
            return Ok(grant);
        }
        let grant = self.0.leader.allocate(self.node()).await?;
        let chunk = OpenChunk { grant, used: bytes as u64 };
        self.state().shared.push(Shared { chunk, appends: 1 });
        Ok(grant)
    }

    /// The least busy shared chunk with room, if one has fewer appends under way than this.
    fn try_shared(&self, bytes: usize, busy: usize) -> Option<Grant> {
        let mut state = self.state();
        let free = state.shared.iter_mut().filter(|shared| shared.appends < busy);
        let mut free: Vec<_> = free.collect();
        free.sort_by_key(|shared| shared.appends);
        let found = free.into_iter().find(|shared| shared.chunk.clone().reserve(bytes))?;
        found.chunk.reserve(bytes);
        found.appends += 1;
        Some(found.chunk.grant)
    }

    fn end_shared(&self, chunk: ChunkId) {
        let mut state = self.state();
        let Some(place) = state.shared.iter().position(|shared| shared.chunk.id() == chunk) else {
            return;
        };
        let shared = &mut state.shared[place];
        shared.appends -= 1;
        if shared.appends == 0 && !shared.chunk.has_room() {
            state.shared.swap_remove(place);
            drop(state);
            self.seal(chunk);
        }
    }

    /// A chunk for one writer alone: an idle one, or a new one.
    pub(super) async fn take(&self) -> Result<OwnedChunk, FilesError> {
        let idle = {
            let mut state = self.state();
            let idle = state.shared.iter().position(|shared| shared.appends == 0);
            let chunk = idle.map(|place| state.shared.swap_remove(place).chunk);
            state.owned.extend(chunk.map(|chunk| chunk.id()));
            chunk
        };
        let pool = self.clone();
        if let Some(chunk) = idle {
            return Ok(OwnedChunk { pool, chunk });
        }
        let grant = self.0.leader.allocate(self.node()).await?;
        self.state().owned.insert(grant.at.chunk);
        Ok(OwnedChunk { pool, chunk: OpenChunk { grant, used: 0 } })
    }

    /// Takes back what a writer does not need any more, unless it was retired.
    fn give_back(&self, chunk: OpenChunk) {
        let mut state = self.state();
        if !state.owned.remove(&chunk.id()) {
            return;
        }
        if chunk.has_room() && state.shared.len() < SHARED_MAX {
            state.shared.push(Shared { chunk, appends: 0 });
            return;
        }
        drop(state);
        self.seal(chunk.id());
    }

    /// A chunk in which an append failed: nobody uses it again.
    fn retire(&self, chunk: ChunkId) {
        let known = {
            let mut state = self.state();
            let before = state.shared.len();
            state.shared.retain(|shared| shared.chunk.id() != chunk);
            state.owned.remove(&chunk) || state.shared.len() < before
        };
        if known {
            self.seal(chunk);
        }
    }

    /// Has the leader seal a chunk. If that fails its lease ends, and the leader seals it then.
    fn seal(&self, chunk: ChunkId) {
        let leader = self.0.leader.clone();
        tokio::spawn(async move {
            if let Err(error) = leader.seal(vec![chunk]).await {
                tracing::info!(%chunk, %error, "a chunk will be sealed when its lease ends");
            }
        });
    }

    /// Appends a piece to a new chunk after the append to the last one failed; answers the chunk
    /// that took it.
    pub(super) async fn append_elsewhere(
        &self,
        bytes: Bytes,
        problem: ChunkError,
    ) -> Result<(Extent, OwnedChunk), FilesError> {
        let (mut pause, mut problem) = (RETRY_PAUSE, problem);
        for _ in 1..ATTEMPTS_MAX {
            tokio::time::sleep(pause).await;
            pause *= 2;
            let mut chunk = self.take().await?;
            let Some(grant) = chunk.reserve(bytes.len()) else { continue };
            match self.append_to(grant, bytes.clone()).await {
                Ok(extent) => return Ok((extent, chunk)),
                Err(error) => {
                    problem = error;
                    chunk.retire();
                }
            }
        }
        Err(problem.into())
    }
}

/// An append to a shared chunk that is under way.
struct SharedUse<'a> {
    pool: &'a ChunkPool,
    chunk: ChunkId,
}

impl Drop for SharedUse<'_> {
    fn drop(&mut self) {
        self.pool.end_shared(self.chunk);
    }
}

/// A chunk that one writer has for itself; the pool gets it back when it is dropped.
pub(super) struct OwnedChunk {
    pool: ChunkPool,
    chunk: OpenChunk,
}

impl OwnedChunk {
    pub(super) fn id(&self) -> ChunkId {
        self.chunk.id()
    }

    /// Counts a piece in, and answers where to append it; `None` when there is no room for it.
    pub(super) fn reserve(&mut self, bytes: usize) -> Option<Grant> {
        self.chunk.reserve(bytes).then_some(self.chunk.grant)
    }

    /// An append failed: nobody uses the chunk again.
    pub(super) fn retire(self) {
        self.pool.retire(self.chunk.id());
    }
}

impl Drop for OwnedChunk {
    fn drop(&mut self) {
        self.pool.give_back(self.chunk);
    }
}
