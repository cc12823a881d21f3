//! Access keys: who holds them, and how the signature check gets at them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};
use thiserror::Error;

/// Longest access key that is looked up; longer ones do not exist.
const ACCESS_KEY_BYTES_MAX: usize = 128;

/// What belongs to an access key.
#[derive(Clone)]
pub struct Secret {
    key: String,
    loopback_only: bool,
}

impl Secret {
    /// The secret access key, and whether it works only for clients on the node's own machine.
    pub fn new(key: impl Into<String>, loopback_only: bool) -> Self {
        Self { key: key.into(), loopback_only }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("loopback_only", &self.loopback_only).finish_non_exhaustive()
    }
}

/// The keys cannot be looked up now: the cluster has no leader, or is overloaded.
#[derive(Clone, Debug, Error)]
#[error("access keys cannot be looked up now: {reason}; try again")]
pub struct CredentialsUnavailable {
    /// Why not.
    pub reason: String,
}

/// Where secrets are found.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The secret of an access key; `None` when there is no such key. Called for every request.
    ///
    /// # Errors
    /// [`CredentialsUnavailable`], which the client sees as `ServiceUnavailable` and retries.
    async fn secret(&self, access_key: &str) -> Result<Option<Secret>, CredentialsUnavailable>;
}

/// The credentials as one connection's signature checks see them.
pub(crate) struct ConnectionAuth {
    credentials: Arc<dyn Credentials>,
    is_loopback: bool,
}

impl ConnectionAuth {
    pub(crate) fn new(credentials: Arc<dyn Credentials>, peer: IpAddr) -> Self {
        Self { credentials, is_loopback: peer.to_canonical().is_loopback() }
    }
}

#[async_trait]
impl S3Auth for ConnectionAuth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let unknown =
            || s3_error!(InvalidAccessKeyId, "the access key does not exist in this cluster");
        if access_key.len() > ACCESS_KEY_BYTES_MAX {
            return Err(unknown());
        }
        let found = self.credentials.secret(access_key).await;
        let secret =
            found.map_err(|error| s3_error!(ServiceUnavailable, "{error}"))?.ok_or_else(unknown)?;
        if secret.loopback_only && !self.is_loopback {
            return Err(s3_error!(
                AccessDenied,
                "this access key works only on the machine of the node itself; \
                 create one for remote clients with `onefold s3 key create`"
            ));
        }
        Ok(SecretKey::from(secret.key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct OneKey {
        loopback_only: bool,
    }

    #[async_trait]
    impl Credentials for OneKey {
        async fn secret(&self, _: &str) -> Result<Option<Secret>, CredentialsUnavailable> {
            Ok(Some(Secret::new("secret", self.loopback_only)))
        }
    }

    #[tokio::test]
    async fn a_key_for_loopback_works_only_there() {
        let works = async |peer: &str, loopback_only: bool| {
            let auth =
                ConnectionAuth::new(Arc::new(OneKey { loopback_only }), peer.parse().unwrap());
            auth.get_secret_key("key").await.is_ok()
        };
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(works(peer, true).await, "{peer}");
        }
        for peer in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1"] {
            assert!(!works(peer, true).await, "{peer}");
            assert!(works(peer, false).await, "{peer}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert!(!format!("{:?}", Secret::new("hunter2", false)).contains("hunter2"));
    }
}
