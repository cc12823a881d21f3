//! The chores thread: what takes long and nobody waits for.
//!
//! It makes the table durable, so that the log can be compacted, and removes generations of a
//! group's state that no longer count.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use onefold_table::Table;
use onefold_types::GroupId;

use crate::HostError;
use crate::core::{Core, lock};
use crate::inbox::Event;
use crate::state::Generation;

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
                while !core.chores.is_closed()
                    && cell.generations.wipe(generation, WIPE_STEP_KEYS)?
                {}
            }
        }
    }
    Ok(())
}
