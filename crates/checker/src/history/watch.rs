//! What watchers were told.

use std::fmt;

use onefold_types::{NodeId, Revision};
use serde::{Deserialize, Serialize};

use super::{Nanos, Record, Span};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The key.
    pub key: String,
    /// When it was changed.
    pub revision: Revision,
    /// What it became; nothing if it was removed.
    pub record: Option<Record>,
    /// What it was before, if that was asked for and is known.
    pub previous: Option<Record>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.record {
            Some(record) => write!(
                f,
                "revision {}: put {} = {:?}, version {}, created at {}, lease {}",
                self.revision, self.key, record.value, record.version, record.created, record.lease
            ),
            None => write!(f, "revision {}: delete {}", self.revision, self.key),
        }
    }
}

/// One watcher over its whole life: streams, one after the other, each of which goes on where the
/// one before ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watch {
    /// Who watches.
    pub client: u64,
    /// What is watched.
    pub span: Span,
    /// Whether the records before are asked for.
    pub previous: bool,
    /// The streams in their order.
    pub streams: Vec<Stream>,
}

/// One stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// Which node tells.
    pub node: NodeId,
    /// The first revision that was asked for; without one what comes after the present.
    pub start: Option<Revision>,
    /// What came, in order.
    pub messages: Vec<Message>,
}

/// One message of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// When it came.
    pub at: Nanos,
    /// The revision in its header.
    pub revision: Revision,
    /// What it says.
    pub news: News,
}

/// What a message says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// The watch exists.
    Created,
    /// Something happened.
    Events {
        /// What.
        events: Vec<Event>,
        /// Whether the next message goes on with the same.
        is_fragment: bool,
    },
    /// Everything up to the header's revision has been told.
    Progress,
    /// What was asked for is compacted.
    Compacted {
        /// The oldest revision that there is.
        oldest: Revision,
    },
    /// The watch or the stream ended otherwise.
    Ended(String),
}
