//! What nodes ask each other about the cluster's nodes.

use onefold_replica::MembershipChange;
use onefold_transport::methods;
use onefold_types::{GroupId, NodeId, Revision};

use crate::registry::Directory;

methods! {
    /// Asks another node for its registry, if it is later than this revision.
    ///
    /// A node that was away, or does not belong to the system group yet or any more, learns in this way
    /// what it cannot follow by itself: where the others are now, or that it was removed.
    326 pub(crate) Exchange "node.exchange" Revision => Option<Directory>;
    /// Tells a leader to have a group led by another node.
    332 pub(crate) HandOver "node.hand_over" (GroupId, NodeId) => ();
    /// Tells a group's leader to change the group's members.
    337 pub(crate) ChangeMembers "node.change_members" (GroupId, MembershipChange) => ();
}
