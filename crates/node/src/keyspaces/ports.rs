//! The client ports of keyspaces on one node.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use onefold_admin::ClientPort;
use onefold_etcd::{Keyspace, NoOther};
use onefold_types::GroupId;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A port that shall be open, and the keyspace that is served there.
pub(super) struct Wanted {
    pub(super) address: String,
    pub(super) keyspace: Arc<Keyspace>,
}

impl Wanted {
    /// Whether an open port is what is wanted: a keyspace that is served anew needs it anew.
    fn is(&self, other: &Self) -> bool {
        self.address == other.address && Arc::ptr_eq(&self.keyspace, &other.keyspace)
    }
}

enum Port {
    /// It is served.
    Open { wanted: Wanted, stop: CancellationToken, serving: JoinHandle<()> },
    /// It ends its open requests.
    Closing { address: String, serving: JoinHandle<()> },
    /// It could not be opened; tried again each time.
    Failed { address: String, problem: String },
}

/// The ports of a node.
pub(super) struct Ports {
    ports: BTreeMap<GroupId, Port>,
    shown: ShownPorts,
}

/// What others see of the ports.
pub(crate) type ShownPorts = Arc<RwLock<Vec<ClientPort>>>;

impl Ports {
    pub(super) fn new(shown: ShownPorts) -> Self {
        Self { ports: BTreeMap::new(), shown }
    }

    /// Opens and closes ports, until they are those that are wanted.
    pub(super) async fn set(&mut self, wanted: BTreeMap<GroupId, Wanted>) {
        self.close_unless(&wanted);
        for (group, wanted) in wanted {
            if matches!(self.ports.get(&group), Some(Port::Open { .. } | Port::Closing { .. })) {
                continue;
            }
            let port = match TcpListener::bind(&wanted.address).await {
                Ok(listener) => {
                    let keyspace = Arc::clone(&wanted.keyspace);
                    open(group, wanted, |stop| {
                        onefold_etcd::serve_keyspace(listener, keyspace, Arc::new(NoOther), stop)
                    })
                }
                Err(error) => {
                    if !self.ports.contains_key(&group) {
                        tracing::warn!(%group, address = wanted.address, "cannot listen: {error}");
                    }
                    Port::Failed { address: wanted.address, problem: error.to_string() }
                }
            };
            self.ports.insert(group, port);
        }
        self.show();
    }

    fn close_unless(&mut self, wanted: &BTreeMap<GroupId, Wanted>) {
        let ports = std::mem::take(&mut self.ports);
        for (group, port) in ports {
            let kept = match port {
                Port::Open { wanted: now, stop, serving } => {
                    let is_wanted = wanted.get(&group).is_some_and(|it| it.is(&now));
                    if is_wanted && !serving.is_finished() {
                        Some(Port::Open { wanted: now, stop, serving })
                    } else {
                        stop.cancel();
                        Some(Port::Closing { address: now.address, serving })
                    }
                }
                Port::Closing { serving, .. } if serving.is_finished() => None,
                Port::Failed { .. } if !wanted.contains_key(&group) => None,
                other => Some(other),
            };
            if let Some(kept) = kept {
                self.ports.insert(group, kept);
            }
        }
    }

    fn show(&self) {
        let show = |(group, port): (&GroupId, &Port)| {
            let (address, problem) = match port {
                Port::Open { wanted, .. } => (wanted.address.clone(), None),
                Port::Closing { address, .. } => {
                    (address.clone(), Some("it is being closed".to_owned()))
                }
                Port::Failed { address, problem } => (address.clone(), Some(problem.clone())),
            };
            ClientPort { group: *group, address, problem }
        };
        let shown = self.ports.iter().map(show).collect();
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// Closes all of them, and waits until open requests have ended.
    pub(super) async fn close(self) {
        let mut ending = Vec::new();
        for port in self.ports.into_values() {
            match port {
                Port::Open { stop, serving, .. } => {
                    stop.cancel();
                    ending.push(serving);
                }
                Port::Closing { serving, .. } => ending.push(serving),
                Port::Failed { .. } => {}
            }
        }
        for serving in ending {
            // A panic in it was logged by its task.
            let _ = serving.await;
        }
    }
}

fn open<F>(group: GroupId, wanted: Wanted, serve: impl FnOnce(CancellationToken) -> F) -> Port
where
    F: Future<Output = Result<(), onefold_etcd::ServeError>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let served = serve(stop.clone());
    let serving = tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::warn!(%group, "the port of a keyspace ended: {error}");
        }
    });
    Port::Open { wanted, stop, serving }
}
