//! What may be changed about keyspaces: pure decisions, each from the catalog as it is to the records
//! that shall replace what they name.

use std::collections::BTreeSet;

use onefold_admin::{KeyspaceLimits, KeyspaceState, LimitsChange, NewKeyspace};
use onefold_types::{GroupId, NodeId};

use super::{Catalog, KEYSPACES_MAX, RESERVED_NAMES, Record};
use crate::records;

/// Most characters of a name: as many as a part of a host name may have.
const NAME_CHARS_MAX: usize = 63;

/// The lowest port that a keyspace may be given: lower ones need privileges.
const PORT_MIN: u16 = 1024;

/// Why keyspaces are not changed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The name breaks the rule.
    #[error(
        "{0:?} cannot be the name of a keyspace: it needs 1 to {NAME_CHARS_MAX} lower-case letters, \
         digits and hyphens, a letter first and no hyphen last"
    )]
    Name(String),
    /// The name means something else.
    #[error("{0:?} is a name of the cluster's own; choose another one")]
    Reserved(String),
    /// What every cluster has stays.
    #[error("{0:?} is the cluster's own and cannot be deleted")]
    Own(String),
    /// What bounds the cluster's own keyspaces is chosen elsewhere.
    #[error(
        "{0:?} is the cluster's own; its bounds are those that nodes are started with, as \
         --etcd-quota-bytes"
    )]
    OwnLimits(String),
    /// There is one of that name.
    #[error("there is a keyspace {name:?} already, and it is {}; choose another name", state.name())]
    Exists {
        /// The name.
        name: String,
        /// How far it is.
        state: KeyspaceState,
    },
    /// There is none of that name.
    #[error("there is no keyspace {0:?}; `onefold kv keyspace list` shows those that there are")]
    Unknown(String),
    /// There is one, and it does not serve.
    #[error("the keyspace {name:?} is {}; {hint}", state.name())]
    WrongState {
        /// The name.
        name: String,
        /// How far it is.
        state: KeyspaceState,
        /// What to do.
        hint: &'static str,
    },
    /// There are as many as there may be.
    #[error("the cluster has {KEYSPACES_MAX} keyspaces and takes no more; delete one first")]
    Full,
    /// The port can't be had on every node.
    #[error(
        "port {port} cannot be had on every node: nodes add up to {offset_max} to it, which passes \
         65535 or begins below {PORT_MIN}; choose another one"
    )]
    PortRange {
        /// The port.
        port: u16,
        /// The highest offset of a node.
        offset_max: u16,
    },
    /// Another keyspace has the port.
    #[error(
        "port {port} would meet that of the keyspace {name:?}, {other}, on some node; choose one \
         that is at least {} away", offset_max + 1
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Whose it is.
        name: String,
        /// The other keyspace's port.
        other: u16,
        /// The highest offset of a node.
        offset_max: u16,
    },
    /// No node can hold it.
    #[error("no active node answers that could hold a keyspace; see `onefold node list`")]
    NoNodes,
}

/// What is to be written, and what it means for who asked.
pub(crate) type Change<T = ()> = records::Change<Record, T>;

type Decision<T = ()> = Result<Change<T>, Refused>;

/// Begins a keyspace, which these nodes found; answers its group. `offset_max` is the highest port offset of a node.
pub(crate) fn create(
    catalog: &Catalog,
    new: &NewKeyspace,
    founders: &BTreeSet<NodeId>,
    offset_max: u16,
) -> Decision<GroupId> {
    check_name(&new.name)?;
    if let Some(record) = catalog.all.get(&new.name) {
        return Err(Refused::Exists { name: new.name.clone(), state: record.state });
    }
    if catalog.all.len() >= KEYSPACES_MAX {
        return Err(Refused::Full);
    }
    if let Some(port) = new.port {
        check_port(catalog, port, offset_max)?;
    }
    if founders.is_empty() {
        return Err(Refused::NoNodes);
    }
    let group = catalog.next_group();
    let record = Record {
        name: new.name.clone(),
        group,
        state: KeyspaceState::Creating,
        port: new.port,
        founders: founders.clone(),
        members: founders.clone(),
        limits: new.limits,
    };
    Ok(Change { next: Some(group.next().get()), ..Change::put(group, vec![record]) })
}

/// Whether a name may be given.
///
/// # Errors
/// Why not.
pub(crate) fn check_name(name: &str) -> Result<(), Refused> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_good = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-');
    if !is_good {
        return Err(Refused::Name(name.to_owned()));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(Refused::Reserved(name.to_owned()));
    }
    Ok(())
}

fn check_port(catalog: &Catalog, port: u16, offset_max: u16) -> Result<(), Refused> {
    if port < PORT_MIN || port.checked_add(offset_max).is_none() {
        return Err(Refused::PortRange { port, offset_max });
    }
    for record in catalog.all.values() {
        if let Some(other) = record.port.filter(|other| other.abs_diff(port) <= offset_max) {
            let name = record.name.clone();
            return Err(Refused::PortTaken { port, name, other, offset_max });
        }
    }
    Ok(())
}

/// A keyspace's group has a leader: it serves from now on.
pub(crate) fn activate(catalog: &Catalog, name: &str, group: GroupId) -> Decision {
    advance(catalog, name, group, KeyspaceState::Creating, KeyspaceState::Active)
}

/// A keyspace that could not be formed is given up.
pub(crate) fn roll_back(catalog: &Catalog, name: &str, group: GroupId) -> Decision {
    advance(catalog, name, group, KeyspaceState::Creating, KeyspaceState::Deleting)
}

fn advance(
    catalog: &Catalog,
    name: &str,
    group: GroupId,
    from: KeyspaceState,
    to: KeyspaceState,
) -> Decision {
    match catalog.all.get(name) {
        Some(record) if record.state == from && record.group == group => {
            Ok(Change::put((), vec![Record { state: to, ..record.clone() }]))
        }
        // Somebody else changed it meanwhile, and knew why.
        _ => Ok(Change::none(())),
    }
}

/// Begins to delete a keyspace.
pub(crate) fn delete(catalog: &Catalog, name: &str) -> Decision {
    if RESERVED_NAMES.contains(&name) {
        return Err(Refused::Own(name.to_owned()));
    }
    let record = catalog.all.get(name).ok_or_else(|| Refused::Unknown(name.to_owned()))?;
    if record.state == KeyspaceState::Deleting {
        return Ok(Change::none(()));
    }
    Ok(Change::put((), vec![Record { state: KeyspaceState::Deleting, ..record.clone() }]))
}

/// Changes what bounds a keyspace.
pub(crate) fn set_limits(catalog: &Catalog, wanted: &LimitsChange) -> Decision {
    let name = &wanted.name;
    if RESERVED_NAMES.contains(&name.as_str()) {
        return Err(Refused::OwnLimits(name.clone()));
    }
    let record = catalog.all.get(name).ok_or_else(|| Refused::Unknown(name.clone()))?;
    if record.state == KeyspaceState::Deleting {
        let (name, state) = (name.clone(), record.state);
        return Err(Refused::WrongState { name, state, hint: "what was in it is gone" });
    }
    let limits = KeyspaceLimits {
        quota_bytes: wanted.quota_bytes.unwrap_or(record.limits.quota_bytes),
        history: wanted.history.unwrap_or(record.limits.history),
    };
    if limits == record.limits {
        return Ok(Change::none(()));
    }
    Ok(Change::put((), vec![Record { limits, ..record.clone() }]))
}

/// A deleted keyspace is on no node any more: its name is free again, its group's number is not.
pub(crate) fn forget(catalog: &Catalog, name: &str, group: GroupId) -> Decision {
    match catalog.all.get(name) {
        Some(record) if record.state == KeyspaceState::Deleting && record.group == group => {
            let remove = vec![name.to_owned()];
            // Written again so that whoever read the record before sees that something changed.
            Ok(Change { remove, next: Some(catalog.next_group().get()), ..Change::none(()) })
        }
        _ => Ok(Change::none(())),
    }
}

/// Other nodes shall hold a keyspace's replicas.
pub(crate) fn place(
    catalog: &Catalog,
    name: &str,
    group: GroupId,
    members: &BTreeSet<NodeId>,
) -> Decision {
    match catalog.all.get(name) {
        Some(record) if record.group == group && record.members != *members => {
            Ok(Change::put((), vec![Record { members: members.clone(), ..record.clone() }]))
        }
        _ => Ok(Change::none(())),
    }
}

/// The group of a keyspace that serves.
///
/// # Errors
/// When there is none.
pub(crate) fn serving(catalog: &Catalog, name: &str) -> Result<GroupId, Refused> {
    let record = catalog.all.get(name).ok_or_else(|| Refused::Unknown(name.to_owned()))?;
    let hint = match record.state {
        KeyspaceState::Active => return Ok(record.group),
        KeyspaceState::Creating => "try again in a moment",
        KeyspaceState::Deleting => "what was in it is gone",
    };
    Err(Refused::WrongState { name: name.to_owned(), state: record.state, hint })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use onefold_admin::History;

    use super::*;

    fn new(name: &str, port: Option<u16>) -> NewKeyspace {
        NewKeyspace { name: name.to_owned(), port, limits: KeyspaceLimits::default() }
    }

    fn nodes() -> BTreeSet<NodeId> {
        [1, 2, 3].map(NodeId).into()
    }

    fn created(catalog: &mut Catalog, name: &str, port: Option<u16>) -> GroupId {
        let change = create(catalog, &new(name, port), &nodes(), 8);
        catalog.apply(change.unwrap())
    }

    #[test]
    fn a_keyspace_comes_serves_and_goes_and_its_number_is_never_given_again() {
        let mut catalog = Catalog::default();
        let group = created(&mut catalog, "a", None);
        assert_eq!(group, GroupId(16));
        assert!(matches!(serving(&catalog, "a"), Err(Refused::WrongState { .. })));
        let change = activate(&catalog, "a", group).unwrap();
        catalog.apply(change);
        assert_eq!(serving(&catalog, "a"), Ok(group));
        assert!(activate(&catalog, "a", group).unwrap().is_empty(), "twice changes nothing");
        assert!(roll_back(&catalog, "a", group).unwrap().is_empty(), "it serves");
        assert!(forget(&catalog, "a", group).unwrap().is_empty(), "nobody deleted it");
        let change = delete(&catalog, "a").unwrap();
        catalog.apply(change);
        assert!(delete(&catalog, "a").unwrap().is_empty());
        assert!(!catalog.is_gone(group));
        let change = forget(&catalog, "a", group).unwrap();
        catalog.apply(change);
        assert!(catalog.is_gone(group));
        assert_eq!(serving(&catalog, "a"), Err(Refused::Unknown("a".to_owned())));
        assert_eq!(created(&mut catalog, "a", None), GroupId(17));
        assert!(forget(&catalog, "a", group).unwrap().is_empty(), "that is another one");
    }

    #[test]
    fn names_are_parts_of_host_names_and_none_of_the_clusters_own() {
        for name in ["a", "a1", "team-a", &"x".repeat(63)] {
            check_name(name).unwrap();
        }
        for name in ["", "A", "1a", "-a", "a-", "a.b", "a/b", "ä", &"x".repeat(64)] {
            assert_eq!(check_name(name), Err(Refused::Name(name.to_owned())));
        }
        for name in RESERVED_NAMES {
            assert_eq!(check_name(name), Err(Refused::Reserved(name.to_owned())));
        }
    }

    #[test]
    fn ports_of_two_keyspaces_meet_on_no_node() {
        let mut catalog = Catalog::default();
        created(&mut catalog, "a", Some(4000));
        let refused = create(&catalog, &new("b", Some(4008)), &nodes(), 8);
        assert!(matches!(refused, Err(Refused::PortTaken { .. })), "{refused:?}");
        let refused = create(&catalog, &new("b", Some(3992)), &nodes(), 8);
        assert!(matches!(refused, Err(Refused::PortTaken { .. })), "{refused:?}");
        created(&mut catalog, "b", Some(4009));
        for port in [0, 80, 65_530] {
            let refused = create(&catalog, &new("c", Some(port)), &nodes(), 8);
            assert!(matches!(refused, Err(Refused::PortRange { .. })), "{refused:?}");
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let mut catalog = Catalog::default();
        for number in 0..KEYSPACES_MAX {
            created(&mut catalog, &format!("k{number}"), None);
        }
        assert_eq!(create(&catalog, &new("b", None), &nodes(), 0), Err(Refused::Full));
        let twice = create(&catalog, &new("k7", None), &nodes(), 0);
        assert!(matches!(twice, Err(Refused::Exists { .. })));
        let nobody = create(&Catalog::default(), &new("b", None), &BTreeSet::new(), 0);
        assert_eq!(nobody, Err(Refused::NoNodes));
    }

    #[test]
    fn limits_change_one_by_one_and_can_be_given_up() {
        let mut catalog = Catalog::default();
        created(&mut catalog, "a", None);
        let quota = |quota_bytes| LimitsChange {
            name: "a".to_owned(),
            quota_bytes: Some(quota_bytes),
            history: None,
        };
        let change = set_limits(&catalog, &quota(Some(7))).unwrap();
        catalog.apply(change);
        let history = Some(Some(History::Revisions(5)));
        let wanted = LimitsChange { name: "a".to_owned(), quota_bytes: None, history };
        let change = set_limits(&catalog, &wanted).unwrap();
        catalog.apply(change);
        let both = KeyspaceLimits { quota_bytes: Some(7), history: Some(History::Revisions(5)) };
        assert_eq!(catalog.all["a"].limits, both);
        assert!(set_limits(&catalog, &wanted).unwrap().is_empty(), "it is so already");
        let change = set_limits(&catalog, &quota(None)).unwrap();
        catalog.apply(change);
        assert_eq!(catalog.all["a"].limits.quota_bytes, None);
        let unknown = LimitsChange { name: "b".to_owned(), ..LimitsChange::default() };
        assert_eq!(set_limits(&catalog, &unknown), Err(Refused::Unknown("b".to_owned())));
        let own = LimitsChange { name: "default".to_owned(), ..LimitsChange::default() };
        assert_eq!(set_limits(&catalog, &own), Err(Refused::OwnLimits("default".to_owned())));
    }

    #[test]
    fn the_clusters_own_keyspace_is_not_deleted() {
        let refused = delete(&Catalog::default(), "default");
        assert_eq!(refused, Err(Refused::Own("default".to_owned())));
        let refused = delete(&Catalog::default(), "other");
        assert_eq!(refused, Err(Refused::Unknown("other".to_owned())));
    }
}
