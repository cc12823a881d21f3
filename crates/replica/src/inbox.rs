//! What waits for the consensus thread.
//!
//! One lock and one condition variable over bounded queues of different kinds: what others ask for
//! is refused when a queue is full; what the host's own threads report is never dropped and never
//! waits, since the consensus thread may be waiting for them. Those reports are bounded by the work
//! that they answer. Groups share the room, see [`crate::share`]: a busy one leaves some for others.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use onefold_raft::{MembershipChange, PersistSequence, SnapshotMark, SnapshotOutcome};
use onefold_types::{GroupId, LogIndex, NodeId, share};
use tokio::sync::oneshot;

use crate::change::ChangeStep;
use crate::liveness::Beat;
use crate::metrics::NodeCounters;
use crate::start::Restored;
use crate::state::{Checkpoint, StateHash};
use crate::{ChangeError, Limits, ProposeError, ReadError, TransferError};

/// Most nodes whose beats wait.
const BEATS_MAX: usize = 1024;

/// Most checkpoints that wait.
const CHECKPOINTS_WAITING_MAX: usize = 64 << 10;

/// A command that waits for its place in a log.
pub(crate) struct Proposal {
    pub(crate) group: GroupId,
    /// In its envelope.
    pub(crate) command: Bytes,
    pub(crate) reply: oneshot::Sender<Result<Bytes, ProposeError>>,
}

/// A read that asks what is committed now.
pub(crate) struct Read {
    pub(crate) group: GroupId,
    pub(crate) reply: oneshot::Sender<Result<LogIndex, ReadError>>,
}

/// Something that the host's own threads and tasks report.
pub(crate) enum Event {
    /// One append to the log is durable.
    Persisted(Vec<(GroupId, PersistSequence)>),
    /// An apply round is done: up to `last`, through some checkpoints, oldest first.
    Applied { group: GroupId, bytes: usize, last: Checkpoint, checkpoints: Vec<Checkpoint> },
    /// A staged snapshot now is the state.
    SnapshotInstalled { group: GroupId, mark: SnapshotMark, hash: StateHash },
    /// There was no such staged snapshot.
    SnapshotMissing { group: GroupId, mark: SnapshotMark },
    /// A snapshot was delivered to a follower, or not.
    SnapshotSent { group: GroupId, to: NodeId, outcome: SnapshotOutcome },
    /// What each group had applied is durable in the table.
    TableSynced(BTreeMap<GroupId, LogIndex>),
    /// A group that is durable on this node shall be taken part in.
    GroupCreated { restored: Box<Restored>, taken: oneshot::Sender<()> },
    /// A group that is destroyed in the table shall be taken part in no more.
    GroupDestroyed { group: GroupId, gone: oneshot::Sender<()> },
    /// Somebody asked for other members.
    ChangeMembership {
        group: GroupId,
        change: MembershipChange,
        reply: oneshot::Sender<Result<ChangeStep, ChangeError>>,
    },
    /// Somebody asked to hand over leadership.
    Transfer { group: GroupId, to: NodeId, reply: oneshot::Sender<Result<(), TransferError>> },
}

impl Event {
    /// The group that it is about, which must be here.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Applied { group, .. }
            | Self::SnapshotInstalled { group, .. }
            | Self::SnapshotMissing { group, .. }
            | Self::SnapshotSent { group, .. }
            | Self::ChangeMembership { group, .. }
            | Self::Transfer { group, .. } => Some(*group),
            Self::Persisted(_)
            | Self::TableSynced(_)
            | Self::GroupCreated { .. }
            | Self::GroupDestroyed { .. } => None,
        }
    }

    /// Answers whoever asked that the group is not here.
    pub(crate) fn refuse(self) {
        match self {
            // Who asked may have given up.
            Self::ChangeMembership { group, reply, .. } => {
                let _ = reply.send(Err(ChangeError::NotHosted { group }));
            }
            Self::Transfer { group, reply, .. } => {
                let _ = reply.send(Err(TransferError::NotLeader { group, leader: None }));
            }
            _ => {}
        }
    }
}

/// Everything that waited at one moment.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) events: Vec<Event>,
    /// Frames of Raft messages, as they came.
    pub(crate) frames: Vec<(NodeId, Bytes)>,
    /// The last beat of each node that sent any.
    pub(crate) beats: BTreeMap<NodeId, Beat>,
    /// Checkpoints of other nodes.
    pub(crate) checkpoints: Vec<(NodeId, Vec<(GroupId, Checkpoint)>)>,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) reads: Vec<Read>,
    /// The host stops; there will be no further round.
    pub(crate) is_closed: bool,
}

#[derive(Default)]
struct Waiting {
    round: Round,
    frame_bytes: usize,
    proposal_bytes: usize,
    checkpoints: usize,
    /// What waits of each group.
    by_group: BTreeMap<GroupId, Held>,
    /// Why the inbox was closed.
    closed: Option<String>,
}

/// What waits of one group.
#[derive(Clone, Copy, Default)]
struct Held {
    proposals: usize,
    proposal_bytes: usize,
    reads: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.round.events.is_empty()
            && self.round.frames.is_empty()
            && self.round.proposals.is_empty()
            && self.round.reads.is_empty()
            && self.closed.is_none()
    }

    /// Makes room for a proposal.
    fn admit(&mut self, limits: &Limits, proposal: &Proposal) -> Result<(), ProposeError> {
        if let Some(reason) = &self.closed {
            return Err(ProposeError::Stopped { reason: reason.clone() });
        }
        let (group, bytes) = (proposal.group, proposal.command.len());
        let (count, count_max) = (self.round.proposals.len(), limits.proposals_waiting_max);
        let (total_bytes, bytes_max) = (self.proposal_bytes, limits.proposals_waiting_bytes_max);
        let held = self.by_group.entry(group).or_default();
        let has_room = share::allows(held.proposals, 1, count, count_max)
            && share::allows(held.proposal_bytes, bytes, total_bytes, bytes_max);
        if !has_room {
            return Err(ProposeError::Overloaded { group });
        }
        held.proposals += 1;
        held.proposal_bytes += bytes;
        self.proposal_bytes += bytes;
        Ok(())
    }
}

/// The queue before the consensus thread.
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    limits: Limits,
}

impl Inbox {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { waiting: Mutex::default(), arrived: Condvar::new(), limits }
    }

    /// Reports something. After the inbox was closed nobody listens any more.
    pub(crate) fn report(&self, event: Event) {
        let mut waiting = self.lock();
        if waiting.closed.is_none() {
            waiting.round.events.push(event);
            self.arrived.notify_one();
        }
    }

    /// Hands over a frame of another node; false when it was dropped for lack of room.
    pub(crate) fn deliver(&self, from: NodeId, frame: Bytes) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.round.frames.len() < self.limits.messages_waiting_max
            && waiting.frame_bytes + frame.len() <= self.limits.messages_waiting_bytes_max;
        if waiting.closed.is_some() || !has_room {
            return false;
        }
        waiting.frame_bytes += frame.len();
        waiting.round.frames.push((from, frame));
        self.arrived.notify_one();
        true
    }

    /// Hands over a beat. It wakes nobody: the consensus thread looks at least at each beat of its
    /// own, and nothing is lost when only the last one counts.
    pub(crate) fn deliver_beat(&self, from: NodeId, beat: Beat) {
        let mut waiting = self.lock();
        let beats = &mut waiting.round.beats;
        if beats.len() < BEATS_MAX || beats.contains_key(&from) {
            beats.insert(from, beat);
        }
    }

    /// Hands over the checkpoints of another node, if there is room. As with beats, nobody is woken.
    pub(crate) fn deliver_checkpoints(&self, from: NodeId, made: Vec<(GroupId, Checkpoint)>) {
        let mut waiting = self.lock();
        if waiting.checkpoints + made.len() <= CHECKPOINTS_WAITING_MAX {
            waiting.checkpoints += made.len();
            waiting.round.checkpoints.push((from, made));
        }
    }

    /// How much waits.
    pub(crate) fn count(&self, counters: &NodeCounters) {
        let waiting = self.lock();
        counters.proposals_waiting.set(waiting.round.proposals.len());
        counters.proposals_waiting_bytes.set(waiting.proposal_bytes);
        counters.reads_waiting.set(waiting.round.reads.len());
        counters.frames_waiting.set(waiting.round.frames.len());
        counters.frames_waiting_bytes.set(waiting.frame_bytes);
    }

    /// Queues a proposal.
    ///
    /// # Errors
    /// When there is no room, or the host stopped. The proposal is not executed then.
    pub(crate) fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        let mut waiting = self.lock();
        waiting.admit(&self.limits, &proposal)?;
        waiting.round.proposals.push(proposal);
        self.arrived.notify_one();
        Ok(())
    }

    /// Queues proposals that came together; those for which there is no room are answered so.
    pub(crate) fn propose_all(&self, proposals: Vec<Proposal>) {
        let mut refused = Vec::new();
        {
            let mut waiting = self.lock();
            for proposal in proposals {
                match waiting.admit(&self.limits, &proposal) {
                    Ok(()) => waiting.round.proposals.push(proposal),
                    Err(error) => refused.push((proposal, error)),
                }
            }
            self.arrived.notify_one();
        }
        for (proposal, error) in refused {
            // Who asked may have given up.
            let _ = proposal.reply.send(Err(error));
        }
    }

    /// Queues a read.
    ///
    /// # Errors
    /// When there is no room, or the host stopped.
    pub(crate) fn read(&self, read: Read) -> Result<(), ReadError> {
        let mut guard = self.lock();
        let waiting = &mut *guard;
        if let Some(reason) = &waiting.closed {
            return Err(ReadError::Stopped { reason: reason.clone() });
        }
        let group = read.group;
        let count = waiting.round.reads.len();
        let held = waiting.by_group.entry(group).or_default();
        if !share::allows(held.reads, 1, count, self.limits.reads_waiting_max) {
            return Err(ReadError::Overloaded { group });
        }
        held.reads += 1;
        waiting.round.reads.push(read);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes nothing any more; the consensus thread ends after what waits now.
    pub(crate) fn close(&self, reason: &str) {
        let mut waiting = self.lock();
        waiting.closed.get_or_insert_with(|| reason.to_owned());
        self.arrived.notify_one();
    }

    /// Why the inbox was closed, if it was.
    pub(crate) fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }

    /// Takes everything that waits; waits for something until a moment.
    pub(crate) fn take(&self, until: Instant) -> Round {
        let mut waiting = self.lock();
        while waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.arrived.wait_timeout(waiting, left);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        waiting.frame_bytes = 0;
        waiting.proposal_bytes = 0;
        waiting.checkpoints = 0;
        waiting.by_group.clear();
        let is_closed = waiting.closed.is_some();
        Round { is_closed, ..std::mem::take(&mut waiting.round) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> Inbox {
        Inbox::new(Limits {
            proposals_waiting_max: 4,
            proposals_waiting_bytes_max: 20,
            messages_waiting_max: 1,
            reads_waiting_max: 4,
            ..Limits::default()
        })
    }

    fn proposal(bytes: usize) -> Proposal {
        proposal_of(GroupId::KV, bytes)
    }

    fn proposal_of(group: GroupId, bytes: usize) -> Proposal {
        let (reply, _) = oneshot::channel();
        Proposal { group, command: vec![0; bytes].into(), reply }
    }

    #[test]
    fn proposals_are_bounded_in_number_and_bytes_until_they_are_taken() {
        let inbox = inbox();
        inbox.propose(proposal(6)).expect("there is room");
        let overloaded = Err(ProposeError::Overloaded { group: GroupId::KV });
        assert_eq!(inbox.propose(proposal(9)), overloaded);
        inbox.propose(proposal(4)).expect("there is room");
        assert_eq!(inbox.propose(proposal(0)), overloaded);
        assert_eq!(inbox.take(Instant::now()).proposals.len(), 2);
        inbox.propose(proposal(20)).expect("there is room again");
    }

    #[test]
    fn a_busy_group_leaves_room_for_a_quiet_one() {
        let inbox = inbox();
        let (busy, quiet) = (GroupId(16), GroupId(17));
        while inbox.propose(proposal_of(busy, 5)).is_ok() {}
        inbox.propose(proposal_of(quiet, 5)).expect("the busy one may not take all the room");
        let read = |group| Read { group, reply: oneshot::channel().0 };
        while inbox.read(read(busy)).is_ok() {}
        inbox.read(read(quiet)).expect("the busy one may not take all the room");
    }

    #[test]
    fn frames_beyond_the_bound_are_dropped_and_reports_never() {
        let inbox = inbox();
        assert!(inbox.deliver(NodeId(2), Bytes::new()));
        assert!(!inbox.deliver(NodeId(2), Bytes::new()));
        for index in 0..100 {
            let last = Checkpoint { index: LogIndex(index), ..Checkpoint::default() };
            let checkpoints = Vec::new();
            inbox.report(Event::Applied { group: GroupId::KV, bytes: 0, last, checkpoints });
        }
        let round = inbox.take(Instant::now());
        assert_eq!((round.frames.len(), round.events.len()), (1, 100));
    }

    #[test]
    fn the_last_beat_of_each_node_waits_for_the_next_round() {
        let inbox = inbox();
        for count in 1..=3 {
            inbox.deliver_beat(NodeId(2), Beat { process: 7, count });
        }
        let round = inbox.take(Instant::now());
        assert_eq!(round.beats, BTreeMap::from([(NodeId(2), Beat { process: 7, count: 3 })]));
        assert!(inbox.take(Instant::now()).beats.is_empty());
    }

    #[test]
    fn a_closed_inbox_says_why_and_keeps_what_waited() {
        let inbox = inbox();
        inbox.propose(proposal(1)).expect("there is room");
        inbox.close("the disk broke");
        inbox.close("another reason");
        let stopped = ProposeError::Stopped { reason: "the disk broke".to_owned() };
        assert_eq!(inbox.propose(proposal(1)), Err(stopped));
        let round = inbox.take(Instant::now());
        assert!(round.is_closed);
        assert_eq!(round.proposals.len(), 1);
    }
}
