//! Passwords: hashed with bcrypt, as in etcd, so that its users can be taken over.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::blocking;
use crate::limits::REQUEST_TIMEOUT;
use crate::{AuthError, KvError};

/// Bcrypt does 2 to the power of this many rounds: etcd's default, some 50 ms.
const COST: u32 = 10;

/// Most bytes of a password; bcrypt would leave out the rest.
const PASSWORD_BYTES_MAX: usize = 72;

/// Passwords that a node hashes at once for one keyspace. Further ones wait.
const HASHES_MAX: usize = 2;

/// Hashes few passwords at once, where it stops nobody.
#[derive(Clone)]
pub(crate) struct Hasher {
    room: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(HASHES_MAX)) }
    }
}

impl Hasher {
    /// The hash of a password.
    pub(super) async fn hash(&self, password: String) -> Result<String, KvError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(AuthError::PasswordTooLong.into());
        }
        self.run(move || hash(&password)).await
    }

    /// Whether a hash is that of a password. Without a hash it is not, after the same time.
    pub(super) async fn check(
        &self,
        hash: Option<String>,
        password: String,
    ) -> Result<bool, KvError> {
        // Nobody has a password that would be cut.
        let hash = hash.filter(|_| password.len() <= PASSWORD_BYTES_MAX);
        self.run(move || {
            let fits = |hash: &str| {
                bcrypt::verify(&password, hash).map_err(|_| AuthError::WrongPassword.into())
            };
            match &hash {
                Some(hash) => fits(hash),
                None => fits(&NOBODYS).map(|_| false),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let Ok(room) = timeout(REQUEST_TIMEOUT, self.room.clone().acquire_owned()).await else {
            let reason = "other passwords took all the time of this one".to_owned();
            return Err(KvError::Overloaded { reason });
        };
        blocking(move || {
            let _room = room.expect("the semaphore is never closed");
            work()
        })
        .await
    }
}

/// The hash of a password that nobody has.
static NOBODYS: LazyLock<String> = LazyLock::new(|| hash("").unwrap_or_default());

fn hash(password: &str) -> Result<String, KvError> {
    bcrypt::hash(password, COST)
        .map_err(|error| KvError::Internal { reason: format!("hashing a password: {error}") })
}

/// A hash that was made elsewhere, if passwords can be checked against it.
pub(super) fn readable(hash: String) -> Result<String, AuthError> {
    match hash.parse::<bcrypt::HashParts>() {
        Ok(_) => Ok(hash),
        Err(_) => Err(AuthError::NoPassword),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_alone() {
        let hasher = Hasher::default();
        let hash = hasher.hash("open sesame".to_owned()).await.expect("it is short");
        let check = |password: &str| hasher.check(Some(hash.clone()), password.to_owned());
        assert_eq!(check("open sesame").await, Ok(true));
        assert_eq!(check("open").await, Ok(false));
        assert_eq!(hasher.check(None, String::new()).await, Ok(false));
    }

    #[tokio::test]
    async fn a_password_that_would_be_cut_is_refused() {
        let hasher = Hasher::default();
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert_eq!(hasher.hash(long.clone()).await, Err(AuthError::PasswordTooLong.into()));
        let hash = hasher.hash(long[1..].to_owned()).await.expect("it is short enough");
        assert_eq!(hasher.check(Some(hash), long).await, Ok(false));
    }

    /// Made with Go's bcrypt, which etcd uses.
    #[test]
    fn hashes_of_etcd_are_readable() {
        let hash = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(bcrypt::verify("allmine", hash).expect("it is a hash"));
        assert!(readable(hash.to_owned()).is_ok());
        assert_eq!(readable("swordfish".to_owned()), Err(AuthError::NoPassword));
    }
}
