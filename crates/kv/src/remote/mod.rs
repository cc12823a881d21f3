//! The store from outside: the methods that carry it, a node's side of them, and the client's.

mod client;
mod keyspaces;
pub(crate) mod methods;
mod serve;
mod session;
mod watcher;

use onefold_transport::{CallError, RemoteCode, RemoteError};

use crate::KvError;

pub use client::RemoteKv;
pub use keyspaces::Keyspaces;
pub use serve::register;

/// The store's error for the wire.
fn to_remote(error: KvError) -> RemoteError {
    let code = match &error {
        KvError::LeaseNotFound { .. } | KvError::KeyNotFound => RemoteCode::NotFound,
        KvError::LeaseExists { .. } => RemoteCode::AlreadyExists,
        KvError::Compacted { .. }
        | KvError::FutureRevision { .. }
        | KvError::Importing
        | KvError::ImportRefused { .. } => RemoteCode::Conflict,
        KvError::TimedOut { .. } => RemoteCode::DeadlineExceeded,
        KvError::Unavailable { .. } => RemoteCode::Unavailable,
        KvError::Overloaded { .. } | KvError::NoSpace { .. } => RemoteCode::Overloaded,
        KvError::Internal { .. } => RemoteCode::Internal,
        KvError::Auth(_) => RemoteCode::Denied,
        _ => RemoteCode::Invalid,
    };
    RemoteError::new(code, error.to_string()).with_detail(&error)
}

/// The store's error behind a call that failed.
pub(crate) fn error_of_call(error: CallError) -> KvError {
    let reason = error.to_string();
    match &error {
        CallError::Remote(remote) => match (remote.detail(), remote.code) {
            (Some(error), _) => error,
            (None, RemoteCode::Unavailable | RemoteCode::NotLeader) => {
                KvError::Unavailable { reason }
            }
            (None, RemoteCode::Overloaded) => KvError::Overloaded { reason },
            (None, RemoteCode::DeadlineExceeded) => KvError::TimedOut { reason },
            (None, _) => KvError::Internal { reason },
        },
        CallError::Overloaded { .. } => KvError::Overloaded { reason },
        _ if error.is_unsent() => KvError::Unavailable { reason },
        _ => KvError::TimedOut { reason },
    }
}
