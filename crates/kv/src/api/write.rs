//! Writing, deleting and giving up history.

use bytes::Bytes;
use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use crate::api::range::prefix_pair;
use crate::{Header, KeySpan, KeyValue, LeaseId};

/// Writes one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRequest {
    /// The key; must not be empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach the key to.
    pub lease: LeaseId,
    /// Answer the version before.
    pub prev_kv: bool,
    /// Keep the key's value; the key must exist and `value` must be empty.
    pub ignore_value: bool,
    /// Keep the key's lease; the key must exist and `lease` must be none.
    pub ignore_lease: bool,
}

impl PutRequest {
    /// Writes `value` to `key`.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), ..Self::default() }
    }
}

/// What a put did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutResponse {
    /// Where the store stands: at the revision that this put made.
    pub header: Header,
    /// The version before, if there was one and it was asked for.
    pub prev_kv: Option<KeyValue>,
}

/// Deletes keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRangeRequest {
    /// The first key; must not be empty.
    pub key: Bytes,
    /// See [`KeySpan::parse`].
    pub range_end: Bytes,
    /// Answer what was deleted.
    pub prev_kv: bool,
}

impl DeleteRangeRequest {
    /// Deletes one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// Deletes every key that begins with `prefix`; with an empty prefix, every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let (key, range_end) = prefix_pair(prefix.into());
        Self { key, range_end, ..Self::default() }
    }

    /// The keys that are meant.
    pub fn span(&self) -> KeySpan {
        KeySpan::parse(&self.key, &self.range_end)
    }
}

/// What a deletion did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRangeResponse {
    /// Where the store stands. A deletion of nothing makes no revision.
    pub header: Header,
    /// Keys deleted.
    pub deleted: u64,
    /// What was deleted, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// Gives up the history below a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactRequest {
    /// The oldest revision that stays readable.
    pub revision: Revision,
    /// Answer only once the space is given back to the table.
    pub physical: bool,
}

/// The history is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactResponse {
    /// Where the store stands.
    pub header: Header,
}
