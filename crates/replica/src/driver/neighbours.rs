//! Which nodes share a group with this one.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::NodeId;

/// The other members of all groups, and in how many groups each is.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    groups: BTreeMap<NodeId, usize>,
}

impl Neighbours {
    /// The members of one group became others. True when the neighbours did.
    pub(super) fn replace(
        &mut self,
        own: NodeId,
        before: &BTreeSet<NodeId>,
        now: &BTreeSet<NodeId>,
    ) -> bool {
        let mut is_changed = false;
        for node in now.difference(before).filter(|node| **node != own) {
            let groups = self.groups.entry(*node).or_default();
            *groups += 1;
            is_changed |= *groups == 1;
        }
        for node in before.difference(now).filter(|node| **node != own) {
            let groups = self.groups.get_mut(node).expect("it was counted when it became a member");
            *groups -= 1;
            if *groups == 0 {
                self.groups.remove(node);
                is_changed = true;
            }
        }
        is_changed
    }

    /// All of them.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        self.groups.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_neighbour_while_it_shares_one_group() {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let mut neighbours = Neighbours::default();
        let own = NodeId(1);
        assert!(neighbours.replace(own, &set(&[]), &set(&[1, 2, 3])));
        assert!(!neighbours.replace(own, &set(&[]), &set(&[1, 2])));
        assert_eq!(neighbours.nodes(), set(&[2, 3]));
        assert!(!neighbours.replace(own, &set(&[1, 2, 3]), &set(&[1, 3])));
        assert!(neighbours.replace(own, &set(&[1, 2]), &set(&[1])));
        assert_eq!(neighbours.nodes(), set(&[3]));
    }
}
