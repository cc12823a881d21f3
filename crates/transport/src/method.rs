//! What can be called, and on which of a peer's connections.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The number of a method or one-way message on the wire; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MethodId(pub u16);

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A typed call. A service declares a unit struct for each of its methods.
///
/// The request and the response are sent as postcard in the frame's head. Bulk bytes belong in the
/// body that travels beside them: it is not copied between the socket and the handler.
pub trait Method {
    /// The method's number, unique among all services of a node.
    const ID: MethodId;
    /// The method's name in errors and traces, as in `files.append`.
    const NAME: &'static str;
    /// What the caller asks.
    type Request: Serialize + DeserializeOwned + Send;
    /// What the handler answers.
    type Response: Serialize + DeserializeOwned + Send;
}

/// The kind of traffic, which chooses the TCP connection: bulk data never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Raft messages and what must not wait behind anything else.
    Consensus,
    /// Small calls.
    Call,
    /// Calls that carry much data: chunk contents, shuffle runs, snapshots.
    Bulk,
}

impl Class {
    /// Most calls in flight on one connection of this class. A caller beyond it waits its turn.
    pub const fn calls_in_flight_max(self) -> usize {
        match self {
            Self::Consensus => 256,
            Self::Call => 1024,
            // A response waits in memory until it is written: keep their number small.
            Self::Bulk => 32,
        }
    }
}

/// Declares methods, one a line: what it does, its number, its type, its name, what is asked and what
/// is answered.
///
/// ```
/// onefold_transport::methods! {
///     /// Says what it is told.
///     9 pub Echo "test.echo" String => String;
/// }
/// ```
#[macro_export]
macro_rules! methods {
    ($(
        $(#[$doc:meta])*
        $number:literal $visible:vis $type:ident $name:literal $request:ty => $response:ty;
    )*) => {
        $(
            $(#[$doc])*
            $visible struct $type;

            impl $crate::Method for $type {
                const ID: $crate::MethodId = $crate::MethodId($number);
                const NAME: &'static str = $name;
                type Request = $request;
                type Response = $response;
            }
        )*
    };
}
