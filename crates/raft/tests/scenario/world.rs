//! Cores, disks, state machines and the messages between them. Nothing happens here but by a step,
//! save that disks and state machines do at once what they are asked, unless a disk is stalled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use onefold_raft::{
    Body, Config, Entry, Input, Membership, Message, Payload, Persist, Raft, Restored, Role,
    SnapshotMark, SnapshotOutcome, StepError, Stepped,
};
use onefold_types::{LogIndex, NodeId, Term};

use super::words;

/// A state machine: what it applied, in order.
type Machine = Vec<Entry>;

/// One server.
pub(super) struct Node {
    pub(super) config: Config,
    /// `None` while it is down.
    pub(super) core: Option<Raft>,
    /// What its disk holds.
    pub(super) disk: Restored,
    pub(super) machine: Machine,
    /// A snapshot that came whole and is durable, and waits to be installed.
    staged: Option<(SnapshotMark, Machine)>,
    pub(super) is_stalled: bool,
    /// Writes that a stalled disk has begun.
    unfinished: VecDeque<Persist>,
}

/// A message on its way.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

/// What a reader wants to be told about when it changes.
#[derive(PartialEq)]
struct View {
    role: Role,
    term: Term,
    leader: Option<NodeId>,
    vote: Option<NodeId>,
    commit: LogIndex,
    membership: Membership,
    is_quiet: bool,
    is_state_lost: bool,
}

impl View {
    fn of(core: &Raft) -> Self {
        let status = core.status();
        Self {
            role: status.role,
            term: status.term,
            leader: status.leader,
            vote: status.vote,
            commit: status.commit,
            membership: status.membership,
            is_quiet: status.is_quiet,
            is_state_lost: status.is_state_lost,
        }
    }

    /// What is new since `before`.
    fn news(&self, before: &Self, id: NodeId) -> Vec<(News, String)> {
        let mut news = Vec::new();
        if (self.role, self.term, self.leader) != (before.role, before.term, before.leader) {
            let leader = self.leader.filter(|&leader| leader != id);
            let leader = leader.map(|leader| format!(" of n{leader}")).unwrap_or_default();
            let role = words::role(self.role);
            news.push((News::Role, format!("{role}{leader} in term {}", self.term)));
        }
        let has_voted = (self.term, self.vote) != (before.term, before.vote);
        if let Some(vote) = self.vote.filter(|_| has_voted) {
            let whom = if vote == id { "itself".into() } else { format!("n{vote}") };
            news.push((News::Role, format!("votes for {whom}")));
        }
        if self.membership != before.membership {
            let members = words::membership(&self.membership);
            news.push((News::Members, format!("members are {members}")));
        }
        if self.commit > before.commit {
            news.push((News::Commit, format!("commits {}", self.commit)));
        }
        let turns = [
            (before.is_quiet, self.is_quiet, "falls silent", "wakes"),
            (before.is_state_lost, self.is_state_lost, "has lost its state", "has a state again"),
        ];
        for (was, is, begins, ends) in turns {
            if was != is {
                news.push((News::Driver, if is { begins } else { ends }.into()));
            }
        }
        news
    }
}

/// What a step changed on a server, in the order in which it is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Role,
    Log,
    Members,
    Commit,
    Applied,
    Driver,
}

/// Everything that there is.
#[derive(Default)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) network: VecDeque<Flight>,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Heartbeats that change nothing are not reported.
    pub(super) hides_heartbeats: bool,
    leaders: BTreeMap<Term, NodeId>,
    report: Vec<String>,
}

impl World {
    /// Adds a server that is down and has this on its disk.
    pub(super) fn add(&mut self, config: Config, disk: Restored) {
        let node = Node {
            config,
            core: None,
            disk,
            machine: Vec::new(),
            staged: None,
            is_stalled: false,
            unfinished: VecDeque::new(),
        };
        self.nodes.insert(node.config.id, node);
    }

    /// Adds a line to what happened.
    pub(super) fn say(&mut self, line: impl Into<String>) {
        self.report.push(line.into());
    }

    pub(super) fn take_report(&mut self) -> Vec<String> {
        std::mem::take(&mut self.report)
    }

    /// Starts a server with what its disk holds.
    pub(super) fn start(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.node(id)?;
        if node.core.is_some() {
            return Err(format!("n{id} runs already"));
        }
        let core = Raft::new(node.config.clone(), node.disk.clone());
        node.core = Some(core.map_err(|error| format!("n{id} does not start: {error}"))?);
        self.carry_out(id, Vec::new())
    }

    /// A server loses its memory and its unfinished writes.
    pub(super) fn crash(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.node(id)?;
        node.core = None;
        node.unfinished.clear();
        node.machine.truncate(node.disk.applied.0 as usize);
        Ok(())
    }

    /// The state machine of a server loses its state, and says so if the server runs.
    pub(super) fn lose_state(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.node(id)?;
        node.machine.clear();
        node.disk.applied = LogIndex::ZERO;
        if node.core.is_some() {
            self.step(id, Input::StateLost)?;
        }
        Ok(())
    }

    /// A core processes an input and its output is carried out. An input that the core refuses is
    /// reported.
    pub(super) fn step(&mut self, id: NodeId, input: Input) -> Result<Option<Stepped>, String> {
        let core = self.core(id)?;
        let before = View::of(core);
        let stepped: Result<Stepped, StepError> = core.step(input);
        let after = View::of(core);
        self.carry_out(id, after.news(&before, id))?;
        match stepped {
            Ok(stepped) => Ok(Some(stepped)),
            Err(error) => {
                self.say(format!("n{id} refuses: {error}"));
                Ok(None)
            }
        }
    }

    /// Carries out what the core asks for until it asks for nothing more, and reports the news.
    fn carry_out(&mut self, id: NodeId, mut news: Vec<(News, String)>) -> Result<(), String> {
        loop {
            let before = View::of(self.core(id)?);
            let output = self.core(id)?.take_output();
            if output.is_empty() {
                break;
            }
            let flights =
                output.messages.into_iter().map(|(to, message)| Flight { from: id, to, message });
            self.network.extend(flights);
            if let Some(persist) = output.persist {
                self.write(id, persist, &mut news)?;
            }
            self.apply(id, output.committed, &mut news)?;
            let reads =
                output.read_states.iter().map(|state| (News::Driver, words::read_state(state)));
            news.extend(reads);
            for to in output.send_snapshot {
                self.send_snapshot(id, to, &mut news)?;
            }
            if let Some(mark) = output.install_snapshot {
                self.install(id, mark, &mut news)?;
            }
            news.extend(View::of(self.core(id)?).news(&before, id));
        }
        if !news.is_empty() {
            drop_repeated_members(&mut news);
            news.sort_by_key(|(kind, _)| *kind);
            let told: Vec<String> = news.into_iter().map(|(_, text)| text).collect();
            self.say(format!("n{id}: {}", told.join("; ")));
        }
        Ok(())
    }

    fn write(
        &mut self,
        id: NodeId,
        persist: Persist,
        news: &mut Vec<(News, String)>,
    ) -> Result<(), String> {
        if let Some(from) = persist.truncate_from {
            news.push((News::Log, format!("removes {from} and what follows")));
        }
        if !persist.entries.is_empty() {
            news.push((News::Log, format!("appends {}", words::entries(&persist.entries))));
        }
        let node = self.node(id)?;
        if node.is_stalled {
            news.push((News::Driver, format!("begins {}", words::persist(&persist))));
            node.unfinished.push_back(persist);
            return Ok(());
        }
        let sequence = persist.sequence;
        store(&mut node.disk, persist);
        self.report_done(id, Input::Persisted(sequence))
    }

    fn apply(
        &mut self,
        id: NodeId,
        committed: Vec<Entry>,
        news: &mut Vec<(News, String)>,
    ) -> Result<(), String> {
        let Some(last) = committed.last().map(|entry| entry.index) else { return Ok(()) };
        let commands: Vec<_> = committed.iter().filter_map(command).collect();
        if !commands.is_empty() {
            news.push((News::Applied, format!("applies {}", commands.join(", "))));
        }
        let node = self.node(id)?;
        node.machine.extend(committed);
        node.disk.applied = last;
        self.report_done(id, Input::Applied(last))
    }

    /// The driver's part of a snapshot: the whole state goes to the follower and is staged there.
    fn send_snapshot(
        &mut self,
        id: NodeId,
        to: NodeId,
        news: &mut Vec<(News, String)>,
    ) -> Result<(), String> {
        let applied = self.node(id)?.disk.applied;
        let mark = self.core(id)?.snapshot_mark_at(applied).ok_or("no mark of what is applied")?;
        let state = self.node(id)?.machine.clone();
        let is_cut = self.cut.contains(&(id, to));
        let target = self.nodes.get_mut(&to).filter(|node| node.core.is_some() && !is_cut);
        let outcome = match target {
            Some(target) => {
                let through = words::mark(&mark);
                news.push((News::Driver, format!("streams its state through {through} to n{to}")));
                target.staged = Some((mark.clone(), state));
                SnapshotOutcome::Delivered(mark)
            }
            None => {
                news.push((News::Driver, format!("cannot stream its state to n{to}")));
                SnapshotOutcome::Failed
            }
        };
        self.report_done(id, Input::SnapshotSent { to, outcome })
    }

    fn install(
        &mut self,
        id: NodeId,
        mark: SnapshotMark,
        news: &mut Vec<(News, String)>,
    ) -> Result<(), String> {
        let node = self.node(id)?;
        let Some((_, state)) = node.staged.take_if(|(staged, _)| *staged == mark) else {
            return self.report_done(id, Input::SnapshotMissing(mark));
        };
        node.machine = state;
        node.disk.applied = mark.index;
        let through = words::mark(&mark);
        news.push((News::Driver, format!("installs the snapshot through {through}")));
        self.report_done(id, Input::SnapshotInstalled(mark))
    }

    fn report_done(&mut self, id: NodeId, input: Input) -> Result<(), String> {
        let stepped = self.core(id)?.step(input);
        stepped.map(|_| ()).map_err(|error| format!("n{id}: {error}"))
    }

    /// The oldest write of a stalled disk becomes durable; false if there is none.
    pub(super) fn finish_write(&mut self, id: NodeId) -> Result<bool, String> {
        let node = self.node(id)?;
        let Some(persist) = node.unfinished.pop_front() else { return Ok(false) };
        let sequence = persist.sequence;
        store(&mut node.disk, persist);
        self.say(format!("n{id} write {} is durable", sequence.0));
        self.step(id, Input::Persisted(sequence))?;
        Ok(true)
    }

    /// A message arrives, or is lost because the link is cut or the server is down.
    pub(super) fn deliver(&mut self, flight: Flight) -> Result<(), String> {
        let Flight { from, to, message } = flight;
        let line = format!("n{from}→n{to} {}", words::message(&message));
        let is_up = self.nodes.get(&to).is_some_and(|node| node.core.is_some());
        let is_heartbeat =
            matches!(message.body, Body::Heartbeat { .. } | Body::HeartbeatResponse { .. });
        let hides = self.hides_heartbeats && is_heartbeat;
        if !is_up || self.cut.contains(&(from, to)) {
            if !self.hides_heartbeats {
                self.say(format!("{line} — lost"));
            }
            return Ok(());
        }
        let at = self.report.len();
        self.say(line);
        self.step(to, Input::Message { from, message })?;
        if hides && self.report.len() == at + 1 {
            self.report.pop();
        }
        for line in self.report.iter_mut().skip(at + 1) {
            line.insert_str(0, "  ");
        }
        Ok(())
    }

    /// Delivers everything, and what follows from it, until nothing is on its way.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        while let Some(flight) = self.network.pop_front() {
            self.deliver(flight)?;
        }
        Ok(())
    }

    pub(super) fn node(&mut self, id: NodeId) -> Result<&mut Node, String> {
        self.nodes.get_mut(&id).ok_or_else(|| format!("there is no n{id}"))
    }

    pub(super) fn core(&mut self, id: NodeId) -> Result<&mut Raft, String> {
        self.node(id)?.core.as_mut().ok_or_else(|| format!("n{id} is down"))
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let up = self.nodes.iter().filter(|(_, node)| node.core.is_some());
        up.map(|(id, _)| *id).collect()
    }

    /// Figure 3 of the paper, whatever the page is about: at most one leader in a term, and state
    /// machines that never part.
    pub(super) fn check_safety(&mut self) -> Result<(), String> {
        for (&id, node) in &self.nodes {
            let leads = node.core.as_ref().filter(|core| core.role() == Role::Leader);
            let Some(term) = leads.map(Raft::term) else { continue };
            let first = *self.leaders.entry(term).or_insert(id);
            if first != id {
                return Err(format!("n{first} and n{id} both lead term {term}"));
            }
        }
        let longest = self.nodes.values().max_by_key(|node| node.machine.len());
        for (id, node) in &self.nodes {
            let is_prefix = longest.is_none_or(|it| it.machine.starts_with(&node.machine));
            if !is_prefix {
                return Err(format!("n{id} applied something else than another server"));
            }
        }
        Ok(())
    }
}

/// The members are in the entry that was appended.
fn drop_repeated_members(news: &mut Vec<(News, String)>) {
    let appended: Vec<String> =
        news.iter().filter(|(kind, _)| *kind == News::Log).map(|(_, text)| text.clone()).collect();
    news.retain(|(kind, text)| {
        let members = text.trim_start_matches("members are ");
        *kind != News::Members || !appended.iter().any(|text| text.ends_with(members))
    });
}

/// What a disk holds after a write.
fn store(disk: &mut Restored, persist: Persist) {
    if let Some(hard_state) = persist.hard_state {
        disk.hard_state = hard_state;
    }
    if let Some(from) = persist.truncate_from {
        disk.entries.retain(|entry| entry.index < from);
    }
    if let Some(mark) = persist.snapshot {
        disk.entries.retain(|entry| entry.index > mark.index);
        disk.snapshot = mark;
    }
    disk.entries.extend(persist.entries);
}

/// The command of an entry, if it has one to show.
pub(super) fn command(entry: &Entry) -> Option<String> {
    match &entry.payload {
        Payload::Command(command) if !command.is_empty() => {
            Some(String::from_utf8_lossy(command).into_owned())
        }
        Payload::Command(_) | Payload::Empty | Payload::Membership(_) => None,
    }
}
