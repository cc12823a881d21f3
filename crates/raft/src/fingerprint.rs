//! What two servers have to have in common to behave alike: for programs that explore the states of
//! a group and must recognize one that they have seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use onefold_types::NodeId;

use crate::{
    entry::{Entry, HardState, Payload, SnapshotMark},
    membership::Membership,
    message::{Body, Message},
    persistence::Persist,
    raft::Raft,
    status::Role,
};

/// Bytes that are equal for equal things. Servers go by the names that `name` gives them, so that
/// two groups which differ only in who is who have equal fingerprints under the right names.
///
/// A fingerprint holds for the life of a process, it is no format.
pub struct Fingerprint<'a> {
    name: &'a dyn Fn(NodeId) -> u64,
    bytes: Vec<u8>,
}

impl<'a> Fingerprint<'a> {
    /// An empty fingerprint.
    pub fn new(name: &'a dyn Fn(NodeId) -> u64) -> Self {
        Self { name, bytes: Vec::new() }
    }

    /// Everything that was added, in order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds something in which no server is named.
    pub fn add(&mut self, thing: impl Hash) {
        thing.hash(&mut Sink(&mut self.bytes));
    }

    /// Adds the name of a server.
    pub fn server(&mut self, id: NodeId) {
        let name = (self.name)(id);
        self.add(name);
    }

    /// Adds the name of a server that may be missing.
    pub fn server_if_any(&mut self, id: Option<NodeId>) {
        self.add(id.is_some());
        if let Some(id) = id {
            self.server(id);
        }
    }

    /// Adds a set of servers.
    pub fn servers(&mut self, ids: &BTreeSet<NodeId>) {
        let mut names: Vec<u64> = ids.iter().map(|&id| (self.name)(id)).collect();
        names.sort_unstable();
        self.add(names);
    }

    pub(crate) fn by_server<T>(&mut self, map: &BTreeMap<NodeId, T>, add: impl Fn(&mut Self, &T)) {
        let mut named: Vec<_> = map.iter().map(|(&id, value)| ((self.name)(id), value)).collect();
        named.sort_unstable_by_key(|(name, _)| *name);
        self.add(named.len());
        for (name, value) in named {
            self.add(name);
            add(self, value);
        }
    }

    pub(crate) fn each<T>(
        &mut self,
        things: impl ExactSizeIterator<Item = T>,
        add: impl Fn(&mut Self, T),
    ) {
        self.add(things.len());
        for thing in things {
            add(self, thing);
        }
    }

    /// Adds the members of a group.
    pub fn membership(&mut self, membership: &Membership) {
        let Membership { voters, outgoing, learners, joining } = membership;
        for set in [voters, outgoing, learners, joining] {
            self.servers(set);
        }
    }

    /// Adds an entry of a log.
    pub fn entry(&mut self, entry: &Entry) {
        let Entry { term, index, payload } = entry;
        self.add((term, index));
        match payload {
            Payload::Empty => self.add(0u8),
            Payload::Command(command) => self.add((1u8, command)),
            Payload::Membership(membership) => {
                self.add(2u8);
                self.membership(membership);
            }
        }
    }

    /// Adds what a snapshot covers.
    pub fn mark(&mut self, mark: &SnapshotMark) {
        let SnapshotMark { index, term, membership } = mark;
        self.add((index, term));
        self.membership(membership);
    }

    /// Adds a mark that may be missing.
    pub fn mark_if_any(&mut self, mark: Option<&SnapshotMark>) {
        self.add(mark.is_some());
        if let Some(mark) = mark {
            self.mark(mark);
        }
    }

    /// Adds what a server has promised.
    pub fn hard_state(&mut self, hard_state: &HardState) {
        let HardState { term, vote, commit } = hard_state;
        self.add((term, commit));
        self.server_if_any(*vote);
    }

    /// Adds a write, but not its number, which only orders it.
    pub fn persist(&mut self, persist: &Persist) {
        let Persist { sequence: _, hard_state, truncate_from, snapshot, entries } = persist;
        self.add(hard_state.is_some());
        if let Some(hard_state) = hard_state {
            self.hard_state(hard_state);
        }
        self.add(truncate_from);
        self.mark_if_any(snapshot.as_ref());
        self.each(entries.iter(), Self::entry);
    }

    /// Adds a message.
    pub fn message(&mut self, message: &Message) {
        let Message { term, body } = message;
        self.add((term, std::mem::discriminant(body)));
        match body {
            Body::Append { prev_index, prev_term, entries, commit } => {
                self.add((prev_index, prev_term, commit));
                self.each(entries.iter(), Self::entry);
            }
            Body::InstallSnapshot { mark } => self.mark(mark),
            // None of these names a server.
            body => self.add(body),
        }
    }

    /// Adds everything that decides how a server answers to what happens next, but for time: the
    /// ticks so far, the random source and the timeout drawn from it are left out, and no follower
    /// is told from another that has waited longer once both have waited for `election_ticks`. Who
    /// compares fingerprints decides himself when timeouts pass.
    ///
    /// The core's output must have been taken.
    pub fn raft(&mut self, raft: &Raft) {
        let Raft {
            config,
            random: _,
            ticks: _,
            role,
            term,
            vote,
            leader,
            log,
            persistence,
            commit,
            handed,
            applied,
            unapplied_bytes: _,
            is_state_lost,
            installing,
            election_elapsed,
            election_timeout: _,
            votes,
            heartbeat_elapsed,
            progress,
            term_start,
            uncommitted_bytes,
            transferee,
            reads,
            patience,
            quiescence,
            leadership_lease,
            output,
            reported: _,
        } = raft;
        assert!(
            output.is_empty(),
            "what the core asked for is part of its state until it is taken"
        );
        self.server(config.id);
        self.add((role, term, commit, handed, applied, is_state_lost));
        self.server_if_any(*vote);
        self.server_if_any(*leader);
        log.fingerprint(self);
        persistence.fingerprint(self);
        self.mark_if_any(installing.as_ref().map(|(mark, _)| mark));
        self.server_if_any(installing.as_ref().map(|(_, from)| *from));
        self.add((*election_elapsed).min(patience.scaled(config.election_ticks)));
        patience.fingerprint(self);
        if *role == Role::Leader {
            self.add((heartbeat_elapsed, term_start, uncommitted_bytes));
            self.server_if_any(*transferee);
            self.by_server(progress, |to, progress| progress.fingerprint(to));
        } else {
            self.by_server(votes, |to, vote| to.add(vote));
        }
        reads.fingerprint(self);
        quiescence.fingerprint(self, config.quiesce_after_ticks);
        self.add(leadership_lease);
    }
}

/// Keeps the bytes that are hashed.
struct Sink<'a>(&'a mut Vec<u8>);

impl Hasher for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the bytes are what is wanted")
    }
}
