//! Whether this replica's state is the one that the group has.
//!
//! Replicas send each other the [hash of their state](crate::state::StateHash) at the same indexes.
//! Each judges for itself: when a majority of the voters has the same hash at an index, and its own
//! is another, its state is wrong, whatever the reason: a bug, a program that applies differently,
//! memory that flipped a bit. It must not be served, and is rebuilt by a snapshot.
//!
//! What a majority has is right by definition. A wrong state that a leader spread by snapshots before
//! it was noticed is held by more than one; comparing often keeps that time short.
//!
//! Nobody accuses anybody: a replica that is told lies about others can be made to rebuild itself,
//! never to go on with a state that it knows to be wrong.
//!
//! Pure: no clock, no thread, no network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use onefold_raft::Membership;
use onefold_types::{LogIndex, NodeId};

use crate::state::{Checkpoint, StateHash};

/// Most checkpoints that are remembered of each member: how far apart two replicas may be and still
/// compare.
pub const CHECKPOINTS_KEPT: usize = 32;

/// What a comparison shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// This replica's state is wrong: a majority has another. Fence it, and rebuild it.
    Diverged {
        /// Where that was noticed; it began at most at the checkpoint before.
        index: LogIndex,
        /// The hash of this replica.
        own: StateHash,
        /// The hash of the majority.
        majority: StateHash,
    },
    /// Replicas differ, and no majority says yet which of them is right. Nothing is to be done but
    /// to tell operators. A majority may still be heard of.
    Disagreement {
        /// Where that was noticed.
        index: LogIndex,
        /// Who has what.
        hashes: BTreeMap<NodeId, StateHash>,
    },
    /// This replica agrees with a majority, and another one does not: that one rebuilds itself.
    OtherDiverged {
        /// Where that was noticed.
        index: LogIndex,
        /// The other one.
        node: NodeId,
    },
}

/// Compares the checkpoints of one group's replicas, on one of them.
#[derive(Clone, Debug)]
pub struct Judge {
    node: NodeId,
    /// Of each replica, this one included, oldest first.
    checkpoints: BTreeMap<NodeId, VecDeque<Checkpoint>>,
    /// The last index at which a disagreement was reported.
    disagreed: LogIndex,
    /// The last index at which each of the others was reported.
    others_diverged: BTreeMap<NodeId, LogIndex>,
    is_diverged: bool,
}

impl Judge {
    /// The judge on a node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            checkpoints: BTreeMap::new(),
            disagreed: LogIndex::ZERO,
            others_diverged: BTreeMap::new(),
            is_diverged: false,
        }
    }

    /// This replica made a checkpoint.
    pub fn own(&mut self, checkpoint: Checkpoint, membership: &Membership) -> Vec<Finding> {
        self.heard(self.node, checkpoint, membership)
    }

    /// A replica made a checkpoint. What it says is taken for true as long as it is a member; it is
    /// remembered for when this replica comes as far.
    pub fn heard(
        &mut self,
        from: NodeId,
        checkpoint: Checkpoint,
        membership: &Membership,
    ) -> Vec<Finding> {
        if from != self.node && !membership.contains(from) {
            return Vec::new();
        }
        self.checkpoints.retain(|&node, _| node == self.node || membership.contains(node));
        self.others_diverged.retain(|&node, _| membership.contains(node));
        let known = self.checkpoints.entry(from).or_default();
        // One that is behind what it said before was rebuilt: what it said then is void.
        while known.pop_back_if(|last| last.index >= checkpoint.index).is_some() {}
        known.push_back(checkpoint);
        if known.len() > CHECKPOINTS_KEPT {
            known.pop_front();
        }
        if self.is_diverged {
            return Vec::new();
        }
        self.compare(checkpoint.index, membership)
    }

    /// Whether this replica made no checkpoint here or later.
    pub fn is_news(&self, checkpoint: Checkpoint) -> bool {
        let last = self.checkpoints.get(&self.node).and_then(VecDeque::back);
        last.is_none_or(|last| last.index < checkpoint.index)
    }

    /// This replica's state was replaced by that of others: what it found itself is void.
    pub fn rebuilt(&mut self) {
        self.checkpoints.remove(&self.node);
        self.is_diverged = false;
    }

    /// Whether this replica's state is known to be wrong, and was not rebuilt since.
    pub fn is_diverged(&self) -> bool {
        self.is_diverged
    }

    fn compare(&mut self, index: LogIndex, membership: &Membership) -> Vec<Finding> {
        let hashes = self.hashes_at(index);
        let Some(&own) = hashes.get(&self.node) else { return Vec::new() };
        if hashes.values().all(|hash| *hash == own) {
            return Vec::new();
        }
        match majority(&hashes, membership) {
            Some(majority) if majority != own => {
                self.is_diverged = true;
                vec![Finding::Diverged { index, own, majority }]
            }
            Some(_) => self.others(index, own, &hashes),
            None if index > self.disagreed => {
                self.disagreed = index;
                vec![Finding::Disagreement { index, hashes }]
            }
            None => Vec::new(),
        }
    }

    fn hashes_at(&self, index: LogIndex) -> BTreeMap<NodeId, StateHash> {
        let at_index = |known: &VecDeque<Checkpoint>| {
            known.iter().rev().find(|known| known.index == index).map(|known| known.hash)
        };
        let hashes = self.checkpoints.iter();
        hashes.filter_map(|(&node, known)| Some((node, at_index(known)?))).collect()
    }

    fn others(
        &mut self,
        index: LogIndex,
        own: StateHash,
        hashes: &BTreeMap<NodeId, StateHash>,
    ) -> Vec<Finding> {
        let differ = hashes.iter().filter(|(_, hash)| **hash != own);
        let mut findings = Vec::new();
        for (&node, _) in differ {
            let reported = self.others_diverged.entry(node).or_default();
            if index > *reported {
                *reported = index;
                findings.push(Finding::OtherDiverged { index, node });
            }
        }
        findings
    }
}

/// The hash that a majority of the voters has; of both sets of voters, if there are two.
fn majority(hashes: &BTreeMap<NodeId, StateHash>, membership: &Membership) -> Option<StateHash> {
    let distinct: BTreeSet<_> = hashes.values().copied().collect();
    let has = |hash: StateHash, voters: &BTreeSet<NodeId>| {
        let count = voters.iter().filter(|voter| hashes.get(voter) == Some(&hash)).count();
        2 * count > voters.len()
    };
    distinct.into_iter().find(|&hash| {
        has(hash, &membership.voters) && (!membership.is_joint() || has(hash, &membership.outgoing))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, hash: u64) -> Checkpoint {
        Checkpoint { index: LogIndex(index), hash: StateHash(hash) }
    }

    fn voters(count: u64) -> Membership {
        Membership::of_voters((1..=count).map(NodeId))
    }

    fn judge() -> Judge {
        Judge::new(NodeId(1))
    }

    #[test]
    fn replicas_that_agree_find_nothing() {
        let (mut judge, members) = (judge(), voters(3));
        assert_eq!(judge.heard(NodeId(2), at(1024, 7), &members), []);
        assert_eq!(judge.own(at(1024, 7), &members), []);
        assert_eq!(judge.heard(NodeId(3), at(1024, 7), &members), []);
        assert!(!judge.is_diverged());
    }

    #[test]
    fn a_replica_that_a_majority_contradicts_is_diverged_once() {
        let (mut judge, members) = (judge(), voters(3));
        judge.heard(NodeId(2), at(1024, 7), &members);
        judge.heard(NodeId(3), at(1024, 7), &members);
        let (own, majority) = (StateHash(8), StateHash(7));
        let diverged = Finding::Diverged { index: LogIndex(1024), own, majority };
        assert_eq!(judge.own(at(1024, 8), &members), [diverged]);
        assert!(judge.is_diverged());
        judge.heard(NodeId(2), at(2048, 7), &members);
        judge.heard(NodeId(3), at(2048, 7), &members);
        assert_eq!(judge.own(at(2048, 8), &members), [], "it is known");
        judge.rebuilt();
        assert_eq!(judge.own(at(2048, 7), &members), []);
        assert!(!judge.is_diverged());
    }

    #[test]
    fn the_order_in_which_checkpoints_arrive_does_not_matter() {
        for order in [[1, 2, 3], [2, 3, 1], [3, 1, 2], [2, 1, 3]] {
            let (mut judge, members) = (judge(), voters(3));
            let mut found = Vec::new();
            for node in order {
                let hash = if node == 1 { 8 } else { 7 };
                found.extend(judge.heard(NodeId(node), at(1024, hash), &members));
            }
            assert!(matches!(found.last(), Some(Finding::Diverged { .. })), "{order:?}: {found:?}");
        }
    }

    #[test]
    fn without_a_majority_nobody_is_fenced_and_it_is_told_once() {
        let (mut judge, members) = (judge(), voters(2));
        judge.own(at(1024, 1), &members);
        let found = judge.heard(NodeId(2), at(1024, 2), &members);
        assert!(matches!(&found[..], [Finding::Disagreement { .. }]), "{found:?}");
        assert_eq!(judge.heard(NodeId(2), at(1024, 2), &members), []);
        let (mut judge, members) = (self::judge(), voters(3));
        judge.own(at(1024, 1), &members);
        judge.heard(NodeId(2), at(1024, 2), &members);
        judge.heard(NodeId(3), at(1024, 3), &members);
        assert!(!judge.is_diverged(), "three opinions");
    }

    #[test]
    fn one_of_the_majority_knows_who_is_not() {
        let (mut judge, members) = (judge(), voters(3));
        judge.own(at(1024, 7), &members);
        judge.heard(NodeId(2), at(1024, 7), &members);
        let other = Finding::OtherDiverged { index: LogIndex(1024), node: NodeId(3) };
        assert_eq!(judge.heard(NodeId(3), at(1024, 9), &members), [other]);
        assert!(!judge.is_diverged());
    }

    #[test]
    fn only_voters_count_and_learners_judge_themselves_by_them() {
        let mut members = Membership::of_voters([NodeId(2), NodeId(3)]);
        members.learners = BTreeSet::from([NodeId(1), NodeId(4), NodeId(5)]);
        let mut judge = judge();
        judge.own(at(1024, 8), &members);
        for learner in [4, 5] {
            judge.heard(NodeId(learner), at(1024, 7), &members);
        }
        judge.heard(NodeId(2), at(1024, 7), &members);
        assert!(!judge.is_diverged(), "one of two voters is no majority");
        judge.heard(NodeId(3), at(1024, 7), &members);
        assert!(judge.is_diverged());
    }

    #[test]
    fn while_members_change_both_sets_of_voters_must_agree() {
        let mut members = voters(3);
        members.outgoing = [1, 4, 5].map(NodeId).into();
        let mut judge = judge();
        judge.own(at(1024, 8), &members);
        judge.heard(NodeId(2), at(1024, 7), &members);
        judge.heard(NodeId(3), at(1024, 7), &members);
        assert!(!judge.is_diverged());
        judge.heard(NodeId(4), at(1024, 7), &members);
        judge.heard(NodeId(5), at(1024, 7), &members);
        assert!(judge.is_diverged());
    }

    #[test]
    fn what_strangers_say_is_not_heard_and_what_members_said_is_forgotten_with_them() {
        let (mut judge, members) = (judge(), voters(3));
        judge.own(at(1024, 8), &members);
        assert_eq!(judge.heard(NodeId(9), at(1024, 7), &members), []);
        judge.heard(NodeId(3), at(1024, 7), &members);
        judge.heard(NodeId(2), at(1024, 8), &voters(2));
        assert!(!judge.checkpoints.contains_key(&NodeId(3)));
    }

    #[test]
    fn a_replica_that_is_behind_compares_when_it_gets_there() {
        let (mut judge, members) = (judge(), voters(3));
        for number in 1..=CHECKPOINTS_KEPT as u64 {
            for node in [2, 3] {
                assert_eq!(judge.heard(NodeId(node), at(1024 * number, number), &members), []);
            }
        }
        assert_eq!(judge.own(at(1024, 1), &members), []);
        assert!(!judge.own(at(2048, 99), &members).is_empty());
    }

    #[test]
    fn memory_is_bounded_whatever_others_say() {
        let (mut judge, members) = (judge(), voters(3));
        for number in 0..10_000 {
            judge.heard(NodeId(number % 5), at(number, number), &members);
        }
        let kept: usize = judge.checkpoints.values().map(VecDeque::len).sum();
        assert!(kept <= 3 * CHECKPOINTS_KEPT, "{kept}");
    }
}
