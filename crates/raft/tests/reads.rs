//! §8: linearizable reads without the log.

mod cluster;

use cluster::{Cluster, ELECTION_TICKS, node};
use onefold_raft::{Body, Input, ReadId, ReadState, Role, StepError};
use onefold_types::LogIndex;

fn ready(id: u64, index: u64) -> ReadState {
    ReadState::Ready { id: ReadId(id), index: LogIndex(index) }
}

#[test]
fn a_read_waits_for_a_majority() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.propose(node(1), "x").expect("a proposal");
    cluster.settle();
    cluster.read(node(1), 7).expect("a read");
    assert!(cluster.stored[&node(1)].reads.is_empty());
    cluster.settle();
    assert_eq!(cluster.stored[&node(1)].reads, [ready(7, 2)]);
}

#[test]
fn a_single_voter_reads_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.elect(node(1));
    cluster.read(node(1), 7).expect("a read");
    assert_eq!(cluster.stored[&node(1)].reads, [ready(7, 1)]);
}

#[test]
fn a_new_leader_reads_only_after_a_commit_of_its_own_term() {
    let mut cluster = Cluster::new(3);
    cluster.step(node(1), Input::Campaign).expect("a campaign");
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Append { .. }));
    assert_eq!((cluster.role(node(1)), cluster.commit(node(1))), (Role::Leader, 0));
    cluster.read(node(1), 7).expect("a read");
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Append { .. }));
    assert!(cluster.stored[&node(1)].reads.is_empty());
    cluster.ticks(4);
    assert_eq!(cluster.stored[&node(1)].reads, [ready(7, 1)]);
}

#[test]
fn a_deposed_leader_fails_its_reads() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.isolate(node(1));
    cluster.read(node(1), 7).expect("a read");
    cluster.ticks(2 * ELECTION_TICKS);
    assert_eq!(cluster.stored[&node(1)].reads, [ReadState::Failed { id: ReadId(7) }]);
}

#[test]
fn reads_of_one_batch_share_one_round() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    let core = cluster.cores.get_mut(&node(1)).expect("the leader");
    for id in 0..100 {
        core.step(Input::ReadIndex(ReadId(id))).expect("a read");
    }
    let heartbeats = core.take_output().messages.len();
    assert_eq!(heartbeats, 2, "one for each follower");
}

#[test]
fn a_lost_round_is_repeated_with_the_next_heartbeat() {
    let mut cluster = Cluster::new(3);
    cluster.elect(node(1));
    cluster.read(node(1), 7).expect("a read");
    cluster.deliver_if(|_, _, _| false);
    cluster.ticks(4);
    assert_eq!(cluster.stored[&node(1)].reads, [ready(7, 1)]);
}

#[test]
fn waiting_reads_are_bounded() {
    let mut cluster = Cluster::configured(3, |config| {
        config.reads_pending_max = 2;
    });
    cluster.elect(node(1));
    cluster.read(node(1), 1).expect("a read");
    cluster.read(node(1), 2).expect("a read");
    assert_eq!(cluster.read(node(1), 3), Err(StepError::Overloaded));
    let refused = cluster.read(node(2), 4);
    assert_eq!(refused, Err(StepError::NotLeader { leader: Some(node(1)) }));
}
