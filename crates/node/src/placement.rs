//! Who should be in each group, and who should lead it: pure decisions.
//!
//! The registry says what the cluster shall be, the groups' leaders say what is. From both, and from
//! who answers, a [`Planner`] derives the next small step of each group. Nothing is remembered that
//! matters: whoever leads the system group next derives the same from what it sees, so a step that
//! was lost half-way is simply taken again.
//!
//! Three rules keep it safe. A group takes one change at a time, and none that would leave it
//! without a majority of voters that answer. Who shall leave goes last: after those who come were
//! made voters, and after its chunks were copied. And a leader hands over before it leaves.

use std::collections::{BTreeMap, BTreeSet};

use onefold_admin::{GroupMembers, NodeState, group_name};
use onefold_replica::MembershipChange;
use onefold_types::{GroupId, NodeId};

use crate::registry::{Directory, Record};

/// Voters that a group gets by itself. Founders keep their votes beyond that; other nodes are
/// learners, which take a voter's place when one is removed.
pub(crate) const VOTERS_MAX: usize = 5;

/// Rounds in a row that a node must have answered before it is given a leadership that another
/// active node has.
const STEADY_ROUNDS: u32 = 3;

/// Rounds after a transfer in which no leadership is moved for balance: its effect must be seen
/// first, and a group that was just moved must serve for a while.
const TRANSFER_PAUSE_ROUNDS: u32 = 3;

/// Steps that change one group each, in one round: a node that goes may be in very many groups.
const GROUP_STEPS_MAX: usize = 16;

/// Leaderships moved for balance in one round.
const BALANCE_STEPS_MAX: usize = 8;

/// Entries that a node may be behind and still count as caught up. A transfer stops proposals until
/// the new leader has them all.
pub(crate) const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// What the cluster shall be.
    pub(crate) directory: Directory,
    /// The groups, as their leaders tell; those without a leader are missing.
    pub(crate) groups: Vec<GroupView>,
    /// How many groups there are, those of keyspaces included.
    pub(crate) hosted: usize,
    /// The keyspaces' groups, and the nodes that shall hold them. Every node holds the others.
    pub(crate) placed: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// The groups that each node that answers has, whatever it is in them.
    pub(crate) hosting: BTreeMap<NodeId, BTreeSet<GroupId>>,
    /// Nodes that answer.
    pub(crate) up: BTreeSet<NodeId>,
    /// Groups whose leader a person chose lately.
    pub(crate) held: BTreeSet<GroupId>,
    /// Chunks of nodes that go of which not enough replicas are elsewhere yet. A node that is
    /// missing here is not known to be free of them.
    pub(crate) chunks_left: BTreeMap<NodeId, u64>,
}

/// A group as its leader tells it.
#[derive(Clone, Debug)]
pub(crate) struct GroupView {
    /// The group.
    pub(crate) group: GroupId,
    /// Its leader.
    pub(crate) leader: NodeId,
    /// Its members.
    pub(crate) members: GroupMembers,
    /// Committed entries that each node that answers has not applied.
    pub(crate) lag: BTreeMap<NodeId, u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Change the members of a group.
    Change(GroupId, MembershipChange),
    /// Have a group led by another node.
    Transfer {
        /// The group.
        group: GroupId,
        /// Who leads it.
        from: NodeId,
        /// Who shall lead it.
        to: NodeId,
    },
    /// The node has joined.
    Settle(NodeId),
    /// The node has left.
    Bury(NodeId),
}

/// Derives steps, round by round. What it remembers only makes it patient.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    /// Rounds in a row that each node answered.
    steady: BTreeMap<NodeId, u32>,
    /// Rounds in which leaderships stay where they are.
    pause: u32,
}

impl Planner {
    /// The steps of one round.
    pub(crate) fn plan(&mut self, world: &World) -> Vec<Step> {
        self.steady.retain(|node, _| world.up.contains(node));
        for node in &world.up {
            let rounds = self.steady.entry(*node).or_default();
            *rounds = rounds.saturating_add(1);
        }
        self.pause = self.pause.saturating_sub(1);

        let mut steps = Vec::new();
        let mut loads = loads(world);
        for view in &world.groups {
            if steps.len() == GROUP_STEPS_MAX {
                break;
            }
            if let Some(step) = hand_over(world, view, &mut loads) {
                self.pause = TRANSFER_PAUSE_ROUNDS;
                steps.push(step);
            } else if let Some(change) = change(world, view) {
                steps.push(Step::Change(view.group, change));
            }
        }
        // Leaderships are moved for balance only when nothing else is going on.
        if steps.is_empty() && self.pause == 0 {
            steps = self.balance(world, loads);
            if !steps.is_empty() {
                self.pause = TRANSFER_PAUSE_ROUNDS;
            }
        }
        for record in world.directory.members() {
            match record.state {
                NodeState::Joining if has_joined(world, record.id) => {
                    steps.push(Step::Settle(record.id));
                }
                NodeState::Removing if has_left(world, record) => {
                    steps.push(Step::Bury(record.id));
                }
                _ => {}
            }
        }
        steps
    }

    /// Moves leaderships from nodes that lead two groups more than another. One of the cluster's own
    /// groups at a time, and a few keyspaces; none that a person has just moved.
    fn balance(&self, world: &World, mut loads: BTreeMap<NodeId, usize>) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut moved = BTreeSet::new();
        while steps.len() < BALANCE_STEPS_MAX {
            let movable = |view: &&GroupView| {
                let is_first = moved.is_empty() || view.group.is_keyspace();
                is_first && !moved.contains(&view.group) && !world.held.contains(&view.group)
            };
            let Some((group, from, to)) = self.best_move(world, &loads, movable) else { break };
            moved.insert(group);
            *loads.entry(from).or_default() -= 1;
            *loads.entry(to).or_default() += 1;
            steps.push(Step::Transfer { group, from, to });
        }
        steps
    }

    /// The move of a leadership that gains most, if any gains.
    fn best_move(
        &self,
        world: &World,
        loads: &BTreeMap<NodeId, usize>,
        is_movable: impl Fn(&&GroupView) -> bool,
    ) -> Option<(GroupId, NodeId, NodeId)> {
        let load = |node: NodeId| loads.get(&node).copied().unwrap_or_default();
        let mut moves: Vec<_> = Vec::new();
        for view in world.groups.iter().filter(is_movable) {
            for to in leaders_possible(world, view) {
                let steady = self.steady.get(&to).copied().unwrap_or_default();
                let is_better = load(view.leader) >= load(to) + 2;
                if to != view.leader && steady >= STEADY_ROUNDS && is_better {
                    let gain = load(view.leader) - load(to);
                    let order = preference(view.group, &view.members.voters, to);
                    moves.push((std::cmp::Reverse(gain), order, view.group, view.leader, to));
                }
            }
        }
        let (_, _, group, from, to) = moves.into_iter().min()?;
        Some((group, from, to))
    }
}

/// Who leads how many groups.
fn loads(world: &World) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for view in &world.groups {
        *loads.entry(view.leader).or_default() += 1;
    }
    loads
}

/// Voters that may lead a group: active, answering, caught up.
fn leaders_possible<'a>(
    world: &'a World,
    view: &'a GroupView,
) -> impl Iterator<Item = NodeId> + 'a {
    view.members.voters.iter().copied().filter(|node| {
        world.directory.state(*node) == Some(NodeState::Active)
            && world.up.contains(node)
            && view.lag.get(node).is_some_and(|lag| *lag <= CAUGHT_UP_ENTRIES)
    })
}

/// The place of a voter in the order of those that should lead a group. The order of each group
/// begins with another voter, so that groups whose leaders are chosen by it are spread.
pub(crate) fn preference(group: GroupId, voters: &BTreeSet<NodeId>, node: NodeId) -> usize {
    let count = voters.len().max(1);
    let place = voters.iter().position(|voter| *voter == node).unwrap_or_default();
    // The first group that there is has the number 1.
    let first = (group.get().saturating_sub(1) % count as u64) as usize;
    (place + count - first) % count
}

/// How much later than others a node stands for election. The two that a group prefers stand at
/// once, so that the loss of either costs no time; the others let them go first, so that fewer
/// elections are split.
pub(crate) fn election_rank(group: GroupId, voters: &BTreeSet<NodeId>, node: NodeId) -> u32 {
    u32::from(preference(group, voters, node) >= 2)
}

/// Takes a group from a leader that is drained or removed.
fn hand_over(world: &World, view: &GroupView, loads: &mut BTreeMap<NodeId, usize>) -> Option<Step> {
    let state = world.directory.state(view.leader);
    if matches!(state, Some(NodeState::Active | NodeState::Joining)) || state.is_none() {
        return None;
    }
    let to =
        leaders_possible(world, view).filter(|node| *node != view.leader).min_by_key(|node| {
            let load = loads.get(node).copied().unwrap_or_default();
            (load, preference(view.group, &view.members.voters, *node))
        })?;
    *loads.entry(to).or_default() += 1;
    Some(Step::Transfer { group: view.group, from: view.leader, to })
}

/// The next change of a group's members.
fn change(world: &World, view: &GroupView) -> Option<MembershipChange> {
    let members = &view.members;
    if !members.outgoing.is_empty() {
        return None;
    }
    let comes = |record: &&Record| {
        matches!(record.state, NodeState::Joining | NodeState::Active | NodeState::Draining)
            && world.up.contains(&record.id)
    };
    let promoted = promotions(world, view);
    let strangers: BTreeSet<NodeId> = world
        .directory
        .members()
        .filter(comes)
        .map(|record| record.id)
        .filter(|node| is_wanted(world, view.group, *node))
        .filter(|node| !members.contains(*node) && !promoted.contains(node))
        .collect();
    if !promoted.is_empty() || !strangers.is_empty() {
        let (join, learn) = (promoted, strangers);
        return Some(MembershipChange { join, learn, remove: BTreeSet::new() });
    }
    let remove = departures(world, view);
    (!remove.is_empty()).then(|| MembershipChange { remove, ..MembershipChange::default() })
}

/// Whether a node shall hold a replica of a group.
fn is_wanted(world: &World, group: GroupId, node: NodeId) -> bool {
    !group.is_keyspace() || world.placed.get(&group).is_some_and(|nodes| nodes.contains(&node))
}

/// Nodes that should become voters and were not told to: as many as there are free seats.
fn promotions(world: &World, view: &GroupView) -> BTreeSet<NodeId> {
    let members = &view.members;
    let is =
        |node: NodeId, picks: fn(NodeState) -> bool| world.directory.state(node).is_some_and(picks);
    let seated = members.voters.iter().chain(&members.joining);
    let seated = seated.filter(|node| is(**node, NodeState::is_staying)).count();
    let mut candidates: Vec<NodeId> = world
        .directory
        .having(|state| matches!(state, NodeState::Joining | NodeState::Active))
        .filter(|record| !record.is_learner)
        .map(|record| record.id)
        .filter(|node| world.up.contains(node) && is_wanted(world, view.group, *node))
        .filter(|node| !members.voters.contains(node) && !members.joining.contains(node))
        .collect();
    // Who has the log already becomes a voter sooner.
    candidates.sort_by_key(|node| (!members.learners.contains(node), *node));
    candidates.truncate(VOTERS_MAX.saturating_sub(seated));
    candidates.into_iter().collect()
}

/// Members that may leave the group now: every learner that shall, and at most one voter.
fn departures(world: &World, view: &GroupView) -> BTreeSet<NodeId> {
    let members = &view.members;
    let goes = |node: &NodeId| match world.directory.all.get(node) {
        Some(record) if record.state == NodeState::Removing => is_released(world, record),
        Some(record) => record.state == NodeState::Removed,
        None => false,
    };
    let mut leaving: BTreeSet<NodeId> = members.learners.iter().copied().filter(goes).collect();
    // Those that answer and are about to vote come first: they make up for who leaves.
    let awaited = members.joining.iter().any(|node| world.up.contains(node) && !goes(node));
    if awaited {
        return leaving;
    }
    let mut voters: Vec<NodeId> =
        members.voters.iter().copied().filter(|node| goes(node) && *node != view.leader).collect();
    // The dead first: they only raise the number that a majority needs.
    voters.sort_by_key(|node| (world.up.contains(node), *node));
    let safe = |node: &NodeId| keeps_majority(world, members, &BTreeSet::from([*node]));
    leaving.extend(voters.into_iter().find(safe));
    leaving
}

/// Whether a majority of the voters answers, now and without those who leave.
fn keeps_majority(world: &World, members: &GroupMembers, leaving: &BTreeSet<NodeId>) -> bool {
    let rest = &members.voters - leaving;
    has_majority(world, &members.voters) && has_majority(world, &rest)
}

fn has_majority(world: &World, voters: &BTreeSet<NodeId>) -> bool {
    2 * voters.intersection(&world.up).count() > voters.len()
}

/// Whether a node that is removed has nothing that is still needed.
fn is_released(world: &World, record: &Record) -> bool {
    record.force || world.chunks_left.get(&record.id) == Some(&0)
}

fn has_joined(world: &World, node: NodeId) -> bool {
    let is_in = |view: &GroupView| {
        let is_seated = view.members.voters.contains(&node)
            || view.members.learners.contains(&node) && !view.members.joining.contains(&node);
        is_seated && view.lag.get(&node).is_some_and(|lag| *lag <= CAUGHT_UP_ENTRIES)
    };
    // Keyspaces are for active nodes.
    let own = world.groups.iter().filter(|view| !view.group.is_keyspace());
    own.clone().count() + world.placed.len() == world.hosted && own.clone().all(is_in)
}

fn has_left(world: &World, record: &Record) -> bool {
    let is_out = |view: &GroupView| !view.members.contains(record.id);
    world.groups.len() == world.hosted
        && is_released(world, record)
        && world.groups.iter().all(is_out)
}

/// Why a node is better not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "removing node {node} would leave the group {} with {} {} as voters, and only {} of {} would \
     answer, which is no majority; start those that do not, remove a dead one first, or add a node",
    group_name(*group),
    if rest.len() == 1 { "node" } else { "nodes" },
    list(rest),
    up.len(),
    rest.len()
)]
pub(crate) struct MajorityLost {
    /// The node.
    pub(crate) node: NodeId,
    /// The group.
    pub(crate) group: GroupId,
    /// The voters that would be left.
    pub(crate) rest: BTreeSet<NodeId>,
    /// Those of them that answer.
    pub(crate) up: BTreeSet<NodeId>,
}

fn list(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether the groups can go on without a node, with those who would take its seats.
///
/// # Errors
/// The group that could not.
pub(crate) fn may_remove(world: &World, node: NodeId) -> Result<(), MajorityLost> {
    let mut after = world.clone();
    if let Some(record) = after.directory.all.get_mut(&node) {
        record.state = NodeState::Removing;
    }
    for view in &after.groups {
        let leaves = |voter: &NodeId| after.directory.state(*voter) == Some(NodeState::Removing);
        let mut rest = view.members.voters.clone();
        rest.extend(promotions(&after, view));
        rest.extend(view.members.joining.intersection(&after.up));
        rest.retain(|voter| !leaves(voter));
        if view.members.voters.contains(&node) && !has_majority(&after, &rest) {
            let up = rest.intersection(&after.up).copied().collect();
            return Err(MajorityLost { node, group: view.group, rest, up });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
