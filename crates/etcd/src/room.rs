//! What the keyspaces of a node share when they serve their clients.
//!
//! The rule is that of [`onefold_types::share`]: a keyspace may hold as much as is still free. A busy
//! one gets half of the room and is refused then, while a quiet one beside it always finds some.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onefold_types::share;

/// Most bytes of requests of all keyspaces in work, twice what one of them alone may have.
const REQUEST_BYTES_IN_WORK_MAX: usize = 512 << 20;

/// Most watches of all keyspaces.
const WATCHES_MAX: usize = 2_000_000;

/// Snapshots of all keyspaces that are written or sent at once.
const SNAPSHOTS_MAX: usize = 4;

/// Most ranges of all keyspaces that are streamed at once.
const RANGE_STREAMS_MAX: usize = 512;

/// The room that a node has for the requests of all its keyspaces. Cheap to clone; clones are the same
/// room.
#[derive(Clone)]
pub struct Room {
    pub(crate) request_bytes: Pool,
    pub(crate) watches: Pool,
    pub(crate) snapshots: Pool,
    pub(crate) range_streams: Pool,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            request_bytes: Pool::new(REQUEST_BYTES_IN_WORK_MAX),
            watches: Pool::new(WATCHES_MAX),
            snapshots: Pool::new(SNAPSHOTS_MAX),
            range_streams: Pool::new(RANGE_STREAMS_MAX),
        }
    }
}

/// A number of things of one kind.
#[derive(Clone)]
pub(crate) struct Pool {
    total: Arc<AtomicUsize>,
    total_max: usize,
}

impl Pool {
    fn new(total_max: usize) -> Self {
        Self { total: Arc::default(), total_max }
    }

    /// The part of one keyspace, which has taken nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { pool: self.clone(), own: Arc::default() }
    }
}

/// What one keyspace has of a pool.
#[derive(Clone)]
pub(crate) struct Share {
    pool: Pool,
    own: Arc<AtomicUsize>,
}

impl Share {
    /// Takes some, until what it answers is dropped; `None` when the keyspace has its share.
    pub(crate) fn take(&self, count: usize) -> Option<Taken> {
        // Counted first, so that two that take at once see each other.
        let own = self.own.fetch_add(count, Ordering::Relaxed);
        let fits = |total: usize| {
            share::allows(own, count, total, self.pool.total_max).then(|| total + count)
        };
        let taken = self.pool.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if taken.is_err() {
            self.own.fetch_sub(count, Ordering::Relaxed);
            return None;
        }
        Some(Taken { share: self.clone(), count })
    }

    /// How much the keyspace has.
    pub(crate) fn taken(&self) -> usize {
        self.own.load(Ordering::Relaxed)
    }
}

/// Something of a pool, given back when it is dropped.
pub(crate) struct Taken {
    share: Share,
    count: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.share.own.fetch_sub(self.count, Ordering::Relaxed);
        self.share.pool.total.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_keyspace_gets_half_and_a_quiet_one_finds_room() {
        let pool = Pool::new(100);
        let (busy, quiet) = (pool.share(), pool.share());
        let held: Vec<_> = std::iter::from_fn(|| busy.take(1)).collect();
        assert_eq!((held.len(), busy.taken()), (50, 50));
        let some = quiet.take(25).expect("as much as is still free");
        assert!(quiet.take(1).is_none(), "25 are left, and it has as many");
        drop(held);
        assert_eq!(busy.taken(), 0);
        assert!(quiet.take(25).is_some());
        drop(some);
        assert_eq!((quiet.taken(), pool.total.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_was_refused_was_not_taken() {
        let share = Pool::new(10).share();
        assert!(share.take(11).is_none());
        assert_eq!(share.taken(), 0);
        assert!(share.take(10).is_some());
    }
}
