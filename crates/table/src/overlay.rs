//! Writes that are not in the table yet, over a view of what is.

use std::collections::{BTreeSet, btree_set};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::OnceLock;

use bytes::Bytes;
use indexmap::IndexMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Batch, KeyRange, Order, Scan, TableError, View};

/// Buffered writes over a view: reads through the overlay see them. Memory grows with what is
/// written; the owner watches [`Overlay::bytes`] and commits in time.
pub struct Overlay<'a> {
    base: &'a dyn View,
    /// In the order of first changes; `None` for a key that is deleted.
    changes: IndexMap<Bytes, Option<Bytes>, foldhash::fast::RandomState>,
    /// Their keys in order, from the first scan on: most overlays are never scanned.
    sorted: OnceLock<BTreeSet<Bytes>>,
    bytes: usize,
    /// Of the changes since it was last taken, if anybody wants it.
    hash: Option<u64>,
}

/// Where the hash of a sequence of changes begins, and what tells a put from a delete in it.
const HASH_START: u64 = 0;
const HASH_PUT: u64 = 1;
const HASH_DELETE: u64 = 2;

impl<'a> Overlay<'a> {
    /// An overlay without changes.
    pub fn new(base: &'a dyn View) -> Self {
        Self { base, changes: IndexMap::default(), sorted: OnceLock::new(), bytes: 0, hash: None }
    }

    /// An overlay without changes that hashes those that come, see [`take_hash`](Self::take_hash).
    pub fn hashing(base: &'a dyn View) -> Self {
        Self { hash: Some(HASH_START), ..Self::new(base) }
    }

    /// The hash (XXH3, 64 bits, chained) of all changes since it was last taken, in the order in
    /// which they were made: every put with key and value, every delete with its key. It depends on
    /// nothing else. Always the same for an overlay that was not made to hash.
    pub fn take_hash(&mut self) -> u64 {
        self.hash.as_mut().map_or(HASH_START, |hash| std::mem::replace(hash, HASH_START))
    }

    /// Sets the value of a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.change(key.into(), Some(value.into()));
    }

    /// Removes a key, if it exists.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.change(key.into(), None);
    }

    /// Bytes of the keys and values that are buffered.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys are changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes as one batch, each key with `prefix` in front, in the order in which the keys
    /// were changed first.
    pub fn into_batch(self, prefix: &[u8]) -> Batch {
        let mut batch = Batch::new();
        for (key, value) in self.changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch.under(prefix)
    }

    fn sorted(&self) -> &BTreeSet<Bytes> {
        self.sorted.get_or_init(|| self.changes.keys().cloned().collect())
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        if let Some(hash) = &mut self.hash {
            *hash = match &value {
                Some(value) => {
                    let of_key = xxh3_64_with_seed(&key, hash.wrapping_add(HASH_PUT));
                    xxh3_64_with_seed(value, of_key)
                }
                None => xxh3_64_with_seed(&key, hash.wrapping_add(HASH_DELETE)),
            };
        }
        let key_bytes = key.len();
        self.bytes += key_bytes + value.as_ref().map_or(0, Bytes::len);
        if let Some(sorted) = self.sorted.get_mut() {
            sorted.insert(key.clone());
        }
        if let Some(before) = self.changes.insert(key, value) {
            self.bytes -= key_bytes + before.as_ref().map_or(0, Bytes::len);
        }
    }
}

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        if range.is_empty() {
            return Box::new(std::iter::empty());
        }
        let bounds = (range.start.as_ref(), range.end.as_ref());
        let keys = self.sorted().range::<Bytes, (Bound<&Bytes>, Bound<&Bytes>)>(bounds);
        let keys = match order {
            Order::Ascending => Keys::Ascending(keys),
            Order::Descending => Keys::Descending(keys.rev()),
        };
        let base = self.base.scan(range, order).peekable();
        Box::new(MergedScan { base, overlay: self, changed: keys.peekable(), order })
    }
}

/// The changed keys of a range in the direction of the scan.
enum Keys<'a> {
    Ascending(btree_set::Range<'a, Bytes>),
    Descending(std::iter::Rev<btree_set::Range<'a, Bytes>>),
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a Bytes;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Ascending(keys) => keys.next(),
            Self::Descending(keys) => keys.next(),
        }
    }
}

struct MergedScan<'a> {
    base: Peekable<Scan<'a>>,
    overlay: &'a Overlay<'a>,
    changed: Peekable<Keys<'a>>,
    order: Order,
}

impl Iterator for MergedScan<'_> {
    type Item = Result<(Bytes, Bytes), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(&changed) = self.changed.peek() else {
                return self.base.next();
            };
            match self.base.peek() {
                // The caller learns of the failure, and gets no changes out of their order.
                Some(Err(_)) => return self.base.next(),
                Some(Ok((key, _))) => {
                    let base_first = match self.order {
                        Order::Ascending => key < changed,
                        Order::Descending => key > changed,
                    };
                    if base_first {
                        return self.base.next();
                    }
                    if key == changed {
                        self.base.next();
                    }
                }
                None => {}
            }
            self.changed.next();
            if let Some(Some(value)) = self.overlay.changes.get(changed) {
                return Some(Ok((changed.clone(), value.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTable;

    fn hash(changes: impl FnOnce(&mut Overlay<'_>)) -> u64 {
        let table = MemoryTable::new();
        let mut overlay = Overlay::hashing(&table);
        changes(&mut overlay);
        overlay.take_hash()
    }

    #[test]
    fn the_hash_tells_every_sequence_of_changes_from_every_other() {
        let hashes = [
            hash(|_| {}),
            hash(|overlay| overlay.put("a", "")),
            hash(|overlay| overlay.put("", "a")),
            hash(|overlay| overlay.delete("a")),
            hash(|overlay| {
                overlay.delete("a");
                overlay.delete("");
            }),
            hash(|overlay| {
                overlay.put("a", "1");
                overlay.put("a", "2");
            }),
            hash(|overlay| {
                overlay.put("a", "2");
                overlay.put("a", "1");
            }),
            hash(|overlay| overlay.put("a", "2")),
            hash(|overlay| overlay.put("a2", "")),
        ];
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn the_hash_depends_on_nothing_but_the_changes_since_it_was_taken() {
        let table = MemoryTable::new();
        let mut overlay = Overlay::hashing(&table);
        overlay.put("a", "1");
        let first = overlay.take_hash();
        overlay.put("a", "1");
        assert_eq!(overlay.take_hash(), first);
        assert_eq!(overlay.take_hash(), hash(|_| {}));
        assert_eq!(Overlay::new(&table).take_hash(), hash(|_| {}));
    }
}
