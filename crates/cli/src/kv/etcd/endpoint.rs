//! A connection to an etcd, or to a node's etcd API.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use onefold_client::Client;
use onefold_etcd::KEYSPACE_METADATA;
use onefold_etcd::proto::etcdserverpb::AuthenticateRequest;
use onefold_etcd::proto::etcdserverpb::auth_client::AuthClient;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is silent for so long is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Most bytes of one message: a page of large values, or all events of a large revision.
pub const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// The etcd API of some servers. Cheap to clone.
#[derive(Clone)]
pub struct EtcdEndpoint {
    pub channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    /// The keyspace of a cluster of ours; none at an etcd, or for the default one.
    keyspace: Option<MetadataValue<Ascii>>,
}

impl EtcdEndpoint {
    /// Connects to one of these servers, given as `HOST:PORT` or `http://HOST:PORT`; as a user, if
    /// there is one, given as `NAME:PASSWORD`.
    pub async fn connect(addresses: &[String], user: Option<&str>) -> anyhow::Result<Self> {
        Self::connect_to(addresses, None, user).await
    }

    async fn connect_to(
        addresses: &[String],
        keyspace: Option<MetadataValue<Ascii>>,
        user: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut refused = anyhow::anyhow!("no address of an etcd was given; give one as HOST:PORT");
        for address in addresses {
            match connect(address).await {
                Ok(channel) => {
                    return Self { channel, token: None, keyspace }.login(user).await;
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Connects to the etcd API of a node of the cluster, for a keyspace or the default one.
    pub async fn of_cluster(
        client: &Client,
        keyspace: Option<&str>,
        user: Option<&str>,
    ) -> anyhow::Result<Self> {
        let keyspace = keyspace.map(str::parse).transpose().context("no name of a keyspace")?;
        let nodes = client.status().await?.nodes;
        let addresses: Vec<String> =
            nodes.into_iter().filter_map(|node| node.status.map(|status| status.etcd)).collect();
        ensure!(!addresses.is_empty(), "no node of the cluster answers; see `onefold status`");
        Self::connect_to(&addresses, keyspace, user).await
    }

    /// A request of this user to this keyspace.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        if let Some(keyspace) = &self.keyspace {
            request.metadata_mut().insert(KEYSPACE_METADATA, keyspace.clone());
        }
        request
    }

    async fn login(mut self, user: Option<&str>) -> anyhow::Result<Self> {
        let Some(user) = user else { return Ok(self) };
        let Some((name, password)) = user.split_once(':') else {
            bail!("{user:?} is no user; write NAME:PASSWORD");
        };
        let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        let answer = AuthClient::new(self.channel.clone())
            .authenticate(self.request(request))
            .await
            .map_err(|status| told(&status))?;
        let token = answer.into_inner().token;
        self.token = Some(token.parse().context("the server's token is no text")?);
        Ok(self)
    }
}

async fn connect(address: &str) -> anyhow::Result<Channel> {
    ensure!(
        !address.starts_with("https://"),
        "{address} asks for TLS, which is not supported here; use a plaintext address, or a tunnel"
    );
    let url = match address.strip_prefix("http://") {
        Some(_) => address.to_owned(),
        None => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(url)
        .with_context(|| format!("{address:?} is no address; write it as HOST:PORT"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    endpoint
        .connect()
        .await
        .with_context(|| format!("cannot connect to the etcd at {address}; is it running?"))
}

/// What a server answered instead.
pub fn told(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the server says: {} ({:?})", status.message(), status.code())
}
