//! Snapshots: one generation of a group's state, streamed to a replica that is too far behind.
//!
//! ```text
//!   leader                                            follower
//!   table snapshot ── begin (mark) ─────────────────▶ a fresh generation
//!                  ── piece 0, 1, … (CRC-32C) ──────▶ written as they come
//!                  ── last piece (totals) ──────────▶ verified, table synced: staged
//!   Raft: InstallSnapshot(mark) ────────────────────▶ root points to it: installed
//! ```
//!
//! Pieces are numbered, so a lost answer costs one piece and not the transfer. Until the last step
//! the follower keeps its old state, and a crash leaves nothing but a generation that the next start
//! removes.

mod pairs;
mod receive;
mod send;

pub(crate) use receive::{Transfers, register};
pub(crate) use send::send;
