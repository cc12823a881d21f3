//! What can happen next in the world, and what nodes say to each other.

use std::fmt;

use bytes::Bytes;
use onefold_kv::{LeaseId, RangeRequest, TxnRequest};
use onefold_raft::{Body, Message, SnapshotMark};
use onefold_replica::{
    SessionTag,
    liveness::Beat,
    state::{Checkpoint, Piece, Position},
};
use onefold_types::{LogIndex, NodeId, Revision, Term};

use super::{
    history::OpId,
    store::{desk::Own, watch::Told, words::Answered},
};

/// Numbers the lives of a node: what was begun in an earlier one has no effect in the next.
pub(super) type Life = u32;

/// One event in the queue.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's clock ticks. Only the latest tick that was scheduled counts.
    Tick { node: NodeId, life: Life, turn: u64 },
    /// A packet arrives.
    Deliver { from: NodeId, to: NodeId, packet: Box<Packet> },
    /// The log has synced its first appends.
    Synced { node: NodeId, life: Life, appends: usize },
    /// A group's turn on its apply thread.
    Apply { node: NodeId, life: Life, group: usize },
    /// The table has synced what was applied then.
    TableSynced { node: NodeId, life: Life, applied: Vec<LogIndex> },
    /// A call of a snapshot transfer was not answered in time, or may be tried again.
    Transfer { node: NodeId, life: Life, group: usize, transfer: u64, attempt: u64 },
    /// A node starts.
    Start { node: NodeId, life: Life },
    /// A new leader meets its fate while it still commits what it inherited (figure 8).
    Ambush { node: NodeId, life: Life },
    /// A disk has room again, and whoever watches over the node starts it.
    DiskFreed { node: NodeId, life: Life },
    /// A client's request arrives at a node.
    Request { node: NodeId, request: Box<Request> },
    /// A node's answer arrives at a client.
    Answer { op: OpId, node: NodeId, outcome: Box<Outcome> },
    /// The leader of a store looks after it.
    Attend { node: NodeId, life: Life, group: usize, term: Term },
    /// A task of a node proposes something.
    Own { node: NodeId, life: Life, group: usize, own: Own, command: Bytes },
    /// A watcher goes on: opens a stream, asks or leaves.
    Watcher { watcher: usize, turn: u64 },
    /// A watcher's request arrives at a node.
    WatchAsked { node: NodeId, watcher: usize, stream: u64, start: Option<Revision> },
    /// A watcher's question arrives at a node.
    AskedForProgress { node: NodeId, watcher: usize, stream: u64 },
    /// A node tells its watchers the news.
    Tell { node: NodeId, life: Life, group: usize },
    /// A watcher hears something; nothing when its stream is over.
    Told { watcher: usize, stream: u64, told: Box<Told> },
    /// A client goes on: begins, tries again or gives up.
    Client { client: usize, turn: u64 },
    /// A link that flaps changes its mind.
    Flap { from: NodeId, to: NodeId, left: u32 },
    /// A network mends.
    Mend,
    /// The operator looks after the members.
    Operator,
    /// Something breaks.
    Fault,
}

/// What a client asks of a node.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) op: OpId,
    pub(super) group: usize,
    pub(super) ask: Ask,
}

/// A request's content.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// Replicates a command; once at most if it has a tag.
    Write { tag: Option<SessionTag>, command: Bytes },
    /// Reads.
    Read { query: Query, freshness: Freshness },
    /// Renews a lease.
    KeepAlive(LeaseId),
}

/// What is read.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// One register.
    Key(Bytes),
    /// Keys of a store, now or in the past.
    Range(RangeRequest),
    /// Several ranges of a store at once.
    Txn(TxnRequest),
    /// That the node leads in this term: then it may renew a lease.
    KeepAlive(LeaseId, Term),
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Linearizable,
    /// Microseconds of the node's clock.
    Bounded(u64),
    Local,
}

/// What a node answers.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The state machine's answer.
    Written(Bytes),
    /// What was read: the revision of the store, and the value.
    Read { revision: u64, value: Option<Bytes> },
    /// What a store answered from a view or from its leader's book.
    Answered(Answered),
    /// Refused, and certainly not executed for this request.
    Refused,
    /// Perhaps executed, perhaps not.
    Unknown,
    /// The session's answer was acknowledged and is forgotten.
    Trimmed,
}

/// What a node sends to another.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    /// Messages of the cores, of all groups together.
    Messages(Vec<(u8, Message)>),
    /// A sign of life.
    Beat(Beat),
    /// A command for the leader.
    Propose { group: usize, op: OpId, tag: Option<SessionTag>, command: Bytes },
    /// Its answer, for the client that waits at the first node.
    Proposed { op: OpId, outcome: Outcome },
    /// What is committed?
    AskIndex { group: usize, question: u64 },
    /// The answer; `None` from a node that does not lead.
    Index { group: usize, question: u64, index: Option<LogIndex> },
    /// A snapshot begins or goes on.
    SnapshotBegin { group: usize, transfer: u64, mark: SnapshotMark },
    /// Where it is to go on; `None` if it is staged already.
    SnapshotBegun { group: usize, transfer: u64, from: Option<Position> },
    /// It is refused.
    SnapshotRefused { group: usize, transfer: u64 },
    /// A part of it.
    SnapshotPiece { group: usize, transfer: u64, piece: Piece },
    /// Everything before this piece is there.
    SnapshotPieceTaken { group: usize, transfer: u64, pieces: u64 },
    /// The hash of a replica.
    Checkpoint { group: usize, checkpoint: Checkpoint },
}

impl Event {
    /// What the trace hashes: enough to tell two runs apart, cheap enough for every event.
    pub(super) fn fingerprint(&self) -> [u64; 3] {
        let number = |it: usize| it as u64;
        match self {
            Self::Tick { node, turn, .. } => [1, node.0, *turn],
            Self::Deliver { from, to, packet } => [2, from.0 << 8 | to.0, packet.fingerprint()],
            Self::Synced { node, appends, .. } => [3, node.0, number(*appends)],
            Self::Apply { node, group, .. } => [4, node.0, number(*group)],
            Self::TableSynced { node, applied, .. } => {
                [5, node.0, applied.iter().map(|index| index.0).sum()]
            }
            Self::Transfer { node, transfer, attempt, .. } => [6, node.0 ^ transfer << 8, *attempt],
            Self::Start { node, life } => [7, node.0, u64::from(*life)],
            Self::Ambush { node, life } => [8, node.0, u64::from(*life)],
            Self::DiskFreed { node, life } => [9, node.0, u64::from(*life)],
            Self::Request { node, request } => [10, node.0, request.op.fingerprint()],
            Self::Answer { op, .. } => [11, op.fingerprint(), 0],
            Self::Client { client, turn } => [12, number(*client), *turn],
            Self::Flap { from, to, left } => [13, from.0 << 8 | to.0, u64::from(*left)],
            Self::Mend => [14, 0, 0],
            Self::Operator => [15, 0, 0],
            Self::Fault => [16, 0, 0],
            Self::Attend { node, group, term, .. } => [17, node.0 << 8 | number(*group), term.0],
            Self::Own { node, group, command, .. } => {
                [23, node.0 << 8 | number(*group), number(command.len())]
            }
            Self::Watcher { watcher, turn } => [18, number(*watcher), *turn],
            Self::WatchAsked { node, watcher, stream, .. } => {
                [19, node.0 << 32 | number(*watcher), *stream]
            }
            Self::AskedForProgress { node, watcher, stream } => {
                [20, node.0 << 32 | number(*watcher), *stream]
            }
            Self::Tell { node, group, .. } => [21, node.0, number(*group)],
            Self::Told { watcher, stream, told } => {
                let revision = told.as_ref().as_ref().map_or(0, |(revision, _)| revision.get());
                [22, number(*watcher) << 32 | *stream, revision]
            }
        }
    }
}

impl Packet {
    fn fingerprint(&self) -> u64 {
        match self {
            Self::Messages(messages) => {
                messages.iter().fold(messages.len() as u64, |sum, (group, message)| {
                    sum.wrapping_mul(31) + message.term.0 * 8 + u64::from(*group)
                })
            }
            Self::Beat(beat) => beat.count << 4,
            Self::Propose { op, .. } | Self::Proposed { op, .. } => op.fingerprint(),
            Self::AskIndex { question, .. } | Self::Index { question, .. } => *question,
            Self::SnapshotBegin { transfer, .. }
            | Self::SnapshotBegun { transfer, .. }
            | Self::SnapshotRefused { transfer, .. }
            | Self::SnapshotPieceTaken { transfer, .. } => *transfer,
            Self::SnapshotPiece { transfer, piece, .. } => *transfer ^ u64::from(piece.crc32c),
            Self::Checkpoint { checkpoint, .. } => checkpoint.index.0,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick { node, .. } => write!(f, "n{node} ticks"),
            Self::Deliver { from, to, packet } => write!(f, "n{to} <- n{from}  {packet}"),
            Self::Synced { node, appends, .. } => write!(f, "n{node} synced {appends} appends"),
            Self::Apply { node, group, .. } => write!(f, "n{node} g{group} applies"),
            Self::TableSynced { node, .. } => write!(f, "n{node} synced its table"),
            Self::Transfer { node, group, transfer, .. } => {
                write!(f, "n{node} g{group} looks after its snapshot {transfer}")
            }
            Self::Start { node, .. } => write!(f, "n{node} starts"),
            Self::Ambush { node, .. } => write!(f, "n{node} is ambushed"),
            Self::DiskFreed { node, .. } => write!(f, "n{node} has room on its disk"),
            Self::Request { node, request } => {
                write!(f, "n{node} <- {}  g{} {:?}", request.op, request.group, request.ask)
            }
            Self::Answer { op, outcome, .. } => write!(f, "{op} <- {outcome:?}"),
            Self::Client { client, .. } => write!(f, "c{client} goes on"),
            Self::Flap { from, to, .. } => write!(f, "the link n{from} -> n{to} flaps"),
            Self::Mend => f.write_str("all cuts are mended"),
            Self::Operator => f.write_str("operator"),
            Self::Fault => f.write_str("fault"),
            Self::Attend { node, group, .. } => write!(f, "n{node} g{group} looks after its store"),
            Self::Own { node, group, own, .. } => write!(f, "n{node} g{group} proposes {own:?}"),
            Self::Watcher { watcher, .. } => write!(f, "w{watcher} goes on"),
            Self::WatchAsked { node, watcher, stream, start } => {
                write!(f, "n{node} <- w{watcher} watches as stream {stream} from {start:?}")
            }
            Self::AskedForProgress { node, watcher, .. } => {
                write!(f, "n{node} <- w{watcher} asks for progress")
            }
            Self::Tell { node, group, .. } => write!(f, "n{node} g{group} tells the news"),
            Self::Told { watcher, stream, told } => {
                write!(f, "w{watcher} <- stream {stream}: {told:?}")
            }
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(messages) => {
                for (place, (group, message)) in messages.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "; " };
                    write!(f, "{comma}g{group} {}", Short(message))?;
                }
                Ok(())
            }
            Self::SnapshotPiece { group, piece, .. } => {
                let end = if piece.end.is_some() { ", the last" } else { "" };
                write!(f, "g{group} snapshot piece {}{end}", piece.number)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// A message in one short line.
struct Short<'a>(&'a Message);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} ", self.0.term)?;
        match &self.0.body {
            Body::Append { prev_index, prev_term, entries, commit } => {
                write!(f, "Append after {prev_index}/{prev_term} [")?;
                for entry in entries {
                    write!(f, " {}/{}", entry.index, entry.term)?;
                }
                write!(f, " ] commit {commit}")
            }
            Body::InstallSnapshot { mark } => {
                write!(f, "InstallSnapshot {}/{}", mark.index, mark.term)
            }
            other => write!(f, "{other:?}"),
        }
    }
}
