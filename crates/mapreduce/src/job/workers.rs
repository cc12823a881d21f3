//! Which workers are alive.

use std::collections::BTreeMap;

use onefold_types::NodeId;

use super::names::WorkerId;

/// The workers that were heard of lately, one life for each node.
#[derive(Debug)]
pub(crate) struct Workers {
    timeout_ms: u64,
    alive: BTreeMap<NodeId, (WorkerId, u64)>,
}

/// What a sign of life changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// A life that is over, because the node's worker has begun another one.
    pub(crate) down: Option<WorkerId>,
    /// Whether the worker was not known to be alive.
    pub(crate) is_new: bool,
}

impl Workers {
    /// Nobody is alive yet. Who is silent for longer than `timeout_ms` is dead.
    pub(crate) fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, alive: BTreeMap::new() }
    }

    /// A worker gave a sign of life.
    pub(crate) fn heard(&mut self, worker: WorkerId, now: u64) -> Change {
        let before = self.alive.insert(worker.node, (worker, now));
        match before {
            Some((same, _)) if same == worker => Change::default(),
            Some((other, _)) => Change { down: Some(other), is_new: true },
            None => Change { down: None, is_new: true },
        }
    }

    /// Assumes that a worker is alive, unless another life of its node is known: it has the usual
    /// time to say so itself.
    pub(crate) fn expect(&mut self, worker: WorkerId, now: u64) -> bool {
        self.alive.entry(worker.node).or_insert((worker, now)).0 == worker
    }

    /// Workers that have been silent for too long; they are forgotten.
    pub(crate) fn tick(&mut self, now: u64) -> Vec<WorkerId> {
        let mut dead = Vec::new();
        self.alive.retain(|_, &mut (worker, heard)| {
            let is_alive = heard + self.timeout_ms > now;
            if !is_alive {
                dead.push(worker);
            }
            is_alive
        });
        dead
    }

    /// Workers alive.
    pub(crate) fn iter(&self) -> impl Iterator<Item = WorkerId> {
        self.alive.values().map(|&(worker, _)| worker)
    }

    /// How many are alive.
    pub(crate) fn len(&self) -> usize {
        self.alive.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(node: u64, incarnation: u64) -> WorkerId {
        WorkerId { node: NodeId(node), incarnation }
    }

    #[test]
    fn silence_and_a_new_life_end_the_old_one() {
        let mut workers = Workers::new(100);
        assert_eq!(workers.heard(worker(1, 7), 0), Change { down: None, is_new: true });
        assert_eq!(workers.heard(worker(1, 7), 50), Change::default());
        assert!(workers.expect(worker(2, 9), 50));
        assert!(!workers.expect(worker(1, 6), 50), "an older life is not expected to come back");
        let change = workers.heard(worker(1, 8), 60);
        assert_eq!(change, Change { down: Some(worker(1, 7)), is_new: true });
        assert_eq!(workers.tick(149), []);
        assert_eq!(workers.tick(150), [worker(2, 9)]);
        assert_eq!(workers.tick(160), [worker(1, 8)]);
        assert_eq!(workers.len(), 0);
    }
}
