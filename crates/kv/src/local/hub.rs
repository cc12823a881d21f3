//! The newest revisions in memory, and who waits for which keys.
//!
//! A watcher takes a seat. A commit marks the seats whose span it touches with the first revision
//! that they have not seen, and wakes them; that number is all that a slow watcher costs. A seat
//! takes its revisions from the ring of the newest ones, or hears that it must read the history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use onefold_types::Revision;
use tokio::sync::Notify;

use crate::store::{RevisionEvents, history};
use crate::{Event, KeySpan};

/// Most revisions in the ring.
const RING_REVISIONS_MAX: usize = 8192;

/// Most bytes of events in the ring. A revision larger than that is read from history.
const RING_BYTES_MAX: usize = 8 << 20;

/// What a seat has to look at next.
#[derive(Debug)]
pub(super) enum Taken {
    /// Nothing before this revision that it has not seen.
    Nothing,
    /// These revisions in order, some of which touch its span.
    Revisions(Vec<Arc<RevisionEvents>>),
    /// The ring does not reach back to this revision: read the history from there.
    History(Revision),
}

#[derive(Default)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest revision that was published.
    current: Revision,
    /// The oldest revision that can be read.
    compacted: Revision,
    ring: VecDeque<(Arc<RevisionEvents>, usize)>,
    ring_bytes: usize,
    /// The bound, if it is not [`RING_REVISIONS_MAX`].
    ring_revisions_max: Option<usize>,
    seats: BTreeMap<u64, Entry>,
    seats_given: u64,
    /// Seats for one key.
    by_key: BTreeMap<Bytes, Vec<u64>>,
    /// Seats for more than one key.
    by_span: BTreeMap<u64, KeySpan>,
}

struct Entry {
    /// Everything before this revision is unwanted or was taken. It can be beyond what is out: a
    /// look into history sees a revision a moment before it is published.
    from: Revision,
    /// The first revision out that may touch the span and was not taken; never before `from`.
    unseen: Option<Revision>,
    /// Wants what is compacted: the ring may have it still, but the history says that it is gone.
    is_too_late: bool,
    wake: Arc<Notify>,
}

impl Hub {
    /// The newest revision whose events are out.
    pub(super) fn current(&self) -> Revision {
        self.lock().current
    }

    /// Keeps no more than so many revisions in memory from now on.
    pub(super) fn keep_at_most(&self, revisions_max: usize) {
        self.lock().ring_revisions_max = Some(revisions_max);
    }

    /// How many seats are taken.
    pub(super) fn seats(&self) -> usize {
        self.lock().seats.len()
    }

    /// Hands out what was committed, in order.
    ///
    /// Who is seated gets what is compacted now from the ring if that has it; who comes later does
    /// not.
    pub(super) fn publish(&self, revisions: Vec<RevisionEvents>, compacted: Revision) {
        let mut state = self.lock();
        state.compacted = compacted;
        for revision in revisions {
            debug_assert!(revision.revision == state.current.next(), "revisions have no gaps");
            state.current = revision.revision;
            state.mark(&revision);
            state.keep(revision);
        }
    }

    /// The store is another one now, up to `current`: everybody reads the history.
    pub(super) fn restore(&self, current: Revision, compacted: Revision) {
        let mut state = self.lock();
        state.compacted = compacted;
        let from = state.current.next();
        state.ring.clear();
        state.ring_bytes = 0;
        state.current = current;
        for entry in state.seats.values_mut() {
            let from = from.max(entry.from);
            if from <= current {
                entry.see(from);
            }
        }
    }

    /// Takes a seat for a span, from a revision on; zero means from the next one on.
    pub(super) fn sit(self: &Arc<Self>, span: KeySpan, from: Revision) -> Seat {
        let mut state = self.lock();
        let next = state.current.next();
        let from = if from == Revision::ZERO { next } else { from };
        let id = state.seats_given;
        state.seats_given += 1;
        let wake = Arc::new(Notify::new());
        let unseen = (from < next).then_some(from);
        let is_too_late = from < state.compacted;
        state.seats.insert(id, Entry { from, unseen, is_too_late, wake: wake.clone() });
        match &span {
            KeySpan::One(key) => state.by_key.entry(key.clone()).or_default().push(id),
            _ => drop(state.by_span.insert(id, span.clone())),
        }
        Seat { hub: self.clone(), id, span, wake }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Marks the seats that a revision touches.
    fn mark(&mut self, revision: &RevisionEvents) {
        for event in &revision.events {
            let key = &event.kv.key;
            let at_key = self.by_key.get(key).into_iter().flatten();
            let at_span = self.by_span.iter().filter(|(_, span)| span.contains(key));
            for id in at_key.chain(at_span.map(|(id, _)| id)) {
                if let Some(entry) = self.seats.get_mut(id) {
                    entry.see(revision.revision);
                }
            }
        }
    }

    fn keep(&mut self, mut revision: RevisionEvents) {
        let bytes = revision.events.iter().map(history::size).sum();
        if bytes <= RING_BYTES_MAX {
            revision.events.iter_mut().for_each(detach);
        }
        self.ring.push_back((Arc::new(revision), bytes));
        self.ring_bytes += bytes;
        let revisions_max = self.ring_revisions_max.unwrap_or(RING_REVISIONS_MAX);
        while self.ring.len() > revisions_max || self.ring_bytes > RING_BYTES_MAX {
            let Some((_, bytes)) = self.ring.pop_front() else { break };
            self.ring_bytes -= bytes;
        }
    }

    /// The oldest revision from which on the ring has them all.
    fn ring_start(&self) -> Revision {
        self.ring.front().map_or(self.current.next(), |(first, _)| first.revision)
    }
}

/// Copies what an event shares with the table: a small value can hold a whole block of it, which
/// the ring's bound does not count.
fn detach(event: &mut Event) {
    let copy = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    if let Some(previous) = &mut event.prev_kv {
        copy(&mut previous.key);
        copy(&mut previous.value);
        event.kv.key = previous.key.clone();
    }
}

impl Entry {
    fn see(&mut self, revision: Revision) {
        if self.unseen.is_none() && self.from <= revision {
            self.unseen = Some(revision);
            self.wake.notify_one();
        }
    }
}

/// A watcher's place at the hub, given up when it is dropped.
pub(super) struct Seat {
    hub: Arc<Hub>,
    id: u64,
    span: KeySpan,
    wake: Arc<Notify>,
}

impl Seat {
    /// The span.
    pub(super) fn span(&self) -> &KeySpan {
        &self.span
    }

    /// The newest revision that is out.
    pub(super) fn current(&self) -> Revision {
        self.hub.current()
    }

    /// Waits until there may be something to take.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// The next revisions of about `bytes_max` bytes; they count as seen.
    pub(super) fn take(&self, bytes_max: usize) -> Taken {
        let mut state = self.hub.lock();
        let Some(entry) = state.seats.get(&self.id) else { return Taken::Nothing };
        let Some(start) = entry.unseen else { return Taken::Nothing };
        let ring_start = state.ring_start();
        if start < ring_start || entry.is_too_late {
            return Taken::History(start);
        }
        let mut revisions = Vec::new();
        let mut next = start;
        let mut room = bytes_max;
        let skip = usize::try_from(start.get() - ring_start.get()).unwrap_or(usize::MAX);
        for (revision, bytes) in state.ring.iter().skip(skip) {
            if !revisions.is_empty() && *bytes > room {
                break;
            }
            room = room.saturating_sub(*bytes);
            next = revision.revision.next();
            revisions.push(revision.clone());
        }
        state.saw(self.id, next);
        Taken::Revisions(revisions)
    }

    /// Everything before `next` was read from history.
    pub(super) fn saw(&self, next: Revision) {
        self.hub.lock().saw(self.id, next);
    }

    /// Everything that touches the span before this revision was taken.
    pub(super) fn next(&self) -> Revision {
        let state = self.hub.lock();
        let nothing = state.current.next();
        let entry = state.seats.get(&self.id);
        entry.map_or(nothing, |entry| entry.unseen.unwrap_or(nothing.max(entry.from)))
    }
}

impl State {
    fn saw(&mut self, id: u64, next: Revision) {
        let unseen = (next <= self.current).then_some(next);
        if let Some(entry) = self.seats.get_mut(&id) {
            entry.from = next;
            entry.unseen = unseen;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.seats.remove(&self.id);
        state.by_span.remove(&self.id);
        if let KeySpan::One(key) = &self.span
            && let Some(ids) = state.by_key.get_mut(key)
        {
            ids.retain(|id| *id != self.id);
            if ids.is_empty() {
                state.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventKind, KeyValue};

    fn put(revision: u64, key: &'static str, value_bytes: usize) -> RevisionEvents {
        let revision = Revision(revision);
        let kv = KeyValue {
            key: key.into(),
            mod_revision: revision,
            value: vec![0; value_bytes].into(),
            ..KeyValue::default()
        };
        let events = vec![Event { kind: EventKind::Put, kv, prev_kv: None }];
        RevisionEvents { revision, events }
    }

    fn hub_at(revision: u64) -> Arc<Hub> {
        let hub = Arc::new(Hub::default());
        hub.restore(Revision(revision), Revision::ZERO);
        hub
    }

    fn taken(seat: &Seat) -> Vec<u64> {
        match seat.take(usize::MAX) {
            Taken::Revisions(revisions) => {
                revisions.iter().map(|revision| revision.revision.get()).collect()
            }
            other => panic!("expected revisions, got {other:?}"),
        }
    }

    #[test]
    fn a_seat_hears_of_its_span_only() {
        let hub = hub_at(1);
        let one = hub.sit(KeySpan::One("a".into()), Revision::ZERO);
        let from = hub.sit(KeySpan::From("b".into()), Revision::ZERO);
        hub.publish(vec![put(2, "a", 0)], Revision::ZERO);
        assert_eq!(taken(&one), [2]);
        assert!(matches!(from.take(usize::MAX), Taken::Nothing));
        assert_eq!(from.next(), Revision(3), "the bookmark moves on without events");
        hub.publish(vec![put(3, "c", 0)], Revision::ZERO);
        assert!(matches!(one.take(usize::MAX), Taken::Nothing));
        assert_eq!(taken(&from), [3]);
    }

    #[test]
    fn a_seat_in_the_past_reads_history_and_then_the_ring() {
        let hub = hub_at(10);
        let seat = hub.sit(KeySpan::From("a".into()), Revision(4));
        assert!(matches!(seat.take(usize::MAX), Taken::History(Revision(4))));
        hub.publish(vec![put(11, "a", 0)], Revision::ZERO);
        seat.saw(Revision(11));
        assert_eq!(taken(&seat), [11]);
        assert!(matches!(seat.take(usize::MAX), Taken::Nothing));
    }

    #[test]
    fn what_history_told_before_it_was_published_is_not_told_again() {
        let hub = hub_at(10);
        let seat = hub.sit(KeySpan::From("a".into()), Revision(4));
        seat.saw(Revision(12));
        hub.publish(vec![put(11, "a", 0)], Revision::ZERO);
        assert!(matches!(seat.take(usize::MAX), Taken::Nothing));
        assert_eq!(seat.next(), Revision(12));
        hub.publish(vec![put(12, "a", 0)], Revision::ZERO);
        assert_eq!(taken(&seat), [12]);
    }

    #[test]
    fn a_seat_in_the_future_skips_what_is_before() {
        let hub = hub_at(1);
        let seat = hub.sit(KeySpan::One("a".into()), Revision(4));
        for revision in 2..=4 {
            hub.publish(vec![put(revision, "a", 0)], Revision::ZERO);
        }
        assert_eq!(taken(&seat), [4]);
    }

    #[test]
    fn a_slow_seat_costs_no_ring() {
        let hub = hub_at(1);
        let seat = hub.sit(KeySpan::One("a".into()), Revision::ZERO);
        for revision in 2..40 {
            hub.publish(vec![put(revision, "a", RING_BYTES_MAX / 8)], Revision::ZERO);
        }
        assert!(hub.lock().ring_bytes <= RING_BYTES_MAX);
        assert!(matches!(seat.take(usize::MAX), Taken::History(Revision(2))));
    }

    #[test]
    fn only_who_comes_after_a_compaction_is_too_late() {
        let hub = hub_at(1);
        let seated = hub.sit(KeySpan::One("a".into()), Revision::ZERO);
        hub.publish(vec![put(2, "a", 0), put(3, "a", 0)], Revision(3));
        let late = hub.sit(KeySpan::One("a".into()), Revision(2));
        assert_eq!(taken(&seated), [2, 3]);
        assert!(matches!(late.take(usize::MAX), Taken::History(Revision(2))));
        let in_time = hub.sit(KeySpan::One("a".into()), Revision(3));
        assert_eq!(taken(&in_time), [3]);
    }

    #[test]
    fn a_restored_store_sends_everybody_to_the_history() {
        let hub = hub_at(5);
        let seat = hub.sit(KeySpan::One("a".into()), Revision::ZERO);
        hub.restore(Revision(9), Revision::ZERO);
        assert!(matches!(seat.take(usize::MAX), Taken::History(Revision(6))));
    }

    #[test]
    fn a_dropped_seat_leaves_nothing_behind() {
        let hub = hub_at(1);
        drop(hub.sit(KeySpan::One("a".into()), Revision::ZERO));
        drop(hub.sit(KeySpan::From("a".into()), Revision::ZERO));
        let state = hub.lock();
        assert!(state.seats.is_empty() && state.by_key.is_empty() && state.by_span.is_empty());
    }
}
