//! MapReduce on a node, and from outside.

mod local;
mod methods;
mod node;
mod remote;
#[cfg(test)]
mod tests;

pub(crate) use methods::{FetchMethod, HeartbeatMethod};
pub use node::MapReduceNode;
pub use remote::RemoteMapReduce;
