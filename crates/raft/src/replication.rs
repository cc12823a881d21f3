//! Log replication (§5.3) and the commit rule (§5.4.2).

use bytes::Bytes;
use onefold_types::{LogIndex, NodeId, Term};

use crate::{
    entry::{Entry, Payload},
    message::Body,
    quorum,
    raft::{Raft, StepError, Stepped},
    status::Role,
};

impl Raft {
    /// Appends commands to the leader's log. They are sent and written by the next
    /// [`Raft::take_output`], in parallel (dissertation, section 10.2.1).
    pub(crate) fn propose(&mut self, commands: Vec<Bytes>) -> Result<Stepped, StepError> {
        if self.role != Role::Leader {
            return Err(StepError::NotLeader { leader: self.leader });
        }
        if let Some(to) = self.transferee {
            return Err(StepError::Transferring { to });
        }
        if self.is_state_lost {
            return Err(StepError::NotLeader { leader: None });
        }
        if commands.is_empty() {
            return Ok(Stepped::Done);
        }
        let first = self.log.last_index().next();
        let entries: Vec<Entry> = (first.0..)
            .zip(commands)
            .map(|(index, command)| Entry {
                term: self.term,
                index: LogIndex(index),
                payload: Payload::Command(command),
            })
            .collect();
        self.admit(entries.iter().map(Entry::bytes).sum())?;
        for entry in entries {
            self.log.append(entry);
        }
        Ok(Stepped::Proposed { term: self.term, indexes: first..=self.log.last_index() })
    }

    /// Counts the bytes of new entries, unless too many are uncommitted already.
    pub(crate) fn admit(&mut self, bytes: usize) -> Result<(), StepError> {
        let is_idle = self.commit == self.log.last_index();
        if !is_idle && self.uncommitted_bytes + bytes > self.config.uncommitted_bytes_max {
            return Err(StepError::Overloaded);
        }
        self.uncommitted_bytes += bytes;
        Ok(())
    }

    pub(crate) fn replicate_to_all(&mut self) {
        let peers: Vec<NodeId> = self.progress.keys().copied().collect();
        for to in peers {
            while self.send_append(to) {}
        }
    }

    /// Sends the next append if the follower may get one now; true if more may follow.
    fn send_append(&mut self, to: NodeId) -> bool {
        let Some(progress) = self.progress.get(&to) else { return false };
        if !progress.may_send(self.config.inflight_messages_max, self.config.inflight_bytes_max) {
            return false;
        }
        let next = progress.next();
        let Some(prev_term) = self.log.term_at(before(next)) else {
            self.request_snapshot(to);
            return false;
        };
        let entries = self.log.slice(next, self.log.last_index(), self.config.append_bytes_max);
        if entries.is_empty() && !progress.wants_empty(self.commit) {
            return false;
        }
        self.push_append(to, before(next), prev_term, entries)
    }

    /// Sends an append without entries, whatever is in flight: its refusal shows what was lost.
    fn send_empty_append(&mut self, to: NodeId) {
        let Some(progress) = self.progress.get(&to) else { return };
        let prev_index = before(progress.next());
        match self.log.term_at(prev_index) {
            Some(prev_term) => {
                self.push_append(to, prev_index, prev_term, Vec::new());
            }
            // Compacted while it was in flight.
            None => self.request_snapshot(to),
        }
    }

    fn push_append(
        &mut self,
        to: NodeId,
        prev_index: LogIndex,
        prev_term: Term,
        entries: Vec<Entry>,
    ) -> bool {
        let commit = self.commit;
        let last = entries.last().map(|entry| entry.index);
        let bytes = last.map_or(0, |last| self.log.bytes_between(prev_index.next(), last));
        if let Some(progress) = self.progress.get_mut(&to) {
            progress.sent(last.map(|last| (last, bytes)), commit);
        }
        self.send(to, Body::Append { prev_index, prev_term, entries, commit });
        last.is_some()
    }

    /// The follower's side of AppendEntries.
    pub(crate) fn receive_append(
        &mut self,
        from: NodeId,
        prev_index: LogIndex,
        prev_term: Term,
        mut entries: Vec<Entry>,
        leader_commit: LogIndex,
    ) {
        let is_new_leader = self.leader != Some(from);
        self.follow(from);
        if is_new_leader {
            // It must know before it hands leadership on to a server that has no state either.
            self.ask_for_snapshot();
        }
        let (mut prev_index, mut prev_term) = (prev_index, prev_term);
        if prev_index < self.commit {
            // Committed entries are equal by leader completeness; only the rest is news.
            prev_index = self.commit;
            prev_term = self.log.term_at(self.commit).expect("the log covers the commit index");
            entries.retain(|entry| entry.index > prev_index);
        }
        if !self.log.contains(prev_index, prev_term) {
            return self.reject_append(from, prev_index, prev_term);
        }
        let matched = entries.last().map_or(prev_index, |entry| entry.index);
        self.append_to_follower(entries);
        self.advance_commit_to(leader_commit.min(matched));
        self.send_when_durable(from, Body::AppendAccepted { matched });
    }

    /// §5.3: entries that conflict give way to the leader's; equal ones stay, because the append
    /// may be an old one that was delayed.
    fn append_to_follower(&mut self, entries: Vec<Entry>) {
        let new = entries.iter().position(|entry| !self.log.contains(entry.index, entry.term));
        let Some(new) = new else { return };
        let first = entries[new].index;
        if first <= self.log.last_index() {
            assert!(first > self.commit, "a committed entry is never replaced");
            self.log.truncate_from(first);
            self.persistence.truncated(first);
        }
        for entry in entries.into_iter().skip(new) {
            self.log.append(entry);
        }
    }

    fn reject_append(&mut self, from: NodeId, prev_index: LogIndex, prev_term: Term) {
        if self.installing.is_some() {
            // The snapshot closes the gap; its acknowledgement will tell the leader.
            return;
        }
        let (hint_index, hint_term) = self.log.last_at_most(prev_index, prev_term);
        self.send(from, Body::AppendRejected { prev_index, hint_index, hint_term });
    }

    pub(crate) fn receive_heartbeat(&mut self, from: NodeId, commit: LogIndex, read_round: u64) {
        self.follow(from);
        self.advance_commit_to(commit);
        let promised_micros = self.promised_micros();
        self.send(from, Body::HeartbeatResponse { read_round, promised_micros });
        self.ask_for_snapshot();
    }

    /// The sender leads the current term (§5.2).
    pub(crate) fn follow(&mut self, leader: NodeId) {
        assert_ne!(self.role, Role::Leader, "there is one leader in a term");
        if self.role != Role::Follower {
            self.become_follower(self.term, Some(leader));
        }
        if self.leader == Some(leader) {
            self.patience.was_silent(self.election_elapsed);
        }
        self.leader = Some(leader);
        self.election_elapsed = 0;
        self.promise_lease();
    }

    pub(crate) fn receive_accepted(&mut self, from: NodeId, matched: LogIndex) {
        if self.role != Role::Leader {
            return;
        }
        let first_index = self.log.first_index();
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.recent_active = true;
        progress.accepted(matched, first_index);
        self.advance_commit();
        self.continue_transfer(from);
    }

    pub(crate) fn receive_rejected(
        &mut self,
        from: NodeId,
        prev_index: LogIndex,
        hint_index: LogIndex,
        hint_term: Term,
    ) {
        let (candidate, _) = self.log.last_at_most(hint_index, hint_term);
        if let Some(progress) = self.progress.get_mut(&from) {
            progress.recent_active = true;
            progress.rejected(prev_index, LogIndex(candidate.0 + 1));
        }
    }

    pub(crate) fn receive_heartbeat_response(
        &mut self,
        from: NodeId,
        read_round: u64,
        promised_micros: u64,
    ) {
        let last_index = self.log.last_index();
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.recent_active = true;
        progress.heartbeat_answered();
        let delivered = progress.delivered_snapshot().cloned();
        let is_behind = progress.is_replicating() && progress.matched() < last_index;
        if let Some(mark) = delivered {
            self.send(from, Body::InstallSnapshot { mark });
        }
        if is_behind {
            self.send_empty_append(from);
        }
        self.read_round_answered(from, read_round, promised_micros);
    }

    /// §5.3 and §5.4.2 (figure 8): an entry is committed when a majority has it and it is of the
    /// leader's own term; with it, everything before it. The leader counts itself only for what
    /// is on its own disk.
    pub(crate) fn advance_commit(&mut self) {
        let durable = self.persistence.durable_index();
        let reached = quorum::reached(self.log.membership(), |id| match self.progress.get(&id) {
            Some(progress) => progress.matched(),
            None if id == self.config.id => durable,
            None => LogIndex::ZERO,
        });
        if let Some(index) = reached.filter(|&index| index >= self.term_start) {
            let was_settled = self.is_membership_settled();
            self.advance_commit_to(index);
            if !was_settled && self.is_membership_settled() {
                self.membership_settled();
            }
        }
    }

    pub(crate) fn advance_commit_to(&mut self, index: LogIndex) {
        if index <= self.commit {
            return;
        }
        assert!(index <= self.log.last_index(), "nothing is committed that is not in the log");
        if self.role == Role::Leader {
            let committed = self.log.bytes_between(self.commit.next(), index);
            self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(committed);
        }
        self.commit = index;
    }

    /// Hands out what is committed and durable here, as far as the driver keeps up with applying.
    pub(crate) fn hand_out_committed(&mut self) {
        let through = self.commit.min(self.persistence.durable_index());
        let room = self.config.unapplied_bytes_max.saturating_sub(self.unapplied_bytes);
        let is_idle = self.applied == self.handed;
        if self.is_state_lost
            || self.installing.is_some()
            || through <= self.handed
            || (room == 0 && !is_idle)
        {
            return;
        }
        let entries = self.log.slice(self.handed.next(), through, room);
        let last = entries.last().expect("the log holds what is not yet applied");
        self.handed = last.index;
        self.unapplied_bytes += self.log.bytes_between(entries[0].index, last.index);
        self.output.committed = entries;
    }

    pub(crate) fn driver_applied(&mut self, index: LogIndex) -> Result<(), StepError> {
        if self.is_state_lost {
            // What was applied is lost with the rest.
            return Ok(());
        }
        if index > self.handed {
            return Err(StepError::Contract {
                what: "an entry was applied that was not handed out",
            });
        }
        // An installed snapshot may have overtaken the report.
        if index > self.applied {
            self.unapplied_bytes -= self.log.bytes_between(self.applied.next(), index);
            self.applied = index;
        }
        Ok(())
    }
}

/// The index before one that is at least 1.
fn before(index: LogIndex) -> LogIndex {
    LogIndex(index.0 - 1)
}
