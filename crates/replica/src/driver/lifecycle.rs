//! Groups that come to the consensus thread, and groups that go.

use std::collections::BTreeSet;

use onefold_log::Write;
use onefold_raft::Input;
use onefold_types::GroupId;

use super::Driver;
use super::group::Driven;
use crate::HostError;
use crate::apply::Work;
use crate::start::Restored;

impl Driver {
    /// Takes part in a group from now on.
    pub(super) fn take_up(&mut self, restored: Restored) -> Result<(), HostError> {
        let applier = self.freest_applier();
        let (seat, replica) = restored.divide(applier);
        let group = seat.cell.id;
        // An apply thread that is gone has reported why.
        let _ = self.appliers[applier].send(Work::Host(Box::new(replica)));
        let driven = Driven::new(seat);
        self.retained_bytes += driven.retained_bytes();
        self.groups.insert(group, driven);
        self.active.insert(group);
        self.begin(group)
    }

    /// The apply thread that has the fewest groups.
    fn freest_applier(&self) -> usize {
        let mut groups = vec![0_usize; self.appliers.len()];
        for driven in self.groups.values() {
            groups[driven.applier] += 1;
        }
        let freest = groups.iter().enumerate().min_by_key(|(_, count)| **count);
        freest.map_or(0, |(place, _)| place)
    }

    /// A group with one voter needs no timeout to elect it.
    pub(super) fn begin(&mut self, group: GroupId) -> Result<(), HostError> {
        let node = self.core.config.node;
        let driven = self.at(group);
        driven.publish();
        driven.publish_membership();
        let members = driven.raft.membership();
        if members.members() == BTreeSet::from([node]) && members.is_voter(node) {
            driven.step(Input::Campaign)?;
        }
        Ok(())
    }

    /// Takes no part in a group any more, and forgets what it logged. Whatever comes of it later is
    /// dropped.
    pub(super) fn abandon(&mut self, group: GroupId) -> Result<(), HostError> {
        let Some(mut driven) = self.groups.remove(&group) else { return Ok(()) };
        self.active.remove(&group);
        self.stepped.remove(&group);
        self.retained_bytes -= driven.retained_bytes();
        if driven.is_leading {
            self.core.counters.groups_led.subtract(1);
        }
        driven.end();
        let own = self.core.config.node;
        if self.neighbours.replace(own, &driven.members, &BTreeSet::new()) {
            self.liveness.watch(&self.neighbours.nodes());
        }
        self.writes.push(Write::RemoveGroup { group });
        let _ = self.appliers[driven.applier].send(Work::Abandon { group });
        Ok(())
    }
}
