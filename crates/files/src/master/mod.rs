//! What the namespace's leader does besides answering commands: it places chunks, seals them, and
//! keeps every chunk replicated. GFS's master, elected anew when it dies.
//!
//! What it knows of chunkservers is soft state, learned from their heartbeats; whatever matters is a
//! command to the namespace. So two leaders at once, or one that died half-way, can do no harm:
//! versions decide which replicas count, and chunkservers refuse a deposed leader's orders.

pub(crate) mod methods;
mod plan;
mod repair;
mod seal;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_transport::{Class, Peers, RemoteCode, RemoteError, Router};
use onefold_types::limits::CHUNK_REPLICAS;
use onefold_types::{ChunkId, NodeId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::methods::{Allocate, GetUsage, Grant, Heartbeat, HeartbeatRequest, SealChunks};
use self::servers::{DEAD_AFTER_MS, NoPlace, Servers};
use crate::api::{FilesError, Usage};
use crate::chunk::methods::{At, Create, CreateRequest};
use crate::chunk::{ChunkError, ChunkServer, LEASE, chunk_error};
use crate::commands::Commands;
use crate::namespace::{ChunkState, Command, Query, Reply};

/// How often the leader looks after its chunks.
const TICK: Duration = Duration::from_secs(1);

/// How long creating a replica may take.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);

/// Placements that are tried for one chunk.
const PLACEMENTS_MAX: usize = 4;

/// How long an allocation waits for chunkservers to be heard of.
const SERVERS_WAIT: Duration = Duration::from_secs(3);

/// An open chunk is sealed when its writer has not been heard of for this long: its primary has
/// stopped by itself before.
const ABANDONED_AFTER_MS: u64 = LEASE.as_millis() as u64 + 2_000;

/// How long a new leader waits for more chunkservers than it needs: those that live greet it at once.
const GREETING_WAIT: Duration = Duration::from_millis(500);

/// Open chunks that are looked at in one step.
const OPEN_PAGE: usize = 500;

/// Settings of the leader's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MasterConfig {
    /// How long bytes stay that nothing refers to any more.
    pub(crate) garbage_grace: Duration,
}

/// The leader's side of the file system; it runs on every node and acts on the one that leads.
/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Master(Arc<Inner>);

struct Inner {
    commands: Commands,
    chunks: ChunkServer,
    peers: Peers,
    config: MasterConfig,
    began: Instant,
    state: Mutex<State>,
    /// Nodes that leave the cluster or have left it; every node is told, whoever leads.
    leaving: RwLock<BTreeSet<NodeId>>,
    copies: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Soft state; forgotten when another term begins.
#[derive(Default)]
struct State {
    term: u64,
    /// When this leadership began, in milliseconds on its clock.
    since_ms: u64,
    servers: Servers,
    /// When the writers of open chunks were last heard of.
    leases: BTreeMap<ChunkId, u64>,
    /// Chunks that are being sealed now.
    sealing: BTreeSet<ChunkId>,
    /// Open chunks that could be sealed on what answers, since when that is tried.
    seals: BTreeMap<ChunkId, u64>,
    repair: repair::State,
}

impl Master {
    pub(crate) fn new(
        commands: Commands,
        chunks: ChunkServer,
        peers: Peers,
        config: MasterConfig,
        shutdown: CancellationToken,
    ) -> Self {
        let copies = Arc::new(Semaphore::new(repair::COPIES_MAX));
        let (state, leaving) = (Mutex::default(), RwLock::default());
        let (tasks, began) = (TaskTracker::new(), Instant::now());
        Self(Arc::new(Inner {
            commands,
            chunks,
            peers,
            config,
            began,
            state,
            leaving,
            copies,
            tasks,
            shutdown,
        }))
    }

    fn now(&self) -> u64 {
        // Never zero, which stands for "not yet".
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn node(&self) -> NodeId {
        self.0.chunks.store().node()
    }

    /// Replaces the set of nodes that leave or have left.
    pub(crate) fn set_leaving(&self, nodes: BTreeSet<NodeId>) {
        *self.0.leaving.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    fn leaving(&self) -> BTreeSet<NodeId> {
        self.0.leaving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where replicas can be.
    fn nodes(&self, term: u64) -> plan::Nodes {
        let alive = self.state(term).servers.alive(self.now());
        plan::Nodes { alive, leaving: self.leaving() }
    }

    /// The soft state of the present leadership.
    fn state(&self, term: u64) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.term < term {
            *state = State { term, since_ms: self.now(), ..State::default() };
        }
        state
    }

    /// The term that this node leads in.
    fn term(&self) -> Result<u64, FilesError> {
        let leadership = *self.0.commands.group().leadership().borrow();
        if leadership.is_self {
            return Ok(leadership.term.get());
        }
        let reason = "this node does not lead the namespace".to_owned();
        Err(FilesError::Unavailable { reason })
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.0.shutdown.clone();
        self.0.tasks.spawn(async move {
            let _ = shutdown.run_until_cancelled(work).await;
        });
    }

    /// Works until shutdown whenever this node leads.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.0.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let Ok(term) = self.term() else { continue };
            for result in
                [self.seal_abandoned(term).await, self.repair(term).await, self.collect(term).await]
            {
                if let Err(error) = result {
                    tracing::warn!(%error, "looking after the chunks was interrupted");
                }
            }
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Takes up a chunkserver's heartbeat.
    fn heartbeat(&self, request: HeartbeatRequest) -> Result<(), FilesError> {
        let (term, now) = (self.term()?, self.now());
        let mut state = self.state(term);
        let HeartbeatRequest { node, free_bytes, used_bytes, chunks, writing, damaged, page } =
            request;
        state.servers.heard(node, now, (free_bytes, used_bytes, chunks));
        for chunk in writing {
            state.leases.insert(chunk, now);
        }
        let is_free = state.repair.begin_examination(node);
        drop(state);
        if is_free {
            let master = self.clone();
            self.spawn(async move {
                if let Err(error) = master.examine_report(term, node, damaged, page).await {
                    tracing::warn!(%node, %error, "a chunk report was not worked through");
                }
                master.state(term).repair.end_examination(node);
            });
        }
        Ok(())
    }

    /// Places a new chunk for a writer and creates its replicas.
    pub(crate) async fn allocate(&self, writer: NodeId) -> Result<Grant, FilesError> {
        let mut problem = None;
        for _ in 0..PLACEMENTS_MAX {
            let term = self.term()?;
            let replicas = self.place(term, writer).await?;
            match self.try_allocate(term, writer, replicas).await? {
                Ok(grant) => return Ok(grant),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.expect("at least one placement is tried").into())
    }

    /// Nodes for a new chunk. A new leader first has to hear of them.
    async fn place(&self, term: u64, writer: NodeId) -> Result<Vec<NodeId>, FilesError> {
        let until = Instant::now() + SERVERS_WAIT;
        let hosts = self.hosts();
        loop {
            let leaving = self.leaving();
            let placed = {
                let state = self.state(term);
                let members = state.servers.members(&hosts).difference(&leaving).count();
                let needed = if members <= 1 { 1 } else { 2 };
                let full = members.min(CHUNK_REPLICAS);
                let now = self.now();
                let placed = state.servers.place(now, writer, &leaving, CHUNK_REPLICAS, needed);
                // Just elected: whoever was not heard yet may be alive all the same.
                let is_new = self.now() - state.since_ms < GREETING_WAIT.as_millis() as u64;
                placed.map(|nodes| (nodes.len() >= full || !is_new).then_some(nodes))
            };
            match placed {
                Ok(Some(nodes)) => return Ok(nodes),
                Ok(None) => {}
                Err(NoPlace::TooFew { .. }) if Instant::now() < until => {}
                Err(NoPlace::TooFew { alive, needed }) => {
                    let reason =
                        format!("{needed} chunkservers are needed for new data, {alive} answer");
                    return Err(FilesError::Unavailable { reason });
                }
                Err(NoPlace::NoSpace { full }) => {
                    let nodes: Vec<_> = full.iter().map(ToString::to_string).collect();
                    let reason = format!("the disks of nodes {} are full", nodes.join(", "));
                    return Err(FilesError::NoSpace { reason });
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn try_allocate(
        &self,
        term: u64,
        writer: NodeId,
        replicas: Vec<NodeId>,
    ) -> Result<Result<Grant, ChunkError>, FilesError> {
        let command = Command::Allocate { replicas: replicas.clone(), writer };
        let Reply::Chunk { chunk, record: Some(record), .. } =
            self.0.commands.run(&command).await?
        else {
            let reason = "allocation answered no chunk".to_owned();
            return Err(FilesError::Internal { reason });
        };
        let now = self.now();
        {
            let mut state = self.state(term);
            state.leases.insert(chunk, now);
            state.servers.opened(chunk, &replicas);
        }
        let at = At { chunk, version: record.version };
        let creations = replicas.iter().map(|node| self.create_replica(term, at, *node, &replicas));
        let created = futures::future::join_all(creations).await;
        let mut problem = None;
        for (node, result) in replicas.iter().zip(created) {
            if let Err(error) = result {
                tracing::warn!(%node, %error, "a chunk is placed elsewhere");
                self.state(term).servers.suspect(*node);
                problem = Some(error);
            }
        }
        match problem {
            None => Ok(Ok(Grant { at, primary: record.primary })),
            Some(error) => {
                self.seal_soon(chunk);
                Ok(Err(error))
            }
        }
    }

    async fn create_replica(
        &self,
        term: u64,
        at: At,
        node: NodeId,
        replicas: &[NodeId],
    ) -> Result<(), ChunkError> {
        let secondaries = replicas[1..].to_vec();
        let request = CreateRequest { term, at, secondaries };
        if node == self.node() {
            return self.0.chunks.create(request).await;
        }
        let call =
            self.0.peers.call::<Create>(node, Class::Call, &request, Bytes::new(), CREATE_TIMEOUT);
        call.await.map(drop).map_err(|error| chunk_error(at.chunk, node, &error))
    }

    /// Seals open chunks whose writers are gone or that lose a replica, and goes on with seals that
    /// were interrupted.
    async fn seal_abandoned(&self, term: u64) -> Result<(), FilesError> {
        let view = self.0.commands.view().await?;
        let query = Query(&view);
        let leaving = self.leaving();
        let (mut after, mut open) = (None, BTreeSet::new());
        loop {
            let chunks = query.open_chunks(after, OPEN_PAGE)?;
            after = chunks.last().copied();
            let is_last = chunks.len() < OPEN_PAGE;
            for chunk in chunks {
                open.insert(chunk);
                let Some(record) = query.chunk(chunk)? else { continue };
                let now = self.now();
                let mut state = self.state(term);
                state.servers.opened(chunk, &record.replicas);
                let heard = *state.leases.entry(chunk).or_insert(now);
                let is_abandoned = now.saturating_sub(heard) > ABANDONED_AFTER_MS;
                // Only sealed chunks are replicated again.
                let may_be_dead = now.saturating_sub(state.since_ms) >= DEAD_AFTER_MS;
                let lost_one = may_be_dead
                    && record.replicas.iter().any(|node| !state.servers.is_alive(*node, now));
                drop(state);
                let loses_one = record.replicas.iter().any(|node| leaving.contains(node));
                if record.state == ChunkState::Sealing || is_abandoned || lost_one || loses_one {
                    self.seal_soon(chunk);
                }
            }
            if is_last {
                break;
            }
        }
        // Forget what is not open any more; what was placed since the view was taken comes again.
        let mut state = self.state(term);
        state.seals.retain(|chunk, _| open.contains(chunk));
        let gone: Vec<_> =
            state.leases.keys().filter(|chunk| !open.contains(chunk)).copied().collect();
        for chunk in gone {
            let placed = state.leases.get(&chunk).copied().unwrap_or_default();
            if self.now().saturating_sub(placed) > ABANDONED_AFTER_MS {
                state.leases.remove(&chunk);
                state.servers.closed(chunk);
            }
        }
        Ok(())
    }

    /// Enters the leader's methods into the node's router.
    pub(crate) fn register(&self, router: &mut Router) {
        let master = self.clone();
        router.call::<Heartbeat, _, _>(move |_, request, _| {
            let answer = master.heartbeat(request);
            async move { leader_only(answer).map(|()| ((), Bytes::new())) }
        });
        let master = self.clone();
        router.call::<Allocate, _, _>(move |_, writer, _| {
            let master = master.clone();
            async move {
                leader_only(master.term())?;
                Ok((master.allocate(writer).await, Bytes::new()))
            }
        });
        let master = self.clone();
        router.call::<SealChunks, _, _>(move |_, chunks, _| {
            let master = master.clone();
            async move {
                leader_only(master.term())?;
                chunks.into_iter().for_each(|chunk| master.seal_soon(chunk));
                Ok(((), Bytes::new()))
            }
        });
        let master = self.clone();
        router.call::<GetUsage, _, _>(move |_, (), _| {
            let master = master.clone();
            async move {
                leader_only(master.term())?;
                Ok((master.usage().await, Bytes::new()))
            }
        });
    }
}

fn leader_only<T>(result: Result<T, FilesError>) -> Result<T, RemoteError> {
    result.map_err(|error| RemoteError::new(RemoteCode::NotLeader, error.to_string()))
}

/// The leader as any node reaches it.
#[derive(Clone)]
pub(crate) struct Leader {
    pub(crate) master: Master,
}

impl Leader {
    const RETRY: Duration = Duration::from_millis(50);
    const TIMEOUT: Duration = Duration::from_secs(12);

    /// Calls the leader, whoever it is by then, until it answers or the time is over.
    async fn call<M: onefold_transport::Method>(
        &self,
        request: &M::Request,
    ) -> Result<M::Response, FilesError> {
        let until = Instant::now() + Self::TIMEOUT;
        let group = self.master.0.commands.group();
        loop {
            let leader = group.leadership().borrow().leader;
            let problem = match leader {
                None => "the namespace has no leader".to_owned(),
                Some(leader) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let peers = &self.master.0.peers;
                    let call =
                        peers.call::<M>(leader, Class::Call, request, Bytes::new(), left).await;
                    match call {
                        Ok((response, _)) => return Ok(response),
                        Err(error) => error.to_string(),
                    }
                }
            };
            if Instant::now() + Self::RETRY >= until {
                return Err(FilesError::Unavailable { reason: problem });
            }
            tokio::time::sleep(Self::RETRY).await;
        }
    }

    pub(crate) async fn allocate(&self, writer: NodeId) -> Result<Grant, FilesError> {
        if self.master.term().is_ok() {
            return self.master.allocate(writer).await;
        }
        self.call::<Allocate>(&writer).await?
    }

    pub(crate) async fn seal(&self, chunks: Vec<ChunkId>) -> Result<(), FilesError> {
        if self.master.term().is_ok() {
            chunks.into_iter().for_each(|chunk| self.master.seal_soon(chunk));
            return Ok(());
        }
        self.call::<SealChunks>(&chunks).await
    }

    pub(crate) async fn usage(&self) -> Result<Usage, FilesError> {
        if self.master.term().is_ok() {
            return self.master.usage().await;
        }
        self.call::<GetUsage>(&()).await?
    }

    /// Sends a heartbeat once; the next one comes soon.
    pub(crate) async fn heartbeat(
        &self,
        request: HeartbeatRequest,
        timeout: Duration,
    ) -> Result<(), FilesError> {
        if self.master.term().is_ok() {
            return self.master.heartbeat(request);
        }
        let unavailable = |reason: String| FilesError::Unavailable { reason };
        let leader = self.master.0.commands.group().leadership().borrow().leader;
        let leader = leader.ok_or_else(|| unavailable("the namespace has no leader".to_owned()))?;
        let peers = &self.master.0.peers;
        let call =
            peers.call::<Heartbeat>(leader, Class::Call, &request, Bytes::new(), timeout).await;
        call.map(drop).map_err(|error| unavailable(error.to_string()))
    }
}
