//! Replicas compare the hashes of their states, and one that is wrong gives its own up.

use bytes::Bytes;
use onefold_raft::{Input, SnapshotMark};
use onefold_types::{GroupId, NodeId};

use super::Driver;
use super::group::Driven;
use crate::HostError;
use crate::apply::Work;
use crate::checkpoints::{self, CHECKPOINTS};
use crate::divergence::Finding;
use crate::state::Checkpoint;

impl Driver {
    /// The replica of a group made checkpoints while it applied.
    pub(super) fn note_checkpoints(
        &mut self,
        group: GroupId,
        last: Checkpoint,
        made: Vec<Checkpoint>,
    ) -> Result<(), HostError> {
        let driven = self.at(group);
        if driven.raft.is_state_lost() {
            // Of the state that was given up.
            return Ok(());
        }
        driven.last_checkpoint = last;
        for checkpoint in made {
            self.note_checkpoint(group, checkpoint)?;
        }
        self.note_checkpoint_if_quiet(group)
    }

    /// Replicas that fall silent compare where they ended.
    pub(super) fn note_checkpoint_if_quiet(&mut self, group: GroupId) -> Result<(), HostError> {
        let driven = &self.groups[&group];
        let last = driven.last_checkpoint;
        if driven.raft.is_quiet() && last.index == driven.raft.last_index() {
            self.note_checkpoint(group, last)?;
        }
        Ok(())
    }

    fn note_checkpoint(&mut self, group: GroupId, made: Checkpoint) -> Result<(), HostError> {
        let own = self.core.config.node;
        let driven = self.groups.get_mut(&group).expect("it made a checkpoint");
        if !driven.judge.is_news(made) {
            return Ok(());
        }
        for to in driven.raft.membership().members() {
            if to != own {
                self.checkpoints.entry(to).or_default().push((group, made));
            }
        }
        let Driven { judge, raft, .. } = driven;
        let findings = judge.own(made, raft.membership());
        self.act_on(group, findings)
    }

    /// Another node made checkpoints.
    pub(super) fn step_checkpoints(
        &mut self,
        from: NodeId,
        made: Vec<(GroupId, Checkpoint)>,
    ) -> Result<(), HostError> {
        for (group, checkpoint) in made {
            // A group that is not here is none of this node's business.
            let Some(driven) = self.groups.get_mut(&group) else { continue };
            let Driven { judge, raft, .. } = driven;
            let findings = judge.heard(from, checkpoint, raft.membership());
            self.act_on(group, findings)?;
        }
        Ok(())
    }

    fn act_on(&mut self, group: GroupId, findings: Vec<Finding>) -> Result<(), HostError> {
        let driven = self.groups.get_mut(&group).expect("it was compared");
        let counters = &driven.cell.counters;
        for finding in findings {
            match finding {
                Finding::Diverged { index, own, majority } => {
                    counters.divergences_total.increment();
                    tracing::error!(
                        %group, %index, %own, %majority,
                        "this replica's state differs from that of the majority: it is served no \
                         longer, and is rebuilt from another node; if this happens again, suspect \
                         this machine's memory, or a program of another version"
                    );
                    return self.give_state_up(group);
                }
                Finding::Disagreement { index, hashes } => {
                    counters.divergences_undecided_total.increment();
                    tracing::error!(
                        %group, %index, ?hashes,
                        "replicas differ in their states, and no majority says which one is right"
                    );
                }
                Finding::OtherDiverged { index, node } => {
                    counters.divergences_seen_total.increment();
                    tracing::warn!(%group, %index, %node, "another replica's state is wrong");
                }
            }
        }
        Ok(())
    }

    /// From now on nothing is served from the state, until a snapshot of another replica is
    /// installed.
    fn give_state_up(&mut self, group: GroupId) -> Result<(), HostError> {
        let driven = self.at(group);
        driven.cell.set_state_lost();
        driven.give_up_all_waiters("this replica's state was found to be wrong");
        if driven.is_installing {
            // A snapshot is about to replace it.
            return Ok(());
        }
        driven.step(Input::Wake)?;
        driven.step(Input::StateLost)?;
        let applier = driven.applier;
        // An apply thread that is gone has reported why.
        let _ = self.appliers[applier].send(Work::Discard { group });
        Ok(())
    }

    /// The snapshot that was about to replace the state is not there.
    pub(super) fn snapshot_missing(
        &mut self,
        group: GroupId,
        mark: SnapshotMark,
    ) -> Result<(), HostError> {
        let driven = self.at(group);
        driven.is_installing = false;
        driven.step(Input::SnapshotMissing(mark))?;
        if driven.judge.is_diverged() && !driven.raft.is_state_lost() {
            self.give_state_up(group)?;
        }
        Ok(())
    }

    /// Tells the other nodes about the checkpoints of this one, of all groups at once.
    pub(super) fn send_checkpoints(&mut self) {
        for (to, made) in std::mem::take(&mut self.checkpoints) {
            for frame in checkpoints::frames(&made) {
                self.core.peers.send(to, CHECKPOINTS, frame);
            }
        }
    }
}

/// Takes the checkpoints of another node to the consensus thread.
pub(crate) fn deliver_checkpoints(core: &crate::core::Core, from: NodeId, frame: &Bytes) {
    match checkpoints::read(frame) {
        // The next ones show what these would have shown.
        Ok(made) => core.inbox.deliver_checkpoints(from, made),
        Err(reason) => {
            core.counters.frames_malformed_total.increment();
            tracing::debug!(%from, reason, "dropped checkpoints that do not decode");
        }
    }
}
