//! Changes of the group's members, asked for by clients.

use std::collections::BTreeSet;

use onefold_raft::{Input, MembershipChange, Stepped};
use onefold_types::NodeId;

use super::{checker::Checked, coverage::Branch, world::World};

impl World {
    /// Asks a node for any change of the members.
    pub(super) fn change_members(&mut self, id: NodeId) -> Checked {
        let change = self.draw_change();
        self.tell(|| format!("n{id} is asked for {change:?}"));
        if let Some(Stepped::Proposed { .. }) = self.step(id, Input::ChangeMembership(change))? {
            self.coverage.hit(Branch::ChangeBegun);
        }
        Ok(())
    }

    fn draw_change(&mut self) -> MembershipChange {
        let mut change = MembershipChange::default();
        let may_leave = self.plan.state_losses == 0;
        let rate = self.random.pick(&[150, 300, 600]);
        for id in self.ids() {
            if self.random.chance(rate) {
                let set: &mut BTreeSet<NodeId> = match self.random.within(0..=2) {
                    0 | 1 if !may_leave => &mut change.join,
                    0 => &mut change.remove,
                    1 => &mut change.learn,
                    _ => &mut change.join,
                };
                set.insert(id);
            }
        }
        change
    }
}
