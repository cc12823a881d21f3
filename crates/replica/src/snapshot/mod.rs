//! Snapshots: one generation of a group's state, streamed to a replica that is too far behind.
//!
//! ```text
//!   leader                                            follower
//!   pinned view ── begin (mark, transfer) ──────────▶ a fresh generation
//!               ◀─ where the next piece begins ────── … or the one that a broken transfer left
//!               ── piece n, n + 1, … (CRC-32C) ─────▶ written as they come, with the position
//!               ── last piece (totals, hash) ───────▶ verified, table synced: staged
//!   Raft: InstallSnapshot(mark) ────────────────────▶ root points to it: installed
//! ```
//!
//! What was acknowledged is not sent again: after a broken connection or a restart of the follower
//! the leader begins again with the same view, which it keeps for a while, and goes on where the
//! follower says. Until the last step the follower keeps its old state.

mod metrics;
mod receive;
mod send;

pub use metrics::SnapshotMetrics;
pub(crate) use receive::{Transfers, register, resume};
pub(crate) use send::send;

use std::time::Duration;

/// How long the leader keeps its view for a follower that takes no piece.
const VIEW_KEPT_FOR: Duration = Duration::from_secs(60);

/// A follower gives a transfer up when no piece came for this long: longer than the leader keeps the
/// view that further pieces would come from.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(90);
