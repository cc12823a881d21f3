//! The services of calls with one answer, and the two simple streams.
//!
//! Each implements the generated trait for the [`Gateway`](crate::gateway::Gateway).

mod auth;
mod cluster;
mod health;
mod kv;
mod lease;
mod maintenance;
mod range_stream;
mod snapshot;
