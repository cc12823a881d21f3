//! What should be done about replicas: decisions without I/O, from the namespace's records, the
//! chunkservers' reports, and who is alive.

use std::collections::BTreeSet;

use onefold_types::limits::CHUNK_REPLICAS;
use onefold_types::{ChunkId, ChunkVersion, NodeId};

use crate::chunk::ReplicaReport;
use crate::namespace::{ChunkRecord, ChunkState};

/// How long a seal waits for a second replica.
const SEAL_PATIENCE_MS: u64 = 60_000;

/// What a report asks the leader to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// All is well.
    None,
    /// The replica is in the record and does not hold what it should.
    Drop,
    /// The replica of a chunk that is still open is damaged: sealing the chunk leaves it out.
    Close,
    /// The replica is in the record and does not know yet that the chunk is sealed.
    Seal { length: u64 },
    /// The replica is whole but not in the record, which has too few.
    Add,
    /// As above, but the replica was left out of the seal: first it has to end where the chunk does.
    Adopt { length: u64 },
    /// The replica is not in the record, and nothing needs it.
    Delete,
}

/// The nodes that replicas can be on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    /// Those that answered lately.
    pub(super) alive: BTreeSet<NodeId>,
    /// Those that leave the cluster, or have left it: what they hold counts for nothing and is made
    /// anew elsewhere, from them as long as they are alive.
    pub(super) leaving: BTreeSet<NodeId>,
}

impl Nodes {
    /// Those that replicas can count on.
    fn staying(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.alive.difference(&self.leaving).copied()
    }

    fn stays(&self, node: NodeId) -> bool {
        self.alive.contains(&node) && !self.leaving.contains(&node)
    }

    /// The replicas of a chunk that should be on nodes that stay, as far as there are nodes.
    pub(super) fn wanted(&self) -> usize {
        CHUNK_REPLICAS.min(self.staying().count())
    }
}

/// Compares a replica on `node` with the record of its chunk.
pub(super) fn examine(
    node: NodeId,
    report: &ReplicaReport,
    record: Option<&ChunkRecord>,
    nodes: &Nodes,
) -> Action {
    let Some(record) = record else { return Action::Delete };
    let is_member = record.replicas.contains(&node);
    if record.state != ChunkState::Sealed {
        // Members: the seal will find out what they have. Others were never created for it.
        return match is_member {
            true if report.damaged => Action::Close,
            true => Action::None,
            false => Action::Delete,
        };
    }
    let whole = !report.damaged && report.length >= record.length;
    let as_sealed = report.sealed && report.length == record.length;
    // While no other replica answers, even a damaged one may hold what is asked for.
    let others = record.replicas.iter().any(|other| *other != node && nodes.alive.contains(other));
    match (is_member, whole) {
        (true, false) if others => Action::Drop,
        (true, false) => Action::None,
        (true, true) if as_sealed => Action::None,
        (true, true) => Action::Seal { length: record.length },
        (false, true) if is_wanting(record, nodes) => match as_sealed {
            true => Action::Add,
            // Every replica holds a prefix of what one primary ordered, so one that is long enough
            // has all of the chunk.
            false => Action::Adopt { length: record.length },
        },
        (false, _) if others => Action::Delete,
        (false, _) => Action::None,
    }
}

/// Whether the chunk has fewer replicas on nodes that stay than there are such nodes for.
pub(super) fn is_wanting(record: &ChunkRecord, nodes: &Nodes) -> bool {
    record.replicas.iter().filter(|node| nodes.stays(**node)).count() < nodes.wanted()
}

/// One copy to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) chunk: ChunkId,
    pub(super) version: ChunkVersion,
    pub(super) length: u64,
    /// Live replicas; the fewer, the greater the danger.
    pub(super) sources: Vec<NodeId>,
    /// Who could take the copy, best first.
    pub(super) target: NodeId,
    /// A replica that the copy replaces: on a dead node, or on one that leaves.
    pub(super) instead_of: Option<NodeId>,
}

/// The replica on a leaving node that a chunk does not need any more, if there is one.
pub(super) fn surplus(record: &ChunkRecord, nodes: &Nodes) -> Option<NodeId> {
    let is_whole =
        record.state == ChunkState::Sealed && nodes.wanted() > 0 && !is_wanting(record, nodes);
    let leaving = || record.replicas.iter().copied().find(|node| nodes.leaving.contains(node));
    is_whole.then(leaving).flatten()
}

/// The copy that a chunk needs, if one can be made; `candidates` are in order of preference.
pub(super) fn repair(
    chunk: ChunkId,
    record: &ChunkRecord,
    nodes: &Nodes,
    candidates: &[NodeId],
) -> Option<Repair> {
    if record.state != ChunkState::Sealed || !is_wanting(record, nodes) {
        return None;
    }
    let replicas = || record.replicas.iter().copied();
    let sources: Vec<_> = replicas().filter(|node| nodes.alive.contains(node)).collect();
    if sources.is_empty() {
        return None;
    }
    let target = *candidates.iter().find(|node| !record.replicas.contains(node))?;
    let dead = replicas().find(|node| !nodes.alive.contains(node));
    let replaced = dead.or_else(|| replicas().find(|node| nodes.leaving.contains(node)));
    let instead_of = replaced.filter(|_| record.replicas.len() >= CHUNK_REPLICAS);
    let ChunkRecord { version, length, .. } = *record;
    Some(Repair { chunk, version, length, sources, target, instead_of })
}

/// How a chunk can be sealed: the length, and the replicas that have it.
///
/// Whatever was acknowledged is on every replica of the record, so the shortest of those that are
/// fenced has it all. One that lost bytes that a file refers to does not take part.
pub(super) fn seal(
    record: &ChunkRecord,
    fenced: &[(NodeId, ReplicaReport)],
) -> Option<(u64, Vec<NodeId>)> {
    let all_damaged = fenced.iter().all(|(_, report)| report.damaged);
    let has_all = |report: &ReplicaReport| {
        (all_damaged || !report.damaged) && report.length >= record.committed_end
    };
    let survivors = || fenced.iter().filter(|(_, report)| has_all(report));
    let length = survivors().map(|(_, report)| report.length).min()?;
    Some((length, survivors().map(|(node, _)| *node).collect()))
}

/// Whether a seal may leave out the replicas that did not take part.
///
/// While one is silent, a chunk does not end on a single replica: that one's disk would be all
/// there is. Waiting for those that answered would change nothing, and waiting has an end.
pub(super) fn may_finish(
    record: &ChunkRecord,
    survivors: usize,
    silent: usize,
    tried_for_ms: u64,
) -> bool {
    silent == 0 || survivors >= record.replicas.len().min(2) || tried_for_ms >= SEAL_PATIENCE_MS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onefold_types::Timestamp;

    use super::*;

    const CHUNK: ChunkId = ChunkId(5);

    fn nodes(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn set(numbers: &[u64]) -> BTreeSet<NodeId> {
        nodes(numbers).into_iter().collect()
    }

    /// These nodes live, and none leaves.
    fn live(numbers: &[u64]) -> Nodes {
        Nodes { alive: set(numbers), leaving: BTreeSet::new() }
    }

    fn leaving(alive: &[u64], leaving: &[u64]) -> Nodes {
        Nodes { alive: set(alive), leaving: set(leaving) }
    }

    fn sealed(replicas: &[u64]) -> ChunkRecord {
        ChunkRecord {
            version: ChunkVersion(2),
            state: ChunkState::Sealed,
            replicas: nodes(replicas),
            primary: NodeId(1),
            writer: NodeId(1),
            length: 100,
            committed_end: 90,
            references: 1,
            unreferenced_since: Timestamp::ZERO,
        }
    }

    fn report(length: u64, sealed: bool, damaged: bool) -> ReplicaReport {
        ReplicaReport { chunk: CHUNK, version: ChunkVersion(2), length, sealed, damaged }
    }

    #[test]
    fn members_that_lost_something_are_dropped() {
        let record = sealed(&[1, 2, 3]);
        let alive = live(&[1, 2, 3]);
        let examine = |report| examine(NodeId(1), &report, Some(&record), &alive);
        assert_eq!(examine(report(100, true, false)), Action::None);
        assert_eq!(examine(report(100, true, true)), Action::Drop);
        assert_eq!(examine(report(99, false, false)), Action::Drop);
        assert_eq!(examine(report(120, false, false)), Action::Seal { length: 100 });
    }

    #[test]
    fn a_returning_replica_is_taken_up_again_when_it_is_needed() {
        let record = sealed(&[1, 2]);
        let whole = report(100, true, false);
        let examine = |report, alive| examine(NodeId(3), &report, Some(&record), &alive);
        assert_eq!(examine(whole, live(&[1, 2, 3])), Action::Add);
        assert_eq!(examine(whole, live(&[1, 3])), Action::Add);
        assert_eq!(examine(report(100, true, true), live(&[1, 2, 3])), Action::Delete);
        let full = sealed(&[1, 2, 4]);
        let alive = live(&[1, 2, 3, 4]);
        assert_eq!(super::examine(NodeId(3), &whole, Some(&full), &alive), Action::Delete);
        assert_eq!(super::examine(NodeId(3), &whole, None, &alive), Action::Delete);
    }

    #[test]
    fn a_complete_replica_that_the_seal_left_out_is_adopted_while_it_is_needed() {
        let record = sealed(&[1]);
        let examine =
            |report, alive: &[u64]| examine(NodeId(3), &report, Some(&record), &live(alive));
        for length in [100, 120] {
            let complete = report(length, false, false);
            assert_eq!(examine(complete, &[1, 3]), Action::Adopt { length: 100 });
            assert_eq!(examine(complete, &[3]), Action::Adopt { length: 100 });
        }
        for unfit in [report(99, false, false), report(100, false, true)] {
            assert!(!matches!(examine(unfit, &[3]), Action::Adopt { .. } | Action::Add));
        }
        let full = sealed(&[1, 2, 4]);
        let alive = live(&[1, 2, 3, 4]);
        let spare = report(100, false, false);
        assert_eq!(super::examine(NodeId(3), &spare, Some(&full), &alive), Action::Delete);
    }

    #[test]
    fn a_chunk_ends_on_one_replica_only_after_the_others_had_their_time() {
        let three = sealed(&[1, 2, 3]);
        let may_finish = |survivors, silent, ms| may_finish(&three, survivors, silent, ms);
        assert!(!may_finish(1, 2, 0) && !may_finish(1, 1, SEAL_PATIENCE_MS - 1));
        assert!(may_finish(1, 2, SEAL_PATIENCE_MS));
        assert!(may_finish(2, 1, 0), "two are enough");
        assert!(may_finish(1, 0, 0), "all have answered");
        assert!(super::may_finish(&sealed(&[1]), 1, 0, 0));
    }

    #[test]
    fn a_damaged_replica_is_kept_while_no_other_answers() {
        let record = sealed(&[1, 2]);
        let damaged = report(100, true, true);
        let examine =
            |node, alive: &[u64]| examine(NodeId(node), &damaged, Some(&record), &live(alive));
        assert_eq!(examine(1, &[1, 3]), Action::None);
        assert_eq!(examine(3, &[3]), Action::None);
        assert_eq!(examine(1, &[1, 2]), Action::Drop);
    }

    #[test]
    fn open_chunks_are_left_to_the_seal() {
        let record = ChunkRecord { state: ChunkState::Open, ..sealed(&[1, 2]) };
        let short = report(1, false, false);
        let alive = live(&[1, 2, 3]);
        assert_eq!(examine(NodeId(1), &short, Some(&record), &alive), Action::None);
        assert_eq!(examine(NodeId(3), &short, Some(&record), &alive), Action::Delete);
        let damaged = report(1, false, true);
        assert_eq!(examine(NodeId(1), &damaged, Some(&record), &alive), Action::Close);
    }

    #[test]
    fn a_copy_replaces_a_dead_replica_when_there_is_somewhere_to_go() {
        let record = sealed(&[1, 2, 3]);
        let find = |alive: &[u64], candidates: &[u64]| {
            repair(CHUNK, &record, &live(alive), &nodes(candidates))
        };
        assert_eq!(find(&[1, 2, 3, 4], &[4]), None, "it has enough");
        assert_eq!(find(&[1, 2], &[1, 2]), None, "no node is without a replica");
        assert_eq!(find(&[4, 5], &[4, 5]), None, "no replica is left to copy");
        let found = find(&[1, 2, 4], &[1, 4]).unwrap();
        assert_eq!((found.target, found.instead_of), (NodeId(4), Some(NodeId(3))));
        assert_eq!(found.sources, nodes(&[1, 2]));
    }

    #[test]
    fn a_chunk_with_two_replicas_gets_a_third() {
        let found = repair(CHUNK, &sealed(&[1, 2]), &live(&[1, 2, 3]), &nodes(&[3])).unwrap();
        assert_eq!((found.target, found.instead_of), (NodeId(3), None));
    }

    #[test]
    fn replicas_on_leaving_nodes_are_made_anew_from_them_and_then_let_go() {
        let record = sealed(&[1, 4, 5]);
        let all = [1, 2, 3, 4, 5];
        let found = repair(CHUNK, &record, &leaving(&all, &[4, 5]), &nodes(&[2, 3])).unwrap();
        assert_eq!((found.target, found.instead_of), (NodeId(2), Some(NodeId(4))));
        assert_eq!(found.sources, nodes(&[1, 4, 5]), "they can still be read");
        let found = repair(CHUNK, &record, &leaving(&[1, 2, 3, 4], &[4, 5]), &nodes(&[2])).unwrap();
        assert_eq!(found.instead_of, Some(NodeId(5)), "a dead one goes first");
        assert_eq!(surplus(&record, &leaving(&all, &[4, 5])), None, "there is one copy without");
        let moved = sealed(&[1, 2, 3]);
        assert_eq!(repair(CHUNK, &moved, &leaving(&all, &[4, 5]), &nodes(&[])), None);
        let left = report(100, true, false);
        let action = examine(NodeId(4), &left, Some(&moved), &leaving(&all, &[4, 5]));
        assert_eq!(action, Action::Delete);
    }

    #[test]
    fn a_leaving_replica_is_let_go_when_as_many_stay_as_there_are_nodes() {
        let record = sealed(&[1, 2, 3]);
        assert_eq!(surplus(&record, &leaving(&[1, 2, 3], &[3])), Some(NodeId(3)));
        assert_eq!(surplus(&record, &leaving(&[1, 3], &[3])), Some(NodeId(3)));
        assert_eq!(surplus(&record, &leaving(&[1, 2, 3], &[1, 2, 3])), None, "nobody stays");
        assert_eq!(surplus(&record, &live(&[1, 2, 3])), None);
    }

    #[test]
    fn a_seal_takes_the_shortest_replica_that_has_what_was_committed() {
        let record = sealed(&[1, 2, 3]);
        let fenced = |lengths: &[u64]| -> Vec<_> {
            let report = |(place, length): (usize, &u64)| {
                (NodeId(place as u64 + 1), report(*length, false, false))
            };
            lengths.iter().enumerate().map(report).collect()
        };
        assert_eq!(seal(&record, &fenced(&[95, 90, 120])), Some((90, nodes(&[1, 2, 3]))));
        assert_eq!(seal(&record, &fenced(&[95, 89])), Some((95, nodes(&[1]))));
        assert_eq!(seal(&record, &fenced(&[89])), None);
        assert_eq!(seal(&record, &[]), None);
    }
}
