//! The operator: changes the members of the groups, replaces lost nodes, moves leaders.

use std::collections::BTreeSet;

use onefold_raft::{Input, Membership, MembershipChange, Role, Stepped};
use onefold_types::NodeId;

use super::{
    checker::Checked,
    clock::{MILLISECOND, SECOND},
    coverage::{Branch, FaultKind},
    event::Event,
    node::Standing,
    plan::NODES_MAX,
    world::World,
};

/// Time between two looks at a change that is not done.
const LOOK_INTERVAL_MS: u64 = 500;

/// What the operator is about.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// The change that is being made, and the groups in which it is done.
    goal: Option<(MembershipChange, BTreeSet<usize>)>,
    /// Nodes whose disks are lost, and that are still members.
    lost: Vec<NodeId>,
}

impl Operator {
    /// Whether nothing is left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.goal.is_none() && self.lost.is_empty()
    }
}

fn set(nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
    nodes.into_iter().collect()
}

impl World {
    /// The operator looks after the cluster.
    pub(super) fn operate(&mut self) -> Checked {
        if self.operator.goal.is_none() {
            if let Some(lost) = self.operator.lost.pop() {
                self.replace(lost)?;
            } else if !self.is_healed && !self.is_damage_pending() {
                if self.random.chance(300) {
                    self.move_leader()?;
                } else {
                    self.draw_goal()?;
                }
            }
        }
        self.pursue_goal()?;
        let delay = if self.operator.is_idle() {
            self.random.within(1..=2 * self.plan.change_interval)
        } else {
            LOOK_INTERVAL_MS * MILLISECOND
        };
        self.schedule(delay, Event::Operator);
        Ok(())
    }

    /// Another voter is to lead.
    fn move_leader(&mut self) -> Checked {
        let group = self.random.within(0..=self.plan.groups as u64 - 1) as usize;
        let Some(leader) = self.leader(group) else { return Ok(()) };
        let members = self.membership(leader, group).members();
        let members: Vec<NodeId> = members.into_iter().collect();
        let to = self.random.pick(&members);
        self.tell(|| format!("n{leader} is to hand g{group} to n{to}"));
        self.step(leader, group, Input::TransferLeadership(to))?;
        self.settle(leader)
    }

    pub(super) fn membership(&self, id: NodeId, group: usize) -> Membership {
        self.node(id).raft(group).map(|core| core.membership().clone()).unwrap_or_default()
    }

    /// A machine that will join.
    fn new_node(&mut self) -> Result<NodeId, super::checker::Violation> {
        let id = self.add_node(Membership::default());
        self.tell(|| format!("n{id} is put up"));
        self.start(id)?;
        Ok(id)
    }

    fn replace(&mut self, lost: NodeId) -> Checked {
        let new = self.new_node()?;
        self.coverage.hit(Branch::WipedReplaced);
        let change = MembershipChange {
            join: set([new]),
            remove: set([lost]),
            ..MembershipChange::default()
        };
        self.set_goal(change);
        Ok(())
    }

    fn set_goal(&mut self, change: MembershipChange) {
        self.tell(|| format!("the operator wants {change:?}"));
        self.operator.goal = Some((change, BTreeSet::new()));
    }

    fn draw_goal(&mut self) -> Checked {
        let Some(leader) = self.leader(0) else { return Ok(()) };
        let members = self.membership(leader, 0);
        let voters: Vec<NodeId> = members.voters.iter().copied().collect();
        let learners: Vec<NodeId> =
            members.learners.difference(&members.joining).copied().collect();
        let running = self.serving().len();
        if voters.is_empty() {
            return Ok(());
        }
        let voter = self.random.pick(&voters);
        let mut change = MembershipChange::default();
        match self.random.within(0..=11) {
            0 | 1 if running < NODES_MAX => change.join = set([self.new_node()?]),
            2 if running < NODES_MAX => change.learn = set([self.new_node()?]),
            3 if voters.len() > 2 => change.learn = set([voter]),
            4 if !learners.is_empty() => change.join = set([self.random.pick(&learners)]),
            5 if !learners.is_empty() => change.remove = set([self.random.pick(&learners)]),
            6 if voters.len() > 2 => change.remove = set([voter]),
            7 if voters.len() > 2 => change.remove = set([voter, self.random.pick(&voters)]),
            8 | 9 if running + 2 <= NODES_MAX => {
                change.join = set([self.new_node()?, self.new_node()?]);
            }
            10 | 11 if running + 2 <= NODES_MAX && voters.len() > 2 => {
                self.coverage.hit(Branch::MembersExchanged);
                let other = self.random.pick(&voters);
                change.join = set([self.new_node()?, self.new_node()?]);
                change.remove = set([voter, other]);
            }
            _ => return Ok(()),
        }
        self.set_goal(change);
        Ok(())
    }

    /// Asks the leaders for what is not done, and takes down who was removed everywhere.
    fn pursue_goal(&mut self) -> Checked {
        let Some((change, mut done)) = self.operator.goal.take() else { return Ok(()) };
        for group in 0..self.plan.groups {
            if !done.contains(&group) && self.pursue_in(group, &change)? {
                done.insert(group);
            }
        }
        if done.len() < self.plan.groups {
            self.operator.goal = Some((change, done));
            return Ok(());
        }
        for id in change.remove {
            self.coverage.hit(Branch::MemberRemoved);
            self.retire(id);
        }
        Ok(())
    }

    /// Whether a group is as wanted; asks for it if not.
    fn pursue_in(
        &mut self,
        group: usize,
        change: &MembershipChange,
    ) -> Result<bool, super::checker::Violation> {
        // Of several nodes that believe to lead, the operator may meet any.
        let leading = |world: &Self| -> Vec<NodeId> {
            let leads = |node: &&super::node::Node| {
                node.raft(group).is_some_and(|core| core.role() == Role::Leader)
            };
            world.nodes.iter().filter(leads).map(|node| node.id).collect()
        };
        let leaders = leading(self);
        if leaders.is_empty() {
            return Ok(false);
        }
        let asked = self.random.pick(&leaders);
        if Some(asked) == self.leader(group) && self.is_committed_as_wanted(asked, group, change) {
            return Ok(true);
        }
        if let Some(Stepped::Proposed { .. }) =
            self.step(asked, group, Input::ChangeMembership(change.clone()))?
        {
            self.tell(|| format!("n{asked} g{group} begins {change:?}"));
            self.plan_ambush(asked);
            if !change.learn.is_empty() {
                self.coverage.hit(Branch::LearnerAdded);
            }
            let members = self.membership(asked, group);
            if change.learn.iter().any(|id| members.outgoing.contains(id)) {
                self.coverage.hit(Branch::VoterDemoted);
            }
        }
        self.settle(asked)?;
        Ok(false)
    }

    /// Whether the leader's members are as wanted, by an entry that is committed.
    fn is_committed_as_wanted(
        &mut self,
        leader: NodeId,
        group: usize,
        change: &MembershipChange,
    ) -> bool {
        let Some(hosted) = self.hosted(leader, group) else { return false };
        let members = hosted.raft.membership().clone();
        let is_committed = hosted.state.mark().membership == members
            && hosted.raft.commit_index() == hosted.raft.applied_index();
        let is_done = is_committed
            && !members.is_joint()
            && change.join.is_subset(&members.voters)
            && change.learn.is_subset(&members.learners)
            && change.learn.is_disjoint(&members.voters)
            && change.remove.iter().all(|id| !members.contains(*id));
        if is_done && !change.join.is_empty() {
            self.coverage.hit(Branch::LearnerPromoted);
        }
        is_done
    }

    /// A node that belongs to no group any more ends.
    fn retire(&mut self, id: NodeId) {
        self.tell(|| format!("n{id} is taken down"));
        let node = self.node_mut(id);
        node.process = None;
        node.life += 1;
        if node.standing == Standing::Serving {
            node.standing = Standing::Retired;
        }
    }

    /// Whether a node may lose its disk without the cluster losing what it acknowledged: as long as
    /// one such loss is not repaired, there must not be another.
    pub(super) fn may_lose(&self, id: NodeId) -> bool {
        if !self.operator.is_idle()
            || self.is_damage_pending()
            || self.node(id).standing != Standing::Serving
        {
            return false;
        }
        (0..self.plan.groups).all(|group| {
            self.leader(group).is_some_and(|leader| {
                let members = self.membership(leader, group);
                let is_whole = |id: &NodeId| self.node(*id).standing == Standing::Serving;
                !members.is_joint()
                    && members.voters.len() > 2
                    && members.members().iter().all(is_whole)
            })
        })
    }

    /// A disk is damaged, and nobody has noticed yet.
    fn is_damage_pending(&self) -> bool {
        let is_pending =
            |node: &super::node::Node| node.disk.is_damaged && node.standing == Standing::Serving;
        self.nodes.iter().any(is_pending)
    }

    /// The disk of a node is lost: it never comes back as who it was.
    pub(super) fn lose_node(&mut self, id: NodeId) -> Checked {
        self.tell(|| format!("n{id} is lost, and must be replaced"));
        let node = self.node_mut(id);
        node.process = None;
        node.life += 1;
        node.standing = Standing::Lost;
        self.operator.lost.push(id);
        self.schedule(2 * SECOND, Event::Operator);
        Ok(())
    }

    /// A disk is wiped while the node is down or runs.
    pub(super) fn wipe_disk(&mut self, id: NodeId) -> Checked {
        self.faults.hit(FaultKind::DiskWiped);
        self.lose_node(id)
    }
}
