//! Snapshots on their way: in pieces, cut, resumed, staged and installed.

use std::sync::Arc;

use bytes::Bytes;
use onefold_raft::{Input, Restored, Role, SnapshotOutcome};
use onefold_replica::{
    HostError,
    state::{Generation, Generations, PieceError, Position, Staging},
};
use onefold_table::{Batch, KeyRange, Order, View};
use onefold_types::{LogIndex, NodeId};

use super::{
    checker::{Checked, Violation, ensure},
    clock::{MILLISECOND, Micros, SECOND},
    coverage::{Branch, FaultKind},
    event::{Event, Outcome, Packet},
    node::Sending,
    sabotage::Sabotage,
    world::World,
};

/// How long one call of a transfer may take.
const CALL_TIMEOUT: Micros = 2 * SECOND;
/// Pause before another attempt with the same state.
const PAUSE: Micros = 200 * MILLISECOND;
/// Pause after a failed transfer.
const PAUSE_AFTER_FAILURE: Micros = SECOND;
/// Calls in a row that may stay without an answer.
const FAILURES_MAX: u32 = 4;
/// Keys that one step of a removal takes.
const WIPE_STEP_KEYS: usize = 1024;

pub(super) fn host_failed(error: HostError) -> Violation {
    Violation { invariant: "tables in memory do not fail", detail: error.to_string() }
}

impl World {
    /// The core of a leader wants a follower to get a snapshot.
    pub(super) fn begin_transfer(&mut self, id: NodeId, group: usize, to: NodeId) -> Checked {
        self.coverage.hit(Branch::SnapshotRequested);
        let hosted = self.hosted(id, group).expect("its output was taken");
        if hosted.sending.values().any(|sending| sending.to == to) {
            // It was deposed and leads again: the end of that one answers for both.
            return Ok(());
        }
        let process = self.node_mut(id).process.as_mut().expect("its output was taken");
        process.transfers += 1;
        let transfer = process.transfers;
        let hosted = &mut process.groups[group];
        let export = hosted.state.generations().export().map_err(host_failed)?;
        let sending = Sending {
            to,
            export,
            position: Position::default(),
            attempt: 0,
            failures: 0,
            is_given_up: false,
        };
        hosted.sending.insert(transfer, sending);
        if self.node(id).is_changed[group] {
            self.changed_transfers.insert(transfer);
        }
        self.begin_call(id, group, transfer);
        Ok(())
    }

    /// Asks the follower where the transfer is to go on.
    fn begin_call(&mut self, id: NodeId, group: usize, transfer: u64) {
        let Some(sending) = self.sending(id, group, transfer) else { return };
        sending.attempt += 1;
        let (attempt, to) = (sending.attempt, sending.to);
        let mark = sending.export.mark().clone();
        self.send(id, to, Packet::SnapshotBegin { group, transfer, mark });
        self.watch_call(id, group, transfer, attempt, CALL_TIMEOUT);
    }

    fn watch_call(&mut self, id: NodeId, group: usize, transfer: u64, attempt: u64, after: Micros) {
        let life = self.node(id).life;
        self.schedule(after, Event::Transfer { node: id, life, group, transfer, attempt });
    }

    fn sending(&mut self, id: NodeId, group: usize, transfer: u64) -> Option<&mut Sending> {
        self.hosted(id, group)?.sending.get_mut(&transfer)
    }

    /// A call was not answered in time, or a pause is over.
    pub(super) fn transfer_overdue(
        &mut self,
        id: NodeId,
        group: usize,
        transfer: u64,
        attempt: u64,
    ) -> Checked {
        let Some(sending) = self.sending(id, group, transfer) else { return Ok(()) };
        if sending.attempt != attempt {
            return Ok(());
        }
        if sending.is_given_up {
            return self.transfer_ended(id, group, transfer, SnapshotOutcome::Failed);
        }
        sending.failures += 1;
        let is_hopeless = sending.failures > FAILURES_MAX;
        let hosted = self.hosted(id, group).expect("it sends");
        if is_hopeless || hosted.raft.role() != Role::Leader {
            self.give_up_transfer(id, group, transfer);
        } else {
            self.begin_call(id, group, transfer);
        }
        Ok(())
    }

    fn give_up_transfer(&mut self, id: NodeId, group: usize, transfer: u64) {
        let Some(sending) = self.sending(id, group, transfer) else { return };
        sending.is_given_up = true;
        sending.attempt += 1;
        let attempt = sending.attempt;
        self.coverage.hit(Branch::SnapshotFailed);
        self.watch_call(id, group, transfer, attempt, PAUSE_AFTER_FAILURE);
    }

    fn transfer_ended(
        &mut self,
        id: NodeId,
        group: usize,
        transfer: u64,
        outcome: SnapshotOutcome,
    ) -> Checked {
        let sending = self.hosted(id, group).expect("it sends").sending.remove(&transfer);
        let to = sending.expect("it is still there").to;
        self.step(id, group, Input::SnapshotSent { to, outcome }).map(|_| ())
    }

    /// A packet of a transfer.
    pub(super) fn receive_transfer(&mut self, id: NodeId, from: NodeId, packet: Packet) -> Checked {
        match packet {
            Packet::SnapshotBegin { group, transfer, mark } => {
                let answer = self.stage(id, group, transfer, mark)?;
                self.send(id, from, answer);
                Ok(())
            }
            Packet::SnapshotPiece { group, transfer, piece } => {
                let answer = self.take_piece(id, group, transfer, &piece)?;
                self.send(id, from, answer);
                Ok(())
            }
            Packet::SnapshotBegun { group, transfer, from: position } => {
                let Some(sending) = self.sending(id, group, transfer) else { return Ok(()) };
                if sending.is_given_up {
                    return Ok(());
                }
                match position {
                    Some(position) => {
                        sending.position = position;
                        self.next_piece(id, group, transfer)
                    }
                    None => self.transfer_delivered(id, group, transfer),
                }
            }
            Packet::SnapshotPieceTaken { group, transfer, pieces } => {
                let bytes_max = self.plan.piece_bytes;
                let Some(sending) = self.sending(id, group, transfer) else { return Ok(()) };
                let is_expected = !sending.is_given_up && pieces == sending.position.pieces + 1;
                if !is_expected {
                    return Ok(());
                }
                sending.failures = 0;
                let (piece, next) = cut(sending, bytes_max)?;
                sending.position = next;
                if piece.end.is_some() {
                    return self.transfer_delivered(id, group, transfer);
                }
                self.next_piece(id, group, transfer)
            }
            Packet::SnapshotRefused { group, transfer } => {
                let Some(sending) = self.sending(id, group, transfer) else { return Ok(()) };
                if !sending.is_given_up {
                    sending.attempt += 1;
                    let attempt = sending.attempt;
                    self.watch_call(id, group, transfer, attempt, PAUSE);
                }
                Ok(())
            }
            _ => unreachable!("other packets are not of transfers"),
        }
    }

    fn transfer_delivered(&mut self, id: NodeId, group: usize, transfer: u64) -> Checked {
        let sending = self.sending(id, group, transfer).expect("it was delivered");
        let (is_long, mark) = (sending.position.pieces > 1, sending.export.mark().clone());
        if is_long {
            self.coverage.hit(Branch::SnapshotInPieces);
        }
        self.transfer_ended(id, group, transfer, SnapshotOutcome::Delivered(mark))
    }

    /// Sends the piece after those that the follower has.
    fn next_piece(&mut self, id: NodeId, group: usize, transfer: u64) -> Checked {
        let (bytes_max, is_cut) =
            (self.plan.piece_bytes, self.random.chance(self.plan.transfer_cut));
        let is_damaged = self.random.chance(self.plan.piece_damage);
        let Some(sending) = self.sending(id, group, transfer) else { return Ok(()) };
        sending.attempt += 1;
        let (attempt, to) = (sending.attempt, sending.to);
        let (mut piece, _) = cut(sending, bytes_max)?;
        self.watch_call(id, group, transfer, attempt, CALL_TIMEOUT);
        if is_cut {
            self.faults.hit(FaultKind::TransferCut);
            return Ok(());
        }
        if is_damaged && !piece.body.is_empty() {
            self.faults.hit(FaultKind::PieceDamaged);
            let mut body = piece.body.to_vec();
            let place = self.random.within(0..=body.len() as u64 - 1) as usize;
            body[place] ^= 1 << self.random.within(0..=7);
            piece.body = Bytes::from(body);
        }
        self.send(id, to, Packet::SnapshotPiece { group, transfer, piece });
        Ok(())
    }

    /// The follower's side of a begin.
    fn stage(
        &mut self,
        id: NodeId,
        group: usize,
        transfer: u64,
        mark: onefold_raft::SnapshotMark,
    ) -> Result<Packet, Violation> {
        let hosted = self.hosted(id, group).expect("packets come to nodes that run");
        if mark.index <= hosted.state.applied() {
            return Ok(Packet::SnapshotRefused { group, transfer });
        }
        let generations = hosted.state.generations().clone();
        if let Some(staging) = &hosted.staging {
            if *staging.mark() == mark && staging.staged().is_some() {
                return Ok(Packet::SnapshotBegun { group, transfer, from: None });
            }
            if staging.transfer() == transfer && *staging.mark() == mark {
                let position = staging.position().clone();
                let is_inherited = hosted.is_staging_inherited;
                if position.pieces > 0 {
                    self.coverage.hit(Branch::SnapshotResumed);
                    if is_inherited {
                        self.coverage.hit(Branch::SnapshotResumedAfterRestart);
                    }
                }
                return Ok(Packet::SnapshotBegun { group, transfer, from: Some(position) });
            }
            wipe(&generations, hosted.staging.take())?;
        }
        let staging = generations.stage(mark, transfer).map_err(host_failed)?;
        let position = staging.position().clone();
        let hosted = self.hosted(id, group).expect("packets come to nodes that run");
        hosted.staging = Some(staging);
        hosted.is_staging_inherited = false;
        Ok(Packet::SnapshotBegun { group, transfer, from: Some(position) })
    }

    fn take_piece(
        &mut self,
        id: NodeId,
        group: usize,
        transfer: u64,
        piece: &onefold_replica::state::Piece,
    ) -> Result<Packet, Violation> {
        let hosted = self.hosted(id, group).expect("packets come to nodes that run");
        let Some(staging) = hosted.staging.as_mut().filter(|it| it.transfer() == transfer) else {
            return Ok(Packet::SnapshotRefused { group, transfer });
        };
        match staging.piece(piece) {
            Ok(()) => {
                let pieces = piece.number + 1;
                Ok(Packet::SnapshotPieceTaken { group, transfer, pieces })
            }
            Err(PieceError::Host(error)) => Err(host_failed(error)),
            Err(PieceError::OutOfOrder { .. } | PieceError::Damaged { .. }) => {
                Ok(Packet::SnapshotRefused { group, transfer })
            }
            Err(error) => {
                let detail = format!("g{group} n{id}: {error}");
                Err(Violation { invariant: "snapshots are what they were cut from", detail })
            }
        }
    }

    /// Makes the staged snapshot the state, if one is to be installed.
    pub(super) fn install(&mut self, id: NodeId, group: usize) -> Checked {
        if self.hosted(id, group).is_none_or(|hosted| hosted.installing.is_none()) {
            return Ok(());
        }
        let is_swept = self.random.chance(self.plan.transfer_cut / 4);
        let hosted = self.hosted(id, group).expect("it installs");
        let mark = hosted.installing.take().expect("it installs");
        let mut staging = hosted.staging.take_if(|staging| *staging.mark() == mark);
        if is_swept {
            wipe(&hosted.state.generations().clone(), staging.take())?;
        }
        let staged = staging.as_ref().and_then(Staging::staged);
        let Some(staged) = staged else {
            hosted.staging = staging.or(hosted.staging.take());
            if is_swept {
                self.faults.hit(FaultKind::StagingSwept);
            }
            self.coverage.hit(Branch::SnapshotMissing);
            return self.step(id, group, Input::SnapshotMissing(mark)).map(|_| ());
        };
        let generations = hosted.state.generations().clone();
        let transfer = staging.as_ref().map_or(0, Staging::transfer);
        let was_diverged = hosted.judge.is_diverged();
        let Some(replaced) = hosted.state.install(&staged).map_err(host_failed)? else {
            wipe(&generations, staging)?;
            self.coverage.hit(Branch::SnapshotMissing);
            return self.step(id, group, Input::SnapshotMissing(mark)).map(|_| ());
        };
        hosted.judge.rebuilt();
        wipe_generation(&generations, replaced)?;
        let index = mark.index;
        let forgotten = hosted.forget_waiters(index);
        self.tell(|| format!("n{id} g{group} installed a snapshot of {index}"));
        self.coverage.hit(Branch::SnapshotInstalled);
        if was_diverged {
            self.coverage.hit(Branch::DivergenceRebuilt);
        }
        let is_changed = self.changed_transfers.contains(&transfer);
        self.node_mut(id).is_changed[group] = is_changed;
        self.check_hash(id, group, false)?;
        self.note_committed(id, group)?;
        self.node_mut(id).installed[group] = index;
        self.check_installed(id, group, index)?;
        self.sabotage_installed(id, group);
        for reply in forgotten {
            self.reply(id, reply, Outcome::Unknown);
        }
        self.step(id, group, Input::SnapshotInstalled(mark))?;
        self.caught_up(id, group)
    }

    fn check_installed(&mut self, id: NodeId, group: usize, index: LogIndex) -> Checked {
        let mark = self.hosted(id, group).expect("it installed").state.mark();
        let committed = self.checkers[group].committed_term(index);
        ensure(
            mark.index == index && committed == Some(mark.term),
            "snapshots are committed states",
            || format!("g{group} n{id} installs {mark:?}, but {committed:?} was committed there"),
        )
    }

    /// What a crash left of a snapshot that was staged.
    pub(super) fn interrupted_staging(
        &self,
        generations: &Arc<Generations>,
        applied: LogIndex,
    ) -> Result<Option<Staging>, HostError> {
        let kept = generations.interrupted()?;
        let kept = kept.filter(|staging| staging.mark().index > applied);
        let current = generations.current();
        for generation in generations.all()? {
            let is_kept = kept.as_ref().is_some_and(|kept| kept.generation() == generation);
            if generation != current && !is_kept {
                while generations.wipe(generation, WIPE_STEP_KEYS)? {}
            }
        }
        Ok(kept)
    }

    pub(super) fn count_entries_applied_again(
        &mut self,
        restored: &Restored,
        log_mark: Option<LogIndex>,
    ) {
        let committed = restored.hard_state.commit;
        if restored.applied < committed {
            self.coverage.hit(Branch::AppliedAgain);
        }
        if restored.snapshot.index > log_mark.unwrap_or(restored.snapshot.index) {
            self.coverage.hit(Branch::StateAheadOfLog);
        }
    }

    /// A snapshot that came without its sessions, if that is the bug.
    fn sabotage_installed(&mut self, id: NodeId, group: usize) {
        if self.sabotage == Some(Sabotage::SnapshotSkipsEntry) {
            let hosted = self.hosted(id, group).expect("it installed");
            hosted.skips_next = true;
        }
        if self.sabotage != Some(Sabotage::SnapshotWithoutSessions) {
            return;
        }
        let hosted = self.hosted(id, group).expect("it installed");
        let space = hosted.state.generations().space().clone();
        let mut batch = Batch::new();
        for pair in space.scan(KeyRange::prefix(&[1]), Order::Ascending) {
            let (key, _) = pair.expect("memory does not fail");
            if key.get(5) == Some(&b'h') && key.get(6).is_some_and(|kind| b"act".contains(kind)) {
                batch.delete(key);
            }
        }
        space.write(batch).expect("memory does not fail");
    }
}

/// The piece at the position that a transfer has reached.
fn cut(
    sending: &Sending,
    bytes_max: usize,
) -> Result<(onefold_replica::state::Piece, Position), Violation> {
    let piece = sending.export.piece(&sending.position, bytes_max);
    piece.map_err(|error| host_failed(error.into()))
}

/// Gives a staged snapshot up.
fn wipe(generations: &Generations, staging: Option<Staging>) -> Checked {
    let Some(staging) = staging else { return Ok(()) };
    wipe_generation(generations, staging.generation())
}

/// Removes a generation that nobody needs.
pub(super) fn wipe_generation(generations: &Generations, generation: Generation) -> Checked {
    while generations.wipe(generation, WIPE_STEP_KEYS).map_err(|e| host_failed(e.into()))? {}
    Ok(())
}
