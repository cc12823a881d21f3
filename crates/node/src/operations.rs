//! What etcd clients may have done to the cluster: its members, its leader, a noted downgrade.
//!
//! Everything goes through what `onefold node` uses: the registry and the controller.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use onefold_admin::{NewNode, NodeRemoval, NodeState};
use onefold_etcd::{ClusterControl, ControlError};
use onefold_kv::{DeleteRangeRequest, Kv, KvError, PutRequest, RangeRequest};
use onefold_replica::{Group, TransferError};
use onefold_types::NodeId;
use tokio::time::{Instant, sleep};

use crate::membership::{Denial, Membership};
use crate::moves::Moves;
use crate::placement::CAUGHT_UP_ENTRIES;
use crate::registry::change::{self, ChangeRefused};
use crate::registry::{Directory, RegistryError};

/// Where the noted downgrade is, in the system keyspace.
const DOWNGRADE_KEY: &str = "etcd/downgrade";

/// How long a transfer of leadership may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the controller may take to give a promoted learner its vote.
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether it has.
const PROMOTION_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The operations on one node.
pub(crate) struct Operations {
    /// The nodes.
    pub(crate) membership: Membership,
    /// The replica of the group whose leader is moved.
    pub(crate) group: Group,
    /// The system keyspace.
    pub(crate) system: Arc<dyn Kv>,
    /// The leaderships that were moved through this node.
    pub(crate) moves: Moves,
}

#[async_trait]
impl ClusterControl for Operations {
    async fn refresh(&self) -> Result<(), ControlError> {
        self.latest().await.map(drop)
    }

    async fn add_member(&self, address: String, as_learner: bool) -> Result<u64, ControlError> {
        let directory = self.latest().await?;
        let is_there = |state: NodeState| state != NodeState::Removed;
        if directory.having(is_there).any(|record| record.address == address) {
            return Err(ControlError::AddressTaken);
        }
        let new = NewNode { address, replaces: None };
        let invitation = self.membership.invite_as(new, as_learner).await.map_err(refusal)?;
        self.refresh().await?;
        Ok(invitation.node.get())
    }

    async fn remove_member(&self, member: u64) -> Result<(), ControlError> {
        let node = present(&self.latest().await?, member)?;
        let removal = NodeRemoval { node, force: false };
        self.membership.remove(removal).await.map_err(refusal)?;
        self.refresh().await
    }

    async fn move_member(&self, member: u64, address: String) -> Result<(), ControlError> {
        let node = present(&self.latest().await?, member)?;
        self.membership.relocate(node, &address).await.map_err(refusal)?;
        self.refresh().await
    }

    async fn promote_member(&self, member: u64) -> Result<(), ControlError> {
        let node = present(&self.latest().await?, member)?;
        let group = self.group.id();
        let world = self.membership.world().await.map_err(refusal)?;
        let view = world.groups.iter().find(|view| view.group == group);
        let view = view.ok_or_else(|| no_leader("the group has no leader"))?;
        if view.members.voters.contains(&node) || view.members.joining.contains(&node) {
            return Err(ControlError::NotLearner);
        }
        let lag = view.lag.get(&node).filter(|_| view.members.learners.contains(&node));
        if lag.is_none_or(|lag| *lag > CAUGHT_UP_ENTRIES) {
            return Err(ControlError::LearnerNotReady);
        }
        let decide = |directory: &Directory| change::promote(directory, node);
        let promoted = self.membership.registry.change(decide).await;
        promoted.map_err(|error| refusal(error.into()))?;
        self.refresh().await?;
        self.until_votes(node).await
    }

    async fn move_leader(&self, to: u64) -> Result<(), ControlError> {
        transfer(&self.group, to, &self.moves).await
    }

    async fn set_downgrade(&self, target: Option<String>) -> Result<(), ControlError> {
        let written = match target {
            Some(target) => self.system.put(PutRequest::new(DOWNGRADE_KEY, target)).await.map(drop),
            None => {
                let deletion =
                    DeleteRangeRequest { key: DOWNGRADE_KEY.into(), ..Default::default() };
                self.system.delete_range(deletion).await.map(drop)
            }
        };
        written.map_err(of_store)
    }

    async fn downgrade(&self) -> Result<Option<String>, ControlError> {
        let found = self.system.range(RangeRequest::key(DOWNGRADE_KEY)).await.map_err(of_store)?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Ok(found.kvs.first().map(|record| text(&record.value)))
    }
}

impl Operations {
    /// The registry as it is now, which this node then knows.
    async fn latest(&self) -> Result<Directory, ControlError> {
        let read = self.membership.registry.read().await;
        let directory = read.map_err(|error| refusal(error.into()))?;
        self.membership.followed.offer(&directory);
        Ok(directory)
    }

    /// Waits until a node votes in the group.
    async fn until_votes(&self, node: NodeId) -> Result<(), ControlError> {
        let until = Instant::now() + PROMOTION_TIMEOUT;
        while !self.group.status().voters.contains(&node) {
            if Instant::now() > until {
                let text = "the learner has a vote as soon as the group has a seat for it";
                return Err(ControlError::TimedOut(text.to_owned()));
            }
            sleep(PROMOTION_POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// Hands the leadership of a group from this node to a member, as a person wishes.
pub(crate) async fn transfer(group: &Group, to: u64, moves: &Moves) -> Result<(), ControlError> {
    let to = NodeId(to);
    let status = group.status();
    if status.leader == Some(to) {
        moves.note(group.id());
        return Ok(());
    }
    if !status.voters.contains(&to) {
        return Err(ControlError::BadTransferee);
    }
    // Before it is moved, so that it is not moved back in between.
    moves.note(group.id());
    let transfer = group.transfer_leadership(to, TRANSFER_TIMEOUT).await;
    transfer.map_err(|error| match error {
        TransferError::NotLeader { .. } => ControlError::NotLeader,
        TransferError::Refused { .. } => ControlError::BadTransferee,
        error @ TransferError::TimedOut { .. } => ControlError::TimedOut(error.to_string()),
        error => ControlError::Unavailable(error.to_string()),
    })
}

/// A member that is in the cluster or expected, and not on its way out.
fn present(directory: &Directory, member: u64) -> Result<NodeId, ControlError> {
    let node = NodeId(member);
    match directory.state(node) {
        None | Some(NodeState::Removed | NodeState::Removing) => Err(ControlError::MemberNotFound),
        Some(_) => Ok(node),
    }
}

fn refusal(denial: Denial) -> ControlError {
    match denial {
        Denial::Registry(RegistryError::Refused(refused)) => match refused {
            ChangeRefused::Unknown(_) | ChangeRefused::Removed(_) => ControlError::MemberNotFound,
            ChangeRefused::AddressTaken { .. } => ControlError::AddressTaken,
            ChangeRefused::Last(_) => ControlError::TooFewStarted,
            ChangeRefused::NotReady => ControlError::Unavailable(refused.to_string()),
            other => ControlError::Refused(other.to_string()),
        },
        Denial::Registry(RegistryError::Kv { source, .. }) => of_store(source),
        Denial::MajorityLost(_) => ControlError::TooFewStarted,
        Denial::AnotherProcess(_) | Denial::Unreachable { .. } | Denial::Copied { .. } => {
            ControlError::Refused(denial.to_string())
        }
        other => ControlError::Unavailable(other.to_string()),
    }
}

fn of_store(error: KvError) -> ControlError {
    match error {
        KvError::TimedOut { .. } => ControlError::TimedOut(error.to_string()),
        other => ControlError::Unavailable(other.to_string()),
    }
}

fn no_leader(reason: &str) -> ControlError {
    ControlError::Unavailable(reason.to_owned())
}
