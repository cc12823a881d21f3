#![allow(clippy::unwrap_used)]

use super::*;

fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn voters(nodes: &[u64]) -> GroupMembers {
    GroupMembers { voters: set(nodes), ..GroupMembers::default() }
}

/// A cluster of nodes in these states, all of which answer and are caught up.
fn world(states: &[NodeState]) -> World {
    let mut world = World::default();
    for (id, state) in (1..).zip(states) {
        let record = Record {
            id: NodeId(id),
            address: format!("h:{id}"),
            incarnation: Some(100 + id),
            state: *state,
            replaces: None,
            force: false,
            is_learner: false,
        };
        if state.is_member() {
            world.up.insert(record.id);
            world.chunks_left.insert(record.id, 0);
        }
        world.directory.all.insert(record.id, record);
    }
    world
}

fn view(group: u64, leader: u64, members: GroupMembers) -> GroupView {
    let lag = (1..10).map(|node| (NodeId(node), 0)).collect();
    GroupView { group: GroupId(group), leader: NodeId(leader), members, lag }
}

fn with_groups(mut world: World, groups: Vec<GroupView>) -> World {
    world.hosted = groups.len();
    world.groups = groups;
    world
}

fn join(nodes: &[u64]) -> Option<MembershipChange> {
    Some(MembershipChange { join: set(nodes), ..MembershipChange::default() })
}

fn remove(nodes: &[u64]) -> Option<MembershipChange> {
    Some(MembershipChange { remove: set(nodes), ..MembershipChange::default() })
}

const A: NodeState = NodeState::Active;
const J: NodeState = NodeState::Joining;
const D: NodeState = NodeState::Draining;
const R: NodeState = NodeState::Removing;

/// Takes the steps of a planner as a cluster would, until there are none.
fn settle(world: &mut World, rounds: usize) -> Vec<Step> {
    let (mut planner, mut taken) = (Planner::default(), Vec::new());
    for _ in 0..rounds {
        for step in planner.plan(world) {
            take(world, &step);
            taken.push(step);
        }
    }
    taken
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Change(group, change) => {
            let view = world.groups.iter_mut().find(|view| view.group == *group).unwrap();
            let members = &mut view.members;
            assert!(!change.remove.contains(&view.leader), "a leader hands over first");
            for gone in &change.remove {
                members.voters.remove(gone);
                members.learners.remove(gone);
            }
            members.learners.extend(&change.learn);
            // The leader promotes who has caught up.
            members.voters.extend(&change.join);
            members.learners.retain(|node| !change.join.contains(node));
            let up = members.voters.intersection(&world.up).count();
            assert!(2 * up > members.voters.len(), "group {group} lost its majority");
        }
        Step::Transfer { group, from, to } => {
            let view = world.groups.iter_mut().find(|view| view.group == *group).unwrap();
            assert_eq!(view.leader, *from);
            view.leader = *to;
        }
        Step::Settle(node) => world.directory.all.get_mut(node).unwrap().state = A,
        Step::Bury(node) => {
            world.directory.all.get_mut(node).unwrap().state = NodeState::Removed;
        }
    }
}

#[test]
fn a_leadership_that_a_person_moved_is_left_and_others_make_up_for_it() {
    let groups = |leader| (16..22).map(move |group| view(group, leader, voters(&[1, 2, 3])));
    let mut world = with_groups(world(&[A, A, A]), groups(1).collect());
    world.held = (16..19).map(GroupId).collect();
    settle(&mut world, 30);
    let led_by_1 = world.groups.iter().filter(|view| view.leader == NodeId(1));
    let led_by_1: BTreeSet<GroupId> = led_by_1.map(|view| view.group).collect();
    assert_eq!(led_by_1, world.held, "the others moved away");
    world.held.clear();
    settle(&mut world, 30);
    assert_eq!(loads(&world).into_values().collect::<Vec<_>>(), [2, 2, 2]);
    world.held = world.groups.iter().map(|view| view.group).collect();
    world.directory.all.get_mut(&NodeId(1)).unwrap().state = D;
    settle(&mut world, 30);
    assert!(!loads(&world).contains_key(&NodeId(1)), "a drained node leads nothing");
}

#[test]
fn three_become_five_and_three_again() {
    let groups = (1..=3).map(|group| view(group, 1, voters(&[1, 2, 3]))).collect();
    let mut world = with_groups(world(&[A, A, A, J, J]), groups);
    settle(&mut world, 20);
    assert!(world.groups.iter().all(|view| view.members == voters(&[1, 2, 3, 4, 5])));
    assert_eq!(world.directory.state(NodeId(5)), Some(A));
    assert_eq!(loads(&world).len(), 3, "each group has a leader of its own");
    for node in [1, 4] {
        world.directory.all.get_mut(&NodeId(node)).unwrap().state = R;
    }
    settle(&mut world, 20);
    assert!(world.groups.iter().all(|view| view.members == voters(&[2, 3, 5])));
    assert_eq!(world.directory.removed(), set(&[1, 4]));
    assert_eq!(loads(&world).values().copied().max(), Some(1));
}

#[test]
fn a_node_beyond_the_voters_learns_and_takes_a_seat_when_one_is_free() {
    let states = [A, A, A, A, A, J];
    let world = with_groups(world(&states), vec![view(1, 1, voters(&[1, 2, 3, 4, 5]))]);
    let learn = MembershipChange { learn: set(&[6]), ..MembershipChange::default() };
    assert_eq!(change(&world, &world.groups[0]), Some(learn));

    let members = GroupMembers { learners: set(&[6]), ..voters(&[1, 2, 3, 4, 5]) };
    let mut world = with_groups(world, vec![view(1, 1, members.clone())]);
    assert_eq!(change(&world, &world.groups[0]), None);
    world.directory.all.get_mut(&NodeId(2)).unwrap().state = R;
    assert_eq!(change(&world, &world.groups[0]), join(&[6]), "before node 2 leaves");
    world.groups[0].members.joining = set(&[6]);
    assert_eq!(change(&world, &world.groups[0]), None, "node 6 is awaited");
    world.up.remove(&NodeId(6));
    assert_eq!(change(&world, &world.groups[0]), remove(&[2]), "the dead are not awaited");
}

#[test]
fn founders_beyond_the_usual_number_keep_their_votes() {
    let world = with_groups(world(&[A; 7]), vec![view(1, 1, voters(&[1, 2, 3, 4, 5, 6, 7]))]);
    assert_eq!(change(&world, &world.groups[0]), None);
}

#[test]
fn a_dead_node_goes_after_its_replacement_votes() {
    let mut world = with_groups(world(&[A, R, A, J]), vec![view(1, 1, voters(&[1, 2, 3]))]);
    world.up.remove(&NodeId(2));
    world.directory.all.get_mut(&NodeId(2)).unwrap().force = true;
    let taken = settle(&mut world, 5);
    let changes: Vec<_> = taken
        .iter()
        .filter_map(|step| match step {
            Step::Change(_, change) => Some(change.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [join(&[4]).unwrap(), remove(&[2]).unwrap()]);
    assert_eq!(world.groups[0].members, voters(&[1, 3, 4]));
}

#[test]
fn nothing_is_changed_while_a_change_is_under_way_or_would_cost_the_majority() {
    let joint = GroupMembers { outgoing: set(&[1, 2, 3]), ..voters(&[1, 2]) };
    let joint = with_groups(world(&[A, A, R]), vec![view(1, 1, joint)]);
    assert_eq!(change(&joint, &joint.groups[0]), None);

    let mut world = with_groups(world(&[A, A, R]), vec![view(1, 1, voters(&[1, 2, 3]))]);
    assert_eq!(change(&world, &world.groups[0]), remove(&[3]));
    world.up.remove(&NodeId(2));
    assert_eq!(change(&world, &world.groups[0]), None, "node 1 alone is no majority of two");
    let lost = may_remove(&world, NodeId(3)).unwrap_err();
    assert_eq!((lost.rest, lost.up), (set(&[1, 2]), set(&[1])));
    assert_eq!(may_remove(&world, NodeId(2)), Ok(()), "it would leave node 1, which answers");
}

#[test]
fn a_node_may_go_when_a_learner_takes_its_seat() {
    let members = GroupMembers { learners: set(&[4]), ..voters(&[1, 2, 3]) };
    let mut world = with_groups(world(&[A, A, A, A]), vec![view(1, 1, members)]);
    world.up.remove(&NodeId(3));
    assert_eq!(may_remove(&world, NodeId(2)), Ok(()));
    world.up.remove(&NodeId(4));
    assert!(may_remove(&world, NodeId(2)).is_err());
}

#[test]
fn a_node_keeps_its_seats_until_its_chunks_are_elsewhere() {
    let mut world = with_groups(world(&[A, A, R]), vec![view(1, 1, voters(&[1, 2, 3]))]);
    for left in [Some(7), None] {
        world.chunks_left.remove(&NodeId(3));
        world.chunks_left.extend(left.map(|left| (NodeId(3), left)));
        assert_eq!(change(&world, &world.groups[0]), None, "{left:?}");
    }
    world.directory.all.get_mut(&NodeId(3)).unwrap().force = true;
    assert_eq!(change(&world, &world.groups[0]), remove(&[3]));
}

#[test]
fn a_leader_that_goes_or_is_drained_hands_over_to_whom_leads_least() {
    for state in [R, D] {
        let groups = vec![view(1, 1, voters(&[1, 2, 3])), view(2, 2, voters(&[1, 2, 3]))];
        let world = with_groups(world(&[state, A, A]), groups);
        let steps = Planner::default().plan(&world);
        let (from, to) = (NodeId(1), NodeId(3));
        assert_eq!(steps[0], Step::Transfer { group: GroupId(1), from, to });
    }
}

#[test]
fn a_drained_node_votes_on_and_is_given_nothing() {
    let groups = (1..=3).map(|group| view(group, 1, voters(&[1, 2, 3]))).collect();
    let mut world = with_groups(world(&[A, D, A]), groups);
    settle(&mut world, 20);
    assert!(world.groups.iter().all(|view| view.members == voters(&[1, 2, 3])));
    assert_eq!(loads(&world).get(&NodeId(2)), None);
    assert_eq!(loads(&world).values().copied().max(), Some(2));
}

#[test]
fn leaderships_are_spread_patiently_and_then_stay() {
    let groups = (1..=6).map(|group| view(group, 2, voters(&[1, 2, 3]))).collect();
    let mut world = with_groups(world(&[A, A, A]), groups);
    let mut planner = Planner::default();
    for _ in 1..STEADY_ROUNDS {
        assert_eq!(planner.plan(&world), [], "nobody has proved to be steady yet");
    }
    let first = planner.plan(&world);
    assert_eq!(first.len(), 1);
    take(&mut world, &first[0]);
    assert_eq!(planner.plan(&world), [], "its effect has to be seen first");
    settle(&mut world, 60);
    assert_eq!(loads(&world).into_values().collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(settle(&mut world, 60), [], "a balanced cluster is left alone");
}

#[test]
fn who_is_down_or_far_behind_is_given_no_leadership() {
    let groups = (1..=3).map(|group| view(group, 1, voters(&[1, 2, 3]))).collect();
    let mut world = with_groups(world(&[A, A, A]), groups);
    world.up.remove(&NodeId(2));
    for view in &mut world.groups {
        view.lag.insert(NodeId(3), CAUGHT_UP_ENTRIES + 1);
    }
    assert_eq!(settle(&mut world, 60), []);
}

#[test]
fn a_node_has_joined_when_every_group_has_it() {
    let groups = vec![
        view(1, 1, voters(&[1, 2, 3, 4])),
        view(2, 2, GroupMembers { learners: set(&[4]), joining: set(&[4]), ..voters(&[1, 2, 3]) }),
    ];
    let mut world = with_groups(world(&[A, A, A, J]), groups);
    assert!(!has_joined(&world, NodeId(4)));
    world.groups[1].members = voters(&[1, 2, 3, 4]);
    assert!(has_joined(&world, NodeId(4)));
    world.hosted = 3;
    assert!(!has_joined(&world, NodeId(4)), "a group without a leader has told nothing");
}

#[test]
fn each_group_prefers_another_voter() {
    let voters = set(&[2, 5, 9]);
    let first = |group: u64| {
        voters.iter().find(|node| preference(GroupId(group), &voters, **node) == 0).copied()
    };
    let preferred: Vec<_> = (1..=4).filter_map(first).map(NodeId::get).collect();
    assert_eq!(preferred, [2, 5, 9, 2]);
    let ranks: u32 = voters.iter().map(|node| election_rank(GroupId(1), &voters, *node)).sum();
    assert_eq!(ranks, 1, "the third of three lets the others go first");
}

/// The same with the nodes that shall hold a keyspace's group.
fn placing(mut world: World, group: u64, nodes: &[u64]) -> World {
    world.placed.insert(GroupId(group), set(nodes));
    world
}

#[test]
fn a_keyspace_is_only_on_the_nodes_that_shall_hold_it() {
    let states = [A, A, A, A, A];
    let world = with_groups(world(&states), vec![view(16, 1, voters(&[1, 2, 3]))]);
    let mut world = placing(world, 16, &[1, 2, 3]);
    assert_eq!(change(&world, &world.groups[0]), None, "others are not wanted");
    world.directory.all.get_mut(&NodeId(2)).unwrap().state = R;
    assert_eq!(change(&world, &world.groups[0]), remove(&[2]), "nobody is to come");
    let mut world = placing(world, 16, &[1, 2, 3, 5]);
    assert_eq!(change(&world, &world.groups[0]), join(&[5]), "before node 2 leaves");
    world.groups[0].members = voters(&[1, 2, 3, 5]);
    assert_eq!(change(&world, &world.groups[0]), remove(&[2]));
    world.groups[0].members = voters(&[1, 3, 5]);
    assert_eq!(change(&world, &world.groups[0]), None);
    world.placed.clear();
    assert_eq!(change(&world, &world.groups[0]), None, "nobody knows where it shall be");
}

#[test]
fn a_node_has_joined_without_any_keyspace_and_has_left_when_it_is_out_of_all() {
    let groups = vec![view(1, 1, voters(&[1, 2, 3, 4])), view(16, 1, voters(&[1, 2, 3]))];
    let world = with_groups(world(&[A, A, A, J]), groups);
    let mut world = placing(world, 16, &[1, 2, 3]);
    assert!(has_joined(&world, NodeId(4)));
    world.directory.all.get_mut(&NodeId(3)).unwrap().state = R;
    let record = world.directory.all[&NodeId(3)].clone();
    world.groups[0].members = voters(&[1, 2, 4]);
    assert!(!has_left(&world, &record), "it holds the keyspace");
    world.groups[1].members = voters(&[1, 2, 4]);
    assert!(has_left(&world, &record));
    let silent = world.groups.pop();
    assert!(!has_left(&world, &record), "who is in it is not known");
    assert_eq!(silent.unwrap().group, GroupId(16));
}

#[test]
fn leaders_of_many_keyspaces_are_spread_in_few_rounds() {
    let groups: Vec<_> = (16..46).map(|group| view(group, 1, voters(&[1, 2, 3]))).collect();
    let mut world = with_groups(world(&[A, A, A]), groups);
    for group in 16..46 {
        world = placing(world, group, &[1, 2, 3]);
    }
    let taken = settle(&mut world, 40);
    let loads = loads(&world);
    assert!(loads.values().all(|load| (9..=11).contains(load)), "{loads:?}");
    assert!(taken.len() <= 20, "none is moved to and fro: {}", taken.len());
}

#[test]
fn a_drained_node_hands_its_keyspaces_to_all_others_some_at_a_time() {
    let groups: Vec<_> = (16..56).map(|group| view(group, 1, voters(&[1, 2, 3]))).collect();
    let mut world = with_groups(world(&[D, A, A]), groups);
    for group in 16..56 {
        world = placing(world, group, &[1, 2, 3]);
    }
    let first = Planner::default().plan(&world);
    assert_eq!(first.len(), GROUP_STEPS_MAX);
    for step in &first {
        take(&mut world, step);
    }
    let loads = loads(&world);
    assert_eq!((loads[&NodeId(2)], loads[&NodeId(3)]), (8, 8));
}
