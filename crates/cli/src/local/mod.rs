//! A cluster of separate node processes on this machine, for `dev` and `demo`.

mod cluster;
mod control;
mod layout;
mod process;

pub use cluster::{ClusterOptions, LocalCluster};
pub use control::{Action, Control, command};
pub use layout::{Ports, S3_ACCESS_KEY, S3_SECRET_KEY};
