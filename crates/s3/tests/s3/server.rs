//! A server for one test.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use onefold_files::testing::MemoryFiles;
use onefold_s3::{Config, Credentials, CredentialsUnavailable, Secret, serve};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;

pub(crate) const ACCESS_KEY: &str = "onefold";
pub(crate) const SECRET_KEY: &str = "onefold-secret";

struct Keys;

#[async_trait]
impl Credentials for Keys {
    async fn secret(&self, access_key: &str) -> Result<Option<Secret>, CredentialsUnavailable> {
        match access_key {
            ACCESS_KEY => Ok(Some(Secret::new(SECRET_KEY, true))),
            "remote" => Ok(Some(Secret::new(SECRET_KEY, false))),
            "broken" => Err(CredentialsUnavailable { reason: "no leader".to_owned() }),
            _ => Ok(None),
        }
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) files: Arc<MemoryFiles>,
    _shutdown: DropGuard,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let files = Arc::new(MemoryFiles::new());
        let served = Arc::clone(&files);
        tokio::spawn(serve(listener, served, Arc::new(Keys), config, shutdown.clone()));
        Self { address, files, _shutdown: shutdown.drop_guard() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, ACCESS_KEY, SECRET_KEY)
    }

    /// A client and an empty bucket named `bucket`.
    pub(crate) async fn with_bucket(&self) -> Client {
        let client = self.client();
        assert_eq!(client.put("/bucket", b"").await.status, 200);
        client
    }
}
