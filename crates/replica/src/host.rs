//! The host: all groups of a node.

use std::collections::BTreeSet;

use onefold_transport::Router;
use onefold_types::{GroupId, NodeId};
use tokio::sync::watch;

use crate::{Group, GroupStatus, HostError, StateMachine};

/// A group that a node hosts.
pub struct GroupSpec {
    /// The group.
    pub id: GroupId,
    /// Its voting members when it is formed. Later the log knows them.
    pub voters: BTreeSet<NodeId>,
    /// What it replicates.
    pub state_machine: Box<dyn StateMachine>,
}

/// Many Raft groups on one node. Cheap to clone; the host ends with its last clone.
#[derive(Clone)]
pub struct Host {}

impl Host {
    /// Enters the host's methods and messages into the node's router.
    pub fn register(&self, router: &mut Router) {
        let _ = router;
        todo!()
    }

    /// A group, if this node hosts it.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        todo!("{id}")
    }

    /// What this node knows of each of its groups, in the order of their numbers.
    pub fn status(&self) -> Vec<GroupStatus> {
        todo!()
    }

    /// Becomes `Some` when the host stopped because log, table or a thread failed. It serves nothing
    /// any more; the process should end with the error and be started again.
    pub fn failure(&self) -> watch::Receiver<Option<HostError>> {
        todo!()
    }

    /// Stops serving and waits until the threads have ended. What was acknowledged is durable.
    pub async fn shutdown(&self) {
        todo!()
    }
}
