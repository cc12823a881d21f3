//! Which node reaches which, and how fast.

use onefold_types::NodeId;

use super::clock::Micros;

/// The links between nodes, one for each direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// By sender and receiver. Nodes are few, and their numbers small.
    cut: Vec<Vec<bool>>,
    /// Nothing arrives over a clogged link before this time; then all of it does.
    clogged_until: Vec<Vec<Micros>>,
}

fn at<T: Clone + Default>(links: &mut Vec<Vec<T>>, from: NodeId, to: NodeId) -> &mut T {
    let (from, to) = (from.0 as usize, to.0 as usize);
    if links.len() <= from {
        links.resize(from + 1, Vec::new());
    }
    let links = &mut links[from];
    if links.len() <= to {
        links.resize(to + 1, T::default());
    }
    &mut links[to]
}

impl Network {
    /// Whether anything gets through in this direction.
    pub(super) fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.cut.get(from.0 as usize).and_then(|links| links.get(to.0 as usize));
        !cut.copied().unwrap_or(false)
    }

    /// When a packet that is due at `arrival` gets through.
    pub(super) fn arrival(&self, from: NodeId, to: NodeId, arrival: Micros) -> Micros {
        let links = self.clogged_until.get(from.0 as usize);
        let until = links.and_then(|links| links.get(to.0 as usize)).copied().unwrap_or(0);
        arrival.max(until)
    }

    /// Cuts one direction.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        *at(&mut self.cut, from, to) = true;
    }

    /// Mends one direction.
    pub(super) fn mend(&mut self, from: NodeId, to: NodeId) {
        *at(&mut self.cut, from, to) = false;
    }

    /// Cuts both directions between nodes of different sides.
    pub(super) fn split(&mut self, left: &[NodeId], right: &[NodeId]) {
        for &a in left {
            for &b in right {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Holds back everything in one direction until a time.
    pub(super) fn clog(&mut self, from: NodeId, to: NodeId, until: Micros) {
        *at(&mut self.clogged_until, from, to) = until;
    }

    /// Mends everything.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.clogged_until.clear();
    }
}
