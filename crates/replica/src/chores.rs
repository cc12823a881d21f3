//! The chores thread: what takes long and nobody waits for.
//!
//! It makes the table durable, so that the log can be compacted, and removes generations of a
//! group's state that no longer count.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use onefold_table::{Batch, KeyRange, Order, Space, Table, TableError, View};
use onefold_types::GroupId;

use crate::HostError;
use crate::core::{Core, lock};
use crate::inbox::Event;
use crate::records::{GENERATIONS, Generation};

/// Keys that one batch removes.
const WIPE_STEP_KEYS: usize = 1024;

/// The chores that wait. Bounded by what causes them: one sync at a time, and one removal for each
/// transfer of a snapshot, whose number is bounded.
#[derive(Default)]
pub(crate) struct Chores {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    is_sync_wanted: bool,
    wipes: VecDeque<(GroupId, Generation)>,
    is_closed: bool,
}

enum Chore {
    Sync,
    Wipe(GroupId, Generation),
}

impl Chores {
    /// Makes the table durable; [`Event::TableSynced`] follows.
    pub(crate) fn sync(&self) {
        lock(&self.waiting).is_sync_wanted = true;
        self.arrived.notify_one();
    }

    /// Removes a generation that is not the state and that nobody writes to.
    pub(crate) fn wipe(&self, group: GroupId, generation: Generation) {
        lock(&self.waiting).wipes.push_back((group, generation));
        self.arrived.notify_one();
    }

    /// Ends the thread, without doing what waits: the next start finds what is left.
    pub(crate) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.arrived.notify_one();
    }

    fn is_closed(&self) -> bool {
        lock(&self.waiting).is_closed
    }

    fn next(&self) -> Option<Chore> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.is_closed {
                return None;
            }
            if std::mem::take(&mut waiting.is_sync_wanted) {
                return Some(Chore::Sync);
            }
            if let Some((group, generation)) = waiting.wipes.pop_front() {
                return Some(Chore::Wipe(group, generation));
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Does chores until the host closes.
///
/// # Errors
/// When the table fails.
pub(crate) fn run(core: &Arc<Core>, table: &Arc<dyn Table>) -> Result<(), HostError> {
    while let Some(chore) = core.chores.next() {
        match chore {
            Chore::Sync => {
                // Read first: what is applied after this moment may not be in the sync.
                let applied: BTreeMap<_, _> =
                    core.groups.iter().map(|(id, cell)| (*id, *cell.applied.borrow())).collect();
                table.sync()?;
                core.inbox.report(Event::TableSynced(applied));
            }
            Chore::Wipe(group, generation) => {
                let Some(cell) = core.group(group) else { continue };
                assert_ne!(
                    generation,
                    cell.current_generation(),
                    "group {group}: the state itself is never removed"
                );
                wipe(core, &cell.space, generation)?;
            }
        }
    }
    Ok(())
}

fn wipe(core: &Core, space: &Space, generation: Generation) -> Result<(), TableError> {
    let mut range = KeyRange::prefix(&generation.prefix());
    while !core.chores.is_closed() {
        let mut batch = Batch::new();
        let mut last = None;
        for pair in space.scan(range.clone(), Order::Ascending).take(WIPE_STEP_KEYS) {
            let (key, _) = pair?;
            batch.delete(key.clone());
            last = Some(key);
        }
        let Some(last) = last else { return Ok(()) };
        space.write(batch)?;
        range = range.rest_after(last);
    }
    Ok(())
}

/// The generations that a group has anything of.
///
/// # Errors
/// When the table can't be read.
pub(crate) fn generations(space: &Space) -> Result<Vec<Generation>, TableError> {
    let mut found = Vec::new();
    let mut range = KeyRange::prefix(&[GENERATIONS]);
    loop {
        let first = space.scan(range.clone(), Order::Ascending).next().transpose()?;
        let Some((key, _)) = first else { return Ok(found) };
        let Some([_, a, b, c, d]) = key.first_chunk::<5>() else {
            // Not a key of any generation.
            range = range.rest_after(key);
            continue;
        };
        let generation = Generation(u32::from_be_bytes([*a, *b, *c, *d]));
        found.push(generation);
        range.start = match KeyRange::prefix(&generation.prefix()).end {
            Bound::Excluded(next) => Bound::Included(next),
            Bound::Included(_) | Bound::Unbounded => return Ok(found),
        };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use onefold_table::MemoryTable;

    use super::*;

    #[test]
    fn every_generation_with_a_key_is_found_once() {
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let space = Space::new(table.clone(), GroupId::KV);
        let next = Space::new(table, GroupId(GroupId::KV.get() + 1));
        let numbers = [0, 1, 255, 256, 1 << 24, u32::MAX];
        let mut batch = Batch::new();
        for number in numbers {
            for key in [&b"h"[..], b"m", b"mm"] {
                batch.put([&Generation(number).prefix()[..], key].concat(), Bytes::new());
            }
        }
        batch.put(crate::records::ROOT, Bytes::new());
        space.write(batch.clone()).expect("memory does not fail");
        next.write(batch).expect("memory does not fail");
        let found = generations(&space).expect("memory does not fail");
        assert_eq!(found, numbers.map(Generation));
    }
}
