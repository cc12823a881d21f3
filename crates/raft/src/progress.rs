//! What a leader knows about one follower.

use std::collections::VecDeque;

use onefold_types::LogIndex;

use crate::{
    entry::SnapshotMark,
    fingerprint::Fingerprint,
    status::{FollowerMode, FollowerStatus},
};

/// How the follower is fed. The transitions are methods of [`Progress`].
///
/// ```text
///            accepted                    needs compacted entries
///   Probe ─────────────▶ Replicate      Probe, Replicate ─────────▶ Snapshot
///     ▲                      │                                          │
///     └──────────────────────┘           accepted inside the log ──▶ Replicate
///            rejected                    failed, or outdated by compaction ──▶ Probe
/// ```
///
/// Beside that, a follower that lost its state machine asks for a snapshot while it is fed.
#[derive(Clone, Debug, Hash)]
enum State {
    /// One append at a time: the place where the logs part is not known.
    Probe {
        /// An append is out and neither its answer nor a heartbeat's came back.
        paused: bool,
    },
    /// Appends are pipelined.
    Replicate,
    /// Nothing until a snapshot has brought the follower to the log.
    Snapshot,
}

/// A snapshot on its way.
#[derive(Clone, Debug)]
enum Transfer {
    /// The driver sends it.
    Streaming,
    /// The follower has it, and is to install it.
    Delivered(SnapshotMark),
}

/// A leader's view of one follower (`nextIndex`, `matchIndex` in figure 2).
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    matched: LogIndex,
    next: LogIndex,
    state: State,
    transfer: Option<Transfer>,
    in_flight: InFlight,
    /// The commit index of the last append that was sent.
    commit_sent: LogIndex,
    /// The last round of read confirmations that it answered.
    pub(crate) read_round: u64,
    /// The last of them with whose answer it promised as much as a lease of this leader needs.
    pub(crate) lease_round: u64,
    /// It said that its state machine is lost, and did not say since that it has one again.
    pub(crate) lacks_state: bool,
    /// Heard of since the last check for a quorum.
    pub(crate) recent_active: bool,
}

impl Progress {
    /// A follower of which nothing is known yet.
    pub(crate) fn new(next: LogIndex) -> Self {
        Self {
            matched: LogIndex::ZERO,
            next,
            state: State::Probe { paused: false },
            transfer: None,
            in_flight: InFlight::default(),
            commit_sent: LogIndex::ZERO,
            read_round: 0,
            lease_round: 0,
            lacks_state: false,
            recent_active: false,
        }
    }

    /// The last index known to be equal and durable.
    pub(crate) fn matched(&self) -> LogIndex {
        self.matched
    }

    /// The next index to send.
    pub(crate) fn next(&self) -> LogIndex {
        self.next
    }

    /// Whether an append may be sent now.
    pub(crate) fn may_send(&self, messages_max: usize, bytes_max: usize) -> bool {
        match self.state {
            State::Probe { paused } => !paused,
            State::Replicate => !self.in_flight.is_full(messages_max, bytes_max),
            State::Snapshot => false,
        }
    }

    /// Whether an append without entries is worth sending.
    pub(crate) fn wants_empty(&self, commit: LogIndex) -> bool {
        match self.state {
            State::Probe { paused } => !paused,
            State::Replicate => self.commit_sent < commit,
            State::Snapshot => false,
        }
    }

    /// An append with entries up to `last` (or none) and this commit index goes out.
    pub(crate) fn sent(&mut self, last: Option<(LogIndex, usize)>, commit: LogIndex) {
        self.commit_sent = commit;
        match &mut self.state {
            State::Probe { paused } => *paused = true,
            State::Replicate => {
                if let Some((last, bytes)) = last {
                    self.next = last.next();
                    self.in_flight.add(last, bytes);
                }
            }
            State::Snapshot => unreachable!("nothing is appended while a snapshot is sent"),
        }
    }

    /// The follower's log is equal up to `matched`; `first_index` is the leader's.
    pub(crate) fn accepted(&mut self, matched: LogIndex, first_index: LogIndex) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        match &self.state {
            State::Probe { .. } => self.replicate(),
            State::Replicate => self.in_flight.free_through(matched),
            State::Snapshot if self.matched.next() >= first_index => {
                self.transfer = None;
                self.replicate();
            }
            // The log was compacted past the snapshot while it was sent: another one is needed.
            State::Snapshot if self.delivered_snapshot().is_some_and(|m| m.index <= matched) => {
                self.transfer = None;
                self.probe(self.matched.next(), false);
            }
            State::Snapshot => {}
        }
    }

    /// The follower refused the append after `prev_index`; `next` follows from its hint.
    pub(crate) fn rejected(&mut self, prev_index: LogIndex, next: LogIndex) {
        let is_stale = match self.state {
            State::Probe { .. } => prev_index.0.checked_add(1) != Some(self.next.0),
            State::Replicate => prev_index <= self.matched,
            State::Snapshot => true,
        };
        if !is_stale {
            self.probe(next.min(prev_index), false);
        }
    }

    /// A heartbeat came back, so an append that was not answered may be lost.
    pub(crate) fn heartbeat_answered(&mut self) {
        if let State::Probe { paused } = &mut self.state {
            *paused = false;
        }
    }

    /// Only a snapshot can bring the follower to the log; true if none is under way.
    pub(crate) fn need_snapshot(&mut self) -> bool {
        self.in_flight = InFlight::default();
        self.state = State::Snapshot;
        self.start_snapshot()
    }

    /// The follower wants a snapshot that covers at least `least`; true if none is under way.
    pub(crate) fn snapshot_wanted(&mut self, least: LogIndex) -> bool {
        self.transfer.take_if(|transfer| match transfer {
            Transfer::Delivered(mark) => mark.index < least,
            Transfer::Streaming => false,
        });
        self.start_snapshot()
    }

    fn start_snapshot(&mut self) -> bool {
        let is_first = self.transfer.is_none();
        self.transfer.get_or_insert(Transfer::Streaming);
        is_first
    }

    /// The driver delivered a snapshot; true if one was waited for.
    pub(crate) fn snapshot_delivered(&mut self, mark: &SnapshotMark) -> bool {
        let is_awaited = self.transfer.is_some();
        if is_awaited {
            self.transfer = Some(Transfer::Delivered(mark.clone()));
        }
        is_awaited
    }

    /// The follower needs no snapshot that ends at this index or before it.
    pub(crate) fn snapshot_installed(&mut self, index: LogIndex) {
        if self.delivered_snapshot().is_some_and(|mark| mark.index <= index) {
            self.transfer = None;
        }
    }

    /// The driver could not deliver, or the follower could not install: try again after the next
    /// sign of life.
    pub(crate) fn snapshot_failed(&mut self) {
        self.transfer = None;
        if matches!(self.state, State::Snapshot) {
            self.probe(self.matched.next(), true);
        }
    }

    /// The snapshot that the follower has and should install.
    pub(crate) fn delivered_snapshot(&self) -> Option<&SnapshotMark> {
        match &self.transfer {
            Some(Transfer::Delivered(mark)) => Some(mark),
            Some(Transfer::Streaming) | None => None,
        }
    }

    /// Whether the follower has everything through `last` and nothing is on its way to it.
    pub(crate) fn is_up_to_date(&self, last: LogIndex) -> bool {
        self.is_replicating() && self.matched == last && self.transfer.is_none()
    }

    /// Whether a snapshot is on its way to the follower, or waits there to be installed.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether appends are pipelined.
    pub(crate) fn is_replicating(&self) -> bool {
        matches!(self.state, State::Replicate)
    }

    pub(crate) fn fingerprint(&self, to: &mut Fingerprint<'_>) {
        let Self {
            matched,
            next,
            state,
            transfer,
            in_flight,
            commit_sent,
            read_round,
            lease_round,
            lacks_state,
            recent_active,
        } = self;
        to.add((matched, next, state, commit_sent, read_round, lease_round));
        to.add((lacks_state, recent_active));
        to.add(transfer.is_some());
        to.mark_if_any(match transfer {
            Some(Transfer::Delivered(mark)) => Some(mark),
            Some(Transfer::Streaming) | None => None,
        });
        to.add(&in_flight.appends);
    }

    /// For operators.
    pub(crate) fn status(&self) -> FollowerStatus {
        FollowerStatus {
            mode: match self.state {
                State::Probe { .. } => FollowerMode::Probe,
                State::Replicate => FollowerMode::Replicate,
                State::Snapshot => FollowerMode::Snapshot,
            },
            matched: self.matched,
            next: self.next,
            in_flight_messages: self.in_flight.appends.len(),
            in_flight_bytes: self.in_flight.bytes,
            recent_active: self.recent_active,
        }
    }

    fn probe(&mut self, next: LogIndex, paused: bool) {
        self.next = next.max(self.matched.next());
        self.in_flight = InFlight::default();
        self.state = State::Probe { paused };
    }

    fn replicate(&mut self) {
        self.next = self.matched.next();
        self.in_flight = InFlight::default();
        self.state = State::Replicate;
    }
}

/// Appends that were sent and not yet answered, oldest first.
#[derive(Clone, Debug, Default)]
struct InFlight {
    appends: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl InFlight {
    fn is_full(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.appends.len() >= messages_max || self.bytes >= bytes_max
    }

    fn add(&mut self, last: LogIndex, bytes: usize) {
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free_through(&mut self, matched: LogIndex) {
        while let Some((_, bytes)) = self.appends.pop_front_if(|(last, _)| *last <= matched) {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: LogIndex = LogIndex(1);

    fn replicating(matched: u64) -> Progress {
        let mut progress = Progress::new(LogIndex(matched + 1));
        progress.accepted(LogIndex(matched), FIRST);
        progress
    }

    #[test]
    fn a_probe_sends_one_append_until_it_is_answered() {
        let mut progress = Progress::new(LogIndex(5));
        assert!(progress.may_send(9, 9));
        progress.sent(Some((LogIndex(7), 1)), LogIndex(0));
        assert!(!progress.may_send(9, 9));
        assert_eq!(progress.next(), LogIndex(5), "a probe is not optimistic");
        progress.heartbeat_answered();
        assert!(progress.may_send(9, 9));
        progress.accepted(LogIndex(7), FIRST);
        assert!(progress.is_replicating());
        assert_eq!((progress.matched(), progress.next()), (LogIndex(7), LogIndex(8)));
    }

    #[test]
    fn replication_is_limited_in_messages_and_bytes() {
        let mut progress = replicating(0);
        progress.sent(Some((LogIndex(1), 10)), LogIndex(0));
        progress.sent(Some((LogIndex(2), 10)), LogIndex(0));
        assert_eq!(progress.next(), LogIndex(3));
        assert!(!progress.may_send(2, 100), "messages");
        assert!(!progress.may_send(9, 20), "bytes");
        progress.accepted(LogIndex(1), FIRST);
        assert!(progress.may_send(2, 20));
    }

    #[test]
    fn a_rejection_goes_back_to_the_hint_but_never_behind_the_match() {
        let mut progress = replicating(4);
        progress.sent(Some((LogIndex(9), 1)), LogIndex(0));
        progress.rejected(LogIndex(3), LogIndex(2));
        assert!(progress.is_replicating(), "a late refusal of something already accepted");
        progress.rejected(LogIndex(9), LogIndex(2));
        assert!(!progress.is_replicating());
        assert_eq!(progress.next(), LogIndex(5));
        progress.rejected(LogIndex(9), LogIndex(2));
        assert_eq!(progress.next(), LogIndex(5), "a late refusal of another probe");
    }

    #[test]
    fn a_rejection_of_an_index_without_a_next_is_stale() {
        let mut progress = Progress::new(LogIndex(5));
        progress.rejected(LogIndex(u64::MAX), LogIndex(2));
        assert_eq!(progress.next(), LogIndex(5));
    }

    #[test]
    fn a_snapshot_ends_when_the_follower_reaches_the_log() {
        let mut progress = Progress::new(LogIndex(1));
        assert!(progress.need_snapshot());
        assert!(!progress.need_snapshot(), "one at a time");
        assert!(!progress.may_send(9, 9));
        progress.accepted(LogIndex(3), LogIndex(9));
        assert!(!progress.is_replicating(), "still behind the log");
        progress.accepted(LogIndex(8), LogIndex(9));
        assert!(progress.is_replicating());
        assert_eq!(progress.next(), LogIndex(9));
    }

    #[test]
    fn a_snapshot_that_compaction_overtook_is_followed_by_another() {
        let mark = SnapshotMark { index: LogIndex(5), ..SnapshotMark::default() };
        let mut progress = Progress::new(LogIndex(1));
        progress.need_snapshot();
        assert!(progress.snapshot_delivered(&mark));
        progress.accepted(LogIndex(5), LogIndex(9));
        assert!(progress.need_snapshot());
    }

    #[test]
    fn a_failed_snapshot_waits_for_a_sign_of_life() {
        let mut progress = Progress::new(LogIndex(1));
        progress.need_snapshot();
        progress.snapshot_failed();
        assert!(!progress.may_send(9, 9));
        progress.heartbeat_answered();
        assert!(progress.may_send(9, 9));
    }
}
