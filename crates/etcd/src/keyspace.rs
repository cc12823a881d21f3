//! A keyspace as clients are served it.

use std::sync::{Arc, OnceLock};

use onefold_kv::Kv;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::gateway::Gateway;
use crate::metrics::CountCalls;
use crate::room::Room;
use crate::server::services;
use crate::{ClusterControl, ClusterView, Options, http};

/// A keyspace with all that its clients may ask of it, at however many ports they come in.
///
/// What serves it is made when the first client comes: a cluster may have a thousand keyspaces of
/// which few are used.
pub struct Keyspace {
    name: String,
    kv: Arc<dyn Kv>,
    cluster: Arc<dyn ClusterView>,
    control: Arc<dyn ClusterControl>,
    options: Options,
    room: Room,
    shutdown: CancellationToken,
    served: OnceLock<Served>,
}

/// What answers calls.
pub(crate) struct Served {
    pub(crate) gateway: Gateway,
    /// Every gRPC method and every HTTP path.
    pub(crate) routes: Routes,
}

impl Served {
    /// The same, counted.
    pub(crate) fn service(&self) -> CountCalls<Routes> {
        CountCalls::new(self.routes.clone(), Arc::clone(&self.gateway.metrics))
    }
}

/// Finds the keyspaces that clients may choose at a port beside the one that it belongs to.
pub trait Directory: Send + Sync {
    /// The keyspace of this name, if it is served here now.
    fn find(&self, name: &str) -> Option<Arc<Keyspace>>;
}

/// At a port of one keyspace alone.
pub struct NoOther;

impl Directory for NoOther {
    fn find(&self, _name: &str) -> Option<Arc<Keyspace>> {
        None
    }
}

impl Keyspace {
    /// The keyspace `name`: its store, what its clients are told of the cluster, and what they may
    /// have done to it. It is served until `shutdown`.
    pub fn new(
        name: String,
        kv: Arc<dyn Kv>,
        cluster: Arc<dyn ClusterView>,
        control: Arc<dyn ClusterControl>,
        (options, room): (Options, Room),
        shutdown: CancellationToken,
    ) -> Self {
        let served = OnceLock::new();
        Self { name, kv, cluster, control, options, room, shutdown, served }
    }

    /// Ends the streams of its clients and serves nobody any more.
    pub fn close(&self) {
        self.shutdown.cancel();
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What answers its calls.
    pub(crate) fn served(&self) -> &Served {
        self.served.get_or_init(|| {
            let gateway = Gateway::new(
                Arc::clone(&self.kv),
                Arc::clone(&self.cluster),
                Arc::clone(&self.control),
                (self.options.clone(), &self.room),
                self.shutdown.clone(),
            );
            let routes = http::with_paths(services(&gateway), &gateway).prepare();
            Served { gateway, routes }
        })
    }
}
