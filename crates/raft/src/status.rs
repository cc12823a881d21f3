//! What operators see of a group.

use std::collections::BTreeMap;

use onefold_types::{GroupId, LogIndex, NodeId, Term};

use crate::membership::Membership;

/// What a server is in its term (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Answers requests of leaders and candidates. Learners are followers for ever.
    Follower,
    /// Asks whether it could win an election (dissertation, section 9.6).
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads the term.
    Leader,
}

/// How the leader feeds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FollowerMode {
    /// One append at a time, until one is accepted.
    Probe,
    /// Appends are sent without waiting for the answers, within the in-flight limits.
    Replicate,
    /// It needs entries that the log no longer has; a snapshot is on its way.
    Snapshot,
}

/// The state of a group on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// The group.
    pub group: GroupId,
    /// What this node is in the group.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: LogIndex,
    /// The last index that the driver reported as applied.
    pub applied: LogIndex,
    /// The first index that the log still holds.
    pub first_index: LogIndex,
    /// The last index in the log.
    pub last_index: LogIndex,
    /// The last index that is durable on this node.
    pub durable_index: LogIndex,
    /// The members of the group.
    pub membership: Membership,
    /// Whether it is silent because nothing happens.
    pub is_quiet: bool,
    /// Whether its state machine was lost and waits for a snapshot.
    pub is_state_lost: bool,
    /// To whom the leader hands leadership over, if it does.
    pub transferee: Option<NodeId>,
    /// How often this node has doubled its timeouts, because elections came of delays.
    pub patience_doublings: u32,
    /// Until when the leader may read without asking, in the microseconds of
    /// [`crate::Input::Now`].
    pub lease_until: Option<u64>,
    /// The other members as the leader sees them; empty on other roles.
    pub followers: BTreeMap<NodeId, FollowerStatus>,
}

/// One follower as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// How it is fed.
    pub mode: FollowerMode,
    /// The last index known to be equal to the leader's log and durable.
    pub matched: LogIndex,
    /// The next index to send.
    pub next: LogIndex,
    /// Appends sent and not yet answered.
    pub in_flight_messages: usize,
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// Whether it was heard of since the last check for a quorum.
    pub recent_active: bool,
}
