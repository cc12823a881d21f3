//! What hosts say to each other: one frame of Raft messages a round and destination, and calls.

use bytes::Bytes;
use onefold_raft::{MembershipChange, Message, SnapshotMark};
use onefold_transport::{Method, MethodId, RemoteCode, RemoteError};
use onefold_types::{GroupId, LogIndex, NodeId};
use serde::{Deserialize, Serialize};

use crate::liveness::Beat;
use crate::state::{Position, SnapshotTotal};
use crate::{ChangeError, ProposeError, ReadError, SessionTag};

/// The one-way message that carries Raft messages of any groups.
pub(crate) const MESSAGES: MethodId = MethodId(16);

/// The one-way message that says that the process is alive.
pub(crate) const BEATS: MethodId = MethodId(23);

/// The format of a beat: this byte, then the beat.
const BEAT_FORMAT: u8 = 1;

/// The payload of a beat, and of what the sender's clock shows, in microseconds since 1970.
pub(crate) fn encode_beat(beat: Beat, wall_micros: u64) -> Bytes {
    let encoded = postcard::to_extend(&(beat, wall_micros), vec![BEAT_FORMAT]);
    encoded.expect("a beat serializes into memory").into()
}

/// A beat and the time from their payload, if it is one.
pub(crate) fn beat(payload: &[u8]) -> Option<(Beat, u64)> {
    match payload.split_first() {
        Some((&BEAT_FORMAT, beat)) => postcard::from_bytes(beat).ok(),
        _ => None,
    }
}

/// The format of such a frame: this byte, then pairs of group and message up to its end.
const FRAME_FORMAT: u8 = 3;

/// A frame is sent when it is this long; one message may make it longer.
const FRAME_BYTES_TARGET: usize = 4 << 20;

/// Raft messages for one node.
#[derive(Default)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// Adds a message. A frame that is long enough is given back, to be sent.
    pub(crate) fn push(&mut self, group: GroupId, message: &Message) -> Option<Bytes> {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            bytes.push(FRAME_FORMAT);
        }
        let encoded = postcard::to_extend(&(group, message), bytes);
        self.bytes = encoded.expect("messages serialize into memory");
        (self.bytes.len() >= FRAME_BYTES_TARGET).then(|| self.take())
    }

    /// What is left to be sent; empty if there is nothing.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).into()
    }
}

/// The messages of a frame, up to the first that does not decode: that one is an `Err`.
pub(crate) fn messages(frame: &[u8]) -> impl Iterator<Item = Result<(GroupId, Message), String>> {
    let (mut rest, mut wrong) = match frame.split_first() {
        Some((&FRAME_FORMAT, rest)) => (rest, None),
        Some((format, _)) => (&[][..], Some(format!("format {format}, not {FRAME_FORMAT}"))),
        None => (&[][..], None),
    };
    std::iter::from_fn(move || {
        if let Some(wrong) = wrong.take() {
            return Some(Err(wrong));
        }
        if rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(rest) {
            Ok((message, left)) => {
                rest = left;
                Some(Ok(message))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error.to_string()))
            }
        }
    })
}

/// Proposes commands to the leader. The body is the commands, the response's body their answers.
pub(crate) struct ProposeMany;

#[derive(Serialize, Deserialize)]
pub(crate) struct ProposeManyRequest {
    pub(crate) group: GroupId,
    /// How long the leader may take.
    pub(crate) deadline_ms: u64,
    pub(crate) items: Vec<ProposeItem>,
}

/// One command of several.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProposeItem {
    pub(crate) session: Option<SessionTag>,
    /// Its part of the body.
    pub(crate) bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ProposeManyResponse {
    /// What became of each command, in their order: the bytes of its answer in the body.
    pub(crate) answers: Vec<Result<u64, ProposeError>>,
}

impl Method for ProposeMany {
    const ID: MethodId = MethodId(24);
    const NAME: &'static str = "replica.propose";
    type Request = ProposeManyRequest;
    type Response = ProposeManyResponse;
}

/// The parts of a body, if these lengths are exactly its bytes.
pub(crate) fn split_body(
    mut body: Bytes,
    lengths: impl Iterator<Item = u64>,
) -> Option<Vec<Bytes>> {
    let mut parts = Vec::with_capacity(lengths.size_hint().0);
    for length in lengths {
        let length = usize::try_from(length).ok().filter(|length| *length <= body.len())?;
        parts.push(body.split_to(length));
    }
    body.is_empty().then_some(parts)
}

/// Asks the leader what is committed.
pub(crate) struct ReadIndex;

#[derive(Serialize, Deserialize)]
pub(crate) struct ReadIndexRequest {
    pub(crate) group: GroupId,
    /// How long the leader may take.
    pub(crate) deadline_ms: u64,
}

impl Method for ReadIndex {
    const ID: MethodId = MethodId(18);
    const NAME: &'static str = "replica.read_index";
    type Request = ReadIndexRequest;
    type Response = LogIndex;
}

/// Announces a snapshot that will be sent in pieces.
pub(crate) struct SnapshotBegin;

#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotBeginRequest {
    pub(crate) group: GroupId,
    /// What it covers.
    pub(crate) mark: SnapshotMark,
    /// Names the export that the pieces come from.
    pub(crate) transfer: u64,
}

/// Whether pieces are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotBegun {
    /// Send them from here on.
    Send(Position),
    /// A snapshot with this mark is staged already.
    Staged,
}

impl Method for SnapshotBegin {
    const ID: MethodId = MethodId(19);
    const NAME: &'static str = "replica.snapshot_begin";
    type Request = SnapshotBeginRequest;
    type Response = SnapshotBegun;
}

/// One piece of a snapshot; the body holds its pairs.
pub(crate) struct SnapshotPiece;

#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotPieceRequest {
    pub(crate) group: GroupId,
    pub(crate) transfer: u64,
    /// Pieces are numbered from 0.
    pub(crate) number: u64,
    /// CRC-32C of the body, computed when it was read from the table.
    pub(crate) crc32c: u32,
    /// Set on the last one: what all pieces together hold.
    pub(crate) end: Option<SnapshotTotal>,
}

impl Method for SnapshotPiece {
    const ID: MethodId = MethodId(20);
    const NAME: &'static str = "replica.snapshot_piece";
    type Request = SnapshotPieceRequest;
    type Response = ();
}

/// Asks the leader to change the members.
pub(crate) struct ChangeMembership;

#[derive(Serialize, Deserialize)]
pub(crate) struct ChangeMembershipRequest {
    pub(crate) group: GroupId,
    pub(crate) change: MembershipChange,
    /// How long the leader may take.
    pub(crate) deadline_ms: u64,
}

impl Method for ChangeMembership {
    const ID: MethodId = MethodId(21);
    const NAME: &'static str = "replica.change_membership";
    type Request = ChangeMembershipRequest;
    type Response = ();
}

impl From<ProposeError> for RemoteError {
    fn from(error: ProposeError) -> Self {
        let code = match &error {
            ProposeError::NoLeader { .. } | ProposeError::Stopped { .. } => RemoteCode::Unavailable,
            ProposeError::NotLeader { .. } => RemoteCode::NotLeader,
            ProposeError::Overloaded { .. } | ProposeError::SessionsFull { .. } => {
                RemoteCode::Overloaded
            }
            ProposeError::Unknown { .. } => RemoteCode::DeadlineExceeded,
            ProposeError::TooLarge { .. } => RemoteCode::Invalid,
            ProposeError::SequenceTrimmed { .. } => RemoteCode::Stale,
            ProposeError::NotHosted { .. } => RemoteCode::NotFound,
        };
        Self::new(code, error.to_string()).with_detail(&error)
    }
}

impl From<ReadError> for RemoteError {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::NoLeader { .. }
            | ReadError::Behind { .. }
            | ReadError::StateLost { .. }
            | ReadError::Stopped { .. } => RemoteCode::Unavailable,
            ReadError::NotLeader { .. } => RemoteCode::NotLeader,
            ReadError::Overloaded { .. } => RemoteCode::Overloaded,
            ReadError::NotHosted { .. } => RemoteCode::NotFound,
        };
        Self::new(code, error.to_string()).with_detail(&error)
    }
}

impl From<ChangeError> for RemoteError {
    fn from(error: ChangeError) -> Self {
        let code = match &error {
            ChangeError::NoLeader { .. } | ChangeError::Stopped { .. } => RemoteCode::Unavailable,
            ChangeError::NotLeader { .. } => RemoteCode::NotLeader,
            ChangeError::Busy { .. } => RemoteCode::Conflict,
            ChangeError::Unfinished { .. } => RemoteCode::DeadlineExceeded,
            ChangeError::Refused { .. } => RemoteCode::Invalid,
            ChangeError::NotHosted { .. } => RemoteCode::NotFound,
        };
        Self::new(code, error.to_string()).with_detail(&error)
    }
}

/// Milliseconds of a duration, for the wire.
pub(crate) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Who leads, if an error says so.
pub(crate) fn leader_hint(error: &ProposeError) -> Option<NodeId> {
    match error {
        ProposeError::NotLeader { leader, .. } => *leader,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use onefold_raft::Body;
    use onefold_types::Term;

    use super::*;

    fn message(term: u64) -> Message {
        Message { term: Term(term), body: Body::TimeoutNow }
    }

    #[test]
    fn a_frame_carries_the_messages_of_many_groups_in_order() {
        let mut frame = Frame::default();
        for number in 0..5 {
            assert_eq!(frame.push(GroupId(number), &message(number)), None);
        }
        let bytes = frame.take();
        let read: Result<Vec<_>, _> = messages(&bytes).collect();
        let expected: Vec<_> = (0..5).map(|number| (GroupId(number), message(number))).collect();
        assert_eq!(read, Ok(expected));
        assert!(frame.take().is_empty(), "nothing is sent twice");
    }

    #[test]
    fn a_body_is_split_where_the_lengths_say_or_not_at_all() {
        let body = Bytes::from_static(b"onetwo");
        let split = |lengths: &[u64]| split_body(body.clone(), lengths.iter().copied());
        assert_eq!(split(&[3, 0, 3]), Some(vec!["one".into(), "".into(), "two".into()]));
        for wrong in [&[3][..], &[3, 4], &[7], &[u64::MAX, 7], &[]] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_beat_travels_and_anything_else_is_none() {
        let sent = Beat { process: u64::MAX, count: 1 };
        let payload = encode_beat(sent, 1 << 50);
        assert_eq!(beat(&payload), Some((sent, 1 << 50)));
        assert_eq!(beat(&payload[..payload.len() - 1]), None);
        assert_eq!(beat(&[9, 1, 1]), None);
        assert_eq!(beat(&[]), None);
    }

    #[test]
    fn a_damaged_frame_yields_its_good_beginning_and_one_error() {
        let mut frame = Frame::default();
        frame.push(GroupId(1), &message(1));
        frame.push(GroupId(2), &message(2));
        let bytes = frame.take();
        let read: Vec<_> = messages(&bytes[..bytes.len() - 1]).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], Ok((GroupId(1), message(1))));
        read[1].as_ref().expect_err("it is cut off");
        assert!(messages(&[9, 1, 2]).next().is_some_and(|first| first.is_err()));
        assert!(messages(&[]).next().is_none());
    }
}
