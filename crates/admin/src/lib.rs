//! What operators ask of a node: how it and its cluster are, which nodes belong to it, which
//! keyspaces and S3 access keys there are.
//!
//! Only the types and the numbers of the calls are here; `onefold-node` answers them and
//! `onefold-client` makes them.

mod keys;
mod keyspaces;
mod nodes;
mod status;

pub use keys::{CreateS3Key, ListS3Keys, NewS3Key, RemoveS3Key, S3Key, S3KeyName};
pub use keyspaces::{
    CreateKeyspace, DeleteKeyspace, FindKeyspace, GetKeyspaceUsage, History, KeyspaceEndpoint,
    KeyspaceInfo, KeyspaceLimits, KeyspaceState, KeyspaceUsage, LimitsChange, ListKeyspaces,
    NewKeyspace, SetKeyspace,
};
pub use nodes::{
    AddNode, DrainNode, GroupSeat, Invitation, ListNodes, NewNode, NodeDrain, NodeInfo,
    NodeRemoval, NodeState, RemoveNode, Seat,
};
pub use status::{
    ClientPort, ClusterStatus, GetClusterStatus, GetNodeStatus, GroupMembers, GroupReport,
    NodeReport, NodeStatus, Role, group_name,
};
