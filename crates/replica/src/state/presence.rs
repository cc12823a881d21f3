//! Which groups a table knows: those that are there, and those that were destroyed.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use onefold_table::{Batch, KeyRange, Order, Space, Table, TableError, View};
use onefold_types::GroupId;
use serde::{Deserialize, Serialize};

use super::records::{ROOT, TOMBSTONE, decode, encode};
use crate::HostError;

/// The groups that a table knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGroups {
    /// Those that are there.
    pub present: BTreeSet<GroupId>,
    /// Those that were destroyed, and never come back.
    pub destroyed: BTreeSet<GroupId>,
}

/// What stands where a destroyed group was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tombstone {
    group: GroupId,
}

/// The groups that a table knows. Costs a few reads for each.
///
/// # Errors
/// When the table can't be read, or holds what this program does not understand.
pub fn stored_groups(table: &Arc<dyn Table>) -> Result<StoredGroups, HostError> {
    let mut found = StoredGroups::default();
    let mut range = KeyRange::all();
    loop {
        let first = table.scan(range.clone(), Order::Ascending).next().transpose()?;
        let Some((key, _)) = first else { return Ok(found) };
        let Some(number) = key.first_chunk::<8>() else {
            // Too short to be a key of any group.
            range = range.rest_after(key);
            continue;
        };
        let group = GroupId(u64::from_be_bytes(*number));
        let space = Space::new(table.clone(), group);
        if is_destroyed(group, &space)? {
            found.destroyed.insert(group);
        } else if space.get(ROOT)?.is_some() {
            found.present.insert(group);
        }
        let Some(next) = group.get().checked_add(1) else { return Ok(found) };
        range.start = Bound::Included(Bytes::copy_from_slice(&next.to_be_bytes()));
    }
}

fn is_destroyed(group: GroupId, space: &Space) -> Result<bool, HostError> {
    let Some(record) = space.get(TOMBSTONE)? else { return Ok(false) };
    let tombstone: Tombstone = decode(group, "a tombstone in the table", &record)?;
    if tombstone.group == group {
        return Ok(true);
    }
    let reason = format!("it is that of group {}", tombstone.group);
    Err(HostError::Undecodable { group, what: "a tombstone in the table", reason })
}

/// Destroys a group, durably: it is never there again. [`reclaim`] what it had.
///
/// # Errors
/// When the table fails.
pub(crate) fn bury(table: &Arc<dyn Table>, group: GroupId) -> Result<(), HostError> {
    let mut batch = Batch::new();
    batch.put(TOMBSTONE, encode(&Tombstone { group }));
    Space::new(table.clone(), group).write(batch)?;
    Ok(table.sync()?)
}

/// Removes up to `keys_max` keys of a destroyed group to which nobody writes any more, and says
/// whether any may be left.
///
/// # Errors
/// When the table fails.
pub(crate) fn reclaim(
    table: &Arc<dyn Table>,
    group: GroupId,
    keys_max: usize,
) -> Result<bool, TableError> {
    let space = Space::new(table.clone(), group);
    let mut batch = Batch::new();
    let mut count = 0;
    for pair in space.scan(KeyRange::all(), Order::Ascending).take(keys_max) {
        let (key, _) = pair?;
        count += 1;
        if key != TOMBSTONE {
            batch.delete(key);
        }
    }
    if count <= 1 {
        // Nothing but the tombstone.
        return Ok(false);
    }
    space.write(batch)?;
    Ok(count == keys_max)
}

#[cfg(test)]
mod tests {
    use onefold_raft::Membership;
    use onefold_table::MemoryTable;
    use onefold_types::NodeId;

    use super::*;
    use crate::state::Generations;

    fn open(table: &Arc<dyn Table>, group: GroupId) -> Generations {
        let formed = Membership::of_voters([NodeId(1)]);
        let space = Space::new(table.clone(), group);
        Generations::open(group, space, &formed).expect("memory does not fail")
    }

    #[test]
    fn a_table_tells_its_groups_and_those_that_are_gone() {
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let groups = [1, 7, u64::MAX].map(GroupId);
        for group in groups {
            open(&table, group);
        }
        let found = stored_groups(&table).expect("memory does not fail");
        assert_eq!(found.present, BTreeSet::from(groups));
        bury(&table, GroupId(7)).expect("memory does not fail");
        bury(&table, GroupId(7)).expect("twice is as good as once");
        let found = stored_groups(&table).expect("memory does not fail");
        assert_eq!(found.present, [1, u64::MAX].map(GroupId).into());
        assert_eq!(found.destroyed, [GroupId(7)].into());
    }

    #[test]
    fn only_the_tombstone_of_a_destroyed_group_stays_and_its_neighbours_are_untouched() {
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new());
        for group in [6, 7, 8].map(GroupId) {
            open(&table, group);
            let mut batch = Batch::new();
            for key in 0..100_u8 {
                batch.put(vec![1, 0, 0, 0, 0, key], vec![key]);
            }
            Space::new(table.clone(), group).write(batch).expect("memory does not fail");
        }
        let count = |group| {
            let space = Space::new(table.clone(), GroupId(group));
            space.scan(KeyRange::all(), Order::Ascending).count()
        };
        bury(&table, GroupId(7)).expect("memory does not fail");
        let mut steps = 0;
        while reclaim(&table, GroupId(7), 16).expect("memory does not fail") {
            steps += 1;
        }
        assert!(steps > 1, "a step is of a bounded size");
        assert_eq!([6, 7, 8].map(count), [101, 1, 101]);
        let found = stored_groups(&table).expect("memory does not fail");
        assert_eq!(found.destroyed, [GroupId(7)].into());
    }

    #[test]
    fn a_damaged_tombstone_is_an_error_and_not_a_group() {
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new());
        let mut batch = Batch::new();
        batch.put(TOMBSTONE, encode(&Tombstone { group: GroupId(9) }));
        Space::new(table.clone(), GroupId(7)).write(batch).expect("memory does not fail");
        stored_groups(&table).expect_err("it is that of another group");
    }
}
