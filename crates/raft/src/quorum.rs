//! Majorities (§5.2, §5.4). Pure counting; a joint configuration is two of these.

use std::collections::{BTreeMap, BTreeSet};

use onefold_types::NodeId;

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

/// The greatest value that a majority of the voters has reached; `None` without voters.
pub(crate) fn reached<T: Ord + Copy>(
    voters: &BTreeSet<NodeId>,
    value_of: impl Fn(NodeId) -> T,
) -> Option<T> {
    // Groups have a handful of voters: counting beats sorting and needs no memory.
    let majority = majority(voters.len());
    let at_least = |value: T| voters.iter().filter(|&&id| value_of(id) >= value).count();
    voters.iter().map(|&id| value_of(id)).filter(|&value| at_least(value) >= majority).max()
}

/// How the votes stand; votes of nodes that are no voters do not count.
pub(crate) fn tally(voters: &BTreeSet<NodeId>, votes: &BTreeMap<NodeId, bool>) -> Tally {
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

    fn voters(count: u64) -> BTreeSet<NodeId> {
        (1..=count).map(NodeId).collect()
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
        assert_eq!(reached(&BTreeSet::new(), |_| 1), None);
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
}
