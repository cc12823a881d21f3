//! Access keys of the S3 API, kept in the system keyspace.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use onefold_admin::{NewS3Key, S3Key, S3KeyName};
use onefold_kv::{
    Compare, DeleteRangeRequest, Kv, KvError, Operation, PutRequest, RangeRequest, TxnRequest,
};
use onefold_s3::{Credentials, CredentialsUnavailable, Secret};
use rand::Rng;
use serde::{Deserialize, Serialize};

const KEY_PREFIX: &str = "s3/keys/";
/// Written together with the first key, so that there is only ever one first key.
const FIRST_KEY_MARK: &str = "s3/first-key";

const ACCESS_KEY_CHARS: std::ops::RangeInclusive<usize> = 3..=128;
const SECRET_KEY_CHARS: std::ops::RangeInclusive<usize> = 8..=128;
const DRAWN_ACCESS_KEY_CHARS: usize = 20;
const DRAWN_SECRET_KEY_CHARS: usize = 40;

/// Why a key can't be created, listed or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The name or the secret breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// A stored key is damaged.
    #[error("the stored access key {access_key:?} is damaged; create it again")]
    Damaged {
        /// The key.
        access_key: String,
    },
    /// The system keyspace does not answer.
    #[error(transparent)]
    Kv(#[from] KvError),
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    secret_key: String,
    loopback_only: bool,
}

/// The cluster's access keys.
#[derive(Clone)]
pub(crate) struct S3Keys {
    kv: Arc<dyn Kv>,
}

impl S3Keys {
    /// Keys kept in `kv`, the system keyspace.
    pub(crate) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv }
    }

    /// Creates a key, or replaces the one of that name.
    ///
    /// # Errors
    /// When a rule is broken or the keyspace does not answer.
    pub(crate) async fn create(&self, new: NewS3Key) -> Result<S3Key, KeyError> {
        let key = draw(new)?;
        self.kv.put(put_request(&key)).await?;
        Ok(key)
    }

    /// Creates the cluster's first key, once in its life; `None` when that was done before or there
    /// are keys.
    ///
    /// # Errors
    /// When the keyspace does not answer.
    pub(crate) async fn create_first(&self) -> Result<Option<S3Key>, KeyError> {
        if !self.list().await?.is_empty() {
            return Ok(None);
        }
        let key = draw(NewS3Key::default())?;
        let answer = self
            .kv
            .txn(TxnRequest {
                compare: vec![Compare::absent(FIRST_KEY_MARK)],
                success: vec![
                    Operation::Put(PutRequest::new(FIRST_KEY_MARK, key.access_key.clone())),
                    Operation::Put(put_request(&key)),
                ],
                failure: Vec::new(),
            })
            .await?;
        Ok(answer.succeeded.then_some(key))
    }

    /// The keys, without their secrets.
    ///
    /// # Errors
    /// When the keyspace does not answer or a key is damaged.
    pub(crate) async fn list(&self) -> Result<Vec<S3KeyName>, KeyError> {
        let found = self.kv.range(RangeRequest::prefix(KEY_PREFIX)).await?;
        let name = |record: &onefold_kv::KeyValue| {
            let access_key = String::from_utf8_lossy(&record.key[KEY_PREFIX.len()..]).into_owned();
            let stored = parse(&access_key, &record.value)?;
            Ok(S3KeyName { access_key, loopback_only: stored.loopback_only })
        };
        found.kvs.iter().map(name).collect()
    }

    /// Removes a key; says whether there was one.
    ///
    /// # Errors
    /// When the keyspace does not answer.
    pub(crate) async fn remove(&self, access_key: &str) -> Result<bool, KeyError> {
        let request = DeleteRangeRequest::key(format!("{KEY_PREFIX}{access_key}"));
        Ok(self.kv.delete_range(request).await?.deleted > 0)
    }

    async fn find(&self, access_key: &str, serializable: bool) -> Result<Option<Bytes>, KvError> {
        let key = format!("{KEY_PREFIX}{access_key}");
        let request = RangeRequest { serializable, ..RangeRequest::key(key) };
        Ok(self.kv.range(request).await?.kvs.into_iter().next().map(|record| record.value))
    }
}

#[async_trait]
impl Credentials for S3Keys {
    async fn secret(&self, access_key: &str) -> Result<Option<Secret>, CredentialsUnavailable> {
        let unavailable =
            |error: &dyn ToString| CredentialsUnavailable { reason: error.to_string() };
        // Nearly every request names a key that this replica has; only for one that it lacks is
        // it worth asking whether there is a later state.
        let mut found = self.find(access_key, true).await.map_err(|e| unavailable(&e))?;
        if found.is_none() {
            found = self.find(access_key, false).await.map_err(|e| unavailable(&e))?;
        }
        let Some(value) = found else { return Ok(None) };
        let stored = parse(access_key, &value).map_err(|e| unavailable(&e))?;
        Ok(Some(Secret::new(stored.secret_key, stored.loopback_only)))
    }
}

fn put_request(key: &S3Key) -> PutRequest {
    let stored = StoredKey { secret_key: key.secret_key.clone(), loopback_only: key.loopback_only };
    let value = serde_json::to_vec(&stored).expect("plain data always serializes");
    PutRequest::new(format!("{KEY_PREFIX}{}", key.access_key), value)
}

fn parse(access_key: &str, value: &[u8]) -> Result<StoredKey, KeyError> {
    serde_json::from_slice(value)
        .map_err(|_| KeyError::Damaged { access_key: access_key.to_owned() })
}

/// Checks what was given and draws what was not.
fn draw(new: NewS3Key) -> Result<S3Key, KeyError> {
    let access_key = new.access_key.unwrap_or_else(|| random_text(DRAWN_ACCESS_KEY_CHARS));
    let secret_key = new.secret_key.unwrap_or_else(|| random_text(DRAWN_SECRET_KEY_CHARS));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !ACCESS_KEY_CHARS.contains(&access_key.len()) || !access_key.chars().all(plain) {
        return Err(KeyError::Invalid(format!(
            "{access_key:?} cannot be an access key: it needs 3 to 128 letters, digits, - or _"
        )));
    }
    let printable = secret_key.chars().all(|c| c.is_ascii_graphic());
    if !SECRET_KEY_CHARS.contains(&secret_key.len()) || !printable {
        return Err(KeyError::Invalid(
            "the secret key needs 8 to 128 printable ASCII characters".to_owned(),
        ));
    }
    Ok(S3Key { access_key, secret_key, loopback_only: new.loopback_only })
}

fn random_text(chars: usize) -> String {
    let generator = rand::rng();
    generator.sample_iter(rand::distr::Alphanumeric).take(chars).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_not_given_is_drawn_and_valid() {
        let key = draw(NewS3Key::default()).unwrap();
        assert_eq!(key.access_key.len(), DRAWN_ACCESS_KEY_CHARS);
        assert_ne!(key.secret_key, draw(NewS3Key::default()).unwrap().secret_key);
    }

    #[test]
    fn names_and_secrets_that_clients_could_not_send_are_refused() {
        for access_key in ["ab", "with space", "sl/ash", &"x".repeat(129)] {
            let new = NewS3Key { access_key: Some(access_key.to_owned()), ..Default::default() };
            assert!(matches!(draw(new), Err(KeyError::Invalid(_))), "{access_key}");
        }
        let new = NewS3Key { secret_key: Some("short".to_owned()), ..Default::default() };
        assert!(matches!(draw(new), Err(KeyError::Invalid(_))));
    }
}
