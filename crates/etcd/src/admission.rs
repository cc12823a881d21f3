//! How much may be in work at once: what is beyond is refused at once instead of piling up.
//!
//! While there is much room, everybody may use it. When half of it is taken, a client may have its share
//! of the other half only, so that one that sends whatever it can does not stop the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::errors;

/// Most bytes of requests in work, where each counts at least [`REQUEST_COST_BYTES_MIN`].
const REQUEST_BYTES_IN_WORK_MAX: usize = 256 << 20;

/// What a request costs beside its own bytes.
const REQUEST_COST_BYTES_MIN: usize = 16 << 10;

/// Most watches on all streams together.
const WATCHES_MAX: usize = 1_000_000;

/// Snapshots that are written or sent at once.
const SNAPSHOTS_MAX: usize = 2;

/// Most ranges that are streamed at once: each holds a part of its answer for as long as the client
/// takes.
const RANGE_STREAMS_MAX: usize = 256;

/// Hands out permits for requests, watches, snapshots and streamed ranges.
#[derive(Clone)]
pub(crate) struct Admission {
    requests: Arc<Budget>,
    watches: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    range_streams: Arc<Semaphore>,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            requests: Arc::new(Budget::new(REQUEST_BYTES_IN_WORK_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            range_streams: Arc::new(Semaphore::new(RANGE_STREAMS_MAX)),
        }
    }

    /// Lets a request of so many bytes in, until the permit is dropped. `client` is the other end of the
    /// connection.
    pub(crate) fn request(
        &self,
        client: Option<SocketAddr>,
        bytes: usize,
    ) -> Result<Permit, Status> {
        let cost = REQUEST_COST_BYTES_MIN.saturating_add(bytes);
        self.requests.take(client, cost).ok_or_else(errors::too_many_requests)
    }

    /// Lets a range be streamed, until the permit is dropped.
    pub(crate) fn range_stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.range_streams).try_acquire_owned();
        permit.map_err(|_| errors::too_many_requests())
    }

    /// How many watches are in.
    pub(crate) fn watches_open(&self) -> usize {
        WATCHES_MAX - self.watches.available_permits()
    }

    /// Lets a watch in, until the permit is dropped; `None` when there are too many.
    pub(crate) fn watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().ok()
    }

    /// Lets a snapshot be made, until the permit is dropped.
    pub(crate) fn snapshot(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.snapshots).try_acquire_owned();
        permit.map_err(|_| errors::too_many_requests())
    }
}

/// Bytes that clients share.
struct Budget {
    bytes_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    /// Of the clients that have taken any. One without an address shares with the others like it.
    by_client: BTreeMap<Option<SocketAddr>, usize>,
}

impl Budget {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, taken: Mutex::default() }
    }

    fn take(self: &Arc<Self>, client: Option<SocketAddr>, cost: usize) -> Option<Permit> {
        let mut taken = self.lock();
        let own = taken.by_client.get(&client).copied().unwrap_or(0);
        let clients = taken.by_client.len() + usize::from(own == 0);
        let free = self.bytes_max / 2;
        let is_within = taken.bytes.saturating_add(cost) <= self.bytes_max;
        let is_quiet = taken.bytes.saturating_add(cost) <= free;
        // Who has nothing in work may have something, however little a share is.
        let is_fair = own == 0 || own.saturating_add(cost) <= free / clients;
        if !is_within || !(is_quiet || is_fair) {
            return None;
        }
        taken.bytes += cost;
        *taken.by_client.entry(client).or_default() += cost;
        Some(Permit { budget: Arc::clone(self), client, cost })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing under the lock panics half-way through a change.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's bytes of a budget, given back when it is dropped.
pub(crate) struct Permit {
    budget: Arc<Budget>,
    client: Option<SocketAddr>,
    cost: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.budget.lock();
        taken.bytes -= self.cost;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= self.cost;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn client(port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Takes requests in for as long as they are admitted.
    fn greedy(admission: &Admission, from: Option<SocketAddr>) -> Vec<Permit> {
        std::iter::from_fn(|| admission.request(from, 0).ok()).collect()
    }

    #[test]
    fn requests_are_refused_once_too_many_bytes_are_in_work() {
        let admission = Admission::new();
        let large = REQUEST_BYTES_IN_WORK_MAX - REQUEST_COST_BYTES_MIN;
        let permit = admission.request(client(1), large).expect("the first has all the room");
        let refused = admission.request(client(2), 0).err().expect("nothing is left");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "etcdserver: too many requests");
        drop(permit);
        assert!(admission.request(client(2), 0).is_ok());
        assert!(admission.requests.lock().by_client.is_empty());
    }

    #[test]
    fn a_greedy_client_leaves_room_for_polite_ones() {
        let admission = Admission::new();
        let greedy_permits = greedy(&admission, client(1));
        let half = REQUEST_BYTES_IN_WORK_MAX / REQUEST_COST_BYTES_MIN / 2;
        assert_eq!(greedy_permits.len(), half, "alone it has half of the room");
        let polite: Vec<_> =
            (2..1000).map(|port| admission.request(client(port), 0).map(|_| ())).collect();
        assert!(polite.iter().all(Result::is_ok));
        assert!(admission.request(client(1), 0).is_err(), "it has more than its share");
    }

    #[test]
    fn greedy_clients_share_what_is_left_evenly() {
        let admission = Admission::new();
        let first = greedy(&admission, client(1));
        let second = greedy(&admission, client(2));
        let third = greedy(&admission, client(3));
        assert!(first.len() > second.len() && second.len() > third.len() && third.len() > 1000);
        assert!(admission.request(client(4), 0).is_ok(), "there is always room for a new one");
    }
}
