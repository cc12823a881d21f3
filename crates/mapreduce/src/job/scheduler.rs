//! All jobs and all workers: what a heartbeat means, and what to answer.
//!
//! Both sides say what *is*, not what has changed: a worker lists all its attempts in each heartbeat,
//! and the answer compares them with what the worker should have. So a heartbeat or an answer that
//! is lost, late or doubled does no harm.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::names::{AttemptId, WorkerId};
use super::schedule::{Action, Assignment, Job, MapSource, Report};
use super::workers::Workers;
use crate::api::{JobId, TaskKind, TaskName};

/// An attempt among all jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct AttemptName {
    /// The job.
    pub(crate) job: JobId,
    /// The task.
    pub(crate) task: TaskName,
    /// The attempt at it.
    pub(crate) attempt: AttemptId,
}

/// What a worker says about one of its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptReport {
    /// The attempt.
    pub(crate) name: AttemptName,
    /// How it stands.
    pub(crate) report: Report,
}

/// All that a worker has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// Who.
    pub(crate) worker: WorkerId,
    /// Attempts that it can work on at once.
    pub(crate) slots: u32,
    /// Its attempts: those under way, and those that are over and not settled.
    pub(crate) attempts: Vec<AttemptReport>,
    /// Jobs of which it keeps files.
    pub(crate) jobs: Vec<JobId>,
}

/// Work that a worker does not know about yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// The attempt to make.
    pub(crate) name: AttemptName,
    /// For a reduce task, where the output of each map task is.
    pub(crate) sources: Vec<MapSource>,
}

/// What a worker is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instructions {
    /// Attempts to start.
    pub(crate) start: Vec<Work>,
    /// Attempts to stop.
    pub(crate) stop: Vec<AttemptName>,
    /// Attempts that are over and need not be mentioned again.
    pub(crate) forget: Vec<AttemptName>,
    /// Jobs that are over; their files are not needed any more.
    pub(crate) ended: Vec<JobId>,
}

/// The state of a coordinator.
#[derive(Debug)]
pub(crate) struct Scheduler {
    now: u64,
    /// Until then no work is given out, so that workers can first tell what they are working on.
    hold_until: u64,
    workers: Workers,
    jobs: BTreeMap<JobId, Job>,
}

impl Scheduler {
    /// A coordinator that begins at `now`, in milliseconds of any clock that never goes back.
    pub(crate) fn new(now: u64, hold_ms: u64, worker_timeout_ms: u64) -> Self {
        Self {
            now,
            hold_until: now + hold_ms,
            workers: Workers::new(worker_timeout_ms),
            jobs: BTreeMap::new(),
        }
    }

    /// Takes a job. `record_workers` are those whose map output it counts on.
    pub(crate) fn add_job(
        &mut self,
        id: JobId,
        mut job: Job,
        record_workers: impl IntoIterator<Item = WorkerId>,
    ) {
        for worker in self.workers.iter() {
            job.worker_up(worker);
        }
        let mut lost = Vec::new();
        for worker in record_workers {
            let is_new = !self.workers.iter().any(|known| known == worker);
            if !self.workers.expect(worker, self.now) {
                lost.push(worker);
            } else if is_new {
                job.worker_up(worker);
                for other in self.jobs.values_mut() {
                    other.worker_up(worker);
                }
            }
        }
        for worker in lost {
            job.worker_down(worker);
        }
        let before = self.jobs.insert(id, job);
        assert!(before.is_none(), "{id} was added twice");
    }

    /// Forgets a job, whose end is on record.
    pub(crate) fn remove_job(&mut self, id: JobId) {
        self.jobs.remove(&id);
    }

    /// A job.
    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// A job, to tell it something.
    pub(crate) fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&id)
    }

    /// Workers that are alive.
    pub(crate) fn workers_alive(&self) -> usize {
        self.workers.len()
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        for worker in self.workers.tick(self.now) {
            for job in self.jobs.values_mut() {
                job.worker_down(worker);
            }
        }
        for job in self.jobs.values_mut() {
            job.tick(self.now);
        }
    }

    /// A worker gives a sign of life.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Instructions {
        let worker = heartbeat.worker;
        let change = self.workers.heard(worker, self.now);
        for job in self.jobs.values_mut() {
            if let Some(before) = change.down {
                job.worker_down(before);
            }
            if change.is_new {
                job.worker_up(worker);
            }
        }
        let mut instructions = Instructions::default();
        for AttemptReport { name, report } in &heartbeat.attempts {
            self.take_report(worker, *name, report, &mut instructions);
        }
        let has_ended = |id: &&JobId| self.jobs.get(id).is_none_or(Job::is_ended);
        instructions.ended = heartbeat.jobs.iter().filter(has_ended).copied().collect();
        if self.now >= self.hold_until {
            self.give_work(worker, heartbeat.slots);
        }
        let mentioned = heartbeat.attempts.iter().map(|attempt| attempt.name).collect();
        instructions.start = self.undelivered(worker, &mentioned);
        instructions
    }

    /// What the driver is to do for each job.
    pub(crate) fn take_actions(&mut self) -> Vec<(JobId, Action)> {
        let jobs = self.jobs.iter_mut();
        jobs.flat_map(|(&id, job)| job.take_actions().into_iter().map(move |action| (id, action)))
            .collect()
    }

    fn take_report(
        &mut self,
        worker: WorkerId,
        name: AttemptName,
        report: &Report,
        instructions: &mut Instructions,
    ) {
        let is_over = !matches!(report, Report::Running { .. });
        let Some(job) = self.jobs.get_mut(&name.job) else {
            let list = if is_over { &mut instructions.forget } else { &mut instructions.stop };
            list.push(name);
            return;
        };
        job.report(worker, name.task, name.attempt, report.clone());
        if is_over {
            if job.is_settled(name.task, name.attempt) {
                instructions.forget.push(name);
            }
        } else if !job.wants(name.task, name.attempt) {
            instructions.stop.push(name);
        }
    }

    /// Fills a worker's slots, each with a task of the job that has the fewest under way.
    fn give_work(&mut self, worker: WorkerId, slots: u32) {
        let assigned = self.jobs.values().map(|job| job.assigned(worker).count());
        let mut used = assigned.sum::<usize>();
        while used < slots as usize {
            let mut by_share: Vec<(usize, JobId)> =
                self.jobs.iter().map(|(&id, job)| (job.running(), id)).collect();
            by_share.sort_unstable();
            let mut jobs = by_share.into_iter().map(|(_, id)| id);
            let offered = |id| self.jobs.get_mut(&id).and_then(|job| job.offer(worker));
            if jobs.find_map(offered).is_none() {
                return;
            }
            used += 1;
        }
    }

    /// What a worker should be working on and has not mentioned.
    fn undelivered(&mut self, worker: WorkerId, mentioned: &BTreeSet<AttemptName>) -> Vec<Work> {
        let mut work = Vec::new();
        for (&id, job) in &mut self.jobs {
            let name = |assignment: Assignment| AttemptName {
                job: id,
                task: assignment.task,
                attempt: assignment.attempt,
            };
            let missing: Vec<AttemptName> =
                job.assigned(worker).map(name).filter(|name| !mentioned.contains(name)).collect();
            for name in missing {
                match (name.task.kind, job.map_sources()) {
                    (TaskKind::Map, _) => work.push(Work { name, sources: Vec::new() }),
                    (TaskKind::Reduce, Some(sources)) => work.push(Work { name, sources }),
                    // Map output was lost meanwhile; making it again may need the slot.
                    (TaskKind::Reduce, None) => job.revoke(name.task, name.attempt),
                }
            }
        }
        work
    }
}
