//! Which rare branches a run went through, and which faults it injected.

use super::counted::counted;

counted! {
    /// Something rare that the seeds must reach.
    Branch counted by
    /// How often each branch was taken.
    Coverage;

    /// A leader was elected.
    Elected,
    /// An election went on without a winner.
    SplitVote,
    /// A stale leader was beside a new one.
    TwoLeaders,
    /// A leader stepped down in its own term.
    SteppedDown,
    /// A leader was removed from its group and stepped down.
    RemovedLeader,
    /// An append was refused with a hint that skips several entries.
    FastBacktrack,
    /// Durable entries were truncated.
    LogTruncated,
    /// A log was compacted.
    Compacted,
    /// A snapshot was asked for.
    SnapshotRequested,
    /// A snapshot of more than one piece was staged.
    SnapshotInPieces,
    /// A snapshot went on where it was interrupted.
    SnapshotResumed,
    /// A snapshot went on after the receiver restarted.
    SnapshotResumedAfterRestart,
    /// A snapshot was installed.
    SnapshotInstalled,
    /// A snapshot could not be delivered.
    SnapshotFailed,
    /// A staged snapshot was gone when it was to be installed.
    SnapshotMissing,
    /// A node started with a state that is ahead of its log.
    StateAheadOfLog,
    /// Entries were applied again after a restart.
    AppliedAgain,
    /// Whole cluster down.
    AllDown,
    /// A read was confirmed by a majority.
    ReadConfirmed,
    /// A read was answered under a lease.
    LeaseRead,
    /// A follower served a linearizable read.
    FollowerRead,
    /// A bounded-stale read was served without asking anyone.
    StaleReadServed,
    /// A bounded-stale read had to ask.
    StaleReadAsked,
    /// A local read was served.
    LocalRead,
    /// A read failed with its leader.
    ReadFailed,
    /// A command was proposed through a follower.
    Forwarded,
    /// A proposal was refused as overloaded.
    Overloaded,
    /// A proposal was refused while leadership was handed over.
    Transferring,
    /// A node was told to stand for election.
    TimeoutNow,
    /// An uncommitted command was overwritten by another leader.
    ProposalLost,
    /// A retried command was answered from its session.
    RetryAnswered,
    /// A late retry was refused because its answer was acknowledged.
    RetryTrimmed,
    /// The outcome of an operation stayed unknown.
    OutcomeUnknown,
    /// An unknown command was executed after its client had given up.
    ExecutedAfterGivenUp,
    /// A comparison failed.
    ComparisonFailed,
    /// A joint configuration was entered.
    JointEntered,
    /// A joint configuration was left.
    JointLeft,
    /// A new leader finished the joint configuration of another.
    JointInherited,
    /// A learner was added.
    LearnerAdded,
    /// A learner was promoted by its leader.
    LearnerPromoted,
    /// A voter was demoted.
    VoterDemoted,
    /// A member was removed.
    MemberRemoved,
    /// A wiped node was replaced under a new identity.
    WipedReplaced,
    /// A change of members was refused because another is under way.
    ChangeRefused,
    /// Several members were exchanged at once.
    MembersExchanged,
    /// A group fell quiet.
    FellQuiet,
    /// A quiet follower woke because its leader's node fell silent.
    WokeByDown,
    /// A quiet group was woken by a client.
    WokeByClient,
    /// A cluster lost a minority while its groups were quiet, and elected other leaders.
    QuietLeaderReplaced,
    /// A replica was found to diverge.
    DivergenceFound,
    /// A replica that diverged was rebuilt by a snapshot.
    DivergenceRebuilt,
    /// A replica with a lost state asked for a snapshot.
    SnapshotWanted,
    /// Several inputs were stepped before the output was taken.
    Batched,
    /// A transaction was answered.
    TxnAnswered,
    /// A transaction had another one within.
    TxnNested,
    /// A range of the past was answered.
    PastRead,
    /// A client compacted history.
    HistoryCompacted,
    /// Something was refused because it is compacted.
    CompactedRefused,
    /// A step of compaction removed something.
    HistorySwept,
    /// A watcher was told events.
    WatchTold,
    /// A watch went on where another stream ended.
    WatchResumed,
    /// A watcher was told that what it wants is compacted.
    WatchCompacted,
    /// A lease was renewed.
    LeaseRenewed,
    /// The time that leases have left was noted in the log.
    LeaseNoted,
    /// A note was cleared because the lease was renewed.
    NoteCleared,
    /// A lease's time was over.
    LeaseExpired,
}

counted! {
    /// A fault that the world injects.
    FaultKind counted by
    /// How often each fault was injected.
    Faults;

    /// Packet lost.
    PacketLost,
    /// Packet duplicated.
    PacketDuplicated,
    /// Packet delayed far beyond others.
    PacketDelayed,
    /// Network split in two.
    Split,
    /// Node cut off.
    Isolated,
    /// One direction cut.
    OneWay,
    /// Link flapped.
    Flapped,
    /// Link clogged.
    Clogged,
    /// Node crashed.
    Crashed,
    /// New leader crashed or cut off at once.
    Ambushed,
    /// Network split along a change of voters.
    ChangeSplit,
    /// All nodes crashed.
    AllCrashed,
    /// Unsynced log writes lost.
    WritesLost,
    /// Log write torn.
    WriteTorn,
    /// Unsynced table batches lost.
    TableLost,
    /// Disk stalled.
    DiskStalled,
    /// Disk full.
    DiskFull,
    /// Sync failed.
    SyncFailed,
    /// Bit flipped in the log.
    BitFlipped,
    /// Write misdirected.
    WriteMisdirected,
    /// Disk wiped.
    DiskWiped,
    /// State of a replica changed.
    StateChanged,
    /// Clock rate changed.
    ClockDrifted,
    /// Wall clock jumped.
    ClockJumped,
    /// Process paused.
    Paused,
    /// Live node reported down.
    FalseDown,
    /// Dead node reported up.
    FalseUp,
    /// Stray order to stand for election.
    Usurped,
    /// Snapshot piece damaged.
    PieceDamaged,
    /// Snapshot transfer cut.
    TransferCut,
    /// Staged snapshot given up before it was installed.
    StagingSwept,
    /// Client's request lost.
    RequestLost,
    /// Client's request duplicated.
    RequestDuplicated,
    /// Answer to a client lost.
    AnswerLost,
    /// Stream to a watcher broken.
    StreamBroken,
}
