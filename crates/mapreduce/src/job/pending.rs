//! Tasks that wait for a worker.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::NodeId;

/// Waiting tasks of one kind, by number and by the nodes that hold their input.
#[derive(Debug, Default)]
pub(super) struct Pending {
    all: BTreeSet<u32>,
    by_host: BTreeMap<NodeId, BTreeSet<u32>>,
    /// Tasks that wait some time before they may run again: (not before, task).
    delayed: BTreeSet<(u64, u32)>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.delayed.is_empty()
    }

    pub(super) fn insert(&mut self, task: u32, hosts: &[NodeId]) {
        self.all.insert(task);
        for &host in hosts {
            self.by_host.entry(host).or_default().insert(task);
        }
    }

    /// Has a task wait until [`due`](Self::due) gives it back.
    pub(super) fn delay(&mut self, task: u32, not_before: u64) {
        self.delayed.insert((not_before, task));
    }

    /// A delayed task whose time has come.
    pub(super) fn due(&mut self, now: u64) -> Option<u32> {
        let &(not_before, task) = self.delayed.first()?;
        (not_before <= now).then(|| {
            self.delayed.remove(&(not_before, task));
            task
        })
    }

    pub(super) fn remove(&mut self, task: u32, hosts: &[NodeId]) {
        self.all.remove(&task);
        self.delayed.retain(|&(_, delayed)| delayed != task);
        for host in hosts {
            if let Some(tasks) = self.by_host.get_mut(host) {
                tasks.remove(&task);
            }
        }
    }

    /// The best task for a node among those that may run there: the first whose input lies there,
    /// else the last of all, which is the smallest and the least likely to be wanted elsewhere.
    pub(super) fn choose(&self, node: NodeId, may_run: impl Fn(u32) -> bool) -> Option<u32> {
        let local = self
            .by_host
            .get(&node)
            .and_then(|tasks| tasks.iter().copied().find(|&task| may_run(task)));
        local.or_else(|| self.all.iter().rev().copied().find(|&task| may_run(task)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_tasks_come_first_and_foreign_ones_from_the_back() {
        let mut pending = Pending::default();
        for task in 0..4 {
            pending.insert(task, &[NodeId(u64::from(task % 2))]);
        }
        let choose = |pending: &Pending, node| pending.choose(NodeId(node), |_| true);
        assert_eq!(choose(&pending, 0), Some(0));
        assert_eq!(choose(&pending, 1), Some(1));
        assert_eq!(choose(&pending, 7), Some(3));
        assert_eq!(pending.choose(NodeId(0), |task| task != 0), Some(2));
        pending.remove(0, &[NodeId(0)]);
        pending.remove(2, &[NodeId(0)]);
        assert_eq!(choose(&pending, 0), Some(3));
    }

    #[test]
    fn delayed_tasks_come_back_in_time() {
        let mut pending = Pending::default();
        pending.delay(1, 20);
        pending.delay(2, 10);
        assert!(!pending.is_empty());
        assert_eq!(pending.due(9), None);
        assert_eq!(pending.due(20), Some(2));
        assert_eq!(pending.due(20), Some(1));
        assert!(pending.is_empty());
    }
}
