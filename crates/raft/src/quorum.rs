//! Majorities (§5.2, §5.4). Pure counting; a joint configuration is two of these.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::NodeId;

use crate::membership::Membership;

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// A majority granted.
    Won,
    /// A majority refused.
    Lost,
    /// Neither yet.
    Open,
}

/// The number of voters that two majorities always have one of in common.
pub(crate) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority of the voters has reached, in a joint configuration a
/// majority of either set (§6); `None` without voters.
pub(crate) fn reached<T: Ord + Copy>(
    membership: &Membership,
    value_of: impl Fn(NodeId) -> T,
) -> Option<T> {
    let incoming = reached_by_majority(&membership.voters, &value_of);
    if membership.is_joint() {
        incoming.min(reached_by_majority(&membership.outgoing, &value_of))
    } else {
        incoming
    }
}

fn reached_by_majority<T: Ord + Copy>(
    voters: &BTreeSet<NodeId>,
    value_of: impl Fn(NodeId) -> T,
) -> Option<T> {
    // Groups have a handful of voters: counting beats sorting and needs no memory.
    let majority = majority(voters.len());
    let at_least = |value: T| voters.iter().filter(|&&id| value_of(id) >= value).count();
    voters.iter().map(|&id| value_of(id)).filter(|&value| at_least(value) >= majority).max()
}

/// How the votes stand; votes of nodes that are no voters do not count. In a joint configuration
/// an election needs both majorities (§6).
pub(crate) fn tally(membership: &Membership, votes: &BTreeMap<NodeId, bool>) -> Tally {
    let incoming = tally_of(&membership.voters, votes);
    if !membership.is_joint() {
        return incoming;
    }
    match (incoming, tally_of(&membership.outgoing, votes)) {
        (Tally::Won, Tally::Won) => Tally::Won,
        (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
        _ => Tally::Open,
    }
}

fn tally_of(voters: &BTreeSet<NodeId>, votes: &BTreeMap<NodeId, bool>) -> Tally {
    let count = |wanted: bool| voters.iter().filter(|&id| votes.get(id) == Some(&wanted)).count();
    let majority = majority(voters.len());
    if count(true) >= majority {
        Tally::Won
    } else if voters.len() - count(false) < majority {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(count: u64) -> Membership {
        Membership::of_voters((1..=count).map(NodeId))
    }

    #[test]
    fn reached_is_the_value_that_a_majority_has() {
        let cases: [(&[u64], u64); 6] = [
            (&[7], 7),
            (&[7, 3], 3),
            (&[7, 3, 5], 5),
            (&[7, 3, 5, 4], 4),
            (&[9, 9, 1, 1, 1], 1),
            (&[9, 1, 8, 1, 7], 7),
        ];
        for (values, expected) in cases {
            let reached = reached(&voters(values.len() as u64), |id| values[id.0 as usize - 1]);
            assert_eq!(reached, Some(expected), "{values:?}");
        }
        assert_eq!(reached(&Membership::default(), |_| 1), None);
    }

    #[test]
    fn tally_needs_a_majority_either_way() {
        let votes = |granted: &[u64], refused: &[u64]| {
            let granted = granted.iter().map(|&id| (NodeId(id), true));
            granted.chain(refused.iter().map(|&id| (NodeId(id), false))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(tally(&voters(1), &votes(&[], &[])), Tally::Open);
        assert_eq!(tally(&voters(1), &votes(&[1], &[])), Tally::Won);
        assert_eq!(tally(&voters(3), &votes(&[1], &[2])), Tally::Open);
        assert_eq!(tally(&voters(3), &votes(&[1, 2], &[3])), Tally::Won);
        assert_eq!(tally(&voters(3), &votes(&[1], &[2, 3])), Tally::Lost);
        assert_eq!(tally(&voters(4), &votes(&[1, 2], &[3])), Tally::Open);
        assert_eq!(tally(&voters(4), &votes(&[1, 2], &[3, 4])), Tally::Lost);
        assert_eq!(tally(&voters(3), &votes(&[1, 8, 9], &[])), Tally::Open, "strangers");
    }

    fn joint(voters: &[u64], outgoing: &[u64]) -> Membership {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Membership { voters: ids(voters), outgoing: ids(outgoing), ..Membership::default() }
    }

    #[test]
    fn a_joint_configuration_reaches_what_both_majorities_have() {
        let value = |id: NodeId| [9, 8, 1, 7, 2][id.0 as usize - 1];
        assert_eq!(reached(&joint(&[3, 4, 5], &[1, 2, 3]), value), Some(2));
        assert_eq!(reached(&joint(&[1, 2, 3], &[3, 4, 5]), value), Some(2));
        assert_eq!(reached(&joint(&[1, 2], &[1]), value), Some(8));
    }

    #[test]
    fn a_joint_election_needs_both_majorities() {
        let joint = joint(&[3, 4, 5], &[1, 2, 3]);
        let of = |granted: &[u64], refused: &[u64]| {
            let granted = granted.iter().map(|&id| (NodeId(id), true));
            let refused = refused.iter().map(|&id| (NodeId(id), false));
            tally(&joint, &granted.chain(refused).collect())
        };
        assert_eq!(of(&[3, 4, 5], &[]), Tally::Open, "one majority is not enough");
        assert_eq!(of(&[1, 2, 3], &[]), Tally::Open, "one majority is not enough");
        assert_eq!(of(&[2, 3, 4], &[]), Tally::Won);
        assert_eq!(of(&[3, 4, 5], &[1, 2]), Tally::Lost, "one refusal is enough");
    }
}
