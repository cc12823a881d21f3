//! What the clients of one keyspace may have done to the cluster.

use std::sync::Arc;

use async_trait::async_trait;
use onefold_etcd::{ClusterControl, ControlError};
use onefold_replica::Group;

use crate::operations::{Operations, transfer};

/// The operations at the port of one keyspace.
///
/// The root user of a keyspace is not one of the cluster: its nodes are changed at the default
/// keyspace's port, or by `onefold node`.
pub(super) struct KeyspaceControl {
    /// The replica, if this node holds one.
    pub(super) group: Option<Group>,
    /// What is done for the whole cluster.
    pub(super) cluster: Arc<Operations>,
}

#[async_trait]
impl ClusterControl for KeyspaceControl {
    async fn refresh(&self) -> Result<(), ControlError> {
        self.cluster.refresh().await
    }

    async fn add_member(&self, _address: String, _as_learner: bool) -> Result<u64, ControlError> {
        Err(not_here())
    }

    async fn remove_member(&self, _member: u64) -> Result<(), ControlError> {
        Err(not_here())
    }

    async fn move_member(&self, _member: u64, _address: String) -> Result<(), ControlError> {
        Err(not_here())
    }

    async fn promote_member(&self, _member: u64) -> Result<(), ControlError> {
        Err(not_here())
    }

    async fn move_leader(&self, to: u64) -> Result<(), ControlError> {
        let group = self.group.as_ref().ok_or(ControlError::NotLeader)?;
        transfer(group, to, &self.cluster.moves).await
    }

    async fn set_downgrade(&self, _target: Option<String>) -> Result<(), ControlError> {
        Err(not_here())
    }

    async fn downgrade(&self) -> Result<Option<String>, ControlError> {
        self.cluster.downgrade().await
    }
}

fn not_here() -> ControlError {
    let text = "the cluster is not changed through a keyspace; ask at the port of the default \
                keyspace, or use onefold node";
    ControlError::Refused(text.to_owned())
}
