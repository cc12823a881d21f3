//! Bugs put in on purpose, to see that the world finds them.
//!
//! Each is a mistake that a driver or a disk could make; the core stays as it is.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The driver reports writes as durable when it has only queued them.
    AckBeforeDurable,
    /// A crash takes the stored hard state back to what it was one write earlier.
    LoseHardState,
    /// A crash erases the vote, but not the term.
    LoseVote,
    /// A crash takes the last durable entry of the log: the disk lied about a flush.
    LoseTail,
    /// The disk does not cut off conflicting entries, it only writes over them.
    IgnoreTruncation,
    /// Writes become durable out of order: a crash may keep a later one and lose an earlier one.
    ReorderWrites,
    /// The driver answers reads from the leader's commit index without asking anyone.
    StaleRead,
    /// A snapshot is labelled one entry further than the state in it.
    MislabelSnapshot,
    /// The driver reports a snapshot as installed, but a crash brings the old state back.
    ForgetInstalled,
    /// The network lets every acknowledgement claim one entry more than the follower has.
    InflateAcknowledgement,
    /// A crash wipes a node's disk and it comes back under its old id: it has forgotten what it
    /// promised.
    WipeMember,
    /// The driver does not tell a leader the time, so its lease does not end.
    StopLeaderClock,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::AckBeforeDurable,
        Self::LoseHardState,
        Self::LoseVote,
        Self::LoseTail,
        Self::IgnoreTruncation,
        Self::ReorderWrites,
        Self::StaleRead,
        Self::MislabelSnapshot,
        Self::ForgetInstalled,
        Self::InflateAcknowledgement,
        Self::WipeMember,
        Self::StopLeaderClock,
    ];
}
