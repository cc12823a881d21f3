//! The loop that takes the place of coordinator and workers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onefold_types::{NodeId, Timestamp};

use super::files::DiskFiles;
use super::plan::{Output, splits};
use crate::api::{
    Counters, JobId, JobSpec, JobStatus, JobSummary, MapReduceError, Phase, TaskCounts, TaskKind,
    TaskName,
};
use crate::input::MapInput;
use crate::job::{
    Action, AttemptId, AttemptName, AttemptReport, Heartbeat, Job, MapSource, Outcome, Report,
    Scheduler, Work, WorkerId,
};
use crate::shuffle::{Run, Source, SourceBytes};
use crate::task::{
    Attempt, Log, Stop, TaskError, TaskInput, TaskLimits, carry_out, final_name, report_of,
    temporary_name,
};

/// The one job of a local run.
const JOB: JobId = JobId(1);

/// The one worker, and its name in messages.
const WORKER: WorkerId = WorkerId { node: NodeId(0), incarnation: 0 };

/// Time between two looks at running attempts.
const TICK: Duration = Duration::from_millis(100);

/// How a local run uses the machine.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Tasks at once; at least 1. Each uses up to about 128 MiB of memory.
    pub threads: usize,
    /// Where map output and scratch files go; `None` for the system's temporary folder.
    pub scratch: Option<PathBuf>,
    /// Set it to give the job up.
    pub cancel: Arc<AtomicBool>,
}

impl Default for LocalOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, scratch: None, cancel: Arc::default() }
    }
}

/// Runs a job on this machine alone. `spec.input` and `spec.output` are paths of the machine.
/// `progress` sees the status about ten times a second, on the calling thread, which is blocked
/// until the job has ended.
///
/// # Errors
/// As [`MapReduce::submit`](crate::MapReduce::submit). A job that ran and failed is no error: its
/// status says so.
pub fn run_local(
    spec: JobSpec,
    options: &LocalOptions,
    progress: impl FnMut(&JobStatus),
) -> Result<JobStatus, MapReduceError> {
    run_with_limits(spec, options, TaskLimits::default(), progress)
}

pub(super) fn run_with_limits(
    spec: JobSpec,
    options: &LocalOptions,
    limits: TaskLimits,
    progress: impl FnMut(&JobStatus),
) -> Result<JobStatus, MapReduceError> {
    spec.validate()?;
    let inputs = splits(&spec)?;
    let scratch = match &options.scratch {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.map_err(|error| {
        MapReduceError::invalid(format!("no scratch folder can be made: {error}"))
    })?;
    let output = Output::create(&spec)?;
    let reduces = spec.reducers.unwrap_or_else(|| default_reduces(options.threads));
    let status = first_status(&spec, &inputs);
    let run = LocalRun {
        files: DiskFiles { temporary: output.temporary() },
        spec: Arc::new(spec),
        inputs,
        reduces,
        limits,
        scratch: scratch.path().to_owned(),
        output,
        slots: options.threads.max(1),
        cancel: options.cancel.clone(),
    };
    Ok(run.run(status, progress))
}

fn default_reduces(threads: usize) -> u32 {
    u32::try_from(threads.clamp(1, 64)).expect("it is clamped")
}

fn first_status(spec: &JobSpec, inputs: &[MapInput]) -> JobStatus {
    JobStatus {
        summary: JobSummary {
            job: JOB,
            name: spec.name.clone(),
            phase: Phase::Preparing,
            maps: TaskCounts::default(),
            reduces: TaskCounts::default(),
            submitted: now(),
            started: Some(now()),
            ended: None,
        },
        output: spec.output.clone(),
        input_bytes: inputs.iter().map(MapInput::bytes).sum(),
        counters: Counters::default(),
        failed_attempts: 0,
        failures: Vec::new(),
        workers: 1,
        error: None,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

struct LocalRun {
    spec: Arc<JobSpec>,
    inputs: Vec<MapInput>,
    reduces: u32,
    limits: TaskLimits,
    files: DiskFiles,
    scratch: PathBuf,
    output: Output,
    slots: usize,
    cancel: Arc<AtomicBool>,
}

/// An attempt under way, as the loop sees it.
struct Running {
    attempt: Arc<Attempt>,
    activity: u64,
    active: Instant,
}

impl LocalRun {
    fn run(&self, mut status: JobStatus, mut progress: impl FnMut(&JobStatus)) -> JobStatus {
        let mut scheduler = Scheduler::new(0, 0, u64::MAX / 2);
        let hosts = vec![Vec::new(); self.inputs.len()];
        scheduler.add_job(JOB, Job::new(1, 0, hosts, self.reduces, Vec::new()), []);
        let began = Instant::now();
        let outcome = std::thread::scope(|scope| {
            let (reports, inbox) = channel();
            let mut running = BTreeMap::new();
            let mut finished = Vec::new();
            let outcome = loop {
                let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                scheduler.tick(elapsed);
                if self.cancel.load(Ordering::Relaxed) {
                    scheduler.job_mut(JOB).expect("the job").cancel();
                }
                let heartbeat = self.heartbeat(&mut running, &mut finished);
                let instructions = scheduler.heartbeat(&heartbeat);
                for name in &instructions.stop {
                    if let Some(running) = running.get(name) {
                        running.attempt.stop.stop();
                    }
                }
                for work in instructions.start {
                    let name = work.name;
                    let attempt = Arc::new(self.attempt(name));
                    self.start(scope, attempt.clone(), work, reports.clone());
                    running.insert(name, Running { attempt, activity: 0, active: Instant::now() });
                }
                if let Some(outcome) = self.act(&mut scheduler) {
                    break outcome;
                }
                update_status(&mut status, scheduler.job(JOB).expect("the job"));
                progress(&status);
                collect(&inbox, &mut finished);
            };
            for running in running.values() {
                running.attempt.stop.stop();
            }
            outcome
        });
        update_status(&mut status, scheduler.job(JOB).expect("the job"));
        self.end(&mut status, outcome);
        progress(&status);
        status
    }

    fn heartbeat(
        &self,
        running: &mut BTreeMap<AttemptName, Running>,
        finished: &mut Vec<(AttemptName, Report)>,
    ) -> Heartbeat {
        let mut attempts = Vec::new();
        for (name, report) in finished.drain(..) {
            running.remove(&name);
            attempts.push(AttemptReport { name, report });
        }
        for (&name, running) in running {
            running.watch(self.spec.task_timeout);
            let permille = running.attempt.progress.load(Ordering::Relaxed) as u32;
            attempts.push(AttemptReport { name, report: Report::Running { permille } });
        }
        let slots = u32::try_from(self.slots).unwrap_or(u32::MAX);
        Heartbeat { worker: WORKER, slots, attempts, jobs: Vec::new() }
    }

    fn attempt(&self, name: AttemptName) -> Attempt {
        Attempt {
            job: name.job,
            spec: self.spec.clone(),
            task: name.task,
            attempt: name.attempt,
            maps: u32::try_from(self.inputs.len()).expect("the number of splits is bounded"),
            reduces: self.reduces,
            scratch: self.scratch.join(format!("{}-{}", name.task, name.attempt)),
            limits: self.limits,
            stop: Stop::default(),
            progress: AtomicU64::new(0),
            log: Mutex::new(Log::default()),
            counters: Mutex::new(Counters::default()),
        }
    }

    fn start<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        attempt: Arc<Attempt>,
        work: Work,
        reports: Sender<(AttemptName, Report)>,
    ) {
        scope.spawn(move || {
            let report = self.carry_out(&attempt, &work.sources);
            let _ = std::fs::remove_dir_all(&attempt.scratch);
            // Nobody listens any more when the job has ended.
            let _ = reports.send((work.name, report));
        });
    }

    fn carry_out(&self, attempt: &Attempt, sources: &[MapSource]) -> Report {
        if let Err(source) = std::fs::create_dir_all(&attempt.scratch) {
            let error = TaskError::disk("create", &attempt.scratch, source);
            return report_of(error, sources);
        }
        let index = attempt.task.index;
        match attempt.task.kind {
            TaskKind::Map => {
                let output = map_output(&self.scratch, index, attempt.attempt);
                let input = &self.inputs[index as usize];
                let input = TaskInput::Map { input, output: &output };
                carry_out(attempt, input, &self.files, sources)
            }
            TaskKind::Reduce => match self.segments(index, sources) {
                Ok((segments, records)) => {
                    let input = TaskInput::Reduce { segments, records };
                    carry_out(attempt, input, &self.files, sources)
                }
                Err(error) => report_of(error, sources),
            },
        }
    }

    fn segments(
        &self,
        partition: u32,
        sources: &[MapSource],
    ) -> Result<(Vec<Source>, u64), TaskError> {
        let (mut segments, mut records) = (Vec::new(), 0);
        for (map, source) in (0..).zip(sources) {
            let path = map_output(&self.scratch, map, source.attempt);
            let segment = Run::open(&path)?.segment(partition)?;
            records += segment.records;
            if segment.length > 0 {
                let (offset, length) = (segment.offset, segment.length);
                let bytes = SourceBytes::Path { path, offset, length };
                segments.push(Source { bytes, origin: Some(map) });
            }
        }
        Ok((segments, records))
    }

    fn act(&self, scheduler: &mut Scheduler) -> Option<Outcome> {
        for (_, action) in scheduler.take_actions() {
            let job = scheduler.job_mut(JOB).expect("the job");
            match action {
                Action::Record(record) => job.recorded(record.task, record.attempt),
                Action::Commit { task, attempt } => {
                    match self.output.commit(&temporary_name(task, attempt), &final_name(task)) {
                        Ok(()) => job.committed(task, attempt),
                        Err(error) => {
                            let reason = format!("{} cannot be renamed: {error}", final_name(task));
                            job.commit_failed(task, attempt, reason);
                        }
                    }
                }
                Action::End(outcome) => return Some(outcome),
            }
        }
        None
    }

    fn end(&self, status: &mut JobStatus, outcome: Outcome) {
        let marked = match outcome {
            Outcome::Succeeded => self
                .output
                .succeed()
                .map_err(|error| format!("the output cannot be marked as complete: {error}")),
            Outcome::Failed { reason } => Err(reason),
            Outcome::Cancelled => {
                self.output.remove();
                status.summary.phase = Phase::Cancelled;
                status.summary.ended = Some(now());
                return;
            }
        };
        status.summary.phase = match marked {
            Ok(()) => Phase::Succeeded,
            Err(reason) => {
                self.output.remove();
                status.error = Some(reason);
                Phase::Failed
            }
        };
        status.summary.ended = Some(now());
    }
}

fn update_status(status: &mut JobStatus, job: &Job) {
    status.summary.phase = job.phase();
    status.summary.maps = job.counts(TaskKind::Map);
    status.summary.reduces = job.counts(TaskKind::Reduce);
    status.counters = job.counters().clone();
    let (failed_attempts, failures) = job.failures();
    status.failed_attempts = failed_attempts;
    status.failures = failures.cloned().collect();
}

impl Running {
    /// Stops the attempt when it has shown no sign of life for too long.
    fn watch(&mut self, timeout: Duration) {
        let activity = self.attempt.stop.activity();
        if activity != self.activity {
            (self.activity, self.active) = (activity, Instant::now());
        } else if self.active.elapsed() >= timeout {
            self.attempt.stop.time_out(timeout.as_secs());
        }
    }
}

/// Waits a moment for attempts that end.
fn collect(inbox: &Receiver<(AttemptName, Report)>, finished: &mut Vec<(AttemptName, Report)>) {
    match inbox.recv_timeout(TICK) {
        Ok(report) => finished.push(report),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
    }
    finished.extend(inbox.try_iter());
}

/// Where the output of a map task is.
fn map_output(folder: &Path, map: u32, attempt: AttemptId) -> PathBuf {
    folder.join(format!("{}-{attempt}.run", TaskName::map(map)))
}
