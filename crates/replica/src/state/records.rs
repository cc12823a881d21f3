//! What the host itself keeps in the table, and under which keys.
//!
//! ```text
//! group 8 │ 00                              root: which generation is the state
//!         │ 01 generation 4 │ 'h' 's'       applied index, time, membership, hash
//!         │                 │ 'h' …         sessions, see `sessions`
//!         │                 │ 'm' …         the state machine's own keys
//!         │ 02 generation 4                 how far a snapshot is staged, see `staging`
//! group 9 │ 03                              tombstone: the group was destroyed
//! ```
//!
//! A generation is one whole state of the group. A snapshot is staged as a further generation, and
//! installed by pointing the root at it: one small atomic write, whatever the size of the state. The
//! state machine never sees anything but the keys after its `m`.

use bytes::Bytes;
use onefold_raft::{Membership, SnapshotMark};
use onefold_table::{Space, View};
use onefold_types::{GroupId, LogIndex, Term, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Position, StateHash};
use crate::HostError;

/// The first byte of every record of the host.
const FORMAT: u8 = 2;

/// The key of the root in a group's space.
pub(crate) const ROOT: &[u8] = b"\x00";
/// In front of all generations.
pub(crate) const GENERATIONS: u8 = 1;
/// In front of the records of snapshots that are being staged.
pub(crate) const PROGRESS: u8 = 2;
/// The key that says that the group was destroyed.
pub(crate) const TOMBSTONE: &[u8] = b"\x03";
/// The host's part of a generation.
pub(crate) const HOST: &[u8] = b"h";
/// The state machine's part of a generation.
pub(crate) const MACHINE: &[u8] = b"m";
/// The key of the state record in the host's part.
pub(crate) const STATE: &[u8] = b"s";

/// Names one whole state of a group within its space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub(crate) u32);

impl Generation {
    /// What stands in front of its keys in the group's space.
    pub(crate) fn prefix(self) -> [u8; 5] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [GENERATIONS, a, b, c, d]
    }

    /// The one whose key in the group's space this is, or the key of its progress.
    pub(crate) fn of_key(key: &[u8]) -> Option<Self> {
        let [GENERATIONS | PROGRESS, a, b, c, d] = *key.first_chunk::<5>()? else { return None };
        Some(Self(u32::from_be_bytes([a, b, c, d])))
    }

    /// The next one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a group installs fewer than 2^32 snapshots"))
    }
}

/// Where a group's state is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// The members with which the group was formed.
    pub(crate) formed: Membership,
    /// The generation that is the state.
    pub(crate) current: Generation,
    /// The highest generation that was ever staged: no later one uses a number again.
    pub(crate) newest: Generation,
    /// The last snapshot that was installed. The log learns of it only after the table.
    pub(crate) installed: Option<SnapshotMark>,
}

/// How far a snapshot is staged. Written with each piece, and gone when the snapshot is the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// What the snapshot covers.
    pub(crate) mark: SnapshotMark,
    /// The export that its pieces come from.
    pub(crate) transfer: u64,
    /// Where the next piece begins.
    pub(crate) position: Position,
    /// Everything is there, verified.
    pub(crate) is_staged: bool,
}

impl Progress {
    /// Nothing is there yet.
    pub(crate) fn new(mark: SnapshotMark, transfer: u64) -> Self {
        Self { mark, transfer, position: Position::default(), is_staged: false }
    }
}

/// How far a generation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The last entry that was applied.
    pub(crate) applied: LogIndex,
    /// Its term.
    pub(crate) term: Term,
    /// Replicated time.
    pub(crate) time: Timestamp,
    /// The members as of that entry.
    pub(crate) membership: Membership,
    /// How many sessions there are.
    pub(crate) sessions: u64,
    /// Of everything that the entries did.
    pub(crate) hash: StateHash,
}

impl State {
    /// What a snapshot of this state covers.
    pub(crate) fn mark(&self) -> SnapshotMark {
        SnapshotMark { index: self.applied, term: self.term, membership: self.membership.clone() }
    }
}

/// A record's bytes.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let encoded = postcard::to_extend(record, vec![FORMAT]);
    encoded.expect("plain records serialize into memory").into()
}

/// A record from its bytes.
///
/// # Errors
/// When a newer program wrote it, or it is damaged.
pub(crate) fn decode<T: DeserializeOwned>(
    group: GroupId,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, HostError> {
    let undecodable = |reason| HostError::Undecodable { group, what, reason };
    match bytes.split_first() {
        Some((&FORMAT, record)) => {
            postcard::from_bytes(record).map_err(|error| undecodable(error.to_string()))
        }
        Some((format, _)) => Err(undecodable(wrong_format(*format, FORMAT))),
        None => Err(undecodable("it is empty".to_owned())),
    }
}

/// What is wrong with a format that this program does not read.
pub(super) fn wrong_format(found: u8, read: u8) -> String {
    if found == 0 || found > read {
        return format!("its format is {found}, and this program reads {read}");
    }
    format!(
        "its format is {found}, which no released version wrote, and this program reads {read}; \
         start with a new data folder"
    )
}

/// The part of a group's space that one generation fills.
pub(crate) fn generation_space(space: &Space, generation: Generation) -> Space {
    space.inner(&generation.prefix())
}

/// The root of a group, if the table has one.
///
/// # Errors
/// When the table can't be read or the record does not decode.
pub(crate) fn read_root(group: GroupId, space: &dyn View) -> Result<Option<Root>, HostError> {
    let found = space.get(ROOT)?;
    found.map(|bytes| decode(group, "the root record in the table", &bytes)).transpose()
}

/// The key under which it stands how far a generation is staged.
pub(crate) fn progress_key(generation: Generation) -> Bytes {
    let [_, number @ ..] = generation.prefix();
    Bytes::from([&[PROGRESS], &number[..]].concat())
}

/// How far a snapshot is staged.
///
/// # Errors
/// When the record does not decode.
pub(crate) fn read_progress(group: GroupId, record: &[u8]) -> Result<Progress, HostError> {
    decode(group, "the record of a staged snapshot in the table", record)
}

/// How far a generation is, read from a view of it; at the beginning if nothing was applied yet.
///
/// # Errors
/// When the table can't be read or the record does not decode.
pub(crate) fn read_state(group: GroupId, generation: &dyn View) -> Result<State, HostError> {
    let found = generation.get(&[HOST, STATE].concat())?;
    found.map_or_else(
        || Ok(State::default()),
        |bytes| decode(group, "the state record in the table", &bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_format_is_an_error_and_no_default() {
        let mut bytes = encode(&State { applied: LogIndex(3), ..State::default() }).to_vec();
        let state: State = decode(GroupId::KV, "state", &bytes).expect("it was just encoded");
        assert_eq!(state.applied, LogIndex(3));
        bytes[0] = FORMAT + 1;
        decode::<State>(GroupId::KV, "state", &bytes).expect_err("a newer format");
        bytes[0] = 1;
        let error = decode::<State>(GroupId::KV, "state", &bytes).expect_err("an older format");
        assert!(error.to_string().contains("new data folder"), "{error}");
        decode::<State>(GroupId::KV, "state", &[]).expect_err("no format");
        decode::<State>(GroupId::KV, "state", &[FORMAT]).expect_err("cut off");
    }

    #[test]
    fn generations_sort_by_number_and_apart_from_the_root() {
        let prefixes = [0, 1, 255, 256, u32::MAX].map(|number| Generation(number).prefix());
        assert!(prefixes.is_sorted());
        assert!(prefixes.iter().all(|prefix| ROOT < &prefix[..]));
    }
}
