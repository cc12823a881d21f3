//! The leader's book of leases: when each is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onefold_types::Term;
use tokio::time::Instant;

use crate::LeaseId;

/// When each lease is over. Kept by the leader alone, from the start of its term.
#[derive(Default)]
pub(super) struct Book {
    open: Mutex<Option<Open>>,
}

struct Open {
    term: Term,
    /// Whether every lease there is has been entered.
    complete: bool,
    leases: BTreeMap<LeaseId, Entry>,
    by_deadline: BTreeSet<(Instant, LeaseId)>,
}

struct Entry {
    ttl: Duration,
    deadline: Instant,
}

/// What the book says about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This node does not keep the book of this term, or not yet.
    Closed,
    /// No such lease, or its time is over.
    Over,
    /// The time that it has left.
    Left(Duration),
}

impl Book {
    /// Begins a term's book: grants are entered from now on.
    pub(super) fn open(&self, term: Term) {
        *self.lock() = Some(Open {
            term,
            complete: false,
            leases: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
        });
    }

    /// Ends the book: another node leads.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Enters the leases that were there before the term, each with its full time.
    pub(super) fn complete(&self, leases: Vec<(LeaseId, i64)>, now: Instant) {
        if let Some(open) = &mut *self.lock() {
            for (id, ttl_seconds) in leases {
                if !open.leases.contains_key(&id) {
                    open.enter(id, ttl(ttl_seconds), now);
                }
            }
            open.complete = true;
        }
    }

    /// Enters a new lease.
    pub(super) fn granted(&self, id: LeaseId, ttl_seconds: i64, now: Instant) {
        if let Some(open) = &mut *self.lock() {
            open.enter(id, ttl(ttl_seconds), now);
        }
    }

    /// Strikes a lease out.
    pub(super) fn ended(&self, id: LeaseId) {
        if let Some(open) = &mut *self.lock() {
            open.strike(id);
        }
    }

    /// Gives a lease its full time again. One whose time is over gets none.
    pub(super) fn renew(&self, term: Term, id: LeaseId, now: Instant) -> Found {
        let mut book = self.lock();
        let Some(open) = book.as_mut().filter(|open| open.term == term && open.complete) else {
            return Found::Closed;
        };
        match open.leases.get(&id) {
            Some(entry) if now < entry.deadline => {
                let ttl = entry.ttl;
                open.enter(id, ttl, now);
                Found::Left(ttl)
            }
            _ => Found::Over,
        }
    }

    /// The time that a lease has left.
    pub(super) fn left(&self, term: Term, id: LeaseId, now: Instant) -> Found {
        let book = self.lock();
        let Some(open) = book.as_ref().filter(|open| open.term == term && open.complete) else {
            return Found::Closed;
        };
        match open.leases.get(&id) {
            Some(entry) if now < entry.deadline => Found::Left(entry.deadline - now),
            _ => Found::Over,
        }
    }

    /// The first leases, at most so many, whose time is over.
    pub(super) fn due(&self, now: Instant, count_max: usize) -> Vec<LeaseId> {
        let book = self.lock();
        let due = book.iter().flat_map(|open| &open.by_deadline);
        due.take_while(|(deadline, _)| *deadline <= now)
            .take(count_max)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Gives every lease more time: for the time that this process did not run.
    pub(super) fn extend(&self, by: Duration) {
        if let Some(open) = &mut *self.lock() {
            for entry in open.leases.values_mut() {
                entry.deadline += by;
            }
            let leases = open.leases.iter();
            open.by_deadline = leases.map(|(id, entry)| (entry.deadline, *id)).collect();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // Nothing under the lock panics half-way through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn enter(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        self.strike(id);
        let deadline = now + ttl;
        self.leases.insert(id, Entry { ttl, deadline });
        self.by_deadline.insert((deadline, id));
    }

    fn strike(&mut self, id: LeaseId) {
        if let Some(entry) = self.leases.remove(&id) {
            self.by_deadline.remove(&(entry.deadline, id));
        }
    }
}

fn ttl(seconds: i64) -> Duration {
    // A granted time is positive.
    Duration::from_secs(seconds.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(3);
    const ID: LeaseId = LeaseId(7);

    fn book(now: Instant) -> Book {
        let book = Book::default();
        book.open(TERM);
        book.complete(vec![(ID, 10)], now);
        book
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_over_after_its_time_unless_it_is_renewed() {
        let start = Instant::now();
        let book = book(start);
        assert_eq!(book.due(start + seconds(9), 9), []);
        assert_eq!(book.renew(TERM, ID, start + seconds(9)), Found::Left(seconds(10)));
        assert_eq!(book.due(start + seconds(18), 9), []);
        assert_eq!(book.due(start + seconds(19), 9), [ID]);
        assert_eq!(book.renew(TERM, ID, start + seconds(19)), Found::Over);
    }

    #[test]
    fn only_a_complete_book_of_the_term_answers() {
        let start = Instant::now();
        let book = Book::default();
        assert_eq!(book.renew(TERM, ID, start), Found::Closed);
        book.open(TERM);
        book.granted(ID, 10, start);
        assert_eq!(book.renew(TERM, ID, start), Found::Closed);
        book.complete(Vec::new(), start);
        assert_eq!(book.renew(TERM, ID, start), Found::Left(seconds(10)));
        assert_eq!(book.renew(TERM.next(), ID, start), Found::Closed);
        book.close();
        assert_eq!(book.left(TERM, ID, start), Found::Closed);
    }

    #[test]
    fn a_grant_during_the_reading_of_old_leases_keeps_its_deadline() {
        let start = Instant::now();
        let book = Book::default();
        book.open(TERM);
        book.granted(ID, 10, start + seconds(5));
        book.complete(vec![(ID, 10)], start);
        assert_eq!(book.left(TERM, ID, start + seconds(5)), Found::Left(seconds(10)));
    }

    #[test]
    fn time_that_the_process_slept_does_not_count() {
        let start = Instant::now();
        let book = book(start);
        book.extend(seconds(100));
        assert_eq!(book.due(start + seconds(109), 9), []);
        assert_eq!(book.due(start + seconds(110), 9), [ID]);
    }

    #[test]
    fn an_ended_lease_is_never_due() {
        let start = Instant::now();
        let book = book(start);
        book.ended(ID);
        assert_eq!(book.due(start + seconds(100), 9), []);
    }
}
