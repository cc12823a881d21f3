//! Reading.

use bytes::Bytes;
use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use crate::{Header, KeySpan, KeyValue};

/// Which way answers are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortOrder {
    /// By key ascending; by another target, ascending too.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What answers are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// How often the key was written.
    Version,
    /// When the key came into being.
    Create,
    /// When the key was written last.
    Mod,
    /// The value's bytes.
    Value,
}

/// Reads keys at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    /// The first key; must not be empty.
    pub key: Bytes,
    /// See [`KeySpan::parse`].
    pub range_end: Bytes,
    /// Most records to answer; 0 for all.
    pub limit: u64,
    /// The revision to read at; 0 for the present one.
    pub revision: Revision,
    /// Which way to sort.
    pub sort_order: SortOrder,
    /// What to sort by.
    pub sort_target: SortTarget,
    /// Answer from what the nearest replica has, without asking whether it is the latest.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Answer only the number of keys.
    pub count_only: bool,
    /// Leave out records written before this revision.
    pub min_mod_revision: Option<Revision>,
    /// Leave out records written after this revision.
    pub max_mod_revision: Option<Revision>,
    /// Leave out keys created before this revision.
    pub min_create_revision: Option<Revision>,
    /// Leave out keys created after this revision.
    pub max_create_revision: Option<Revision>,
}

impl RangeRequest {
    /// Reads one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// Reads every key that begins with `prefix`; with an empty prefix, every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let (key, range_end) = prefix_pair(prefix.into());
        Self { key, range_end, ..Self::default() }
    }

    /// The keys that are meant.
    pub fn span(&self) -> KeySpan {
        KeySpan::parse(&self.key, &self.range_end)
    }
}

/// Etcd's `key` and `range_end` for a prefix. The empty prefix is written as "from the zero byte
/// on", because a key may not be empty.
pub(crate) fn prefix_pair(prefix: Bytes) -> (Bytes, Bytes) {
    if prefix.is_empty() {
        return (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
    }
    let end = KeySpan::prefix_end(&prefix);
    (prefix, end)
}

/// Reads a part of a span in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePartRequest {
    /// The first key; must not be empty.
    pub key: Bytes,
    /// See [`KeySpan::parse`].
    pub range_end: Bytes,
    /// Most records to answer; 0 for as many as fit.
    pub limit: u64,
    /// Bytes of keys and values after which no further record is added. One is always answered.
    pub bytes_max: u64,
    /// The revision to read at; 0 for the present one.
    pub revision: Revision,
    /// Answer from what the nearest replica has, without asking whether it is the latest.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
}

impl RangePartRequest {
    /// The keys that are meant.
    pub fn span(&self) -> KeySpan {
        KeySpan::parse(&self.key, &self.range_end)
    }
}

/// A part of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePart {
    /// Where the store stood.
    pub header: Header,
    /// The records.
    pub kvs: Vec<KeyValue>,
    /// The key at which the next part begins; none when this was the last one.
    pub next: Option<Bytes>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResponse {
    /// Where the store stood.
    pub header: Header,
    /// The records.
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut records off.
    pub more: bool,
    /// Keys in the span at the revision, whatever `limit` and the revision filters leave out.
    pub count: u64,
}
