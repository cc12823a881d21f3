//! The group's errors as the store's.

use onefold_replica::{ProposeError, ReadError};

use crate::KvError;

/// Why a command has no answer.
pub(super) fn from_propose(error: ProposeError) -> KvError {
    let reason = error.to_string();
    match error {
        ProposeError::TooLarge { bytes, .. } => KvError::RequestTooLarge { bytes },
        ProposeError::Overloaded { .. } | ProposeError::SessionsFull { .. } => {
            KvError::Overloaded { reason }
        }
        _ if error.is_not_executed() => KvError::Unavailable { reason },
        _ => KvError::TimedOut { reason },
    }
}

/// Why a read has no view.
pub(super) fn from_read(error: ReadError) -> KvError {
    let reason = error.to_string();
    match error {
        ReadError::Overloaded { .. } => KvError::Overloaded { reason },
        ReadError::Behind { .. } => KvError::TimedOut { reason },
        _ => KvError::Unavailable { reason },
    }
}
