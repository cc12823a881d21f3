//! Hashes over what is stored, by which replicas are compared.
//!
//! Each record is hashed for itself and the hashes are added, so that the order in which records are
//! found does not matter and nothing has to be held in memory.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use onefold_table::{KeyRange, Order, TableError, View};
use onefold_types::Revision;
use xxhash_rust::xxh3::xxh3_64;

use super::error::StoreError;
use super::state::State;
use super::stored::{damaged, decode_old};
use super::{keys, versions};
use crate::{HashResponse, HashScope, Header, KeySpan, KeyValue};

/// Hashes what a view holds.
///
/// # Errors
/// When the revision up to which is to be hashed is not readable.
pub(crate) fn hash(
    view: &dyn View,
    state: &State,
    scope: HashScope,
) -> Result<HashResponse, StoreError> {
    let (sum, revision) = match scope {
        HashScope::History(asked) => {
            let until = state.readable(asked)?;
            (history(view, state.compacted, until)?, until)
        }
        HashScope::Everything => (everything(view)?, state.revision),
    };
    Ok(HashResponse {
        header: Header { revision: state.revision, ..Header::default() },
        hash: folded(sum),
        compacted: state.compacted,
        revision,
    })
}

/// Every version that can be read at a revision from `compacted` to `until`. What compaction has not
/// removed yet does not count: how far it is differs from replica to replica.
fn history(view: &dyn View, compacted: Revision, until: Revision) -> Result<u64, TableError> {
    let mut sum = Sum::default();
    let all = KeySpan::From(Bytes::from_static(&[0]));
    for kv in versions::currents(view, &all, Order::Ascending) {
        let kv = kv?;
        if kv.mod_revision <= until {
            sum.add_version(&kv, Revision::ZERO);
        }
    }
    for pair in view.scan(keys::old_range(&all), Order::Ascending) {
        let (stored_key, stored) = pair?;
        let (escaped, revision) =
            keys::split_old(&stored_key).ok_or_else(|| damaged("a version's key"))?;
        if revision > until {
            continue;
        }
        let key = keys::unescaped(&escaped).ok_or_else(|| damaged("a version's key"))?;
        let old = decode_old(key, revision, stored)?;
        // A version that its own revision superseded was never readable.
        if old.end > compacted.max(revision) {
            let end = if old.end <= until { old.end } else { Revision::ZERO };
            sum.add_version(&old.kv, end);
        }
    }
    Ok(sum.total)
}

fn everything(view: &dyn View) -> Result<u64, TableError> {
    let all = KeyRange { start: Bound::Unbounded, end: Bound::Unbounded };
    let mut sum = Sum::default();
    for pair in view.scan(all, Order::Ascending) {
        let (key, value) = pair?;
        sum.record.put_u64(key.len() as u64);
        sum.record.put_slice(&key);
        sum.record.put_slice(&value);
        sum.add_record();
    }
    Ok(sum.total)
}

/// The sum of the hashes of records.
#[derive(Default)]
struct Sum {
    total: u64,
    record: BytesMut,
}

impl Sum {
    /// `end` is the revision that superseded the version, or zero.
    fn add_version(&mut self, kv: &KeyValue, end: Revision) {
        let numbers = [kv.create_revision.get(), kv.mod_revision.get(), kv.version, end.get()];
        numbers.into_iter().for_each(|number| self.record.put_u64(number));
        self.record.put_i64(kv.lease.0);
        self.record.put_u64(kv.key.len() as u64);
        self.record.put_slice(&kv.key);
        self.record.put_slice(&kv.value);
        self.add_record();
    }

    fn add_record(&mut self) {
        self.total = self.total.wrapping_add(xxh3_64(&self.record));
        self.record.clear();
    }
}

/// Half as many bits, since the API has no more.
fn folded(sum: u64) -> u32 {
    (sum >> 32) as u32 ^ sum as u32
}
