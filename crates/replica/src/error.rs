//! Why a proposal, a read or a host did not succeed.

use std::sync::Arc;
use std::time::Duration;

use onefold_log::LogError;
use onefold_raft::ConfigError;
use onefold_table::TableError;
use onefold_types::{GroupId, LogIndex, NodeId, SessionId};
use serde::{Deserialize, Serialize};

/// Why a command has no response. It travels between nodes, so it is plain data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ProposeError {
    /// No leader could be asked in time. The command was not executed.
    #[error(
        "group {group} had no reachable leader for {waited_ms} ms; check that a majority of its \
         nodes runs and can talk to each other, then try again"
    )]
    NoLeader {
        /// The group.
        group: GroupId,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// This node does not lead the group. The command was not executed.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The leader has as much work as it can hold. The command was not executed; try later.
    #[error("the leader of group {group} has too many commands waiting; try again later")]
    Overloaded {
        /// The group.
        group: GroupId,
    },
    /// The command may or may not be executed, now or a little later.
    #[error(
        "whether the command was executed by group {group} is not known: {reason}; read the state \
         before trying again, or give commands a session"
    )]
    Unknown {
        /// The group.
        group: GroupId,
        /// What happened to the attempt.
        reason: String,
    },
    /// The command is larger than a log entry may be. It was not executed.
    #[error("a command of {bytes} bytes is too large; at most {bytes_max} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest possible.
        bytes_max: usize,
    },
    /// The session has moved on: this sequence number was acknowledged, or fell out of the window of
    /// answers that are kept. Whether it was executed back then is not known any more.
    #[error(
        "sequence {sequence} of session {session} is below {floor}, the lowest whose answer is \
         still kept; only unacknowledged recent commands can be retried"
    )]
    SequenceTrimmed {
        /// The session.
        session: SessionId,
        /// The sequence number.
        sequence: u64,
        /// The lowest sequence number that the session still accepts.
        floor: u64,
    },
    /// The group keeps as many sessions as it may, and all were used lately. The command was not
    /// executed.
    #[error("group {group} has no room for another session; use fewer, or try again in a minute")]
    SessionsFull {
        /// The group.
        group: GroupId,
    },
    /// The node that was asked does not host the group. The command was not executed.
    #[error("group {group} is not on this node")]
    NotHosted {
        /// The group.
        group: GroupId,
    },
    /// The host stopped, and will not serve again in this process. The command was not executed.
    #[error("this node no longer serves its groups: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl ProposeError {
    /// True when the command is certainly not executed, so that proposing it again is harmless.
    pub const fn is_not_executed(&self) -> bool {
        match self {
            Self::NoLeader { .. }
            | Self::NotLeader { .. }
            | Self::Overloaded { .. }
            | Self::TooLarge { .. }
            | Self::SessionsFull { .. }
            | Self::NotHosted { .. }
            | Self::Stopped { .. } => true,
            Self::Unknown { .. } | Self::SequenceTrimmed { .. } => false,
        }
    }
}

/// Why a read could not be served with the consistency asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ReadError {
    /// No leader confirmed in time what is committed.
    #[error(
        "no leader of group {group} answered within {waited_ms} ms; check that a majority of its \
         nodes runs and can talk to each other, or read with weaker consistency"
    )]
    NoLeader {
        /// The group.
        group: GroupId,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// This node does not lead the group.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads as far as this node knows.
        leader: Option<NodeId>,
    },
    /// This replica did not catch up in time with what the leader had committed.
    #[error(
        "this replica of group {group} is at index {applied} and did not reach {wanted} in time; \
         read from another node or try again"
    )]
    Behind {
        /// The group.
        group: GroupId,
        /// How far it came.
        applied: LogIndex,
        /// How far it had to come.
        wanted: LogIndex,
    },
    /// This replica lost its state, or its state differed from that of the majority, and it is being
    /// rebuilt from another replica.
    #[error(
        "this replica of group {group} lost its state and is being rebuilt from another one; read \
         from another node"
    )]
    StateLost {
        /// The group.
        group: GroupId,
    },
    /// The leader has as many reads waiting as it can hold; try later.
    #[error("the leader of group {group} has too many reads waiting; try again later")]
    Overloaded {
        /// The group.
        group: GroupId,
    },
    /// The node that was asked does not host the group.
    #[error("group {group} is not on this node")]
    NotHosted {
        /// The group.
        group: GroupId,
    },
    /// The host stopped, and will not serve again in this process.
    #[error("this node no longer serves its groups: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a group's members are not as they were asked to be. Asking again is always harmless. It
/// travels between nodes, so it is plain data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ChangeError {
    /// No leader could be asked in time.
    #[error(
        "group {group} had no reachable leader for {waited_ms} ms; check that a majority of its \
         nodes runs and can talk to each other, then try again"
    )]
    NoLeader {
        /// The group.
        group: GroupId,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// This node does not lead the group.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Another change was under way all the time. Nothing was changed.
    #[error(
        "the members of group {group} were being changed for {waited_ms} ms, and that did not end; \
         check that a majority of the old and of the new members runs, then try again"
    )]
    Busy {
        /// The group.
        group: GroupId,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The change began, and was not committed in time. It goes on by itself when a majority of the
    /// old and of the new members runs.
    #[error(
        "the change of the members of group {group} began and was not committed within \
         {waited_ms} ms; it goes on when a majority of the old and of the new members runs"
    )]
    Unfinished {
        /// The group.
        group: GroupId,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The group can't be like that.
    #[error("the members of group {group} cannot be changed so: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The node that was asked does not host the group.
    #[error("group {group} is not on this node")]
    NotHosted {
        /// The group.
        group: GroupId,
    },
    /// The host stopped, and will not serve again in this process.
    #[error("this node no longer serves its groups: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl ChangeError {
    /// Whether the same attempt, made a little later, may succeed.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(self, Self::NoLeader { .. } | Self::Busy { .. } | Self::Unfinished { .. })
    }
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can hand over.
    #[error("this node does not lead group {group}; ask the leader")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The node can't lead the group.
    #[error("node {to} cannot lead group {group}: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// The node.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// The node did not take over in time.
    #[error(
        "node {to} did not take over group {group} within {} ms; it may be slow or cut off",
        waited.as_millis()
    )]
    TimedOut {
        /// The group.
        group: GroupId,
        /// The node.
        to: NodeId,
        /// How long was waited.
        waited: Duration,
    },
    /// The host stopped.
    #[error("this node no longer serves its groups: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a group was not created or destroyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// It is here already.
    #[error("group {group} is on this node already")]
    Exists {
        /// The group.
        group: GroupId,
    },
    /// It was here, and never comes back.
    #[error("group {group} was destroyed on this node, and its number is never used again")]
    Destroyed {
        /// The group.
        group: GroupId,
    },
    /// The node hosts as many groups as it may.
    #[error("this node hosts {groups_max} groups, and no more are allowed; remove some first")]
    Full {
        /// The group.
        group: GroupId,
        /// The bound.
        groups_max: usize,
    },
    /// The host stopped. Whether the group is there is seen at the next start.
    #[error("this node no longer serves its groups: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a host does not start, or stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration contradicts itself.
    #[error("the group host is configured wrongly: {0}")]
    Config(String),
    /// The log holds a group that this node should not host.
    #[error(
        "the log holds group {group}, but this node is not set up to host it; start the node with \
         the configuration or program version that wrote this data folder"
    )]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// The table knows the group, but the log does not. Votes and acknowledgements are lost.
    #[error(
        "group {group}: the table has applied index {applied}, but the log has nothing of the \
         group, so that votes and acknowledged entries are forgotten: put the log back that was \
         there, or remove this node from the cluster and let the machine join as a new node on an \
         empty data folder"
    )]
    LogLost {
        /// The group.
        group: GroupId,
        /// What the table has applied.
        applied: LogIndex,
    },
    /// The table lost the state, the log no longer has what made it, and there is nobody to get it
    /// from.
    #[error(
        "group {group}: the table has applied index {applied}, but the log begins after {first} \
         and no other node votes in the group; restore the table and the log from one copy"
    )]
    StateLost {
        /// The group.
        group: GroupId,
        /// What the table has applied.
        applied: LogIndex,
        /// The first entry of the log.
        first: LogIndex,
    },
    /// What log and table hold of a group contradicts itself, which no crash of this program causes.
    #[error("group {group} cannot start from this data folder: {source}")]
    Restore {
        /// The group.
        group: GroupId,
        /// What is wrong.
        source: ConfigError,
    },
    /// The consensus core refused something that only a bug or a broken disk can cause.
    #[error("group {group} stopped, since serving on could serve wrong data: {reason}")]
    Consensus {
        /// The group.
        group: GroupId,
        /// What was refused.
        reason: String,
    },
    /// A record of the host in log or table does not decode.
    #[error(
        "group {group}: {what} does not decode ({reason}); it was written by a newer program or \
         is damaged"
    )]
    Undecodable {
        /// The group.
        group: GroupId,
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The log failed.
    #[error("the log failed: {0}")]
    Log(#[from] LogError),
    /// The table failed.
    #[error("the table failed: {0}")]
    Table(Arc<TableError>),
    /// A thread of the host could not be started, or ended by a panic.
    #[error("the thread {thread} of the group host failed: {reason}")]
    Thread {
        /// Its name.
        thread: String,
        /// What happened.
        reason: String,
    },
}

impl From<TableError> for HostError {
    fn from(error: TableError) -> Self {
        Self::Table(Arc::new(error))
    }
}
