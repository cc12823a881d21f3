//! The search of all interleavings, and the bugs that it must find.

use onefold_simulator::check::{self, Bug, Outcome, Scope};

/// More than any of these searches meets.
const STATES_MAX: usize = 10_000_000;

fn scope(name: &str) -> Scope {
    Scope::named(name).expect("a scope of this name")
}

/// Everything within the depth of each scope, which takes seconds.
#[test]
fn every_interleaving_within_the_ordinary_depth_holds() {
    for scope in Scope::all() {
        let report = check::run(&scope, None, scope.depth, STATES_MAX, |_| {});
        println!("{}: {:?}", scope.name, report.reached);
        match report.outcome {
            Outcome::Exhausted | Outcome::DepthReached => {}
            Outcome::BudgetEnded => panic!("{}: {STATES_MAX} states are too few", scope.name),
            Outcome::Violated(found) => panic!("{}:\n{found}", scope.name),
        }
    }
}

/// Two searches of the same scope meet the same states.
#[test]
fn a_search_is_deterministic() {
    let search = || {
        let report = check::run(&scope("replication"), None, 7, STATES_MAX, |_| {});
        (report.reached, report.servers, report.messages, report.logs)
    };
    assert_eq!(search(), search());
}

#[test]
fn a_budget_that_ends_is_not_a_pass() {
    let report = check::run(&scope("elections"), None, 12, 1000, |_| {});
    assert!(matches!(report.outcome, Outcome::BudgetEnded), "{:?}", report.outcome);
}

/// The invariant that a bug breaks first, in this scope and within so many steps.
fn first_broken(bug: Bug, scope: &Scope, depth: u32) -> (&'static str, usize) {
    let report = check::run(scope, Some(bug), depth, STATES_MAX, |_| {});
    let Outcome::Violated(found) = report.outcome else {
        panic!("{bug:?} was not found: {:?} after {:?}", report.outcome, report.reached);
    };
    println!("{bug:?}, {} states:\n{found}\n", report.reached.states);
    (found.violation.invariant, found.steps.len())
}

#[test]
fn every_bug_put_in_on_purpose_is_found_by_a_shortest_trace() {
    let prompt = |name| Scope { has_slow_disks: false, ..scope(name) };
    // Server 3 is the one of figure 8 that overwrites; nobody has to crash for it.
    let figure_8 = Scope {
        candidates: [1, 3].map(Into::into).into(),
        crashes_max: 0,
        has_heartbeats: true,
        ..scope("figure-8")
    };
    for bug in Bug::ALL {
        let (found, expected) = match bug {
            Bug::VoteNotPersisted => {
                (first_broken(bug, &prompt("elections"), 14), ("election safety", 11))
            }
            Bug::AckBeforeDurable => (
                first_broken(bug, &scope("elections"), 14),
                ("a vote is durable before it is given", 3),
            ),
            Bug::EntriesNotSynced => (
                first_broken(bug, &scope("replication"), 10),
                ("committed entries are durable on a majority", 7),
            ),
            Bug::CommitByCounting => {
                (first_broken(bug, &figure_8, 20), ("leader completeness", 18))
            }
            Bug::InflatedAcknowledgement => {
                (first_broken(bug, &prompt("elections"), 10), ("inputs are well-formed", 7))
            }
            Bug::StaleRead => (first_broken(bug, &scope("reads"), 20), ("linearizable reads", 9)),
            Bug::MislabelledSnapshot => (
                first_broken(bug, &scope("snapshot"), 14),
                ("committed entries are durable on a majority", 9),
            ),
            Bug::TruncationForgotten => {
                (first_broken(bug, &figure_8, 20), ("what is written is what the core has", 13))
            }
            Bug::SingleStepMembership => {
                (first_broken(bug, &scope("shrink"), 14), ("election safety", 9))
            }
        };
        assert_eq!(found, expected, "{bug:?}");
    }
}
