//! The scheduler in a small world of workers that die, stall, fail and come back, of heartbeats and
//! answers that get lost or come late, and of coordinators that crash between any two steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use onefold_types::NodeId;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::api::{Counters, JobId, TaskKind, TaskName};

const JOB: JobId = JobId(7);
const STEP_MS: u64 = 100;
const WORKER_TIMEOUT_MS: u64 = 1000;
/// Long enough for every job in this world, once the faults have stopped.
const STEPS_MAX: u64 = 20_000;
/// Faults happen only before.
const FAULTS_UNTIL: u64 = 600;

/// The map outputs on a worker's disk.
type MapOutputs = BTreeSet<(u32, AttemptId)>;

struct Running {
    name: AttemptName,
    sources: Vec<MapSource>,
    steps_left: u32,
}

struct Worker {
    id: WorkerId,
    alive: bool,
    stalled_until: u64,
    slots: usize,
    running: Vec<Running>,
    finished: Vec<(AttemptName, Report)>,
    /// All attempts of this life: an answer that comes late may name one again.
    started: BTreeSet<AttemptName>,
    outputs: MapOutputs,
}

/// An output file: for each map task the attempt whose output went in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Output {
    attempt: AttemptId,
    inputs: Vec<AttemptId>,
}

struct Coordinator {
    scheduler: Scheduler,
    /// Actions on their way: the step at which they are carried out.
    queue: VecDeque<(u64, Action)>,
}

struct World {
    random: SmallRng,
    step: u64,
    maps: u32,
    reduces: u32,
    workers: Vec<Worker>,
    coordinator: Option<Coordinator>,
    epoch: u64,
    /// Answers on their way to workers.
    answers: VecDeque<(u64, usize, WorkerId, Instructions)>,
    // What is durable.
    records: BTreeMap<TaskName, TaskRecord>,
    temporary: BTreeMap<(TaskName, AttemptId), Output>,
    committed: BTreeMap<TaskName, Output>,
    outcome: Option<Outcome>,
    user_failures: bool,
    /// How often each rare thing happened.
    seen: BTreeMap<&'static str, u32>,
}

impl World {
    fn new(seed: u64, maps: u32, reduces: u32, workers: u64, user_failures: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let workers = (0..workers)
            .map(|node| Worker {
                id: WorkerId { node: NodeId(node), incarnation: random.random() },
                alive: true,
                stalled_until: 0,
                slots: random.random_range(1..4),
                running: Vec::new(),
                finished: Vec::new(),
                started: BTreeSet::new(),
                outputs: MapOutputs::new(),
            })
            .collect();
        Self {
            random,
            step: 0,
            maps,
            reduces,
            workers,
            coordinator: None,
            epoch: 0,
            answers: VecDeque::new(),
            records: BTreeMap::new(),
            temporary: BTreeMap::new(),
            committed: BTreeMap::new(),
            outcome: None,
            user_failures,
            seen: BTreeMap::new(),
        }
    }

    fn happens(&mut self, what: &'static str, one_in: u32) -> bool {
        let happens = self.step < FAULTS_UNTIL && self.random.random_ratio(1, one_in);
        if happens {
            *self.seen.entry(what).or_default() += 1;
        }
        happens
    }

    fn run(&mut self) -> Outcome {
        while self.outcome.is_none() {
            assert!(self.step < STEPS_MAX, "the job never ends");
            self.step += 1;
            self.coordinate();
            for index in 0..self.workers.len() {
                self.disturb_worker(index);
                self.work(index);
            }
            self.deliver_answers();
        }
        self.outcome.clone().expect("the loop waited for it")
    }

    fn now(&self) -> u64 {
        self.step * STEP_MS
    }

    fn coordinate(&mut self) {
        if self.coordinator.is_some() && self.happens("coordinator dies", 80) {
            self.coordinator = None;
        }
        if self.coordinator.is_none() {
            self.elect();
        }
        let Some(mut coordinator) = self.coordinator.take() else { return };
        coordinator.scheduler.tick(self.now());
        for index in 0..self.workers.len() {
            if !self.workers[index].alive || self.workers[index].stalled_until > self.step {
                continue;
            }
            let heartbeat = self.heartbeat(index);
            if self.happens("heartbeat lost", 10) {
                continue;
            }
            let times = if self.happens("heartbeat doubled", 20) { 2 } else { 1 };
            for _ in 0..times {
                let instructions = coordinator.scheduler.heartbeat(&heartbeat);
                let delay = if self.happens("answer late", 8) { 7 } else { 0 };
                if !self.happens("answer lost", 10) {
                    let to = self.workers[index].id;
                    self.answers.push_back((self.step + delay, index, to, instructions));
                }
            }
        }
        for (job, action) in coordinator.scheduler.take_actions() {
            assert_eq!(job, JOB);
            let delay = self.random.random_range(0..5);
            // Actions are carried out in their order.
            let earliest = coordinator.queue.back().map_or(0, |(step, _)| *step);
            coordinator.queue.push_back((earliest.max(self.step + delay), action));
        }
        while coordinator.queue.front().is_some_and(|(step, _)| *step <= self.step) {
            let (_, action) = coordinator.queue.pop_front().expect("it has a front");
            self.act(&mut coordinator.scheduler, action);
            if self.happens("coordinator dies between two actions", 60) {
                return;
            }
        }
        self.coordinator = Some(coordinator);
    }

    fn elect(&mut self) {
        self.epoch += 1;
        let mut scheduler = Scheduler::new(self.now(), 3 * STEP_MS, WORKER_TIMEOUT_MS);
        let hosts = (0..self.maps).map(|map| vec![NodeId(u64::from(map % 3))]).collect();
        let records: Vec<TaskRecord> = self.records.values().cloned().collect();
        let workers: BTreeSet<WorkerId> = records.iter().map(|record| record.worker).collect();
        let job = Job::new(self.epoch, self.now(), hosts, self.reduces, records);
        scheduler.add_job(JOB, job, workers);
        self.coordinator = Some(Coordinator { scheduler, queue: VecDeque::new() });
    }

    fn act(&mut self, scheduler: &mut Scheduler, action: Action) {
        let job = scheduler.job_mut(JOB).expect("there is one job");
        match action {
            Action::Record(record) => {
                let (task, attempt) = (record.task, record.attempt);
                self.records.insert(task, record);
                job.recorded(task, attempt);
            }
            Action::Commit { task, attempt } => {
                let record = self.records.get(&task).expect("only what is on record is committed");
                assert_eq!(record.attempt, attempt, "{task} is committed as it is on record");
                match (self.temporary.remove(&(task, attempt)), self.committed.get(&task)) {
                    (Some(output), None) => {
                        self.committed.insert(task, output);
                    }
                    // An earlier coordinator renamed it and could not say so any more.
                    (None, Some(output)) => assert_eq!(output.attempt, attempt),
                    (output, committed) => panic!("{task}: {output:?} onto {committed:?}"),
                }
                job.committed(task, attempt);
            }
            Action::End(outcome) => self.outcome = Some(outcome),
        }
    }

    fn heartbeat(&self, index: usize) -> Heartbeat {
        let worker = &self.workers[index];
        let running = worker.running.iter().map(|running| AttemptReport {
            name: running.name,
            report: Report::Running { permille: 100 },
        });
        let finished = worker
            .finished
            .iter()
            .map(|(name, report)| AttemptReport { name: *name, report: report.clone() });
        Heartbeat {
            worker: worker.id,
            slots: worker.slots as u32,
            attempts: running.chain(finished).collect(),
            jobs: vec![JOB],
        }
    }

    fn disturb_worker(&mut self, index: usize) {
        if self.workers[index].alive && self.happens("worker dies", 60) {
            self.workers[index].alive = false;
        } else if self.workers[index].alive && self.happens("worker stalls", 60) {
            self.workers[index].stalled_until = self.step + 30;
        } else if !self.workers[index].alive && self.random.random_ratio(1, 20) {
            let incarnation = self.random.random();
            let worker = &mut self.workers[index];
            worker.id.incarnation = incarnation;
            worker.alive = true;
            worker.running.clear();
            worker.finished.clear();
            worker.started.clear();
            worker.outputs.clear();
        }
    }

    /// A worker goes on working also while nobody hears of it.
    fn work(&mut self, index: usize) {
        if !self.workers[index].alive {
            return;
        }
        let mut running = std::mem::take(&mut self.workers[index].running);
        running.retain_mut(|attempt| {
            attempt.steps_left = attempt.steps_left.saturating_sub(1);
            if attempt.steps_left > 0 {
                return true;
            }
            let report = self.finish(index, attempt);
            self.workers[index].finished.push((attempt.name, report));
            false
        });
        self.workers[index].running = running;
    }

    fn finish(&mut self, index: usize, running: &Running) -> Report {
        let AttemptName { task, attempt, .. } = running.name;
        if self.user_failures && self.random.random_ratio(1, 6) {
            return Report::Failed { reason: "bad code".to_owned(), by_user: true };
        }
        if self.happens("system failure", 30) {
            return Report::Failed { reason: "bad disk".to_owned(), by_user: false };
        }
        let mut inputs = Vec::new();
        for (map, source) in (0_u32..).zip(&running.sources) {
            let holder = self.workers.iter().find(|worker| worker.id == source.worker);
            let is_there = holder.is_some_and(|worker| {
                worker.alive && worker.outputs.contains(&(map, source.attempt))
            });
            if !is_there || self.happens("fetch fails", 100) {
                *self.seen.entry("fetch failed").or_default() += 1;
                let reason = "gone".to_owned();
                return Report::FetchFailed { map, attempt: source.attempt, reason };
            }
            inputs.push(source.attempt);
        }
        if task.kind == TaskKind::Map && self.reduces > 0 {
            self.workers[index].outputs.insert((task.index, attempt));
        } else {
            let before = self.temporary.insert((task, attempt), Output { attempt, inputs });
            assert!(before.is_none(), "attempt {attempt} at {task} ran twice");
        }
        let mut counters = Counters::default();
        counters.add("world", "tasks", 1);
        Report::Succeeded { counters }
    }

    fn deliver_answers(&mut self) {
        let (due, late): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|(step, ..)| *step <= self.step);
        self.answers = late;
        for (_, index, to, instructions) in due {
            if self.workers[index].alive && self.workers[index].id == to {
                self.follow(index, instructions);
            }
        }
    }

    fn follow(&mut self, index: usize, instructions: Instructions) {
        for name in instructions.stop {
            let worker = &mut self.workers[index];
            let before = worker.running.len();
            worker.running.retain(|running| running.name != name);
            if worker.running.len() < before {
                worker.finished.push((name, Report::Stopped));
            }
        }
        let forget: BTreeSet<AttemptName> = instructions.forget.into_iter().collect();
        self.workers[index].finished.retain(|(name, _)| !forget.contains(name));
        for Work { name, sources } in instructions.start {
            let steps_left = match self.random.random_range(0..20) {
                0 => 400,
                _ => self.random.random_range(1..12),
            };
            let worker = &mut self.workers[index];
            if worker.started.insert(name) {
                worker.running.push(Running { name, sources, steps_left });
            }
        }
    }

    /// Each task that makes output has one file, made by the attempt on record, from one attempt at
    /// each map task.
    fn check_output(&self) {
        let outputs = if self.reduces == 0 { self.maps } else { self.reduces };
        assert_eq!(self.committed.len(), outputs as usize);
        for (task, output) in &self.committed {
            assert_eq!(self.records[task].attempt, output.attempt);
            let inputs = if self.reduces == 0 { 0 } else { self.maps };
            assert_eq!(output.inputs.len(), inputs as usize, "{task}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_job_ends_with_each_task_once_whatever_happens(
        seed in any::<u64>(),
        maps in 0_u32..20,
        reduces in 0_u32..6,
        workers in 1_u64..6,
    ) {
        let mut world = World::new(seed, maps, reduces, workers, false);
        prop_assert_eq!(world.run(), Outcome::Succeeded);
        world.check_output();
    }

    #[test]
    fn a_job_whose_code_fails_now_and_then_ends_either_way(
        seed in any::<u64>(),
        maps in 1_u32..20,
        reduces in 0_u32..6,
        workers in 1_u64..6,
    ) {
        let mut world = World::new(seed, maps, reduces, workers, true);
        match world.run() {
            Outcome::Succeeded => world.check_output(),
            Outcome::Failed { reason } => prop_assert!(reason.contains("bad code"), "{}", reason),
            Outcome::Cancelled => prop_assert!(false, "nobody cancelled it"),
        }
    }
}

#[test]
fn the_world_is_hostile_enough() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..50 {
        let mut world = World::new(seed, 15, 4, 4, false);
        world.run();
        for (what, times) in world.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for what in [
        "coordinator dies",
        "coordinator dies between two actions",
        "worker dies",
        "worker stalls",
        "heartbeat lost",
        "heartbeat doubled",
        "answer lost",
        "answer late",
        "system failure",
        "fetch failed",
    ] {
        assert!(seen.get(what).is_some_and(|&times| times > 5), "{what}: {seen:?}");
    }
}
