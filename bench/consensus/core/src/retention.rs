//! When a replica drops applied entries: the same rule for all contenders.

/// Applied entries that are kept for followers.
pub(crate) const ENTRIES_KEPT: u64 = 1024;
/// Entries that are dropped at once, so that dropping costs little per entry.
pub(crate) const ENTRIES_DROPPED: u64 = 8192;

/// The index through which to compact, if it is time.
pub(crate) fn compact_through(applied: u64, kept: u64) -> Option<u64> {
    (kept >= ENTRIES_KEPT + ENTRIES_DROPPED).then(|| applied - ENTRIES_KEPT)
}
