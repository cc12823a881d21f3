//! Everything that was met in a search, each once; and the steps from one state to the next.

use std::collections::{BTreeSet, HashMap, HashSet};

use onefold_raft::{Body, Entry, Fingerprint, Message, Role, SnapshotMark};
use onefold_types::NodeId;

use super::{
    bug::Bug,
    history::{History, LogShape, Summary, Witness},
    scope::Scope,
    server::{Event, Server, ensure},
    state::{Counters, State},
    table::{Hash128, Hashes, Permutations, Table, Trusting},
};
use crate::{raft::Violation, trace::hash_of};

/// A step of the group: one server's event, or the end of a transfer between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Delivers(u32),
    TimesOut(usize),
    Lapses(usize),
    Beats(usize),
    Proposes(usize),
    Changes(usize),
    Writes(usize),
    Crashes(usize),
    Compacts(usize),
    Installs(usize),
    Reads(usize),
    HandsOver(usize, usize),
    Transfers(usize, usize),
    FailsTransfer(usize, usize),
}

/// The choices in the order of their numbers.
const KINDS: [fn(usize, usize) -> Choice; 13] = [
    |one, _| Choice::TimesOut(one),
    |one, _| Choice::Lapses(one),
    |one, _| Choice::Beats(one),
    |one, _| Choice::Proposes(one),
    |one, _| Choice::Changes(one),
    |one, _| Choice::Writes(one),
    |one, _| Choice::Crashes(one),
    |one, _| Choice::Compacts(one),
    |one, _| Choice::Installs(one),
    |one, _| Choice::Reads(one),
    Choice::HandsOver,
    Choice::Transfers,
    Choice::FailsTransfer,
];

/// Below this a packed choice is a message's number.
const CHOICES_FIRST: u32 = u32::MAX - 255;

impl Choice {
    /// In four bytes: searches keep one for each state.
    pub(super) fn pack(self) -> u32 {
        let (kind, one, two) = match self {
            Self::Delivers(message) => return message,
            Self::TimesOut(one) => (0, one, 0),
            Self::Lapses(one) => (1, one, 0),
            Self::Beats(one) => (2, one, 0),
            Self::Proposes(one) => (3, one, 0),
            Self::Changes(one) => (4, one, 0),
            Self::Writes(one) => (5, one, 0),
            Self::Crashes(one) => (6, one, 0),
            Self::Compacts(one) => (7, one, 0),
            Self::Installs(one) => (8, one, 0),
            Self::Reads(one) => (9, one, 0),
            Self::HandsOver(one, two) => (10, one, two),
            Self::Transfers(one, two) => (11, one, two),
            Self::FailsTransfer(one, two) => (12, one, two),
        };
        CHOICES_FIRST + kind * 16 + one as u32 * 4 + two as u32
    }

    pub(super) fn unpack(packed: u32) -> Self {
        let Some(number) = packed.checked_sub(CHOICES_FIRST) else {
            return Self::Delivers(packed);
        };
        KINDS[number as usize / 16](number as usize / 4 % 4, number as usize % 4)
    }
}

/// A message on its way.
pub(super) struct Flight {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

struct Known {
    server: Server,
    summary: Summary,
}

/// What an event makes of a server.
struct After {
    server: u32,
    sent: Box<[u32]>,
}

/// A state that follows from another.
pub(super) type Next = Result<State, Violation>;

pub(super) struct Universe {
    pub(super) scope: Scope,
    bug: Option<Bug>,
    permutations: Permutations,
    servers: Table<Known>,
    flights: Table<Flight>,
    histories: Table<History>,
    logs: Vec<LogShape>,
    log_keys: HashMap<LogShape, u32>,
    /// Pairs of logs that are known to match.
    matching: HashSet<(u32, u32), Trusting>,
    /// What each event makes of each server, as far as it was needed; `None` if it cannot happen.
    steps: HashMap<(u32, u64), Option<u32>, Trusting>,
    afters: Vec<After>,
}

impl Universe {
    pub(super) fn new(scope: Scope, bug: Option<Bug>) -> Self {
        let permutations = Permutations::of(scope.servers, scope.is_symmetric());
        Self {
            scope,
            bug,
            servers: Table::new(&permutations),
            flights: Table::new(&permutations),
            histories: Table::new(&permutations),
            logs: Vec::new(),
            log_keys: HashMap::new(),
            matching: HashSet::default(),
            steps: HashMap::default(),
            afters: Vec::new(),
            permutations,
        }
    }

    /// The state in which everything starts.
    ///
    /// # Errors
    /// A violation on the way to the first leader, if the scope asks for one.
    pub(super) fn first_state(&mut self) -> Next {
        let mut servers = [0; Scope::SERVERS_MAX];
        for id in 1..=self.scope.servers {
            let server = Server::first(&self.scope, NodeId(id)).expect("a scope that can start");
            servers[id as usize - 1] = self.keep_server(server);
        }
        let history = self.keep_history(History::default());
        let mut state =
            State { servers, history, counters: Counters::default(), messages: Vec::new() };
        if self.scope.has_leader_first {
            self.elect_first(&mut state)?;
        }
        Ok(state)
    }

    /// Server 1 stands for election, every message arrives once and every write is finished.
    fn elect_first(&mut self, state: &mut State) -> Result<(), Violation> {
        let mut arrived = BTreeSet::new();
        let mut choice = Some(Choice::TimesOut(0));
        while let Some(due) = choice {
            if let Some(next) = self.next(state, due) {
                *state = next?;
            }
            for one in 0..self.scope.servers as usize {
                while let Some(next) = self.next(state, Choice::Writes(one)) {
                    *state = next?;
                }
            }
            let next = state.messages.iter().copied().find(|&it| arrived.insert(it));
            choice = next.map(Choice::Delivers);
        }
        let leads = self.servers.get(state.servers[0]).summary.role == Role::Leader;
        ensure(leads, "a scope begins with a leader", || "server 1 was not elected".into())?;
        state.messages.clear();
        Ok(())
    }

    pub(super) fn server(&self, key: u32) -> &Server {
        &self.servers.get(key).server
    }

    pub(super) fn flight(&self, key: u32) -> &Flight {
        self.flights.get(key)
    }

    /// Different servers, messages and logs so far.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.servers.len(), self.flights.len(), self.logs.len()]
    }

    /// The hashes of a state under each permutation of the servers: sums, so that those of a state
    /// that differs in a few things follow from them.
    pub(super) fn sums(&self, state: &State) -> Sums {
        let mut sums = vec![0; self.permutations.len()];
        for &server in &state.servers[..self.scope.servers as usize] {
            add(&mut sums, self.servers.hashes(server));
        }
        add(&mut sums, self.histories.hashes(state.history));
        for &message in &state.messages {
            add(&mut sums, self.flights.hashes(message));
        }
        sums
    }

    /// The sums of a state by those of another.
    pub(super) fn sums_of_next(&self, before: &State, sums: &Sums, after: &State) -> Sums {
        let mut sums = sums.clone();
        let servers = before.servers.iter().zip(&after.servers);
        for (&old, &new) in servers.filter(|(old, new)| old != new) {
            subtract(&mut sums, self.servers.hashes(old));
            add(&mut sums, self.servers.hashes(new));
        }
        if before.history != after.history {
            subtract(&mut sums, self.histories.hashes(before.history));
            add(&mut sums, self.histories.hashes(after.history));
        }
        let (mut old, mut new) =
            (before.messages.iter().peekable(), after.messages.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(one), Some(two)) if one == two => {
                    old.next();
                    new.next();
                }
                (Some(&&one), two) if two.is_none_or(|&&two| one < two) => {
                    subtract(&mut sums, self.flights.hashes(one));
                    old.next();
                }
                (_, Some(&&two)) => {
                    add(&mut sums, self.flights.hashes(two));
                    new.next();
                }
                (_, None) => return sums,
            }
        }
    }

    /// The same for states that differ only in who is who, and different for all others.
    pub(super) fn hash(state: &State, sums: &Sums) -> Hash128 {
        let Counters { crashes, changes, reads, transfers } = state.counters;
        let counters = u32::from_le_bytes([crashes, changes, reads, transfers]);
        let least = sums.iter().min().copied().unwrap_or(0);
        xxhash_rust::xxh3::xxh3_128_with_seed(&least.to_le_bytes(), counters.into())
    }

    /// Everything that can happen in a state and changes it.
    pub(super) fn choices(&self, state: &State) -> Vec<Choice> {
        let mut choices: Vec<Choice> =
            state.messages.iter().map(|&message| Choice::Delivers(message)).collect();
        let scope = &self.scope;
        for one in 0..scope.servers as usize {
            choices.push(Choice::TimesOut(one));
            choices.extend(scope.has_lapses.then_some(Choice::Lapses(one)));
            choices.extend(scope.has_heartbeats.then_some(Choice::Beats(one)));
            choices.push(Choice::Proposes(one));
            let counters = state.counters;
            let may_change = usize::from(counters.changes) < scope.changes.len();
            choices.extend(may_change.then_some(Choice::Changes(one)));
            choices.extend(scope.has_slow_disks.then_some(Choice::Writes(one)));
            choices.extend((counters.crashes < scope.crashes_max).then_some(Choice::Crashes(one)));
            choices.extend(scope.has_compaction.then_some(Choice::Compacts(one)));
            choices.extend((counters.reads < scope.reads_max).then_some(Choice::Reads(one)));
            if counters.transfers < scope.transfers_max {
                let others = (0..scope.servers as usize).filter(|&two| two != one);
                choices.extend(others.map(|two| Choice::HandsOver(one, two)));
            }
            let known = self.servers.get(state.servers[one]);
            choices.extend(known.server.installing.is_some().then_some(Choice::Installs(one)));
            for to in &known.summary.transfers {
                let two = to.0 as usize - 1;
                choices.extend([Choice::Transfers(one, two), Choice::FailsTransfer(one, two)]);
            }
        }
        choices
    }

    /// The state after a choice; `None` if it cannot be made or changes nothing.
    pub(super) fn next(&mut self, state: &State, choice: Choice) -> Option<Next> {
        let result = match choice {
            Choice::Delivers(message) => {
                let one = self.flights.get(message).to.0 as usize - 1;
                self.happens(state, one, choice, |universe| {
                    let Flight { from, message, .. } = universe.flights.get(message);
                    Event::Receives { from: *from, message: message.clone() }
                })
            }
            Choice::TimesOut(one) => self.happens(state, one, choice, |_| Event::TimesOut),
            Choice::Lapses(one) => self.happens(state, one, choice, |_| Event::Lapses),
            Choice::Beats(one) => self.happens(state, one, choice, |_| Event::Beats),
            Choice::Proposes(one) => self.happens(state, one, choice, |_| Event::Proposes),
            Choice::Writes(one) => self.happens(state, one, choice, |_| Event::Writes),
            Choice::Compacts(one) => self.happens(state, one, choice, |_| Event::Compacts),
            Choice::Installs(one) => self.happens(state, one, choice, |_| Event::Installs),
            Choice::Crashes(one) => self
                .happens(state, one, choice, |_| Event::Crashes)
                .map(|next| counted(next, |counters| counters.crashes += 1)),
            Choice::Changes(one) => {
                let which = usize::from(state.counters.changes);
                let key = Memo { choice, extra: which as u32 };
                self.happens_as(state, one, key, |_| Event::Changes(which))
                    .map(|next| counted(next, |counters| counters.changes += 1))
            }
            Choice::Reads(one) => {
                let floor = self.histories.get(state.history).committed_index();
                let key = Memo { choice, extra: floor as u32 };
                self.happens_as(state, one, key, |_| Event::Reads { floor })
                    .map(|next| counted(next, |counters| counters.reads += 1))
            }
            Choice::HandsOver(one, two) => {
                let to = NodeId(two as u64 + 1);
                self.happens(state, one, choice, |_| Event::HandsOver(to))
                    .map(|next| counted(next, |counters| counters.transfers += 1))
            }
            Choice::Transfers(from, to) => self.transfer(state, from, to),
            Choice::FailsTransfer(from, to) => self.end_transfer(state, from, to, false),
        };
        match result {
            Ok(Some(next)) if next == *state => None,
            Ok(next) => next.map(Ok),
            Err(violation) => Some(Err(violation)),
        }
    }

    /// The snapshot is staged at its receiver, and its sender learns so.
    fn transfer(
        &mut self,
        state: &State,
        from: usize,
        to: usize,
    ) -> Result<Option<State>, Violation> {
        let sender = state.servers[from];
        let key = Memo { choice: Choice::Transfers(from, to), extra: sender };
        let staged = self.happens_as(state, to, key, |universe| {
            Event::Stages(universe.server(sender).snapshot(universe.bug))
        })?;
        match staged {
            Some(staged) => self.end_transfer(&staged, from, to, true),
            None => Ok(None),
        }
    }

    fn end_transfer(
        &mut self,
        state: &State,
        from: usize,
        to: usize,
        is_delivered: bool,
    ) -> Result<Option<State>, Violation> {
        let key = Memo { choice: Choice::FailsTransfer(from, to), extra: u32::from(is_delivered) };
        let to = NodeId(to as u64 + 1);
        self.happens_as(state, from, key, |_| Event::SentSnapshot { to, is_delivered })
    }

    fn happens(
        &mut self,
        state: &State,
        one: usize,
        choice: Choice,
        event: impl FnOnce(&Self) -> Event,
    ) -> Result<Option<State>, Violation> {
        self.happens_as(state, one, Memo { choice, extra: 0 }, event)
    }

    /// The event happens to server `one`.
    fn happens_as(
        &mut self,
        state: &State,
        one: usize,
        memo: Memo,
        event: impl FnOnce(&Self) -> Event,
    ) -> Result<Option<State>, Violation> {
        let before = state.servers[one];
        let key = (before, memo.pack());
        let after = match self.steps.get(&key) {
            Some(after) => *after,
            None => {
                let event = event(self);
                let after = self.compute(before, &event)?;
                self.steps.insert(key, after);
                after
            }
        };
        let Some(after) = after else { return Ok(None) };
        let After { server, sent } = &self.afters[after as usize];
        let server = *server;
        let is_new = |message: &u32| state.messages.binary_search(message).is_err();
        if server == before && !sent.iter().any(is_new) {
            return Ok(Some(state.clone()));
        }
        let mut next = State { messages: merged(&state.messages, sent), ..state.clone() };
        next.servers[one] = server;
        if server != before {
            next.history = self.judge(&next, one, before)?;
        }
        self.forget_dead(&mut next);
        Ok(Some(next))
    }

    fn compute(&mut self, before: u32, event: &Event) -> Result<Option<u32>, Violation> {
        let known = self.servers.get(before);
        let from = known.summary.id;
        let Some((server, sent)) = known.server.after(event, &self.scope, self.bug)? else {
            return Ok(None);
        };
        let server = self.keep_server(server);
        // Whoever is not simulated does not exist.
        let sent = sent.into_iter().filter(|(to, _)| to.0 <= self.scope.servers);
        let sent: Vec<_> = sent.collect();
        let mut sent: Box<[u32]> =
            sent.into_iter().map(|(to, message)| self.keep_flight(from, to, message)).collect();
        sent.sort_unstable();
        self.afters.push(After { server, sent });
        Ok(Some(self.afters.len() as u32 - 1))
    }

    /// The history after server `one` changed.
    fn judge(&mut self, state: &State, one: usize, before: u32) -> Result<u32, Violation> {
        let servers = &state.servers[..self.scope.servers as usize];
        let all: Vec<Witness<'_>> = servers
            .iter()
            .map(|&key| {
                let summary = &self.servers.get(key).summary;
                Witness {
                    summary,
                    log: &self.logs[summary.log as usize],
                    durable: &self.logs[summary.durable as usize],
                }
            })
            .collect();
        let before = &self.servers.get(before).summary;
        if all[one].summary.log != before.log {
            for other in &all {
                let pair = (all[one].summary.log, other.summary.log);
                if !self.matching.contains(&pair) {
                    all[one].log.check_matching(other.log)?;
                    self.matching.insert(pair);
                }
            }
        }
        let history = self.histories.get(state.history).after(before, one, &all)?;
        Ok(match history {
            Some(history) => self.keep_history(history),
            None => state.history,
        })
    }

    /// Leaves out messages that can never again change anything.
    fn forget_dead(&self, state: &mut State) {
        let State { servers, messages, .. } = state;
        let receivers = servers.map(|key| &self.servers.get(key).summary);
        messages.retain(|&message| {
            let Flight { to, message, .. } = self.flights.get(message);
            !is_dead(message, receivers[to.0 as usize - 1])
        });
    }

    fn keep_server(&mut self, server: Server) -> u32 {
        let hashes = self.permutations.hashes(|names| {
            let name = |id: NodeId| names[id.0 as usize - 1];
            let mut bytes = Fingerprint::new(&name);
            server.fingerprint(&mut bytes);
            bytes.bytes().to_vec()
        });
        let (mark, entries) = server.log();
        let log = self.keep_log(&mark, &entries);
        let installed = &server.disk.machine;
        let mark = std::cmp::max_by_key(&server.disk.mark, installed, |mark| mark.index).clone();
        let beyond: Vec<_> =
            server.disk.entries.iter().filter(|it| it.index > mark.index).cloned().collect();
        let durable = self.keep_log(&mark, &beyond);
        let summary = Summary::of(&server, log, durable);
        self.servers.key(&hashes, || Known { server, summary })
    }

    fn keep_log(&mut self, mark: &SnapshotMark, entries: &[Entry]) -> u32 {
        let shape = LogShape {
            covered: (mark.index.0, mark.term.0),
            entries: entries.iter().map(|it| (it.term.0, hash_of(&it.payload))).collect(),
        };
        let next = self.logs.len() as u32;
        *self.log_keys.entry(shape).or_insert_with_key(|shape| {
            self.logs.push(shape.clone());
            next
        })
    }

    fn keep_flight(&mut self, from: NodeId, to: NodeId, message: Message) -> u32 {
        let hashes: Hashes = self.permutations.hashes(|names| {
            let name = |id: NodeId| names[id.0 as usize - 1];
            let mut bytes = Fingerprint::new(&name);
            bytes.server(from);
            bytes.server(to);
            bytes.message(&message);
            bytes.bytes().to_vec()
        });
        self.flights.key(&hashes, || Flight { from, to, message })
    }

    fn keep_history(&mut self, history: History) -> u32 {
        let hashes = history.hashes(&self.permutations);
        self.histories.key(&hashes, || history)
    }
}

/// Names a step of a server.
#[derive(Clone, Copy)]
struct Memo {
    choice: Choice,
    extra: u32,
}

impl Memo {
    fn pack(self) -> u64 {
        u64::from(self.choice.pack()) << 32 | u64::from(self.extra)
    }
}

/// One sum for each permutation of the servers.
pub(super) type Sums = Vec<Hash128>;

fn add(sums: &mut Sums, hashes: &[Hash128]) {
    sums.iter_mut().zip(hashes).for_each(|(sum, hash)| *sum = sum.wrapping_add(*hash));
}

fn subtract(sums: &mut Sums, hashes: &[Hash128]) {
    sums.iter_mut().zip(hashes).for_each(|(sum, hash)| *sum = sum.wrapping_sub(*hash));
}

fn counted(next: Option<State>, count: impl FnOnce(&mut Counters)) -> Option<State> {
    let mut next = next?;
    count(&mut next.counters);
    Some(next)
}

/// Two ordered lists as one, each number once.
fn merged(one: &[u32], two: &[u32]) -> Vec<u32> {
    let mut all = Vec::with_capacity(one.len() + two.len());
    let mut rest = one;
    for &number in two {
        let (before, after) = rest.split_at(rest.partition_point(|&it| it < number));
        all.extend_from_slice(before);
        if after.first() != Some(&number) {
            all.push(number);
        }
        rest = after;
    }
    all.extend_from_slice(rest);
    all
}

/// Whether a message can never again have an effect on its receiver, nor draw an answer from it: a
/// response of a term that the receiver has durably left, or in which it durably is and can be
/// neither candidate nor leader any more.
fn is_dead(message: &Message, receiver: &Summary) -> bool {
    let (term, left) = (message.term.0, receiver.durable_term);
    let is_now = |role| receiver.term == term && receiver.role == role;
    match message.body {
        // Its term is the one that the candidate would stand in.
        Body::PreVoteResponse { granted: true } => left >= term,
        Body::PreVoteResponse { granted: false } => left > term,
        Body::TermOver => left >= term,
        Body::VoteResponse { .. } => left >= term && !is_now(Role::Candidate),
        Body::AppendAccepted { .. }
        | Body::AppendRejected { .. }
        | Body::HeartbeatResponse { .. } => {
            left >= term && !is_now(Role::Candidate) && !is_now(Role::Leader)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_back_as_they_were_packed() {
        let choices = [
            Choice::Delivers(0),
            Choice::Delivers(CHOICES_FIRST - 1),
            Choice::TimesOut(0),
            Choice::Crashes(2),
            Choice::Installs(1),
            Choice::Transfers(2, 1),
            Choice::FailsTransfer(0, 2),
        ];
        for choice in choices {
            assert_eq!(Choice::unpack(choice.pack()), choice);
        }
    }

    #[test]
    fn lists_are_merged_in_order_and_once() {
        assert_eq!(merged(&[1, 4, 9], &[2, 4]), [1, 2, 4, 9]);
        assert_eq!(merged(&[], &[2]), [2]);
    }
}
