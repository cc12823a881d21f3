//! Identifiers and limits that every layer of Onefold shares.
//!
//! The room at the bottom of the house: plain values without behaviour, so that a term can never be
//! passed where an index is meant. Nothing in here does I/O, and nothing depends on another crate of
//! the workspace.

mod durations;
mod identifiers;
pub mod limits;
pub mod share;

pub use durations::{BUCKET_BOUNDS_SECONDS, DurationCounts, DurationHistogram};
pub use identifiers::{
    ChunkId, ChunkVersion, ClusterId, GroupId, LogIndex, NodeId, Revision, SessionId, Term,
    Timestamp,
};
