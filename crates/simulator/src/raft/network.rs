//! Which node reaches which.

use std::collections::BTreeSet;

use onefold_types::NodeId;

/// The cut directions between nodes. Loss, delay and duplication are drawn for each message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    /// Whether anything gets through in this direction.
    pub(crate) fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Cuts both directions between nodes of different sides.
    pub(crate) fn split(&mut self, left: &[NodeId], right: &[NodeId]) {
        for &a in left {
            for &b in right {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Mends everything.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }
}
