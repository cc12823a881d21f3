//! Counts of byte strings in bounded memory: the combiner of the built-in jobs, before anything is
//! sorted.

use std::hash::{BuildHasher, RandomState};

use crate::shuffle::{Collector, encode_count};
use crate::task::TaskError;

/// Keys up to this length are kept within their entry.
pub(super) const SHORT_BYTES: usize = 16;

/// Keys that are looked up together.
pub(super) const BATCH_KEYS: usize = 32;

/// Slots of an empty table.
const SLOTS_MIN: usize = 1 << 12;

/// A key of at most [`SHORT_BYTES`] bytes: two little-endian words padded with zeros.
#[derive(Clone, Copy, Default)]
pub(super) struct ShortKey {
    pub(super) start: [u64; 2],
    pub(super) length: u32,
}

/// A key and its count.
#[derive(Clone, Copy)]
struct Entry {
    /// The first 16 bytes of the key, padded with zeros.
    start: [u64; 2],
    count: u64,
    length: u32,
    /// Where the whole of a long key is.
    offset: u32,
}

/// A hash table with open addressing over a list of entries.
pub(super) struct CountTable {
    /// 0 for a free slot; otherwise the upper half of the key's hash, and the entry's number plus 1.
    slots: Vec<u64>,
    entries: Vec<Entry>,
    long_keys: Vec<u8>,
    bytes_max: usize,
    /// Differs from table to table, so that no input can make all keys collide.
    seed: u64,
}

impl CountTable {
    /// An empty table for about `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            slots: vec![0; SLOTS_MIN],
            entries: Vec::new(),
            long_keys: Vec::new(),
            bytes_max,
            seed: RandomState::new().hash_one(0_u64),
        }
    }

    /// Counts some short keys, at most [`BATCH_KEYS`]. What each needs from memory does not depend
    /// on the others, so the processor waits for all of it at once.
    pub(super) fn add_batch(&mut self, keys: &[ShortKey]) {
        let mask = self.slots.len() - 1;
        let mut found = [(0, 0); BATCH_KEYS];
        for (found, key) in found.iter_mut().zip(keys) {
            let hash = self.hash_short(*key);
            *found = (hash, self.slots[hash as usize & mask]);
        }
        for (&(hash, content), key) in found.iter().zip(keys) {
            if content != 0 && content >> 32 == hash >> 32 {
                let entry = &mut self.entries[(content as u32 - 1) as usize];
                if entry.start == key.start && entry.length == key.length {
                    entry.count += 1;
                    continue;
                }
            }
            // New, or not in its first slot, or moved by a key before it.
            self.add_short(*key, hash);
        }
    }

    fn hash_short(&self, key: ShortKey) -> u64 {
        let length = u64::from(key.length);
        mix(key.start[0] ^ self.seed, key.start[1] ^ length.rotate_left(32))
    }

    fn add_short(&mut self, key: ShortKey, hash: u64) {
        let ShortKey { start, length } = key;
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let content = self.slots[slot];
            if content == 0 {
                self.insert(slot, hash, Entry { start, count: 1, length, offset: 0 });
                return;
            }
            if content >> 32 == hash >> 32 {
                let entry = &mut self.entries[(content as u32 - 1) as usize];
                if entry.start == start && entry.length == length {
                    entry.count += 1;
                    return;
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Counts a key of any length.
    pub(super) fn add(&mut self, key: &[u8]) {
        let start = first_words(key);
        if key.len() <= SHORT_BYTES {
            let key = ShortKey { start, length: key.len() as u32 };
            self.add_short(key, self.hash_short(key));
        } else {
            self.add_long(start, key);
        }
    }

    #[cold]
    fn add_long(&mut self, start: [u64; 2], key: &[u8]) {
        let mut hash = mix(start[0] ^ self.seed, start[1] ^ (key.len() as u64).rotate_left(32));
        for chunk in key[SHORT_BYTES..].chunks(SHORT_BYTES) {
            let [low, high] = first_words(chunk);
            hash = mix(hash ^ low, high ^ self.seed.rotate_left(17));
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let content = self.slots[slot];
            if content == 0 {
                let offset = u32::try_from(self.long_keys.len()).expect("the table is bounded");
                let length = u32::try_from(key.len()).expect("keys are bounded");
                self.long_keys.extend_from_slice(key);
                self.insert(slot, hash, Entry { start, count: 1, length, offset });
                return;
            }
            if content >> 32 == hash >> 32 {
                let index = (content as u32 - 1) as usize;
                let entry = self.entries[index];
                if entry.length as usize == key.len() && self.long_key(&entry) == key {
                    self.entries[index].count += 1;
                    return;
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    fn long_key(&self, entry: &Entry) -> &[u8] {
        &self.long_keys[entry.offset as usize..][..entry.length as usize]
    }

    fn insert(&mut self, slot: usize, hash: u64, entry: Entry) {
        self.entries.push(entry);
        self.slots[slot] = (hash >> 32 << 32) | self.entries.len() as u64;
        // Half full at most: probes stay short.
        if self.entries.len() * 2 > self.slots.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        assert!(u32::try_from(size).is_ok(), "the table is bounded");
        let old = std::mem::replace(&mut self.slots, vec![0; size]);
        let mask = size - 1;
        for content in old.into_iter().filter(|&content| content != 0) {
            let entry = self.entries[(content as u32 - 1) as usize];
            let mut slot = self.hash_of(&entry) as usize & mask;
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = content;
        }
    }

    fn hash_of(&self, entry: &Entry) -> u64 {
        let length = u64::from(entry.length);
        let mut hash = mix(entry.start[0] ^ self.seed, entry.start[1] ^ length.rotate_left(32));
        if entry.length as usize > SHORT_BYTES {
            for chunk in self.long_key(entry)[SHORT_BYTES..].chunks(SHORT_BYTES) {
                let [low, high] = first_words(chunk);
                hash = mix(hash ^ low, high ^ self.seed.rotate_left(17));
            }
        }
        hash
    }

    /// Whether it is time to drain it.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.entries.len() * size_of::<Entry>()
            + self.slots.len() * size_of::<u64>()
            + self.long_keys.len();
        bytes >= self.bytes_max && !self.entries.is_empty()
    }

    /// Hands all counts to the collector and starts anew.
    pub(super) fn drain(&mut self, out: &mut Collector<'_>) -> Result<(), TaskError> {
        let mut value = Vec::new();
        for entry in &self.entries {
            encode_count(&mut value, entry.count);
            let length = entry.length as usize;
            if length <= SHORT_BYTES {
                let mut key = [0; SHORT_BYTES];
                key[..8].copy_from_slice(&entry.start[0].to_le_bytes());
                key[8..].copy_from_slice(&entry.start[1].to_le_bytes());
                out.emit(&key[..length], &value)?;
            } else {
                out.emit(self.long_key(entry), &value)?;
            }
        }
        self.entries.clear();
        self.long_keys.clear();
        self.slots.fill(0);
        Ok(())
    }
}

/// The first 16 bytes as two little-endian words, padded with zeros.
#[inline]
pub(super) fn first_words(bytes: &[u8]) -> [u64; 2] {
    let mut padded = [0; SHORT_BYTES];
    let length = bytes.len().min(SHORT_BYTES);
    padded[..length].copy_from_slice(&bytes[..length]);
    words_of(&padded)
}

/// Sixteen bytes as two little-endian words.
#[inline]
pub(super) fn words_of(bytes: &[u8; SHORT_BYTES]) -> [u64; 2] {
    let all = u128::from_le_bytes(*bytes);
    [all as u64, (all >> 64) as u64]
}

/// Folds the 128-bit product of two words: every bit of the result depends on every bit of both.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn counts(table: &CountTable) -> BTreeMap<Vec<u8>, u64> {
        let mut counts = BTreeMap::new();
        for entry in &table.entries {
            let length = entry.length as usize;
            let key = if length <= SHORT_BYTES {
                let bytes: Vec<u8> =
                    entry.start.iter().flat_map(|word| word.to_le_bytes()).collect();
                bytes[..length].to_vec()
            } else {
                table.long_key(entry).to_vec()
            };
            assert!(counts.insert(key, entry.count).is_none(), "a key has two entries");
        }
        counts
    }

    proptest! {
        #[test]
        fn it_counts_like_a_map(keys in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(0_u8..2, 0..20),
                prop::collection::vec(any::<u8>(), 0..50),
            ],
            0..500,
        )) {
            let mut table = CountTable::new(1 << 20);
            let mut expected = BTreeMap::new();
            for key in keys {
                table.add(&key);
                *expected.entry(key).or_insert(0) += 1;
            }
            prop_assert_eq!(counts(&table), expected);
        }
    }

    #[test]
    fn it_grows_and_says_when_it_is_full() {
        let mut table = CountTable::new(1 << 20);
        let mut added = 0_u64;
        while !table.is_full() {
            table.add(format!("key number {added} of many").as_bytes());
            table.add(added.to_string().as_bytes());
            added += 1;
        }
        assert!(added > 5000, "{added}");
        let counts = counts(&table);
        assert_eq!(counts.len() as u64, 2 * added);
        assert!(counts.values().all(|&count| count == 1));
    }
}
