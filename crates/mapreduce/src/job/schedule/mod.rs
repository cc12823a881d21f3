//! The job's state and how events change it.

mod failure;
mod progress;
mod straggler;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::api::{AttemptFailure, Counters, TaskKind, TaskName};
use crate::job::names::{AttemptId, WorkerId};
use crate::job::pending::Pending;
use crate::job::task::{Done, Running, Task, TaskRecord};

/// Finished tasks whose times make the median.
const DURATIONS_MAX: usize = 1000;

/// What a worker tells about one of its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It is under way.
    Running {
        /// Share of its input that was read, in thousandths.
        permille: u32,
    },
    /// Its result is complete.
    Succeeded {
        /// What it counted.
        counters: Counters,
    },
    /// It failed.
    Failed {
        /// Why, for the user.
        reason: String,
        /// Whether the user's code or data is to blame, so that trying again hardly helps.
        by_user: bool,
    },
    /// It could not get at the output of a map task.
    FetchFailed {
        /// The map task.
        map: u32,
        /// The attempt at it whose output was asked for.
        attempt: AttemptId,
        /// Why not.
        reason: String,
    },
    /// It was stopped, as it was told to.
    Stopped,
}

/// Work for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// What to do.
    pub(crate) task: TaskName,
    /// The attempt's name.
    pub(crate) attempt: AttemptId,
}

/// Where a reduce task finds the output of a map task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapSource {
    /// The attempt that made it.
    pub(crate) attempt: AttemptId,
    /// Where it is.
    pub(crate) worker: WorkerId,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All output has its final name.
    Succeeded,
    /// It cannot succeed.
    Failed {
        /// Why, for the user.
        reason: String,
    },
    /// Its user gave it up.
    Cancelled,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make the record durable, then call [`Job::recorded`].
    Record(TaskRecord),
    /// Give the attempt's output file its final name, then call [`Job::committed`].
    Commit {
        /// The task.
        task: TaskName,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The job has ended. It comes once, and nothing after it.
    End(Outcome),
}

/// One job.
#[derive(Debug)]
pub(crate) struct Job {
    epoch: u64,
    now: u64,
    /// The nodes that hold each map task's input.
    hosts: Vec<Vec<NodeId>>,
    maps: Vec<Task>,
    reduces: Vec<Task>,
    pending_maps: Pending,
    pending_reduces: Pending,
    maps_done: u32,
    /// Output files that have their final names.
    outputs_committed: u32,
    /// Live workers, and what they are working on.
    workers: BTreeMap<WorkerId, BTreeSet<(TaskName, AttemptId)>>,
    durations: [VecDeque<u64>; 2],
    counters: Counters,
    failed_attempts: u32,
    failures: VecDeque<AttemptFailure>,
    ended: bool,
    actions: Vec<Action>,
}

impl Job {
    /// A job whose map tasks have their input on these hosts. `epoch` is the coordinator's; `records`
    /// is what an earlier coordinator put on record.
    pub(crate) fn new(
        epoch: u64,
        now: u64,
        hosts: Vec<Vec<NodeId>>,
        reduces: u32,
        records: Vec<TaskRecord>,
    ) -> Self {
        let tasks = |count: usize| std::iter::repeat_with(Task::default).take(count).collect();
        let mut job = Self {
            epoch,
            now,
            maps: tasks(hosts.len()),
            reduces: tasks(reduces as usize),
            hosts,
            pending_maps: Pending::default(),
            pending_reduces: Pending::default(),
            maps_done: 0,
            outputs_committed: 0,
            workers: BTreeMap::new(),
            durations: Default::default(),
            counters: Counters::default(),
            failed_attempts: 0,
            failures: VecDeque::new(),
            ended: false,
            actions: Vec::new(),
        };
        for index in 0..job.maps.len() as u32 {
            job.make_pending(TaskName::map(index));
        }
        for index in 0..reduces {
            job.make_pending(TaskName::reduce(index));
        }
        for record in records {
            job.restore(record);
        }
        job.end_if_complete();
        job
    }

    /// A worker is alive.
    pub(crate) fn worker_up(&mut self, worker: WorkerId) {
        self.workers.entry(worker).or_default();
    }

    /// A worker is dead: its attempts are lost, and so is its map output while it is needed.
    pub(crate) fn worker_down(&mut self, worker: WorkerId) {
        for (task, attempt) in self.workers.remove(&worker).unwrap_or_default() {
            self.task_mut(task).running.remove(&attempt);
            self.make_pending_if_idle(task);
        }
        if !self.needs_map_output() {
            return;
        }
        for index in 0..self.maps.len() as u32 {
            let done = self.maps[index as usize].done.as_ref();
            if done.is_some_and(|done| done.worker == worker) {
                self.lose_map(index);
            }
        }
    }

    /// Time passes. `now` never goes back.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(index) = self.pending_maps.due(self.now) {
            self.make_pending_if_idle(TaskName::map(index));
        }
        while let Some(index) = self.pending_reduces.due(self.now) {
            self.make_pending_if_idle(TaskName::reduce(index));
        }
    }

    /// A worker that is alive could do more. Answers what.
    pub(crate) fn offer(&mut self, worker: WorkerId) -> Option<Assignment> {
        if self.ended || !self.workers.contains_key(&worker) {
            return None;
        }
        let kind = self.kind_to_run();
        let (tasks, pending) = match kind {
            TaskKind::Map => (&self.maps, &self.pending_maps),
            TaskKind::Reduce => (&self.reduces, &self.pending_reduces),
        };
        // A task that failed on a node should be tried on another one, if there is one.
        let may_run = |index: u32| {
            let failed_on = &tasks[index as usize].failed_on;
            !failed_on.contains(&worker.node)
                || self.workers.keys().all(|other| failed_on.contains(&other.node))
        };
        let chosen = pending.choose(worker.node, may_run);
        let index = match chosen {
            Some(index) => index,
            None if pending.is_empty() => self.straggler(kind, worker)?,
            None => return None,
        };
        let task = TaskName { kind, index };
        self.unqueue(task);
        let (epoch, now) = (self.epoch, self.now);
        let state = self.task_mut(task);
        state.last_number += 1;
        let attempt = AttemptId { epoch, number: state.last_number };
        self.start(task, attempt, worker, now);
        Some(Assignment { task, attempt })
    }

    /// A worker that is alive reports on an attempt. The same report may come any number of times.
    pub(crate) fn report(
        &mut self,
        worker: WorkerId,
        task: TaskName,
        attempt: AttemptId,
        report: Report,
    ) {
        let known = match task.kind {
            TaskKind::Map => self.maps.get(task.index as usize),
            TaskKind::Reduce => self.reduces.get(task.index as usize),
        };
        let Some(state) = known else { return };
        let is_over = state.ended.contains(&attempt)
            || state.done.as_ref().is_some_and(|done| done.attempt == attempt);
        if self.ended || is_over || !self.workers.contains_key(&worker) {
            return;
        }
        if !state.running.contains_key(&attempt) {
            if state.done.is_some() {
                return;
            }
            // Another coordinator's attempt, or one that was given up when its worker fell silent.
            self.unqueue(task);
            self.start(task, attempt, worker, self.now);
        }
        match report {
            Report::Running { permille } => {
                if let Some(running) = self.task_mut(task).running.get_mut(&attempt) {
                    running.permille = permille.min(1000);
                }
            }
            Report::Succeeded { counters } => self.succeed(task, attempt, worker, counters),
            Report::Failed { reason, by_user } => {
                self.fail(task, attempt, worker, reason, by_user);
            }
            Report::FetchFailed { map, attempt: of_map, reason } => {
                self.finish_attempt(task, attempt);
                self.make_pending_if_idle(task);
                self.fetch_failed(map, of_map, &reason);
            }
            Report::Stopped => self.revoke(task, attempt),
        }
    }

    /// Whether an attempt should go on.
    pub(crate) fn wants(&self, task: TaskName, attempt: AttemptId) -> bool {
        let state = self.task(task);
        !self.ended
            && state
                .is_some_and(|state| state.done.is_none() && state.running.contains_key(&attempt))
    }

    /// Whether a worker may forget that an attempt is over: what it means is on record, or it means
    /// nothing.
    pub(crate) fn is_settled(&self, task: TaskName, attempt: AttemptId) -> bool {
        let done = self.task(task).and_then(|state| state.done.as_ref());
        self.ended || done.is_none_or(|done| done.attempt != attempt || done.recorded)
    }

    /// What a worker should be working on.
    pub(crate) fn assigned(&self, worker: WorkerId) -> impl Iterator<Item = Assignment> {
        let assigned = self.workers.get(&worker).into_iter().flatten();
        assigned.map(|&(task, attempt)| Assignment { task, attempt })
    }

    /// Takes work back that did not reach its worker.
    pub(crate) fn revoke(&mut self, task: TaskName, attempt: AttemptId) {
        self.finish_attempt(task, attempt);
        self.make_pending_if_idle(task);
    }

    /// Attempts under way.
    pub(crate) fn running(&self) -> usize {
        self.workers.values().map(BTreeSet::len).sum()
    }

    /// Whether nothing more will happen.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Where the output of each map task is, for a reduce task that starts now.
    pub(crate) fn map_sources(&self) -> Option<Vec<MapSource>> {
        let source = |task: &Task| {
            task.done.as_ref().map(|done| MapSource { attempt: done.attempt, worker: done.worker })
        };
        self.maps.iter().map(source).collect()
    }

    /// A record is durable.
    pub(crate) fn recorded(&mut self, task: TaskName, attempt: AttemptId) {
        let has_output = self.has_output(task);
        let Some(done) = self.done_by(task, attempt) else { return };
        if !std::mem::replace(&mut done.recorded, true) && has_output && !self.ended {
            self.actions.push(Action::Commit { task, attempt });
        }
    }

    /// An output file has its final name.
    pub(crate) fn committed(&mut self, task: TaskName, attempt: AttemptId) {
        assert!(self.has_output(task), "{task} has no output file");
        let Some(done) = self.done_by(task, attempt) else { return };
        assert!(done.recorded, "{task} was committed before it was on record");
        if !std::mem::replace(&mut done.committed, true) {
            self.outputs_committed += 1;
            self.end_if_complete();
        }
    }

    /// The user gives the job up.
    pub(crate) fn cancel(&mut self) {
        self.end(Outcome::Cancelled);
    }

    /// What the driver is to do, in this order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn task(&self, task: TaskName) -> Option<&Task> {
        match task.kind {
            TaskKind::Map => self.maps.get(task.index as usize),
            TaskKind::Reduce => self.reduces.get(task.index as usize),
        }
    }

    fn task_mut(&mut self, task: TaskName) -> &mut Task {
        match task.kind {
            TaskKind::Map => &mut self.maps[task.index as usize],
            TaskKind::Reduce => &mut self.reduces[task.index as usize],
        }
    }

    fn done_by(&mut self, task: TaskName, attempt: AttemptId) -> Option<&mut Done> {
        self.task_mut(task).done.as_mut().filter(|done| done.attempt == attempt)
    }

    /// Whether a task makes an output file, rather than something for the reducers.
    fn has_output(&self, task: TaskName) -> bool {
        task.kind == TaskKind::Reduce || self.reduces.is_empty()
    }

    /// Reducers start when all maps are done: they never hold slots that maps need.
    fn kind_to_run(&self) -> TaskKind {
        if self.maps_done as usize == self.maps.len() && !self.reduces.is_empty() {
            TaskKind::Reduce
        } else {
            TaskKind::Map
        }
    }

    fn needs_map_output(&self) -> bool {
        self.reduces.iter().any(|task| task.done.is_none())
    }

    fn make_pending(&mut self, task: TaskName) {
        match task.kind {
            TaskKind::Map => {
                self.pending_maps.insert(task.index, &self.hosts[task.index as usize]);
            }
            TaskKind::Reduce => self.pending_reduces.insert(task.index, &[]),
        }
    }

    fn make_pending_if_idle(&mut self, task: TaskName) {
        let state = self.task_mut(task);
        if state.done.is_none() && state.running.is_empty() {
            self.make_pending(task);
        }
    }

    fn unqueue(&mut self, task: TaskName) {
        match task.kind {
            TaskKind::Map => {
                self.pending_maps.remove(task.index, &self.hosts[task.index as usize]);
            }
            TaskKind::Reduce => self.pending_reduces.remove(task.index, &[]),
        }
    }

    fn start(&mut self, task: TaskName, attempt: AttemptId, worker: WorkerId, since: u64) {
        let running = Running { worker, since, permille: 0 };
        let before = self.task_mut(task).running.insert(attempt, running);
        assert!(before.is_none(), "attempt {attempt} at {task} started twice");
        let assigned = self.workers.get_mut(&worker).expect("only live workers get work");
        assigned.insert((task, attempt));
    }

    /// An attempt is over.
    fn finish_attempt(&mut self, task: TaskName, attempt: AttemptId) -> Option<Running> {
        let state = self.task_mut(task);
        state.ended.insert(attempt);
        let running = state.running.remove(&attempt)?;
        if let Some(assigned) = self.workers.get_mut(&running.worker) {
            assigned.remove(&(task, attempt));
        }
        Some(running)
    }

    fn succeed(
        &mut self,
        task: TaskName,
        attempt: AttemptId,
        worker: WorkerId,
        mut counters: Counters,
    ) {
        let running = self.finish_attempt(task, attempt);
        if self.task_mut(task).done.is_some() {
            // A backup that lost the race.
            return;
        }
        if task.kind == TaskKind::Map && self.hosts[task.index as usize].contains(&worker.node) {
            counters.add(Counters::TASK, "data_local_maps", 1);
        }
        if let Some(running) = running {
            let durations = &mut self.durations[task.kind as usize];
            durations.push_back(self.now.saturating_sub(running.since));
            if durations.len() > DURATIONS_MAX {
                durations.pop_front();
            }
        }
        self.set_done(TaskRecord { task, attempt, worker, counters: counters.clone() }, false);
        self.actions.push(Action::Record(TaskRecord { task, attempt, worker, counters }));
        self.give_up_attempts(task);
    }

    fn set_done(&mut self, record: TaskRecord, recorded: bool) {
        let TaskRecord { task, attempt, worker, counters } = record;
        self.unqueue(task);
        self.counters.merge(&counters);
        self.maps_done += u32::from(task.kind == TaskKind::Map);
        let done = Done { attempt, worker, counters, recorded, committed: false };
        let before = self.task_mut(task).done.replace(done);
        assert!(before.is_none(), "{task} was done twice");
    }

    /// Forgets the other attempts at a task that is done; their workers are told when they report.
    fn give_up_attempts(&mut self, task: TaskName) {
        let others: Vec<AttemptId> = self.task_mut(task).running.keys().copied().collect();
        for attempt in others {
            self.finish_attempt(task, attempt);
        }
    }

    fn restore(&mut self, record: TaskRecord) {
        let (task, attempt) = (record.task, record.attempt);
        if self.task(task).is_none_or(|state| state.done.is_some()) {
            return;
        }
        self.set_done(record, true);
        if self.has_output(task) {
            self.actions.push(Action::Commit { task, attempt });
        }
    }

    /// A task that was done is not done any more.
    fn undo(&mut self, task: TaskName) {
        let state = self.task_mut(task);
        let Some(done) = state.done.take() else { return };
        state.ended.insert(done.attempt);
        self.counters.subtract(&done.counters);
        self.maps_done -= u32::from(task.kind == TaskKind::Map);
        self.make_pending_if_idle(task);
    }

    /// The output of a map task is gone with its worker. Should the worker come back and say again
    /// that the attempt succeeded, it counts again.
    fn lose_map(&mut self, index: u32) {
        let attempt = self.maps[index as usize].done.as_ref().map(|done| done.attempt);
        self.undo(TaskName::map(index));
        if let Some(attempt) = attempt {
            self.maps[index as usize].ended.remove(&attempt);
        }
    }

    fn end_if_complete(&mut self) {
        let outputs = if self.reduces.is_empty() { self.maps.len() } else { self.reduces.len() };
        if self.outputs_committed as usize == outputs {
            self.end(Outcome::Succeeded);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if self.ended {
            return;
        }
        self.ended = true;
        for assigned in self.workers.values_mut() {
            assigned.clear();
        }
        self.actions.push(Action::End(outcome));
    }
}
