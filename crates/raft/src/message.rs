//! What servers of one group say to each other. The driver wraps a group id around it.

use onefold_types::{LogIndex, Term};
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, SnapshotMark};

/// One message between two servers of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term (§5.1). Only in a pre-vote request and its grant is it the term in which
    /// the candidate would stand.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Would you vote for me? Changes no state (dissertation, section 9.6).
    RequestPreVote {
        /// The index of the candidate's last entry.
        last_index: LogIndex,
        /// The term of the candidate's last entry.
        last_term: Term,
    },
    /// Answer to [`Body::RequestPreVote`].
    PreVoteResponse {
        /// Whether the vote would be given.
        granted: bool,
    },
    /// RequestVote (§5.2).
    RequestVote {
        /// The index of the candidate's last entry.
        last_index: LogIndex,
        /// The term of the candidate's last entry.
        last_term: Term,
        /// The leader itself asked for this election, so servers that hear from it vote all the
        /// same (dissertation, section 4.2.3).
        transfer: bool,
    },
    /// Answer to [`Body::RequestVote`].
    VoteResponse {
        /// Whether the vote was given.
        granted: bool,
    },
    /// AppendEntries (§5.3).
    Append {
        /// The index of the entry before `entries`.
        prev_index: LogIndex,
        /// The term of that entry.
        prev_term: Term,
        /// Entries from `prev_index` + 1 on; may be empty.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: LogIndex,
    },
    /// The follower's log equals the leader's up to here, durably.
    AppendAccepted {
        /// The last index that is known to be equal.
        matched: LogIndex,
    },
    /// The follower has no entry with the `prev_term` at `prev_index`.
    ///
    /// The hint lets both sides skip whole terms (§5.3): the follower names its last entry that is
    /// not after `prev_index` and whose term is not after `prev_term`; the leader does the same in
    /// its own log with the hint. Two logs need at most one round for each term in which they
    /// differ.
    AppendRejected {
        /// The `prev_index` of the refused append.
        prev_index: LogIndex,
        /// The follower's last entry that could still match.
        hint_index: LogIndex,
        /// The term of that entry.
        hint_term: Term,
    },
    /// The leader is alive (§5.2).
    Heartbeat {
        /// What the follower may commit: never past what it acknowledged.
        commit: LogIndex,
        /// The latest round of read confirmations, see [`Body::HeartbeatResponse`].
        read_round: u64,
    },
    /// Answer to [`Body::Heartbeat`]: at this moment the follower knew no later term.
    HeartbeatResponse {
        /// The round of the heartbeat that it answers (§8, dissertation section 6.4).
        read_round: u64,
        /// For how many microseconds after it heard the heartbeat the follower will elect nobody; 0
        /// without leases.
        promised_micros: u64,
    },
    /// A snapshot that covers this was delivered to the follower's driver; install it (§7).
    InstallSnapshot {
        /// What it covers.
        mark: SnapshotMark,
    },
    /// The follower's driver has no staged snapshot that ends at this index; send one again.
    SnapshotMissing {
        /// The last index that the missing snapshot covers.
        index: LogIndex,
    },
    /// The follower's state machine covers this, durably, and its log equals the leader's so far: no
    /// snapshot that ends here is needed any longer.
    SnapshotInstalled {
        /// The last index that is covered.
        index: LogIndex,
    },
    /// Start an election now (dissertation, section 3.10).
    TimeoutNow,
    /// The leader falls silent: nothing waits, and everything up to `last` is committed. A follower
    /// whose log and commit index end there too falls silent with it; any other answers.
    Quiesce {
        /// The last index of the leader's log.
        last: LogIndex,
    },
    /// The sender is not silent, and a leader should not be: the answer to [`Body::Quiesce`] of one
    /// that cannot fall silent, and what one says that waits for a leader in vain but cannot stand
    /// for election.
    Awake,
    /// The follower's log is whole but its state machine is lost: it needs a snapshot even though it
    /// needs no entries.
    SnapshotWanted {
        /// The least index that the snapshot must cover: the follower's log goes on from there.
        least: LogIndex,
    },
    /// The answer to a message of a term that is over. Carries nothing but the newer term.
    TermOver,
}

impl Body {
    /// Whether only the leader of the message's term says this.
    pub(crate) fn is_of_a_leader(&self) -> bool {
        matches!(
            self,
            Self::Append { .. }
                | Self::Heartbeat { .. }
                | Self::InstallSnapshot { .. }
                | Self::Quiesce { .. }
        )
    }
}
