//! Which nodes hold which keyspaces, and how far each keyspace is: pure decisions of the controller.
//!
//! A replica is put on a node when a keyspace is created, when a node that has one goes, and when
//! there are more nodes than replicas. It is never moved for balance, and never comes back to a node
//! that had it: a node that forgot how it voted must not vote in that group again.

use std::collections::{BTreeMap, BTreeSet};

use onefold_admin::{KeyspaceState, NodeState};
use onefold_types::{GroupId, NodeId};

use super::{Catalog, REPLICAS, Record};
use crate::placement::World;
use crate::registry::Directory;

/// Rounds of the controller after which a keyspace that still has no leader is given up.
const CREATION_ROUNDS_MAX: u32 = 30;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyspaceStep {
    /// Its group has a leader: it serves.
    Activate(String, GroupId),
    /// It could not be formed in time: it goes.
    RollBack(String, GroupId),
    /// Nothing of it is left.
    Forget(String, GroupId),
    /// These nodes shall hold it.
    Place(String, GroupId, BTreeSet<NodeId>),
}

/// Derives steps, round by round. What it remembers only makes it patient.
#[derive(Debug, Default)]
pub(crate) struct KeyspacePlanner {
    /// For how many rounds each keyspace has been coming.
    creating: BTreeMap<GroupId, u32>,
}

impl KeyspacePlanner {
    /// The steps of one round.
    pub(crate) fn plan(&mut self, catalog: &Catalog, world: &World) -> Vec<KeyspaceStep> {
        let mut loads = loads(catalog);
        let mut creating = BTreeMap::new();
        let mut steps = Vec::new();
        for record in catalog.all.values() {
            let (name, group) = (record.name.clone(), record.group);
            match record.state {
                KeyspaceState::Creating => {
                    let rounds = self.creating.get(&group).copied().unwrap_or_default() + 1;
                    if world.groups.iter().any(|view| view.group == group) {
                        steps.push(KeyspaceStep::Activate(name, group));
                    } else if rounds > CREATION_ROUNDS_MAX {
                        steps.push(KeyspaceStep::RollBack(name, group));
                    }
                    creating.insert(group, rounds);
                }
                KeyspaceState::Active => {
                    if let Some(members) = placed(record, world, &mut loads) {
                        steps.push(KeyspaceStep::Place(name, group, members));
                    }
                }
                KeyspaceState::Deleting => {
                    // A node that does not answer destroys its replica when it comes back.
                    if !world.hosting.values().any(|groups| groups.contains(&group)) {
                        steps.push(KeyspaceStep::Forget(name, group));
                    }
                }
            }
        }
        self.creating = creating;
        steps
    }
}

/// How many replicas each node holds or shall hold.
fn loads(catalog: &Catalog) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for node in catalog.all.values().flat_map(|record| &record.members) {
        *loads.entry(*node).or_default() += 1;
    }
    loads
}

/// The nodes that shall hold a keyspace, if they are others than those that are to now.
fn placed(
    record: &Record,
    world: &World,
    loads: &mut BTreeMap<NodeId, usize>,
) -> Option<BTreeSet<NodeId>> {
    let directory = &world.directory;
    let view = world.groups.iter().find(|view| view.group == record.group);
    let is_gone = |node: &NodeId| match directory.state(*node) {
        None | Some(NodeState::Removed) => true,
        Some(NodeState::Removing) => view.is_some_and(|view| !view.members.contains(*node)),
        Some(_) => false,
    };
    let mut members = record.members.clone();
    members.retain(|node| !is_gone(node));
    let is_staying = |node: NodeId| directory.state(node).is_some_and(NodeState::is_staying);
    let staying = members.iter().filter(|node| is_staying(**node)).count();
    let present: BTreeSet<_> = members.union(&record.members).copied().collect();
    let more = REPLICAS.saturating_sub(staying);
    for node in emptiest(directory, &world.up, loads, record.group, &present).take(more) {
        members.insert(node);
    }
    for node in members.difference(&record.members) {
        *loads.entry(*node).or_default() += 1;
    }
    (members != record.members).then_some(members)
}

/// The nodes with which a new keyspace begins.
pub(crate) fn founders(
    catalog: &Catalog,
    directory: &Directory,
    up: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let loads = loads(catalog);
    let nodes = emptiest(directory, up, &loads, catalog.next_group(), &BTreeSet::new());
    nodes.take(REPLICAS).collect()
}

/// Active nodes that answer, those with the fewest replicas first. Among equals the order of each
/// group begins with another node.
fn emptiest(
    directory: &Directory,
    up: &BTreeSet<NodeId>,
    loads: &BTreeMap<NodeId, usize>,
    group: GroupId,
    except: &BTreeSet<NodeId>,
) -> impl Iterator<Item = NodeId> + use<> {
    let nodes: Vec<NodeId> = directory
        .having(|state| state == NodeState::Active)
        .map(|record| record.id)
        .filter(|node| up.contains(node) && !except.contains(node))
        .collect();
    let first = (group.get() % nodes.len().max(1) as u64) as usize;
    let turned = nodes.iter().cycle().skip(first).take(nodes.len());
    let mut turned: Vec<NodeId> = turned.copied().collect();
    // Stable: the turn decides among equals.
    turned.sort_by_key(|node| loads.get(node).copied().unwrap_or_default());
    turned.into_iter()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use onefold_admin::{GroupMembers, KeyspaceLimits, NewKeyspace};

    use super::*;
    use crate::keyspaces::change;
    use crate::placement::GroupView;
    use crate::registry;

    /// A cluster of active nodes, all of which answer.
    fn world(nodes: u64) -> World {
        let mut world = World::default();
        for id in (1..=nodes).map(NodeId) {
            let record = registry::Record {
                id,
                address: format!("h:{id}"),
                incarnation: Some(100 + id.get()),
                state: NodeState::Active,
                replaces: None,
                force: false,
                is_learner: false,
            };
            world.directory.all.insert(id, record);
            world.up.insert(id);
        }
        world
    }

    fn become_state(world: &mut World, node: u64, state: NodeState) {
        world.directory.all.get_mut(&NodeId(node)).unwrap().state = state;
    }

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn create(catalog: &mut Catalog, world: &World, name: &str) -> GroupId {
        let founders = founders(catalog, &world.directory, &world.up);
        let new =
            NewKeyspace { name: name.to_owned(), port: None, limits: KeyspaceLimits::default() };
        let change = change::create(catalog, &new, &founders, 0);
        catalog.apply(change.unwrap())
    }

    /// A catalog with one keyspace that serves, and its group's view.
    fn served(world: &mut World, members: &[u64]) -> Catalog {
        let mut catalog = Catalog::default();
        let group = create(&mut catalog, world, "a");
        let record = catalog.all.get_mut("a").unwrap();
        record.state = KeyspaceState::Active;
        record.members = set(members);
        let members = GroupMembers { voters: set(members), ..GroupMembers::default() };
        let leader = *members.voters.first().unwrap();
        world.groups.push(GroupView { group, leader, members, lag: BTreeMap::new() });
        catalog
    }

    #[test]
    fn replicas_and_preferred_leaders_are_spread_evenly() {
        let world = world(5);
        let mut catalog = Catalog::default();
        let mut preferred: BTreeMap<NodeId, usize> = BTreeMap::new();
        for number in 0..50 {
            let name = format!("k{number}");
            create(&mut catalog, &world, &name);
            let record = &catalog.all[&name];
            assert_eq!(record.founders.len(), REPLICAS);
            let first = record.founders.iter().copied().min_by_key(|node| {
                crate::placement::preference(record.group, &record.founders, *node)
            });
            *preferred.entry(first.unwrap()).or_default() += 1;
        }
        assert!(loads(&catalog).values().all(|load| *load == 30), "{:?}", loads(&catalog));
        assert!(preferred.values().all(|load| (5..=15).contains(load)), "{preferred:?}");
    }

    #[test]
    fn a_keyspace_serves_when_its_group_has_a_leader_and_is_given_up_when_it_gets_none() {
        let mut world = world(3);
        let mut catalog = Catalog::default();
        let group = create(&mut catalog, &world, "a");
        let mut planner = KeyspacePlanner::default();
        for _ in 0..CREATION_ROUNDS_MAX {
            assert_eq!(planner.plan(&catalog, &world), []);
        }
        let given_up = [KeyspaceStep::RollBack("a".to_owned(), group)];
        assert_eq!(planner.plan(&catalog, &world), given_up);
        let members = GroupMembers { voters: set(&[1, 2, 3]), ..GroupMembers::default() };
        let view = GroupView { group, leader: NodeId(1), members, lag: BTreeMap::new() };
        world.groups.push(view);
        let serves = [KeyspaceStep::Activate("a".to_owned(), group)];
        assert_eq!(planner.plan(&catalog, &world), serves);
    }

    #[test]
    fn a_deleted_keyspace_is_forgotten_once_no_node_that_answers_has_it() {
        let mut world = world(3);
        let mut catalog = served(&mut world, &[1, 2, 3]);
        let group = catalog.all["a"].group;
        let change = change::delete(&catalog, "a").unwrap();
        catalog.apply(change);
        world.hosting.insert(NodeId(2), [group].into());
        let mut planner = KeyspacePlanner::default();
        assert_eq!(planner.plan(&catalog, &world), []);
        world.hosting.clear();
        let forgotten = [KeyspaceStep::Forget("a".to_owned(), group)];
        assert_eq!(planner.plan(&catalog, &world), forgotten);
    }

    #[test]
    fn a_node_that_goes_is_made_up_for_before_it_is_struck_off() {
        let mut world = world(4);
        let mut catalog = served(&mut world, &[1, 2, 3]);
        let group = catalog.all["a"].group;
        let mut planner = KeyspacePlanner::default();
        assert_eq!(planner.plan(&catalog, &world), [], "nothing moves for balance");
        become_state(&mut world, 2, NodeState::Removing);
        let place = |members| [KeyspaceStep::Place("a".to_owned(), group, set(members))];
        assert_eq!(planner.plan(&catalog, &world), place(&[1, 2, 3, 4]));
        catalog.all.get_mut("a").unwrap().members = set(&[1, 2, 3, 4]);
        assert_eq!(planner.plan(&catalog, &world), [], "its group has it still");
        world.groups[0].members.voters = set(&[1, 3, 4]);
        assert_eq!(planner.plan(&catalog, &world), place(&[1, 3, 4]));
        become_state(&mut world, 2, NodeState::Removed);
        assert_eq!(planner.plan(&catalog, &world), place(&[1, 3, 4]));
    }

    #[test]
    fn a_keyspace_of_a_small_cluster_grows_with_it_and_skips_nodes_that_are_down_or_drained() {
        let mut world = world(1);
        let catalog = served(&mut world, &[1]);
        let group = catalog.all["a"].group;
        let mut grown = self::world(5);
        grown.groups = world.groups;
        grown.up.remove(&NodeId(2));
        become_state(&mut grown, 3, NodeState::Draining);
        let steps = KeyspacePlanner::default().plan(&catalog, &grown);
        assert_eq!(steps, [KeyspaceStep::Place("a".to_owned(), group, set(&[1, 4, 5]))]);
    }
}
