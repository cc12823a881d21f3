//! The worker's loop: say what is, do what is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use onefold_files::FileSystem;
use onefold_transport::{Class, Peers, RemoteError};
use onefold_types::NodeId;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempts::Workshop;
use super::folder::Folder;
use super::serve::{FetchRequest, FetchResponse, read_piece};
use crate::api::limits::LOGS_ANSWER_BYTES_MAX;
use crate::api::{AttemptLog, Counters, JobId, JobSpec, LogRequest, MapReduceError};
use crate::coordinator::{Coordinator, HeartbeatReply, WorkOrder};
use crate::job::{AttemptName, AttemptReport, Heartbeat, Report, WorkerId};
use crate::service::HeartbeatMethod;
use crate::task::{Attempt, Log, Stop, TaskLimits};
use crate::timing::Timing;

/// How long a heartbeat may take.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a worker is made of.
pub(crate) struct WorkerConfig {
    /// Its node.
    pub(crate) node: NodeId,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Attempts at once.
    pub(crate) slots: u32,
    /// Memory of each.
    pub(crate) limits: TaskLimits,
    /// How often things happen.
    pub(crate) timing: Timing,
}

/// One node's worker.
#[derive(Clone)]
pub(crate) struct Worker {
    me: WorkerId,
    folder: Folder,
}

impl Worker {
    /// Starts a new life of the worker.
    pub(crate) fn start(
        config: WorkerConfig,
        files: Arc<dyn FileSystem>,
        peers: Peers,
        coordinator: Coordinator,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, MapReduceError> {
        let folder = Folder::open(&config.folder)?;
        let me = WorkerId { node: config.node, incarnation: rand::random() };
        let timing = config.timing;
        let workshop = Workshop { me, folder: folder.clone(), files, peers, timing };
        let lanes = Loop {
            workshop,
            slots: config.slots,
            limits: config.limits,
            coordinator,
            epoch: 0,
            jobs: BTreeMap::new(),
            running: BTreeMap::new(),
            over: BTreeMap::new(),
            attempts: JoinSet::new(),
        };
        tasks.spawn(lanes.run(stop));
        Ok(Self { me, folder })
    }

    /// Hands a piece of map output to a reducer.
    pub(crate) async fn fetch(
        &self,
        request: FetchRequest,
    ) -> Result<(FetchResponse, Bytes), RemoteError> {
        let (folder, me) = (self.folder.clone(), self.me);
        let read = tokio::task::spawn_blocking(move || read_piece(&folder, me, &request));
        read.await.map_err(|error| {
            RemoteError::new(onefold_transport::RemoteCode::Unavailable, error.to_string())
        })?
    }

    /// What attempts on this node wrote to standard error.
    pub(crate) async fn logs(&self, request: LogRequest) -> Vec<AttemptLog> {
        let (folder, node) = (self.folder.clone(), self.me.node);
        let read = tokio::task::spawn_blocking(move || {
            folder.read_logs(node, request.job, request.task, LOGS_ANSWER_BYTES_MAX)
        });
        read.await.unwrap_or_default()
    }
}

/// A job of which this worker has, or had, attempts.
struct KnownJob {
    spec: Arc<JobSpec>,
    /// All attempts so far: an answer that comes late may name one again.
    started: BTreeSet<AttemptName>,
}

/// An attempt under way.
struct Running {
    attempt: Arc<Attempt>,
    activity: u64,
    active: Instant,
}

struct Loop {
    workshop: Workshop,
    slots: u32,
    limits: TaskLimits,
    coordinator: Coordinator,
    /// The highest epoch that answered.
    epoch: u64,
    jobs: BTreeMap<JobId, KnownJob>,
    running: BTreeMap<AttemptName, Running>,
    /// Attempts that are over and that the coordinator has not settled.
    over: BTreeMap<AttemptName, Report>,
    attempts: JoinSet<(AttemptName, Report)>,
}

impl Loop {
    async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.workshop.timing.heartbeat);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
                Some(ended) = self.attempts.join_next() => self.take_ended(ended),
            }
            while let Some(ended) = self.attempts.try_join_next() {
                self.take_ended(ended);
            }
            self.watch_attempts();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.beat() => {}
            }
        }
        for running in self.running.values() {
            running.attempt.stop.stop();
        }
        while self.attempts.join_next().await.is_some() {}
    }

    fn take_ended(&mut self, ended: Result<(AttemptName, Report), tokio::task::JoinError>) {
        match ended {
            Ok((name, report)) => {
                self.running.remove(&name);
                self.over.insert(name, report);
            }
            Err(error) => tracing::error!(%error, "an attempt was lost"),
        }
    }

    /// Stops attempts that have shown no sign of life for too long.
    fn watch_attempts(&mut self) {
        for running in self.running.values_mut() {
            let activity = running.attempt.stop.activity();
            let timeout = running.attempt.spec.task_timeout;
            if activity != running.activity {
                (running.activity, running.active) = (activity, Instant::now());
            } else if running.active.elapsed() >= timeout {
                running.attempt.stop.time_out(timeout.as_secs());
            }
        }
    }

    async fn beat(&mut self) {
        let Some(elected) = self.coordinator.leadership() else { return };
        let heartbeat = self.heartbeat();
        let reply = if elected.node == self.workshop.me.node {
            let reply = self.coordinator.heartbeat(heartbeat);
            tokio::time::timeout(HEARTBEAT_TIMEOUT, reply).await.ok().flatten()
        } else {
            let call = self.workshop.peers.call::<HeartbeatMethod>(
                elected.node,
                Class::Call,
                &heartbeat,
                Bytes::new(),
                HEARTBEAT_TIMEOUT,
            );
            match call.await {
                Ok((reply, _)) => Some(reply),
                Err(error) => {
                    tracing::debug!(%error, "the coordinator does not answer");
                    None
                }
            }
        };
        if let Some(reply) = reply {
            self.follow(reply);
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let running = self.running.iter().map(|(&name, running)| {
            let permille = running.attempt.progress.load(Ordering::Relaxed);
            let permille = u32::try_from(permille).unwrap_or(1000);
            AttemptReport { name, report: Report::Running { permille } }
        });
        let over = self.over.iter();
        let over = over.map(|(&name, report)| AttemptReport { name, report: report.clone() });
        Heartbeat {
            worker: self.workshop.me,
            slots: self.slots,
            attempts: running.chain(over).collect(),
            jobs: self.jobs.keys().copied().collect(),
        }
    }

    fn follow(&mut self, reply: HeartbeatReply) {
        if reply.epoch < self.epoch {
            return;
        }
        self.epoch = reply.epoch;
        for name in reply.stop {
            if let Some(running) = self.running.get(&name) {
                running.attempt.stop.stop();
            }
        }
        for name in reply.forget {
            self.over.remove(&name);
        }
        for job in reply.ended {
            self.end_job(job);
        }
        for order in reply.start {
            self.start(order);
        }
    }

    /// Forgets a job, once its last attempt has ended.
    fn end_job(&mut self, job: JobId) {
        let mut is_quiet = true;
        for (name, running) in &self.running {
            if name.job == job {
                running.attempt.stop.stop();
                is_quiet = false;
            }
        }
        if is_quiet && self.jobs.remove(&job).is_some() {
            self.over.retain(|name, _| name.job != job);
            let folder = self.workshop.folder.clone();
            tokio::task::spawn_blocking(move || folder.remove_job(job));
        }
    }

    fn start(&mut self, order: WorkOrder) {
        let WorkOrder { name, spec, maps, reduces, input } = order;
        if let Some(spec) = spec {
            let known = KnownJob { spec, started: BTreeSet::new() };
            self.jobs.entry(name.job).or_insert(known);
        }
        // Without a description it was meant for a worker that knew the job.
        let Some(job) = self.jobs.get_mut(&name.job) else { return };
        if !job.started.insert(name) {
            return;
        }
        let attempt = Arc::new(Attempt {
            job: name.job,
            spec: job.spec.clone(),
            task: name.task,
            attempt: name.attempt,
            maps,
            reduces,
            scratch: self.workshop.folder.scratch(name),
            limits: self.limits,
            stop: Stop::default(),
            progress: AtomicU64::new(0),
            log: Mutex::new(Log::default()),
            counters: Mutex::new(Counters::default()),
        });
        tracing::debug!(attempt = attempt.name(), "starting an attempt");
        let running = Running { attempt: attempt.clone(), activity: 0, active: Instant::now() };
        self.running.insert(name, running);
        let workshop = self.workshop.clone();
        self.attempts.spawn(async move { (name, workshop.make(name, attempt, input).await) });
    }
}
