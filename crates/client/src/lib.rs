//! The Rust client of an Onefold cluster.
//!
//! A [`Client`] knows the addresses of some nodes, any of which answers anything. What it hands out
//! are the same traits that a node uses inside, so that a program does not see where it runs:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use onefold_kv::{PutRequest, RangeRequest};
//!
//! let client = onefold_client::Client::new(vec!["127.0.0.1:7000".to_owned()])?;
//! client.kv().put(PutRequest::new("colour", "blue")).await?;
//! let found = client.kv().range(RangeRequest::key("colour")).await?;
//! assert_eq!(found.kvs[0].value, "blue");
//! # Ok(())
//! # }
//! ```
//!
//! Retries are safe: what a client repeats travels with a session and a sequence number and is
//! executed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use onefold_admin::{
    AddNode, ClusterStatus, CreateKeyspace, CreateS3Key, DeleteKeyspace, DrainNode, FindKeyspace,
    GetClusterStatus, Invitation, KeyspaceInfo, LimitsChange, ListKeyspaces, ListNodes, ListS3Keys,
    NewKeyspace, NewNode, NewS3Key, NodeDrain, NodeInfo, NodeRemoval, RemoveNode, RemoveS3Key,
    S3Key, S3KeyName, SetKeyspace,
};
use onefold_files::{FileSystem, RemoteFiles};
use onefold_kv::{Kv, RemoteKv};
use onefold_mapreduce::{MapReduce, RemoteMapReduce};
use onefold_transport::{CallError, Class, Identity, IdentityCell, Limits, Method, Peers};
use onefold_types::GroupId;

/// How long a node may take to answer an operator's call.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a client can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No addresses.
    #[error("no address of a node was given; give one as HOST:PORT")]
    NoAddress,
    /// Something that is no address.
    #[error("{0:?} is not the address of a node; write it as HOST:PORT")]
    BadAddress(String),
    /// No node answered.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A cluster, seen from outside. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    peers: Peers,
    addresses: Arc<[String]>,
    /// The address that answered last, tried first.
    preferred: Arc<AtomicUsize>,
}

impl Client {
    /// A client of the cluster that has nodes at these peer addresses. Connects when it is first
    /// used; must be used within a tokio runtime.
    ///
    /// # Errors
    /// When there is no address, or one is not `HOST:PORT`.
    pub fn new(addresses: Vec<String>) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        for address in &addresses {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(ClientError::BadAddress(address.clone()));
            }
        }
        let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
        Ok(Self {
            peers: Peers::new(identity, Limits::default()),
            addresses: addresses.into(),
            preferred: Arc::default(),
        })
    }

    /// The default keyspace of the key-value store.
    pub fn kv(&self) -> Arc<dyn Kv> {
        Arc::new(RemoteKv::new(self.peers.clone(), GroupId::KV, self.addresses.to_vec()))
    }

    /// The keyspace of this name; `default` is the one that every cluster has.
    ///
    /// # Errors
    /// When there is none that serves, or no node answers.
    pub async fn keyspace(&self, name: &str) -> Result<Arc<dyn Kv>, ClientError> {
        let group = self.ask::<FindKeyspace>(&name.to_owned()).await?;
        Ok(Arc::new(RemoteKv::new(self.peers.clone(), group, self.addresses.to_vec())))
    }

    /// The file system.
    pub fn files(&self) -> Arc<dyn FileSystem> {
        Arc::new(RemoteFiles::new(self.peers.clone(), self.addresses.to_vec()))
    }

    /// MapReduce.
    pub fn mapreduce(&self) -> Arc<dyn MapReduce> {
        Arc::new(RemoteMapReduce::new(self.peers.clone(), self.addresses.to_vec()))
    }

    /// How the cluster is, as the first node sees it that answers.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.ask::<GetClusterStatus>(&()).await
    }

    /// Every node that the cluster knows, removed ones included, by ascending number.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, ClientError> {
        self.ask::<ListNodes>(&()).await
    }

    /// Notes that a node may join at an address, and whose place it takes.
    ///
    /// # Errors
    /// When the cluster refuses it or cannot decide, or no node answers.
    pub async fn add_node(&self, node: NewNode) -> Result<Invitation, ClientError> {
        self.ask::<AddNode>(&node).await
    }

    /// Begins to remove a node; [`nodes`](Self::nodes) tells when it is removed.
    ///
    /// # Errors
    /// When the cluster refuses it or cannot decide, or no node answers.
    pub async fn remove_node(&self, removal: NodeRemoval) -> Result<(), ClientError> {
        self.ask::<RemoveNode>(&removal).await
    }

    /// Begins to drain a node, or takes that back; [`nodes`](Self::nodes) tells when it is drained.
    ///
    /// # Errors
    /// When the cluster refuses it or cannot decide, or no node answers.
    pub async fn drain_node(&self, drain: NodeDrain) -> Result<(), ClientError> {
        self.ask::<DrainNode>(&drain).await
    }

    /// Every keyspace of the key-value store, the default one first, the others by name.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>, ClientError> {
        self.ask::<ListKeyspaces>(&()).await
    }

    /// Creates a keyspace. It serves if the answer says that it is active.
    ///
    /// # Errors
    /// When the cluster refuses it or cannot decide, or no node answers.
    pub async fn create_keyspace(&self, new: NewKeyspace) -> Result<KeyspaceInfo, ClientError> {
        self.ask::<CreateKeyspace>(&new).await
    }

    /// Changes what bounds a keyspace.
    ///
    /// # Errors
    /// When there is no such keyspace, or no node answers.
    pub async fn set_keyspace(&self, change: LimitsChange) -> Result<(), ClientError> {
        self.ask::<SetKeyspace>(&change).await
    }

    /// Begins to delete a keyspace with all that is in it; [`keyspaces`](Self::keyspaces) tells when
    /// it is gone.
    ///
    /// # Errors
    /// When the cluster refuses it or cannot decide, or no node answers.
    pub async fn delete_keyspace(&self, name: &str) -> Result<(), ClientError> {
        self.ask::<DeleteKeyspace>(&name.to_owned()).await
    }

    /// Creates an access key of the S3 API, or replaces the one of that name.
    ///
    /// # Errors
    /// When the key's name or secret is not allowed, or no node answers.
    pub async fn create_s3_key(&self, key: NewS3Key) -> Result<S3Key, ClientError> {
        self.ask::<CreateS3Key>(&key).await
    }

    /// The access keys, without their secrets.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn s3_keys(&self) -> Result<Vec<S3KeyName>, ClientError> {
        self.ask::<ListS3Keys>(&()).await
    }

    /// Removes an access key; says whether there was one.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn remove_s3_key(&self, access_key: &str) -> Result<bool, ClientError> {
        self.ask::<RemoveS3Key>(&access_key.to_owned()).await
    }

    /// Asks one node after the other. Everything asked this way can be asked twice.
    async fn ask<M: Method>(&self, request: &M::Request) -> Result<M::Response, ClientError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last_error = None;
        for offset in 0..self.addresses.len() {
            let place = (first + offset) % self.addresses.len();
            let call = self.peers.call_address::<M>(
                &self.addresses[place],
                Class::Call,
                request,
                Bytes::new(),
                ADMIN_TIMEOUT,
            );
            match call.await {
                Ok((response, _)) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Ok(response);
                }
                // Another node would answer the same.
                Err(CallError::Remote(error)) => return Err(CallError::Remote(error).into()),
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.map_or(ClientError::NoAddress, ClientError::Call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_tried() {
        assert!(matches!(Client::new(Vec::new()), Err(ClientError::NoAddress)));
        for address in ["node", ":7000", "node:", "node:port"] {
            let error = Client::new(vec![address.to_owned()]).err();
            assert!(matches!(error, Some(ClientError::BadAddress(_))), "{address}");
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_not_there_is_named() {
        let client = Client::new(vec!["127.0.0.1:1".to_owned()]).expect("a fine address");
        let error = client.status().await.expect_err("nobody listens on port 1");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
