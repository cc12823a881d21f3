//! What breaks.

use onefold_raft::{Body, Input, Message, Raft};
use onefold_types::{LogIndex, NodeId};

use super::{
    checker::Checked, coverage::Branch, driver::Node, event::Event, machine::Machine, plan::TICK,
    sabotage::Sabotage, world::World,
};

impl World {
    /// Something breaks, or the network mends.
    pub(super) fn fault(&mut self) -> Checked {
        let ids = self.ids();
        let anyone = self.random.pick(&ids);
        let installing = self.nodes.values().find(|node| node.installing.is_some());
        let victim = match (installing.map(|node| node.id), self.leader()) {
            (Some(installing), _) if self.random.chance(400) => installing,
            (_, Some(leader)) if self.random.chance(500) => leader,
            _ => anyone,
        };
        if self.random.chance(self.plan.wrong_hints) {
            self.hint_wrongly()?;
        }
        if self.random.chance(self.plan.state_losses) {
            self.lose_state(victim)?;
        }
        match self.random.within(0..=99) {
            0..35 => {
                self.tell(|| "all cuts are mended".into());
                self.network.heal();
            }
            35..45 => self.split(&ids),
            45..55 => {
                let others: Vec<NodeId> = ids.into_iter().filter(|&id| id != victim).collect();
                self.tell(|| format!("n{victim} is cut off"));
                self.network.split(&[victim], &others);
            }
            55..65 => self.cut_one_way(&ids, victim),
            65..85 => self.crash(victim)?,
            85..89 => {
                for id in ids {
                    self.crash(id)?;
                }
                self.coverage.hit(Branch::AllDown);
            }
            89..92 => self.stall_disk(victim),
            92..95 => self.usurp(&ids, anyone)?,
            95..98 => self.pause(victim),
            _ => self.skew_clock(victim),
        }
        Ok(())
    }

    fn split(&mut self, ids: &[NodeId]) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for &id in ids {
            if self.random.chance(500) { left.push(id) } else { right.push(id) }
        }
        self.tell(|| format!("the network splits in {left:?} and {right:?}"));
        self.network.split(&left, &right);
    }

    /// The victim hears nobody, or nobody hears it, or one other does not.
    fn cut_one_way(&mut self, ids: &[NodeId], victim: NodeId) {
        let kind = self.random.within(0..=2);
        let one = self.random.pick(ids);
        self.tell(|| match kind {
            0 => format!("n{victim} hears nobody"),
            1 => format!("nobody hears n{victim}"),
            _ => format!("n{one} does not hear n{victim}"),
        });
        for &other in ids {
            match kind {
                0 => self.network.cut(other, victim),
                1 => self.network.cut(victim, other),
                _ if other == one => self.network.cut(victim, other),
                _ => {}
            }
        }
    }

    /// A stray message makes a node stand for election, whatever it knows: safety must not depend
    /// on pre-votes, nor on who deserves to lead.
    fn usurp(&mut self, ids: &[NodeId], id: NodeId) -> Checked {
        let from = self.random.pick(ids);
        let Some(term) = self.nodes[&id].core.as_ref().map(Raft::term) else { return Ok(()) };
        if from == id {
            return Ok(());
        }
        self.tell(|| format!("n{id} is made to stand for election"));
        // Leases rest on it that only a leader says this, after it gave its own up.
        let input = match self.plan.lease {
            None => Input::Message { from, message: Message { term, body: Body::TimeoutNow } },
            Some(_) => Input::Campaign,
        };
        self.step(id, input).map(|_| ())
    }

    /// A node was just elected: decides whether it lives to see its first commit.
    pub(super) fn plan_ambush(&mut self, id: NodeId) {
        if self.random.chance(self.plan.ambush) {
            let delay = self.random.within(1..=4 * self.plan.delay_max + self.plan.disk_delay_max);
            let life = self.nodes[&id].life;
            self.schedule(delay, Event::Ambush { node: id, life });
        }
    }

    /// The new leader crashes, or is cut off, and some other node stands for election.
    pub(super) fn ambush(&mut self, id: NodeId) -> Checked {
        let ids = self.ids();
        if self.random.chance(500) {
            self.crash(id)?;
        } else {
            let others: Vec<NodeId> = ids.iter().copied().filter(|&other| other != id).collect();
            self.tell(|| format!("all cuts are mended, and n{id} is cut off"));
            self.network.heal();
            self.network.split(&[id], &others);
        }
        let heir = self.random.pick(&ids);
        if heir == id { Ok(()) } else { self.usurp(&ids, heir) }
    }

    fn stall_disk(&mut self, id: NodeId) {
        let stall = TICK * self.random.within(5..=100);
        self.tell(|| format!("the disk of n{id} stalls for {stall}"));
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        node.disk_stalled_until = self.now + stall;
    }

    /// A process stands still: no ticks, no messages; its clock goes on.
    fn pause(&mut self, id: NodeId) {
        let pause = TICK * self.random.within(2..=60);
        self.tell(|| format!("n{id} stands still for {pause}"));
        self.coverage.hit(Branch::Paused);
        self.nodes.get_mut(&id).expect("a node of this world").paused_until = self.now + pause;
    }

    fn skew_clock(&mut self, id: NodeId) {
        let tick = self.random.within(TICK * 7 / 10..=TICK * 13 / 10);
        self.tell(|| format!("n{id} ticks every {tick}"));
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        node.tick = tick;
        node.clock.change_rate(self.now, self.plan.lease, &mut self.random);
    }

    /// Power goes: what was not durable is lost, or some prefix of it is.
    fn crash(&mut self, id: NodeId) -> Checked {
        let down = self.random.within(1..=self.plan.down_max);
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        if node.core.take().is_none() {
            return Ok(());
        }
        node.life += 1;
        let life = node.life;
        let outcome = node.disk.crash(&mut self.random);
        let (kept, lost) = (outcome.kept, outcome.lost);
        self.tell(|| format!("n{id} crashes: {lost} unfinished writes are lost, {kept} are kept"));
        if outcome.lost > 0 {
            self.coverage.hit(Branch::CrashLostWrites);
        }
        if outcome.lost > 0 && outcome.kept > 0 {
            self.coverage.hit(Branch::CrashKeptPrefix);
        }
        if self.sabotage == Some(Sabotage::WipeMember) {
            let node = self.nodes.get_mut(&id).expect("a node of this world");
            node.machine = Machine::default();
        } else {
            self.crash_machine(id);
        }
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        forget_memory(node);
        self.schedule(down, Event::Restart { node: id, life });
        self.spread_down(id);
        self.checker.check_durable_on_majority(&self.nodes)
    }

    /// A state machine is gone, or not to be trusted; one at a time, because the others must be able
    /// to rebuild it.
    fn lose_state(&mut self, id: NodeId) -> Checked {
        let Some(core) = self.nodes[&id].core.as_ref() else { return Ok(()) };
        let members = core.membership();
        let is_alone = members.is_joint() || members.voters.len() < 2;
        let is_paused = self.nodes[&id].paused_until > self.now;
        if is_alone || is_paused || self.nodes.values().any(|node| node.is_state_lost) {
            return Ok(());
        }
        self.tell(|| format!("n{id} loses its state machine"));
        self.coverage.hit(Branch::StateLost);
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        node.is_state_lost = true;
        node.applying.clear();
        node.machine.lose();
        self.step(id, Input::StateLost).map(|_| ())
    }

    /// The state machine falls back to any state since its last sync. An installation under way is
    /// finished by the next start, or was never begun.
    fn crash_machine(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let machine = &mut node.machine;
        let applied = machine.applied;
        machine.applied = LogIndex(self.random.within(machine.synced.0..=machine.applied.0));
        machine.state = self.checker.state_at(machine.applied);
        if machine.applied < applied {
            self.coverage.hit(Branch::AppliedAgain);
        }
        if let Some(snapshot) = node.installing.take()
            && self.random.chance(500)
        {
            machine.install(&snapshot);
        }
        if self.random.chance(500) {
            machine.staged = None;
        }
    }
}

fn forget_memory(node: &mut Node) {
    node.applying.clear();
    node.reads.clear();
    node.installing = None;
    node.paused_until = 0;
    node.is_writing = false;
    node.disk_stalled_until = 0;
    node.is_applying = false;
}
