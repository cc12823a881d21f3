//! The invariants, checked after every step and only for what the step could change.

use std::{collections::BTreeMap, fmt};

use onefold_raft::{Body, Entry, HardState, Membership, Message, Payload, Persist, Raft, Role};
use onefold_types::{LogIndex, NodeId, Term};

use super::{
    driver::Node,
    machine::{self, Snapshot},
};
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
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    is_leader: bool,
    term: Term,
    commit: LogIndex,
    last_index: LogIndex,
    last_term: Term,
    /// The last hard state that it asked to persist.
    hard_state: HardState,
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
    /// The state machine's state after it, filled in by whoever applies it first.
    state: Option<u64>,
    /// The term in which it was first seen to be committed.
    committed_in: Term,
}

/// Knows everything that ever was committed, voted or led.
#[derive(Debug, Default)]
pub(super) struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// At position i, the different entries that were written at index i + 1.
    written: Vec<Vec<Written>>,
    /// At position i, the entry that was committed at index i + 1.
    committed: Vec<Committed>,
    seen: BTreeMap<NodeId, Seen>,
    /// The members of the group from each committed index on that changed them.
    memberships: BTreeMap<LogIndex, Membership>,
    /// The members whose majority holds what is committed.
    keepers: Membership,
}

impl Checker {
    /// A group that was founded by these.
    pub(super) fn new(founders: Membership) -> Self {
        let memberships = BTreeMap::from([(LogIndex::ZERO, founders.clone())]);
        Self { memberships, keepers: founders, ..Self::default() }
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

    /// The state of every state machine after an index that one of them has applied.
    pub(super) fn state_at(&self, index: LogIndex) -> u64 {
        self.committed_at(index).and_then(|committed| committed.state).unwrap_or(0)
    }

    /// A node starts with what its disk has.
    pub(super) fn started(&mut self, id: NodeId, core: &Raft, hard_state: HardState) {
        let seen = Seen {
            is_leader: false,
            term: core.term(),
            commit: core.commit_index(),
            last_index: core.last_index(),
            last_term: core.term_at(core.last_index()).unwrap_or_default(),
            hard_state,
        };
        self.seen.insert(id, seen);
    }

    /// A node processed an input.
    pub(super) fn stepped(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, Node>) -> Checked {
        let Some(core) = nodes[&id].core.as_ref() else { return Ok(()) };
        let seen = self.seen.get(&id).copied().unwrap_or_default();
        let now = Seen {
            is_leader: core.role() == Role::Leader,
            term: core.term(),
            commit: core.commit_index(),
            last_index: core.last_index(),
            last_term: core.term_at(core.last_index()).unwrap_or_default(),
            hard_state: seen.hard_state,
        };
        ensure(now.term >= seen.term, "the term never goes back", || {
            format!("n{id}: from {} to {}", seen.term, now.term)
        })?;
        ensure(now.commit >= seen.commit, "the commit index never goes back", || {
            format!("n{id}: from {} to {}", seen.commit, now.commit)
        })?;
        ensure(now.commit <= now.last_index, "what is committed is in the log", || {
            format!("n{id}: commit {} of {}", now.commit, now.last_index)
        })?;
        ensure(core.applied_index() <= now.commit, "what is applied is committed", || {
            format!("n{id}: applied {} of {}", core.applied_index(), now.commit)
        })?;
        let kept = core.term_at(seen.commit);
        let is_kept = seen.commit < core.first_index() || kept == self.committed_term(seen.commit);
        ensure(is_kept, "nothing committed is truncated", || {
            format!("n{id}: entry {} is of term {kept:?}", seen.commit)
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
            // A deposed leader may learn late of what it committed; its members are not those in force.
            let is_latest = self.committed.last().is_none_or(|it| it.committed_in <= core.term());
            if core.role() == Role::Leader && is_latest {
                self.keepers = core.membership().clone();
                self.check_durable_on_majority(nodes)?;
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
            format!("n{id}: entry {} of term {} is gone", seen.last_index, seen.last_term)
        })
    }

    /// Election safety: at most one leader in a term (§5.2). Leader completeness: it has every
    /// entry that was committed in an earlier term (§5.4.3); by log matching, the last one of
    /// them is enough.
    fn check_new_leader(&mut self, id: NodeId, core: &Raft) -> Checked {
        let term = core.term();
        let leader = *self.leaders.entry(term).or_insert(id);
        ensure(leader == id, "election safety", || {
            format!("n{leader} and n{id} both lead term {term}")
        })?;
        let earlier = self.committed.iter().rposition(|entry| entry.committed_in < term);
        let Some(position) = earlier else { return Ok(()) };
        let index = LogIndex(position as u64 + 1);
        let expected = self.committed[position].term;
        let holds = core.term_at(index) == Some(expected) || core.first_index() > index;
        ensure(holds, "leader completeness", || {
            format!(
                "n{id} leads term {term} without the committed entry {index} of term {expected}; \
                 it has {:?}",
                core.term_at(index)
            )
        })
    }

    fn check_commit(&mut self, id: NodeId, core: &Raft, before: LogIndex) -> Checked {
        let first = before.next().max(core.first_index());
        for index in (first.0..=core.commit_index().0).map(LogIndex) {
            let term = core.term_at(index).unwrap_or_default();
            if let Some(committed) = self.committed_at(index) {
                ensure(committed.term == term, "state machine safety", || {
                    format!("n{id} commits {index} of term {term}, not of {}", committed.term)
                })?;
                continue;
            }
            let written = self.written.get(index.0 as usize - 1);
            let written = written.and_then(|all| all.iter().find(|w| w.term == term));
            let holds = index == self.committed_index().next() && written.is_some();
            ensure(holds, "what is committed was written", || {
                format!("n{id} commits {index} of term {term}, which nobody wrote")
            })?;
            let hash = written.map_or(0, |written| written.hash);
            let committed_in = core.term();
            self.committed.push(Committed { term, hash, state: None, committed_in });
        }
        Ok(())
    }

    /// Committed entries outlive the crash of any minority, and of all.
    pub(super) fn check_durable_on_majority(&self, nodes: &BTreeMap<NodeId, Node>) -> Checked {
        let index = self.committed_index();
        let Some(term) = self.committed_term(index) else { return Ok(()) };
        let is_durable = |id: &&NodeId| {
            let node = &nodes[*id];
            node.disk.holds(&node.machine, index, term)
        };
        for voters in [&self.keepers.voters, &self.keepers.outgoing] {
            let durable = voters.iter().filter(is_durable).count();
            let holds = voters.is_empty() || durable > voters.len() / 2;
            ensure(holds, "committed entries are durable on a majority", || {
                format!("entry {index} of term {term} is durable on {durable} of {voters:?}")
            })?;
        }
        Ok(())
    }

    /// A node asks its disk for a write.
    pub(super) fn persisting(&mut self, id: NodeId, core: &Raft, persist: &Persist) -> Checked {
        let seen = self.seen.entry(id).or_default();
        if let Some(new) = persist.hard_state {
            let old = std::mem::replace(&mut seen.hard_state, new);
            let is_vote_kept = new.term > old.term || old.vote.is_none() || old.vote == new.vote;
            let holds = new.term >= old.term && new.commit >= old.commit && is_vote_kept;
            ensure(holds, "the hard state never goes back", || {
                format!("n{id}: from {old:?} to {new:?}")
            })?;
        }
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
            return Ok(());
        };
        let is_previous_equal = match (old.previous_term, new.previous_term) {
            (Some(old), Some(new)) => old == new,
            _ => true,
        };
        old.previous_term = old.previous_term.or(new.previous_term);
        let holds = old.hash == new.hash && is_previous_equal;
        ensure(holds, "log matching", || format!("n{id} writes {new:?}, another wrote {old:?}"))
    }

    /// A message leaves a node: what it promises must be durable there, and is promised once.
    pub(super) fn sending(&mut self, node: &Node, to: NodeId, message: &Message) -> Checked {
        let (id, term) = (node.id, message.term);
        let vote = match message.body {
            Body::VoteResponse { granted: true } => Some(to),
            Body::RequestVote { .. } => Some(id),
            _ => None,
        };
        let stored = node.disk.hard_state;
        if let Some(vote) = vote {
            let first = *self.votes.entry((id, term)).or_insert(vote);
            ensure(first == vote, "one vote a term", || {
                format!("n{id} votes for n{first} and n{vote} in term {term}")
            })?;
            let is_durable =
                stored.term > term || (stored.term == term && stored.vote == Some(vote));
            ensure(is_durable, "a vote is durable before it is given", || {
                format!("n{id} votes for n{vote} in term {term} and has stored {stored:?}")
            })?;
        }
        let acknowledged = match message.body {
            Body::AppendAccepted { matched } => Some(matched),
            Body::SnapshotInstalled { index } => Some(index),
            _ => None,
        };
        if let Some(matched) = acknowledged {
            ensure(stored.term >= term, "a term is durable before it is acknowledged", || {
                format!("n{id} acknowledges term {term} and has stored {stored:?}")
            })?;
            let is_current = node.core.as_ref().is_some_and(|core| core.term() == term);
            if is_current && stored.term == term {
                let known = node.core.as_ref().and_then(|core| core.term_at(matched));
                let is_durable = known.is_none_or(|t| node.disk.holds(&node.machine, matched, t));
                ensure(is_durable, "an entry is durable before it is acknowledged", || {
                    format!("n{id} acknowledges {matched} in term {term}")
                })?;
            }
        }
        Ok(())
    }

    /// State machine safety: no two nodes apply different entries at an index (§5.4.3).
    pub(super) fn handed_out(&mut self, id: NodeId, entry: &Entry) -> Checked {
        let committed = self.committed_at(entry.index);
        let holds = committed.is_some_and(|committed| {
            (committed.term, committed.hash) == (entry.term, hash_of(entry))
        });
        ensure(holds, "state machine safety", || {
            format!("n{id} is to apply {}/{}, but {committed:?}", entry.index, entry.term)
        })?;
        match &entry.payload {
            Payload::Membership(membership) => {
                self.check_membership_change(entry.index, membership)
            }
            Payload::Empty | Payload::Command(_) => Ok(()),
        }
    }

    /// Voters change only through joint configurations (§6).
    fn check_membership_change(&mut self, index: LogIndex, new: &Membership) -> Checked {
        if self.memberships.contains_key(&index) {
            return Ok(());
        }
        let (_, old) = self.memberships.last_key_value().expect("the founders");
        let holds = if old.is_joint() {
            !new.is_joint() && new.voters == old.voters && new.learners == old.learners
        } else if new.is_joint() {
            new.outgoing == old.voters
        } else {
            new.voters == old.voters
        };
        ensure(holds, "voters change through joint configurations", || {
            format!("{old:?} is followed at {index} by {new:?}")
        })?;
        self.memberships.insert(index, new.clone());
        Ok(())
    }

    fn membership_at(&self, index: LogIndex) -> &Membership {
        let (_, latest) = self.memberships.range(..=index).next_back().expect("the founders");
        latest
    }

    /// A node that has applied its whole log uses the members that were committed.
    pub(super) fn uses(&self, id: NodeId, core: &Raft) -> Checked {
        let index = core.last_index();
        if core.applied_index() < index || index == LogIndex::ZERO {
            return Ok(());
        }
        let expected = self.membership_at(index);
        ensure(core.membership() == expected, "members are those of the log", || {
            format!("n{id} uses {:?} at {index}, not {expected:?}", core.membership())
        })
    }

    /// A node applied an entry.
    pub(super) fn applied(&mut self, id: NodeId, machine: &machine::Machine) -> Checked {
        let index = machine.applied;
        let committed = self.committed.get_mut(index.0 as usize - 1);
        let expected = committed.map(|committed| *committed.state.get_or_insert(machine.state));
        ensure(expected == Some(machine.state), "equal states at equal indexes", || {
            format!("n{id} at {index}")
        })
    }

    /// A node installed a snapshot.
    pub(super) fn installed(&self, id: NodeId, snapshot: &Snapshot) -> Checked {
        let committed = self.committed_at(snapshot.mark.index);
        let holds = committed.is_some_and(|committed| {
            committed.term == snapshot.mark.term && committed.state == Some(snapshot.state)
        });
        let members = self.membership_at(snapshot.mark.index);
        ensure(*members == snapshot.mark.membership, "snapshots name the members", || {
            format!("n{id} installs {snapshot:?}, but {members:?}")
        })?;
        ensure(holds, "snapshots are committed states", || {
            format!("n{id} installs {snapshot:?}, but {committed:?}")
        })
    }

    /// A read was confirmed: it sees everything that was committed anywhere when it was asked.
    pub(super) fn read(&self, id: NodeId, floor: LogIndex, index: LogIndex) -> Checked {
        ensure(index >= floor, "linearizable reads", || {
            format!("n{id} reads at {index}, but {floor} was committed when the read was asked")
        })
    }
}
