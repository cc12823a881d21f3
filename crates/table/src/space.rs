//! The key space of one Raft group within the node's table.

use std::sync::Arc;

use bytes::Bytes;
use onefold_types::GroupId;

use crate::range::joined;
use crate::{Batch, KeyRange, Order, Scan, Table, TableError, View};

/// A part of a table whose keys all carry the same prefix, which readers never see.
#[derive(Clone)]
pub struct Space {
    table: Arc<dyn Table>,
    prefix: Bytes,
}

impl Space {
    /// The space of a group: its prefix is the group's number, eight bytes big-endian.
    pub fn new(table: Arc<dyn Table>, group: GroupId) -> Self {
        Self { table, prefix: Bytes::copy_from_slice(&group.get().to_be_bytes()) }
    }

    /// A space within this one.
    #[must_use]
    pub fn inner(&self, prefix: &[u8]) -> Self {
        Self { table: self.table.clone(), prefix: joined(&self.prefix, prefix) }
    }

    /// What stands in front of each key in the table.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The table that holds the space.
    pub fn table(&self) -> &Arc<dyn Table> {
        &self.table
    }

    /// The state of the space as it is now.
    pub fn snapshot(&self) -> SpaceView {
        SpaceView { view: self.table.snapshot(), prefix: self.prefix.clone() }
    }

    /// Applies a batch whose keys are those of the space, without the prefix. Atomic, not synced.
    ///
    /// # Errors
    /// Those of [`Table::write`].
    pub fn write(&self, batch: Batch) -> Result<(), TableError> {
        self.table.write(batch.under(&self.prefix))
    }
}

impl View for Space {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        self.table.get(&joined(&self.prefix, key))
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        scan_under(&*self.table, &self.prefix, range, order)
    }
}

/// A snapshot of a [`Space`]. Cheap to clone; it holds old data in the table for as long as it
/// lives.
#[derive(Clone)]
pub struct SpaceView {
    view: Arc<dyn View>,
    prefix: Bytes,
}

impl SpaceView {
    /// The view of a space within this one, of the same state.
    #[must_use]
    pub fn inner(&self, prefix: &[u8]) -> Self {
        Self { view: self.view.clone(), prefix: joined(&self.prefix, prefix) }
    }
}

impl View for SpaceView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        self.view.get(&joined(&self.prefix, key))
    }

    fn scan(&self, range: KeyRange, order: Order) -> Scan<'_> {
        scan_under(&*self.view, &self.prefix, range, order)
    }
}

fn scan_under<'a>(
    view: &'a (impl View + ?Sized),
    prefix: &Bytes,
    range: KeyRange,
    order: Order,
) -> Scan<'a> {
    if range.is_empty() {
        return Box::new(std::iter::empty());
    }
    let prefix_bytes = prefix.len();
    let strip = move |(key, value): (Bytes, Bytes)| (key.slice(prefix_bytes..), value);
    Box::new(view.scan(range.under(prefix), order).map(move |pair| pair.map(strip)))
}
