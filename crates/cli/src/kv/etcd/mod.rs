//! Etcd's files and servers: what comes from them and goes back to them.

pub mod endpoint;
pub mod import;
pub mod snapshot;
