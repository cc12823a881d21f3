//! A thousand random seeds, and the determinism of the world.

use std::time::SystemTime;

use onefold_simulator::{
    Trace,
    raft::{self, Coverage},
};

/// Seeds that the ordinary test run draws; `ONEFOLD_SIM_SEEDS` overrides it.
const SEEDS: u64 = 1000;

/// With fewer seeds than this, a rare branch may be missed by chance.
const SEEDS_FOR_COVERAGE: u64 = 1000;

fn seeds_wanted() -> u64 {
    match std::env::var("ONEFOLD_SIM_SEEDS") {
        Ok(text) => text.parse().expect("ONEFOLD_SIM_SEEDS is a number of seeds"),
        Err(_) => SEEDS,
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        match raft::run(seed, None, Trace::hashed()) {
            Ok(report) => coverage.merge(&report.coverage),
            Err(failure) => panic!("{failure}"),
        }
    }
    coverage
}

#[test]
fn random_seeds_hold() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (start, count) = (since.as_micros() as u64, seeds_wanted());
    println!("raft: {count} seeds from {start}");
    let coverage = run_all(start..start + count);
    println!("{coverage}");
    if count >= SEEDS_FOR_COVERAGE {
        let missed: Vec<_> = coverage.missed().into_iter().map(raft::Branch::name).collect();
        assert!(missed.is_empty(), "never taken in {count} seeds from {start}: {missed:?}");
    }
}

/// The same seeds in every run, so that a change which breaks them is seen at once.
#[test]
fn fixed_seeds_hold() {
    run_all(0..100);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let hash = |seed| {
        let report = raft::run(seed, None, Trace::hashed()).expect("a seed that holds");
        (report.trace_hash, report.events)
    };
    for seed in 0..20 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
        assert_ne!(hash(seed), hash(seed + 1), "different seeds are different runs");
    }
}
