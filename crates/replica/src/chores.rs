//! The chores thread: what takes long and nobody waits for.
//!
//! It makes the table durable, so that the log can be compacted, and removes generations of a
//! group's state that no longer count, and what is left of destroyed groups.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use onefold_types::GroupId;

use crate::HostError;
use crate::core::{Core, lock};
use crate::inbox::Event;
use crate::state::{Generation, presence};

/// Keys that one batch removes.
const WIPE_STEP_KEYS: usize = 1024;

/// The chores that wait. Bounded by what causes them: one sync at a time, one removal for each
/// transfer of a snapshot, whose number is bounded, and one for each group that is destroyed.
#[derive(Default)]
pub(crate) struct Chores {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    is_sync_wanted: bool,
    wipes: VecDeque<(GroupId, Generation)>,
    reclaims: VecDeque<GroupId>,
    is_closed: bool,
}

enum Chore {
    Sync,
    Wipe(GroupId, Generation),
    Reclaim(GroupId),
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

    /// Removes what the table has of a destroyed group, to which nobody writes any more.
    pub(crate) fn reclaim(&self, group: GroupId) {
        lock(&self.waiting).reclaims.push_back(group);
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
            if let Some(group) = waiting.reclaims.pop_front() {
                return Some(Chore::Reclaim(group));
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Does chores until the host closes.
///
/// # Errors
/// When the table fails.
pub(crate) fn run(core: &Arc<Core>) -> Result<(), HostError> {
    while let Some(chore) = core.chores.next() {
        match chore {
            Chore::Sync => {
                // Read first: what is applied after this moment may not be in the sync.
                let cells = core.groups.all().into_iter();
                let applied: BTreeMap<_, _> =
                    cells.map(|cell| (cell.id, *cell.applied.borrow())).collect();
                core.table.sync()?;
                core.inbox.report(Event::TableSynced(applied));
            }
            Chore::Wipe(group, generation) => {
                let Some(cell) = core.group(group) else { continue };
                while !core.chores.is_closed()
                    && cell.generations.wipe(generation, WIPE_STEP_KEYS)?
                {}
            }
            Chore::Reclaim(group) => {
                while !core.chores.is_closed()
                    && presence::reclaim(&core.table, group, WIPE_STEP_KEYS)?
                {}
            }
        }
    }
    Ok(())
}
