//! A node's chunkserver: what it does for writers, readers, other chunkservers and the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use onefold_transport::{CallError, Class, Peers, RemoteCode, RemoteError, Router};
use onefold_types::limits::CHUNK_BYTES_MAX;
use onefold_types::{ChunkId, NodeId};

use super::PIECE_BYTES_MAX;
use super::error::ChunkError;
use super::methods::{
    self, Append, At, CopyRequest, CreateRequest, DeleteRequest, FenceRequest, ReadRequest,
    SealRequest, Write, WriteRequest,
};
use super::store::{ChunkStore, ReplicaReport};

/// How long a primary waits for a secondary to have a piece on disk.
const SECONDARY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one read of a replica may take.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a primary may order appends without having heard from the leader (GFS section 3.1
/// grants leases of 60 s; a shorter one only costs heartbeats).
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// Pieces of a copy that are fetched ahead.
const COPY_AHEAD: usize = 4;

/// Copies that a node makes at once.
const COPIES_MAX: usize = 4;

/// Bodies up to this size travel beside small calls and not behind bulk data.
const SMALL_BODY_BYTES: usize = 64 << 10;

/// A node's chunkserver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ChunkServer(Arc<Inner>);

struct Inner {
    store: ChunkStore,
    peers: Peers,
    /// The newest leader's term: older leaders' commands are refused.
    term: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Until when this node may act as a primary.
    lease_until: Instant,
    /// The secondaries of open chunks whose primary this node is.
    secondaries: BTreeMap<ChunkId, Vec<NodeId>>,
    /// Chunks that are being copied to this node.
    copying: BTreeSet<ChunkId>,
}

/// The connection for a body of this size.
pub(crate) fn class(bytes: usize) -> Class {
    if bytes <= SMALL_BODY_BYTES { Class::Call } else { Class::Bulk }
}

/// The typed error within a failed call of a chunkserver's method.
pub(crate) fn chunk_error(chunk: ChunkId, node: NodeId, error: &CallError) -> ChunkError {
    if let CallError::Remote(remote) = error
        && let Some(error) = remote.detail()
    {
        return error;
    }
    ChunkError::Unreachable { chunk, node, reason: error.to_string() }
}

fn remote(error: ChunkError) -> RemoteError {
    let code = match &error {
        ChunkError::NotFound { .. } => RemoteCode::NotFound,
        ChunkError::Stale { .. } | ChunkError::Deposed { .. } => RemoteCode::Stale,
        ChunkError::NotWritable { .. } | ChunkError::Full { .. } => RemoteCode::Conflict,
        ChunkError::OutOfRange { .. } => RemoteCode::Invalid,
        ChunkError::Corrupt { .. } | ChunkError::Foreign { .. } => RemoteCode::Corrupt,
        ChunkError::NoSpace { .. } => RemoteCode::Exhausted,
        ChunkError::Io { .. } => RemoteCode::Internal,
        ChunkError::Unreachable { .. } => RemoteCode::Unavailable,
    };
    RemoteError::new(code, error.to_string()).with_detail(&error)
}

impl ChunkServer {
    /// A chunkserver over a node's replicas.
    pub(crate) fn new(store: ChunkStore, peers: Peers) -> Self {
        let state = State {
            lease_until: Instant::now(),
            secondaries: BTreeMap::new(),
            copying: BTreeSet::new(),
        };
        let (term, state) = (AtomicU64::new(0), Mutex::new(state));
        Self(Arc::new(Inner { store, peers, term, state }))
    }

    /// The replicas.
    pub(crate) fn store(&self) -> &ChunkStore {
        &self.0.store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> NodeId {
        self.0.store.node()
    }

    /// The leader answered a heartbeat that was sent at this time.
    pub(crate) fn renew_lease(&self, sent: Instant) {
        let mut state = self.state();
        state.lease_until = state.lease_until.max(sent + LEASE);
    }

    /// Obeys no leader of an older term from now on.
    fn obey(&self, term: u64) -> Result<(), ChunkError> {
        let current = self.0.term.fetch_max(term, Ordering::Relaxed);
        if term < current {
            return Err(ChunkError::Deposed { node: self.node(), current, asked: term });
        }
        Ok(())
    }

    pub(crate) async fn create(&self, request: CreateRequest) -> Result<(), ChunkError> {
        self.obey(request.term)?;
        let At { chunk, version } = request.at;
        self.0.store.create(chunk, version).await?;
        self.state().secondaries.insert(chunk, request.secondaries);
        Ok(())
    }

    /// As the primary: appends a piece on every replica, and answers its offset when it is durable
    /// on all of them. After an error the chunk takes no more appends: the writer goes on in another
    /// one, and the leader finds out how much of this one counts.
    pub(crate) async fn append(&self, at: At, bytes: Bytes) -> Result<u64, ChunkError> {
        let (chunk, node) = (at.chunk, self.node());
        let refuse =
            move |reason: &str| ChunkError::NotWritable { chunk, node, reason: reason.to_owned() };
        let secondaries = {
            let state = self.state();
            if Instant::now() >= state.lease_until {
                return Err(refuse("its primary has not heard from the leader for too long"));
            }
            let known = state.secondaries.get(&chunk).cloned();
            known.ok_or_else(|| refuse("this node is not its primary"))?
        };
        let (offset, written) = self.0.store.order(chunk, at.version, bytes.clone())?;
        let server = self.clone();
        // Once ordered, a piece must get to every replica even if the caller goes away: the next
        // pieces lie behind it.
        let task = tokio::spawn(async move {
            let own =
                async { written.await.unwrap_or_else(|_| Err(refuse("the node is stopping"))) };
            let request = WriteRequest { at, offset };
            let forwards =
                secondaries.iter().map(|to| server.forward(*to, &request, bytes.clone()));
            let done = futures::try_join!(own, try_join_all(forwards));
            if let Err(error) = &done {
                tracing::warn!(%error, "an append failed; its chunk is given up");
                server.0.store.give_up(chunk, &format!("an append failed: {error}"));
                server.state().secondaries.remove(&chunk);
            }
            done.map(|_| offset)
        });
        task.await.unwrap_or_else(|_| Err(refuse("the node is stopping")))
    }

    async fn forward(
        &self,
        to: NodeId,
        request: &WriteRequest,
        bytes: Bytes,
    ) -> Result<(), ChunkError> {
        let class = class(bytes.len());
        let call = self.0.peers.call::<Write>(to, class, request, bytes, SECONDARY_TIMEOUT);
        call.await.map(drop).map_err(|error| chunk_error(request.at.chunk, to, &error))
    }

    pub(crate) async fn read(&self, request: ReadRequest) -> Result<Bytes, ChunkError> {
        let ReadRequest { at: At { chunk, version }, offset, length } = request;
        let (end, node) = (offset.saturating_add(length.into()), self.node());
        if length as usize > 2 * PIECE_BYTES_MAX || end > CHUNK_BYTES_MAX {
            return Err(ChunkError::OutOfRange {
                chunk,
                node,
                length: CHUNK_BYTES_MAX,
                asked: end,
            });
        }
        self.0.store.read(chunk, version, offset, length as usize).await
    }

    pub(crate) async fn fence(&self, request: FenceRequest) -> Result<ReplicaReport, ChunkError> {
        self.obey(request.term)?;
        self.state().secondaries.remove(&request.at.chunk);
        self.0.store.fence(request.at.chunk, request.at.version).await
    }

    pub(crate) async fn seal(&self, request: SealRequest) -> Result<(), ChunkError> {
        self.obey(request.term)?;
        self.state().secondaries.remove(&request.at.chunk);
        self.0.store.seal(request.at.chunk, request.at.version, request.length).await
    }

    pub(crate) async fn delete(&self, request: DeleteRequest) -> Result<(), ChunkError> {
        self.obey(request.term)?;
        self.state().secondaries.remove(&request.chunk);
        self.0.store.delete(request.chunk).await
    }

    /// Makes a replica of a sealed chunk from those of the sources, every block of it verified
    /// where it is read.
    pub(crate) async fn copy(&self, request: CopyRequest) -> Result<(), ChunkError> {
        self.obey(request.term)?;
        let At { chunk, version } = request.at;
        let _turn = self.begin_copy(chunk)?;
        if let Some(have) = self.0.store.stat(chunk)
            && have.sealed
            && have.length == request.length
            && !have.damaged
        {
            return Ok(());
        }
        let copy = self.0.store.start_copy(chunk, version).await?;
        let starts = (0..request.length).step_by(PIECE_BYTES_MAX);
        let pieces = starts.map(|offset| {
            let length = (request.length - offset).min(PIECE_BYTES_MAX as u64) as u32;
            self.fetch(&request.sources, ReadRequest { at: request.at, offset, length })
        });
        let batches = futures::stream::iter(pieces).buffered(COPY_AHEAD);
        let mut batches = batches.try_chunks(COPY_AHEAD);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| error.1)?;
            self.0.store.extend_copy(&copy, batch).await?;
        }
        drop(batches);
        self.0.store.finish_copy(copy, request.length).await
    }

    fn begin_copy(&self, chunk: ChunkId) -> Result<CopyTurn, ChunkError> {
        let mut state = self.state();
        let reason = if state.copying.len() >= COPIES_MAX {
            "this node makes as many copies as it may"
        } else if !state.copying.insert(chunk) {
            "it is being copied already"
        } else {
            return Ok(CopyTurn { server: self.clone(), chunk });
        };
        Err(ChunkError::NotWritable { chunk, node: self.node(), reason: reason.to_owned() })
    }

    async fn fetch(&self, sources: &[NodeId], request: ReadRequest) -> Result<Bytes, ChunkError> {
        let chunk = request.at.chunk;
        let mut last = ChunkError::NotFound { chunk, node: self.node() };
        for &source in sources {
            match read_from(&self.0.peers, source, &request).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Enters the chunkserver's methods into the node's router.
    pub(crate) fn register(&self, router: &mut Router) {
        let server = self.clone();
        router.call::<methods::Create, _, _>(move |_, request, _| {
            let server = server.clone();
            async move { reply(server.create(request).await) }
        });
        let server = self.clone();
        router.call::<Append, _, _>(move |_, request, body| {
            let server = server.clone();
            async move { reply(server.append(request, body).await) }
        });
        let server = self.clone();
        router.call::<Write, _, _>(move |_, request, body| {
            let store = server.0.store.clone();
            let WriteRequest { at: At { chunk, version }, offset } = request;
            async move { reply(store.accept(chunk, version, offset, body).await) }
        });
        let server = self.clone();
        router.call::<methods::Read, _, _>(move |_, request, _| {
            let server = server.clone();
            async move { Ok(((), server.read(request).await.map_err(remote)?)) }
        });
        let server = self.clone();
        router.call::<methods::Fence, _, _>(move |_, request, _| {
            let server = server.clone();
            async move { reply(server.fence(request).await) }
        });
        let server = self.clone();
        router.call::<methods::Seal, _, _>(move |_, request, _| {
            let server = server.clone();
            async move { reply(server.seal(request).await) }
        });
        let server = self.clone();
        router.call::<methods::Copy, _, _>(move |_, request, _| {
            let server = server.clone();
            async move { reply(server.copy(request).await) }
        });
        let server = self.clone();
        router.call::<methods::Delete, _, _>(move |_, request, _| {
            let server = server.clone();
            async move { reply(server.delete(request).await) }
        });
        let server = self.clone();
        router.call::<methods::Stat, _, _>(move |_, request, _| {
            let found = server.0.store.stat(request);
            async move { Ok((found, Bytes::new())) }
        });
    }
}

fn reply<T>(result: Result<T, ChunkError>) -> Result<(T, Bytes), RemoteError> {
    result.map(|value| (value, Bytes::new())).map_err(remote)
}

/// Reads from a replica of another node.
pub(crate) async fn read_from(
    peers: &Peers,
    node: NodeId,
    request: &ReadRequest,
) -> Result<Bytes, ChunkError> {
    let (chunk, asked) = (request.at.chunk, request.length as usize);
    let class = class(asked);
    let call = peers.call::<methods::Read>(node, class, request, Bytes::new(), READ_TIMEOUT);
    let ((), body) = call.await.map_err(|error| chunk_error(chunk, node, &error))?;
    if body.len() != asked {
        let reason = format!("{} bytes came instead of {asked}", body.len());
        return Err(ChunkError::Corrupt { chunk, node, reason });
    }
    Ok(body)
}

/// The right to copy a chunk to this node; given back when dropped.
struct CopyTurn {
    server: ChunkServer,
    chunk: ChunkId,
}

impl Drop for CopyTurn {
    fn drop(&mut self) {
        self.server.state().copying.remove(&self.chunk);
    }
}
