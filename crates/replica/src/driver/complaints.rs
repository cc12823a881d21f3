//! What is wrong with what others send: each kind is logged once for each sender, and counted always.

use std::collections::BTreeSet;

use onefold_types::NodeId;

/// Most pairs of sender and kind that are remembered; further ones are only counted.
const COMPLAINTS_MAX: usize = 1024;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Complaint {
    /// A frame that does not decode.
    Frame,
    /// A message that breaks a rule of the protocol.
    Message,
    /// A message of a second leader of one term.
    TwoLeaders,
    /// A message of a group that is not here.
    UnknownGroup,
    /// An answer of a node that is no member.
    NotMember,
}

/// What was logged already.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    seen: BTreeSet<(NodeId, Complaint)>,
}

impl Complaints {
    /// Whether this is the first of its kind from this sender.
    pub(super) fn is_first(&mut self, from: NodeId, complaint: Complaint) -> bool {
        self.seen.len() < COMPLAINTS_MAX && self.seen.insert((from, complaint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_logged_once_for_each_sender_and_a_flood_of_senders_not_at_all() {
        let mut complaints = Complaints::default();
        for (node, complaint) in [
            (NodeId(1), Complaint::Frame),
            (NodeId(2), Complaint::Frame),
            (NodeId(1), Complaint::UnknownGroup),
        ] {
            assert!(complaints.is_first(node, complaint));
            assert!(!complaints.is_first(node, complaint));
        }
        let logged = (0..).map(NodeId).take(10_000);
        let logged = logged.filter(|node| complaints.is_first(*node, Complaint::Message));
        assert_eq!(logged.count(), COMPLAINTS_MAX - 3);
    }
}
