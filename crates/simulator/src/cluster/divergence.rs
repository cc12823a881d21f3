//! Replicas whose state changes by itself, and the comparison of hashes that finds them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use onefold_kv::KvStore;
use onefold_raft::{Input, Role};
use onefold_replica::{
    Apply, StateMachine,
    divergence::Finding,
    state::{Checkpoint, StateHash},
};
use onefold_table::{SpaceView, TableError};
use onefold_types::{LogIndex, NodeId};

use super::{
    checker::{Checked, ensure},
    coverage::{Branch, FaultKind},
    event::{Outcome, Packet},
    sabotage::Sabotage,
    transfers::{host_failed, wipe_generation},
    world::World,
};

/// A key that no store uses: what a changed bit writes beside what it should.
const STRAY_KEY: &[u8] = b"\xffstray";

/// A store in a memory that flips a bit now and then.
pub(super) struct Flipping {
    store: KvStore,
    /// The next command writes something else than it should.
    flips: Arc<AtomicBool>,
}

impl Flipping {
    pub(super) fn new(store: KvStore, flips: Arc<AtomicBool>) -> Self {
        Self { store, flips }
    }
}

impl StateMachine for Flipping {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        let answer = self.store.apply(context, command)?;
        if self.flips.swap(false, Ordering::Relaxed) {
            context.table.put(STRAY_KEY, context.index.0.to_le_bytes().to_vec());
        }
        Ok(answer)
    }

    fn committed(&mut self, applied: LogIndex) {
        self.store.committed(applied);
    }

    fn restored(&mut self, view: &SpaceView) -> Result<(), TableError> {
        self.store.restored(view)
    }
}

/// The hash of a group's state at each index, as replicas have it whose state was not changed.
#[derive(Debug, Default)]
pub(super) struct Hashes(Vec<Option<StateHash>>);

impl Hashes {
    fn at(&mut self, index: LogIndex) -> &mut Option<StateHash> {
        let place = index.0 as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        &mut self.0[place]
    }
}

impl World {
    /// A bit of a follower's state will flip, if the others can tell.
    pub(super) fn change_state(&mut self, id: NodeId, group: usize) {
        let is_possible = self.plan.divergence && self.plan.quiesce_after_ticks.is_some();
        let Some(leader) = self.leader(group).filter(|_| is_possible) else { return };
        let Some(core) = self.node(leader).raft(group) else { return };
        let members = core.membership();
        let can_tell = !members.is_joint()
            && members.voters.len() % 2 == 1
            && members.voters.len() > 2
            && members.contains(id);
        let is_another = self
            .nodes
            .iter()
            .any(|node| node.is_changed[group] || node.flips[group].load(Ordering::Relaxed));
        let follows = self.node(id).raft(group).is_some_and(|core| core.role() == Role::Follower);
        if can_tell && follows && !is_another {
            self.tell(|| format!("a bit of g{group} on n{id} will flip"));
            self.node(id).flips[group].store(true, Ordering::Relaxed);
        }
    }

    /// Equal hashes at equal indexes, but for replicas whose state was changed.
    pub(super) fn check_hash(&mut self, id: NodeId, group: usize, will_flip: bool) -> Checked {
        let node = &mut self.nodes[id.0 as usize - 1];
        if will_flip && !node.flips[group].load(Ordering::Relaxed) {
            node.is_changed[group] = true;
            self.faults.hit(FaultKind::StateChanged);
        }
        let state = &node.process.as_ref().expect("it has applied").groups[group].state;
        let (index, hash) = (state.applied(), state.hash());
        self.trace.add(&hash.0);
        let known = self.hashes[group].at(index);
        match *known {
            Some(known) if known == hash => node.is_changed[group] = false,
            Some(known) => {
                let is_changed = node.is_changed[group];
                return ensure(is_changed, "equal states at equal indexes", || {
                    format!("g{group} n{id} at {index}: {hash}, not {known}")
                });
            }
            None if !node.is_changed[group] => *known = Some(hash),
            None => {}
        }
        Ok(())
    }

    /// A replica has come to where all replicas tell each other their hashes.
    pub(super) fn note_checkpoint(&mut self, id: NodeId, group: usize) -> Checked {
        let hosted = self.hosted(id, group).expect("it has applied");
        let checkpoint = Checkpoint { index: hosted.state.applied(), hash: hosted.state.hash() };
        if hosted.raft.is_state_lost() || hosted.noted == checkpoint {
            return Ok(());
        }
        hosted.noted = checkpoint;
        let members = hosted.raft.membership().clone();
        let findings = hosted.judge.own(checkpoint, &members);
        for to in members.members() {
            if to != id {
                self.send(id, to, Packet::Checkpoint { group, checkpoint });
            }
        }
        self.act_on(id, group, &findings)
    }

    /// Another replica told its hash.
    pub(super) fn heard_checkpoint(
        &mut self,
        id: NodeId,
        group: usize,
        from: NodeId,
        checkpoint: Checkpoint,
    ) -> Checked {
        let Some(hosted) = self.hosted(id, group) else { return Ok(()) };
        let members = hosted.raft.membership().clone();
        let findings = hosted.judge.heard(from, checkpoint, &members);
        self.act_on(id, group, &findings)
    }

    fn act_on(&mut self, id: NodeId, group: usize, findings: &[Finding]) -> Checked {
        for finding in findings {
            self.tell(|| format!("n{id} g{group} finds {finding:?}"));
            if matches!(finding, Finding::Diverged { .. })
                && self.sabotage != Some(Sabotage::IgnoreDivergence)
            {
                self.coverage.hit(Branch::DivergenceFound);
                return self.give_state_up(id, group);
            }
        }
        Ok(())
    }

    /// Nothing is served from the state any more, until a snapshot is installed.
    fn give_state_up(&mut self, id: NodeId, group: usize) -> Checked {
        let hosted = self.hosted(id, group).expect("it compared");
        hosted.applying.clear();
        hosted.confirmed = None;
        let behind = std::mem::take(&mut hosted.behind);
        let waiting = hosted.forget_waiters(LogIndex(u64::MAX - 1));
        let generations = hosted.state.generations().clone();
        let replaced = hosted.state.discard().map_err(host_failed)?;
        wipe_generation(&generations, replaced)?;
        for reply in waiting {
            self.reply(id, reply, Outcome::Unknown);
        }
        for (_, reading, _) in behind {
            self.answer_client(reading.op, Outcome::Refused);
        }
        self.node_mut(id).is_changed[group] = false;
        self.step(id, group, Input::StateLost).map(|_| ())
    }

    /// At the end: all replicas have the same hash, unless no majority could tell which is right.
    pub(super) fn check_hashes_equal(&mut self, group: usize, members: &[NodeId]) -> Checked {
        let mut hashes: Vec<(StateHash, NodeId)> = Vec::new();
        for &id in members {
            let hosted = self.hosted(id, group).expect("the cluster is whole");
            hashes.push((hosted.state.hash(), id));
        }
        let Some(leader) = self.leader(group) else { return Ok(()) };
        let voters = self.node(leader).raft(group).expect("it leads").membership().voters.clone();
        let count = |hash: StateHash| {
            hashes.iter().filter(|(other, id)| *other == hash && voters.contains(id)).count()
        };
        let first = hashes[0].0;
        let is_equal = hashes.iter().all(|(hash, _)| *hash == first);
        let has_majority = hashes.iter().any(|(hash, _)| 2 * count(*hash) > voters.len());
        ensure(is_equal || !has_majority, "replicas that diverged are rebuilt", || {
            format!("g{group}: {hashes:?}")
        })
    }
}
