//! What operators ask of a node: how it and its cluster are, and which S3 access keys there are.
//!
//! Only the types and the numbers of the calls are here; `onefold-node` answers them and
//! `onefold-client` makes them.

mod keys;
mod status;

pub use keys::{CreateS3Key, ListS3Keys, NewS3Key, RemoveS3Key, S3Key, S3KeyName};
pub use status::{
    ClusterStatus, GetClusterStatus, GetNodeStatus, GroupReport, NodeReport, NodeStatus, Role,
    group_name,
};
