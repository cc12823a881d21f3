//! Names of attempts and workers.

use std::fmt;

use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

/// One attempt at a task, never used again within its job: coordinators number their attempts
/// themselves, and no two coordinators have the same epoch. Shown as `EPOCH.NUMBER`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct AttemptId {
    /// The epoch of the coordinator that started it.
    pub(crate) epoch: u64,
    /// The coordinator's number for it, among the attempts at the same task.
    pub(crate) number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// One life of one node's worker: what an earlier life had on its disk counts as lost.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct WorkerId {
    /// The node.
    pub(crate) node: NodeId,
    /// Drawn at random when the worker starts.
    pub(crate) incarnation: u64,
}
