//! The store on a node that hosts its group: reads, watches, leases, compaction.
//!
//! ```text
//! KvStore ── Feed ──► hub   newest revisions, and who waits for them ──► LocalWatcher
//!                 ├─► book  the leader's deadlines of leases ◄── lessor
//!                 ├─► known users and roles ◄── auth
//!                 ├─► what compaction has left to remove ◄── sweeper
//!                 └─► how full it is and how much history there is ◄── upkeep
//! LocalKv ── propose, read ──► Group
//! ```
//!
//! [`attendant`] has the same without the tasks, for simulation.

pub(crate) mod attendant;
mod auth;
mod book;
mod errors;
mod hub;
mod kv;
mod lessor;
mod options;
mod sweeper;
mod upkeep;
mod watcher;
mod watching;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onefold_replica::{Group, Leadership};
use onefold_transport::Peers;
use onefold_types::{GroupId, Revision};
use tokio::sync::{Notify, RwLock, Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio::time::Instant;

use crate::limits::REQUEST_TIMEOUT;
use crate::store::auth::AuthState;
use crate::store::command::{Answer, Command, decode_outcome};
use crate::store::{LeaseChange, Observer, Position, Round};
use crate::{Caller, Header, KvError};
use auth::{Hasher, Known, Uses};
use book::Book;
use errors::from_propose;
use hub::Hub;

pub use options::{
    AutoCompaction, KvOptions, LEASE_CHECKPOINT_INTERVAL_DEFAULT, QUOTA_BYTES_DEFAULT,
    RETENTION_DEFAULT,
};
pub use upkeep::REVISIONS_KEPT_MIN;

/// Ranges over more than one key that a node reads at once for one keyspace. Further ones wait.
const RANGES_MAX: usize = 16;

/// Ranges with large answers that a node makes at once for one keyspace. Further ones wait.
const LARGE_RANGES_MAX: usize = 2;

/// Looks into history that a node takes at once for the watchers of one keyspace.
const HISTORY_LOOKS_MAX: usize = 4;

/// What a replica's store tells the node about: events for watchers, leases for the lessor. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    /// The clock by which leases live.
    clock: LeaseTime,
    hub: Arc<Hub>,
    book: Book,
    /// Written by who notes the time of leases in the log, read by who clears such notes.
    notes: RwLock<()>,
    auth: Known,
    sweep_is_due: AtomicBool,
    sweep_wake: Notify,
    position: Mutex<Position>,
    /// The store has become full.
    full: Notify,
    /// The newest revision that a client of this node was told, and the one that its replica has
    /// applied. The first is ahead when a follower hears of a commit after the leader's answer.
    told: AtomicU64,
    applied: AtomicU64,
    /// The oldest revision from which watches can begin.
    compacted: AtomicU64,
}

/// The time of one clock that goes on while the process does not run.
pub(crate) type LeaseTime = Box<dyn Fn() -> Duration + Send + Sync>;

impl Default for Shared {
    fn default() -> Self {
        let start = Instant::now();
        Self::with_clock(Box::new(move || start.elapsed()))
    }
}

impl Shared {
    fn with_clock(clock: LeaseTime) -> Self {
        Self {
            clock,
            hub: Arc::default(),
            book: Book::default(),
            notes: RwLock::default(),
            auth: Known::default(),
            sweep_is_due: AtomicBool::default(),
            sweep_wake: Notify::default(),
            position: Mutex::default(),
            full: Notify::default(),
            told: AtomicU64::default(),
            applied: AtomicU64::default(),
            compacted: AtomicU64::default(),
        }
    }

    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a client of this node knows of a revision.
    fn tell(&self, revision: Revision) {
        self.told.fetch_max(revision.get(), Ordering::AcqRel);
    }

    /// The newest revision that clients of this node know of.
    fn told(&self) -> Revision {
        Revision(self.told.load(Ordering::Acquire))
    }

    /// The revision that readers and new watches find.
    fn applied(&self) -> Revision {
        Revision(self.applied.load(Ordering::Acquire))
    }

    /// Forgets what clients know of beyond the replica, which does not hear of it.
    fn stop_waiting(&self) {
        self.told.store(self.applied.load(Ordering::Acquire), Ordering::Release);
    }

    /// Notes what readers and new watches find now.
    fn set_applied(&self, position: Position) {
        self.compacted.store(position.compacted.get(), Ordering::Release);
        self.applied.store(position.revision.get(), Ordering::Release);
    }

    /// The oldest revision from which watches can begin.
    fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    fn set_position(&self, position: Position) {
        let is_due = position.sweep_is_due;
        let was_due = self.sweep_is_due.swap(is_due, Ordering::AcqRel);
        if is_due && !was_due {
            self.sweep_wake.notify_one();
        }
        let mut current = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        if position.is_full && !current.is_full {
            self.full.notify_one();
        }
        *current = position;
    }
}

impl Observer for Feed {
    fn committed(&mut self, round: Round) {
        for change in round.leases {
            match change {
                LeaseChange::Granted { id, ttl_seconds } => {
                    self.shared.book.granted(id, ttl_seconds, self.shared.now());
                }
                LeaseChange::Ended(id) => self.shared.book.ended(id),
            }
        }
        if let Some(auth) = round.auth {
            // Before the revisions that watchers may no longer hear of.
            self.shared.auth.set(auth);
        }
        self.shared.set_position(round.position);
        self.shared.hub.publish(round.revisions, round.position.compacted);
        self.shared.set_applied(round.position);
    }

    fn restored(&mut self, position: Position, auth: &AuthState) {
        self.shared.auth.set(auth.clone());
        self.shared.set_position(position);
        self.shared.hub.restore(position.revision, position.compacted);
        self.shared.set_applied(position);
    }
}

/// A keyspace on a node that hosts its group. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct LocalKv {
    inner: Arc<Inner>,
    caller: Caller,
}

struct Inner {
    group: Group,
    leadership: watch::Receiver<Leadership>,
    peers: Peers,
    shared: Arc<Shared>,
    ranges: Arc<Semaphore>,
    large_ranges: Arc<Semaphore>,
    history_looks: Arc<Semaphore>,
    hasher: Hasher,
    token_uses: Uses,
    /// What the leader keeps the store within; nothing while that is not known.
    limits: watch::Sender<Option<KvOptions>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl LocalKv {
    /// Serves the keyspace of `group`, whose state machine is a [`KvStore`](crate::KvStore) made
    /// with the same `feed`. `peers` reaches the group's leader where only it can answer. Must be
    /// called in a tokio runtime.
    pub fn start(group: Group, feed: Feed, peers: Peers, options: KvOptions) -> Self {
        let kv = Self::start_unconfigured(group, feed, peers, options.lease_checkpoint_interval);
        kv.configure(options);
        kv
    }

    /// The same where it is not known yet what was chosen for the keyspace: until
    /// [`configure`](Self::configure) says so, its quota stays as it is and no history is given up.
    pub fn start_unconfigured(
        group: Group,
        feed: Feed,
        peers: Peers,
        note_interval: Duration,
    ) -> Self {
        let shared = feed.shared;
        let (limits, chosen) = watch::channel(None);
        let lessor = tokio::spawn(lessor::run(group.clone(), shared.clone(), note_interval));
        let sweeper = tokio::spawn(sweeper::run(group.clone(), shared.clone()));
        let upkeep = tokio::spawn(upkeep::run(group.clone(), shared.clone(), chosen));
        let tasks = [&lessor, &sweeper, &upkeep].map(JoinHandle::abort_handle).into();
        let inner = Inner {
            leadership: group.leadership(),
            group,
            peers,
            shared,
            ranges: Arc::new(Semaphore::new(RANGES_MAX)),
            large_ranges: Arc::new(Semaphore::new(LARGE_RANGES_MAX)),
            history_looks: Arc::new(Semaphore::new(HISTORY_LOOKS_MAX)),
            hasher: Hasher::default(),
            token_uses: Uses::default(),
            limits,
            tasks,
        };
        Self { inner: Arc::new(inner), caller: Caller::Trusted }
    }

    /// Has the leader keep the store within this from now on. How often the time of leases is noted
    /// stays as it was at the start.
    pub fn configure(&self, options: KvOptions) {
        self.inner.limits.send_if_modified(|current| {
            let is_new = *current != Some(options);
            *current = Some(options);
            is_new
        });
    }

    /// Watches that read from this replica now.
    pub fn watchers_here(&self) -> usize {
        self.inner.shared.hub.seats()
    }

    /// Leases that live, where this replica leads; 0 elsewhere.
    pub fn leases_here(&self) -> usize {
        self.inner.shared.book.count()
    }

    /// The same keyspace for this caller.
    pub(crate) fn for_caller(&self, caller: Caller) -> Self {
        Self { inner: self.inner.clone(), caller }
    }

    /// The group that holds the keyspace.
    pub fn group(&self) -> GroupId {
        self.inner.group.id()
    }
}

/// Where the store stands, as this replica knows it.
fn header(group: &Group, revision: Revision) -> Header {
    Header { revision, raft_term: group.leadership().borrow().term }
}

/// Has the store do what the leader finds to be done.
async fn propose(group: &Group, command: Command) -> Result<Answer, KvError> {
    let answer = group.propose(command.encode(), None, REQUEST_TIMEOUT).await;
    decode_outcome(&answer.map_err(from_propose)?)
}

/// Runs what may read much from the table where it stops nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KvError> + Send + 'static,
) -> Result<T, KvError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(KvError::Internal { reason: format!("a read did not end well: {error}") })
    })
}
