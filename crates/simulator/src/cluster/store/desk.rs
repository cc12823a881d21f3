//! What the leader of a store does by itself, as the tasks of a real node do.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use onefold_checker::history::Answer;
use onefold_kv::{
    AutoCompaction, DeleteRangeRequest, LeaseId,
    core::{self, Attendant, Found},
};
use onefold_raft::Role;
use onefold_types::{NodeId, Term};

use super::{
    super::{
        checker::{Checked, Violation, ensure},
        clock::{MILLISECOND, Micros, SECOND},
        coverage::Branch,
        event::{Event, Outcome},
        history::OpId,
        sabotage::Sabotage,
        world::World,
    },
    words::Answered,
};

/// How often the leader looks after its leases.
const TICK: Micros = 200 * MILLISECOND;

/// Ticks between two looks at what else is to be done.
const UPKEEP_TICKS: u64 = 5;

/// Leases ended, and noted, in one tick.
const EXPIRIES_MAX: usize = 5;
const NOTES_MAX: usize = 3;

/// A pause of a process up to this long may count as time in which it ran.
pub(in super::super) const PAUSE_UNNOTICED_MAX: Micros = 1_300 * MILLISECOND;

/// What one node knows of one store beside its state.
pub(in super::super) struct Desk {
    pub(in super::super) attendant: Attendant,
    /// What its clock shows.
    shown: Arc<AtomicU64>,
    /// The term in which this node leads, if it does.
    leads: Option<Term>,
    is_announced: bool,
    announcing: bool,
    noting: bool,
    clearing: u32,
    sweeping: bool,
    tending: bool,
    ticks: u64,
    /// The time that each lease had left when it was entered or renewed here, and how long the process
    /// had run by then.
    counted: BTreeMap<LeaseId, (Micros, Micros)>,
}

/// What a leader proposes by itself.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Own {
    /// That it counts the time of leases.
    Lead(Term),
    /// That a lease ends.
    Expire(LeaseId),
    /// What leases have left.
    Note,
    /// That a lease, which a client has renewed, has all of its time.
    Clear { op: OpId, lease: LeaseId, term: Term, left: Duration },
    /// A step of compaction.
    Sweep,
    /// That history goes, or what room there is.
    Tend,
}

impl Desk {
    pub(in super::super) fn new(ring_revisions_max: usize) -> Self {
        let shown = Arc::new(AtomicU64::new(0));
        let clock = shown.clone();
        let clock = move || Duration::from_micros(clock.load(Ordering::Relaxed));
        Self {
            attendant: Attendant::new(clock, ring_revisions_max),
            shown,
            leads: None,
            is_announced: false,
            announcing: false,
            noting: false,
            clearing: 0,
            sweeping: false,
            tending: false,
            ticks: 0,
            counted: BTreeMap::new(),
        }
    }

    /// The time is this.
    pub(in super::super) fn show(&self, time: Micros) {
        self.shown.store(time, Ordering::Relaxed);
    }
}

impl World {
    /// Tells a node's desk what time it is.
    pub(in super::super) fn show_time(&mut self, id: NodeId, group: usize) {
        let time = self.node(id).clock.monotonic(self.now);
        if let Some(desk) = self.hosted(id, group).and_then(|hosted| hosted.desk.as_ref()) {
            desk.show(time);
        }
    }

    fn ran(&mut self, id: NodeId) -> Micros {
        let now = self.now;
        self.node_mut(id).ran(now)
    }

    /// What a replica's store has committed becomes known.
    pub(in super::super) fn note_committed(&mut self, id: NodeId, group: usize) -> Checked {
        let (now, options) = (self.now, self.plan.store.options);
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        let Some(desk) = hosted.desk.as_ref() else { return Ok(()) };
        let changes = desk.attendant.take_committed();
        let compacted = desk.attendant.compacted();
        let account = &mut self.accounts[group];
        account.committed(group, id, changes)?;
        if options.auto_compaction != AutoCompaction::Off {
            account.compacted(compacted, now);
        }
        self.tell_news(id, group);
        Ok(())
    }

    /// Whether a node leads may have changed.
    pub(in super::super) fn note_leadership(&mut self, id: NodeId, group: usize) {
        self.show_time(id, group);
        let note_interval = self.plan.store.options.lease_checkpoint_interval;
        let life = self.node(id).life;
        let forgets = self.sabotage == Some(Sabotage::WatchForgetsAtElection);
        let Some(hosted) = self.hosted(id, group) else { return };
        let leads = (hosted.raft.role() == Role::Leader).then(|| hosted.raft.term());
        let Some(desk) = hosted.desk.as_mut() else { return };
        if desk.leads == leads {
            return;
        }
        desk.leads = leads;
        let desk = hosted.desk();
        desk.is_announced = false;
        desk.announcing = false;
        desk.noting = false;
        desk.clearing = 0;
        desk.sweeping = false;
        desk.tending = false;
        desk.counted.clear();
        if forgets {
            let view = hosted.state.view();
            for watching in hosted.watches.values_mut() {
                let _ = watching.next(&view);
            }
        }
        let desk = hosted.desk();
        match leads {
            Some(term) => {
                desk.attendant.lead(term, note_interval);
                self.schedule(1, Event::Attend { node: id, life, group, term });
            }
            None => desk.attendant.follow(),
        }
    }

    /// The leader looks after its store.
    pub(in super::super) fn attend(&mut self, id: NodeId, group: usize, term: Term) -> Checked {
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        if hosted.desk.as_ref().is_none_or(|desk| desk.leads != Some(term)) {
            return Ok(());
        }
        self.count_stall(id, group);
        self.show_time(id, group);
        let hosted = self.hosted(id, group).expect("it leads");
        let desk = hosted.desk();
        desk.ticks += 1;
        desk.attendant.tick();
        if desk.is_announced {
            self.count_leases(id, group, term)?;
            self.end_leases(id, group, term)?;
            self.note_leases(id, group, term);
        } else if !std::mem::replace(&mut desk.announcing, true) {
            self.propose_own(id, group, core::lead(term), Own::Lead(term));
        }
        self.tend(id, group);
        let life = self.node(id).life;
        let delay = self.node(id).clock.truly(TICK);
        self.schedule(delay, Event::Attend { node: id, life, group, term });
        Ok(())
    }

    /// As a bug on purpose: the time of a stall passes as if somebody had looked all the while.
    fn count_stall(&mut self, id: NodeId, group: usize) {
        if self.sabotage != Some(Sabotage::StallEndsLeases) {
            return;
        }
        let now = self.node(id).clock.monotonic(self.now);
        let desk = self.hosted(id, group).expect("it leads").desk();
        let mut time = desk.shown.load(Ordering::Relaxed);
        while time + SECOND < now {
            time += SECOND;
            desk.show(time);
            desk.attendant.tick();
        }
    }

    /// Notes how much time each lease has, when it is first seen in this term.
    fn count_leases(&mut self, id: NodeId, group: usize, term: Term) -> Checked {
        let ran = self.ran(id);
        let hosted = self.hosted(id, group).expect("it leads");
        let view = hosted.state.view();
        let leases = core::leases(&view).map_err(|error| unreadable(id, group, error))?;
        let desk = hosted.desk();
        for lease in leases {
            if let Found::Alive { left, .. } = desk.attendant.left(term, lease) {
                desk.counted.entry(lease).or_insert((ran, left.as_micros() as Micros));
            }
        }
        Ok(())
    }

    fn end_leases(&mut self, id: NodeId, group: usize, term: Term) -> Checked {
        let ran = self.ran(id);
        let desk = self.hosted(id, group).expect("it leads").desk();
        let due = desk.attendant.due(EXPIRIES_MAX);
        for lease in due {
            let desk = self.hosted(id, group).expect("it leads").desk();
            if let Some(&(since, left)) = desk.counted.get(&lease) {
                // A clock whose rate changed during a pause makes the pause look shorter or longer.
                let passed = ran - since + SECOND + left / 5;
                ensure(passed >= left, "a stall ends no leases", || {
                    format!(
                        "g{group} n{id} ends lease {lease} with {left} us left, {} us later",
                        ran - since
                    )
                })?;
            }
            self.coverage.hit(Branch::LeaseExpired);
            let command = match self.sabotage {
                Some(Sabotage::DeposedEndsLeases) => core::lease_revoke(lease),
                _ => core::lease_expire(lease, term),
            };
            if self.sabotage == Some(Sabotage::LeaseEndsInPieces) {
                self.delete_one_of(id, group, lease);
            }
            self.propose_own(id, group, command, Own::Expire(lease));
        }
        Ok(())
    }

    /// As a bug on purpose: a key of the lease goes before the others.
    fn delete_one_of(&mut self, id: NodeId, group: usize, lease: LeaseId) {
        let known = self.accounts[group].known.values();
        let record = known.into_iter().find(|record| record.lease == lease.0.cast_unsigned());
        if let Some(record) = record {
            let request = DeleteRangeRequest::key(record.key.clone().into_bytes());
            self.propose_own(id, group, core::delete_range(request), Own::Tend);
        }
    }

    fn note_leases(&mut self, id: NodeId, group: usize, term: Term) {
        let Some(hosted) = self.hosted(id, group) else { return };
        let desk = hosted.desk();
        if desk.noting || desk.clearing > 0 {
            return;
        }
        let left = desk.attendant.to_note(NOTES_MAX);
        if left.is_empty() {
            return;
        }
        desk.noting = true;
        self.coverage.hit(Branch::LeaseNoted);
        self.propose_own(id, group, core::lease_checkpoint(term, left), Own::Note);
    }

    fn tend(&mut self, id: NodeId, group: usize) {
        let (options, events) = (self.plan.store.options, self.plan.store.sweep_events);
        let Some(hosted) = self.hosted(id, group) else { return };
        let desk = hosted.desk();
        let is_sweeping =
            desk.attendant.is_sweep_due() && !std::mem::replace(&mut desk.sweeping, true);
        let tick = desk.ticks / UPKEEP_TICKS;
        let upkeep = if desk.ticks.is_multiple_of(UPKEEP_TICKS) && !desk.tending {
            desk.attendant.upkeep(&options, tick)
        } else {
            None
        };
        desk.tending |= upkeep.is_some();
        if is_sweeping {
            self.coverage.hit(Branch::HistorySwept);
            self.propose_own(id, group, core::sweep(events), Own::Sweep);
        }
        if let Some(command) = upkeep {
            self.propose_own(id, group, command, Own::Tend);
        }
    }

    fn propose_own(&mut self, id: NodeId, group: usize, command: bytes::Bytes, own: Own) {
        let life = self.node(id).life;
        let delay = self.random.within(1..=5 * MILLISECOND);
        self.schedule(delay, Event::Own { node: id, life, group, own, command });
    }

    /// What became of something that a node proposed by itself.
    pub(in super::super) fn own_done(
        &mut self,
        id: NodeId,
        group: usize,
        own: Own,
        outcome: &Outcome,
    ) {
        let is_done = matches!(outcome, Outcome::Written(_));
        let forgets = self.sabotage == Some(Sabotage::OldLeasesForgotten);
        let is_trusting = self.sabotage == Some(Sabotage::NoteClearedElsewhere);
        let Some(hosted) = self.hosted(id, group) else { return };
        let view = hosted.state.view();
        let desk = hosted.desk();
        match own {
            Own::Lead(term) => {
                desk.announcing = false;
                if is_done && desk.leads == Some(term) && !desk.is_announced {
                    desk.is_announced = true;
                    let empty = onefold_table::MemoryTable::new();
                    let completed = match forgets {
                        true => desk.attendant.complete(&empty),
                        false => desk.attendant.complete(&view),
                    };
                    // A view that cannot be read is found by whoever reads it next.
                    desk.is_announced = completed.is_ok();
                }
            }
            Own::Expire(lease) if is_done => desk.attendant.ended(lease),
            Own::Expire(_) => {}
            Own::Note => desk.noting = false,
            Own::Sweep => desk.sweeping = false,
            Own::Tend => desk.tending = false,
            Own::Clear { op, lease, term, left } => {
                desk.clearing = desk.clearing.saturating_sub(1);
                let still_leads = desk.leads == Some(term) || is_trusting;
                if is_done && still_leads {
                    desk.attendant.cleared(term, lease);
                    self.coverage.hit(Branch::NoteCleared);
                    self.answer_kept_alive(id, group, op, left);
                } else {
                    let outcome = if is_done { Outcome::Refused } else { outcome.clone() };
                    self.answer_client(op, outcome);
                }
            }
        }
    }

    /// The leader renews a lease; that it led a moment ago is known.
    pub(in super::super) fn keep_alive(
        &mut self,
        id: NodeId,
        group: usize,
        op: OpId,
        lease: LeaseId,
        term: Term,
    ) {
        self.show_time(id, group);
        let ran = self.ran(id);
        let hosted = self.hosted(id, group).expect("it runs");
        let desk = hosted.desk();
        if desk.leads != Some(term) {
            self.answer_client(op, Outcome::Refused);
            return;
        }
        match desk.attendant.renew(term, lease) {
            Found::Closed => self.answer_client(op, Outcome::Refused),
            Found::Over => self.answer_kept_alive(id, group, op, Duration::ZERO),
            Found::Alive { left, is_noted } => {
                desk.counted.insert(lease, (ran, left.as_micros() as Micros));
                if !is_noted {
                    self.answer_kept_alive(id, group, op, left);
                    return;
                }
                // While a note is on its way to the log, who clears one waits.
                if desk.noting {
                    self.answer_client(op, Outcome::Refused);
                    return;
                }
                desk.clearing += 1;
                let command = core::lease_checkpoint(term, vec![(lease, 0)]);
                let own = Own::Clear { op, lease, term, left };
                self.propose_own(id, group, command, own);
            }
        }
    }

    fn answer_kept_alive(&mut self, id: NodeId, group: usize, op: OpId, left: Duration) {
        let Some(hosted) = self.hosted(id, group) else { return };
        let Ok((revision, _)) = core::revisions(&hosted.state.view()) else { return };
        let answered: Answered = Ok((revision, Answer::KeptAlive { ttl_seconds: left.as_secs() }));
        self.answer_client(op, Outcome::Answered(answered));
    }
}

fn unreadable(id: NodeId, group: usize, error: onefold_kv::KvError) -> Violation {
    Violation { invariant: "states can be read", detail: format!("g{group} n{id}: {error}") }
}
