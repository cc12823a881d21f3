//! The scenarios of figures 7 and 8 of the Raft paper.

mod cluster;

use std::{cell::RefCell, collections::BTreeSet};

use cluster::{Cluster, node};
use onefold_raft::{Body, Message, Role};
use onefold_types::{LogIndex, NodeId};

/// Figure 7: the leader of term 8 meets followers that lack entries (a, b), have extra uncommitted
/// entries (c, d), or both (e, f). §5.3 brings every log to the leader's, with one refusal each.
#[test]
fn figure_7_every_log_becomes_the_leaders() {
    let leader: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let logs: Vec<&[u64]> = std::iter::once(leader).chain(followers).collect();
    let mut cluster = Cluster::with_logs(&logs);
    cluster.elect(node(1));
    assert_eq!(cluster.term(node(1)), 8);
    let expected = [leader, &[8]].concat();
    for id in (1..=7).map(NodeId) {
        assert_eq!(cluster.log_of(id), expected, "node {id}");
        assert_eq!(cluster.commit(id), 11, "node {id}");
    }
    let rejections: Vec<usize> = (2..=7).map(|id| cluster.rejections_by(node(id))).collect();
    assert_eq!(rejections, [1, 1, 0, 0, 1, 1]);
}

/// Figure 7's vote: (c) and (d) have more up-to-date logs and refuse; the others are a majority.
#[test]
fn figure_7_more_up_to_date_logs_refuse_their_vote() {
    let leader: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let longer: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6];
    let later: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 7];
    let mut cluster = Cluster::with_logs(&[leader, longer, later]);
    cluster.campaign(node(1));
    assert_ne!(cluster.role(node(1)), Role::Leader);
}

/// Figure 8 up to (c): S1 led term 2 and replicated index 2 to S2 only; S5 led term 3 and wrote
/// another entry there; S1 is elected again for term 4 and replicates its old entry to a majority.
/// Only single entries travel in an append, and its own entry of term 4 reaches nobody.
fn figure_8_c() -> Cluster {
    let logs: [&[u64]; 5] = [&[1, 2], &[1, 2], &[1], &[1], &[1, 3]];
    let mut cluster =
        Cluster::with_terms_and_logs(&[3, 3, 3, 3, 3], &logs, |config| config.append_bytes_max = 1);
    cluster.crash(node(5));
    cluster.step(node(1), onefold_raft::Input::Campaign).expect("a campaign");
    // The first such append to S3 and S4 is refused for lack of index 2; no other gets through.
    let refused = RefCell::new(BTreeSet::new());
    cluster.deliver_if(|_, to, message| {
        !carries_term(message, 4) || (to != node(2) && refused.borrow_mut().insert(to))
    });
    assert_eq!((cluster.role(node(1)), cluster.term(node(1))), (Role::Leader, 4));
    for id in [3, 4] {
        assert_eq!(cluster.log_of(node(id)), [1, 2], "node {id} has the old entry");
        let matched = cluster.cores[&node(1)].status().followers[&node(id)].matched;
        assert_eq!(matched, LogIndex(2), "and the leader knows");
    }
    cluster
}

fn carries_term(message: &Message, term: u64) -> bool {
    match &message.body {
        Body::Append { entries, .. } => entries.iter().any(|entry| entry.term.0 == term),
        _ => false,
    }
}

/// Figure 8 (c): an entry of an earlier term is not committed by counting replicas (§5.4.2).
#[test]
fn figure_8_an_old_entry_on_a_majority_is_not_committed() {
    let cluster = figure_8_c();
    let commits: Vec<u64> = (1..=4).map(|id| cluster.commit(node(id))).collect();
    assert_eq!(commits, [0; 4], "on four of five, and still not committed");
}

/// Figure 8 (d): the reason. S5 is elected and overwrites index 2 of term 2 everywhere.
#[test]
fn figure_8_the_later_term_may_overwrite_it() {
    let mut cluster = figure_8_c();
    cluster.crash(node(1));
    cluster.start(node(5));
    // S5 has to learn the current term, and the dead leader's lease to run out.
    for _ in 0..20 {
        for id in [2, 3, 4].map(node) {
            cluster.step(id, onefold_raft::Input::Tick).expect("a tick");
        }
        cluster.deliver_if(|from, _, _| from == node(5));
        cluster.campaign(node(5));
    }
    assert_eq!(cluster.role(node(5)), Role::Leader);
    cluster.start(node(1));
    cluster.ticks(20);
    for id in (1..=5).map(NodeId) {
        assert_eq!(cluster.log_of(id)[..2], [1, 3], "node {id}");
        assert_eq!(cluster.applied_by(id)[..2], ["1/1", "2/3"], "node {id}");
    }
}

/// Figure 8 (e): once an entry of the leader's own term is on a majority, everything before it is
/// committed too, and S5 can no longer win.
#[test]
fn figure_8_an_entry_of_the_own_term_commits_what_is_before_it() {
    let mut cluster = figure_8_c();
    cluster.ticks(5);
    assert_eq!(cluster.commit(node(1)), 3);
    cluster.crash(node(1));
    cluster.start(node(5));
    for _ in 0..20 {
        cluster.campaign(node(5));
        assert_ne!(cluster.role(node(5)), Role::Leader);
    }
    cluster.ticks(100);
    assert_eq!(cluster.log_of(node(5))[..3], [1, 2, 4]);
}
