//! The two ways in which a step of the core fails.

use onefold_table::TableError;

use crate::{AuthError, KvError};

/// A request's own fault, or the disk's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The request is answered with this; the state is as before.
    #[error(transparent)]
    Request(#[from] KvError),
    /// The replica cannot go on.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Separates what the request did wrong from what the disk did.
pub(crate) fn split<T>(result: Result<T, StoreError>) -> Result<Result<T, KvError>, TableError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(StoreError::Request(error)) => Ok(Err(error)),
        Err(StoreError::Table(error)) => Err(error),
    }
}

impl From<AuthError> for StoreError {
    fn from(error: AuthError) -> Self {
        Self::Request(error.into())
    }
}

impl From<TableError> for KvError {
    fn from(error: TableError) -> Self {
        Self::Internal { reason: error.to_string() }
    }
}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Request(error) => error,
            StoreError::Table(error) => error.into(),
        }
    }
}
