//! A table in memory, for tests and for running cores without a disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::{Batch, KeyRange, Operation, Order, Scan, Table, TableError, View};

type Pairs = BTreeMap<Bytes, Bytes>;

/// A table in memory. Snapshots share the pairs; a write while a snapshot is held copies the map
/// (not the values) once.
#[derive(Debug, Default)]
pub struct MemoryTable {
    pairs: RwLock<Arc<Pairs>>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    fn current(&self) -> Arc<Pairs> {
        self.pairs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl View for MemoryTable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        Ok(self.pairs.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        Box::new(MemoryScan { pairs: self.current(), range, order })
    }
}

impl Table for MemoryTable {
    fn snapshot(&self) -> Arc<dyn View> {
        Arc::new(MemorySnapshot { pairs: self.current() })
    }

    fn write(&self, batch: Batch) -> Result<(), TableError> {
        batch.check_sizes()?;
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        let pairs = Arc::make_mut(&mut *pairs);
        for operation in batch.into_operations() {
            match operation {
                Operation::Put { key, value } => pairs.insert(key, value),
                Operation::Delete { key } => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), TableError> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.current().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

struct MemorySnapshot {
    pairs: Arc<Pairs>,
}

impl View for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        Ok(self.pairs.get(key).cloned())
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        Box::new(MemoryScan { pairs: self.pairs.clone(), range, order })
    }
}

/// Owns its share of the pairs and looks each next one up, so that it borrows from nobody.
struct MemoryScan {
    pairs: Arc<Pairs>,
    range: KeyRange,
    order: Order,
}

impl Iterator for MemoryScan {
    type Item = Result<(Bytes, Bytes), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        let bounds = (self.range.start.as_ref(), self.range.end.as_ref());
        let mut rest = self.pairs.range::<Bytes, (Bound<&Bytes>, Bound<&Bytes>)>(bounds);
        let (key, value) = match self.order {
            Order::Ascending => rest.next()?,
            Order::Descending => rest.next_back()?,
        };
        match self.order {
            Order::Ascending => self.range.start = Bound::Excluded(key.clone()),
            Order::Descending => self.range.end = Bound::Excluded(key.clone()),
        }
        Some(Ok((key.clone(), value.clone())))
    }
}
