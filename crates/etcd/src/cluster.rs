//! What the gateway must know about the cluster, told by the node.

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
    /// The last log entry known to be committed.
    pub raft_index: u64,
    /// The replica's term.
    pub raft_term: u64,
    /// The last log entry that is applied.
    pub applied: u64,
}
