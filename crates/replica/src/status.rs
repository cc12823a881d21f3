//! What a replica tells of its group.

use std::collections::{BTreeMap, BTreeSet};

use onefold_raft::{FollowerMode, FollowerStatus};
use onefold_types::{GroupId, LogIndex, NodeId, Term};
use serde::{Deserialize, Serialize};

/// What a replica is in its group (Raft paper, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Takes entries from the leader.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Orders the group's commands.
    Leader,
}

/// A replica's view of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The node of this replica.
    pub node: NodeId,
    /// What the replica is.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// The last entry known to be committed.
    pub commit: LogIndex,
    /// The last entry that this replica has applied.
    pub applied: LogIndex,
    /// The last entry in this replica's log.
    pub last: LogIndex,
    /// The voting members, by the latest configuration in this replica's log. Empty while a replica
    /// that joins was not told of the members.
    pub voters: BTreeSet<NodeId>,
    /// While the voters change: those that the group comes from. Majorities of both count.
    pub outgoing: BTreeSet<NodeId>,
    /// The members without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The learners that become voters once they have caught up.
    pub joining: BTreeSet<NodeId>,
    /// The group is silent, since nothing happens.
    pub is_quiet: bool,
    /// This replica lost its state, and waits for a snapshot. It still votes.
    pub is_state_lost: bool,
    /// This node was a member, and is none any more.
    pub is_removed: bool,
    /// On the leader: how far the other members are. At most some heartbeats old.
    pub progress: Option<BTreeMap<NodeId, MemberProgress>>,
}

/// How far a member is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProgress {
    /// How it is fed.
    pub mode: ProgressMode,
    /// The last entry that it is known to hold durably.
    pub matched: LogIndex,
    /// Entries of the leader's log after that one.
    pub lag: u64,
    /// Appends that were sent and not yet answered.
    pub in_flight_messages: u64,
    /// Bytes of those.
    pub in_flight_bytes: u64,
    /// Whether it answered within the last election timeout.
    pub is_active: bool,
}

/// How a leader feeds a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressMode {
    /// One append at a time, until one is accepted.
    Probe,
    /// Appends are pipelined.
    Replicate,
    /// It needs entries that the log no longer has; a snapshot is on its way.
    Snapshot,
}

impl MemberProgress {
    pub(crate) fn new(follower: &FollowerStatus, last: LogIndex) -> Self {
        Self {
            mode: match follower.mode {
                FollowerMode::Probe => ProgressMode::Probe,
                FollowerMode::Replicate => ProgressMode::Replicate,
                FollowerMode::Snapshot => ProgressMode::Snapshot,
            },
            matched: follower.matched,
            lag: last.get().saturating_sub(follower.matched.get()),
            in_flight_messages: follower.in_flight_messages as u64,
            in_flight_bytes: follower.in_flight_bytes as u64,
            is_active: follower.recent_active,
        }
    }
}
