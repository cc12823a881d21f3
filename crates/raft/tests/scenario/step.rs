//! The language of the steps; `tests/scenarios/README.md` is its manual.

use std::collections::BTreeSet;

use bytes::Bytes;
use onefold_raft::{
    Config, Entry, HardState, Input, Lease, Membership, MembershipChange, Payload, ReadId,
    Restored, Role, SnapshotMark,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

use super::{
    words,
    world::{Flight, World, command},
};

type Done = Result<(), String>;

/// Carries out one step.
///
/// # Errors
/// A step that does not exist or cannot be done, or an expectation that fails.
pub(super) fn run(world: &mut World, text: &str) -> Done {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    match name {
        "cluster" => cluster(world, &words),
        "newcomer" => newcomer(world, &words),
        "disk" => disk(world, rest),
        "quietly" => quietly(world, rest),
        "elect" => elect(world, &words),
        "campaign" => each(world, &words, |_| Input::Campaign),
        "propose" => propose(world, &words),
        "read" => read(world, &words),
        "change" => change(world, rest),
        "transfer" => transfer(world, &words),
        "compact" => compact(world, &words),
        "tick" => tick(world, &words),
        "run" => run_for(world, &words),
        "now" => now(world, &words),
        "node-down" => about_node(world, &words, Input::NodeDown),
        "node-up" => about_node(world, &words, Input::NodeUp),
        "deliver" => deliver(world, rest),
        "drop" => drop_flights(world, rest),
        "deliver-copy" => deliver_copy(world, rest),
        "cut" => cut(world, &words),
        "split" => split(world, rest),
        "heal" => {
            world.cut.clear();
            Ok(())
        }
        "crash" => ids(world, &words)?.into_iter().try_for_each(|id| world.crash(id)),
        "restart" => ids(world, &words)?.into_iter().try_for_each(|id| world.start(id)),
        "lose-state" => ids(world, &words)?.into_iter().try_for_each(|id| world.lose_state(id)),
        "stall-disk" => stall(world, &words),
        "finish-write" => finish_write(world, &words),
        "resume-disk" => resume(world, &words),
        "show" => show(world, &words),
        "expect" => expect(world, rest),
        _ => Err(format!("no step is called {name}")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

fn id(word: &str) -> Result<NodeId, String> {
    number(word.strip_prefix('n').unwrap_or(word)).map(NodeId)
}

/// The nodes named, or every one that runs if it says `all` or nothing.
fn ids(world: &World, words: &[&str]) -> Result<Vec<NodeId>, String> {
    match words {
        [] | ["all"] => Ok(world.running()),
        _ => words.iter().map(|word| id(word)).collect(),
    }
}

fn one<'a>(words: &'a [&'a str]) -> Result<(NodeId, &'a [&'a str]), String> {
    let (first, rest) = words.split_first().ok_or("which node?")?;
    Ok((id(first)?, rest))
}

/// `cluster 3 [setting=value ...]`: voters 1 to 3 with empty disks, running.
fn cluster(world: &mut World, words: &[&str]) -> Done {
    let (count, settings) = words.split_first().ok_or("how many nodes?")?;
    let count: u64 = number(count)?;
    *world = World::default();
    let membership = Membership::of_voters((1..=count).map(NodeId));
    for id in (1..=count).map(NodeId) {
        let snapshot = SnapshotMark::initial(membership.clone());
        world.add(config(id, settings)?, Restored { snapshot, ..Restored::default() });
        world.start(id)?;
    }
    Ok(())
}

/// `newcomer 4 [setting=value ...]`: a running node that was not yet told who is in the group.
fn newcomer(world: &mut World, words: &[&str]) -> Done {
    let (id, settings) = one(words)?;
    world.add(config(id, settings)?, Restored::default());
    world.start(id)
}

/// Elections after 10 to 19 ticks, a heartbeat each second tick, unless the settings say otherwise.
/// A setting may be for one node only: `rank.3=1`.
fn config(id: NodeId, settings: &[&str]) -> Result<Config, String> {
    let mut config = Config::new(id, GroupId::KV, 7);
    config.election_ticks = 10;
    config.heartbeat_ticks = 2;
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("a setting is name=value")?;
        let name = match name.split_once('.') {
            Some((_, node)) if number::<u64>(node)? != id.0 => continue,
            Some((name, _)) => name,
            None => name,
        };
        match name {
            "rank" => config.election_rank = number(value)?,
            "append-bytes" => config.append_bytes_max = number(value)?,
            "appends-in-flight" => config.inflight_messages_max = number(value)?,
            "disk-stall-ticks" => config.disk_stall_ticks = number(value)?,
            "promotion-lag" => config.promotion_lag_max = number(value)?,
            "quiesce-ticks" => config.quiesce_after_ticks = Some(number(value)?),
            "lease-ms" => {
                let micros = number::<u64>(value)? * 1000;
                config.lease = Some(Lease { micros, drift_ppm: 100_000 });
            }
            _ => return Err(format!("no setting is called {name}")),
        }
    }
    Ok(config)
}

/// `disk 1: term 7, vote 2, commit 3, log 1 1 4`: the node starts again with this on its disk. What
/// is not named is empty; without a term it is that of the last entry.
fn disk(world: &mut World, rest: &str) -> Done {
    let (who, parts) = rest.split_once(':').ok_or("a disk is `disk 1: log 1 1 4`")?;
    let id = id(who)?;
    world.crash(id)?;
    let mut hard_state = HardState::default();
    let mut entries: Vec<Entry> = Vec::new();
    for part in parts.split(',').map(str::trim) {
        match part.split_once(' ').ok_or("a part is `name value`")? {
            ("term", value) => hard_state.term = Term(number(value)?),
            ("vote", value) => hard_state.vote = Some(self::id(value)?),
            ("commit", value) => hard_state.commit = LogIndex(number(value)?),
            ("log", terms) => entries = entries_of(terms)?,
            (name, _) => return Err(format!("a disk has no {name}")),
        }
    }
    let last_term = entries.last().map_or(Term::ZERO, |entry| entry.term);
    hard_state.term = hard_state.term.max(last_term);
    let disk = &mut world.node(id)?.disk;
    (disk.hard_state, disk.entries) = (hard_state, entries);
    world.start(id)
}

fn entries_of(terms: &str) -> Result<Vec<Entry>, String> {
    let entry = |(index, term): (u64, &str)| {
        let payload = Payload::Command(Bytes::new());
        Ok(Entry { term: Term(number(term)?), index: LogIndex(index), payload })
    };
    (1..).zip(terms.split_whitespace()).map(entry).collect()
}

/// `quietly deliver`: a step whose course is not told.
fn quietly(world: &mut World, rest: &str) -> Done {
    run(world, rest)?;
    world.take_report();
    Ok(())
}

/// `elect 1`: it stands for election and wins it, in a group where nothing else goes on.
fn elect(world: &mut World, words: &[&str]) -> Done {
    let (id, _) = one(words)?;
    world.step(id, Input::Campaign)?;
    world.settle()?;
    world.take_report();
    let leads = world.core(id)?.role() == Role::Leader;
    if leads { Ok(()) } else { Err(format!("n{id} was not elected")) }
}

fn each(world: &mut World, words: &[&str], input: impl Fn(NodeId) -> Input) -> Done {
    for id in ids(world, words)? {
        world.step(id, input(id))?;
    }
    Ok(())
}

/// `propose 1 x=1 y=2`: commands, all in one step.
fn propose(world: &mut World, words: &[&str]) -> Done {
    let (id, commands) = one(words)?;
    let commands = commands.iter().map(|command| Bytes::from((*command).to_owned())).collect();
    world.step(id, Input::Propose(commands)).map(|_| ())
}

/// `read 1 r7`: a linearizable read with this number.
fn read(world: &mut World, words: &[&str]) -> Done {
    let (id, rest) = one(words)?;
    let [name] = rest else { return Err("which read? `read 1 7`".into()) };
    world.step(id, Input::ReadIndex(ReadId(number(name)?))).map(|_| ())
}

/// `change 1: join 4 5, learn 3, remove 2`.
fn change(world: &mut World, rest: &str) -> Done {
    let (who, parts) = rest.split_once(':').ok_or("a change is `change 1: join 4`")?;
    let mut change = MembershipChange::default();
    for part in parts.split(',') {
        let words: Vec<&str> = part.split_whitespace().collect();
        let (verb, nodes) = words.split_first().ok_or("a change is join, learn or remove")?;
        let nodes: BTreeSet<NodeId> =
            nodes.iter().map(|word| id(word)).collect::<Result<_, _>>()?;
        match *verb {
            "join" => change.join = nodes,
            "learn" => change.learn = nodes,
            "remove" => change.remove = nodes,
            _ => return Err(format!("members {verb}? They join, learn or are removed")),
        }
    }
    world.step(id(who)?, Input::ChangeMembership(change)).map(|_| ())
}

/// `transfer 1 to 3`.
fn transfer(world: &mut World, words: &[&str]) -> Done {
    let [from, "to", to] = words else { return Err("from whom to whom?".into()) };
    world.step(id(from)?, Input::TransferLeadership(id(to)?)).map(|_| ())
}

/// `compact 1 to 4`: the log gives up its entries through 4.
fn compact(world: &mut World, words: &[&str]) -> Done {
    let [node, "to", index] = words else { return Err("`compact 1 to 4`".into()) };
    world.step(id(node)?, Input::Compact(LogIndex(number(index)?))).map(|_| ())
}

/// `tick 10` for all nodes, `tick 10 2 3` for some; nothing is delivered.
fn tick(world: &mut World, words: &[&str]) -> Done {
    let (count, nodes) = words.split_first().ok_or("how many ticks?")?;
    for _ in 0..number(count)? {
        each(world, nodes, |_| Input::Tick)?;
    }
    Ok(())
}

/// `run 20`: so many ticks of every node, and everything is delivered after each.
fn run_for(world: &mut World, words: &[&str]) -> Done {
    let [count] = words else { return Err("how many ticks?".into()) };
    world.hides_heartbeats = true;
    for _ in 0..number(count)? {
        each(world, &[], |_| Input::Tick)?;
        world.settle()?;
    }
    world.hides_heartbeats = false;
    Ok(())
}

/// `now 500` in milliseconds, of all nodes, or of some: `now 500 1 2`.
fn now(world: &mut World, words: &[&str]) -> Done {
    let (at, nodes) = words.split_first().ok_or("at what time?")?;
    let micros = number::<u64>(at)? * 1000;
    each(world, nodes, |_| Input::Now(micros))
}

/// `node-down 3` tells all others that the node is down.
fn about_node(world: &mut World, words: &[&str], input: fn(NodeId) -> Input) -> Done {
    let (whom, _) = one(words)?;
    for id in world.running() {
        if id != whom {
            world.step(id, input(whom))?;
        }
    }
    Ok(())
}

/// Chooses messages that are on their way: `1->3`, `1->`, `->3`, with or without a kind of message.
struct Choice {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: Option<String>,
}

impl Choice {
    fn parse(text: &str) -> Result<Self, String> {
        let mut choice = Self { from: None, to: None, kind: None };
        for word in text.split_whitespace() {
            match word.split_once("->") {
                Some((from, to)) => {
                    choice.from = (!from.is_empty()).then(|| id(from)).transpose()?;
                    choice.to = (!to.is_empty()).then(|| id(to)).transpose()?;
                }
                None => choice.kind = Some(word.to_owned()),
            }
        }
        Ok(choice)
    }

    fn takes(&self, flight: &Flight) -> bool {
        self.from.is_none_or(|from| from == flight.from)
            && self.to.is_none_or(|to| to == flight.to)
            && self.kind.as_ref().is_none_or(|kind| kind == words::kind(&flight.message.body))
    }

    /// Takes the chosen messages off the network; an error if there are none.
    fn take_from(&self, world: &mut World) -> Result<Vec<Flight>, String> {
        let (taken, left): (Vec<_>, Vec<_>) =
            world.network.drain(..).partition(|flight| self.takes(flight));
        world.network.extend(left);
        if taken.is_empty() { Err("no such message is on its way".into()) } else { Ok(taken) }
    }
}

/// `deliver`: everything until nothing is on its way. `deliver once`: what is on its way now.
/// `deliver 1->3`: those of them that are chosen.
fn deliver(world: &mut World, rest: &str) -> Done {
    if rest.is_empty() {
        return world.settle();
    }
    let choice = Choice::parse(if rest == "once" { "" } else { rest })?;
    choice.take_from(world)?.into_iter().try_for_each(|flight| world.deliver(flight))
}

/// `drop 1->3`: the chosen messages that are on their way now are lost.
fn drop_flights(world: &mut World, rest: &str) -> Done {
    for Flight { from, to, message } in Choice::parse(rest)?.take_from(world)? {
        world.say(format!("n{from}→n{to} {} — lost", words::message(&message)));
    }
    Ok(())
}

/// `deliver-copy 1->3`: the chosen messages arrive, and are still on their way.
fn deliver_copy(world: &mut World, rest: &str) -> Done {
    for flight in Choice::parse(rest)?.take_from(world)? {
        world.deliver(flight.clone())?;
        world.network.push_back(flight);
    }
    Ok(())
}

/// `cut 3` from all others, both ways; `cut 1->3` one way.
fn cut(world: &mut World, words: &[&str]) -> Done {
    for word in words {
        if let Some((from, to)) = word.split_once("->") {
            world.cut.insert((id(from)?, id(to)?));
            continue;
        }
        let lonely = id(word)?;
        for other in world.nodes.keys().copied().collect::<Vec<_>>() {
            world.cut.extend([(lonely, other), (other, lonely)]);
        }
    }
    Ok(())
}

/// `split 1 4 5 from 2 3`: no link between the one side and the other.
fn split(world: &mut World, rest: &str) -> Done {
    let (one, other) = rest.split_once(" from ").ok_or("`split 1 2 from 3`")?;
    let side = |text: &str| text.split_whitespace().map(id).collect::<Result<Vec<_>, _>>();
    for a in side(one)? {
        for b in side(other)? {
            world.cut.extend([(a, b), (b, a)]);
        }
    }
    Ok(())
}

/// `stall-disk 1`: from now on its writes stay unfinished.
fn stall(world: &mut World, words: &[&str]) -> Done {
    for id in ids(world, words)? {
        world.node(id)?.is_stalled = true;
    }
    Ok(())
}

/// `finish-write 1`: the oldest unfinished write becomes durable.
fn finish_write(world: &mut World, words: &[&str]) -> Done {
    let (id, _) = one(words)?;
    let is_done = world.finish_write(id)?;
    if is_done { Ok(()) } else { Err(format!("n{id} has no unfinished write")) }
}

/// `resume-disk 1`: everything unfinished becomes durable, and what comes at once.
fn resume(world: &mut World, words: &[&str]) -> Done {
    for id in ids(world, words)? {
        world.node(id)?.is_stalled = false;
        while world.finish_write(id)? {}
    }
    Ok(())
}

/// `show` tells the state of every node that runs, `show 1 2` of some.
fn show(world: &mut World, words: &[&str]) -> Done {
    for id in ids(world, words)? {
        let core = world.core(id)?;
        let (role, term) = (words::role(core.role()), core.term());
        let (commit, log) = (core.commit_index(), words::log(core));
        world.say(format!("n{id} {role:<13} term {term}  commit {commit:<2}  log {log}"));
    }
    Ok(())
}

/// `expect leader 1`, `expect no leader`, `expect commit 1 2: 5`, `expect log all: 1 1 4`, ...
fn expect(world: &mut World, rest: &str) -> Done {
    let (subject, value) = match rest.split_once(':') {
        Some((subject, value)) => (subject, Some(value.trim())),
        None => (rest, None),
    };
    let words: Vec<&str> = subject.split_whitespace().collect();
    let (what, nodes) = words.split_first().ok_or("expect what?")?;
    if (*what, nodes) == ("no", &["leader"][..]) {
        let leads =
            |world: &mut World, id| world.core(id).is_ok_and(|it| it.role() == Role::Leader);
        let leader = world.running().into_iter().find(|&id| leads(world, id));
        return leader.map_or(Ok(()), |id| Err(format!("expected no leader, but n{id} leads")));
    }
    for id in ids(world, nodes)? {
        let Some(expected) = value else {
            if *what != state_word(world, id, what)? {
                return Err(format!("expected n{id} to be a {what}"));
            }
            continue;
        };
        let found = fact(world, id, what)?;
        if found != expected {
            return Err(format!("expected {what} of n{id}: {expected}, but it is: {found}"));
        }
    }
    Ok(())
}

/// The word of the same kind as `what` that is true of the node.
fn state_word(world: &mut World, id: NodeId, what: &str) -> Result<&'static str, String> {
    let core = world.core(id)?;
    match what {
        "silent" | "awake" => Ok(if core.is_quiet() { "silent" } else { "awake" }),
        _ => Ok(words::role(core.role())),
    }
}

fn fact(world: &mut World, id: NodeId, what: &str) -> Result<String, String> {
    let core = world.core(id)?;
    Ok(match what {
        "term" => core.term().to_string(),
        "commit" => core.commit_index().to_string(),
        "log" => words::log(core),
        "members" => words::membership(core.membership()),
        "applied" => {
            let machine = &world.node(id)?.machine;
            machine.iter().filter_map(command).collect::<Vec<_>>().join(" ")
        }
        _ => return Err(format!("no fact is called {what}")),
    })
}
