//! What a node does about the registry: it knows the members, refuses the removed, keeps its data
//! folder up to date, and stops when it was removed itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onefold_admin::NodeState;
use onefold_transport::{CallError, Class, IdentityCell, Peers, Refusal};
use onefold_types::NodeId;

use crate::folder::{Folder, FolderError, Formed};
use crate::formation::{Introduction, Join, JoinRequest};
use crate::nodes::Exchange;
use crate::registry::{Directory, Followed};

/// Pause between two questions to other nodes about the registry.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(2);

/// The same on a node that is being removed: the sooner it stops, the sooner its clients turn to
/// others.
const LEAVING_INTERVAL: Duration = Duration::from_millis(200);

/// How long the cluster may take to note that this node has moved.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node keeps in line with the registry.
pub(crate) struct Roster {
    pub(crate) node: NodeId,
    /// Where others shall reach this node.
    pub(crate) advertise: String,
    pub(crate) followed: Followed,
    pub(crate) peers: Peers,
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) introduction: Introduction,
    pub(crate) folder: Arc<Mutex<Folder>>,
}

/// Why a node must not go on.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It was removed.
    Removed,
    /// Its data folder cannot be written.
    Folder(FolderError),
}

impl Roster {
    /// Acts on every change of the registry until the node must stop. `tell` passes it on to parts
    /// of the node that have their own use of it.
    pub(crate) async fn keep(&self, tell: impl Fn(&Directory)) -> Verdict {
        let mut changes = self.followed.subscribe();
        loop {
            let directory = changes.borrow_and_update().clone();
            if directory.state(self.node) == Some(NodeState::Removed) {
                return Verdict::Removed;
            }
            self.adopt(&directory);
            tell(&directory);
            if let Err(error) = self.write_down(&directory).await {
                return Verdict::Folder(error);
            }
            if changes.changed().await.is_err() {
                // Nobody can tell anything any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Knows the members, and refuses those that were removed.
    fn adopt(&self, directory: &Directory) {
        self.identity.set_removed(directory.removed());
        // A node that lost its folder is found nowhere: its address is another node's.
        let has_address = |node: NodeId, address: &str| {
            let replacement = directory.replacement(node);
            replacement.is_none_or(|record| record.address != address)
        };
        let mut gone = self.peers.addresses();
        for record in directory.members().filter(|r| has_address(r.id, &r.address)) {
            gone.remove(&record.id);
            self.peers.set_address(record.id, record.address.clone());
        }
        for node in gone.into_keys().filter(|node| *node != self.node) {
            self.peers.remove_address(node);
        }
    }

    /// Writes the members into the data folder, so that the node finds them when it starts again.
    async fn write_down(&self, directory: &Directory) -> Result<(), FolderError> {
        let members = directory.as_members();
        let (folder, introduction) = (Arc::clone(&self.folder), self.introduction.clone());
        let write = move || {
            let mut folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(formed) = folder.formed() else { return Ok(()) };
            let is_listed = members.iter().any(|m| m.incarnation == folder.incarnation());
            if formed.members == members || !is_listed {
                return Ok(());
            }
            let formed = Formed::joined(formed.cluster, members, formed.founders());
            folder.adopt(formed.clone())?;
            introduction.set_formed(formed);
            Ok(())
        };
        // It fails only when the runtime shuts down.
        tokio::task::spawn_blocking(write).await.unwrap_or(Ok(()))
    }

    /// Asks the others in turn what they know, until one says that this node was removed.
    pub(crate) async fn exchange(&self) {
        let mut last = self.node;
        let mut told = String::new();
        loop {
            let leaves = self.followed.get().state(self.node) == Some(NodeState::Removing);
            let pause = if leaves { LEAVING_INTERVAL } else { EXCHANGE_INTERVAL };
            tokio::time::sleep(pause).await;
            let directory = self.followed.get();
            let mut others = directory.members().map(|record| record.id);
            let others: Vec<NodeId> = others.by_ref().filter(|node| *node != self.node).collect();
            let next = others.iter().find(|node| **node > last).or(others.first());
            let Some(&other) = next else { continue };
            last = other;
            let call = self.peers.call::<Exchange>(
                other,
                Class::Call,
                &directory.revision,
                Bytes::new(),
                EXCHANGE_TIMEOUT,
            );
            match call.await {
                Ok((later, _)) => {
                    later.into_iter().for_each(|later| self.followed.offer(&later));
                    let problem = self.say_where(other).await.err().unwrap_or_default();
                    if !problem.is_empty() && problem != told {
                        tracing::warn!("the cluster does not note this node's address: {problem}");
                    }
                    told = problem;
                }
                Err(CallError::Refused { reason: Refusal::Removed { node }, .. })
                    if node == self.node =>
                {
                    return;
                }
                Err(error) => tracing::debug!("asking node {other} for the members: {error}"),
            }
        }
    }

    /// Tells the cluster where this node is, if it has moved; why that is not noted.
    async fn say_where(&self, other: NodeId) -> Result<(), String> {
        let directory = self.followed.get();
        let own = directory.all.get(&self.node).filter(|_| directory.next > 0);
        let moved = own.filter(|own| own.address != self.advertise);
        let Some(incarnation) = moved.and_then(|own| own.incarnation) else { return Ok(()) };
        let request = JoinRequest { incarnation, address: self.advertise.clone() };
        let call =
            self.peers.call::<Join>(other, Class::Call, &request, Bytes::new(), MOVE_TIMEOUT);
        call.await.map(drop).map_err(|error| error.to_string())
    }

    /// Notes in the data folder that the node was removed.
    pub(crate) async fn close_folder(&self) -> Result<(), FolderError> {
        let folder = Arc::clone(&self.folder);
        let write = move || folder.lock().unwrap_or_else(PoisonError::into_inner).mark_removed();
        tokio::task::spawn_blocking(write).await.unwrap_or(Ok(()))
    }
}
