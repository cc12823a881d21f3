//! Clients: each does one thing after the other, through any node, and tries again under the same
//! sequence number until it has an answer or gives up.

use onefold_checker::linearizability::{RegisterInput, RegisterOutput};
use onefold_kv::{LeaseId, RangeRequest, core as kv};
use onefold_raft::{Input, Role, Stepped};
use onefold_replica::{SessionTag, state::seal_command};
use onefold_types::{LogIndex, NodeId, SessionId};

use super::{
    checker::{Checked, Violation},
    clock::{MILLISECOND, Micros, SECOND},
    coverage::{Branch, FaultKind},
    event::{Ask, Event, Freshness, Outcome, Packet, Query, Request},
    history::{Asked, OpId, Seen, command, key_bytes, value_of},
    node::{Asker, Reading, Reply},
    plan::NODES_MAX,
    sabotage::Sabotage,
    store::words,
    world::World,
};

/// Operations of one burst of a client, after which it is silent for long.
const BURST_MAX: u64 = 30;

/// The client by whose name nodes send commands of their own to others.
const OWN_CLIENT: u32 = u32::MAX;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    session: SessionId,
    /// Operations that it began.
    number: u64,
    current: Option<Attempted>,
    /// Only the latest turn that was scheduled counts.
    turn: u64,
    /// Operations until it is silent.
    burst: u64,
    /// What it saw last of each key: (group, key, value).
    known: Vec<(usize, u64, Option<u64>)>,
    /// The groups that it asks for something in the end.
    probes: Vec<usize>,
    last_node: Option<NodeId>,
}

/// The operation that a client waits for.
#[derive(Debug)]
struct Attempted {
    op: OpId,
    request: Request,
    freshness: Freshness,
    began: Micros,
    /// Requests sent, and those of them that were refused for certain.
    sent: u64,
    refused: u64,
}

impl Request {
    /// Whether it may be sent more than once: it is read, or executed once at most.
    fn may_repeat(&self) -> bool {
        !matches!(self.ask, Ask::Write { tag: None, .. })
    }
}

impl Client {
    pub(super) fn new(session: u64) -> Self {
        Self {
            session: SessionId(session),
            number: 0,
            current: None,
            turn: 0,
            burst: 1,
            known: Vec::new(),
            probes: Vec::new(),
            last_node: None,
        }
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Whether it waits for an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some() || !self.probes.is_empty()
    }

    /// It is to write to each group once more.
    pub(super) fn probe(&mut self, groups: usize) {
        self.probes = (0..groups).collect();
    }

    fn learn(&mut self, group: usize, key: u64, value: Option<u64>) {
        match self.known.iter_mut().find(|(g, k, _)| (*g, *k) == (group, key)) {
            Some(known) => known.2 = value,
            None => self.known.push((group, key, value)),
        }
    }

    fn knows(&self, group: usize, key: u64) -> Option<u64> {
        let known = self.known.iter().find(|(g, k, _)| (*g, *k) == (group, key));
        known.and_then(|(_, _, value)| *value)
    }
}

impl World {
    /// All clients begin.
    pub(super) fn wake_clients(&mut self) {
        for client in 0..self.clients.len() {
            let delay = self.random.within(0..=2 * self.plan.think_time);
            self.plan_turn(client, delay);
        }
    }

    fn plan_turn(&mut self, client: usize, delay: Micros) {
        let state = &mut self.clients[client];
        state.turn += 1;
        let turn = state.turn;
        self.schedule(delay, Event::Client { client, turn });
    }

    /// A client begins, tries again, or gives up.
    pub(super) fn client_turn(&mut self, client: usize, turn: u64) -> Checked {
        if self.clients[client].turn != turn {
            return Ok(());
        }
        let (patience, is_healed) = (self.plan.patience, self.is_healed);
        let Some(current) = &self.clients[client].current else {
            let group = if is_healed {
                self.clients[client].probes.pop()
            } else {
                Some(self.random.within(0..=self.plan.groups as u64 - 1) as usize)
            };
            if let Some(group) = group {
                self.begin_operation(client, group);
                self.attempt(client);
            }
            return Ok(());
        };
        if !is_healed && self.now >= current.began + patience {
            self.give_up(client)?;
            self.think(client);
            return Ok(());
        }
        if !current.request.may_repeat() && current.sent > current.refused {
            // Nobody knows whether it was done, and it must not be done twice.
            self.give_up(client)?;
            self.think(client);
            return Ok(());
        }
        self.attempt(client);
        Ok(())
    }

    /// The client does nothing for a while.
    fn think(&mut self, client: usize) {
        let state = &mut self.clients[client];
        state.burst = state.burst.saturating_sub(1);
        let is_over = state.burst == 0;
        if is_over {
            state.burst = self.random.within(1..=BURST_MAX);
        }
        let mut delay = self.random.within(1..=2 * self.plan.think_time);
        if !self.is_healed && is_over && self.plan.lull > 0 {
            delay += self.random.within(1..=2 * self.plan.lull);
        }
        self.plan_turn(client, delay);
    }

    /// Draws what the client does next.
    fn begin_operation(&mut self, client: usize, group: usize) {
        let key = self.random.within(0..=self.plan.keys - 1);
        let state = &mut self.clients[client];
        state.number += 1;
        let op = OpId { client: client as u32, number: state.number };
        if self.plan.is_store(group) {
            let (ask, freshness) = self.ask_of_store(group, op);
            let request = Request { op, group, ask };
            let (began, sent, refused) = (self.now, 0, 0);
            self.clients[client].current =
                Some(Attempted { op, request, freshness, began, sent, refused });
            return;
        }
        let state = &mut self.clients[client];
        let value = u64::from(op.client) << 32 | op.number;
        let known = state.knows(group, key);
        let mut freshness = Freshness::Linearizable;
        let input = if !self.is_healed && self.random.chance(self.plan.reads) {
            freshness = match self.random.within(0..=9) {
                0..=5 => Freshness::Linearizable,
                6..=8 => Freshness::Bounded(self.random.within(1..=4) * SECOND),
                _ => Freshness::Local,
            };
            RegisterInput::Get
        } else {
            match self.random.within(0..=9) {
                0..=3 => RegisterInput::Put(value),
                4 => RegisterInput::Delete,
                5..=7 => RegisterInput::CompareAndSwap { expected: known, new: value },
                _ => RegisterInput::Swap(value),
            }
        };
        let ask = match input {
            RegisterInput::Get => Ask::Read { query: Query::Key(key_bytes(key)), freshness },
            _ => Ask::Write {
                tag: Some(SessionTag {
                    session: self.clients[client].session,
                    sequence: op.number,
                    acknowledged_below: op.number,
                }),
                command: command(key, input, self.plan.value_bytes_max),
            },
        };
        let floor = self.history.floor(group);
        self.history.begins(op, Asked { group, key, input, called: self.now, floor });
        self.clients[client].current = Some(Attempted {
            op,
            request: Request { op, group, ask },
            freshness,
            began: self.now,
            sent: 0,
            refused: 0,
        });
    }

    /// Sends the current operation to some node, and looks again after a while.
    fn attempt(&mut self, client: usize) {
        let serving = self.serving();
        let mut node = self.random.pick(&serving);
        let state = &mut self.clients[client];
        let Some(current) = state.current.as_mut() else { return };
        // Most stay with the node that answered last.
        if let Some(last) = state.last_node.filter(|last| serving.contains(last))
            && current.sent == 0
            && self.random.chance(700)
        {
            node = last;
        }
        state.last_node = Some(node);
        current.sent += 1;
        let request = current.request.clone();
        let delay = self.random.within(1..=5 * MILLISECOND);
        let is_faulty = !self.is_healed;
        if is_faulty && self.random.chance(10) {
            self.faults.hit(FaultKind::RequestLost);
        } else {
            if is_faulty && request.may_repeat() && self.random.chance(10) {
                self.faults.hit(FaultKind::RequestDuplicated);
                let late = self.random.within(1..=3 * SECOND);
                let request = Box::new(request.clone());
                self.schedule(late, Event::Request { node, request });
                // What one copy is refused the other may get.
                let current = self.clients[client].current.as_mut().expect("it attempts");
                current.sent += 1;
            }
            self.schedule(delay, Event::Request { node, request: Box::new(request) });
        }
        let timeout = self.random.within(500..=2_000) * MILLISECOND;
        self.plan_turn(client, timeout);
    }

    fn give_up(&mut self, client: usize) -> Checked {
        let state = &mut self.clients[client];
        state.last_node = None;
        let Some(current) = state.current.take() else { return Ok(()) };
        let is_refused = current.sent == current.refused;
        if !is_refused {
            self.coverage.hit(Branch::OutcomeUnknown);
        }
        let group = current.request.group;
        if self.plan.is_store(group) {
            let node = NodeId(0);
            self.accounts[group].given_up(current.op, node, is_refused, self.now);
            return Ok(());
        }
        self.history.given_up(current.op, is_refused)
    }

    /// An answer reaches a client.
    pub(super) fn answered(&mut self, op: OpId, node: NodeId, outcome: Outcome) -> Checked {
        let client = op.client as usize;
        let Some(current) = self.clients[client].current.as_mut() else { return Ok(()) };
        if current.op != op {
            return Ok(());
        }
        let (group, freshness) = (current.request.group, current.freshness);
        match outcome {
            outcome @ (Outcome::Written(_) | Outcome::Answered(_)) if self.plan.is_store(group) => {
                self.store_answered(group, op, node, outcome)?;
            }
            Outcome::Answered(_) => unreachable!("only stores answer so"),
            Outcome::Written(answer) => {
                self.history.written(op, &answer, self.now)?;
                self.learn_from(client, op);
            }
            Outcome::Read { revision, value } => {
                let value = value.and_then(|value| value_of(&value));
                let seen = Seen { revision, output: RegisterOutput::Value(value) };
                let key = self.history.key_of(op);
                match freshness {
                    Freshness::Linearizable => self.history.read(op, seen, self.now)?,
                    // By a clock that may be slow.
                    Freshness::Bounded(lag) => {
                        self.history.stale_read(op, seen, Some(lag + lag / 4))?;
                    }
                    Freshness::Local => self.history.stale_read(op, seen, None)?,
                }
                self.clients[client].learn(group, key, value);
            }
            Outcome::Refused => {
                current.refused += 1;
                let pause = self.random.within(20..=400) * MILLISECOND;
                self.plan_turn(client, pause);
                return Ok(());
            }
            Outcome::Unknown => {
                let pause = self.random.within(20..=400) * MILLISECOND;
                self.plan_turn(client, pause);
                return Ok(());
            }
            Outcome::Trimmed => {
                // Only a later operation of the session can have trimmed it.
                return Err(Violation {
                    invariant: "a client that waits gets its answer",
                    detail: format!("{op} was trimmed"),
                });
            }
        }
        self.clients[client].current = None;
        self.think(client);
        Ok(())
    }

    fn learn_from(&mut self, client: usize, op: OpId) {
        let (group, key, value) = self.history.value_after(op);
        self.clients[client].learn(group, key, value);
    }

    /// An answer leaves for a client.
    pub(super) fn answer_client(&mut self, op: OpId, outcome: Outcome) {
        let node = self.clients[op.client as usize].last_node.unwrap_or_default();
        if !self.is_healed && self.random.chance(10) {
            self.faults.hit(FaultKind::AnswerLost);
            return;
        }
        let delay = self.random.within(1..=5 * MILLISECOND);
        self.schedule(delay, Event::Answer { op, node, outcome: Box::new(outcome) });
    }

    /// A request arrives at a node.
    pub(super) fn requested(&mut self, id: NodeId, request: Request) -> Checked {
        let Request { op, group, ask } = request;
        if self.node(id).process.is_none() {
            // Nobody listens there.
            self.answer_client(op, Outcome::Refused);
            return Ok(());
        }
        match ask {
            Ask::Write { tag, command } => {
                self.propose(id, group, tag, &command, Reply::Client(op))
            }
            Ask::Read { query, freshness } => {
                self.read(id, group, Reading { op, query, freshness })
            }
            Ask::KeepAlive(lease) => self.asked_to_keep_alive(id, group, op, lease),
        }
    }

    /// A command at a node: proposed here if it leads, sent on to the leader if it is a client's.
    pub(super) fn propose(
        &mut self,
        id: NodeId,
        group: usize,
        tag: Option<SessionTag>,
        command: &bytes::Bytes,
        reply: Reply,
    ) -> Checked {
        let time = self.node(id).clock.wall(self.now);
        let is_untagged = self.sabotage == Some(Sabotage::NoDedupe);
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        let (role, leader) = (hosted.raft.role(), hosted.raft.leader());
        let was_quiet = hosted.raft.is_quiet();
        if role != Role::Leader {
            return match (reply, leader.filter(|leader| *leader != id)) {
                (Reply::Client(_) | Reply::Own(..), Some(leader)) => {
                    self.coverage.hit(Branch::Forwarded);
                    let process = self.node_mut(id).process.as_mut().expect("it runs");
                    let op = match reply {
                        Reply::Client(op) | Reply::Node(_, op) => op,
                        Reply::Own(..) => {
                            process.own_sent += 1;
                            OpId { client: OWN_CLIENT, number: process.own_sent }
                        }
                    };
                    process.forwarded.insert(op, reply);
                    let command = command.clone();
                    self.send(id, leader, Packet::Propose { group, op, tag, command });
                    Ok(())
                }
                _ => {
                    self.reply(id, reply, Outcome::Refused);
                    Ok(())
                }
            };
        }
        let sealed = seal_command(time, tag.filter(|_| !is_untagged), command);
        let sealed = sealed.expect("commands of clients are small");
        if let (Reply::Client(op) | Reply::Node(_, op), Some(tag)) = (reply, tag)
            && !self.plan.is_store(group)
        {
            self.history.sealed(&sealed, op, tag);
        }
        match self.step(id, group, Input::Propose(vec![sealed]))? {
            Some(Stepped::Proposed { term, indexes }) => {
                if was_quiet {
                    self.coverage.hit(Branch::WokeByClient);
                }
                let hosted = self.hosted(id, group).expect("it was just stepped");
                hosted.waiters.insert((*indexes.start(), term), reply);
            }
            _ => self.reply(id, reply, Outcome::Refused),
        }
        Ok(())
    }

    fn read(&mut self, id: NodeId, group: usize, reading: Reading) -> Checked {
        let began = self.node(id).clock.monotonic(self.now);
        let hosted = self.hosted(id, group).expect("requests come to nodes that run");
        match reading.freshness {
            Freshness::Local => {
                self.coverage.hit(Branch::LocalRead);
                return self.answer_read(id, group, reading, None);
            }
            Freshness::Bounded(lag) => {
                let is_fresh = hosted
                    .confirmed
                    .is_some_and(|(at, index)| began - at < lag && hosted.state.applied() >= index);
                if is_fresh {
                    self.coverage.hit(Branch::StaleReadServed);
                    return self.answer_read(id, group, reading, None);
                }
                self.coverage.hit(Branch::StaleReadAsked);
            }
            Freshness::Linearizable => {}
        }
        let hosted = self.hosted(id, group).expect("requests come to nodes that run");
        let leader = hosted.raft.leader().filter(|leader| *leader != id);
        if hosted.raft.role() == Role::Leader {
            return self.ask_core(id, group, Asker::Read(reading, began));
        }
        let Some(leader) = leader else {
            self.answer_client(reading.op, Outcome::Refused);
            return Ok(());
        };
        hosted.reads_asked += 1;
        let question = hosted.reads_asked;
        hosted.questions.insert(question, (reading, began));
        while hosted.questions.len() > 64 * NODES_MAX {
            hosted.questions.pop_first();
        }
        self.send(id, leader, Packet::AskIndex { group, question });
        Ok(())
    }

    /// Another node asks what is committed.
    pub(super) fn asked_index(
        &mut self,
        id: NodeId,
        group: usize,
        from: NodeId,
        question: u64,
    ) -> Checked {
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        if hosted.raft.role() != Role::Leader {
            self.send(id, from, Packet::Index { group, question, index: None });
            return Ok(());
        }
        self.ask_core(id, group, Asker::Node(from, question))
    }

    /// A leader said what is committed.
    pub(super) fn index_answered(
        &mut self,
        id: NodeId,
        group: usize,
        question: u64,
        index: Option<LogIndex>,
    ) -> Checked {
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        let Some((reading, began)) = hosted.questions.remove(&question) else { return Ok(()) };
        match index {
            Some(index) => {
                self.coverage.hit(Branch::FollowerRead);
                self.wait_until_applied(id, group, reading, began, index)
            }
            None => {
                self.answer_client(reading.op, Outcome::Refused);
                Ok(())
            }
        }
    }

    /// A read goes on as soon as this replica has applied an index.
    pub(super) fn wait_until_applied(
        &mut self,
        id: NodeId,
        group: usize,
        reading: Reading,
        began: Micros,
        index: LogIndex,
    ) -> Checked {
        let is_impatient = self.sabotage == Some(Sabotage::ReadBeforeApply);
        let hosted = self.hosted(id, group).expect("it runs");
        if hosted.state.applied() >= index || is_impatient {
            return self.answer_read(id, group, reading, Some((began, index)));
        }
        hosted.behind.push((index, reading, began));
        Ok(())
    }

    /// Reads from the replica's state.
    pub(super) fn answer_read(
        &mut self,
        id: NodeId,
        group: usize,
        reading: Reading,
        confirmed: Option<(Micros, LogIndex)>,
    ) -> Checked {
        let hosted = self.hosted(id, group).expect("it runs");
        if let Some((at, index)) = confirmed {
            // The latest read to begin says the most.
            let is_newer = hosted.confirmed.is_none_or(|(before, _)| at > before);
            if is_newer {
                hosted.confirmed = Some((at, index));
            }
        }
        if hosted.raft.is_state_lost() {
            self.answer_client(reading.op, Outcome::Refused);
            return Ok(());
        }
        let view = hosted.state.view();
        let outcome = match reading.query {
            Query::Key(key) => {
                let read = kv::read(&view, &RangeRequest::key(key));
                let read = read.map_err(|error| Violation {
                    invariant: "states can be read",
                    detail: format!("g{group} n{id}: {error}"),
                })?;
                Outcome::Read {
                    revision: read.header.revision.get(),
                    value: read.kvs.into_iter().next().map(|kv| kv.value),
                }
            }
            Query::Range(request) => {
                let read = kv::read(&view, &request);
                Outcome::Answered(read.as_ref().map(words::ranged).map_err(words::refused))
            }
            Query::Txn(request) => {
                let read = kv::read_txn(&view, &request);
                Outcome::Answered(read.as_ref().map(words::transacted).map_err(words::refused))
            }
            Query::KeepAlive(lease, term) => {
                self.keep_alive(id, group, reading.op, lease, term);
                return Ok(());
            }
        };
        self.answer_client(reading.op, outcome);
        Ok(())
    }

    /// A lease is renewed by who leads, once it is sure that it does.
    fn asked_to_keep_alive(
        &mut self,
        id: NodeId,
        group: usize,
        op: OpId,
        lease: LeaseId,
    ) -> Checked {
        let is_unasked = self.sabotage == Some(Sabotage::RenewedUnasked);
        let hosted = self.hosted(id, group).expect("requests come to nodes that run");
        if hosted.raft.role() != Role::Leader {
            self.answer_client(op, Outcome::Refused);
            return Ok(());
        }
        let term = hosted.raft.term();
        if is_unasked {
            self.keep_alive(id, group, op, lease, term);
            return Ok(());
        }
        let query = Query::KeepAlive(lease, term);
        self.read(id, group, Reading { op, query, freshness: Freshness::Linearizable })
    }
}
