//! Random and fixed seeds of whole clusters, each run twice.

use std::time::SystemTime;

use onefold_simulator::{
    Trace,
    cluster::{self, Totals},
};

/// Seeds that the ordinary test run draws; `ONEFOLD_SIM_CLUSTER_SEEDS` overrides it.
const SEEDS: u64 = 20;

fn seeds_wanted() -> u64 {
    match std::env::var("ONEFOLD_SIM_CLUSTER_SEEDS") {
        Ok(text) => text.parse().expect("ONEFOLD_SIM_CLUSTER_SEEDS is a number of seeds"),
        Err(_) => SEEDS,
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Totals {
    let mut totals = Totals::default();
    for seed in seeds {
        match cluster::run_twice(seed) {
            Ok(report) => totals.merge(&report.totals),
            Err(failure) => panic!("{failure}"),
        }
    }
    totals
}

#[test]
fn random_seeds_hold_and_repeat() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (start, count) = (since.as_micros() as u64, seeds_wanted());
    println!("cluster: {count} seeds from {start}");
    println!("{}", run_all(start..start + count));
}

/// The same seeds in every run, so that a change which breaks them is seen at once. What they reach
/// says that the world still looks where it should.
#[test]
fn fixed_seeds_hold_and_look_everywhere_that_matters() {
    use cluster::Branch;
    let totals = run_all(0..40);
    println!("{totals}");
    let expected = [
        Branch::TwoLeaders,
        Branch::LogTruncated,
        Branch::SnapshotInstalled,
        Branch::SnapshotInPieces,
        Branch::SnapshotResumed,
        Branch::AppliedAgain,
        Branch::LeaseRead,
        Branch::FollowerRead,
        Branch::RetryAnswered,
        Branch::OutcomeUnknown,
        Branch::JointLeft,
        Branch::LearnerPromoted,
        Branch::WipedReplaced,
        Branch::WokeByDown,
        Branch::QuietLeaderReplaced,
        Branch::DivergenceRebuilt,
    ];
    let missed = expected.into_iter().filter(|&branch| totals.coverage.count(branch) == 0);
    let missed: Vec<_> = missed.map(Branch::name).collect();
    assert!(missed.is_empty(), "never: {missed:?}");
}

#[test]
fn different_seeds_are_different_runs() {
    let hash = |seed| {
        let report = cluster::run(seed, None, Trace::hashed()).expect("a seed that holds");
        report.trace_hash
    };
    assert_ne!(hash(0), hash(1));
}
