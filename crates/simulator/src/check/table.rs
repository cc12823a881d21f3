//! Things that are kept once and go by their number.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
};

/// A hash that can be added to others and still tells sums apart.
pub(super) type Hash128 = u128;

/// Names for the servers under each permutation of them, and the hashes of things under each.
#[derive(Clone, Debug)]
pub(super) struct Permutations(Vec<Vec<u64>>);

impl Permutations {
    /// All permutations of servers 1 to `count`, or only the one that changes nothing.
    pub(super) fn of(count: u64, is_symmetric: bool) -> Self {
        let identity: Vec<u64> = (1..=count).collect();
        if !is_symmetric {
            return Self(vec![identity]);
        }
        let mut all = vec![Vec::new()];
        for _ in 0..count {
            let longer = |names: &Vec<u64>| {
                let free = identity.iter().filter(|name| !names.contains(name));
                free.map(|&name| [names.as_slice(), &[name]].concat()).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        Self(all)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The hash of what `bytes` gives under each permutation; `bytes` is told the names of the
    /// servers, that of server `id` at position `id - 1`.
    pub(super) fn hashes(&self, bytes: impl Fn(&[u64]) -> Vec<u8>) -> Hashes {
        self.0.iter().map(|names| xxhash_rust::xxh3::xxh3_128(&bytes(names))).collect()
    }
}

/// One hash for each permutation of the servers, the identity first.
pub(super) type Hashes = Box<[Hash128]>;

/// Keeps each thing once. Things are the same if their hash without renaming is.
pub(super) struct Table<T> {
    things: Vec<T>,
    /// So many hashes for each thing.
    permutations: usize,
    hashes: Vec<Hash128>,
    keys: HashMap<Hash128, u32, Trusting>,
}

impl<T> Table<T> {
    pub(super) fn new(permutations: &Permutations) -> Self {
        Self {
            things: Vec::new(),
            permutations: permutations.len(),
            hashes: Vec::new(),
            keys: HashMap::default(),
        }
    }

    /// The number of a thing, which is kept if it is new.
    pub(super) fn key(&mut self, hashes: &[Hash128], thing: impl FnOnce() -> T) -> u32 {
        assert_eq!(hashes.len(), self.permutations, "one hash for each permutation");
        let next = u32::try_from(self.things.len()).expect("fewer things than a search can visit");
        *self.keys.entry(hashes[0]).or_insert_with(|| {
            self.things.push(thing());
            self.hashes.extend_from_slice(hashes);
            next
        })
    }

    pub(super) fn get(&self, key: u32) -> &T {
        &self.things[key as usize]
    }

    pub(super) fn hashes(&self, key: u32) -> &[Hash128] {
        let first = key as usize * self.permutations;
        &self.hashes[first..first + self.permutations]
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }
}

/// Keys that are hashes already, or small numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trusting;

impl BuildHasher for Trusting {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(0)
    }
}

/// Folds what is written by a multiplication, so that the high bits depend on all of it.
#[derive(Debug)]
pub(super) struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}
