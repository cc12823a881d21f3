//! What was recorded: who asked what when, what came back, and what the nodes held in the end.

mod operation;
mod watch;

use onefold_types::{NodeId, Revision};
use serde::{Deserialize, Serialize};

pub use operation::{Action, Answer, Compare, Operation, Outcome, Refusal};
pub use watch::{Event, Message, News, Stream, Watch};

/// Nanoseconds on the one clock of the process that recorded a history.
pub type Nanos = u64;

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision that brought it into being.
    pub created: Revision,
    /// The revision that wrote this version.
    pub modified: Revision,
    /// How often it was written since it was created, this write included.
    pub version: u64,
    /// The lease that it hangs on; 0 for none.
    pub lease: u64,
}

/// What a [`Span`] without an end has as its end, as in etcd's API.
pub const NO_END: &str = "\0";

/// Keys that lie together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The first key.
    pub from: String,
    /// The first key beyond, or [`NO_END`]; without it the span is one key.
    pub until: Option<String>,
}

impl Span {
    /// Every key.
    pub fn everything() -> Self {
        Self { from: NO_END.to_owned(), until: Some(NO_END.to_owned()) }
    }

    /// The span of one key.
    pub fn key(key: impl Into<String>) -> Self {
        Self { from: key.into(), until: None }
    }

    /// All keys that begin with `prefix`, whose last character must be below `~`.
    pub fn prefix(prefix: &str) -> Self {
        Self { from: prefix.to_owned(), until: Some(format!("{prefix}~")) }
    }

    /// Whether a key lies in it.
    pub fn contains(&self, key: &str) -> bool {
        match &self.until {
            Some(until) if until == NO_END => self.from.as_str() <= key,
            Some(until) => self.from.as_str() <= key && key < until.as_str(),
            None => self.from == key,
        }
    }
}

/// All events of a stretch of history, as one node told them afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Which node told it.
    pub node: NodeId,
    /// The first revision asked for.
    pub from: Revision,
    /// The last revision that it covers.
    pub until: Revision,
    /// The events in the order in which they came.
    pub events: Vec<Event>,
}

/// What one node held when all was over, by its own account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// The node.
    pub node: NodeId,
    /// The revision at which it was read.
    pub revision: Revision,
    /// Every key, in order.
    pub records: Vec<Record>,
    /// Its hash of history from the compacted revision up to that one, with the compacted revision,
    /// where it computes one.
    pub hash: Option<(Revision, u32)>,
}

/// Keys whose values are `AMOUNT:…` and that clients only move amounts between.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accounts {
    /// The keys.
    pub span: Span,
    /// What the amounts come to whenever all accounts exist.
    pub total: i64,
    /// How many accounts there are.
    pub count: usize,
}

/// Everything that was recorded. Nobody but its clients wrote to the store meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// The revision at which it begins.
    pub begin: Revision,
    /// What the store held then, in the order of the keys.
    pub base: Vec<Record>,
    /// The compacted revision at its beginning.
    pub compacted: Revision,
    /// The last revision that was read back: later ones are not judged.
    pub end: Revision,
    /// What clients did, in any order.
    pub operations: Vec<Operation>,
    /// What watchers were told.
    pub watches: Vec<Watch>,
    /// History as it was read back from the nodes, each stretch once or more often.
    pub readings: Vec<Reading>,
    /// What the nodes held at the end.
    pub copies: Vec<Copy>,
    /// The keys that keep their sum, if there are any.
    pub accounts: Option<Accounts>,
    /// Keys that begin with this are registers: read, put, deleted and compared one at a time.
    pub registers: Option<String>,
    /// By how many millionths a node's clock may be fast: a lease may live so much shorter.
    #[serde(default)]
    pub clock_drift_ppm: u64,
}
