//! What clients asked and what they were answered.

use std::fmt;

use onefold_types::{NodeId, Revision};
use serde::{Deserialize, Serialize};

use super::{Nanos, Record, Span};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Reads keys.
    Range {
        /// Which.
        span: Span,
        /// At which revision; without one the present.
        at: Option<Revision>,
        /// Whether an older present will do.
        serializable: bool,
    },
    /// Writes a key. Values are never written twice, which tells who wrote what.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The lease to hang it on; 0 for none.
        lease: u64,
        /// Whether the record before is asked for.
        previous: bool,
    },
    /// Removes keys.
    Delete {
        /// Which.
        span: Span,
        /// Whether the records before are asked for.
        previous: bool,
    },
    /// Does one list of things or another, all at once.
    Txn {
        /// What must hold for the first list.
        compares: Vec<Compare>,
        /// Done if all of it holds.
        success: Vec<Action>,
        /// Done if not.
        failure: Vec<Action>,
    },
    /// Forgets history before a revision.
    Compact {
        /// The oldest revision that stays readable.
        at: Revision,
    },
    /// Asks for a lease.
    Grant {
        /// The time to live that was wished for.
        ttl_seconds: u64,
    },
    /// Ends a lease.
    Revoke {
        /// Which.
        lease: u64,
    },
    /// Gives a lease its full time again.
    KeepAlive {
        /// Which.
        lease: u64,
    },
}

/// A condition of a transaction on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The key holds this value; a key that does not exist holds none.
    Value {
        /// The key.
        key: String,
        /// What it must hold.
        value: String,
    },
    /// The key was written last at this revision; 0 for a key that does not exist.
    Modified {
        /// The key.
        key: String,
        /// The revision.
        at: Revision,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What the keys hold, in their order.
    Range(Vec<Record>),
    /// Written; with the record before, if that was asked for and there was one.
    Put(Option<Record>),
    /// Removed.
    Delete {
        /// How many keys.
        deleted: u64,
        /// The records before, if they were asked for.
        previous: Vec<Record>,
    },
    /// Which list was done, and its answers.
    Txn {
        /// Whether it was the first one.
        succeeded: bool,
        /// One answer for each thing done.
        answers: Vec<Answer>,
    },
    /// Compacted, or revoked.
    Done,
    /// There is a lease.
    Granted {
        /// Its number.
        lease: u64,
        /// Its time to live.
        ttl_seconds: u64,
    },
    /// The lease lives for this long; 0 if there is none.
    KeptAlive {
        /// Seconds.
        ttl_seconds: u64,
    },
}

impl Answer {
    /// Whether what was answered made a revision of its own.
    pub(crate) fn wrote(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Delete { deleted, .. } => *deleted > 0,
            Self::Txn { answers, .. } => answers.iter().any(Self::wrote),
            Self::Range(_) | Self::Done | Self::Granted { .. } | Self::KeptAlive { .. } => false,
        }
    }
}

/// Why a request was refused for good: it had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The revision is compacted.
    Compacted,
    /// The revision is yet to come.
    Future,
    /// There is no such lease.
    LeaseNotFound,
    /// Anything else that had no effect.
    Other(String),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With an answer.
    Answered {
        /// The revision of the store in the answer's header.
        revision: Revision,
        /// The answer.
        answer: Answer,
    },
    /// With a refusal.
    Refused(Refusal),
    /// Nobody knows: it may have happened, may still happen, or never will.
    Unknown(String),
}

/// One request and its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// Which node was asked.
    pub node: NodeId,
    /// When, just before it was sent.
    pub called: Nanos,
    /// When it ended, just after it was heard of.
    pub returned: Nanos,
    /// What was asked.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer and the revision of its header, if it was answered.
    pub fn answered(&self) -> Option<(Revision, &Answer)> {
        match &self.outcome {
            Outcome::Answered { revision, answer } => Some((*revision, answer)),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether nobody knows what became of it.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    /// Whether it may be answered from an older state.
    pub(crate) fn is_serializable(&self) -> bool {
        matches!(self.action, Action::Range { serializable: true, .. })
    }

    /// Whether its answer says something about keys: the others are about leases and compaction.
    pub(crate) fn is_about_keys(&self) -> bool {
        match self.action {
            Action::Range { .. }
            | Action::Put { .. }
            | Action::Delete { .. }
            | Action::Txn { .. } => true,
            Action::Compact { .. }
            | Action::Grant { .. }
            | Action::Revoke { .. }
            | Action::KeepAlive { .. } => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Nanos| time as f64 / 1e9;
        write!(
            f,
            "{:.6} to {:.6} s, client {}, node {}: {:?} -> {:?}",
            seconds(self.called),
            seconds(self.returned),
            self.client,
            self.node,
            self.action,
            self.outcome
        )
    }
}
