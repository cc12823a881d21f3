//! How many keys a span has, without reading them.
//!
//! The keys that exist are divided into blocks, each with a record of how many it has: a block goes
//! from its first key to the next block's. A count adds up the blocks within the span and reads only
//! the keys of the two at its ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use onefold_table::{KeyRange, Order, Overlay, TableError, View};

use super::keys;
use super::stored::damaged;
use crate::{Event, EventKind, KeySpan};

/// Keys of a block beyond which it is divided.
const KEYS_MAX: u64 = 2048;
/// Keys of a block when it is made by a division, and most keys of one made by a union.
const KEYS_DIVIDED: u64 = 1024;
/// Keys of a block below which it joins the next one if both fit into one.
const KEYS_MIN: u64 = 256;
/// Blocks remembered; all are forgotten when there would be more.
const CACHED_MAX: usize = 4096;

/// The blocks that were written lately, so that a write finds its block without a search. What is
/// in the table does not depend on what is remembered.
#[derive(Default)]
pub(crate) struct Blocks {
    /// By first key.
    cached: BTreeMap<Bytes, Block>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    keys: u64,
    /// The first key of the next block; none for the last.
    end: Option<Bytes>,
}

impl Block {
    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

impl Blocks {
    /// Forgets everything: the table is another one.
    pub(crate) fn clear(&mut self) {
        self.cached.clear();
    }

    /// Counts what the events of a revision created and deleted. Their writes must be in the table.
    pub(crate) fn count(
        &mut self,
        table: &mut Overlay<'_>,
        events: &[Event],
    ) -> Result<(), TableError> {
        let mut changed = BTreeSet::new();
        for event in events {
            let change: fn(u64) -> Option<u64> = match (event.kind, &event.prev_kv) {
                (EventKind::Put, None) => |keys| keys.checked_add(1),
                (EventKind::Delete, _) => |keys| keys.checked_sub(1),
                (EventKind::Put, Some(_)) => continue,
            };
            let first = self.find(table, &event.kv.key, &changed)?;
            let block = self.cached.get_mut(&first).expect("it was found");
            block.keys = change(block.keys).ok_or_else(|| damaged("a count of keys"))?;
            changed.insert(first);
        }
        for first in changed {
            self.write(table, first)?;
        }
        Ok(())
    }

    /// The first key of the block that a key belongs to, which is remembered afterwards. Those of
    /// `changed` stay remembered: they are not in the table yet.
    fn find(
        &mut self,
        view: &dyn View,
        key: &Bytes,
        changed: &BTreeSet<Bytes>,
    ) -> Result<Bytes, TableError> {
        if let Some((first, block)) = self.cached.range::<Bytes, _>(..=key).next_back()
            && block.reaches(key)
        {
            return Ok(first.clone());
        }
        if self.cached.len() >= CACHED_MAX {
            self.cached.retain(|first, _| changed.contains(first));
        }
        let (first, keys) = match before(view, key)? {
            Some(found) => found,
            None => (Bytes::new(), 0),
        };
        let end = after(view, key)?.map(|(next, _)| next);
        self.cached.insert(first.clone(), Block { keys, end });
        Ok(first)
    }

    /// Writes a block that has changed; divides it when it has grown large, and joins it with the next
    /// one when it has become small.
    fn write(&mut self, table: &mut Overlay<'_>, first: Bytes) -> Result<(), TableError> {
        // One that joined another just now has nothing left to write.
        let Some(block) = self.cached.get(&first).cloned() else { return Ok(()) };
        if block.keys > KEYS_MAX {
            return self.divide(table, first, block);
        }
        if block.keys < KEYS_MIN
            && let Some(next) = &block.end
            && let Some((keys, end)) = self.after_block(table, next)?
            && block.keys + keys <= KEYS_DIVIDED
        {
            table.delete(keys::block(next));
            self.cached.remove(next);
            self.put(table, first, Block { keys: block.keys + keys, end });
            return Ok(());
        }
        self.put(table, first, block);
        Ok(())
    }

    /// What the block that begins with `first` has, and where it ends.
    fn after_block(
        &self,
        view: &dyn View,
        first: &Bytes,
    ) -> Result<Option<(u64, Option<Bytes>)>, TableError> {
        if let Some(block) = self.cached.get(first) {
            return Ok(Some((block.keys, block.end.clone())));
        }
        let Some(stored) = view.get(&keys::block(first))? else { return Ok(None) };
        Ok(Some((decode(&stored)?, after(view, first)?.map(|(next, _)| next))))
    }

    fn divide(
        &mut self,
        table: &mut Overlay<'_>,
        first: Bytes,
        block: Block,
    ) -> Result<(), TableError> {
        let start = Bound::Included(first.clone());
        let end = block.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut starts = vec![first];
        let mut keys = 0_u64;
        for pair in table.scan(keys::current_range_of(start, end), Order::Ascending) {
            if keys > 0 && keys.is_multiple_of(KEYS_DIVIDED) && block.keys - keys >= KEYS_MIN {
                starts.push(keys::current_key(&pair?.0));
            } else {
                pair?;
            }
            keys += 1;
        }
        if keys != block.keys {
            return Err(damaged("a count of keys"));
        }
        let mut left = block.keys;
        for (place, first) in starts.iter().enumerate() {
            let next = starts.get(place + 1);
            let keys = if next.is_some() { KEYS_DIVIDED } else { left };
            left -= keys;
            let end = next.or(block.end.as_ref()).cloned();
            self.put(table, first.clone(), Block { keys, end });
        }
        Ok(())
    }

    fn put(&mut self, table: &mut Overlay<'_>, first: Bytes, block: Block) {
        table.put(keys::block(&first), Bytes::copy_from_slice(&block.keys.to_be_bytes()));
        self.cached.insert(first, block);
    }
}

/// How many keys of a span exist.
pub(crate) fn count(view: &dyn View, span: &KeySpan) -> Result<u64, TableError> {
    if let KeySpan::One(key) = span {
        return Ok(u64::from(view.get(&keys::current(key))?.is_some()));
    }
    let range = span.to_range();
    if range.is_empty() {
        return Ok(0);
    }
    let start = span.start();
    // Where no block reaches, no key ever was.
    let Some((first, _)) = before(view, start)? else { return Ok(0) };
    let blocks = keys::blocks(Bound::Included(first), range.end.clone());
    let mut blocks = view.scan(blocks, Order::Ascending).peekable();
    let mut sum = 0;
    while let Some(pair) = blocks.next() {
        let (key, stored) = pair?;
        let first = keys::block_first(&key);
        let next = match blocks.peek() {
            Some(Ok((next, _))) => Bound::Excluded(keys::block_first(next)),
            _ => range.end.clone(),
        };
        let is_last = next == range.end;
        if first >= *start && (!is_last || next == Bound::Unbounded) {
            sum += decode(&stored)?;
        } else {
            let from = Bound::Included(first.max(start.clone()));
            sum += read(view, keys::current_range_of(from, next))?;
        }
    }
    Ok(sum)
}

/// Counts records by reading them.
fn read(view: &dyn View, range: KeyRange) -> Result<u64, TableError> {
    let mut keys = 0;
    for pair in view.scan(range, Order::Ascending) {
        pair?;
        keys += 1;
    }
    Ok(keys)
}

/// The last block that begins at or before a key.
fn before(view: &dyn View, key: &Bytes) -> Result<Option<(Bytes, u64)>, TableError> {
    let range = keys::blocks(Bound::Unbounded, Bound::Included(key.clone()));
    named(view.scan(range, Order::Descending).next())
}

/// The first block that begins after a key.
fn after(view: &dyn View, key: &Bytes) -> Result<Option<(Bytes, u64)>, TableError> {
    let range = keys::blocks(Bound::Excluded(key.clone()), Bound::Unbounded);
    named(view.scan(range, Order::Ascending).next())
}

fn named(
    pair: Option<Result<(Bytes, Bytes), TableError>>,
) -> Result<Option<(Bytes, u64)>, TableError> {
    let Some((key, stored)) = pair.transpose()? else { return Ok(None) };
    Ok(Some((keys::block_first(&key), decode(&stored)?)))
}

fn decode(stored: &[u8]) -> Result<u64, TableError> {
    Ok(u64::from_be_bytes(stored.try_into().map_err(|_| damaged("a count of keys"))?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use onefold_table::MemoryTable;
    use proptest::prelude::*;

    use super::*;
    use crate::KeyValue;

    /// A span of consecutive numbers, created or deleted in one revision.
    #[derive(Clone, Debug)]
    struct Change {
        from: u16,
        keys: u16,
        is_creation: bool,
    }

    fn key(number: u16) -> Bytes {
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    fn change() -> impl Strategy<Value = Change> {
        let keys = prop_oneof![1..40_u16, 1000..6000_u16];
        (0..8000_u16, keys, proptest::bool::weighted(0.6))
            .prop_map(|(from, keys, is_creation)| Change { from, keys, is_creation })
    }

    fn events_of(change: &Change, exist: &mut BTreeSet<u16>) -> Vec<Event> {
        let numbers = change.from..change.from + change.keys;
        let mut events = Vec::new();
        for number in numbers {
            let kv = KeyValue { key: key(number), ..KeyValue::default() };
            if change.is_creation && exist.insert(number) {
                events.push(Event { kind: EventKind::Put, kv, prev_kv: None });
            } else if !change.is_creation && exist.remove(&number) {
                events.push(Event { kind: EventKind::Delete, prev_kv: Some(kv.clone()), kv });
            }
        }
        events
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn counts_are_those_of_the_keys_that_exist(
            changes in proptest::collection::vec((change(), any::<bool>()), 1..12),
            spans in proptest::collection::vec((0..15_000_u16, 0..15_000_u16), 8),
        ) {
            let table = MemoryTable::new();
            let mut overlay = Overlay::new(&table);
            let mut blocks = Blocks::default();
            let mut exist = BTreeSet::new();
            for (change, forgets) in &changes {
                let events = events_of(change, &mut exist);
                for event in &events {
                    let stored = keys::current(&event.kv.key);
                    match event.kind {
                        EventKind::Put => overlay.put(stored, "value"),
                        EventKind::Delete => overlay.delete(stored),
                    }
                }
                blocks.count(&mut overlay, &events).expect("memory does not fail");
                if *forgets {
                    blocks.clear();
                }
            }
            for (start, end) in &spans {
                let span = KeySpan::Between { start: key(*start), end: key(*end) };
                let truth = if start < end { exist.range(start..end).count() as u64 } else { 0 };
                prop_assert_eq!(count(&overlay, &span).expect("memory does not fail"), truth);
                let span = KeySpan::From(key(*start));
                let truth = exist.range(start..).count() as u64;
                prop_assert_eq!(count(&overlay, &span).expect("memory does not fail"), truth);
            }
            let whole = keys::blocks(Bound::Unbounded, Bound::Unbounded);
            for pair in overlay.scan(whole, Order::Ascending) {
                let (first, stored) = pair.expect("memory does not fail");
                let keys = decode(&stored).expect("it was just written");
                prop_assert!(keys <= KEYS_MAX, "{keys} keys from {first:?} on");
            }
        }
    }
}
