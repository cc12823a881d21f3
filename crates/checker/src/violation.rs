//! What can be wrong with a history.

use std::fmt;

use serde::Serialize;

/// The promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// The operations on a key could have happened one at a time.
    Linearizable,
    /// What was acknowledged is in the history.
    Durable,
    /// A revision is one request's.
    RevisionUnique,
    /// A request is executed once at most.
    ExecutedOnce,
    /// An answer is what the history up to its revision makes of the request.
    Replayable,
    /// Whoever asks later sees no older revision.
    RealTime,
    /// Everything in the history was asked for.
    Caused,
    /// A refusal has the reason that it names.
    RefusedRightly,
    /// What is moved between accounts keeps its sum.
    SumKept,
    /// Revisions and versions count by one, and nothing that does not exist is deleted.
    WellFormed,
    /// Every node tells the same history and holds the same keys.
    NodesAgree,
    /// A watch's events come in the order of revisions.
    WatchOrdered,
    /// A watch tells an event once.
    WatchUnique,
    /// A watch leaves no event out.
    WatchReliable,
    /// A watch tells the events of a revision together.
    WatchAtomic,
    /// A broken watch goes on where it ended.
    WatchResumable,
    /// After a bookmark nothing comes that it covers.
    WatchBookmarkable,
    /// What a watch tells happened in that way.
    WatchTruthful,
    /// The record before an event is the one before it.
    WatchPrevious,
    /// A lease lives as long as it was granted, counted from its last keep-alive.
    LeaseTime,
    /// All keys of a lease go together.
    LeaseAtomic,
    /// A lease that nobody keeps alive ends.
    LeaseEnds,
}

impl Promise {
    /// The promise in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "operations on a key are linearizable",
            Self::Durable => "what was acknowledged is in the history",
            Self::RevisionUnique => "a revision is one request's",
            Self::ExecutedOnce => "a request is executed once at most",
            Self::Replayable => "answers are what history makes of their requests",
            Self::RealTime => "whoever asks later sees nothing older",
            Self::Caused => "everything in the history was asked for",
            Self::RefusedRightly => "refusals have the reasons that they name",
            Self::SumKept => "sums are kept",
            Self::WellFormed => "revisions and versions count by one",
            Self::NodesAgree => "nodes agree",
            Self::WatchOrdered => "watches are ordered",
            Self::WatchUnique => "watches are unique",
            Self::WatchReliable => "watches are reliable",
            Self::WatchAtomic => "watches are atomic",
            Self::WatchResumable => "watches are resumable",
            Self::WatchBookmarkable => "watches are bookmarkable",
            Self::WatchTruthful => "watches tell what happened",
            Self::WatchPrevious => "watches tell what was before",
            Self::LeaseTime => "leases live as long as they were granted",
            Self::LeaseAtomic => "the keys of a lease go together",
            Self::LeaseEnds => "leases that nobody keeps alive end",
        }
    }
}

/// A broken promise.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// How it was broken.
    pub what: String,
    /// The part of the history that shows it.
    pub evidence: Vec<String>,
}

impl Violation {
    pub(crate) fn new(promise: Promise, what: impl Into<String>) -> Self {
        Self { promise, what: what.into(), evidence: Vec::new() }
    }

    pub(crate) fn showing(mut self, line: impl fmt::Display) -> Self {
        self.evidence.push(line.to_string());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken: {}", self.promise, self.what)?;
        for line in &self.evidence {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Why a history could not be judged. That is no pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unjudged(pub String);

impl fmt::Display for Unjudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the history could not be judged: {}", self.0)
    }
}

impl std::error::Error for Unjudged {}
