//! How records are written in the table. All numbers are big-endian.

use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onefold_table::TableError;
use onefold_types::Revision;

use super::keys;
use crate::{EventKind, KeyValue, LeaseId};

/// Bytes in front of the value in the record of a current version.
const CURRENT_HEAD_BYTES: usize = 32;
/// Bytes in front of the value in the record of a superseded version.
const OLD_HEAD_BYTES: usize = 32;

/// Bytes in front of the key in the record of an event.
const LOGGED_HEAD_BYTES: usize = 13;
/// Bytes of a lease's record.
const LEASE_BYTES: usize = 16;

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// A record does not decode.
pub(crate) fn damaged(what: &str) -> TableError {
    TableError::Corrupt {
        file: PathBuf::from("of the key-value store"),
        reason: format!("{what} has a form that this program did not write"),
    }
}

/// `create`, `mod`, `version`, `lease`, value.
pub(crate) fn encode_current(kv: &KeyValue) -> Bytes {
    let mut stored = BytesMut::with_capacity(CURRENT_HEAD_BYTES + kv.value.len());
    stored.put_u64(kv.create_revision.get());
    stored.put_u64(kv.mod_revision.get());
    stored.put_u64(kv.version);
    stored.put_i64(kv.lease.0);
    stored.put_slice(&kv.value);
    stored.freeze()
}

/// Reads what [`encode_current`] wrote. The value is a slice of `stored`.
pub(crate) fn decode_current(key: Bytes, mut stored: Bytes) -> Result<KeyValue, TableError> {
    if stored.len() < CURRENT_HEAD_BYTES {
        return Err(damaged("a key's current version"));
    }
    Ok(KeyValue {
        key,
        create_revision: Revision(stored.get_u64()),
        mod_revision: Revision(stored.get_u64()),
        version: stored.get_u64(),
        lease: LeaseId(stored.get_i64()),
        value: stored,
    })
}

/// A superseded version: it was the key's state from its `mod_revision` on, and no longer at `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Old {
    pub(crate) kv: KeyValue,
    pub(crate) end: Revision,
}

/// `end`, `create`, `version`, `lease`, value.
pub(crate) fn encode_old(kv: &KeyValue, end: Revision) -> Bytes {
    let mut stored = BytesMut::with_capacity(OLD_HEAD_BYTES + kv.value.len());
    stored.put_u64(end.get());
    stored.put_u64(kv.create_revision.get());
    stored.put_u64(kv.version);
    stored.put_i64(kv.lease.0);
    stored.put_slice(&kv.value);
    stored.freeze()
}

/// The `end` of a superseded version.
pub(crate) fn old_end(stored: &[u8]) -> Result<Revision, TableError> {
    let end = stored.first_chunk().ok_or_else(|| damaged("a key's superseded version"))?;
    Ok(Revision(u64::from_be_bytes(*end)))
}

/// Reads what [`encode_old`] wrote.
pub(crate) fn decode_old(
    key: Bytes,
    mod_revision: Revision,
    mut stored: Bytes,
) -> Result<Old, TableError> {
    if stored.len() < OLD_HEAD_BYTES {
        return Err(damaged("a key's superseded version"));
    }
    let end = Revision(stored.get_u64());
    let create_revision = Revision(stored.get_u64());
    let version = stored.get_u64();
    let lease = LeaseId(stored.get_i64());
    let kv = KeyValue { key, create_revision, mod_revision, version, value: stored, lease };
    Ok(Old { kv, end })
}

/// What one operation did: enough to find the versions before and after it without a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) kind: EventKind,
    /// The revision that wrote the version before, if there was one.
    pub(crate) previous: Option<Revision>,
    /// Bytes that the version before has in the history; 0 without one and once it is removed.
    pub(crate) previous_bytes: u32,
    pub(crate) key: Bytes,
}

/// Kind, `previous` (0 for none), `previous_bytes`, key.
pub(crate) fn encode_logged(logged: &Logged) -> Bytes {
    let mut stored = BytesMut::with_capacity(LOGGED_HEAD_BYTES + logged.key.len());
    stored.put_u8(match logged.kind {
        EventKind::Put => PUT,
        EventKind::Delete => DELETE,
    });
    stored.put_u64(logged.previous.unwrap_or_default().get());
    stored.put_u32(logged.previous_bytes);
    stored.put_slice(&logged.key);
    stored.freeze()
}

/// Reads what [`encode_logged`] wrote.
pub(crate) fn decode_logged(mut stored: Bytes) -> Result<Logged, TableError> {
    if stored.len() < LOGGED_HEAD_BYTES {
        return Err(damaged("an event"));
    }
    let kind = match stored.get_u8() {
        PUT => EventKind::Put,
        DELETE => EventKind::Delete,
        _ => return Err(damaged("an event")),
    };
    let previous = Some(Revision(stored.get_u64())).filter(|revision| *revision != Revision::ZERO);
    let previous_bytes = stored.get_u32();
    Ok(Logged { kind, previous, previous_bytes, key: stored })
}

/// A lease as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredLease {
    /// Seconds to live from each keep-alive on.
    pub(crate) ttl_seconds: i64,
    /// Seconds that were left at the last checkpoint; 0 when there was none since the lease was
    /// granted or kept alive.
    pub(crate) left_seconds: i64,
}

/// Time to live, time left.
pub(crate) fn encode_lease(lease: StoredLease) -> Bytes {
    let mut stored = BytesMut::with_capacity(LEASE_BYTES);
    stored.put_i64(lease.ttl_seconds);
    stored.put_i64(lease.left_seconds);
    stored.freeze()
}

/// Reads what [`encode_lease`] wrote.
pub(crate) fn decode_lease(mut stored: &[u8]) -> Result<StoredLease, TableError> {
    if stored.len() != LEASE_BYTES {
        return Err(damaged("a lease"));
    }
    Ok(StoredLease { ttl_seconds: stored.get_i64(), left_seconds: stored.get_i64() })
}

/// Bytes of the record of a current version, with its key.
pub(crate) fn current_bytes(key: &[u8], value: &[u8]) -> u64 {
    (keys::CURRENT_BYTES + key.len() + CURRENT_HEAD_BYTES + value.len()) as u64
}

/// Bytes of the record of a superseded version, with its key.
pub(crate) fn old_bytes(kv: &KeyValue) -> u64 {
    (keys::old_bytes(&kv.key) + OLD_HEAD_BYTES + kv.value.len()) as u64
}

/// The same for the event that superseded it.
pub(crate) fn old_bytes_of_event(kv: &KeyValue) -> u32 {
    u32::try_from(old_bytes(kv)).expect("a request of 4 GiB is never proposed")
}

/// Bytes of the record of an event, with its key.
pub(crate) fn logged_bytes(key: &[u8]) -> u64 {
    (keys::EVENT_BYTES + LOGGED_HEAD_BYTES + key.len()) as u64
}

/// Bytes of the record of a lease, with its key.
pub(crate) const fn lease_bytes() -> u64 {
    (keys::LEASE_BYTES + LEASE_BYTES) as u64
}

/// Bytes of the mark that a key is attached to a lease.
pub(crate) fn lease_key_bytes(key: &[u8]) -> u64 {
    (keys::LEASE_BYTES + key.len()) as u64
}
