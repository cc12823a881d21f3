//! The keys that a request means.

use std::ops::Bound;

use bytes::Bytes;
use onefold_table::KeyRange;

/// The keys between `key` and `range_end`, in etcd's notation made explicit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySpan {
    /// One key (no `range_end`).
    One(Bytes),
    /// Every key from this one on (`range_end` is one zero byte).
    From(Bytes),
    /// The keys from `start` up to, but not including, `end`. Empty when `end <= start`.
    Between {
        /// The first key.
        start: Bytes,
        /// The first key beyond.
        end: Bytes,
    },
}

impl KeySpan {
    /// Reads etcd's pair of `key` and `range_end`.
    pub fn parse(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Between { start: key.clone(), end: range_end.clone() },
        }
    }

    /// The `range_end` that makes `prefix` mean every key that begins with it.
    pub fn prefix_end(prefix: &[u8]) -> Bytes {
        let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else {
            // Nothing is larger than a prefix of 0xff bytes: go on to the end of the keyspace.
            return Bytes::from_static(&[0]);
        };
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        end.into()
    }

    /// Whether the span has this key.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::From(start) => start.as_ref() <= key,
            Self::Between { start, end } => start.as_ref() <= key && key < end.as_ref(),
        }
    }

    /// The first key that the span can have.
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(start) | Self::From(start) | Self::Between { start, .. } => start,
        }
    }

    /// The same keys as a range of plain user keys.
    pub fn to_range(&self) -> KeyRange {
        match self {
            Self::One(key) => {
                KeyRange { start: Bound::Included(key.clone()), end: Bound::Included(key.clone()) }
            }
            Self::From(start) => {
                KeyRange { start: Bound::Included(start.clone()), end: Bound::Unbounded }
            }
            Self::Between { start, end } => KeyRange {
                start: Bound::Included(start.clone()),
                end: Bound::Excluded(end.max(start).clone()),
            },
        }
    }
}
