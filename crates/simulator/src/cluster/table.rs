//! A node's table: in memory, with a crash that takes what was not synced.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use onefold_table::{
    Batch, KeyRange, MemoryTable, Operation, Order, Scan, Table, TableError, View,
};

use crate::random::Random;

/// A [`MemoryTable`] that remembers how to undo what was not synced. A crash loses the newest
/// batches, whole ones, from the end.
#[derive(Debug, Default)]
pub(super) struct CrashTable {
    pairs: MemoryTable,
    /// For each batch since the last sync, what takes it back.
    undo: Mutex<VecDeque<Batch>>,
}

impl CrashTable {
    fn undo(&self) -> MutexGuard<'_, VecDeque<Batch>> {
        self.undo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power goes: gives how many batches were lost. As a bug on purpose, of each lost batch only
    /// what the host itself wrote.
    pub(super) fn crash(&self, random: &mut Random, is_partial: bool) -> usize {
        let mut undo = self.undo();
        let lost = random.within(0..=undo.len() as u64) as usize;
        for _ in 0..lost {
            let mut batch = undo.pop_back().expect("no more are lost than there are");
            if is_partial {
                batch = hosts_part(batch);
            }
            self.pairs.write(batch).expect("it was in the table before");
        }
        undo.clear();
        lost
    }
}

/// The keys of a batch that are the host's in some generation of some group's state.
fn hosts_part(batch: Batch) -> Batch {
    let mut part = Batch::new();
    for operation in batch.into_operations() {
        let key = operation.key();
        if key.get(8) != Some(&1) || key.get(13) != Some(&b'h') {
            continue;
        }
        match operation {
            Operation::Put { key, value } => part.put(key, value),
            Operation::Delete { key } => part.delete(key),
        }
    }
    part
}

impl View for CrashTable {
    fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, TableError> {
        self.pairs.get(key)
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        self.pairs.scan(range, order)
    }
}

impl Table for CrashTable {
    fn snapshot(&self) -> Arc<dyn View> {
        self.pairs.snapshot()
    }

    fn write(&self, batch: Batch) -> Result<(), TableError> {
        let mut undo = Batch::new();
        for operation in batch.operations() {
            let key = operation.key().clone();
            match self.pairs.get(&key)? {
                Some(before) => undo.put(key, before),
                None => undo.delete(key),
            }
        }
        self.pairs.write(batch)?;
        self.undo().push_back(undo);
        Ok(())
    }

    fn sync(&self) -> Result<(), TableError> {
        self.undo().clear();
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.pairs.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(table: &CrashTable, key: &'static str, value: &'static str) {
        let mut batch = Batch::new();
        batch.put(key, value);
        table.write(batch).expect("memory does not fail");
    }

    #[test]
    fn a_crash_takes_whole_batches_from_the_end_and_nothing_that_was_synced() {
        let mut random = Random::new(1);
        for _ in 0..50 {
            let table = CrashTable::default();
            put(&table, "a", "synced");
            table.sync().expect("memory does not fail");
            for value in ["1", "2", "3"] {
                put(&table, "a", value);
                put(&table, "b", value);
            }
            let lost = table.crash(&mut random, false);
            let get = |key: &str| table.get(key.as_bytes()).expect("memory does not fail");
            let left = 6 - lost;
            let expected = ["synced", "1", "2", "3"];
            assert_eq!(get("a").expect("never lost"), expected[left.div_ceil(2)]);
            assert_eq!(get("b").is_some(), left >= 2);
        }
    }

    #[test]
    fn a_key_twice_in_a_batch_goes_back_to_what_was_before() {
        let table = CrashTable::default();
        put(&table, "a", "0");
        table.sync().expect("memory does not fail");
        let mut batch = Batch::new();
        batch.put("a", "1");
        batch.delete("a");
        table.write(batch).expect("memory does not fail");
        let mut random = Random::new(1);
        while table.crash(&mut random, false) == 0 {
            let mut batch = Batch::new();
            batch.put("a", "1");
            batch.delete("a");
            table.write(batch).expect("memory does not fail");
        }
        assert_eq!(table.get(b"a").expect("memory does not fail").expect("never lost"), "0");
    }
}
