//! Bugs put in on purpose, to see that the world finds them.
//!
//! Each is a mistake that systems of this kind have made. They are made by the simulated drivers,
//! disks and networks, which change what goes into the real cores and comes out of them; the cores
//! stay as they are.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Writes are reported durable when they are only appended.
    AckBeforeSync,
    /// A restart has forgotten whom the node voted for.
    ForgetVote,
    /// A restart finds the hard state of one write earlier.
    ForgetHardState,
    /// Log compaction removes the only copy of the hard state.
    HardStateLostWithCompaction,
    /// Conflicting entries are not cut off on disk, only written over.
    IgnoreTruncation,
    /// A restart cuts the last durable entry off, as if its write were torn.
    CutDurableTail,
    /// The leader counts replicas of an earlier term's entry as a commit (figure 8 of the paper).
    CommitEarlierTerm,
    /// Acknowledgements claim one entry more than the follower has.
    InflateAcknowledgement,
    /// A leader answers reads without asking whether it still leads.
    StaleRead,
    /// A follower answers linearizable reads before it has applied what they must see.
    ReadBeforeApply,
    /// A leader's lease is measured with a clock that stands still.
    FrozenLeaseClock,
    /// Commands go into the log without their session.
    NoDedupe,
    /// A snapshot does not bring the sessions along.
    SnapshotWithoutSessions,
    /// A snapshot pretends to cover one entry more than it does.
    SnapshotSkipsEntry,
    /// A restart has the data of entries, but not that they were applied.
    ApplyTwice,
    /// The log is compacted before the table is synced.
    CompactBeforeSync,
    /// Voters are changed in one step: the joint configuration is written as the new one.
    SingleStepMembership,
    /// Learners are counted as voters.
    LearnersVote,
    /// Nobody tells quiet groups that their leader's node is down.
    QuietIgnoresDown,
    /// Nobody compares the hashes of replicas.
    IgnoreDivergence,
    /// A transaction does half of what it should.
    TxnHalfDone,
    /// A compaction takes one revision more than was asked for.
    CompactionTakesMore,
    /// A leader renews leases without asking whether it still leads.
    RenewedUnasked,
    /// A lease that was renewed keeps a note of less time, which a later leader has read already.
    NoteClearedElsewhere,
    /// What a deposed leader finds to be over ends.
    DeposedEndsLeases,
    /// The time of a stall counts against leases.
    StallEndsLeases,
    /// A new leader does not know the leases of before.
    OldLeasesForgotten,
    /// The keys of a lease go one after the other.
    LeaseEndsInPieces,
    /// What was committed just before a change of leaders is not told.
    WatchForgetsAtElection,
    /// A watch that goes on tells again what was told.
    WatchResumesTooEarly,
    /// What one revision changed is told in two messages.
    WatchSplitsRevision,
    /// Messages to a watcher overtake each other.
    WatchOvertakes,
    /// A watcher is told to have heard everything while it has not.
    BookmarkAhead,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::AckBeforeSync,
        Self::ForgetVote,
        Self::ForgetHardState,
        Self::HardStateLostWithCompaction,
        Self::IgnoreTruncation,
        Self::CutDurableTail,
        Self::CommitEarlierTerm,
        Self::InflateAcknowledgement,
        Self::StaleRead,
        Self::ReadBeforeApply,
        Self::FrozenLeaseClock,
        Self::NoDedupe,
        Self::SnapshotWithoutSessions,
        Self::SnapshotSkipsEntry,
        Self::ApplyTwice,
        Self::CompactBeforeSync,
        Self::SingleStepMembership,
        Self::LearnersVote,
        Self::QuietIgnoresDown,
        Self::IgnoreDivergence,
        Self::TxnHalfDone,
        Self::CompactionTakesMore,
        Self::RenewedUnasked,
        Self::NoteClearedElsewhere,
        Self::DeposedEndsLeases,
        Self::StallEndsLeases,
        Self::OldLeasesForgotten,
        Self::LeaseEndsInPieces,
        Self::WatchForgetsAtElection,
        Self::WatchResumesTooEarly,
        Self::WatchSplitsRevision,
        Self::WatchOvertakes,
        Self::BookmarkAhead,
    ];
}
