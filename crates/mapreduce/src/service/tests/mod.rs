//! Whole jobs on a cluster of nodes in one process: real kv, real sockets, files in memory.

mod failures;
mod fixture;
mod jobs;
