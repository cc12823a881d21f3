//! The values that were read lately, so that whoever changes a record again and again does not
//! search the tree for it each time.

use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::TableError;

/// What an entry costs beside its key and value.
const ENTRY_BYTES: usize = 160;
/// Longer values are not kept: reading them costs more than finding them.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// Bytes of an entry as it is expected; only how much is laid out at the start depends on it.
const ENTRY_BYTES_EXPECTED: u64 = 512;

/// Values by key, or that a key has none: nothing that the tree does not hold.
pub(super) struct Values {
    cache: Cache<Bytes, Option<Bytes>, Weigher, foldhash::fast::RandomState>,
    /// Held by a write while it changes the tree and what is remembered of it, and shared by those who
    /// read the tree to remember what they find: so they find nothing that a write is about to change.
    tree: RwLock<()>,
}

#[derive(Clone)]
struct Weigher;

impl Weighter<Bytes, Option<Bytes>> for Weigher {
    fn weight(&self, key: &Bytes, value: &Option<Bytes>) -> u64 {
        (ENTRY_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)) as u64
    }
}

impl Values {
    /// Nothing yet, and at most so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let expected = usize::try_from(bytes_max / ENTRY_BYTES_EXPECTED).unwrap_or(usize::MAX);
        let (hasher, lifecycle) = Default::default();
        let cache = Cache::with(expected, bytes_max, Weigher, hasher, lifecycle);
        Self { cache, tree: RwLock::default() }
    }

    /// The key's value: as it is remembered, else by `read`.
    pub(super) fn get(
        &self,
        key: &Bytes,
        read: impl FnOnce() -> Result<Option<Bytes>, TableError>,
    ) -> Result<Option<Bytes>, TableError> {
        if let Some(value) = self.cache.get(key) {
            return Ok(value);
        }
        let _unchanged = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let value = read()?;
        if is_kept(value.as_ref()) {
            // A copy, since a value is a slice of a block of the tree.
            self.cache.insert(key.clone(), value.as_deref().map(Bytes::copy_from_slice));
        }
        Ok(value)
    }

    /// Begins to change the tree.
    pub(super) fn change(&self) -> Change<'_> {
        let tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        Change { values: self, changed: Vec::new(), _tree: tree }
    }
}

/// A write under way. What it changes of the values is forgotten when it fails, and else taken over by
/// [`Change::done`].
pub(super) struct Change<'a> {
    values: &'a Values,
    /// New values of keys that are remembered.
    changed: Vec<(Bytes, Option<Bytes>)>,
    _tree: RwLockWriteGuard<'a, ()>,
}

impl Change<'_> {
    /// The write gives a key this value.
    pub(super) fn note(&mut self, key: &Bytes, value: Option<&Bytes>) {
        if self.values.cache.contains_key(key) {
            let value = value.map(|value| match is_kept(Some(value)) {
                // A copy, since it may be a slice of something larger.
                true => Bytes::copy_from_slice(value),
                false => value.clone(),
            });
            self.changed.push((key.clone(), value));
        }
    }

    /// The tree is changed.
    pub(super) fn done(mut self) {
        for (key, value) in self.changed.drain(..) {
            if is_kept(value.as_ref()) {
                self.values.cache.insert(key, value);
            } else {
                self.values.cache.remove(&key);
            }
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Of a write that failed nobody knows how far it came.
        for (key, _) in &self.changed {
            self.values.cache.remove(key);
        }
    }
}

fn is_kept(value: Option<&Bytes>) -> bool {
    value.is_none_or(|value| value.len() <= VALUE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Reads a key of a tree that holds `value`, and tells whether the tree was asked.
    fn get(values: &Values, key: &str, value: Option<&'static str>) -> (Option<Bytes>, bool) {
        let asked = Cell::new(false);
        let read = || {
            asked.set(true);
            Ok(value.map(Bytes::from))
        };
        let found = values
            .get(&Bytes::copy_from_slice(key.as_bytes()), read)
            .expect("memory does not fail");
        (found, asked.get())
    }

    fn change(values: &Values, key: &Bytes, value: Option<&'static str>) {
        let mut change = values.change();
        change.note(key, value.map(Bytes::from).as_ref());
        change.done();
    }

    #[test]
    fn a_value_is_read_once_and_follows_the_writes() {
        let values = Values::new(1 << 20);
        let key = Bytes::from("key");
        assert_eq!(get(&values, "key", None), (None, true));
        assert_eq!(get(&values, "key", None), (None, false));
        change(&values, &key, Some("1"));
        assert_eq!(get(&values, "key", Some("of the tree")), (Some("1".into()), false));
        change(&values, &key, None);
        assert_eq!(get(&values, "key", Some("of the tree")), (None, false));
    }

    #[test]
    fn what_nobody_read_is_not_kept_when_it_is_written() {
        let values = Values::new(1 << 20);
        change(&values, &Bytes::from("key"), Some("1"));
        assert_eq!(get(&values, "key", Some("1")), (Some("1".into()), true));
    }

    #[test]
    fn what_a_failed_write_would_have_changed_is_read_again() {
        let values = Values::new(1 << 20);
        assert_eq!(get(&values, "key", Some("old")), (Some("old".into()), true));
        values.change().note(&Bytes::from("key"), Some(&Bytes::from("new")));
        assert_eq!(get(&values, "key", Some("who knows")), (Some("who knows".into()), true));
    }

    #[test]
    fn a_value_that_has_become_long_is_forgotten() {
        let values = Values::new(1 << 20);
        let key = Bytes::from("key");
        assert_eq!(get(&values, "key", Some("1")), (Some("1".into()), true));
        let mut change = values.change();
        change.note(&key, Some(&Bytes::from(vec![0; VALUE_BYTES_MAX + 1])));
        change.done();
        assert_eq!(get(&values, "key", Some("long")), (Some("long".into()), true));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let values = Values::new(1 << 20);
        let fail = || Err(TableError::KeyTooLong { bytes: 1 });
        assert!(values.get(&Bytes::from("key"), fail).is_err());
        assert_eq!(get(&values, "key", Some("1")), (Some("1".into()), true));
    }

    #[test]
    fn memory_is_bounded_and_long_values_are_left_out() {
        let values = Values::new(1 << 20);
        for number in 0..100_000 {
            get(&values, &number.to_string(), Some("some value"));
        }
        assert!(values.cache.weight() <= 1 << 20, "{} bytes", values.cache.weight());
        let long = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
        let key = Bytes::from("long");
        for _ in 0..2 {
            let asked = Cell::new(false);
            let read = || {
                asked.set(true);
                Ok(Some(long.clone()))
            };
            assert_eq!(values.get(&key, read).expect("memory does not fail"), Some(long.clone()));
            assert!(asked.get());
        }
    }
}
