//! The world is tested too: bugs put in on purpose must be found.

use onefold_simulator::{
    Trace,
    raft::{self, Sabotage},
};

/// Within so many seeds each bug must be found.
const SEEDS_TO_FIND_A_BUG: u64 = 2000;

#[test]
fn every_bug_put_in_on_purpose_is_found() {
    // Failed assertions of the core are findings here, not news.
    std::panic::set_hook(Box::new(|_| {}));
    let finding = |bug| {
        (0..SEEDS_TO_FIND_A_BUG).find_map(|seed| {
            let failure = raft::run(seed, Some(bug), Trace::hashed()).err()?;
            Some((seed, failure.violation.invariant))
        })
    };
    let found = Sabotage::ALL.map(|bug| (bug, finding(bug)));
    let _ = std::panic::take_hook();
    for (bug, finding) in &found {
        println!("{bug:?}: {finding:?}");
    }
    let missed = found.iter().filter(|(_, finding)| finding.is_none());
    let missed: Vec<Sabotage> = missed.map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not found in {SEEDS_TO_FIND_A_BUG} seeds: {missed:?}");
}
