//! What a node runs for MapReduce: its candidate for coordinator, its worker, its interface.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use onefold_files::FileSystem;
use onefold_kv::Kv;
use onefold_transport::{Peers, RemoteCode, RemoteError, Router};
use onefold_types::NodeId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::local::LocalMapReduce;
use super::methods::{
    CancelMethod, FetchMethod, HeartbeatMethod, ListMethod, LogsMethod, NodeLogsMethod,
    StatusMethod, SubmitMethod, to_remote,
};
use crate::api::{MapReduce, MapReduceError};
use crate::coordinator::{Coordinator, Store};
use crate::task::TaskLimits;
use crate::timing::Timing;
use crate::worker::{Worker, WorkerConfig};

/// MapReduce's part of a node.
pub struct MapReduceNode {
    local: LocalMapReduce,
    coordinator: Coordinator,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a node's part is made of; tests make it smaller and faster.
pub(crate) struct Settings {
    pub(crate) slots: u32,
    pub(crate) limits: TaskLimits,
    pub(crate) timing: Timing,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            slots: u32::try_from(cores).unwrap_or(u32::MAX),
            limits: TaskLimits::default(),
            timing: Timing::default(),
        }
    }
}

impl MapReduceNode {
    /// Starts working. `folder` is the node's own, for map output, scratch files and logs; `kv` is
    /// the system keyspace. The methods have to be registered before the node's server serves.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub async fn start(
        node: NodeId,
        folder: PathBuf,
        kv: Arc<dyn Kv>,
        files: Arc<dyn FileSystem>,
        peers: Peers,
    ) -> Result<Self, MapReduceError> {
        Self::start_with(node, folder, kv, files, peers, Settings::default()).await
    }

    pub(crate) async fn start_with(
        node: NodeId,
        folder: PathBuf,
        kv: Arc<dyn Kv>,
        files: Arc<dyn FileSystem>,
        peers: Peers,
        settings: Settings,
    ) -> Result<Self, MapReduceError> {
        let Settings { slots, limits, timing } = settings;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let store = Store::new(kv);
        let coordinator = Coordinator::start(
            node,
            store.clone(),
            files.clone(),
            peers.clone(),
            timing,
            &tasks,
            stop.clone(),
        );
        let config = WorkerConfig { node, folder, slots, limits, timing };
        let (worker_files, worker_peers) = (files.clone(), peers.clone());
        let (for_worker, worker_tasks, worker_stop) =
            (coordinator.clone(), tasks.clone(), stop.clone());
        // Opening the folder may remove much.
        let runtime = tokio::runtime::Handle::current();
        let started = tokio::task::spawn_blocking(move || {
            let _guard = runtime.enter();
            let files = worker_files;
            Worker::start(config, files, worker_peers, for_worker, &worker_tasks, worker_stop)
        });
        let worker = match started.await.map_err(MapReduceError::internal).flatten() {
            Ok(worker) => worker,
            Err(error) => {
                stop.cancel();
                return Err(error);
            }
        };
        let local = LocalMapReduce { node, store, files, peers, worker };
        Ok(Self { local, coordinator, tasks, stop })
    }

    /// The interface.
    pub fn mapreduce(&self) -> Arc<dyn MapReduce> {
        Arc::new(self.local.clone())
    }

    /// Answers the calls of other nodes and of clients.
    pub fn register(&self, router: &mut Router) {
        let coordinator = self.coordinator.clone();
        router.call::<HeartbeatMethod, _, _>(move |_, heartbeat, _| {
            let coordinator = coordinator.clone();
            async move {
                let reply = coordinator.heartbeat(heartbeat).await;
                let nobody = || {
                    let reason = "the coordinator is not here, or not ready";
                    RemoteError::new(RemoteCode::Unavailable, reason)
                };
                Ok((reply.ok_or_else(nobody)?, Bytes::new()))
            }
        });
        let worker = self.local.worker.clone();
        router.call::<FetchMethod, _, _>(move |_, request, _| {
            let worker = worker.clone();
            async move { worker.fetch(request).await }
        });
        let worker = self.local.worker.clone();
        router.call::<NodeLogsMethod, _, _>(move |_, request, _| {
            let worker = worker.clone();
            async move { Ok((worker.logs(request).await, Bytes::new())) }
        });
        self.register_interface(router);
    }

    fn register_interface(&self, router: &mut Router) {
        let local = self.local.clone();
        router.call::<SubmitMethod, _, _>(move |_, request, _| {
            let local = local.clone();
            async move { answer(local.submit_as(request.spec, request.token).await) }
        });
        let local = self.local.clone();
        router.call::<StatusMethod, _, _>(move |_, job, _| {
            let local = local.clone();
            async move { answer(local.status(job).await) }
        });
        let local = self.local.clone();
        router.call::<ListMethod, _, _>(move |_, before, _| {
            let local = local.clone();
            async move { answer(local.list(before).await) }
        });
        let local = self.local.clone();
        router.call::<CancelMethod, _, _>(move |_, job, _| {
            let local = local.clone();
            async move { answer(local.cancel(job).await) }
        });
        let local = self.local.clone();
        router.call::<LogsMethod, _, _>(move |_, request, _| {
            let local = local.clone();
            async move { answer(local.logs(request).await) }
        });
    }

    /// Stops attempts and their commands, hands the coordination over, and waits for both.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn answer<T>(result: Result<T, MapReduceError>) -> Result<(T, Bytes), RemoteError> {
    result.map(|response| (response, Bytes::new())).map_err(to_remote)
}
