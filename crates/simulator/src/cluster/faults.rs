//! What breaks.

use onefold_raft::{Body, Input, Membership, Message};
use onefold_types::NodeId;

use super::{
    checker::Checked,
    clock::{MILLISECOND, SECOND},
    coverage::{Branch, FaultKind},
    event::Event,
    plan::TICK,
    sabotage::Sabotage,
    world::World,
};

/// A joint configuration in two sides: that of the leader has a majority of the new voters, as small
/// as possible, and the other one a majority of the old voters; `None` if there are none such. What
/// has a majority of both sets cannot be divided so: where they differ in one voter.
fn sides_of_change(leader: NodeId, members: &Membership) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
    let is_old = |id: &NodeId| members.outgoing.contains(id);
    let mut new: Vec<NodeId> = members.voters.iter().copied().filter(|id| *id != leader).collect();
    // Those that are in both sets are missed most on the other side.
    new.sort_by_key(is_old);
    let leads_new = usize::from(members.voters.contains(&leader));
    new.truncate(members.voters.len() / 2 + 1 - leads_new);
    new.push(leader);
    let old: Vec<NodeId> = members.members().into_iter().filter(|id| !new.contains(id)).collect();
    let old_voters = old.iter().filter(|id| is_old(id)).count();
    (old_voters > members.outgoing.len() / 2).then_some((new, old))
}

impl World {
    /// Something breaks, or the network mends.
    pub(super) fn fault(&mut self) -> Checked {
        let ids = self.serving();
        let anyone = self.random.pick(&ids);
        let group = self.random.within(0..=self.plan.groups as u64 - 1) as usize;
        let installing = self.nodes.iter().find(|node| {
            let process = node.process.as_ref();
            process.is_some_and(|process| process.groups.iter().any(|g| g.staging.is_some()))
        });
        let victim = match (installing.map(|node| node.id), self.leader(group)) {
            (Some(installing), _) if self.random.chance(400) => installing,
            (_, Some(leader)) if self.random.chance(500) => leader,
            _ => anyone,
        };
        if self.plan.divergence && self.random.chance(80) {
            self.change_state(anyone, group);
            return Ok(());
        }
        if self.plan.lease.is_some() && self.random.chance(200) {
            // What a lease must outlast.
            self.isolate(victim, &ids);
            if self.random.chance(500) {
                self.pause(victim);
            }
            let delay = self.random.within(1..=10 * SECOND);
            self.schedule(delay, Event::Mend);
            return Ok(());
        }
        match self.random.within(0..=99) {
            0..18 => {
                self.tell(|| "all cuts are mended".into());
                self.network.heal();
            }
            18..26 => self.split(&ids),
            26..34 => self.isolate(victim, &ids),
            34..41 => self.cut_one_way(&ids, victim),
            41..46 => self.begin_flapping(&ids, victim),
            46..50 => self.clog(&ids, victim),
            50..65 => {
                self.faults.hit(FaultKind::Crashed);
                self.crash(victim)?;
            }
            65..68 => self.crash_all(&ids)?,
            68..72 => self.stall_disk(victim),
            72..75 => {
                self.faults.hit(FaultKind::DiskFull);
                self.tell(|| format!("the disk of n{victim} is full"));
                self.node_mut(victim).disk.is_full = true;
            }
            75..78 => self.node_mut(victim).disk.is_failing = true,
            78..82 => self.damage(victim)?,
            82..86 => self.pause(victim),
            86..90 => self.skew_clock(victim),
            90..93 => self.usurp(&ids, anyone, group)?,
            _ => self.mislead(&ids, victim)?,
        }
        // Most cuts do not last.
        let delay = self.random.within(1..=60 * SECOND);
        self.schedule(delay, Event::Mend);
        Ok(())
    }

    fn split(&mut self, ids: &[NodeId]) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for &id in ids {
            if self.random.chance(500) { left.push(id) } else { right.push(id) }
        }
        self.faults.hit(FaultKind::Split);
        self.tell(|| format!("the network splits in {left:?} and {right:?}"));
        self.network.split(&left, &right);
    }

    fn isolate(&mut self, victim: NodeId, ids: &[NodeId]) {
        let others: Vec<NodeId> = ids.iter().copied().filter(|&id| id != victim).collect();
        self.faults.hit(FaultKind::Isolated);
        self.tell(|| format!("n{victim} is cut off"));
        self.network.split(&[victim], &others);
    }

    /// The victim hears nobody, or nobody hears it, or one other does not.
    fn cut_one_way(&mut self, ids: &[NodeId], victim: NodeId) {
        let kind = self.random.within(0..=2);
        let one = self.random.pick(ids);
        self.faults.hit(FaultKind::OneWay);
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

    fn begin_flapping(&mut self, ids: &[NodeId], victim: NodeId) {
        let other = self.random.pick(ids);
        let left = self.random.within(4..=30) as u32;
        self.faults.hit(FaultKind::Flapped);
        self.tell(|| format!("the links between n{victim} and n{other} flap"));
        self.flap(victim, other, left);
        self.flap(other, victim, left);
    }

    /// A link that flaps breaks or mends, for a while.
    pub(super) fn flap(&mut self, from: NodeId, to: NodeId, left: u32) {
        if left.is_multiple_of(2) {
            self.network.cut(from, to);
        } else {
            self.network.mend(from, to);
        }
        if left > 1 {
            let delay = self.random.within(50..=2_000) * MILLISECOND;
            self.schedule(delay, Event::Flap { from, to, left: left - 1 });
        }
    }

    /// Nothing arrives for a while, and then everything at once.
    fn clog(&mut self, ids: &[NodeId], victim: NodeId) {
        let other = self.random.pick(ids);
        let until = self.now + self.random.within(500..=8_000) * MILLISECOND;
        self.faults.hit(FaultKind::Clogged);
        self.tell(|| format!("the link from n{other} to n{victim} is clogged"));
        self.network.clog(other, victim, until);
    }

    /// A stray message makes a node stand for election, whatever it knows: safety must not depend
    /// on pre-votes, nor on who deserves to lead.
    fn usurp(&mut self, ids: &[NodeId], id: NodeId, group: usize) -> Checked {
        let from = self.random.pick(ids);
        let Some(term) = self.node(id).raft(group).map(onefold_raft::Raft::term) else {
            return Ok(());
        };
        // With leases such an order is a promise: the leader that gave it has given up its lease.
        if from == id || self.plan.lease.is_some() {
            return Ok(());
        }
        self.faults.hit(FaultKind::Usurped);
        self.tell(|| format!("n{id} is made to stand for election in g{group}"));
        let message = Message { term, body: Body::TimeoutNow };
        self.step(id, group, Input::Message { from, message })?;
        self.settle(id)
    }

    /// A node is told wrongly, or too early, who is down and who is up.
    fn mislead(&mut self, ids: &[NodeId], id: NodeId) -> Checked {
        let other = self.random.pick(ids);
        if other == id || self.node(id).process.is_none() {
            return Ok(());
        }
        let is_up = self.node(other).process.is_some();
        let (fault, input) = if is_up {
            (FaultKind::FalseDown, Input::NodeDown(other))
        } else {
            (FaultKind::FalseUp, Input::NodeUp(other))
        };
        self.faults.hit(fault);
        let until = self.now + self.random.within(100..=20_000) * MILLISECOND;
        self.node_mut(id).misled.push((other, until));
        self.tell(|| format!("n{id} is told wrongly: {input:?}"));
        for group in 0..self.plan.groups {
            let core = self.node(id).raft(group);
            if core.is_some_and(|core| core.membership().contains(other)) {
                self.step(id, group, input.clone())?;
            }
        }
        self.settle(id)
    }

    /// A node was just elected: decides whether it lives to see its first commit.
    pub(super) fn plan_ambush(&mut self, id: NodeId) {
        if self.plan.ambush > 0 && self.random.chance(self.plan.ambush) {
            let delay = self.random.within(1..=4 * self.plan.delay_max + self.plan.disk_delay_max);
            let life = self.node(id).life;
            self.schedule(delay, Event::Ambush { node: id, life });
        }
    }

    /// A leader has begun to change the voters and told nobody yet: decides whether the network
    /// splits so that the new voters can elect a leader on one side and the old ones on the other,
    /// if only they are counted separately. The leader, on the side of the new ones, may not live
    /// to see what becomes of it.
    pub(super) fn ambush_change(&mut self, leader: NodeId, group: usize) {
        if self.plan.ambush == 0 || !self.random.chance(self.plan.ambush) {
            return;
        }
        let core = self.node(leader).raft(group).expect("it leads");
        let Some((new, old)) = sides_of_change(leader, core.membership()) else { return };
        self.faults.hit(FaultKind::ChangeSplit);
        self.tell(|| {
            format!("the network splits in {new:?} and {old:?} along the change of g{group}")
        });
        self.network.heal();
        self.network.split(&new, &old);
        self.plan_ambush(leader);
    }

    /// The new leader crashes, or is cut off, and some other node stands for election.
    pub(super) fn ambush(&mut self, id: NodeId) -> Checked {
        let ids = self.serving();
        self.faults.hit(FaultKind::Ambushed);
        match self.random.within(0..=9) {
            0..=4 => self.crash(id)?,
            5..=7 => {
                self.network.heal();
                self.isolate(id, &ids);
            }
            _ => {
                self.network.heal();
                self.split(&ids);
            }
        }
        let group = self.random.within(0..=self.plan.groups as u64 - 1) as usize;
        let heir = self.heir(id, &ids, group);
        if heir == id { Ok(()) } else { self.usurp(&ids, heir, group) }
    }

    /// Who stands for election instead: anyone, or who has the latest term in its log.
    fn heir(&mut self, id: NodeId, ids: &[NodeId], group: usize) -> NodeId {
        let anyone = self.random.pick(ids);
        if self.random.chance(500) {
            return anyone;
        }
        let last_term = |other: &NodeId| {
            let core = self.node(*other).raft(group)?;
            core.term_at(core.last_index())
        };
        let others = ids.iter().copied().filter(|other| *other != id);
        others.max_by_key(last_term).unwrap_or(anyone)
    }

    fn stall_disk(&mut self, id: NodeId) {
        let stall = TICK * self.random.within(5..=100);
        self.faults.hit(FaultKind::DiskStalled);
        self.tell(|| format!("the disk of n{id} stalls for {stall} us"));
        let until = self.now + stall;
        self.node_mut(id).disk.stalled_until = until;
    }

    /// A node's log loses a bit, or its disk all of it; it is found when the node starts.
    fn damage(&mut self, id: NodeId) -> Checked {
        if !self.may_lose(id) {
            return Ok(());
        }
        match self.random.within(0..=2) {
            0 => self.wipe_disk(id),
            kind => {
                self.faults.hit(if kind == 1 {
                    FaultKind::BitFlipped
                } else {
                    FaultKind::WriteMisdirected
                });
                self.node_mut(id).disk.is_damaged = true;
                self.crash(id)
            }
        }
    }

    fn pause(&mut self, id: NodeId) {
        let pause = self.random.within(200..=10_000) * MILLISECOND;
        self.faults.hit(FaultKind::Paused);
        self.tell(|| format!("n{id} is paused for {pause} us"));
        let until = self.now + pause;
        let now = self.now;
        self.node_mut(id).pause(now, until);
    }

    fn skew_clock(&mut self, id: NodeId) {
        let now = self.now;
        if self.random.chance(500) {
            let drift = self.drift();
            self.faults.hit(FaultKind::ClockDrifted);
            self.tell(|| format!("the clock of n{id} is fast by {drift} ppm"));
            self.node_mut(id).clock.drift(now, drift);
        } else {
            let offset = self.wall_offset();
            self.faults.hit(FaultKind::ClockJumped);
            self.tell(|| format!("the wall clock of n{id} is off by {offset} ms"));
            self.node_mut(id).clock.jump(offset);
        }
    }

    fn crash_all(&mut self, ids: &[NodeId]) -> Checked {
        for &id in ids {
            self.crash(id)?;
        }
        self.faults.hit(FaultKind::AllCrashed);
        self.coverage.hit(Branch::AllDown);
        Ok(())
    }

    /// Power goes, or the process: what was not synced is lost, or some prefix of it is. The node
    /// comes back after a while.
    pub(super) fn crash(&mut self, id: NodeId) -> Checked {
        let down = self.random.within(1..=self.plan.down_max);
        if self.end_process(id) {
            let life = self.node(id).life;
            self.schedule(down, Event::Start { node: id, life });
        }
        Ok(())
    }

    /// The host cannot append and stops; somebody makes room.
    pub(super) fn stop_on_full_disk(&mut self, id: NodeId) -> Checked {
        let down = self.random.within(1..=self.plan.down_max);
        if self.end_process(id) {
            let life = self.node(id).life;
            self.schedule(down, Event::DiskFreed { node: id, life });
        }
        Ok(())
    }

    /// Ends a process; false if none runs.
    pub(super) fn end_process(&mut self, id: NodeId) -> bool {
        let node = &mut self.nodes[id.0 as usize - 1];
        if node.process.take().is_none() {
            return false;
        }
        node.life += 1;
        node.misled.clear();
        let outcome = node.disk.crash(&mut self.random);
        let is_partial = self.sabotage == Some(Sabotage::ApplyTwice);
        let table_lost = node.table.crash(&mut self.random, is_partial);
        let (kept, lost) = (outcome.kept, outcome.lost);
        self.tell(|| {
            format!(
                "n{id} ends: {lost} appends are lost, {kept} are kept; {table_lost} batches of its \
                 table are lost"
            )
        });
        if lost > 0 {
            self.faults.hit(FaultKind::WritesLost);
        }
        if outcome.is_torn {
            self.faults.hit(FaultKind::WriteTorn);
        }
        if table_lost > 0 {
            self.faults.hit(FaultKind::TableLost);
        }
        self.break_streams(id);
        true
    }
}
