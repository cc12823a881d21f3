//! The leader's book of leases: when each is over.
//!
//! Pure but for its lock: times come in, counted by one clock of the process that goes on while the
//! process does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onefold_types::Term;

use crate::LeaseId;
use crate::store::stored::StoredLease;

/// How often somebody looks at the book at least, as long as the process runs.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// When nobody has looked at the book for this long, the process or its machine did not run. That
/// time does not count against leases: their keep-alives could not arrive.
const STALL: Duration = Duration::from_millis(1200);

/// The least time that a lease has after a change of leader, if it was granted as much: enough for a
/// client to notice, to find the new leader and to renew.
const GRACE: Duration = Duration::from_secs(15);

/// When each lease is over. Kept by the leader alone, from the start of its term.
#[derive(Default)]
pub(super) struct Book {
    open: Mutex<Option<Open>>,
}

struct Open {
    term: Term,
    /// Whether every lease there is has been entered.
    complete: bool,
    /// Leases that ended before that: who reads the old ones may still have seen them.
    ended: BTreeSet<LeaseId>,
    clock: LeaseClock,
    /// How long a lease goes without a note of the time it has left.
    note_interval: Duration,
    leases: BTreeMap<LeaseId, Entry>,
    by_deadline: BTreeSet<(Duration, LeaseId)>,
    by_note: BTreeSet<(Duration, LeaseId)>,
}

struct Entry {
    ttl: Duration,
    /// By the clock of the leases, as are all times here.
    deadline: Duration,
    /// When the time that is left is to be noted in the log; nothing for a lease that is not worth it.
    note_at: Option<Duration>,
    /// The log may have a note of less time than the lease has when it is renewed.
    is_noted: bool,
}

/// The time that passes for leases since the term began: that in which this process runs.
struct LeaseClock {
    seen: Duration,
    passed: Duration,
    /// Time that did not count and was not told yet.
    lost: Duration,
}

impl LeaseClock {
    fn read(&mut self, now: Duration) -> Duration {
        let since = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        if since > STALL {
            self.lost += since - TICK;
            self.passed += TICK;
        } else {
            self.passed += since;
        }
        self.passed
    }
}

/// What the book says about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This node does not keep the book of this term, or not yet.
    Closed,
    /// No such lease, or its time is over.
    Over,
    /// The lease lives.
    Alive {
        /// The time that it has left.
        left: Duration,
        /// The log may have a note of less.
        is_noted: bool,
    },
}

impl Book {
    /// Begins a term's book: grants are entered from now on.
    pub(super) fn open(&self, term: Term, note_interval: Duration, now: Duration) {
        *self.lock() = Some(Open {
            term,
            complete: false,
            ended: BTreeSet::new(),
            clock: LeaseClock { seen: now, passed: Duration::ZERO, lost: Duration::ZERO },
            note_interval,
            leases: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            by_note: BTreeSet::new(),
        });
    }

    /// How many leases it has; none where another node leads.
    pub(super) fn count(&self) -> usize {
        self.lock().as_ref().map_or(0, |open| open.leases.len())
    }

    /// Ends the book: another node leads.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Enters the leases that were there before the term: each with the time that was last noted, or
    /// all of its time, and in any case with enough to be renewed.
    pub(super) fn complete(&self, leases: Vec<(LeaseId, StoredLease)>, now: Duration) {
        if let Some(open) = &mut *self.lock() {
            let now = open.clock.read(now);
            for (id, lease) in leases {
                if !open.leases.contains_key(&id) && !open.ended.contains(&id) {
                    let ttl = seconds(lease.ttl_seconds);
                    let is_noted = lease.left_seconds > 0;
                    let noted = if is_noted { seconds(lease.left_seconds) } else { ttl };
                    let left = noted.max(GRACE).min(ttl);
                    open.enter(id, ttl, left, is_noted, now);
                }
            }
            open.complete = true;
            open.ended.clear();
        }
    }

    /// Enters a new lease.
    pub(super) fn granted(&self, id: LeaseId, ttl_seconds: i64, now: Duration) {
        if let Some(open) = &mut *self.lock() {
            let now = open.clock.read(now);
            let ttl = seconds(ttl_seconds);
            open.enter(id, ttl, ttl, false, now);
        }
    }

    /// Strikes a lease out.
    pub(super) fn ended(&self, id: LeaseId) {
        if let Some(open) = &mut *self.lock() {
            open.strike(id);
            if !open.complete {
                open.ended.insert(id);
            }
        }
    }

    /// Gives a lease its full time again. One whose time is over gets none.
    ///
    /// When the answer says that less was noted, the note must be [cleared](Self::cleared) before anybody
    /// hears that the lease was renewed.
    pub(super) fn renew(&self, term: Term, id: LeaseId, now: Duration) -> Found {
        let mut book = self.lock();
        let Some(open) = book.as_mut().filter(|open| open.term == term && open.complete) else {
            return Found::Closed;
        };
        let now = open.clock.read(now);
        match open.leases.get(&id) {
            Some(entry) if now < entry.deadline => {
                let (ttl, is_noted) = (entry.ttl, entry.is_noted);
                open.enter(id, ttl, ttl, is_noted, now);
                Found::Alive { left: ttl, is_noted }
            }
            _ => Found::Over,
        }
    }

    /// The log has no note of the lease's time any more.
    pub(super) fn cleared(&self, term: Term, id: LeaseId) {
        let mut book = self.lock();
        let open = book.as_mut().filter(|open| open.term == term);
        if let Some(entry) = open.and_then(|open| open.leases.get_mut(&id)) {
            entry.is_noted = false;
        }
    }

    /// The time that a lease has left.
    pub(super) fn left(&self, term: Term, id: LeaseId, now: Duration) -> Found {
        let mut book = self.lock();
        let Some(open) = book.as_mut().filter(|open| open.term == term && open.complete) else {
            return Found::Closed;
        };
        let now = open.clock.read(now);
        match open.leases.get(&id) {
            Some(entry) if now < entry.deadline => {
                Found::Alive { left: entry.deadline - now, is_noted: entry.is_noted }
            }
            _ => Found::Over,
        }
    }

    /// The first leases, at most so many, whose time is over.
    pub(super) fn due(&self, now: Duration, count_max: usize) -> Vec<LeaseId> {
        let mut book = self.lock();
        let Some(open) = &mut *book else { return Vec::new() };
        let now = open.clock.read(now);
        let due = open.by_deadline.iter().take_while(|(deadline, _)| *deadline <= now);
        due.take(count_max).map(|(_, id)| *id).collect()
    }

    /// The first leases, at most so many, whose time is to be noted, with the seconds that they have
    /// left. They count as noted from now on.
    pub(super) fn to_note(&self, now: Duration, count_max: usize) -> Vec<(LeaseId, i64)> {
        let mut book = self.lock();
        let Some(open) = &mut *book else { return Vec::new() };
        let now = open.clock.read(now);
        let due = open.by_note.iter().take_while(|(at, _)| *at <= now).take(count_max);
        let due: Vec<_> = due.map(|(_, id)| *id).collect();
        due.into_iter().filter_map(|id| open.note(id, now)).collect()
    }

    /// Lets the time pass. Answers how much of it did not count since this was last asked.
    pub(super) fn tick(&self, now: Duration) -> Duration {
        let mut book = self.lock();
        let Some(open) = &mut *book else { return Duration::ZERO };
        open.clock.read(now);
        std::mem::take(&mut open.clock.lost)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // Nothing under the lock panics half-way through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn enter(&mut self, id: LeaseId, ttl: Duration, left: Duration, is_noted: bool, now: Duration) {
        self.strike(id);
        let deadline = now + left;
        let note_at = self.note_at(now, left);
        self.leases.insert(id, Entry { ttl, deadline, note_at, is_noted });
        self.by_deadline.insert((deadline, id));
        self.by_note.extend(note_at.map(|at| (at, id)));
    }

    fn strike(&mut self, id: LeaseId) {
        if let Some(entry) = self.leases.remove(&id) {
            self.by_deadline.remove(&(entry.deadline, id));
            if let Some(at) = entry.note_at {
                self.by_note.remove(&(at, id));
            }
        }
    }

    /// A lease that is over before the next note needs none.
    fn note_at(&self, now: Duration, left: Duration) -> Option<Duration> {
        (left > self.note_interval).then(|| now + self.note_interval)
    }

    fn note(&mut self, id: LeaseId, now: Duration) -> Option<(LeaseId, i64)> {
        let left = self.leases.get(&id)?.deadline.saturating_sub(now);
        let next = self.note_at(now, left);
        let entry = self.leases.get_mut(&id)?;
        entry.is_noted = true;
        let before = std::mem::replace(&mut entry.note_at, next);
        before.map(|at| self.by_note.remove(&(at, id)));
        self.by_note.extend(next.map(|at| (at, id)));
        // Rather a second more than one less; and zero would mean that nothing was noted.
        Some((id, i64::try_from(left.as_secs() + 1).unwrap_or(i64::MAX)))
    }
}

fn seconds(seconds: i64) -> Duration {
    // A granted time is positive.
    Duration::from_secs(seconds.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(3);
    const ID: LeaseId = LeaseId(7);
    const NOTE_INTERVAL: Duration = Duration::from_secs(60);

    /// A book, and a clock at which somebody looks all the time.
    struct Desk {
        book: Book,
        now: Duration,
    }

    impl Desk {
        fn with(leases: Vec<(LeaseId, StoredLease)>) -> Self {
            let desk = Self { book: Book::default(), now: Duration::from_secs(1000) };
            desk.book.open(TERM, NOTE_INTERVAL, desk.now);
            desk.book.complete(leases, desk.now);
            desk
        }

        fn with_lease(ttl_seconds: i64) -> Self {
            Self::with(vec![(ID, lease(ttl_seconds, 0))])
        }

        fn pass(&mut self, time_seconds: u64) {
            for _ in 0..time_seconds {
                self.now += Duration::from_secs(1);
                assert_eq!(self.book.tick(self.now), Duration::ZERO);
            }
        }

        /// The process does not run.
        fn stall(&mut self, time_seconds: u64) {
            self.now += Duration::from_secs(time_seconds);
        }

        fn renew(&self) -> Found {
            self.book.renew(TERM, ID, self.now)
        }

        fn left(&self) -> Found {
            self.book.left(TERM, ID, self.now)
        }

        fn due(&self) -> Vec<LeaseId> {
            self.book.due(self.now, 9)
        }

        fn to_note(&self) -> Vec<(LeaseId, i64)> {
            self.book.to_note(self.now, 9)
        }
    }

    fn lease(ttl_seconds: i64, left_seconds: i64) -> StoredLease {
        StoredLease { ttl_seconds, left_seconds }
    }

    fn alive(left_seconds: u64) -> Found {
        Found::Alive { left: Duration::from_secs(left_seconds), is_noted: false }
    }

    #[test]
    fn a_lease_is_over_after_its_time_unless_it_is_renewed() {
        let mut desk = Desk::with_lease(10);
        desk.pass(9);
        assert_eq!(desk.due(), []);
        assert_eq!(desk.renew(), alive(10));
        desk.pass(9);
        assert_eq!(desk.due(), []);
        desk.pass(1);
        assert_eq!(desk.due(), [ID]);
        assert_eq!(desk.renew(), Found::Over);
    }

    #[test]
    fn only_a_complete_book_of_the_term_answers() {
        let start = Duration::from_secs(1000);
        let book = Book::default();
        assert_eq!(book.renew(TERM, ID, start), Found::Closed);
        book.open(TERM, NOTE_INTERVAL, start);
        book.granted(ID, 10, start);
        assert_eq!(book.renew(TERM, ID, start), Found::Closed);
        book.complete(Vec::new(), start);
        assert_eq!(book.renew(TERM, ID, start), alive(10));
        assert_eq!(book.renew(TERM.next(), ID, start), Found::Closed);
        book.close();
        assert_eq!(book.left(TERM, ID, start), Found::Closed);
    }

    #[test]
    fn a_grant_during_the_reading_of_old_leases_keeps_its_deadline() {
        let start = Duration::from_secs(1000);
        let later = start + Duration::from_secs(1);
        let book = Book::default();
        book.open(TERM, NOTE_INTERVAL, start);
        book.granted(ID, 10, later);
        book.complete(vec![(ID, lease(10, 0))], start);
        assert_eq!(book.left(TERM, ID, later), alive(10));
    }

    #[test]
    fn a_lease_that_ends_during_the_reading_of_old_leases_stays_ended() {
        let start = Duration::from_secs(1000);
        let book = Book::default();
        book.open(TERM, NOTE_INTERVAL, start);
        book.ended(ID);
        book.complete(vec![(ID, lease(10, 0))], start);
        assert_eq!(book.renew(TERM, ID, start), Found::Over);
    }

    #[test]
    fn time_in_which_the_process_did_not_run_does_not_count() {
        let mut desk = Desk::with_lease(10);
        desk.pass(5);
        desk.stall(1000);
        assert_eq!(desk.due(), [], "nobody could renew meanwhile");
        assert_eq!(desk.book.tick(desk.now), Duration::from_secs(1000) - TICK);
        desk.pass(4);
        assert_eq!(desk.due(), []);
        desk.pass(1);
        assert_eq!(desk.due(), [ID]);
    }

    #[test]
    fn a_keep_alive_that_comes_first_after_a_stall_finds_the_lease() {
        let mut desk = Desk::with_lease(10);
        desk.stall(1000);
        assert_eq!(desk.renew(), alive(10));
        assert_eq!(desk.book.tick(desk.now), Duration::from_secs(1000) - TICK);
    }

    #[test]
    fn an_ended_lease_is_never_due() {
        let mut desk = Desk::with_lease(10);
        desk.book.ended(ID);
        desk.pass(100);
        assert_eq!((desk.due(), desk.to_note()), (vec![], vec![]));
    }

    #[test]
    fn the_time_of_a_long_lease_is_noted_now_and_then() {
        let mut desk = Desk::with_lease(150);
        desk.pass(59);
        assert_eq!(desk.to_note(), []);
        desk.pass(1);
        assert_eq!(desk.to_note(), [(ID, 91)]);
        assert_eq!(desk.to_note(), []);
        desk.pass(60);
        assert_eq!(desk.to_note(), [(ID, 31)]);
        desk.pass(20);
        assert_eq!(desk.to_note(), [], "it is over before the next one");
    }

    #[test]
    fn a_renewed_lease_says_that_less_was_noted_until_that_is_cleared() {
        let mut desk = Desk::with_lease(150);
        assert_eq!(desk.renew(), alive(150));
        desk.pass(60);
        assert_eq!(desk.to_note().len(), 1);
        let noted = Found::Alive { left: Duration::from_secs(150), is_noted: true };
        assert_eq!((desk.renew(), desk.renew()), (noted, noted));
        desk.book.cleared(TERM, ID);
        assert_eq!(desk.renew(), alive(150));
        desk.pass(59);
        assert_eq!(desk.to_note(), [], "the time begins anew");
    }

    #[test]
    fn a_new_leader_goes_on_from_what_was_noted_but_leaves_time_to_renew() {
        for (noted, left) in [(lease(1000, 300), 300), (lease(1000, 2), 15), (lease(8, 1), 8)] {
            let desk = Desk::with(vec![(ID, noted)]);
            let is_noted = true;
            let expected = Found::Alive { left: Duration::from_secs(left), is_noted };
            assert_eq!(desk.left(), expected, "{noted:?}");
        }
        assert_eq!(Desk::with_lease(1000).left(), alive(1000));
    }
}
