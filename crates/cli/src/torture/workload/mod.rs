//! Clients of the etcd API that do a bit of everything at any node, and write down what they see.

mod bulk;
mod compactor;
mod convert;
mod leases;
pub mod readback;
pub mod recorder;
mod registers;
pub mod session;
mod transfers;
mod vanishing;
mod watcher;

use std::sync::Arc;

use onefold_checker::history::{Accounts, Span};
use onefold_types::Revision;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use bulk::BulkClient;
use compactor::Compactor;
use leases::LeaseClient;
use recorder::Recorder;
use registers::{Count, RegisterClient};
use session::{Address, Session};
use transfers::TransferClient;
use vanishing::{SilentWatcher, VanishingClient};
use watcher::{Ending, WatchingClient};

const REGISTER_CLIENTS: u64 = 6;
const TRANSFER_CLIENTS: u64 = 2;
const LEASE_CLIENTS: u64 = 3;
const VANISHING_CLIENTS: u64 = 2;
const SILENT_WATCHERS: u64 = 2;

/// The keys of one round, which no other round uses.
pub struct Keys {
    round: u64,
}

impl Keys {
    pub fn of_round(round: u64) -> Self {
        Self { round }
    }

    fn folder(&self, kind: char) -> String {
        format!("{kind}{}/", self.round)
    }

    pub fn registers(&self) -> String {
        self.folder('r')
    }

    pub fn accounts(&self) -> Accounts {
        TransferClient::accounts(&self.folder('a'))
    }

    pub fn leased(&self) -> Span {
        Span::prefix(&self.folder('l'))
    }
}

/// The clients of one round.
pub struct Workload {
    pub recorder: Arc<Recorder>,
    clients: JoinSet<()>,
    watchers: JoinSet<()>,
    stop: CancellationToken,
    until: watch::Sender<Option<Revision>>,
    give_up: CancellationToken,
}

impl Workload {
    /// Starts all clients.
    pub fn start(
        keys: &Keys,
        seed: u64,
        recorder: Arc<Recorder>,
        addresses: Arc<[Address]>,
        begin: Revision,
    ) -> Self {
        let mut workload = Self {
            recorder: recorder.clone(),
            clients: JoinSet::new(),
            watchers: JoinSet::new(),
            stop: CancellationToken::new(),
            until: watch::Sender::new(None),
            give_up: CancellationToken::new(),
        };
        let mut names = keys.round * 1_000..;
        let mut session = || {
            let client = names.next().unwrap_or_default();
            let random = SmallRng::seed_from_u64(seed ^ client);
            Session::new(client, recorder.clone(), random, addresses.clone())
        };
        let stop_all = workload.stop.clone();
        let stop = || stop_all.clone();
        let count = Count::default();
        for _ in 0..REGISTER_CLIENTS {
            let (prefix, count) = (keys.registers(), count.clone());
            let client = RegisterClient { session: session(), prefix, begin, count };
            workload.clients.spawn(client.run(stop()));
        }
        for _ in 0..TRANSFER_CLIENTS {
            let client = TransferClient { session: session(), prefix: keys.folder('a') };
            workload.clients.spawn(client.run(stop()));
        }
        for _ in 0..LEASE_CLIENTS {
            let client = LeaseClient { session: session(), prefix: keys.folder('l') };
            workload.clients.spawn(client.run(stop()));
        }
        let bulk = BulkClient { session: session(), prefix: keys.folder('m') };
        workload.clients.spawn(bulk.run(stop()));
        for _ in 0..VANISHING_CLIENTS {
            let client = VanishingClient { session: session(), prefix: keys.folder('v') };
            workload.clients.spawn(client.run(stop()));
        }
        for _ in 0..SILENT_WATCHERS {
            let watcher = SilentWatcher { session: session(), begin };
            workload.clients.spawn(watcher.run(stop()));
        }
        let addresses = addresses.clone();
        let compactor = Compactor { session: session(), addresses, read: begin };
        workload.clients.spawn(compactor.run(stop()));
        let ending =
            Ending { until: workload.until.subscribe(), give_up: workload.give_up.clone() };
        let spans = [
            (Span::everything(), true),
            (Span::everything(), false),
            (Span::prefix(&keys.registers()), true),
            (Span::prefix(&keys.folder('a')), false),
            (keys.leased(), true),
        ];
        for (span, previous) in spans {
            let client = WatchingClient::new(session(), span, previous, ending.clone());
            workload.watchers.spawn(client.run());
        }
        workload
    }

    /// Stops all clients but the watchers, after their last request.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
    }

    /// Waits until the watchers were told everything up to a revision, but not beyond `patience`.
    pub async fn finish(mut self, end: Revision, patience: std::time::Duration) {
        self.until.send_replace(Some(end));
        let told = async { while self.watchers.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, told).await.is_err() {
            self.give_up.cancel();
            while self.watchers.join_next().await.is_some() {}
        }
    }
}
