//! What ever was led and committed, and the invariants that need to know it.

use std::collections::BTreeSet;

use onefold_raft::{Fingerprint, Membership, Payload, Role};
use onefold_types::NodeId;

use super::{
    server::{Server, ensure},
    table::{Hashes, Permutations},
};
use crate::raft::Violation;

/// A log as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LogShape {
    /// The last index that a snapshot covers, and its term.
    pub(super) covered: (u64, u64),
    /// Term and hash of each entry after it.
    pub(super) entries: Vec<(u64, u64)>,
}

impl LogShape {
    pub(super) fn last(&self) -> u64 {
        self.covered.0 + self.entries.len() as u64
    }

    /// The entry at an index, if the log still has it.
    fn entry_at(&self, index: u64) -> Option<(u64, u64)> {
        self.entries.get(index.checked_sub(self.covered.0 + 1)? as usize).copied()
    }

    /// The term at an index, if the log still knows it.
    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.covered.0 {
            return Some(self.covered.1);
        }
        self.entry_at(index).map(|(term, _)| term)
    }

    /// §5.3: two logs that have an entry of the same index and term are equal up to there.
    pub(super) fn check_matching(&self, other: &Self) -> Result<(), Violation> {
        let known = self.covered.0.max(other.covered.0) + 1..=self.last().min(other.last());
        let mut is_equal_from_here = false;
        for index in known.rev() {
            let (one, two) = (self.entry_at(index), other.entry_at(index));
            let is_equal = one == two;
            is_equal_from_here |= one.map(|it| it.0) == two.map(|it| it.0);
            ensure(is_equal || !is_equal_from_here, "log matching", || {
                format!("logs that agree later differ at {index}: {self:?} and {other:?}")
            })?;
        }
        Ok(())
    }
}

/// What the search has to know of a server at every step.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) id: NodeId,
    pub(super) role: Role,
    pub(super) term: u64,
    pub(super) commit: u64,
    /// The log in memory and the one on disk, by their numbers.
    pub(super) log: u32,
    pub(super) durable: u32,
    /// The term on disk: it has left every earlier one for good.
    pub(super) durable_term: u64,
    /// The configurations in its log, each with the index from which it holds.
    pub(super) configurations: Vec<(u64, Membership)>,
    pub(super) transfers: Vec<NodeId>,
}

impl Summary {
    pub(super) fn of(server: &Server, log: u32, durable: u32) -> Self {
        let (mark, entries) = server.log();
        let changes = entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.index.0, (**membership).clone())),
            Payload::Empty | Payload::Command(_) => None,
        });
        Self {
            id: server.core.status().id,
            role: server.core.role(),
            term: server.core.term().0,
            commit: server.core.commit_index().0,
            log,
            durable,
            durable_term: server.disk.hard_state.term.0,
            configurations: std::iter::once((0, mark.membership.clone())).chain(changes).collect(),
            transfers: server.transfers.iter().copied().collect(),
        }
    }
}

/// One server and its logs.
#[derive(Clone, Copy)]
pub(super) struct Witness<'a> {
    pub(super) summary: &'a Summary,
    pub(super) log: &'a LogShape,
    pub(super) durable: &'a LogShape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    term: u64,
    /// The term in which it was first known to be committed.
    in_term: u64,
}

/// Grows along a path and never forgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// The leader of each term that had one.
    leaders: Vec<(u64, NodeId)>,
    /// At position i the entry that was committed at index i + 1.
    committed: Vec<Committed>,
}

impl History {
    /// The last index that any server ever knew to be committed.
    pub(super) fn committed_index(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(super) fn hashes(&self, permutations: &Permutations) -> Hashes {
        permutations.hashes(|names| {
            let name = |id: NodeId| names[id.0 as usize - 1];
            let mut bytes = Fingerprint::new(&name);
            for (term, leader) in &self.leaders {
                bytes.add(term);
                bytes.server(*leader);
            }
            for it in &self.committed {
                bytes.add((u64::MAX, it.term, it.in_term));
            }
            bytes.bytes().to_vec()
        })
    }

    /// What the history is after server `changed` came to be as it is now; `None` if it is as it
    /// was.
    ///
    /// # Errors
    /// An invariant of figure 3 that does not hold.
    pub(super) fn after(
        &self,
        before: &Summary,
        changed: usize,
        all: &[Witness<'_>],
    ) -> Result<Option<Self>, Violation> {
        let now = all[changed];
        let leads = |it: &Summary| it.role == Role::Leader;
        let is_elected = leads(now.summary) && !(leads(before) && before.term == now.summary.term);
        let is_news = now.summary.log != before.log || now.summary.commit != before.commit;
        if !is_elected && !is_news {
            return Ok(None);
        }
        let mut history = self.clone();
        if is_elected {
            history.elect(now)?;
        }
        if is_news {
            history.commit(now, all)?;
        }
        Ok((history != *self).then_some(history))
    }

    /// Election safety (§5.2) and leader completeness (§5.4.3).
    fn elect(&mut self, leader: Witness<'_>) -> Result<(), Violation> {
        let Summary { id, term, .. } = *leader.summary;
        match self.leaders.iter().find(|(led, _)| *led == term) {
            Some((_, first)) => ensure(*first == id, "election safety", || {
                format!("n{first} and n{id} both lead term {term}")
            })?,
            None => {
                self.leaders.push((term, id));
                self.leaders.sort_unstable();
            }
        }
        for (index, entry) in (1..).zip(&self.committed) {
            let known = leader.log.term_at(index);
            let has_it = known == Some(entry.term) || index < leader.log.covered.0;
            ensure(has_it || entry.in_term >= term, "leader completeness", || {
                format!(
                    "n{id} leads term {term} without entry {index}/{}, committed in term {}",
                    entry.term, entry.in_term
                )
            })?;
        }
        Ok(())
    }

    /// State machine safety (§5.4.3): what is committed is the same everywhere and for ever; and
    /// it is durable on a majority.
    fn commit(&mut self, now: Witness<'_>, all: &[Witness<'_>]) -> Result<(), Violation> {
        let Summary { id, term, commit, .. } = *now.summary;
        for index in 1..=commit {
            let known = now.log.term_at(index);
            let old = self.committed.get(index as usize - 1);
            match (known, old) {
                (Some(known), Some(old)) => {
                    ensure(known == old.term, "state machine safety", || {
                        format!("n{id} has {index}/{known} committed, but {index}/{} was", old.term)
                    })?
                }
                (None, Some(_)) => {
                    ensure(index < now.log.covered.0, "what is committed is in the log", || {
                        format!("n{id} has no entry {index}")
                    })?
                }
                (Some(known), None) => {
                    self.committed.push(Committed { term: known, in_term: term });
                    check_durable(now.summary, index, known, all)?;
                }
                (None, None) => ensure(false, "what is committed is in a log", || {
                    format!("n{id} has {index} committed, and no log shows it")
                })?,
            }
        }
        Ok(())
    }
}

/// A newly committed entry outlives the crash of all servers: it is durable on a majority by the
/// configuration as of the entry, or by a later one of the same log, which was not there when the
/// entry was committed, or came into force before (§6).
fn check_durable(
    leader: &Summary,
    index: u64,
    term: u64,
    all: &[Witness<'_>],
) -> Result<(), Violation> {
    let holds = |id: &NodeId| {
        all.iter().any(|it| {
            let durable = it.durable;
            it.summary.id == *id
                && (durable.term_at(index) == Some(term) || index < durable.covered.0)
        })
    };
    let has_majority = |voters: &BTreeSet<NodeId>| {
        voters.is_empty() || voters.iter().filter(|id| holds(id)).count() > voters.len() / 2
    };
    let earlier = leader.configurations.iter().rposition(|(from, _)| *from <= index).unwrap_or(0);
    let decides = leader.configurations[earlier..]
        .iter()
        .any(|(_, members)| has_majority(&members.voters) && has_majority(&members.outgoing));
    ensure(decides, "committed entries are durable on a majority", || {
        let holders: Vec<NodeId> =
            all.iter().map(|it| it.summary.id).filter(|id| holds(id)).collect();
        format!("n{} commits {index}/{term}, durable on {holders:?} only", leader.id)
    })
}
