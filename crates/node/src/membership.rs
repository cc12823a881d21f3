//! Answers about the cluster's nodes: to operators, to nodes that join, and to other members.

use std::time::Duration;

use bytes::Bytes;
use onefold_admin::{
    AddNode, DrainNode, GroupSeat, Invitation, ListNodes, NewNode, NodeDrain, NodeInfo,
    NodeRemoval, NodeState, RemoveNode, Seat,
};
use onefold_transport::{CallError, Class, Peers, RemoteCode, RemoteError, Router};
use onefold_types::NodeId;

use crate::controller::Controller;
use crate::folder::Formed;
use crate::formation::{Introduction, Join, JoinRequest, Probe};
use crate::nodes::Exchange;
use crate::placement::{self, MajorityLost, World};
use crate::registry::change::{self, ChangeRefused};
use crate::registry::{Followed, Record, Registry, RegistryError};

/// How long a node that wants to join may take to answer at the address that it names.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is answered from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) registry: Registry,
    pub(crate) followed: Followed,
    pub(crate) peers: Peers,
    pub(crate) introduction: Introduction,
    pub(crate) controller: Controller,
}

impl Membership {
    /// Enters the methods into the node's router.
    pub(crate) fn register(&self, router: &mut Router) {
        let followed = self.followed.clone();
        router.call::<Exchange, _, _>(move |_, revision, _| {
            let directory = followed.get();
            let is_later = directory.next > 0 && directory.revision > revision;
            let answer = is_later.then(|| (*directory).clone());
            async move { Ok((answer, Bytes::new())) }
        });
        let this = self.clone();
        router.call::<Join, _, _>(move |_, request, _| {
            let this = this.clone();
            async move { answer(this.admit(request).await) }
        });
        let this = self.clone();
        router.call::<AddNode, _, _>(move |_, new, _| {
            let this = this.clone();
            async move { answer(this.invite(new).await) }
        });
        let this = self.clone();
        router.call::<RemoveNode, _, _>(move |_, removal, _| {
            let this = this.clone();
            async move { answer(this.remove(removal).await) }
        });
        let this = self.clone();
        router.call::<DrainNode, _, _>(move |_, drain, _| {
            let this = this.clone();
            async move { answer(this.drain(drain).await) }
        });
        let this = self.clone();
        router.call::<ListNodes, _, _>(move |_, (), _| {
            let this = this.clone();
            async move { answer(this.list().await) }
        });
    }

    /// Lets a node in, once it is certain that it is the one that answers at its address.
    async fn admit(&self, request: JoinRequest) -> Result<Formed, Denial> {
        let JoinRequest { incarnation, address } = request;
        self.check_address(incarnation, &address).await?;
        self.check_move(incarnation, &address).await?;
        let decide = |directory: &_| change::admit(directory, incarnation, &address);
        let node = self.registry.change(decide).await?;
        let directory = self.registry.read().await?;
        tracing::info!("node {node} at {address} belongs to the cluster");
        self.followed.offer(&directory);
        let formed = self.introduction.get().formed.ok_or(Denial::NotFormed)?;
        Ok(Formed::joined(formed.cluster, directory.as_members(), formed.founders()))
    }

    /// A wrong address would cut off the newcomer, or the node whose address it is.
    async fn check_address(&self, incarnation: u64, address: &str) -> Result<(), Denial> {
        let probe = self.peers.call_address::<Probe>(
            address,
            Class::Call,
            &(),
            Bytes::new(),
            PROBE_TIMEOUT,
        );
        match probe.await {
            Ok((found, _)) if found.incarnation == incarnation => Ok(()),
            Ok(_) => Err(Denial::AnotherProcess(address.to_owned())),
            Err(error) => Err(Denial::Unreachable { address: address.to_owned(), error }),
        }
    }

    /// A node that is found at its former address too runs on a folder that was copied.
    async fn check_move(&self, incarnation: u64, address: &str) -> Result<(), Denial> {
        let directory = self.registry.read().await?;
        let known = directory.members().find(|record| record.incarnation == Some(incarnation));
        let Some(known) = known.filter(|known| known.address != address) else { return Ok(()) };
        let (node, former) = (known.id, known.address.clone());
        let probe = self.peers.call_address::<Probe>(
            &former,
            Class::Call,
            &(),
            Bytes::new(),
            PROBE_TIMEOUT,
        );
        match probe.await {
            // One process may well be reached at both.
            Ok((found, _)) if found.incarnation == incarnation && found.address != address => {
                Err(Denial::Copied { node, former })
            }
            _ => Ok(()),
        }
    }

    async fn invite(&self, new: NewNode) -> Result<Invitation, Denial> {
        self.invite_as(new, false).await
    }

    /// Invites a node that gets a vote by itself, or stays a learner until it is promoted.
    pub(crate) async fn invite_as(
        &self,
        new: NewNode,
        is_learner: bool,
    ) -> Result<Invitation, Denial> {
        let decide =
            |directory: &_| change::invite(directory, &new.address, new.replaces, is_learner);
        let node = self.registry.change(decide).await?;
        let directory = self.registry.read().await?;
        let join = directory.members().filter(|record| record.state != NodeState::Removing);
        let join = join.map(|record| record.address.clone()).filter(|a| *a != new.address);
        let cluster = self.introduction.get().formed.ok_or(Denial::NotFormed)?.cluster;
        Ok(Invitation { cluster, node, join: join.collect() })
    }

    pub(crate) async fn remove(&self, removal: NodeRemoval) -> Result<(), Denial> {
        let NodeRemoval { node, force } = removal;
        let world = self.world().await?;
        // What the registry refuses has the clearer reason.
        change::retire(&world.directory, node, force)?;
        placement::may_remove(&world, node)?;
        let decide = |directory: &_| change::retire(directory, node, force);
        Ok(self.registry.change(decide).await?)
    }

    /// Notes another address of a node, once it is certain that it is reached there. One that has not
    /// come yet is expected there.
    pub(crate) async fn relocate(&self, node: NodeId, address: &str) -> Result<(), Denial> {
        let directory = self.registry.read().await?;
        change::relocate(&directory, node, address)?;
        let record = directory.all.get(&node).filter(|record| record.address != address);
        if let Some(incarnation) = record.and_then(|record| record.incarnation) {
            self.check_address(incarnation, address).await?;
        }
        let decide = |directory: &_| change::relocate(directory, node, address);
        Ok(self.registry.change(decide).await?)
    }

    async fn drain(&self, drain: NodeDrain) -> Result<(), Denial> {
        let NodeDrain { node, undo } = drain;
        let decide = |directory: &_| change::drain(directory, node, undo);
        Ok(self.registry.change(decide).await?)
    }

    /// What the nodes tell now, with the latest registry.
    pub(crate) async fn world(&self) -> Result<World, Denial> {
        self.followed.offer(&self.registry.read().await?);
        Ok(self.controller.look().await)
    }

    async fn list(&self) -> Result<Vec<NodeInfo>, Denial> {
        let world = match self.world().await {
            Ok(world) => world,
            // Without a majority, what this node knows is better than nothing.
            Err(_) => self.controller.look().await,
        };
        Ok(world.directory.all.values().map(|record| info(&world, record)).collect())
    }
}

fn info(world: &World, record: &Record) -> NodeInfo {
    let Record { id, ref address, state, replaces, .. } = *record;
    let seat = |view: &placement::GroupView| {
        let members = &view.members;
        let seat = if members.voters.contains(&id) || members.outgoing.contains(&id) {
            Seat::Voter
        } else if members.joining.contains(&id) {
            Seat::Joining
        } else if members.learners.contains(&id) {
            Seat::Learner
        } else {
            return None;
        };
        let (group, leads) = (view.group, view.leader == id);
        Some(GroupSeat { group, seat, leads, lag: view.lag.get(&id).copied() })
    };
    NodeInfo {
        node: id,
        address: address.clone(),
        state,
        replaces,
        up: world.up.contains(&id),
        groups: world.groups.iter().filter_map(seat).collect(),
        chunks_left: world.chunks_left.get(&id).copied(),
    }
}

/// Why something about the nodes is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denial {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    MajorityLost(#[from] MajorityLost),
    #[error(
        "another process answers at {0}; give the node an address of its own with --listen, or \
         with --advertise if others reach it elsewhere"
    )]
    AnotherProcess(String),
    #[error(
        "the cluster does not reach {address}, where it should find this node ({error}); check \
         firewalls, or say with --advertise where it is reached"
    )]
    Unreachable { address: String, error: CallError },
    #[error(
        "node {node} runs at {former} already, so this process has a copy of its data folder; stop \
         it, and let it join on an empty folder"
    )]
    Copied { node: NodeId, former: String },
    #[error("this node does not belong to a cluster yet; ask another one")]
    NotFormed,
}

impl From<ChangeRefused> for Denial {
    fn from(refused: ChangeRefused) -> Self {
        Self::Registry(RegistryError::Refused(refused))
    }
}

fn answer<T>(outcome: Result<T, Denial>) -> Result<(T, Bytes), RemoteError> {
    outcome.map(|value| (value, Bytes::new())).map_err(|denial| {
        let code = match &denial {
            Denial::Registry(RegistryError::Refused(refused)) => match refused {
                ChangeRefused::Unknown(_) => RemoteCode::NotFound,
                ChangeRefused::Removed(_) => RemoteCode::Denied,
                ChangeRefused::Full => RemoteCode::Exhausted,
                ChangeRefused::NotReady => RemoteCode::Unavailable,
                ChangeRefused::NoAddress(_) => RemoteCode::Invalid,
                _ => RemoteCode::Conflict,
            },
            Denial::Registry(RegistryError::Undecodable { .. }) => RemoteCode::Internal,
            Denial::MajorityLost(_) | Denial::AnotherProcess(_) | Denial::Copied { .. } => {
                RemoteCode::Conflict
            }
            Denial::Registry(_) | Denial::Unreachable { .. } | Denial::NotFormed => {
                RemoteCode::Unavailable
            }
        };
        RemoteError::new(code, denial.to_string())
    })
}
