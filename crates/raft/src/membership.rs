//! Who belongs to a group, and how one configuration leads to another (§6; dissertation, chapter 4).

use std::collections::BTreeSet;

use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::raft::StepError;

/// The members of a group. While it changes its voters, a group passes through a joint
/// configuration, in which every decision needs a majority of both sets of voters (§6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// Nodes whose votes and acknowledgements count: C_new while the configuration is joint.
    /// Empty only on a server that was not yet told who is in its group.
    pub voters: BTreeSet<NodeId>,
    /// The voters that the group comes from, C_old, while the configuration is joint; else empty.
    pub outgoing: BTreeSet<NodeId>,
    /// Nodes that receive the log and count for nothing (dissertation, section 4.2.1). May overlap
    /// `outgoing`: a voter that is being demoted.
    pub learners: BTreeSet<NodeId>,
    /// The learners that the leader makes voters by itself once they have caught up.
    pub joining: BTreeSet<NodeId>,
}

impl Membership {
    /// A group of these voters, without learners.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Whether the group is between two sets of voters.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether nobody belongs to it: the server was not yet told who does.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Every member once, in the order of their ids.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Whether a node receives the log.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether a node's vote counts, in either set of voters.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether a group can have these members: a leader makes no others.
    pub(crate) fn is_consistent(&self) -> bool {
        !self.voters.is_empty()
            && self.learners.is_disjoint(&self.voters)
            && self.joining.is_subset(&self.learners)
    }

    /// The configuration in which a change is finished, starting from one that is not joint.
    pub(crate) fn changed_by(&self, change: &MembershipChange) -> Result<Self, StepError> {
        let MembershipChange { join, learn, remove } = change;
        if !(join.is_disjoint(learn) && join.is_disjoint(remove) && learn.is_disjoint(remove)) {
            let what = "a membership change names a node twice";
            return Err(StepError::Contract { what });
        }
        let new = join.difference(&self.voters).copied();
        let mut changed = self.clone();
        changed.learners.extend(new.clone().chain(learn.iter().copied()));
        changed.joining.extend(new);
        changed.voters.retain(|id| !learn.contains(id) && !remove.contains(id));
        changed.learners.retain(|id| !remove.contains(id));
        changed.joining.retain(|id| !learn.contains(id) && !remove.contains(id));
        if changed.voters.is_empty() { Err(StepError::NoVotersLeft) } else { Ok(changed) }
    }

    /// The configuration in which these learners are voters.
    pub(crate) fn promoting(&self, learners: &BTreeSet<NodeId>) -> Self {
        let mut promoted = self.clone();
        promoted.voters.extend(learners);
        promoted.learners.retain(|id| !learners.contains(id));
        promoted.joining.retain(|id| !learners.contains(id));
        promoted
    }

    /// The entry with which the group starts to move to `target`: a joint configuration if the
    /// voters differ (C_old,new in §6), else the target itself.
    pub(crate) fn towards(&self, target: Self) -> Self {
        assert!(!self.is_joint(), "one change of voters ends before the next begins");
        let outgoing =
            if target.voters == self.voters { BTreeSet::new() } else { self.voters.clone() };
        Self { outgoing, ..target }
    }

    /// The configuration that follows a joint one (C_new in §6).
    pub(crate) fn settled(&self) -> Self {
        Self { outgoing: BTreeSet::new(), ..self.clone() }
    }

    /// Bytes that it counts for in limits.
    pub(crate) fn bytes(&self) -> usize {
        let sets = [&self.voters, &self.outgoing, &self.learners, &self.joining];
        sets.iter().map(|set| set.len() * size_of::<NodeId>()).sum()
    }

    /// Whether this node's vote alone decides.
    pub(crate) fn is_only_voter(&self, id: NodeId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&id) && !self.is_joint()
    }
}

/// What to change about a [`Membership`], all at once. The sets are disjoint and may be empty.
/// Asking for what is already so changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MembershipChange {
    /// Become learners, and voters as soon as they have caught up.
    pub join: BTreeSet<NodeId>,
    /// Become learners, or stay learners; voters are demoted.
    pub learn: BTreeSet<NodeId>,
    /// Leave the group.
    pub remove: BTreeSet<NodeId>,
}
