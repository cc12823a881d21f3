//! What attends a replica's store, without the tasks that wait: for a simulated driver.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onefold_table::View;
use onefold_types::{Revision, Term};

pub use super::book::Found;
pub use super::watching::Watching;
use super::{Feed, KvOptions, Shared, upkeep};
use crate::store::auth::AuthState;
use crate::store::{Observer, Position, Round, check, lease};
use crate::{Event, KvError, KvStore, LeaseId, WatchRequest};

/// All that a revision changed.
pub type Change = (Revision, Vec<Event>);

/// What a replica's store tells its node, and what the node's tasks keep of it: the seats of watchers,
/// the leader's book of leases, what is left to do. [`LocalKv`](crate::LocalKv) runs the tasks; here
/// somebody else takes each of their steps.
#[derive(Clone)]
pub struct Attendant {
    shared: Arc<Shared>,
    committed: Arc<Mutex<Vec<Change>>>,
}

/// Keeps what was committed beside telling it.
struct Tee {
    feed: Feed,
    committed: Arc<Mutex<Vec<Change>>>,
}

impl Observer for Tee {
    fn committed(&mut self, round: Round) {
        let changes = round.revisions.iter().map(|it| (it.revision, it.events.clone()));
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
        self.feed.committed(round);
    }

    fn restored(&mut self, position: Position, auth: &AuthState) {
        self.feed.restored(position, auth);
    }
}

impl Attendant {
    /// `clock` tells the time of one clock, from wherever it began; watchers find so many of the newest
    /// revisions in memory.
    pub fn new(
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        ring_revisions_max: usize,
    ) -> Self {
        let shared = Shared::with_clock(Box::new(clock));
        shared.hub.keep_at_most(ring_revisions_max);
        Self { shared: Arc::new(shared), committed: Arc::default() }
    }

    /// The store that is attended.
    pub fn store(&self) -> KvStore {
        let feed = Feed { shared: self.shared.clone() };
        KvStore::with_observer(Box::new(Tee { feed, committed: self.committed.clone() }))
    }

    /// What was committed since this was last asked.
    pub fn take_committed(&self) -> Vec<Change> {
        std::mem::take(&mut self.committed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The oldest revision that can be read.
    pub fn compacted(&self) -> Revision {
        self.shared.position().compacted
    }

    /// Takes a seat for a watcher.
    ///
    /// # Errors
    /// What the request does wrong.
    pub fn watch(&self, request: WatchRequest, bytes_max: usize) -> Result<Watching, KvError> {
        check::watch(&request)?;
        let seat = self.shared.hub.sit(request.span(), request.from_revision);
        Ok(Watching::new(seat, request, bytes_max))
    }

    /// Begins the book of a term.
    pub fn lead(&self, term: Term, note_interval: Duration) {
        self.shared.book.open(term, note_interval, self.shared.now());
    }

    /// Enters the leases of before the term, once the term is announced in the log.
    ///
    /// # Errors
    /// When the view does not hold a store.
    pub fn complete(&self, view: &dyn View) -> Result<(), KvError> {
        self.shared.book.complete(lease::all(view)?, self.shared.now());
        Ok(())
    }

    /// Ends the book.
    pub fn follow(&self) {
        self.shared.book.close();
    }

    /// Lets the time pass in which the process runs.
    pub fn tick(&self) {
        self.shared.book.tick(self.shared.now());
    }

    /// Leases whose time is over.
    pub fn due(&self, count_max: usize) -> Vec<LeaseId> {
        self.shared.book.due(self.shared.now(), count_max)
    }

    /// Leases whose time is to be noted in the log, with the seconds that they have left.
    pub fn to_note(&self, count_max: usize) -> Vec<(LeaseId, i64)> {
        self.shared.book.to_note(self.shared.now(), count_max)
    }

    /// Gives a lease all of its time again.
    pub fn renew(&self, term: Term, id: LeaseId) -> Found {
        self.shared.book.renew(term, id, self.shared.now())
    }

    /// The time that a lease has left.
    pub fn left(&self, term: Term, id: LeaseId) -> Found {
        self.shared.book.left(term, id, self.shared.now())
    }

    /// The log has no note of a lease's time any more.
    pub fn cleared(&self, term: Term, id: LeaseId) {
        self.shared.book.cleared(term, id);
    }

    /// Strikes out a lease that the store does not know.
    pub fn ended(&self, id: LeaseId) {
        self.shared.book.ended(id);
    }

    /// Whether compacted history waits to be removed.
    pub fn is_sweep_due(&self) -> bool {
        self.shared.position().sweep_is_due
    }

    /// The command with which a leader keeps its store within what was chosen, at its tick of this
    /// number.
    pub fn upkeep(&self, options: &KvOptions, tick: u64) -> Option<Bytes> {
        upkeep::due(options, &self.shared.position(), tick).map(|command| command.encode())
    }
}
