//! The invariants of one group's cores, checked after every step and only for what the step could
//! change.

use std::{collections::BTreeMap, fmt};

use onefold_raft::{Body, Entry, HardState, Membership, Message, Payload, Persist, Raft, Role};
use onefold_types::{LogIndex, NodeId, Term};

use super::disk::Stored;
use crate::trace::hash_of;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen instead.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

pub(super) type Checked = Result<(), Violation>;

/// A violation unless the condition holds.
pub(super) fn ensure(
    holds: bool,
    invariant: &'static str,
    detail: impl FnOnce() -> String,
) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// What a node showed after its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    is_leader: bool,
    term: Term,
    commit: LogIndex,
    last_index: LogIndex,
    last_term: Term,
}

impl Seen {
    fn of(core: &Raft) -> Self {
        Self {
            is_leader: core.role() == Role::Leader,
            term: core.term(),
            commit: core.commit_index(),
            last_index: core.last_index(),
            last_term: core.term_at(core.last_index()).unwrap_or_default(),
        }
    }
}

/// An entry that some node wrote, and the term of the entry before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    term: Term,
    previous_term: Option<Term>,
    hash: u64,
}

#[derive(Clone, Copy, Debug)]
struct Committed {
    term: Term,
    hash: u64,
    /// The term in which it was first seen to be committed.
    committed_in: Term,
}

/// Knows everything that ever was committed, voted or led in one group.
#[derive(Debug)]
pub(super) struct Checker {
    group: usize,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// At position i, the different entries that were written at index i + 1.
    written: Vec<Vec<Written>>,
    /// At position i, the entry that was committed at index i + 1.
    committed: Vec<Committed>,
    /// Every membership that anyone wrote, in the order of their indexes. The first is the one with
    /// which the group was formed.
    memberships: Vec<(LogIndex, Term, Membership)>,
    seen: BTreeMap<NodeId, Seen>,
    /// The last hard state that each node asked to persist.
    hard_states: BTreeMap<NodeId, HardState>,
    /// The last index that each node asked to persist.
    last_asked: BTreeMap<NodeId, LogIndex>,
}

/// What is durable on a node, and the index of the snapshot that its state was installed from. A
/// disk that was wiped counts with what it had: what was acknowledged before counts for ever.
pub(super) struct Durable<'a> {
    pub(super) id: NodeId,
    pub(super) stored: &'a Stored,
    pub(super) installed: LogIndex,
}

impl Checker {
    pub(super) fn new(group: usize, formed: Membership) -> Self {
        Self {
            group,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            written: Vec::new(),
            committed: Vec::new(),
            memberships: vec![(LogIndex::ZERO, Term::ZERO, formed)],
            seen: BTreeMap::new(),
            hard_states: BTreeMap::new(),
            last_asked: BTreeMap::new(),
        }
    }

    /// The last index that any node ever knew to be committed.
    pub(super) fn committed_index(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    fn committed_at(&self, index: LogIndex) -> Option<&Committed> {
        self.committed.get(index.0.checked_sub(1)? as usize)
    }

    /// The term of the committed entry at an index.
    pub(super) fn committed_term(&self, index: LogIndex) -> Option<Term> {
        self.committed_at(index).map(|committed| committed.term)
    }

    /// The last membership in a node's log, as it was written.
    pub(super) fn membership_of(&self, core: &Raft) -> &Membership {
        let holds = |index: LogIndex, term: Term| {
            core.term_at(index) == Some(term)
                || (index < core.first_index()
                    && (index == LogIndex::ZERO || self.committed_term(index) == Some(term)))
        };
        let found = self.memberships.iter().rev().find(|(index, term, _)| holds(*index, *term));
        &found.expect("the first one is in every log").2
    }

    /// A node starts with what its disk has.
    pub(super) fn started(&mut self, id: NodeId, core: &Raft, hard_state: HardState) {
        self.seen.insert(id, Seen { is_leader: false, ..Seen::of(core) });
        self.hard_states.insert(id, hard_state);
        self.last_asked.insert(id, core.last_index());
    }

    /// A node processed an input.
    pub(super) fn stepped<'a>(
        &mut self,
        id: NodeId,
        core: &Raft,
        durable: impl Iterator<Item = Durable<'a>>,
    ) -> Checked {
        let now = Seen::of(core);
        let seen = self.seen.get(&id).copied().unwrap_or_default();
        if now == seen {
            return Ok(());
        }
        let group = self.group;
        let who = move || format!("g{group} n{id}");
        ensure(now.term >= seen.term, "the term never goes back", || {
            format!("{}: from {} to {}", who(), seen.term, now.term)
        })?;
        ensure(now.commit >= seen.commit, "the commit index never goes back", || {
            format!("{}: from {} to {}", who(), seen.commit, now.commit)
        })?;
        ensure(now.commit <= now.last_index, "what is committed is in the log", || {
            format!("{}: commit {} of {}", who(), now.commit, now.last_index)
        })?;
        ensure(core.applied_index() <= now.commit, "what is applied is committed", || {
            format!("{}: applied {} of {}", who(), core.applied_index(), now.commit)
        })?;
        let kept = core.term_at(seen.commit);
        let is_kept = seen.commit < core.first_index() || kept == self.committed_term(seen.commit);
        ensure(is_kept, "nothing committed is truncated", || {
            format!("{}: entry {} is of term {kept:?}", who(), seen.commit)
        })?;
        if seen.is_leader && now.is_leader && seen.term == now.term {
            self.check_append_only(id, core, &seen)?;
        }
        if now.is_leader && !(seen.is_leader && seen.term == now.term) {
            self.check_new_leader(id, core)?;
        }
        self.seen.insert(id, now);
        if now.commit > seen.commit {
            self.check_commit(id, core, seen.commit)?;
            if now.is_leader {
                let term = core.term_at(now.commit);
                ensure(
                    term == Some(now.term),
                    "no commit by counting an earlier term (§5.4.2)",
                    || format!("{}: commit {} of term {term:?} in {}", who(), now.commit, now.term),
                )?;
                self.check_durable(id, core, durable)?;
            }
        }
        Ok(())
    }

    /// Leader append-only: a leader never overwrites or deletes entries in its log (§5.3).
    fn check_append_only(&self, id: NodeId, core: &Raft, seen: &Seen) -> Checked {
        let kept = core.term_at(seen.last_index);
        let holds = core.last_index() >= seen.last_index
            && (kept == Some(seen.last_term) || core.first_index() > seen.last_index);
        ensure(holds, "leader append-only", || {
            format!(
                "g{} n{id}: entry {} of term {} is gone",
                self.group, seen.last_index, seen.last_term
            )
        })
    }

    /// Election safety: at most one leader in a term (§5.2). Leader completeness: it has every
    /// entry that was committed in an earlier term (§5.4.3); by log matching, the last one of
    /// them is enough.
    fn check_new_leader(&mut self, id: NodeId, core: &Raft) -> Checked {
        let (group, term) = (self.group, core.term());
        let leader = *self.leaders.entry(term).or_insert(id);
        ensure(leader == id, "election safety", || {
            format!("g{group}: n{leader} and n{id} both lead term {term}")
        })?;
        let earlier = self.committed.iter().rposition(|entry| entry.committed_in < term);
        let Some(position) = earlier else { return Ok(()) };
        let index = LogIndex(position as u64 + 1);
        let expected = self.committed[position].term;
        let holds = core.term_at(index) == Some(expected) || core.first_index() > index;
        ensure(holds, "leader completeness", || {
            format!(
                "g{group}: n{id} leads term {term} without the committed entry {index} of term \
                 {expected}; it has {:?}",
                core.term_at(index)
            )
        })
    }

    fn check_commit(&mut self, id: NodeId, core: &Raft, before: LogIndex) -> Checked {
        let group = self.group;
        let first = before.next().max(core.first_index());
        for index in (first.0..=core.commit_index().0).map(LogIndex) {
            let term = core.term_at(index).unwrap_or_default();
            if let Some(committed) = self.committed_at(index) {
                ensure(committed.term == term, "state machine safety", || {
                    format!(
                        "g{group} n{id} commits {index} of term {term}, not of {}",
                        committed.term
                    )
                })?;
                continue;
            }
            let written = self.written.get(index.0 as usize - 1);
            let written = written.and_then(|all| all.iter().find(|w| w.term == term));
            let holds = index == self.committed_index().next() && written.is_some();
            ensure(holds, "what is committed was written", || {
                format!("g{group} n{id} commits {index} of term {term}, which nobody wrote")
            })?;
            // Followers learn of it (§5.3).
            ensure(core.role() == Role::Leader, "leaders decide what is committed", || {
                format!("g{group} n{id} is the first to commit {index} of term {term}")
            })?;
            let hash = written.map_or(0, |written| written.hash);
            self.committed.push(Committed { term, hash, committed_in: core.term() });
        }
        Ok(())
    }

    /// What a leader commits outlives the crash of any minority, by the members that its log names;
    /// in a joint configuration of any minority of either set (§6).
    fn check_durable<'a>(
        &self,
        id: NodeId,
        core: &Raft,
        durable: impl Iterator<Item = Durable<'a>>,
    ) -> Checked {
        let index = core.commit_index();
        let Some(term) = self.committed_term(index) else { return Ok(()) };
        // Entries that it appended in this step are in force before anyone was asked to write them.
        let is_written = self.last_asked.get(&id).is_some_and(|last| *last >= core.last_index());
        let membership = if is_written { self.membership_of(core) } else { core.membership() };
        let holders: Vec<NodeId> = durable
            .filter(|node| node.stored.holds(index, term, node.installed))
            .map(|node| node.id)
            .collect();
        for voters in [&membership.voters, &membership.outgoing] {
            let held = holders.iter().filter(|id| voters.contains(id)).count();
            let holds = voters.is_empty() || held > voters.len() / 2;
            ensure(holds, "committed entries are durable on a majority", || {
                format!(
                    "g{} n{id}: entry {index} of term {term} is durable on {holders:?} of \
                     {voters:?} of {membership:?}, and its core has {:?}",
                    self.group,
                    core.membership()
                )
            })?;
        }
        Ok(())
    }

    /// A node asks its disk for a write.
    pub(super) fn persisting(&mut self, id: NodeId, core: &Raft, persist: &Persist) -> Checked {
        if let Some(new) = persist.hard_state {
            let old = self.hard_states.insert(id, new).unwrap_or_default();
            let is_vote_kept = new.term > old.term || old.vote.is_none() || old.vote == new.vote;
            let holds = new.term >= old.term && new.commit >= old.commit && is_vote_kept;
            ensure(holds, "the hard state never goes back", || {
                format!("g{} n{id}: from {old:?} to {new:?}", self.group)
            })?;
        }
        self.last_asked.insert(id, core.last_index());
        for entry in &persist.entries {
            let previous = LogIndex(entry.index.0 - 1);
            self.check_log_matching(id, entry, core.term_at(previous))?;
        }
        Ok(())
    }

    /// Log matching: entries of the same index and term are equal, and so are all before them
    /// (§5.3). By induction it is enough that they agree on the term of the one before.
    fn check_log_matching(
        &mut self,
        id: NodeId,
        entry: &Entry,
        previous_term: Option<Term>,
    ) -> Checked {
        let position = entry.index.0 as usize - 1;
        if self.written.len() <= position {
            self.written.resize(position + 1, Vec::new());
        }
        let new = Written { term: entry.term, previous_term, hash: hash_of(entry) };
        let all = &mut self.written[position];
        let Some(old) = all.iter_mut().find(|written| written.term == entry.term) else {
            all.push(new);
            if let Payload::Membership(membership) = &entry.payload {
                let place = self.memberships.partition_point(|(index, term, _)| {
                    (*index, *term) < (entry.index, entry.term)
                });
                let written = (entry.index, entry.term, (**membership).clone());
                self.memberships.insert(place, written);
            }
            return Ok(());
        };
        let is_previous_equal = match (old.previous_term, new.previous_term) {
            (Some(old), Some(new)) => old == new,
            _ => true,
        };
        old.previous_term = old.previous_term.or(new.previous_term);
        let holds = old.hash == new.hash && is_previous_equal;
        ensure(holds, "log matching", || {
            format!("g{} n{id} writes {entry:?}, another wrote {old:?}", self.group)
        })
    }

    /// A message leaves a node: what it promises must be durable there, and is promised once.
    pub(super) fn sending(
        &mut self,
        core: &Raft,
        node: &Durable<'_>,
        to: NodeId,
        message: &Message,
    ) -> Checked {
        let (group, id, term) = (self.group, node.id, message.term);
        let stored = node.stored.hard_state;
        let vote = match message.body {
            Body::VoteResponse { granted: true } => Some(to),
            Body::RequestVote { .. } => Some(id),
            Body::AppendAccepted { matched } => {
                return self.check_acknowledged(core, node, term, matched);
            }
            _ => return Ok(()),
        };
        let Some(vote) = vote else { return Ok(()) };
        let first = *self.votes.entry((id, term)).or_insert(vote);
        ensure(first == vote, "one vote a term", || {
            format!("g{group} n{id} votes for n{first} and n{vote} in term {term}")
        })?;
        let is_durable = stored.term > term || (stored.term == term && stored.vote == Some(vote));
        ensure(is_durable, "a vote is durable before it is given", || {
            format!("g{group} n{id} votes for n{vote} in term {term} and has stored {stored:?}")
        })
    }

    fn check_acknowledged(
        &self,
        core: &Raft,
        node: &Durable<'_>,
        term: Term,
        matched: LogIndex,
    ) -> Checked {
        let (group, id, stored) = (self.group, node.id, node.stored.hard_state);
        ensure(stored.term >= term, "a term is durable before it is acknowledged", || {
            format!("g{group} n{id} acknowledges term {term} and has stored {stored:?}")
        })?;
        if core.term() != term || stored.term != term {
            return Ok(());
        }
        let known = core.term_at(matched);
        let is_durable = known.is_none_or(|t| node.stored.holds(matched, t, node.installed));
        ensure(is_durable, "an entry is durable before it is acknowledged", || {
            format!("g{group} n{id} acknowledges {matched} in term {term}")
        })
    }

    /// State machine safety: no two nodes apply different entries at an index (§5.4.3).
    pub(super) fn handed_out(&self, id: NodeId, entry: &Entry) -> Checked {
        let committed = self.committed_at(entry.index);
        let holds = committed.is_some_and(|committed| {
            (committed.term, committed.hash) == (entry.term, hash_of(entry))
        });
        ensure(holds, "state machine safety", || {
            format!(
                "g{} n{id} is to apply {}/{}, but {committed:?}",
                self.group, entry.index, entry.term
            )
        })
    }
}
