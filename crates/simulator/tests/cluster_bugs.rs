//! The world is tested too: bugs put in on purpose must be found.
//!
//! `onefold-sim bugs` prints how many seeds each needs.

use onefold_simulator::{
    Trace,
    cluster::{self, Sabotage},
};

/// Within so many seeds each of the quick ones must be found.
const SEEDS_TO_FIND_A_BUG: u64 = 40;

/// Those that take more seeds than the ordinary test run has time for.
const RARE: [Sabotage; 6] = [
    Sabotage::IgnoreTruncation,
    Sabotage::FrozenLeaseClock,
    Sabotage::RenewedUnasked,
    Sabotage::NoteClearedElsewhere,
    Sabotage::DeposedEndsLeases,
    Sabotage::LeaseEndsInPieces,
];

#[test]
fn every_common_bug_put_in_on_purpose_is_found() {
    // Failed assertions of the cores are findings here, not news.
    std::panic::set_hook(Box::new(|_| {}));
    let finding = |bug| {
        (0..SEEDS_TO_FIND_A_BUG).find_map(|seed| {
            let failure = cluster::run(seed, Some(bug), Trace::hashed()).err()?;
            // It must be the bug that was found.
            cluster::run(seed, None, Trace::hashed()).ok()?;
            Some((seed + 1, failure.violation.invariant))
        })
    };
    let common = Sabotage::ALL.into_iter().filter(|bug| !RARE.contains(bug));
    let found: Vec<_> = common.map(|bug| (bug, finding(bug))).collect();
    let _ = std::panic::take_hook();
    for (bug, finding) in &found {
        println!("{bug:?}: {finding:?}");
    }
    let missed = found.iter().filter(|(_, finding)| finding.is_none());
    let missed: Vec<Sabotage> = missed.map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not found in {SEEDS_TO_FIND_A_BUG} seeds: {missed:?}");
}
