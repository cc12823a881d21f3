//! Lease reads, and the promises that they rest on (dissertation, section 6.4.1).

mod cluster;

use cluster::{Cluster, ELECTION_TICKS, TICK_MICROS, node, remove};
use onefold_raft::{
    Body, Config, Input, Lease, Membership, Message, Raft, ReadState, Restored, Role, SnapshotMark,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

/// Less than an election timeout, as it should be.
const LEASE: Lease =
    Lease { micros: (ELECTION_TICKS as u64 - 2) * TICK_MICROS, drift_ppm: 100_000 };

fn configured(configure: fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::configured(3, configure);
    // Everybody may have heard a leader before it started.
    cluster.micros += LEASE.micros;
    cluster
}

/// Three voters, led by 1, which holds a lease.
fn led() -> Cluster {
    let mut cluster = configured(|config| config.lease = Some(LEASE));
    cluster.elect(node(1));
    cluster.ticks(2);
    assert!(holds_lease(&cluster, 1));
    cluster
}

fn holds_lease(cluster: &Cluster, id: u64) -> bool {
    cluster.cores[&node(id)].status().lease_until.is_some()
}

fn deliver(cluster: &mut Cluster, from: u64, to: u64, term: u64, body: Body) {
    let message = Message { term: Term(term), body };
    cluster.step(node(to), Input::Message { from: node(from), message }).expect("a message");
}

fn vote_request(transfer: bool) -> Body {
    Body::RequestVote { last_index: LogIndex(9), last_term: Term(9), transfer }
}

/// What was granted since the network was last empty.
fn granted(cluster: &Cluster) -> Vec<NodeId> {
    let is_grant = |message: &Message| {
        matches!(
            message.body,
            Body::VoteResponse { granted: true } | Body::PreVoteResponse { granted: true }
        )
    };
    cluster.network.iter().filter(|(_, _, m)| is_grant(m)).map(|(from, _, _)| *from).collect()
}

#[test]
fn a_leader_with_a_lease_answers_reads_without_asking() {
    let mut cluster = led();
    cluster.propose(node(1), "a").expect("a leader");
    cluster.settle();
    cluster.network.clear();
    cluster.read(node(1), 7).expect("a leader");
    let expected = ReadState::Ready { id: onefold_raft::ReadId(7), index: LogIndex(2) };
    assert_eq!(cluster.stored[&node(1)].reads, [expected]);
    assert!(cluster.network.is_empty());
}

#[test]
fn leases_are_off_unless_configured() {
    let mut cluster = configured(|_| {});
    cluster.elect(node(1));
    cluster.ticks(5);
    assert!(!holds_lease(&cluster, 1));
    cluster.read(node(1), 1).expect("a leader");
    assert_eq!(cluster.stored[&node(1)].reads, []);
    cluster.settle();
    assert_eq!(cluster.stored[&node(1)].reads.len(), 1);
}

#[test]
fn a_lease_counts_from_the_time_at_which_the_round_was_sent_less_the_drift() {
    let mut cluster = led();
    cluster.isolate(node(1));
    let sent = cluster.micros / TICK_MICROS;
    let until = cluster.cores[&node(1)].status().lease_until.expect("a lease");
    assert!(until <= (sent + 8) * TICK_MICROS - LEASE.micros / 10, "{until} of {sent}");
    cluster.micros = until - 1;
    cluster.read(node(1), 1).expect("a leader");
    assert_eq!(cluster.stored[&node(1)].reads.len(), 1, "the last moment");
    cluster.micros = until;
    cluster.read(node(1), 2).expect("a leader");
    assert_eq!(cluster.stored[&node(1)].reads.len(), 1, "asks, and gets no answer");
    assert!(!holds_lease(&cluster, 1));
}

#[test]
fn a_minority_of_answers_gives_no_lease() {
    let mut cluster = configured(|config| config.lease = Some(LEASE));
    cluster.elect(node(1));
    cluster.isolate(node(2));
    cluster.isolate(node(3));
    cluster.ticks(4);
    assert!(!holds_lease(&cluster, 1));
}

#[test]
fn a_voter_elects_nobody_for_the_length_of_a_lease_after_it_heard_the_leader() {
    let mut cluster = led();
    cluster.network.clear();
    for body in [Body::TermOver, vote_request(false)] {
        // The term passes to 2 without a vote; the promise stays.
        deliver(&mut cluster, 3, 2, 2, body);
    }
    assert_eq!(cluster.term(node(2)), 2);
    assert_eq!(granted(&cluster), []);
    cluster.step(node(2), Input::Campaign).expect("a campaign");
    assert_eq!(cluster.role(node(2)), Role::Follower, "nor does it stand");
    cluster.micros += LEASE.micros;
    deliver(&mut cluster, 3, 2, 2, vote_request(false));
    assert_eq!(granted(&cluster), [node(2)]);
}

#[test]
fn a_voter_that_started_elects_nobody_for_the_length_of_a_lease() {
    let mut cluster = led();
    cluster.crash(node(2));
    cluster.start(node(2));
    cluster.network.clear();
    deliver(&mut cluster, 3, 2, 2, vote_request(false));
    assert_eq!(granted(&cluster), []);
    cluster.micros += LEASE.micros - 1;
    deliver(&mut cluster, 3, 2, 2, vote_request(false));
    assert_eq!(granted(&cluster), []);
    cluster.micros += 1;
    deliver(&mut cluster, 3, 2, 2, vote_request(false));
    assert_eq!(granted(&cluster), [node(2)]);
}

#[test]
fn ticks_that_run_ahead_of_the_clock_do_not_break_a_promise() {
    let mut cluster = led();
    cluster.isolate(node(1));
    for _ in 0..10 * ELECTION_TICKS {
        for id in [2, 3] {
            cluster.step(node(id), Input::Tick).expect("a tick");
        }
        cluster.settle();
    }
    assert_eq!([2, 3].map(|id| cluster.term(node(id))), [1, 1]);
    assert!(holds_lease(&cluster, 1));
    cluster.ticks(3 * ELECTION_TICKS);
    assert!([2, 3].iter().any(|id| cluster.role(node(*id)) == Role::Leader));
}

#[test]
fn a_leader_that_hands_over_has_no_lease_any_more() {
    let mut cluster = led();
    cluster.step(node(1), Input::TransferLeadership(node(2))).expect("a transfer");
    assert!(!holds_lease(&cluster, 1));
    // The word is slow; the leader gives up waiting, and still may not trust the voters.
    let slow: Vec<_> = cluster.network.drain(..).collect();
    assert!(slow.iter().any(|(_, _, message)| message.body == Body::TimeoutNow));
    cluster.ticks(2 * ELECTION_TICKS);
    assert_eq!(cluster.role(node(1)), Role::Leader);
    assert_eq!(cluster.cores[&node(1)].status().transferee, None);
    assert!(!holds_lease(&cluster, 1));
    cluster.isolate(node(1));
    cluster.network.extend(slow);
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.role(node(2)), Role::Leader, "voters ignore their promises for a transfer");
    cluster.ticks(3);
    assert!(holds_lease(&cluster, 2), "a new term, a new lease");
}

#[test]
fn a_new_leader_has_no_lease_before_an_entry_of_its_term_is_committed() {
    let mut cluster = configured(|config| config.lease = Some(LEASE));
    cluster.step(node(1), Input::Campaign).expect("a campaign");
    cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Append { .. }));
    for _ in 0..4 {
        cluster.step(node(1), Input::Tick).expect("a tick");
        cluster.deliver_if(|_, _, message| !matches!(message.body, Body::Append { .. }));
    }
    assert_eq!(cluster.role(node(1)), Role::Leader);
    assert!(!holds_lease(&cluster, 1));
    cluster.ticks(3);
    assert!(holds_lease(&cluster, 1));
}

#[test]
fn a_lease_ends_while_the_group_is_silent_and_begins_anew_with_a_read() {
    let mut cluster = configured(|config| {
        config.lease = Some(LEASE);
        config.quiesce_after_ticks = Some(5);
    });
    cluster.elect(node(1));
    cluster.ticks(4 * ELECTION_TICKS);
    assert!(cluster.cores[&node(1)].is_quiet());
    assert!(!holds_lease(&cluster, 1));
    cluster.read(node(1), 1).expect("a leader");
    cluster.settle();
    assert_eq!(cluster.stored[&node(1)].reads.len(), 1);
    assert!(holds_lease(&cluster, 1));
}

/// A leader with a lease setting, whose followers have others.
fn led_with_followers(followers: fn(&mut Config)) -> Cluster {
    let mut cluster = configured(followers);
    cluster.reconfigure(node(1), |config| config.lease = Some(LEASE));
    cluster.micros += 2 * LEASE.micros;
    cluster.elect(node(1));
    cluster.ticks(4);
    cluster
}

#[test]
fn voters_that_promise_nothing_or_too_little_confirm_reads_but_support_no_lease() {
    let nothing: fn(&mut Config) = |_| {};
    let too_little: fn(&mut Config) =
        |config| config.lease = Some(Lease { micros: LEASE.micros - 1, ..LEASE });
    for followers in [nothing, too_little] {
        let mut cluster = led_with_followers(followers);
        assert!(!holds_lease(&cluster, 1));
        cluster.read(node(1), 1).expect("a leader");
        assert_eq!(cluster.stored[&node(1)].reads, []);
        cluster.settle();
        assert_eq!(cluster.stored[&node(1)].reads.len(), 1);
    }
    let longer = led_with_followers(|config| {
        config.lease = Some(Lease { micros: LEASE.micros + 1, ..LEASE });
    });
    assert!(holds_lease(&longer, 1));
}

#[test]
fn the_only_voter_stands_at_once_even_before_it_knows_the_time() {
    let mut config = Config::new(node(1), GroupId::KV, 7);
    config.lease = Some(LEASE);
    let snapshot = SnapshotMark::initial(Membership::of_voters([node(1)]));
    let restored = Restored { snapshot, ..Restored::default() };
    let mut core = Raft::new(config, restored).expect("a valid start");
    core.step(Input::Campaign).expect("a campaign");
    let persist = core.take_output().persist.expect("its vote");
    core.step(Input::Persisted(persist.sequence)).expect("as asked");
    assert_eq!(core.role(), Role::Leader);
}

#[test]
fn who_is_left_alone_by_a_change_keeps_its_promise_until_that_is_committed() {
    let mut cluster = led();
    cluster.change(node(1), remove(&[1, 3])).expect("a leader");
    // 2 has the last entry of the change, but 1 does not know that and still holds its lease.
    cluster.deliver_if(|from, to, message| {
        let is_last = matches!(&message.body, Body::AppendAccepted { matched } if matched.0 > 2);
        to != node(3) && !(is_last && from == node(2) && to == node(1)) || from == node(3)
    });
    cluster.step(node(2), Input::Campaign).expect("a campaign");
    assert_ne!(cluster.role(node(2)), Role::Leader);
}
