//! What can go wrong: with a call, in a handler, and when a server starts.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Refusal;

/// Why a call has no response.
#[derive(Debug, Error)]
pub enum CallError {
    /// No connection could be had. The request was not sent.
    #[error(
        "cannot reach {address}: {source}; check that a node runs there and that the address is \
         right"
    )]
    Unreachable {
        /// Where the peer should be, or its node number when no address is known.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connection ended while the call was under way; the peer may or may not have acted on it.
    #[error("the connection to {address} ended before {method} was answered: {reason}")]
    Disconnected {
        /// The peer.
        address: String,
        /// The method called.
        method: &'static str,
        /// How it ended.
        reason: String,
        /// Whether no byte of the request had been written yet.
        unsent: bool,
    },
    /// No answer in time; the peer may or may not have acted on the call.
    #[error("{address} did not answer {method} within {} ms", timeout.as_millis())]
    TimedOut {
        /// The peer.
        address: String,
        /// The method called.
        method: &'static str,
        /// The time that the caller allowed.
        timeout: Duration,
        /// Whether no byte of the request had been written yet.
        unsent: bool,
    },
    /// The peer (or this side, on reading the peer's hello) refused the connection.
    #[error("{address} and this process cannot talk: {reason}")]
    Refused {
        /// The peer.
        address: String,
        /// Which rule forbids it, and what to do.
        reason: Refusal,
    },
    /// The peer has too much work and did not start on this call.
    #[error("{address} is overloaded and did not start {method}; try again later")]
    Overloaded {
        /// The peer.
        address: String,
        /// The method called.
        method: &'static str,
    },
    /// The handler answered with an error.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Something does not fit the protocol: a request too large to send, or an answer that does not
    /// decode.
    #[error("{method} to {address}: {reason}")]
    Protocol {
        /// The peer.
        address: String,
        /// The method called.
        method: &'static str,
        /// What does not fit.
        reason: String,
        /// Whether no byte of the request had been written yet.
        unsent: bool,
    },
}

impl CallError {
    /// True when the request certainly did not reach the peer's handler, so that sending it again,
    /// there or elsewhere, cannot do anything twice.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Overloaded { .. } => true,
            Self::Disconnected { unsent, .. }
            | Self::TimedOut { unsent, .. }
            | Self::Protocol { unsent, .. } => *unsent,
            Self::Remote(_) => false,
        }
    }

    /// The handler's code, when a handler answered.
    pub fn remote_code(&self) -> Option<RemoteCode> {
        match self {
            Self::Remote(error) => Some(error.code),
            _ => None,
        }
    }
}

/// The kind of a [`RemoteError`]: what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum RemoteCode {
    /// A code that this version does not know.
    Unknown(u16),
    /// A bug or a broken invariant on the other side.
    Internal,
    /// The request itself is wrong; sending it again cannot help.
    Invalid,
    /// What the request names does not exist.
    NotFound,
    /// What the request would create exists.
    AlreadyExists,
    /// The state does not allow the request (a condition failed, a newer version exists).
    Conflict,
    /// The caller's lease, epoch, term or version is behind: find out the present one.
    Stale,
    /// Another node leads; `detail` may say which.
    NotLeader,
    /// Cannot be served now (no quorum, starting, shutting down): try again or elsewhere.
    Unavailable,
    /// The service has too much work: try again later.
    Overloaded,
    /// A quota or the disk is full.
    Exhausted,
    /// The caller may not do this.
    Denied,
    /// Stored data failed its checksum: read another replica.
    Corrupt,
    /// The peer does not know this method or feature.
    Unsupported,
    /// The work was given up because its time was over.
    DeadlineExceeded,
}

/// The codes that have a fixed number on the wire.
const REMOTE_CODES: [(u16, RemoteCode); 14] = [
    (1, RemoteCode::Internal),
    (2, RemoteCode::Invalid),
    (3, RemoteCode::NotFound),
    (4, RemoteCode::AlreadyExists),
    (5, RemoteCode::Conflict),
    (6, RemoteCode::Stale),
    (7, RemoteCode::NotLeader),
    (8, RemoteCode::Unavailable),
    (9, RemoteCode::Overloaded),
    (10, RemoteCode::Exhausted),
    (11, RemoteCode::Denied),
    (12, RemoteCode::Corrupt),
    (13, RemoteCode::Unsupported),
    (14, RemoteCode::DeadlineExceeded),
];

impl From<u16> for RemoteCode {
    fn from(number: u16) -> Self {
        let known = REMOTE_CODES.iter().find(|(candidate, _)| *candidate == number);
        known.map_or(Self::Unknown(number), |(_, code)| *code)
    }
}

impl From<RemoteCode> for u16 {
    fn from(code: RemoteCode) -> Self {
        if let RemoteCode::Unknown(number) = code {
            return number;
        }
        let known = REMOTE_CODES.iter().find(|(_, candidate)| *candidate == code);
        known.expect("every named code is in the table").0
    }
}

/// An error that a handler answers. Code, message and detail reach the caller unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct RemoteError {
    /// What kind of error it is.
    pub code: RemoteCode,
    /// What went wrong, why, and what to do, for a person.
    pub message: String,
    /// The service's own typed error as postcard; empty when it has none.
    pub detail: Bytes,
}

impl RemoteError {
    /// An error without detail.
    pub fn new(code: RemoteCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: Bytes::new() }
    }

    /// The same error with the service's own typed error.
    #[must_use]
    pub fn with_detail<T: Serialize>(mut self, detail: &T) -> Self {
        // A type that cannot be serialized costs its detail, never the error.
        self.detail = postcard::to_stdvec(detail).map_or_else(|_| Bytes::new(), Bytes::from);
        self
    }

    /// The service's own typed error, when there is one and it decodes.
    pub fn detail<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        if self.detail.is_empty() {
            return None;
        }
        postcard::from_bytes(&self.detail).ok()
    }
}

/// Why a server cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another process listens there.
    #[error(
        "the address {address} is in use by another process; stop that process or choose another \
         port"
    )]
    AddressInUse {
        /// The address asked for.
        address: String,
    },
    /// The address is not one of this machine, not allowed, or not an address at all.
    #[error("cannot listen on {address}: {source}; give an address of this machine as host:port")]
    Bind {
        /// The address asked for.
        address: String,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number() {
        for number in 0..32 {
            assert_eq!(u16::from(RemoteCode::from(number)), number);
        }
    }

    #[test]
    fn codes_have_distinct_numbers() {
        let numbers: std::collections::BTreeSet<u16> =
            REMOTE_CODES.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), REMOTE_CODES.len());
    }

    #[test]
    fn detail_travels_as_the_services_own_type() {
        let error = RemoteError::new(RemoteCode::NotLeader, "node 2 leads").with_detail(&2_u64);
        let bytes = postcard::to_stdvec(&error).expect("a plain struct serializes");
        let back: RemoteError = postcard::from_bytes(&bytes).expect("it was just serialized");
        assert_eq!(back, error);
        assert_eq!(back.detail::<u64>(), Some(2));
        assert_eq!(RemoteError::new(RemoteCode::Internal, "").detail::<u64>(), None);
    }
}
