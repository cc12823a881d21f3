//! What may be changed about the registry: pure decisions, each from the registry as it is to the
//! records that shall replace what they name.

use onefold_admin::NodeState;
use onefold_types::NodeId;

use super::{Directory, Record};
use crate::folder::Formed;
use crate::records;

/// Most nodes that a cluster has at once, invited ones included. Every node follows all of them.
pub(crate) const NODES_MAX: usize = 500;

/// Nodes that have to be active beside one that is drained.
const ACTIVE_NODES_MIN: usize = 2;

/// Why the registry is not changed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeRefused {
    /// No such node.
    #[error("the cluster has no node {0}; `onefold node list` shows its nodes")]
    Unknown(NodeId),
    /// The node left for good.
    #[error(
        "node {0} was removed from the cluster, and its number is not given again; let the machine \
         join as a new node on an empty data folder"
    )]
    Removed(NodeId),
    /// Nobody could connect to it.
    #[error("{0:?} is no address; write it as HOST:PORT")]
    NoAddress(String),
    /// Another process answers at the address.
    #[error(
        "{address} belongs to node {node}; choose another address, or say --replace {node} if the \
         new node takes its place"
    )]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        node: NodeId,
    },
    /// Another node takes that place already.
    #[error("node {by} already takes the place of node {node}")]
    ReplacedAlready {
        /// The node whose place is wanted.
        node: NodeId,
        /// Who has it.
        by: NodeId,
    },
    /// The formed cluster has no registry yet.
    #[error("the cluster was just formed and has not listed its nodes yet; try again in a moment")]
    NotReady,
    /// There are as many nodes as there may be.
    #[error("the cluster has {NODES_MAX} nodes, invited ones included, and takes no more")]
    Full,
    /// Nobody would be left.
    #[error(
        "node {0} is the only one that is to stay in the cluster; add another node first, or stop \
         the process if the cluster shall end"
    )]
    Last(NodeId),
    /// What is asked does not fit the node's state.
    #[error("node {node} is {}: {hint}", state.name())]
    WrongState {
        /// The node.
        node: NodeId,
        /// What it is.
        state: NodeState,
        /// What to do.
        hint: &'static str,
    },
}

/// What is to be written, and what it means for who asked.
pub(crate) type Change<T> = records::Change<Record, T>;

type Decision<T> = Result<Change<T>, ChangeRefused>;

/// The first records of a cluster that was just formed.
pub(crate) fn bootstrap(formed: &Formed) -> Change<()> {
    let known = Directory::of_folder(formed);
    let founders = formed.founders();
    let next = founders.last().copied().unwrap_or_default().next();
    let put = known.all.into_values().filter(|record| founders.contains(&record.id)).collect();
    Change { next: Some(next.get()), ..Change::put((), put) }
}

/// Lets a node in: one that is known by its folder, one that was invited to its address, or a new
/// one. Who had the address before has lost its folder, and goes.
pub(crate) fn admit(directory: &Directory, incarnation: u64, address: &str) -> Decision<NodeId> {
    if let Some(known) =
        directory.all.values().find(|record| record.incarnation == Some(incarnation))
    {
        return readmit(directory, known, address);
    }
    let at_address = |record: &&Record| record.address == address;
    let invitation = directory.having(|state| state == NodeState::Invited).find(at_address);
    let former = directory.having(NodeState::is_member).find(at_address);
    let replaces = invitation
        .and_then(|record| record.replaces)
        .or(former.map(|record| record.id))
        .filter(|node| directory.state(*node).is_some_and(NodeState::is_member));
    let id = match invitation {
        Some(record) => record.id,
        None => new_id(directory)?,
    };
    let newcomer = Record {
        id,
        address: address.to_owned(),
        incarnation: Some(incarnation),
        state: NodeState::Joining,
        replaces,
        force: false,
        is_learner: invitation.is_some_and(|record| record.is_learner),
    };
    let mut put = vec![newcomer];
    let planned = replaces.and_then(|node| directory.all.get(&node));
    for old in [former, planned.filter(|old| old.address != address)].into_iter().flatten() {
        // What a wiped folder held is gone; a node that still runs hands its chunks over first.
        let force = old.force || old.address == address;
        put.push(Record { state: NodeState::Removing, force, ..old.clone() });
    }
    Ok(numbered(directory, id, put))
}

fn readmit(directory: &Directory, known: &Record, address: &str) -> Decision<NodeId> {
    if known.state == NodeState::Removed {
        return Err(ChangeRefused::Removed(known.id));
    }
    if known.address == address {
        return Ok(Change::none(known.id));
    }
    let taken = directory.members().find(|record| record.address == address);
    if let Some(record) = taken {
        let (address, node) = (address.to_owned(), record.id);
        return Err(ChangeRefused::AddressTaken { address, node });
    }
    let moved = Record { address: address.to_owned(), ..known.clone() };
    Ok(Change::put(known.id, vec![moved]))
}

fn new_id(directory: &Directory) -> Result<NodeId, ChangeRefused> {
    let present = directory.having(|state| state != NodeState::Removed).count();
    if present >= NODES_MAX {
        return Err(ChangeRefused::Full);
    }
    Ok(NodeId(directory.next))
}

/// Writes records of a node whose number may be a new one.
fn numbered(directory: &Directory, id: NodeId, put: Vec<Record>) -> Change<NodeId> {
    let next = (id.get() >= directory.next).then(|| id.next().get());
    Change { next, ..Change::put(id, put) }
}

/// Notes that a node may come to an address, and whose place it takes.
pub(crate) fn invite(
    directory: &Directory,
    address: &str,
    replaces: Option<NodeId>,
    is_learner: bool,
) -> Decision<NodeId> {
    if !has_host_and_port(address) {
        return Err(ChangeRefused::NoAddress(address.to_owned()));
    }
    if let Some(node) = replaces {
        match directory.state(node) {
            None => return Err(ChangeRefused::Unknown(node)),
            Some(NodeState::Removed) => return Err(ChangeRefused::Removed(node)),
            Some(NodeState::Invited) => {
                let hint = "only a node that came can be replaced; remove the invitation";
                let state = NodeState::Invited;
                return Err(ChangeRefused::WrongState { node, state, hint });
            }
            Some(_) => {}
        }
        if let Some(by) = directory.replacement(node) {
            return Err(ChangeRefused::ReplacedAlready { node, by: by.id });
        }
    }
    let here = |record: &&Record| record.address == address;
    if let Some(record) = directory.members().find(here)
        && replaces != Some(record.id)
    {
        let (address, node) = (address.to_owned(), record.id);
        return Err(ChangeRefused::AddressTaken { address, node });
    }
    let before = directory.having(|state| state == NodeState::Invited).find(here);
    let id = match before {
        Some(record) if record.replaces == replaces && record.is_learner == is_learner => {
            return Ok(Change::none(record.id));
        }
        Some(record) => record.id,
        None => new_id(directory)?,
    };
    let invitation = Record {
        id,
        address: address.to_owned(),
        incarnation: None,
        state: NodeState::Invited,
        replaces,
        force: false,
        is_learner,
    };
    Ok(numbered(directory, id, vec![invitation]))
}

fn has_host_and_port(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// Lets a learner have a vote.
pub(crate) fn promote(directory: &Directory, node: NodeId) -> Decision<()> {
    let record = directory.all.get(&node).ok_or(ChangeRefused::Unknown(node))?;
    match record.state {
        NodeState::Removing | NodeState::Removed => Err(ChangeRefused::Removed(node)),
        _ if !record.is_learner => {
            let hint = "it gets a vote by itself as soon as a group has a seat for it";
            Err(ChangeRefused::WrongState { node, state: record.state, hint })
        }
        _ => replace(record, Record { is_learner: false, ..record.clone() }),
    }
}

/// Notes where a node is reached.
pub(crate) fn relocate(directory: &Directory, node: NodeId, address: &str) -> Decision<()> {
    let record = directory.all.get(&node).ok_or(ChangeRefused::Unknown(node))?;
    let mut others = directory.having(|state| state != NodeState::Removed);
    if let Some(other) = others.find(|other| other.address == address && other.id != node) {
        let (address, node) = (address.to_owned(), other.id);
        return Err(ChangeRefused::AddressTaken { address, node });
    }
    replace(record, Record { address: address.to_owned(), ..record.clone() })
}

/// Begins to remove a node; an invitation is taken back at once.
pub(crate) fn retire(directory: &Directory, node: NodeId, force: bool) -> Decision<()> {
    let record = directory.all.get(&node).ok_or(ChangeRefused::Unknown(node))?;
    let state = match record.state {
        NodeState::Removed => return Ok(Change::none(())),
        NodeState::Invited => NodeState::Removed,
        NodeState::Joining | NodeState::Active | NodeState::Draining | NodeState::Removing => {
            NodeState::Removing
        }
    };
    let mut others = directory.having(NodeState::is_staying).filter(|other| other.id != node);
    if state == NodeState::Removing && others.next().is_none() {
        return Err(ChangeRefused::Last(node));
    }
    replace(record, Record { state, force: record.force || force, ..record.clone() })
}

/// Begins to drain a node, or makes it an active one again.
pub(crate) fn drain(directory: &Directory, node: NodeId, undo: bool) -> Decision<()> {
    let record = directory.all.get(&node).ok_or(ChangeRefused::Unknown(node))?;
    let wrong = |hint| ChangeRefused::WrongState { node, state: record.state, hint };
    let state = match (record.state, undo) {
        (NodeState::Active | NodeState::Draining, true) => NodeState::Active,
        (NodeState::Active | NodeState::Draining, false) => NodeState::Draining,
        (NodeState::Invited, _) => return Err(wrong("it has not come yet")),
        (NodeState::Joining, _) => return Err(wrong("wait until it has joined")),
        (NodeState::Removing, _) => return Err(wrong("that drains it as well")),
        (NodeState::Removed, _) => return Err(ChangeRefused::Removed(node)),
    };
    let others = directory.having(|state| state == NodeState::Active);
    let others = others.filter(|other| other.id != node).count();
    if state == NodeState::Draining && others < ACTIVE_NODES_MIN {
        let hint = "two other nodes have to be active, or files would have one copy only; add a \
                    node, or make a drained one active again";
        return Err(wrong(hint));
    }
    replace(record, Record { state, ..record.clone() })
}

/// A node that was joining has all that nodes have.
pub(crate) fn settle(directory: &Directory, node: NodeId) -> Decision<()> {
    advance(directory, node, NodeState::Joining, NodeState::Active)
}

/// A node that was being removed has left every group.
pub(crate) fn bury(directory: &Directory, node: NodeId) -> Decision<()> {
    advance(directory, node, NodeState::Removing, NodeState::Removed)
}

fn advance(directory: &Directory, node: NodeId, from: NodeState, to: NodeState) -> Decision<()> {
    match directory.all.get(&node) {
        Some(record) if record.state == from => {
            replace(record, Record { state: to, ..record.clone() })
        }
        // Somebody else changed it meanwhile, and knew why.
        _ => Ok(Change::none(())),
    }
}

fn replace(before: &Record, after: Record) -> Decision<()> {
    let put = if *before == after { Vec::new() } else { vec![after] };
    Ok(Change::put((), put))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use onefold_types::ClusterId;

    use super::*;
    use crate::folder::Member;

    /// Three founders at h:1 to h:3 with incarnations 101 to 103.
    fn directory() -> Directory {
        let members = (1..=3).map(|id| Member {
            id: NodeId(id),
            address: format!("h:{id}"),
            incarnation: 100 + id,
        });
        let mut directory = Directory::default();
        directory.apply(bootstrap(&Formed::by(ClusterId(7), members.collect())));
        directory
    }

    fn run<T>(directory: &mut Directory, decision: Decision<T>) -> T {
        directory.apply(decision.unwrap())
    }

    fn states(directory: &Directory) -> Vec<(u64, NodeState)> {
        directory.all.values().map(|record| (record.id.get(), record.state)).collect()
    }

    #[test]
    fn a_newcomer_gets_a_new_number_and_the_same_one_when_it_asks_again() {
        let mut directory = directory();
        let decision = admit(&directory, 55, "h:4");
        assert_eq!(run(&mut directory, decision), NodeId(4));
        let again = admit(&directory, 55, "h:4").unwrap();
        assert_eq!((again.answer, again.put.len()), (NodeId(4), 0));
        assert_eq!(directory.state(NodeId(4)), Some(NodeState::Joining));
        let moved = admit(&directory, 55, "h:44").unwrap();
        assert_eq!(moved.put[0].address, "h:44");
        assert!(matches!(
            admit(&directory, 55, "h:1"),
            Err(ChangeRefused::AddressTaken { node: NodeId(1), .. })
        ));
    }

    #[test]
    fn a_wiped_member_comes_back_as_another_node_and_its_old_self_goes() {
        let mut directory = directory();
        let decision = admit(&directory, 55, "h:2");
        assert_eq!(run(&mut directory, decision), NodeId(4));
        assert_eq!(directory.all[&NodeId(4)].replaces, Some(NodeId(2)));
        assert_eq!(directory.state(NodeId(2)), Some(NodeState::Removing));
        assert!(directory.all[&NodeId(2)].force, "its chunks are gone with its folder");
        assert_eq!(directory.replacement(NodeId(2)).unwrap().id, NodeId(4));
        assert_eq!(admit(&directory, 102, "h:2").unwrap().answer, NodeId(2), "until it is gone");
        let decision = bury(&directory, NodeId(2));
        run(&mut directory, decision);
        assert_eq!(admit(&directory, 102, "h:2"), Err(ChangeRefused::Removed(NodeId(2))));
    }

    #[test]
    fn an_invited_node_takes_the_number_and_the_place_it_was_invited_to() {
        let mut directory = directory();
        let decision = invite(&directory, "h:9", Some(NodeId(3)), false);
        assert_eq!(run(&mut directory, decision), NodeId(4));
        assert_eq!(directory.state(NodeId(3)), Some(NodeState::Active), "until somebody comes");
        assert!(invite(&directory, "h:9", Some(NodeId(3)), false).unwrap().put.is_empty());
        let decision = admit(&directory, 55, "h:9");
        assert_eq!(run(&mut directory, decision), NodeId(4));
        assert_eq!(directory.state(NodeId(3)), Some(NodeState::Removing));
        assert!(!directory.all[&NodeId(3)].force, "it still runs and has chunks to hand over");
        let again = invite(&directory, "h:10", Some(NodeId(3)), false);
        let by = NodeId(4);
        assert_eq!(again, Err(ChangeRefused::ReplacedAlready { node: NodeId(3), by }));
    }

    #[test]
    fn nobody_is_invited_to_what_is_no_address() {
        for address in ["h", "h:", ":9", "h:0", "h:65536", ""] {
            let refused = Err(ChangeRefused::NoAddress(address.to_owned()));
            assert_eq!(invite(&directory(), address, None, false), refused);
        }
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let mut directory = directory();
        for expected in 4..8 {
            let decision = admit(&directory, 50 + expected, "h:4");
            let node = run(&mut directory, decision);
            assert_eq!(node, NodeId(expected));
            for decide in [retire(&directory, node, true), bury(&directory, node)] {
                run(&mut directory, decide);
            }
            let decision = bury(&directory, node);
            run(&mut directory, decision);
            assert_eq!(directory.state(node), Some(NodeState::Removed));
        }
    }

    #[test]
    fn an_invitation_to_a_members_address_has_to_say_that_it_replaces_it() {
        let directory = directory();
        let (address, node) = ("h:2".to_owned(), NodeId(2));
        let taken = ChangeRefused::AddressTaken { address, node };
        assert_eq!(invite(&directory, "h:2", None, false), Err(taken));
        assert!(invite(&directory, "h:2", Some(NodeId(2)), false).is_ok());
        let unknown = invite(&directory, "h:9", Some(NodeId(8)), false);
        assert_eq!(unknown, Err(ChangeRefused::Unknown(NodeId(8))));
    }

    #[test]
    fn the_last_node_stays_and_an_invitation_goes_at_once() {
        let mut directory = directory();
        for node in [1, 2] {
            let decision = retire(&directory, NodeId(node), false);
            run(&mut directory, decision);
        }
        assert_eq!(retire(&directory, NodeId(3), true), Err(ChangeRefused::Last(NodeId(3))));
        let decision = invite(&directory, "h:9", None, false);
        run(&mut directory, decision);
        let decision = retire(&directory, NodeId(4), false);
        run(&mut directory, decision);
        use NodeState::{Active, Removed, Removing};
        assert_eq!(states(&directory), [(1, Removing), (2, Removing), (3, Active), (4, Removed)]);
    }

    #[test]
    fn draining_can_be_taken_back_and_needs_two_other_active_nodes() {
        let mut directory = directory();
        let decision = drain(&directory, NodeId(1), false);
        run(&mut directory, decision);
        assert!(matches!(
            drain(&directory, NodeId(3), false),
            Err(ChangeRefused::WrongState { node: NodeId(3), .. })
        ));
        let decision = drain(&directory, NodeId(1), true);
        run(&mut directory, decision);
        assert!(drain(&directory, NodeId(3), false).is_ok());
    }

    #[test]
    fn a_learner_stays_one_until_it_is_promoted() {
        let mut directory = directory();
        let decision = invite(&directory, "h:9", None, true);
        let node = run(&mut directory, decision);
        let decision = admit(&directory, 55, "h:9");
        assert_eq!(run(&mut directory, decision), node);
        assert!(directory.all[&node].is_learner, "it came as what it was invited as");
        let decision = promote(&directory, node);
        run(&mut directory, decision);
        assert!(!directory.all[&node].is_learner);
        assert!(matches!(promote(&directory, node), Err(ChangeRefused::WrongState { .. })));
        assert_eq!(promote(&directory, NodeId(77)), Err(ChangeRefused::Unknown(NodeId(77))));
    }

    #[test]
    fn a_node_moves_to_an_address_that_no_other_has() {
        let mut directory = directory();
        let decision = relocate(&directory, NodeId(2), "h:22");
        run(&mut directory, decision);
        assert_eq!(directory.all[&NodeId(2)].address, "h:22");
        assert!(relocate(&directory, NodeId(2), "h:22").unwrap().put.is_empty());
        let (address, node) = ("h:1".to_owned(), NodeId(1));
        let taken = ChangeRefused::AddressTaken { address, node };
        assert_eq!(relocate(&directory, NodeId(2), "h:1"), Err(taken));
    }
}
