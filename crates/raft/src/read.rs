//! Linearizable reads without writing to the log (§8; dissertation, section 6.4).
//!
//! A read may use the leader's commit index once the leader knows that it still was leader after
//! the read arrived: a majority answers a heartbeat that was sent since. All reads that arrive
//! while one such round is under way share the next one.

use std::collections::VecDeque;

use onefold_types::{LogIndex, NodeId};

use crate::{
    fingerprint::Fingerprint,
    message::Body,
    output::{ReadId, ReadState},
    progress::Progress,
    quorum,
    raft::{Raft, StepError},
    status::Role,
};

#[derive(Clone, Debug, Hash)]
struct Round {
    number: u64,
    index: LogIndex,
    reads: Vec<ReadId>,
}

/// Reads that wait for a round, and rounds that wait for their answers.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Reads {
    waiting: Vec<ReadId>,
    rounds: VecDeque<Round>,
    /// The last round that was started. Numbers grow for as long as the process runs, and answers
    /// of an earlier process are of an earlier term.
    number: u64,
}

impl Reads {
    pub(crate) fn fingerprint(&self, to: &mut Fingerprint<'_>) {
        to.add(self);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.rounds.is_empty()
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.rounds.iter().map(|round| round.reads.len()).sum::<usize>()
    }
}

impl Raft {
    pub(crate) fn read_index(&mut self, id: ReadId) -> Result<(), StepError> {
        if self.role != Role::Leader {
            return Err(StepError::NotLeader { leader: self.leader });
        }
        if self.is_state_lost {
            return Err(StepError::NotLeader { leader: None });
        }
        if self.holds_lease() {
            self.output.read_states.push(ReadState::Ready { id, index: self.commit });
            return Ok(());
        }
        if self.reads.len() >= self.config.reads_pending_max {
            return Err(StepError::Overloaded);
        }
        self.reads.waiting.push(id);
        Ok(())
    }

    /// Starts a round if reads wait and none is under way.
    pub(crate) fn confirm_reads(&mut self) {
        if self.reads.rounds.is_empty() && self.start_round() {
            self.broadcast_heartbeat();
        }
    }

    /// A heartbeat goes out anyway: it carries the reads that wait, and repeats earlier rounds. With
    /// leases each one is a round.
    pub(crate) fn heartbeat_due(&mut self) {
        if !self.start_round() && self.config.lease.is_some() {
            self.reads.number += 1;
        }
        self.broadcast_heartbeat();
    }

    /// Gives the reads that wait a round; true if there are any that can be confirmed. A new
    /// leader does not know what is committed before an entry of its own term is (§8).
    fn start_round(&mut self) -> bool {
        if self.reads.waiting.is_empty() || self.commit < self.term_start {
            return false;
        }
        let reads = std::mem::take(&mut self.reads.waiting);
        self.reads.number += 1;
        self.reads.rounds.push_back(Round { number: self.reads.number, index: self.commit, reads });
        // A single voter is its own majority.
        self.finish_rounds();
        !self.reads.rounds.is_empty()
    }

    fn broadcast_heartbeat(&mut self) {
        let read_round = self.reads.number;
        self.leadership_lease.round_sent(read_round);
        let commit = self.commit;
        let heartbeats: Vec<_> =
            self.progress.iter().map(|(&id, p)| (id, p.matched().min(commit))).collect();
        for (to, commit) in heartbeats {
            self.send(to, Body::Heartbeat { commit, read_round });
        }
    }

    pub(crate) fn read_round_answered(&mut self, from: NodeId, round: u64, promised_micros: u64) {
        let round = round.min(self.reads.number);
        let supports_lease = self.supports_lease(promised_micros);
        if let Some(progress) = self.progress.get_mut(&from) {
            progress.read_round = progress.read_round.max(round);
            if supports_lease {
                progress.lease_round = progress.lease_round.max(round);
            }
            self.finish_rounds();
        }
    }

    /// Answers the reads of all rounds that a majority has answered.
    pub(crate) fn finish_rounds(&mut self) {
        let supported = self.last_round(|progress| progress.lease_round);
        self.leadership_lease.round_confirmed(supported);
        let confirmed = self.last_round(|progress| progress.read_round);
        while let Some(round) = self.reads.rounds.pop_front_if(|round| round.number <= confirmed) {
            let index = round.index;
            let ready = round.reads.into_iter().map(|id| ReadState::Ready { id, index });
            self.output.read_states.extend(ready);
        }
    }

    /// The last round that a majority has reached.
    fn last_round(&self, reached: fn(&Progress) -> u64) -> u64 {
        let last = quorum::reached(self.log.membership(), |id| match self.progress.get(&id) {
            Some(progress) => reached(progress),
            None if id == self.config.id => self.reads.number,
            None => 0,
        });
        last.unwrap_or(0)
    }

    /// This server no longer leads: nothing that waits can be confirmed.
    pub(crate) fn fail_reads(&mut self) {
        let rounds = std::mem::take(&mut self.reads.rounds);
        let waiting = std::mem::take(&mut self.reads.waiting);
        let reads = rounds.into_iter().flat_map(|round| round.reads).chain(waiting);
        self.output.read_states.extend(reads.map(|id| ReadState::Failed { id }));
    }
}
