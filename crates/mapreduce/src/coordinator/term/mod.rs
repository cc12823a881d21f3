//! One term of a coordinator: one loop that feeds the scheduler and carries out what it says.
//!
//! The loop itself never waits for kv or files. That is done by background tasks, each of which
//! answers with a [`Done`]; they all end with the term.

mod finish;
pub(crate) mod prepare;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use onefold_kv::{KvError, WatchPoll, WatchRequest};
use onefold_types::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::election::Context;
use super::output::{Committed, OutputFolder};
use super::records::{ACTIVE, PlanRecord};
use crate::api::{JobId, JobSpec, JobStatus, TaskName};
use crate::input::MapInput;
use crate::job::{
    Action, AttemptId, AttemptName, Heartbeat, Instructions, Job, MapSource, Outcome, Scheduler,
    Work, WorkerId,
};
use prepare::{Prepare, Prepared};
use writes::{Note, Writes};

/// How often the loop turns when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Bytes of work in one answer, estimated; the rest comes with the next.
const START_BYTES_MAX: usize = 4 << 20;

/// Output files that are renamed at once.
const COMMITS_MAX: usize = 16;

/// How long one question for new jobs waits for an answer.
const WATCH_WAIT: Duration = Duration::from_secs(5);

/// Pause after kv did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// A heartbeat, and where its answer goes.
pub(super) struct Call {
    pub(super) heartbeat: Heartbeat,
    pub(super) reply: oneshot::Sender<HeartbeatReply>,
}

/// What a worker is told, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeartbeatReply {
    /// Which coordinator this is: an answer from an earlier one than the last is to be ignored.
    pub(crate) epoch: u64,
    /// Attempts to start.
    pub(crate) start: Vec<WorkOrder>,
    /// Attempts to stop.
    pub(crate) stop: Vec<AttemptName>,
    /// Attempts that are over and need not be mentioned again.
    pub(crate) forget: Vec<AttemptName>,
    /// Jobs that are over.
    pub(crate) ended: Vec<JobId>,
}

/// An attempt to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkOrder {
    /// The attempt.
    pub(crate) name: AttemptName,
    /// The job's description, unless the worker has it.
    pub(crate) spec: Option<Arc<JobSpec>>,
    /// Map tasks of the job.
    pub(crate) maps: u32,
    /// Reduce tasks of the job.
    pub(crate) reduces: u32,
    /// What the task works on.
    pub(crate) input: WorkOrderInput,
}

/// What a task works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkOrderInput {
    /// A split.
    Map(MapInput),
    /// The outputs of all map tasks.
    Reduce(Vec<MapSource>),
}

/// A job whose tasks run.
struct ActiveJob {
    spec: Arc<JobSpec>,
    inputs: Arc<Vec<MapInput>>,
    plan: PlanRecord,
    output: OutputFolder,
    /// As it was last written.
    status: JobStatus,
    /// Output files that are being renamed.
    committing: usize,
    /// How it ended; it is over when that is on record.
    outcome: Option<Outcome>,
}

/// What a background task did.
enum Done {
    /// Looked for jobs that have not ended.
    Looked(Result<(Vec<(JobId, bool)>, u64), KvError>),
    /// Prepared a job, or found out why it cannot run.
    Prepared(JobId, Result<Box<Prepared>, String>),
    /// Found a job that no coordinator has started yet.
    Unplanned(JobId),
    /// Wrote records.
    Written(Vec<Note>),
    /// Renamed an output file.
    Committed { job: JobId, task: TaskName, attempt: AttemptId, committed: Committed },
    /// Completed or removed a job's output.
    OutputEnded(JobId),
    /// Nothing that anybody waits for.
    Nothing,
    /// Found out that another coordinator is elected.
    Deposed,
}

pub(super) struct Term {
    context: Context,
    epoch: u64,
    began: Instant,
    scheduler: Scheduler,
    jobs: BTreeMap<JobId, ActiveJob>,
    /// Jobs to prepare, one after the other, so that each sees the outputs of those before.
    waiting: BTreeSet<JobId>,
    preparing: Option<JobId>,
    /// Jobs whose user gave them up.
    cancelled: BTreeSet<JobId>,
    /// Jobs that ended in this term and may still be listed as active.
    ended: BTreeSet<JobId>,
    /// Jobs that an earlier coordinator may have started, and that are not loaded yet. As long as
    /// there are any, workers get no answers.
    unloaded: Option<BTreeSet<JobId>>,
    writes: Writes,
    commits: Arc<Semaphore>,
    background: JoinSet<Done>,
    status_due: Instant,
}

impl Term {
    pub(super) fn new(context: Context, epoch: u64) -> Self {
        let timing = context.timing;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (hold, timeout) = (milliseconds(timing.hold), milliseconds(timing.worker_timeout));
        Self {
            epoch,
            began: Instant::now(),
            scheduler: Scheduler::new(0, hold, timeout),
            jobs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            preparing: None,
            cancelled: BTreeSet::new(),
            ended: BTreeSet::new(),
            unloaded: None,
            writes: Writes::default(),
            commits: Arc::new(Semaphore::new(COMMITS_MAX)),
            background: JoinSet::new(),
            status_due: Instant::now(),
            context,
        }
    }

    /// Runs until another coordinator is elected.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Call>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look(None);
        self.collect_garbage();
        loop {
            tokio::select! {
                Some(call) = inbox.recv() => self.take_call(call),
                Some(done) = self.background.join_next() => {
                    let done = done.unwrap_or_else(|error| {
                        tracing::error!(%error, "a part of the coordinator failed");
                        Done::Deposed
                    });
                    if self.take_done(done).is_break() {
                        return;
                    }
                }
                _ = tick.tick() => {}
            }
            // Nobody is silent whose heartbeat is here.
            while let Ok(call) = inbox.try_recv() {
                self.take_call(call);
            }
            self.scheduler.tick(self.now());
            self.take_actions();
            self.prepare_next();
            self.report_progress();
            self.write();
        }
    }

    /// Milliseconds of the term. It begins when all jobs are loaded: no worker is late as long as it
    /// gets no answer.
    fn now(&self) -> u64 {
        if !self.is_ready() {
            return 0;
        }
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_ready(&self) -> bool {
        self.unloaded.as_ref().is_some_and(BTreeSet::is_empty)
    }

    fn take_call(&mut self, Call { heartbeat, reply }: Call) {
        if !self.is_ready() {
            // Dropping the reply tells the worker to try again.
            return;
        }
        self.scheduler.tick(self.now());
        let instructions = self.scheduler.heartbeat(&heartbeat);
        // A worker that does not listen any more asks again.
        let _ = reply.send(self.reply_to(&heartbeat, instructions));
    }

    fn reply_to(&self, heartbeat: &Heartbeat, instructions: Instructions) -> HeartbeatReply {
        let Instructions { start, stop, forget, ended } = instructions;
        let mut orders = Vec::new();
        let mut bytes = 0;
        let mut told: BTreeSet<JobId> = heartbeat.jobs.iter().copied().collect();
        for work in start {
            let Some(job) = self.jobs.get(&work.name.job) else { continue };
            let order = job.order(work, &mut told, &mut bytes);
            orders.push(order);
            if bytes > START_BYTES_MAX {
                break;
            }
        }
        HeartbeatReply { epoch: self.epoch, start: orders, stop, forget, ended }
    }

    fn take_done(&mut self, done: Done) -> std::ops::ControlFlow<()> {
        match done {
            Done::Looked(found) => self.take_active(found),
            Done::Prepared(job, prepared) => self.take_prepared(job, prepared),
            Done::Unplanned(job) => {
                self.preparing = None;
                self.waiting.insert(job);
                self.loaded(job);
            }
            Done::Written(notes) => self.take_notes(notes),
            Done::Committed { job, task, attempt, committed } => {
                self.take_committed(job, task, attempt, &committed);
            }
            Done::OutputEnded(job) => self.write_end(job),
            Done::Nothing => {}
            Done::Deposed => return std::ops::ControlFlow::Break(()),
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Looks for active jobs; after the first time, once something about them has changed.
    fn look(&mut self, after: Option<u64>) {
        let store = self.context.store.clone();
        self.background.spawn(async move {
            if let Some(revision) = after {
                let mut watch = WatchRequest::prefix(ACTIVE);
                watch.from_revision = onefold_types::Revision(revision + 1);
                let poll = WatchPoll { watch, wait: WATCH_WAIT, bytes_max: 64 << 10 };
                if store.kv().watch_poll(poll).await.is_err() {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            loop {
                match store.active().await {
                    Ok((jobs, revision)) => return Done::Looked(Ok((jobs, revision.get()))),
                    Err(error) => {
                        tracing::debug!(%error, "the active jobs cannot be read");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        });
    }

    fn take_active(&mut self, found: Result<(Vec<(JobId, bool)>, u64), KvError>) {
        let Ok((active, revision)) = found else { return };
        if self.unloaded.is_none() {
            self.unloaded = Some(active.iter().map(|&(job, _)| job).collect());
        }
        let listed: BTreeSet<JobId> = active.iter().map(|&(job, _)| job).collect();
        self.ended.retain(|job| listed.contains(job));
        for (job, cancel) in active {
            if self.ended.contains(&job) {
                continue;
            }
            if cancel {
                self.cancel(job);
            }
            if !self.jobs.contains_key(&job) && self.preparing != Some(job) {
                self.waiting.insert(job);
            }
        }
        self.look(Some(revision));
    }

    fn cancel(&mut self, job: JobId) {
        self.cancelled.insert(job);
        if let Some(job) = self.scheduler.job_mut(job) {
            job.cancel();
        }
    }

    fn take_prepared(&mut self, id: JobId, prepared: Result<Box<Prepared>, String>) {
        self.preparing = None;
        let prepared = match prepared {
            Ok(prepared) => *prepared,
            Err(reason) => {
                self.loaded(id);
                self.refuse(id, reason);
                return;
            }
        };
        let Prepared { spec, plan, inputs, records, output, status } = prepared;
        let hosts = inputs.iter().map(|input| input.hosts.clone()).collect();
        let workers: BTreeSet<WorkerId> = records.iter().map(|record| record.worker).collect();
        let mut job = Job::new(self.epoch, self.now(), hosts, plan.reduces, records);
        if self.cancelled.contains(&id) {
            job.cancel();
        }
        self.scheduler.add_job(id, job, workers);
        let active = ActiveJob {
            spec: Arc::new(spec),
            inputs: Arc::new(inputs),
            plan,
            output,
            status,
            committing: 0,
            outcome: None,
        };
        self.jobs.insert(id, active);
        self.loaded(id);
    }

    fn loaded(&mut self, job: JobId) {
        if let Some(unloaded) = &mut self.unloaded
            && unloaded.remove(&job)
            && unloaded.is_empty()
        {
            self.began = Instant::now();
        }
    }

    fn take_actions(&mut self) {
        for (id, action) in self.scheduler.take_actions() {
            match action {
                Action::Record(record) => self.writes.record(id, record),
                Action::Commit { task, attempt } => self.commit(id, task, attempt),
                Action::End(outcome) => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.outcome = Some(outcome);
                    }
                    self.end_output_if_quiet(id);
                }
            }
        }
    }

    fn commit(&mut self, id: JobId, task: TaskName, attempt: AttemptId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.committing += 1;
        let (output, commits) = (job.output.clone(), self.commits.clone());
        self.background.spawn(async move {
            let _permit = commits.acquire().await;
            let committed = output.commit(task, attempt).await;
            Done::Committed { job: id, task, attempt, committed }
        });
    }

    fn take_committed(
        &mut self,
        id: JobId,
        task: TaskName,
        attempt: AttemptId,
        committed: &Committed,
    ) {
        if let Some(job) = self.scheduler.job_mut(id) {
            match committed {
                Committed::Yes => job.committed(task, attempt),
                Committed::Lost => {
                    let reason = "its output file disappeared before it was committed".to_owned();
                    job.commit_failed(task, attempt, reason);
                }
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.committing -= 1;
        }
        self.end_output_if_quiet(id);
    }

    fn prepare_next(&mut self) {
        if self.preparing.is_some() {
            return;
        }
        // First those that may have attempts under way: their workers wait for an answer.
        let is_ready = self.is_ready();
        let first = match &self.unloaded {
            Some(unloaded) if !is_ready => self.waiting.intersection(unloaded).next(),
            _ => self.waiting.first(),
        };
        let Some(&job) = first else { return };
        self.waiting.remove(&job);
        if self.ended.contains(&job) || self.jobs.contains_key(&job) {
            return;
        }
        self.preparing = Some(job);
        let others = self.jobs.values().map(|job| job.output.clone()).collect();
        let nodes = self.context.peers.addresses().len().max(self.scheduler.workers_alive());
        let (context, epoch) = (self.context.clone(), self.epoch);
        let prepare = Prepare { context, epoch, job, may_plan: is_ready, others, nodes };
        self.background.spawn(prepare.run());
    }
}

impl ActiveJob {
    fn order(&self, work: Work, told: &mut BTreeSet<JobId>, bytes: &mut usize) -> WorkOrder {
        let input = match work.name.task.kind {
            crate::api::TaskKind::Map => {
                let input = self.inputs[work.name.task.index as usize].clone();
                *bytes += input.ranges.iter().map(|range| range.file.len() + 64).sum::<usize>();
                WorkOrderInput::Map(input)
            }
            crate::api::TaskKind::Reduce => {
                *bytes += work.sources.len() * 40;
                WorkOrderInput::Reduce(work.sources)
            }
        };
        let spec = told.insert(work.name.job).then(|| self.spec.clone());
        if let Some(spec) = &spec {
            *bytes += spec.files.iter().map(|file| file.content.len()).sum::<usize>();
        }
        let (maps, reduces) = (self.plan.maps, self.plan.reduces);
        WorkOrder { name: work.name, spec, maps, reduces, input }
    }
}

/// The time of the machine, for people.
fn wall_clock() -> Timestamp {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
