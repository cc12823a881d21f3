//! A cluster of separate node processes on this machine, for `dev`, `demo` and `torture`.

mod cluster;
mod control;
mod layout;
mod process;

pub use cluster::{ClusterOptions, LocalCluster, is_ready};
pub use control::{Action, Control, command};
pub use layout::{
    NODES_DEFAULT, NODES_MAX, Ports, Route, S3_ACCESS_KEY, S3_SECRET_KEY, free_base_port,
};
