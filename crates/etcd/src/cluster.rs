//! What the gateway must know about the cluster, told by the node.

use onefold_types::DurationCounts;

/// The cluster as this node sees it. Every method answers from memory.
pub trait ClusterView: Send + Sync {
    /// The cluster's identity.
    fn cluster_id(&self) -> u64;

    /// This member's identity.
    fn member_id(&self) -> u64;

    /// All members.
    fn members(&self) -> Vec<Member>;

    /// The leader of the key-value store's group, if this node knows one.
    fn leader(&self) -> Option<u64>;

    /// How this node's replica of the key-value store's group stands.
    fn status(&self) -> StatusView;

    /// The alarms that are raised, of all members.
    fn alarms(&self) -> Vec<Alarm>;

    /// The node's own metrics in Prometheus' text format, to stand behind etcd's.
    fn own_metrics(&self) -> String;
}

/// A member's trouble that operators must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Whose trouble it is.
    pub member: u64,
    /// What it is.
    pub kind: AlarmKind,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// The store has reached its quota.
    NoSpace,
    /// A replica differs from the others.
    Corrupt,
}

impl AlarmKind {
    /// Its name in etcd.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// One member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: u64,
    /// Its name; empty until it started.
    pub name: String,
    /// Where other members reach it, as URLs.
    pub peer_urls: Vec<String>,
    /// Where clients reach its etcd API, as URLs; empty until it started.
    pub client_urls: Vec<String>,
    /// Whether it does not vote (yet).
    pub is_learner: bool,
}

/// How a replica stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusView {
    /// Bytes of the store on this node's disk.
    pub db_size: u64,
    /// Bytes of these that are in use.
    pub db_size_in_use: u64,
    /// Bytes that the store may have; 0 for no bound.
    pub db_size_quota: u64,
    /// The newest revision that this node has applied.
    pub revision: u64,
    /// The oldest readable revision; 0 when nothing was compacted yet.
    pub compacted: u64,
    /// The last log entry known to be committed.
    pub raft_index: u64,
    /// The replica's term.
    pub raft_term: u64,
    /// The last log entry that is applied.
    pub applied: u64,
    /// Proposals that wait in this node.
    pub proposals_pending: u64,
    /// Proposals that this node did not take, or whose outcome it could not tell.
    pub proposals_failed: u64,
    /// Times that this node saw another leader than before.
    pub leader_changes: u64,
    /// How long syncs of the write-ahead log took.
    pub fsync_durations: DurationCounts,
    /// How long atomic writes to the table took.
    pub commit_durations: DurationCounts,
}
