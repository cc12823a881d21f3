//! What a node runs for files: its chunkserver, its share of the leader's work, its heartbeat.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onefold_replica::Group;
use onefold_transport::{Peers, Router};
use onefold_types::{ChunkId, ClusterId, NodeId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::LocalFiles;
use crate::chunk::{ChunkServer, ChunkStore, StoreError};
use crate::commands::Commands;
use crate::master::methods::{HeartbeatRequest, ReportPage};
use crate::master::{Leader, Master, MasterConfig};
use crate::namespace::{COMMAND_CHUNKS_MAX, Command};
use crate::read::ChunkReader;
use crate::remote::RemoteService;
use crate::write::{ChunkPool, HeldChunks};

/// How often a chunkserver tells that it lives (GFS section 3.1: HeartBeat messages).
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a heartbeat may take.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// Replicas in one page of a report.
const REPORT_PAGE: usize = 1000;

/// Heartbeats between two rounds of reports once a leader has heard everything.
const QUIET_HEARTBEATS: u32 = 10;

/// Damaged replicas in one heartbeat.
const DAMAGED_MAX: usize = 100;

/// How often the namespace hears which unfinished files' chunks are still needed.
const TOUCH: Duration = Duration::from_secs(60);

/// Settings of a node's files.
#[derive(Clone, Debug)]
pub struct FilesConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster whose chunks the folder holds.
    pub cluster: ClusterId,
    /// The folder for chunks; created if it does not exist.
    pub folder: PathBuf,
    /// How long removed bytes stay for readers that have their file open.
    pub garbage_grace: Duration,
}

impl FilesConfig {
    /// Several touches fit into the grace, so that none may be late.
    pub const GARBAGE_GRACE: Duration = Duration::from_secs(600);

    /// The defaults.
    pub fn new(node: NodeId, cluster: ClusterId, folder: PathBuf) -> Self {
        Self { node, cluster, folder, garbage_grace: Self::GARBAGE_GRACE }
    }
}

/// The file system's part of a node; its work ends when it is dropped.
pub struct FilesNode {
    files: LocalFiles,
    chunks: ChunkServer,
    master: Master,
    remote: RemoteService,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl FilesNode {
    /// Opens the node's chunks and starts its work. `group` is the namespace's group on this node.
    /// The methods have to be registered before the node's server serves.
    ///
    /// # Errors
    /// When the folder cannot be used or is not this cluster's.
    pub async fn start(
        config: FilesConfig,
        group: Group,
        peers: Peers,
    ) -> Result<Self, StoreError> {
        let FilesConfig { node, cluster, folder, garbage_grace } = config;
        let path = folder.clone();
        let opening = tokio::task::spawn_blocking(move || ChunkStore::open(&folder, cluster, node));
        let store = opening.await.unwrap_or_else(|error| {
            Err(StoreError::Io { path, source: std::io::Error::other(error) })
        })?;
        let chunks = ChunkServer::new(store, peers.clone());
        let commands = Commands::new(group);
        let shutdown = CancellationToken::new();
        let master = Master::new(
            commands.clone(),
            chunks.clone(),
            peers.clone(),
            MasterConfig { garbage_grace },
            shutdown.clone(),
        );
        let leader = Leader { master: master.clone() };
        let pool = ChunkPool::new(chunks.clone(), peers.clone(), leader.clone());
        let reader = ChunkReader::new(commands.clone(), chunks.clone(), peers);
        let held = HeldChunks::default();
        let files = LocalFiles { commands, pool, held, reader, leader };
        let remote = RemoteService::new(files.clone());
        let tasks = TaskTracker::new();
        let started = Self { files, chunks, master, remote, tasks, shutdown };
        started.tasks.spawn(started.master.clone().run());
        started.tasks.spawn(started.heartbeat().run());
        started.tasks.spawn(touch(started.files.clone(), started.shutdown.clone()));
        started.tasks.spawn(started.remote.clone().expire(started.shutdown.clone()));
        Ok(started)
    }

    /// Enters the methods of chunkserver, leader and clients into the node's router.
    pub fn register(&self, router: &mut Router) {
        self.chunks.register(router);
        self.master.register(router);
        self.remote.register(router);
    }

    /// The file system, for gateways on this node.
    pub fn files(&self) -> LocalFiles {
        self.files.clone()
    }

    /// Tells which nodes leave the cluster, or have left it: they get no new chunks, and what they
    /// hold is made anew on others. Every node has to be told, since any may lead the namespace.
    /// [`Usage::leaving`](crate::Usage::leaving) shows how far that is.
    pub fn set_leaving(&self, nodes: BTreeSet<NodeId>) {
        self.master.set_leaving(nodes);
    }

    /// Stops the node's work and waits until it has ended.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn heartbeat(&self) -> HeartbeatLoop {
        HeartbeatLoop {
            files: self.files.clone(),
            chunks: self.chunks.clone(),
            shutdown: self.shutdown.clone(),
            cursor: None,
            quiet: 0,
        }
    }
}

/// Tells the namespace which chunks of unfinished files are still needed.
async fn touch(files: LocalFiles, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(TOUCH)).await.is_some() {
        for chunks in files.held.chunks().chunks(COMMAND_CHUNKS_MAX) {
            let command = Command::Touch { chunks: chunks.to_vec() };
            if let Err(error) = files.commands.run(&command).await {
                tracing::warn!(%error, "chunks of unfinished files were not touched");
            }
        }
    }
}

impl Drop for FilesNode {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

struct HeartbeatLoop {
    files: LocalFiles,
    chunks: ChunkServer,
    shutdown: CancellationToken,
    /// Where the next page of the report starts.
    cursor: Option<ChunkId>,
    /// Heartbeats before the next round of reports.
    quiet: u32,
}

impl HeartbeatLoop {
    async fn run(mut self) {
        let mut leadership = self.files.commands.group().leadership();
        let mut ticks = tokio::time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                // A new leader knows nothing yet.
                Ok(()) = leadership.changed() => {
                    (self.cursor, self.quiet) = (None, 0);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.beat() => {}
            }
        }
    }

    async fn beat(&mut self) {
        let store = self.chunks.store();
        let (chunks, used_bytes) = store.used();
        let (page, next) = if self.quiet == 0 {
            let (replicas, is_last) = store.page(self.cursor, REPORT_PAGE);
            let through = replicas.last().filter(|_| !is_last).map(|report| report.chunk);
            (Some(ReportPage { after: self.cursor, through, replicas }), through)
        } else {
            (None, self.cursor)
        };
        let request = HeartbeatRequest {
            node: store.node(),
            free_bytes: store.free_bytes().await,
            used_bytes,
            chunks,
            writing: self.files.pool.writing(),
            damaged: store.damaged(DAMAGED_MAX),
            page,
        };
        let sent = Instant::now();
        match self.files.leader.heartbeat(request, HEARTBEAT_TIMEOUT).await {
            Ok(()) => {
                self.chunks.renew_lease(sent);
                let was_last = self.quiet == 0 && next.is_none();
                self.cursor = next;
                self.quiet = if was_last { QUIET_HEARTBEATS } else { self.quiet.saturating_sub(1) };
            }
            Err(error) => tracing::debug!(%error, "a heartbeat was not heard"),
        }
    }
}
