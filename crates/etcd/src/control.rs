//! What the gateway can have the node do about the cluster, and why it may refuse.

use async_trait::async_trait;
use thiserror::Error;

/// Changes of the cluster, carried out by the node wherever that has to happen.
#[async_trait]
pub trait ClusterControl: Send + Sync {
    /// Learns who the members are now, so that [`ClusterView`](crate::ClusterView) tells the latest.
    async fn refresh(&self) -> Result<(), ControlError>;

    /// Expects a member at an address (`host:port`) and answers its identity. As a learner it stays
    /// one until it is promoted.
    async fn add_member(&self, address: String, as_learner: bool) -> Result<u64, ControlError>;

    /// Begins to remove a member.
    async fn remove_member(&self, member: u64) -> Result<(), ControlError>;

    /// Notes that a member is reached at another address.
    async fn move_member(&self, member: u64, address: String) -> Result<(), ControlError>;

    /// Gives a learner a vote.
    async fn promote_member(&self, member: u64) -> Result<(), ControlError>;

    /// Hands the leadership of the key-value store from this node to another member.
    async fn move_leader(&self, to: u64) -> Result<(), ControlError>;

    /// Notes the etcd version to which operators prepare to go back, or that they do not.
    async fn set_downgrade(&self, target: Option<String>) -> Result<(), ControlError>;

    /// The version that was noted.
    async fn downgrade(&self) -> Result<Option<String>, ControlError>;
}

/// Why a change of the cluster is not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// There is no such member, or no longer.
    #[error("the cluster has no such member")]
    MemberNotFound,
    /// Another member has the address, or is expected there.
    #[error("another member has the address")]
    AddressTaken,
    /// The address is not one.
    #[error("the address is not one that members can have")]
    BadAddress,
    /// Too few members would answer without the one that is to go.
    #[error("too few members answer")]
    TooFewStarted,
    /// The member has a vote already.
    #[error("the member votes already")]
    NotLearner,
    /// The learner does not answer, or is behind.
    #[error("the learner is not ready")]
    LearnerNotReady,
    /// Only the leader can do this.
    #[error("this member does not lead")]
    NotLeader,
    /// The member cannot lead.
    #[error("the member cannot lead")]
    BadTransferee,
    /// What is asked cannot be, for a reason that etcd does not have.
    #[error("{0}")]
    Refused(String),
    /// There is no majority that could decide now. Nothing was changed.
    #[error("the cluster cannot decide now: {0}")]
    Unavailable(String),
    /// It was not seen to happen in time. It may still.
    #[error("not done in time: {0}")]
    TimedOut(String),
}
