//! Names and forms within etcd's files.

use bytes::Bytes;
use onefold_kv::{KeyValue, LeaseId};
use onefold_types::Revision;
use prost::Message;

use crate::convert::{number, revision};
use crate::proto::mvccpb;

pub(super) const KEY: &[u8] = b"key";
pub(super) const LEASE: &[u8] = b"lease";
pub(super) const META: &[u8] = b"meta";
pub(super) const USERS: &[u8] = b"authUsers";
pub(super) const ROLES: &[u8] = b"authRoles";

/// The buckets that etcd makes in every file, and that are empty here: they are made anew when the
/// file is restored.
pub(super) const EMPTY: [&[u8]; 7] =
    [b"alarm", b"auth", USERS, ROLES, b"cluster", b"members", b"members_removed"];

/// The last entry of the log that is in the file.
pub(super) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// A compaction that has begun, and one that has ended. Sorted before the index, as keys are.
pub(super) const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub(super) const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";

const SEPARATOR: u8 = b'_';
const DELETION: u8 = b't';
const REVISION_BYTES: usize = 17;

/// The place of a version in the bucket of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) revision: Revision,
    pub(super) sub: u32,
    pub(super) is_deletion: bool,
}

impl Place {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REVISION_BYTES + 1);
        bytes.extend_from_slice(&self.revision.get().to_be_bytes());
        bytes.push(SEPARATOR);
        bytes.extend_from_slice(&u64::from(self.sub).to_be_bytes());
        if self.is_deletion {
            bytes.push(DELETION);
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode), or etcd, wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (revision, rest) = bytes.split_first_chunk::<8>()?;
        let (sub, rest) = rest.strip_prefix(&[SEPARATOR])?.split_first_chunk::<8>()?;
        let is_deletion = match rest {
            [] => false,
            [DELETION] => true,
            _ => return None,
        };
        let revision = Revision(u64::from_be_bytes(*revision));
        let sub = u32::try_from(u64::from_be_bytes(*sub)).ok()?;
        Some(Self { revision, sub, is_deletion })
    }
}

/// Etcd's record of a lease.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Lease {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    /// Seconds that it lives after each keep-alive.
    #[prost(int64, tag = "2")]
    pub(super) ttl: i64,
    #[prost(int64, tag = "3")]
    pub(super) remaining_ttl: i64,
}

pub(super) fn encode_lease((id, ttl): (LeaseId, i64)) -> (Vec<u8>, Vec<u8>) {
    let record = Lease { id: id.0, ttl, remaining_ttl: 0 };
    (id.0.cast_unsigned().to_be_bytes().to_vec(), record.encode_to_vec())
}

pub(super) fn decode_lease(value: Bytes) -> Option<(LeaseId, i64)> {
    let lease = Lease::decode(value).ok()?;
    Some((LeaseId(lease.id), lease.ttl))
}

/// A version as the API's records have it.
pub(super) fn decode_record(value: Bytes) -> Option<KeyValue> {
    let record = mvccpb::KeyValue::decode(value).ok()?;
    Some(KeyValue {
        key: record.key,
        create_revision: revision(record.create_revision),
        mod_revision: revision(record.mod_revision),
        version: u64::try_from(record.version).ok()?,
        value: record.value,
        lease: LeaseId(record.lease),
    })
}

/// The same in bytes; of a deletion only the key.
pub(super) fn encode_record(kv: KeyValue, is_deletion: bool) -> Vec<u8> {
    let record = if is_deletion {
        mvccpb::KeyValue { key: kv.key, ..Default::default() }
    } else {
        mvccpb::KeyValue {
            key: kv.key,
            create_revision: number(kv.create_revision.get()),
            mod_revision: number(kv.mod_revision.get()),
            version: number(kv.version),
            value: kv.value,
            lease: kv.lease.0,
        }
    };
    record.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_seventeen_bytes_and_a_deletion_one_more() {
        let put = Place { revision: Revision(258), sub: 7, is_deletion: false };
        assert_eq!(put.encode(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x07");
        for place in [put, Place { is_deletion: true, ..put }] {
            assert_eq!(Place::decode(&place.encode()), Some(place));
        }
        for wrong in [&b""[..], b"\0\0\0\0\0\0\0\x01_\0\0\0\0\0\0\0\x07x", &[1; 17], &[0; 16]] {
            assert_eq!(Place::decode(wrong), None, "{wrong:?}");
        }
    }
}
