//! Where everything lies in the group's table.
//!
//! ```text
//! s                          the store's state: revision, compaction, lessor
//! c <key>                    the current version of a key
//! o <key, escaped> <!rev>    a superseded version, newest first; readable from rev up to its end
//! h <rev> <sub>              event log: what each operation of a revision did
//! l <lease>                  a lease
//! k <lease> <key>            a key attached to a lease
//! n <key>                    how many keys there are from this one on, up to the next such record
//! t                          when the store was at which revision
//! am                         the switch of authentication
//! au <name>                  a user
//! ar <name>                  a role
//! ```
//!
//! Numbers are big-endian, so that the table's order is theirs. Escaping lets a key stand in front
//! of a number without disturbing the order of keys: a zero byte becomes `00 ff`, the end is `00
//! 00`.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use onefold_table::{KeyRange, TableError};
use onefold_types::Revision;

use super::stored::damaged;
use crate::{KeySpan, LeaseId};

/// The key of the store's state.
pub(crate) const STATE: &[u8] = b"s";

/// The key of the samples of time.
pub(crate) const SAMPLES: &[u8] = b"t";

/// The key of the switch of authentication.
pub(crate) const AUTH_SWITCH: &[u8] = b"am";

const CURRENT: u8 = b'c';
const OLD: u8 = b'o';
const EVENT: u8 = b'h';
const LEASE: u8 = b'l';
const LEASE_KEY: u8 = b'k';
const BLOCK: u8 = b'n';
const USER: &[u8] = b"au";
const ROLE: &[u8] = b"ar";

/// Bytes of the key of a current version, beside the user's key.
pub(crate) const CURRENT_BYTES: usize = 1;
/// Bytes of the key of an event.
pub(crate) const EVENT_BYTES: usize = 13;
/// Bytes of the key of a lease, and of that of an attached key beside the user's key.
pub(crate) const LEASE_BYTES: usize = 9;

/// What an import writes, but for the store's state.
pub(crate) const KINDS_IMPORTED: [u8; 6] = [CURRENT, OLD, EVENT, LEASE, LEASE_KEY, BLOCK];

const ESCAPED_ZERO: [u8; 2] = [0, 0xff];
const ESCAPED_END: [u8; 2] = [0, 0];

/// The place of an event in the log of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventId {
    /// The revision.
    pub(crate) revision: Revision,
    /// The operation within the revision.
    pub(crate) sub: u32,
}

/// The current version of a key.
pub(crate) fn current(key: &[u8]) -> Bytes {
    tagged(CURRENT, key)
}

/// The current versions of a span of keys.
pub(crate) fn current_range(span: &KeySpan) -> KeyRange {
    let range = span.to_range();
    current_range_of(range.start, range.end)
}

/// The current versions of the keys between two bounds.
pub(crate) fn current_range_of(start: Bound<Bytes>, end: Bound<Bytes>) -> KeyRange {
    tagged_range(CURRENT, start, end)
}

/// The user's key in a key made by [`current`].
pub(crate) fn current_key(stored: &Bytes) -> Bytes {
    stored.slice(1..)
}

/// The version of `key` that `revision` wrote and a later one superseded.
pub(crate) fn old(key: &[u8], revision: Revision) -> Bytes {
    let mut stored = escaped(key);
    stored.put_u64(!revision.get());
    stored.freeze()
}

/// Bytes of a key made by [`old`].
pub(crate) fn old_bytes(key: &[u8]) -> usize {
    let zeros = key.iter().filter(|byte| **byte == 0).count();
    1 + key.len() + zeros + ESCAPED_END.len() + size_of::<Revision>()
}

/// The superseded versions of a key that `newest` or an earlier revision wrote, newest first.
pub(crate) fn old_of_key(key: &[u8], newest: Revision) -> KeyRange {
    let prefix = escaped(key).freeze();
    KeyRange { start: Bound::Included(old(key, newest)), end: KeyRange::prefix(&prefix).end }
}

/// The superseded versions of a span of keys.
pub(crate) fn old_range(span: &KeySpan) -> KeyRange {
    let range = span.to_range();
    let start = match range.start {
        Bound::Included(key) | Bound::Excluded(key) => escaped(&key).freeze(),
        Bound::Unbounded => Bytes::from_static(&[OLD]),
    };
    let end = match range.end {
        Bound::Included(key) => KeyRange::prefix(&escaped(&key)).end,
        Bound::Excluded(key) => Bound::Excluded(escaped(&key).freeze()),
        Bound::Unbounded => Bound::Excluded(Bytes::from_static(&[OLD + 1])),
    };
    KeyRange { start: Bound::Included(start), end }
}

/// Splits a key made by [`old`] into the escaped user key and the revision.
pub(crate) fn split_old(stored: &Bytes) -> Option<(Bytes, Revision)> {
    let at = stored.len().checked_sub(8)?;
    let revision = !u64::from_be_bytes(stored[at..].try_into().ok()?);
    (stored.first() == Some(&OLD)).then(|| (stored.slice(..at), Revision(revision)))
}

/// The user's key in an escaped one, as [`split_old`] gives it.
pub(crate) fn unescaped(escaped: &[u8]) -> Option<Bytes> {
    let inner = escaped.strip_prefix(&[OLD])?.strip_suffix(&ESCAPED_END)?;
    let mut key = BytesMut::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(&byte) = rest.next() {
        if byte == 0 && rest.next() != Some(&ESCAPED_ZERO[1]) {
            return None;
        }
        key.put_u8(byte);
    }
    Some(key.freeze())
}

/// The version that `revision` wrote of the key whose escaped form this is.
pub(crate) fn old_at_escaped(escaped: &[u8], revision: Revision) -> Bytes {
    let mut stored = BytesMut::with_capacity(escaped.len() + 8);
    stored.put_slice(escaped);
    stored.put_u64(!revision.get());
    stored.freeze()
}

/// The place after every version of the key whose escaped form this is.
pub(crate) fn after_escaped(escaped: &[u8]) -> Bound<Bytes> {
    KeyRange::prefix(escaped).end
}

/// An event.
pub(crate) fn event(id: EventId) -> Bytes {
    let mut stored = BytesMut::with_capacity(EVENT_BYTES);
    stored.put_u8(EVENT);
    stored.put_u64(id.revision.get());
    stored.put_u32(id.sub);
    stored.freeze()
}

/// The events from one on, through all of the last revision.
pub(crate) fn events(from: EventId, last: Revision) -> KeyRange {
    let end = EventId { revision: last, sub: u32::MAX };
    KeyRange { start: Bound::Included(event(from)), end: Bound::Included(event(end)) }
}

/// The place of an event, from its key.
pub(crate) fn event_id(stored: &[u8]) -> Option<EventId> {
    let (revision, sub) = stored.strip_prefix(&[EVENT])?.split_first_chunk::<8>()?;
    Some(EventId {
        revision: Revision(u64::from_be_bytes(*revision)),
        sub: u32::from_be_bytes(sub.try_into().ok()?),
    })
}

/// A lease.
pub(crate) fn lease(id: LeaseId) -> Bytes {
    tagged(LEASE, &lease_bytes(id))
}

/// All leases, by id.
pub(crate) fn leases() -> KeyRange {
    KeyRange::prefix(&[LEASE])
}

/// The id of a lease, from its key.
pub(crate) fn lease_id(stored: &[u8]) -> Option<LeaseId> {
    let bytes = stored.strip_prefix(&[LEASE])?.try_into().ok()?;
    Some(LeaseId(u64::from_be_bytes(bytes).cast_signed()))
}

/// The mark that `key` is attached to a lease.
pub(crate) fn lease_key(id: LeaseId, key: &[u8]) -> Bytes {
    let mut stored = BytesMut::with_capacity(LEASE_BYTES + key.len());
    stored.put_u8(LEASE_KEY);
    stored.put_slice(&lease_bytes(id));
    stored.put_slice(key);
    stored.freeze()
}

/// All keys attached to a lease, in order.
pub(crate) fn lease_keys(id: LeaseId) -> KeyRange {
    KeyRange::prefix(&lease_key(id, &[]))
}

/// The user's key in a key made by [`lease_key`].
pub(crate) fn attached_key(stored: &Bytes) -> Bytes {
    stored.slice(LEASE_BYTES..)
}

/// The block of keys that begins with this key.
pub(crate) fn block(first: &[u8]) -> Bytes {
    tagged(BLOCK, first)
}

/// The blocks whose first keys lie between two bounds.
pub(crate) fn blocks(start: Bound<Bytes>, end: Bound<Bytes>) -> KeyRange {
    tagged_range(BLOCK, start, end)
}

/// The first key of a block, from its record's key.
pub(crate) fn block_first(stored: &Bytes) -> Bytes {
    stored.slice(1..)
}

/// A user.
pub(crate) fn user(name: &str) -> Bytes {
    [USER, name.as_bytes()].concat().into()
}

/// All users, by name.
pub(crate) fn users() -> KeyRange {
    KeyRange::prefix(USER)
}

/// The name of a user, from its key.
pub(crate) fn user_name(stored: &[u8]) -> Result<String, TableError> {
    name(stored, USER).ok_or_else(|| damaged("a user's name"))
}

/// A role.
pub(crate) fn role(name: &str) -> Bytes {
    [ROLE, name.as_bytes()].concat().into()
}

/// All roles, by name.
pub(crate) fn roles() -> KeyRange {
    KeyRange::prefix(ROLE)
}

/// The name of a role, from its key.
pub(crate) fn role_name(stored: &[u8]) -> Result<String, TableError> {
    name(stored, ROLE).ok_or_else(|| damaged("a role's name"))
}

fn name(stored: &[u8], tag: &[u8]) -> Option<String> {
    String::from_utf8(stored.strip_prefix(tag)?.to_vec()).ok()
}

fn lease_bytes(id: LeaseId) -> [u8; 8] {
    id.0.cast_unsigned().to_be_bytes()
}

fn tagged(tag: u8, rest: &[u8]) -> Bytes {
    let mut stored = BytesMut::with_capacity(1 + rest.len());
    stored.put_u8(tag);
    stored.put_slice(rest);
    stored.freeze()
}

fn tagged_range(tag: u8, start: Bound<Bytes>, end: Bound<Bytes>) -> KeyRange {
    KeyRange {
        start: match start {
            Bound::Unbounded => Bound::Included(tagged(tag, &[])),
            bound => bound.map(|key| tagged(tag, &key)),
        },
        end: match end {
            Bound::Unbounded => Bound::Excluded(Bytes::copy_from_slice(&[tag + 1])),
            bound => bound.map(|key| tagged(tag, &key)),
        },
    }
}

/// `o`, the escaped key and its end; with room for a revision.
fn escaped(key: &[u8]) -> BytesMut {
    let mut stored = BytesMut::with_capacity(key.len() + 16);
    stored.put_u8(OLD);
    for part in key.split_inclusive(|byte| *byte == 0) {
        match part.split_last() {
            Some((0, before)) => {
                stored.put_slice(before);
                stored.put_slice(&ESCAPED_ZERO);
            }
            _ => stored.put_slice(part),
        }
    }
    stored.put_slice(&ESCAPED_END);
    stored
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user_key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 1..6)
    }

    proptest! {
        #[test]
        fn old_versions_sort_by_key_then_newest_first(
            a in user_key(), b in user_key(), at in any::<u64>(), bt in any::<u64>(),
        ) {
            let order = (&a, std::cmp::Reverse(at)).cmp(&(&b, std::cmp::Reverse(bt)));
            prop_assert_eq!(old(&a, Revision(at)).cmp(&old(&b, Revision(bt))), order);
        }

        #[test]
        fn an_old_versions_key_can_be_read_back(key in user_key(), revision in any::<u64>()) {
            let stored = old(&key, Revision(revision));
            let (escaped, found) = split_old(&stored).expect("made by old()");
            prop_assert_eq!(found, Revision(revision));
            prop_assert_eq!(old_bytes(&key), stored.len());
            prop_assert_eq!(unescaped(&escaped).expect("made by old()"), key);
        }

        #[test]
        fn ranges_hold_exactly_the_spans_keys(
            key in user_key(), end in proptest::option::of(user_key()), probe in user_key(),
        ) {
            let span = KeySpan::parse(&key.into(), &end.unwrap_or_default().into());
            let inside = span.contains(&probe);
            prop_assert_eq!(current_range(&span).contains(&current(&probe)), inside);
            for revision in [Revision(0), Revision(7), Revision(u64::MAX)] {
                prop_assert_eq!(old_range(&span).contains(&old(&probe, revision)), inside);
            }
        }

        #[test]
        fn a_keys_old_versions_begin_at_the_asked_revision(
            key in user_key(), other in user_key(), newest in any::<u64>(), at in any::<u64>(),
        ) {
            let range = old_of_key(&key, Revision(newest));
            let inside = key == other && at <= newest;
            prop_assert_eq!(range.contains(&old(&other, Revision(at))), inside);
        }
    }

    #[test]
    fn no_range_reaches_into_another_kind_of_record() {
        let everything = KeySpan::From(Bytes::from_static(&[0]));
        for range in [current_range(&everything), old_range(&everything), leases()] {
            for (kind, key) in [
                ("state", Bytes::from_static(STATE)),
                ("event", event(EventId { revision: Revision(u64::MAX), sub: u32::MAX })),
                ("lease key", lease_key(LeaseId(-1), b"x")),
                ("switch", Bytes::from_static(AUTH_SWITCH)),
                ("user", user("x")),
                ("role", role("x")),
            ] {
                assert!(!range.contains(&key), "{kind} in {range:?}");
            }
        }
        assert!(!current_range(&everything).contains(&old(b"k", Revision(1))));
        assert!(!old_range(&everything).contains(&current(b"k")));
    }
}
