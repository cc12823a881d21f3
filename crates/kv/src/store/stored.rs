//! How records are written in the table. All numbers are big-endian.

use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onefold_table::TableError;
use onefold_types::Revision;

use crate::{EventKind, KeyValue, LeaseId};

/// Bytes in front of the value in the record of a current version.
const CURRENT_HEAD_BYTES: usize = 32;
/// Bytes in front of the value in the record of a superseded version.
const OLD_HEAD_BYTES: usize = 32;

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
    pub(crate) key: Bytes,
}

/// Kind, `previous` (0 for none), key.
pub(crate) fn encode_logged(kind: EventKind, previous: Option<Revision>, key: &[u8]) -> Bytes {
    let mut stored = BytesMut::with_capacity(9 + key.len());
    stored.put_u8(match kind {
        EventKind::Put => PUT,
        EventKind::Delete => DELETE,
    });
    stored.put_u64(previous.unwrap_or_default().get());
    stored.put_slice(key);
    stored.freeze()
}

/// Reads what [`encode_logged`] wrote.
pub(crate) fn decode_logged(mut stored: Bytes) -> Result<Logged, TableError> {
    if stored.len() < 9 {
        return Err(damaged("an event"));
    }
    let kind = match stored.get_u8() {
        PUT => EventKind::Put,
        DELETE => EventKind::Delete,
        _ => return Err(damaged("an event")),
    };
    let previous = Some(Revision(stored.get_u64())).filter(|revision| *revision != Revision::ZERO);
    Ok(Logged { kind, previous, key: stored })
}

/// A lease's granted time to live in seconds.
pub(crate) fn encode_lease(ttl_seconds: i64) -> Bytes {
    Bytes::copy_from_slice(&ttl_seconds.to_be_bytes())
}

/// Reads what [`encode_lease`] wrote.
pub(crate) fn decode_lease(stored: &[u8]) -> Result<i64, TableError> {
    Ok(i64::from_be_bytes(stored.try_into().map_err(|_| damaged("a lease"))?))
}
