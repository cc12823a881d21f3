//! The scheduler, behaviour by behaviour.

use onefold_types::NodeId;

use super::*;
use crate::api::{Counters, JobId, TaskKind, TaskName};

const TIMEOUT_MS: u64 = 3000;

fn worker(node: u64) -> WorkerId {
    WorkerId { node: NodeId(node), incarnation: 100 + node }
}

fn job(hosts: &[&[u64]], reduces: u32) -> Job {
    resumed(1, hosts, reduces, Vec::new())
}

fn resumed(epoch: u64, hosts: &[&[u64]], reduces: u32, records: Vec<TaskRecord>) -> Job {
    let hosts = hosts.iter().map(|hosts| hosts.iter().map(|&host| NodeId(host)).collect());
    Job::new(epoch, 0, hosts.collect(), reduces, records)
}

fn scheduler(jobs: Vec<(u64, Job)>) -> Scheduler {
    let mut scheduler = Scheduler::new(0, 0, TIMEOUT_MS);
    for (id, job) in jobs {
        scheduler.add_job(JobId(id), job, []);
    }
    scheduler
}

fn beat(
    scheduler: &mut Scheduler,
    worker: WorkerId,
    slots: u32,
    reports: &[(AttemptName, Report)],
) -> Instructions {
    let attempts =
        reports.iter().map(|(name, report)| AttemptReport { name: *name, report: report.clone() });
    scheduler.heartbeat(&Heartbeat {
        worker,
        slots,
        attempts: attempts.collect(),
        jobs: Vec::new(),
    })
}

/// What a worker is told to start: the names of the tasks.
fn started(instructions: &Instructions) -> Vec<TaskName> {
    instructions.start.iter().map(|work| work.name.task).collect()
}

fn success() -> Report {
    Report::Succeeded { counters: Counters::default() }
}

fn failure() -> Report {
    Report::Failed { reason: "bad code".to_owned(), by_user: true }
}

const RUNNING: Report = Report::Running { permille: 10 };

/// Carries out all actions at once, and answers the records and ends among them.
fn act(scheduler: &mut Scheduler) -> (Vec<TaskRecord>, Vec<Outcome>) {
    let (mut records, mut ends) = (Vec::new(), Vec::new());
    loop {
        let actions = scheduler.take_actions();
        if actions.is_empty() {
            return (records, ends);
        }
        for (id, action) in actions {
            let job = scheduler.job_mut(id).expect("a job of an action");
            match action {
                Action::Record(record) => {
                    job.recorded(record.task, record.attempt);
                    records.push(record);
                }
                Action::Commit { task, attempt } => job.committed(task, attempt),
                Action::End(outcome) => ends.push(outcome),
            }
        }
    }
}

#[test]
fn a_job_runs_its_maps_where_the_input_is_and_then_its_reduces() {
    let mut scheduler = scheduler(vec![(1, job(&[&[1], &[2], &[1]], 1))]);
    let first = beat(&mut scheduler, worker(1), 2, &[]);
    assert_eq!(started(&first), [TaskName::map(0), TaskName::map(2)]);
    let second = beat(&mut scheduler, worker(2), 2, &[]);
    assert_eq!(started(&second), [TaskName::map(1)], "no reduce starts before the last map");
    let names: Vec<AttemptName> = first.start.iter().map(|work| work.name).collect();
    beat(&mut scheduler, worker(1), 2, &[(names[0], success()), (names[1], success())]);
    let name = second.start[0].name;
    let third = beat(&mut scheduler, worker(2), 2, &[(name, success())]);
    assert_eq!(started(&third), [TaskName::reduce(0)]);
    let sources: Vec<WorkerId> = third.start[0].sources.iter().map(|map| map.worker).collect();
    assert_eq!(sources, [worker(1), worker(2), worker(1)]);
    act(&mut scheduler);
    let local = scheduler.job(JobId(1)).map(|job| job.counters().get("task", "data_local_maps"));
    assert_eq!(local, Some(3));
    beat(&mut scheduler, worker(2), 2, &[(third.start[0].name, success())]);
    assert_eq!(act(&mut scheduler).1, [Outcome::Succeeded]);
}

#[test]
fn a_lost_answer_is_given_again_and_nothing_is_given_twice() {
    let mut scheduler = scheduler(vec![(1, job(&[&[], &[]], 1))]);
    let lost = beat(&mut scheduler, worker(1), 1, &[]);
    let again = beat(&mut scheduler, worker(1), 1, &[]);
    assert_eq!(lost, again);
    let running = beat(&mut scheduler, worker(1), 1, &[(again.start[0].name, RUNNING)]);
    assert_eq!(running, Instructions::default());
}

#[test]
fn a_result_is_forgotten_by_its_worker_only_when_it_is_on_record() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 1))]);
    let name = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    let told = beat(&mut scheduler, worker(1), 1, &[(name, success())]);
    assert_eq!(told.forget, []);
    act(&mut scheduler);
    let told = beat(&mut scheduler, worker(1), 1, &[(name, success())]);
    assert_eq!(told.forget, [name]);
}

#[test]
fn a_dead_worker_s_attempts_and_map_output_are_made_again() {
    let mut scheduler = scheduler(vec![(1, job(&[&[], &[], &[]], 1))]);
    let names: Vec<AttemptName> =
        beat(&mut scheduler, worker(1), 2, &[]).start.iter().map(|work| work.name).collect();
    beat(&mut scheduler, worker(1), 2, &[(names[0], success()), (names[1], RUNNING)]);
    act(&mut scheduler);
    scheduler.tick(TIMEOUT_MS);
    let other = beat(&mut scheduler, worker(2), 9, &[]);
    let mut tasks = started(&other);
    tasks.sort_unstable();
    assert_eq!(tasks, [TaskName::map(0), TaskName::map(1), TaskName::map(2)]);
}

#[test]
fn map_output_that_nobody_needs_any_more_is_not_made_again() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 1))]);
    let map = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    beat(&mut scheduler, worker(1), 0, &[(map, success())]);
    let reduce = beat(&mut scheduler, worker(2), 1, &[]).start[0].name;
    beat(&mut scheduler, worker(2), 1, &[(reduce, success())]);
    scheduler.tick(TIMEOUT_MS);
    assert_eq!(started(&beat(&mut scheduler, worker(3), 9, &[])), []);
    assert_eq!(act(&mut scheduler).1, [Outcome::Succeeded]);
}

#[test]
fn a_new_life_of_a_worker_ends_the_old_one_at_once() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 1))]);
    let old = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    let reborn = WorkerId { incarnation: 7, ..worker(1) };
    let told = beat(&mut scheduler, reborn, 1, &[]);
    assert_eq!(started(&told), [TaskName::map(0)]);
    assert_ne!(told.start[0].name, old);
}

#[test]
fn a_successor_runs_nothing_again_that_is_on_record_and_adopts_what_runs() {
    let mut first = scheduler(vec![(1, job(&[&[], &[], &[]], 1))]);
    let names: Vec<AttemptName> =
        beat(&mut first, worker(1), 2, &[]).start.iter().map(|work| work.name).collect();
    beat(&mut first, worker(1), 2, &[(names[0], success()), (names[1], RUNNING)]);
    let (records, _) = act(&mut first);
    assert_eq!(records.len(), 1);

    let mut successor = Scheduler::new(0, 500, TIMEOUT_MS);
    let workers: Vec<WorkerId> = records.iter().map(|record| record.worker).collect();
    successor.add_job(JobId(1), resumed(2, &[&[], &[], &[]], 1, records), workers);
    let told = beat(&mut successor, worker(2), 9, &[]);
    assert_eq!(started(&told), [], "other workers may yet tell what they are working on");
    let told = beat(&mut successor, worker(1), 2, &[(names[1], RUNNING)]);
    assert_eq!((told.stop, told.start), (vec![], vec![]));
    successor.tick(500);
    let told = beat(&mut successor, worker(2), 9, &[]);
    let started_before: Vec<TaskName> = names.iter().map(|name| name.task).collect();
    let [task] = started(&told)[..] else { panic!("one task is left: {told:?}") };
    assert!(!started_before.contains(&task));
    assert_eq!(told.start[0].name.attempt.epoch, 2);
}

#[test]
fn map_output_of_a_worker_that_does_not_come_back_is_made_again_by_a_successor() {
    let attempt = AttemptId { epoch: 1, number: 1 };
    let record = TaskRecord {
        task: TaskName::map(0),
        attempt,
        worker: worker(1),
        counters: Counters::default(),
    };
    let mut scheduler = Scheduler::new(0, 0, TIMEOUT_MS);
    let job = resumed(2, &[&[]], 1, vec![record.clone()]);
    scheduler.add_job(JobId(1), job, [record.worker]);
    assert_eq!(started(&beat(&mut scheduler, worker(2), 1, &[])), [TaskName::reduce(0)]);
    scheduler.tick(TIMEOUT_MS);
    let told = beat(&mut scheduler, worker(3), 1, &[]);
    assert_eq!(started(&told), [TaskName::map(0)]);
}

#[test]
fn failures_move_to_other_nodes_and_the_fourth_ends_the_job() {
    let mut scheduler = scheduler(vec![(1, job(&[&[1]], 1))]);
    beat(&mut scheduler, worker(2), 0, &[]);
    let first = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    let told = beat(&mut scheduler, worker(1), 1, &[(first, failure())]);
    assert_eq!((told.forget.as_slice(), started(&told)), ([first].as_slice(), vec![]));
    let second = beat(&mut scheduler, worker(2), 1, &[]).start[0].name;
    // It has failed everywhere now: any node will do.
    let third = beat(&mut scheduler, worker(2), 1, &[(second, failure())]).start[0].name;
    let fourth = beat(&mut scheduler, worker(2), 1, &[(third, failure())]).start[0].name;
    assert_eq!(act(&mut scheduler).1, []);
    beat(&mut scheduler, worker(2), 1, &[(fourth, failure())]);
    let (_, ends) = act(&mut scheduler);
    let [Outcome::Failed { reason }] = ends.as_slice() else { panic!("{ends:?}") };
    assert!(reason.contains("m-00000 failed 4 times") && reason.contains("bad code"), "{reason}");
    assert_eq!(scheduler.job(JobId(1)).map(|job| job.failures().0), Some(4));
}

#[test]
fn a_failure_of_the_cluster_is_tried_again_later() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 1))]);
    let name = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    let report = Report::Failed { reason: "disk".to_owned(), by_user: false };
    assert_eq!(started(&beat(&mut scheduler, worker(1), 1, &[(name, report)])), []);
    scheduler.tick(1000);
    assert_eq!(started(&beat(&mut scheduler, worker(1), 1, &[])), [TaskName::map(0)]);
}

#[test]
fn output_that_cannot_be_fetched_is_made_again_and_the_reduce_waits_for_it() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 1))]);
    let map = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    let told = beat(&mut scheduler, worker(1), 1, &[(map, success())]);
    let reduce = told.start[0].name;
    let report = Report::FetchFailed { map: 0, attempt: map.attempt, reason: "gone".to_owned() };
    let told = beat(&mut scheduler, worker(1), 1, &[(reduce, report)]);
    assert_eq!(started(&told), [TaskName::map(0)]);
    let again = told.start[0].name;
    assert_ne!(again, map);
    let told = beat(&mut scheduler, worker(1), 1, &[(again, success())]);
    assert_eq!(started(&told), [TaskName::reduce(0)]);
    assert_eq!(told.start[0].sources[0].attempt, again.attempt);
    assert_eq!(scheduler.job(JobId(1)).map(|job| job.failures().0), Some(0));
}

#[test]
fn a_straggler_gets_a_backup_and_the_first_to_finish_wins() {
    let mut scheduler = scheduler(vec![(1, job(&[&[], &[]], 1))]);
    let names: Vec<AttemptName> =
        beat(&mut scheduler, worker(1), 2, &[]).start.iter().map(|work| work.name).collect();
    let (slow, fast) = (names[0], names[1]);
    scheduler.tick(1000);
    beat(&mut scheduler, worker(1), 2, &[(slow, RUNNING), (fast, success())]);
    act(&mut scheduler);
    let mut now = 1000;
    while now < 9500 {
        now += 500;
        scheduler.tick(now);
        beat(&mut scheduler, worker(1), 2, &[(slow, RUNNING)]);
        assert_eq!(started(&beat(&mut scheduler, worker(2), 1, &[])), [], "at {now} ms");
    }
    scheduler.tick(10_000);
    assert_eq!(started(&beat(&mut scheduler, worker(1), 2, &[(slow, RUNNING)])), []);
    let backup = beat(&mut scheduler, worker(2), 1, &[]).start[0].name;
    assert_eq!(backup.task, slow.task);
    beat(&mut scheduler, worker(2), 1, &[(backup, success())]);
    let told = beat(&mut scheduler, worker(1), 2, &[(slow, RUNNING)]);
    assert_eq!(told.stop, [slow]);
    let (records, _) = act(&mut scheduler);
    assert_eq!(records[0].attempt, backup.attempt);
}

#[test]
fn a_job_that_ended_has_its_attempts_stopped_and_its_files_removed() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 1))]);
    let name = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    scheduler.job_mut(JobId(1)).expect("the job").cancel();
    assert_eq!(act(&mut scheduler).1, [Outcome::Cancelled]);
    for _ in 0..2 {
        let told = scheduler.heartbeat(&Heartbeat {
            worker: worker(1),
            slots: 1,
            attempts: vec![AttemptReport { name, report: RUNNING }],
            jobs: vec![JobId(1)],
        });
        assert_eq!((told.stop, told.ended, told.start), (vec![name], vec![JobId(1)], vec![]));
        scheduler.remove_job(JobId(1));
    }
    let told = beat(&mut scheduler, worker(1), 1, &[(name, Report::Stopped)]);
    assert_eq!(told.forget, [name]);
}

#[test]
fn slots_go_to_the_job_that_has_the_fewest() {
    let many: Vec<&[u64]> = vec![&[]; 10];
    let mut scheduler = scheduler(vec![(1, job(&many, 1))]);
    assert_eq!(beat(&mut scheduler, worker(1), 4, &[]).start.len(), 4);
    scheduler.add_job(JobId(2), job(&many, 1), []);
    let told = beat(&mut scheduler, worker(2), 4, &[]);
    assert!(told.start.iter().all(|work| work.name.job == JobId(2)));
    let told = beat(&mut scheduler, worker(3), 4, &[]);
    let of = |id: u64| told.start.iter().filter(|work| work.name.job == JobId(id)).count();
    assert_eq!((of(1), of(2)), (2, 2));
}

#[test]
fn a_job_without_reducers_commits_its_maps() {
    let mut scheduler = scheduler(vec![(1, job(&[&[]], 0))]);
    let name = beat(&mut scheduler, worker(1), 1, &[]).start[0].name;
    beat(&mut scheduler, worker(1), 1, &[(name, success())]);
    assert_eq!(act(&mut scheduler).1, [Outcome::Succeeded]);
    assert_eq!(scheduler.job(JobId(1)).map(|job| job.counts(TaskKind::Map).done), Some(1));
}

#[test]
fn a_job_without_input_ends_with_empty_output() {
    let mut scheduler = scheduler(vec![(1, job(&[], 1)), (2, job(&[], 0))]);
    assert_eq!(act(&mut scheduler).1, [Outcome::Succeeded], "there is nothing to commit in job 2");
    let told = beat(&mut scheduler, worker(1), 1, &[]);
    assert_eq!(started(&told), [TaskName::reduce(0)]);
}
