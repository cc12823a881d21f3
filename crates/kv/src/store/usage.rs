//! How much room a store takes, and how much it may take.
//!
//! Counted in bytes of the records' keys and values, the same on every replica, by what each command
//! adds and removes. What the disk holds differs: it is compressed, and merged some time later.

use serde::{Deserialize, Serialize};

use super::stored;
use crate::{Event, EventKind, KeyValue, KvError};

/// The part of the quota that has to be free again before growth goes on, as a divisor.
const QUOTA_FREE_DIVISOR: u64 = 16;

/// How much room a store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Keys that exist.
    pub(crate) keys: u64,
    /// Bytes of current versions and leases.
    pub(crate) live_bytes: u64,
    /// Bytes of superseded versions and events.
    pub(crate) history_bytes: u64,
    /// Most bytes of both together; 0 for no bound.
    pub(crate) quota_bytes: u64,
    /// Growth was refused, and there is not enough room yet to go on.
    pub(crate) is_full: bool,
}

impl Usage {
    /// Bytes of everything.
    pub(crate) fn bytes(&self) -> u64 {
        self.live_bytes + self.history_bytes
    }

    /// Counts what an event wrote and superseded.
    pub(crate) fn count(&mut self, event: &Event) {
        self.history_bytes += stored::logged_bytes(&event.kv.key);
        self.history_bytes += event.prev_kv.as_ref().map_or(0, stored::old_bytes);
        self.count_live(event);
    }

    /// Counts what an event did to its key, without the history of it.
    pub(crate) fn count_live(&mut self, event: &Event) {
        if event.kind == EventKind::Put {
            self.keys += 1;
            self.live_bytes += live_bytes(&event.kv);
        }
        if let Some(previous) = &event.prev_kv {
            self.keys -= 1;
            self.live_bytes -= live_bytes(previous);
        }
    }

    /// Refuses what would take more room than there is. From then on everything that grows is
    /// refused until a part of the quota is free, so that the store does not tip over with every
    /// request at the bound.
    pub(crate) fn admit(&mut self, growth_bytes: u64) -> Result<(), KvError> {
        self.settle();
        if self.quota_bytes == 0 {
            return Ok(());
        }
        if self.is_full || self.bytes().saturating_add(growth_bytes) > self.quota_bytes {
            // One request that is too large for what is left is no reason to refuse smaller ones.
            self.is_full = self.bytes() > self.goes_on_at();
            return Err(KvError::NoSpace { quota_bytes: self.quota_bytes });
        }
        Ok(())
    }

    /// Goes on once there is room again. Called whenever something was removed.
    pub(crate) fn settle(&mut self) {
        self.is_full &= self.quota_bytes != 0 && self.bytes() > self.goes_on_at();
    }

    fn goes_on_at(&self) -> u64 {
        self.quota_bytes - self.quota_bytes / QUOTA_FREE_DIVISOR
    }
}

/// Bytes that a put adds at most, give or take those of a key.
pub(crate) fn growth_of_put(key: &[u8], value: &[u8]) -> u64 {
    stored::current_bytes(key, value) + stored::logged_bytes(key)
}

/// A key whose lease an import did not find counts as attached to it all the same.
fn live_bytes(kv: &KeyValue) -> u64 {
    let attached = if kv.lease.is_some() { stored::lease_key_bytes(&kv.key) } else { 0 };
    stored::current_bytes(&kv.key, &kv.value) + attached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(live_bytes: u64) -> Usage {
        Usage { live_bytes, quota_bytes: 1600, ..Usage::default() }
    }

    #[test]
    fn growth_is_refused_at_the_quota_until_a_part_of_it_is_free() {
        let mut usage = usage(1590);
        assert_eq!(usage.admit(10), Ok(()));
        assert_eq!(usage.admit(11), Err(KvError::NoSpace { quota_bytes: 1600 }));
        assert_eq!(usage.admit(1), Err(KvError::NoSpace { quota_bytes: 1600 }));
        usage.live_bytes = 1501;
        assert_eq!(usage.admit(1), Err(KvError::NoSpace { quota_bytes: 1600 }));
        usage.live_bytes = 1500;
        assert_eq!(usage.admit(1), Ok(()));
        assert!(!usage.is_full);
    }

    #[test]
    fn a_request_larger_than_what_is_left_stops_no_smaller_ones() {
        let mut usage = usage(800);
        assert_eq!(usage.admit(801), Err(KvError::NoSpace { quota_bytes: 1600 }));
        assert!(!usage.is_full);
        assert_eq!(usage.admit(800), Ok(()));
    }

    #[test]
    fn a_store_without_a_quota_is_never_full() {
        let mut usage = Usage { is_full: true, quota_bytes: 0, ..usage(u64::MAX / 2) };
        assert_eq!(usage.admit(u64::MAX), Ok(()));
        assert!(!usage.is_full);
    }
}
