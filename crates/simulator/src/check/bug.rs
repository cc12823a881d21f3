//! Bugs put in on purpose, to see that the search finds them. The cores stay as they are: the bugs
//! are mistakes of a driver, of a disk, or of messages that say what a wrong core would say.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A crash erases the vote, but not the term.
    VoteNotPersisted,
    /// Writes are reported as durable when they have only begun.
    AckBeforeDurable,
    /// Entries are reported as durable when they have only begun, terms and votes are not; and the
    /// acknowledgement itself is not looked at, only what comes of it.
    EntriesNotSynced,
    /// A leader tells its followers that an entry of an earlier term is committed once a majority
    /// has it (figure 8).
    CommitByCounting,
    /// Every acknowledgement claims one entry more than the follower has.
    InflatedAcknowledgement,
    /// A leader answers reads from its commit index without asking anybody.
    StaleRead,
    /// A snapshot is labelled one entry further than the state in it.
    MislabelledSnapshot,
    /// The disk does not cut off conflicting entries before it writes others.
    TruncationForgotten,
    /// Voters are changed in one step: logs and messages carry the joint configuration as if it
    /// were the new one.
    SingleStepMembership,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::VoteNotPersisted,
        Self::AckBeforeDurable,
        Self::EntriesNotSynced,
        Self::CommitByCounting,
        Self::InflatedAcknowledgement,
        Self::StaleRead,
        Self::MislabelledSnapshot,
        Self::TruncationForgotten,
        Self::SingleStepMembership,
    ];
}
