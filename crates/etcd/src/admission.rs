//! How much of one keyspace may be in work at once: what is beyond is refused at once instead of
//! piling up.
//!
//! What all keyspaces of the node have together is bounded by a [`Room`]. Within the keyspace: while there is much room, everybody may use it. When half of it is taken, a client may have its share
//! of the other half only, so that one that sends whatever it can does not stop the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;

use crate::errors;
use crate::room::{Room, Share, Taken};

/// Most bytes of a keyspace's requests in work, where each counts at least [`REQUEST_COST_BYTES_MIN`].
const REQUEST_BYTES_IN_WORK_MAX: usize = 256 << 20;

/// What a request costs beside its own bytes.
const REQUEST_COST_BYTES_MIN: usize = 16 << 10;

/// Hands out permits for requests, watches, snapshots and streamed ranges.
#[derive(Clone)]
pub(crate) struct Admission {
    requests: Arc<Budget>,
    watches: Share,
    snapshots: Share,
    /// Each holds a part of its answer for as long as the client takes.
    range_streams: Share,
}

impl Admission {
    /// For one of the keyspaces that share the room.
    pub(crate) fn new(room: &Room) -> Self {
        let share = room.request_bytes.share();
        Self {
            requests: Arc::new(Budget::new(REQUEST_BYTES_IN_WORK_MAX, share)),
            watches: room.watches.share(),
            snapshots: room.snapshots.share(),
            range_streams: room.range_streams.share(),
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
    pub(crate) fn range_stream(&self) -> Result<Taken, Status> {
        self.range_streams.take(1).ok_or_else(errors::too_many_requests)
    }

    /// How many watches are in.
    pub(crate) fn watches_open(&self) -> usize {
        self.watches.taken()
    }

    /// Lets a watch in, until the permit is dropped; `None` when there are too many.
    pub(crate) fn watch(&self) -> Option<Taken> {
        self.watches.take(1)
    }

    /// Lets a snapshot be made, until the permit is dropped.
    pub(crate) fn snapshot(&self) -> Result<Taken, Status> {
        self.snapshots.take(1).ok_or_else(errors::too_many_requests)
    }
}

/// Bytes that clients share.
struct Budget {
    bytes_max: usize,
    share: Share,
    taken: Mutex<ByClient>,
}

#[derive(Default)]
struct ByClient {
    bytes: usize,
    /// Of the clients that have taken any. One without an address shares with the others like it.
    by_client: BTreeMap<Option<SocketAddr>, usize>,
}

impl Budget {
    fn new(bytes_max: usize, share: Share) -> Self {
        Self { bytes_max, share, taken: Mutex::default() }
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
        let of_node = self.share.take(cost)?;
        taken.bytes += cost;
        *taken.by_client.entry(client).or_default() += cost;
        Some(Permit { budget: Arc::clone(self), client, cost, _of_node: of_node })
    }

    fn lock(&self) -> MutexGuard<'_, ByClient> {
        // Nothing under the lock panics half-way through a change.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's bytes of a budget, given back when it is dropped.
pub(crate) struct Permit {
    budget: Arc<Budget>,
    client: Option<SocketAddr>,
    cost: usize,
    _of_node: Taken,
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
        let admission = Admission::new(&Room::default());
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
        let admission = Admission::new(&Room::default());
        let greedy_permits = greedy(&admission, client(1));
        let half = REQUEST_BYTES_IN_WORK_MAX / REQUEST_COST_BYTES_MIN / 2;
        assert_eq!(greedy_permits.len(), half, "alone it has half of the room");
        let polite: Vec<_> =
            (2..1000).map(|port| admission.request(client(port), 0).map(|_| ())).collect();
        assert!(polite.iter().all(Result::is_ok));
        assert!(admission.request(client(1), 0).is_err(), "it has more than its share");
    }

    #[test]
    fn a_flooded_keyspace_is_refused_and_another_one_goes_on() {
        let room = Room::default();
        let (flooded, quiet) = (Admission::new(&room), Admission::new(&room));
        let floods: Vec<_> = (1..3000)
            .flat_map(|port| greedy(&flooded, client(port)).into_iter().take(20))
            .collect();
        let refused = flooded.request(client(1), 0).err().expect("its share is taken");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let quiet_permits: Vec<_> =
            std::iter::repeat_with(|| quiet.request(client(1), 1 << 20)).take(64).collect();
        assert!(quiet_permits.iter().all(Result::is_ok));
        drop(floods);
        assert!(flooded.request(client(1), 0).is_ok());
    }

    #[test]
    fn greedy_clients_share_what_is_left_evenly() {
        let admission = Admission::new(&Room::default());
        let first = greedy(&admission, client(1));
        let second = greedy(&admission, client(2));
        let third = greedy(&admission, client(3));
        assert!(first.len() > second.len() && second.len() > third.len() && third.len() > 1000);
        assert!(admission.request(client(4), 0).is_ok(), "there is always room for a new one");
    }
}
