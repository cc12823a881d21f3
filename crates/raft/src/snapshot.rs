//! Log compaction and snapshots (§7). The data itself never comes here, only what it covers.

use onefold_types::{LogIndex, NodeId};

use crate::{
    config::ConfigError,
    entry::{Entry, HardState, SnapshotMark},
    log::Log,
    message::Body,
    persistence::Persistence,
    raft::{Raft, SnapshotOutcome, StepError},
};

impl Raft {
    /// Builds the log from what was on disk. A crash may have come between the installation of a
    /// snapshot and the write of its mark: then the entries are from before it.
    pub(crate) fn restore_log(
        hard_state: &HardState,
        snapshot: SnapshotMark,
        entries: Vec<Entry>,
    ) -> Result<(Log, Persistence), ConfigError> {
        let hole = entries
            .windows(2)
            .find(|pair| pair[1].index.0 != pair[0].index.0 + 1 || pair[1].term < pair[0].term);
        if let Some(pair) = hole {
            return Err(ConfigError::LogNotContiguous { index: pair[1].index });
        }
        let last = entries.last().map(|entry| (entry.index, entry.term));
        if let Some((_, last_term)) = last.filter(|(_, last_term)| *last_term > hard_state.term) {
            return Err(ConfigError::TermLost { term: hard_state.term, last_term });
        }
        // The log on disk then still has an older mark.
        let starts_before = match entries.first() {
            Some(first) => first.index <= snapshot.index,
            None => snapshot.index > LogIndex::ZERO,
        };
        let covers_mark = entries
            .iter()
            .any(|entry| (entry.index, entry.term) == (snapshot.index, snapshot.term));
        let stored_last = last.map_or(snapshot.index, |(index, _)| index);
        let mut log = Log::new(snapshot.clone());
        let mut persistence = Persistence::new(*hard_state, stored_last);
        if starts_before && !covers_mark {
            persistence.reset(snapshot);
            return Ok((log, persistence));
        }
        for entry in entries.into_iter().filter(|entry| entry.index > snapshot.index) {
            if entry.index != log.last_index().next() || entry.term < log.last_term() {
                return Err(ConfigError::LogNotContiguous { index: entry.index });
            }
            log.append(entry);
        }
        if starts_before {
            persistence.compacted(snapshot);
        }
        Ok((log, persistence))
    }

    pub(crate) fn compact(&mut self, index: LogIndex) -> Result<(), StepError> {
        if index > self.applied {
            return Err(StepError::Contract { what: "entries were compacted before they applied" });
        }
        self.compact_through(index);
        Ok(())
    }

    fn compact_through(&mut self, index: LogIndex) {
        if index > self.log.snapshot().index {
            self.log.compact(index);
            self.persistence.compacted(self.log.snapshot().clone());
        }
    }

    /// The follower's next entry is gone. A follower that does not answer can wait.
    pub(crate) fn request_snapshot(&mut self, to: NodeId) {
        let Some(progress) = self.progress.get_mut(&to) else { return };
        if progress.recent_active && progress.need_snapshot() {
            self.output.send_snapshot.push(to);
        }
    }

    pub(crate) fn snapshot_sent(&mut self, to: NodeId, outcome: SnapshotOutcome) {
        // The follower may have caught up, or leadership may have gone, in the meantime.
        let Some(progress) = self.progress.get_mut(&to) else { return };
        match outcome {
            SnapshotOutcome::Delivered(mark) => {
                if progress.snapshot_delivered(&mark) {
                    self.send(to, Body::InstallSnapshot { mark });
                }
            }
            SnapshotOutcome::Failed => progress.snapshot_failed(),
        }
    }

    pub(crate) fn receive_install_snapshot(&mut self, from: NodeId, mark: SnapshotMark) {
        self.follow(from);
        if self.installing.is_some() {
            return;
        }
        if self.log.contains(mark.index, mark.term) {
            self.advance_commit_to(mark.index);
        }
        if self.is_state_lost && mark.index < self.log.snapshot().index {
            self.send(from, Body::SnapshotMissing { index: mark.index });
        } else if self.is_state_lost || mark.index > self.commit {
            self.installing = Some((mark.clone(), from));
            self.output.install_snapshot = Some(mark);
        } else {
            self.send_when_durable(from, Body::SnapshotInstalled { index: self.commit });
        }
    }

    pub(crate) fn snapshot_installed(&mut self, mark: SnapshotMark) -> Result<(), StepError> {
        let from = self.take_installing(&mark)?;
        // §7: what follows the snapshot's last entry stays only if that entry is in the log.
        if self.log.contains(mark.index, mark.term) {
            self.advance_commit_to(mark.index);
            self.compact_through(mark.index);
        } else {
            if mark.index <= self.commit {
                return Err(StepError::CommittedEntryReplaced { index: mark.index, from });
            }
            self.log.reset(mark.clone());
            self.persistence.reset(mark.clone());
            self.commit = mark.index;
        }
        self.is_state_lost = false;
        self.handed = mark.index;
        self.applied = mark.index;
        self.unapplied_bytes = 0;
        if self.leader == Some(from) {
            self.send_when_durable(from, Body::SnapshotInstalled { index: mark.index });
        }
        Ok(())
    }

    pub(crate) fn receive_snapshot_installed(&mut self, from: NodeId, index: LogIndex) {
        self.receive_accepted(from, index);
        if let Some(progress) = self.progress.get_mut(&from) {
            progress.lacks_state = false;
            progress.snapshot_installed(index);
        }
    }

    /// The log is still whole, so this server goes on as a voter; but it has nothing to answer with
    /// until a snapshot gives it a state again.
    pub(crate) fn state_lost(&mut self) {
        self.is_state_lost = true;
        self.handed = LogIndex::ZERO;
        self.applied = LogIndex::ZERO;
        self.unapplied_bytes = 0;
        self.fail_reads();
        self.ask_for_snapshot();
    }

    /// Asks the leader for a snapshot if the state is lost and none is being installed. Asked of each
    /// new leader, and again with each heartbeat.
    pub(crate) fn ask_for_snapshot(&mut self) {
        if !self.is_state_lost || self.installing.is_some() {
            return;
        }
        if let Some(leader) = self.leader.filter(|&leader| leader != self.config.id) {
            self.send(leader, Body::SnapshotWanted { least: self.log.snapshot().index });
        }
    }

    /// A leader that itself lags behind `least` is asked again later.
    pub(crate) fn receive_snapshot_wanted(&mut self, from: NodeId, least: LogIndex) {
        let has_state = !self.is_state_lost && self.applied > LogIndex::ZERO;
        let can_give = has_state && self.applied >= least;
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.recent_active = true;
        progress.lacks_state = true;
        if can_give && progress.snapshot_wanted(least) {
            self.output.send_snapshot.push(from);
        }
    }

    pub(crate) fn snapshot_missing(&mut self, mark: &SnapshotMark) -> Result<(), StepError> {
        let from = self.take_installing(mark)?;
        self.send(from, Body::SnapshotMissing { index: mark.index });
        Ok(())
    }

    fn take_installing(&mut self, mark: &SnapshotMark) -> Result<NodeId, StepError> {
        match self.installing.take_if(|(installing, _)| installing == mark) {
            Some((_, from)) => Ok(from),
            None => Err(StepError::Contract { what: "another snapshot was to be installed" }),
        }
    }

    pub(crate) fn receive_snapshot_missing(&mut self, from: NodeId, index: LogIndex) {
        if let Some(progress) = self.progress.get_mut(&from) {
            progress.recent_active = true;
            if progress.delivered_snapshot().is_some_and(|mark| mark.index == index) {
                progress.snapshot_failed();
            }
        }
    }
}
