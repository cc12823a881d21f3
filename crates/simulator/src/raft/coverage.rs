//! Which rare branches a run went through.

use std::fmt;

macro_rules! branches {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something rare that the seeds must reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Branch {
            $($(#[$doc])* $name,)*
        }

        impl Branch {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// For people.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

branches! {
    /// A leader was elected.
    Elected = "leader elected",
    /// A pre-vote was refused.
    PreVoteRejected = "pre-vote rejected",
    /// A vote was refused.
    VoteRejected = "vote rejected",
    /// A candidate went on to another term without a leader in between.
    SplitVote = "election without a winner",
    /// Two nodes held themselves for leader, of different terms.
    TwoLeaders = "stale leader beside a new one",
    /// A leader stepped down in its own term: no quorum, or its disk stalled.
    CheckQuorum = "leader stepped down by check-quorum",
    /// A message of an older term was answered with the newer one.
    TermOver = "older term refused",
    /// An append was refused with a hint that skips several conflicting entries.
    FastBacktrack = "fast backtrack over a term",
    /// Durable entries were truncated.
    LogTruncated = "log truncated",
    /// Entries were compacted.
    Compacted = "log compacted",
    /// A snapshot was asked for.
    SnapshotRequested = "snapshot requested",
    /// A snapshot was installed.
    SnapshotInstalled = "snapshot installed",
    /// A snapshot did not reach its follower.
    SnapshotFailed = "snapshot delivery failed",
    /// A staged snapshot was gone when it was to be installed.
    SnapshotMissing = "staged snapshot missing",
    /// A node started with a state machine that is ahead of its log.
    StateAheadOfLog = "restart with a snapshot ahead of the log",
    /// A crash lost writes.
    CrashLostWrites = "crash lost unpersisted writes",
    /// A crash kept some of the unfinished writes and lost others.
    CrashKeptPrefix = "crash kept a prefix of unpersisted writes",
    /// A crash took the state machine behind what it had applied.
    AppliedAgain = "entries applied again after a restart",
    /// All nodes were down at once.
    AllDown = "whole group down",
    /// A read was confirmed.
    ReadConfirmed = "read confirmed",
    /// A read failed because leadership was lost.
    ReadFailed = "read failed with its leader",
    /// A proposal was refused for too many uncommitted bytes.
    Overloaded = "proposal refused as overloaded",
    /// A proposal was refused because leadership was being handed over.
    Transferring = "proposal refused during a transfer",
    /// A node was told to stand for election.
    TimeoutNow = "leadership handed over",
    /// A proposed command was lost to another leader.
    ProposalLost = "uncommitted proposal overwritten",
    /// A change of the members was begun.
    ChangeBegun = "membership change begun",
    /// A change was refused because another is under way.
    ChangeInProgress = "membership change refused during another",
    /// A joint configuration was committed.
    Joint = "joint configuration committed",
    /// A leader promoted learners by itself.
    Promoted = "learners promoted",
    /// A leader that is no voter any longer handed over.
    LeaderLeft = "leader left the voters",
    /// A membership entry was truncated.
    MembershipReverted = "uncommitted membership reverted",
    /// A server that is no member of its leader's group asked for votes.
    StrangerCampaigned = "removed server asked for votes",
    /// A leader fell silent.
    LeaderQuiet = "leader fell silent",
    /// A follower fell silent.
    FollowerQuiet = "follower fell silent",
    /// A follower refused to fall silent, or asked for a silent leader.
    Awake = "silence refused or questioned",
    /// A hint woke a silent node.
    WokenByHint = "woken by a hint",
    /// A read was answered at once because of a lease.
    LeaseRead = "lease read",
    /// A state machine was lost.
    StateLost = "state lost",
    /// A server without a state asked for a snapshot.
    SnapshotWanted = "snapshot wanted for a lost state",
    /// A server without a state led, to hand over.
    LedWithoutState = "led without a state",
    /// A lost state was rebuilt.
    StateRebuilt = "lost state rebuilt",
    /// A process stood still.
    Paused = "process paused",
    /// The driver stepped several inputs before it took the output.
    Batched = "inputs batched",
}

/// How often each branch was taken.
#[derive(Clone, Debug)]
pub struct Coverage([u64; Branch::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Branch::ALL.len()])
    }
}

impl Coverage {
    /// The branch was taken once more.
    pub(crate) fn hit(&mut self, branch: Branch) {
        self.0[branch as usize] += 1;
    }

    /// Adds what another run did.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// How often the branch was taken.
    pub fn count(&self, branch: Branch) -> u64 {
        self.0[branch as usize]
    }

    /// The branches that were never taken.
    pub fn missed(&self) -> Vec<Branch> {
        Branch::ALL.iter().copied().filter(|&branch| self.count(branch) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &branch in Branch::ALL {
            writeln!(f, "{:>12}  {}", self.count(branch), branch.name())?;
        }
        Ok(())
    }
}
