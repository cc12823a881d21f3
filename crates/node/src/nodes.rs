//! What nodes ask each other about the cluster's nodes.

use onefold_replica::MembershipChange;
use onefold_transport::{Method, MethodId};
use onefold_types::{GroupId, NodeId, Revision};

use crate::registry::Directory;

/// Asks another node for its registry, if it is later than this revision.
///
/// A node that was away, or does not belong to the system group yet or any more, learns in this way
/// what it cannot follow by itself: where the others are now, or that it was removed.
pub(crate) struct Exchange;

impl Method for Exchange {
    const ID: MethodId = MethodId(326);
    const NAME: &'static str = "node.exchange";
    type Request = Revision;
    type Response = Option<Directory>;
}

/// Tells a leader to have a group led by another node.
pub(crate) struct HandOver;

impl Method for HandOver {
    const ID: MethodId = MethodId(332);
    const NAME: &'static str = "node.hand_over";
    type Request = (GroupId, NodeId);
    type Response = ();
}

/// Tells a group's leader to change the group's members.
pub(crate) struct ChangeMembers;

impl Method for ChangeMembers {
    const ID: MethodId = MethodId(337);
    const NAME: &'static str = "node.change_members";
    type Request = (GroupId, MembershipChange);
    type Response = ();
}
