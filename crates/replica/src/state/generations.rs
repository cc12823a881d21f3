//! Which generation of a group's state counts, and which are being made.

use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use onefold_raft::{Membership, SnapshotMark};
use onefold_table::{Batch, KeyRange, Order, Space, SpaceView, TableError, View};
use onefold_types::GroupId;

pub use super::records::Generation;
use super::records::{
    GENERATIONS, MACHINE, PROGRESS, Progress, ROOT, Root, encode, generation_space, progress_key,
    read_progress, read_root, read_state,
};
use super::{Export, Staging};
use crate::HostError;

/// The generations of one group's state in the table. Shared by whoever applies to the state, reads
/// it, and stages snapshots beside it.
pub struct Generations {
    group: GroupId,
    space: Space,
    /// Changed only under its lock, and written to the table before it is changed.
    root: Mutex<Root>,
    /// The state machine's part of the current generation.
    machine: RwLock<Space>,
}

impl Generations {
    /// What the table holds of a group in its space. A group that the table does not know is formed
    /// with these members; sync the table before anybody is told of it.
    ///
    /// # Errors
    /// When the table fails or holds what this program does not understand.
    pub fn open(group: GroupId, space: Space, formed: &Membership) -> Result<Self, HostError> {
        let root = match read_root(group, &space)? {
            Some(root) => root,
            None => {
                let root = Root { formed: formed.clone(), ..Root::default() };
                let mut batch = Batch::new();
                batch.put(ROOT, encode(&root));
                space.write(batch)?;
                root
            }
        };
        let machine = generation_space(&space, root.current).inner(MACHINE);
        Ok(Self { group, space, root: Mutex::new(root), machine: RwLock::new(machine) })
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The group's whole space in the table.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The members with which the group was formed.
    pub fn formed(&self) -> Membership {
        self.root().formed.clone()
    }

    /// The last snapshot that was installed, and where the log goes on for that reason.
    pub fn installed(&self) -> Option<SnapshotMark> {
        self.root().installed.clone()
    }

    /// The generation that is the state.
    pub fn current(&self) -> Generation {
        self.root().current
    }

    /// What the state machine sees of the state, as it is now.
    pub fn view(&self) -> SpaceView {
        self.machine.read().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    /// The whole state as it is now, to be sent to another replica.
    ///
    /// # Errors
    /// When the table can't be read, or holds what this program does not understand.
    pub fn export(&self) -> Result<Export, HostError> {
        // Root, state and data are of one moment.
        let space = self.space.snapshot();
        let root = read_root(self.group, &space)?.unwrap_or_default();
        let view = space.inner(&root.current.prefix());
        let mark = read_state(self.group, &view)?.mark();
        Ok(Export::new(view, mark))
    }

    /// Begins to stage a snapshot that covers `mark`, in a generation of its own. `transfer` names
    /// the export that its pieces come from.
    ///
    /// # Errors
    /// When the table fails.
    pub fn stage(&self, mark: SnapshotMark, transfer: u64) -> Result<Staging, HostError> {
        let generation = self.fresh()?;
        let progress = Progress::new(mark, transfer);
        Ok(Staging::new(self.group, &self.space, generation, progress))
    }

    /// The newest snapshot whose staging a crash interrupted, if enough of it is there to go on, or
    /// all of it to be installed. At most one staging may go on at a time.
    ///
    /// # Errors
    /// When the table can't be read, or holds what this program does not understand.
    pub fn interrupted(&self) -> Result<Option<Staging>, HostError> {
        let range = KeyRange::prefix(&[PROGRESS]);
        let Some(newest) = self.space.scan(range, Order::Descending).next().transpose()? else {
            return Ok(None);
        };
        let Some(generation) = Generation::of_key(&newest.0) else { return Ok(None) };
        let progress = read_progress(self.group, &newest.1)?;
        Ok(Some(Staging::new(self.group, &self.space, generation, progress)))
    }

    /// The generations that the table has anything of, the current one included.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn all(&self) -> Result<Vec<Generation>, TableError> {
        let mut found = Vec::new();
        let mut range = KeyRange::prefix(&[GENERATIONS]);
        loop {
            let first = self.space.scan(range.clone(), Order::Ascending).next().transpose()?;
            let Some((key, _)) = first else { return Ok(found) };
            let Some(generation) = Generation::of_key(&key) else {
                // Not a key of any generation.
                range = range.rest_after(key);
                continue;
            };
            found.push(generation);
            range.start = match KeyRange::prefix(&generation.prefix()).end {
                Bound::Excluded(next) => Bound::Included(next),
                Bound::Included(_) | Bound::Unbounded => return Ok(found),
            };
        }
    }

    /// Removes up to `keys_max` keys of a generation that nobody writes to, and says whether any
    /// are left.
    ///
    /// # Errors
    /// When the table fails.
    ///
    /// # Panics
    /// When the generation is the state.
    pub fn wipe(&self, generation: Generation, keys_max: usize) -> Result<bool, TableError> {
        let group = self.group;
        assert_ne!(generation, self.current(), "group {group}: the state itself is never removed");
        let mut batch = Batch::new();
        // With the first keys that go: what is left must never pass for a transfer to resume.
        batch.delete(progress_key(generation));
        let range = KeyRange::prefix(&generation.prefix());
        let mut count = 0;
        for pair in self.space.scan(range, Order::Ascending).take(keys_max) {
            batch.delete(pair?.0);
            count += 1;
        }
        self.space.write(batch)?;
        Ok(count == keys_max)
    }

    /// Makes a staged generation the state, durably. Gives the one that it replaces.
    pub(super) fn install(
        &self,
        generation: Generation,
        mark: &SnapshotMark,
    ) -> Result<Generation, TableError> {
        self.switch(generation, |root| root.installed = Some(mark.clone()))
    }

    /// Makes a new, empty generation the state, durably. Gives it and the one that it replaces.
    pub(super) fn discard(&self) -> Result<Generation, TableError> {
        let generation = self.fresh()?;
        self.switch(generation, |_| {})
    }

    fn switch(
        &self,
        generation: Generation,
        change: impl FnOnce(&mut Root),
    ) -> Result<Generation, TableError> {
        let mut root = self.root();
        let replaced = root.current;
        let mut changed = root.clone();
        changed.current = generation;
        change(&mut changed);
        let mut batch = Batch::new();
        batch.put(ROOT, encode(&changed));
        batch.delete(progress_key(generation));
        self.space.write(batch)?;
        self.space.table().sync()?;
        *root = changed;
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        *machine = generation_space(&self.space, generation).inner(MACHINE);
        Ok(replaced)
    }

    /// A number that no generation had before.
    fn fresh(&self) -> Result<Generation, TableError> {
        let mut root = self.root();
        let mut changed = root.clone();
        changed.newest = root.newest.next();
        let mut batch = Batch::new();
        batch.put(ROOT, encode(&changed));
        self.space.write(batch)?;
        *root = changed;
        Ok(root.newest)
    }

    /// A thread that panicked with the lock has stopped the host already.
    fn root(&self) -> MutexGuard<'_, Root> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use onefold_table::{MemoryTable, Table};

    use super::*;

    fn generations(table: Arc<dyn Table>, group: GroupId) -> Generations {
        Generations::open(group, Space::new(table, group), &Membership::default())
            .expect("memory does not fail")
    }

    #[test]
    fn every_generation_with_a_key_is_found_once() {
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let own = generations(table.clone(), GroupId::KV);
        let next = generations(table, GroupId(GroupId::KV.get() + 1));
        let numbers = [0, 1, 255, 256, 1 << 24, u32::MAX];
        let mut batch = Batch::new();
        for number in numbers {
            for key in [&b"h"[..], b"m", b"mm"] {
                batch.put([&Generation(number).prefix()[..], key].concat(), Bytes::new());
            }
        }
        own.space.write(batch.clone()).expect("memory does not fail");
        next.space.write(batch).expect("memory does not fail");
        assert_eq!(own.all().expect("memory does not fail"), numbers.map(Generation));
    }

    #[test]
    fn a_generation_is_wiped_in_steps_and_its_progress_with_the_first() {
        let own = generations(Arc::new(MemoryTable::new()), GroupId::KV);
        let mark = SnapshotMark::initial(Membership::default());
        let staging = own.stage(mark, 1).expect("memory does not fail");
        let mut batch = Batch::new();
        for key in 0..10_u8 {
            batch.put([&staging.generation().prefix()[..], &[b'm', key]].concat(), Bytes::new());
        }
        batch.put(progress_key(staging.generation()), staging.record());
        own.space.write(batch).expect("memory does not fail");
        assert!(own.interrupted().expect("memory does not fail").is_some());
        assert!(own.wipe(staging.generation(), 4).expect("memory does not fail"));
        assert!(own.interrupted().expect("memory does not fail").is_none());
        assert!(own.wipe(staging.generation(), 4).expect("memory does not fail"));
        assert!(!own.wipe(staging.generation(), 4).expect("memory does not fail"));
        assert_eq!(own.all().expect("memory does not fail"), []);
    }
}
