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
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 20] = [
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
    ];
}
