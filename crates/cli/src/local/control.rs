//! How `onefold dev node …` reaches the `onefold dev` that owns the nodes.
//!
//! The owner listens on a free loopback port and writes it, with a random token that a caller must
//! know, into a file that only the same user can read.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use onefold_transport::{
    CallError, Class, Identity, IdentityCell, Limits, Method, MethodId, Peers, RemoteCode,
    RemoteError, Router, Server,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const CONTROL_FILE: &str = "dev.control";
const ACTION_TIMEOUT: Duration = Duration::from_secs(150);
const WAITING_ACTIONS_MAX: usize = 16;

/// What can be done to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Subcommand)]
pub enum Action {
    /// Start a further node, which joins the cluster.
    Add,
    /// Remove a node from the cluster for good.
    Remove {
        /// The node's number.
        id: u64,
    },
    /// Start a node that does not run.
    Start {
        /// The node's number, as in the table that `onefold dev` prints.
        id: u64,
    },
    /// Stop a node in order.
    Stop {
        /// The node's number, as in the table that `onefold dev` prints.
        id: u64,
    },
    /// Kill a node with SIGKILL, as a crash would.
    Kill {
        /// The node's number, as in the table that `onefold dev` prints.
        id: u64,
    },
}

/// An action with the place where its outcome goes: the number of the node.
pub type Request = (Action, oneshot::Sender<Result<u64, String>>);

struct DevAct;

impl Method for DevAct {
    const ID: MethodId = MethodId(340);
    const NAME: &'static str = "dev.act";
    type Request = (String, Action);
    type Response = u64;
}

#[derive(Serialize, Deserialize)]
struct ControlFile {
    address: SocketAddr,
    token: String,
}

/// The listening end; the file goes when it is dropped.
pub struct Control {
    path: PathBuf,
    shutdown: CancellationToken,
}

impl Control {
    /// Listens for actions and hands them to the receiver.
    pub async fn listen(folder: &Path) -> anyhow::Result<(Self, mpsc::Receiver<Request>)> {
        let server = Server::bind("127.0.0.1:0").await?;
        let token = format!("{:032x}", rand::random::<u128>());
        let path = folder.join(CONTROL_FILE);
        let file = ControlFile { address: server.local_address(), token: token.clone() };
        write_private(&path, &serde_json::to_vec(&file)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let (sender, receiver) = mpsc::channel::<Request>(WAITING_ACTIONS_MAX);
        let mut router = Router::default();
        router.call::<DevAct, _, _>(move |_, (given, action), _| {
            let known = given == token;
            let sender = sender.clone();
            async move {
                if !known {
                    return Err(RemoteError::new(RemoteCode::Invalid, "the token is wrong"));
                }
                let (done, outcome) = oneshot::channel();
                let gone = |_| RemoteError::new(RemoteCode::Unavailable, "dev is stopping");
                sender.send((action, done)).await.map_err(|_| gone(()))?;
                match outcome.await.map_err(|_| gone(()))? {
                    Ok(id) => Ok((id, Bytes::new())),
                    Err(reason) => Err(RemoteError::new(RemoteCode::Invalid, reason)),
                }
            }
        });
        let shutdown = CancellationToken::new();
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        tokio::spawn(server.serve(identity, router, shutdown.clone()));
        Ok((Self { path, shutdown }, receiver))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text)
}

/// Has the `onefold dev` that owns the folder act on one node, and returns the node's number.
pub async fn command(folder: &Path, action: Action) -> anyhow::Result<u64> {
    let path = folder.join(CONTROL_FILE);
    let not_running =
        || format!("no `onefold dev` runs on {0}; start it with --data-dir {0}", folder.display());
    let text = std::fs::read(&path).with_context(not_running)?;
    let file: ControlFile = serde_json::from_slice(&text).with_context(not_running)?;
    let peers = Peers::new(Arc::new(IdentityCell::new(Identity::CLIENT)), Limits::default());
    let address = file.address.to_string();
    let request = (file.token, action);
    let call =
        peers.call_address::<DevAct>(&address, Class::Call, &request, Bytes::new(), ACTION_TIMEOUT);
    match call.await {
        Ok((id, _)) => Ok(id),
        Err(CallError::Remote(error)) => bail!("{}", error.message),
        Err(CallError::Unreachable { .. }) => bail!(not_running()),
        Err(error) => Err(error.into()),
    }
}
