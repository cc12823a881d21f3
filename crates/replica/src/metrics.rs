//! Numbers about a host, counted where things happen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use onefold_types::{GroupId, LogIndex};

use crate::SnapshotMetrics;

/// A number that one thread writes most of the time, and anybody may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn subtract(&self, amount: usize) {
        let before = self.0.fetch_sub(amount as u64, Ordering::Relaxed);
        debug_assert!(before >= amount as u64, "a gauge of the group host went below zero");
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_index(&self, index: LogIndex) {
        self.0.store(index.get(), Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Declares numbers once: the counters that the host's threads write, and their plain values.
macro_rules! numbers {
    (
        $(#[$about:meta])* $values:ident from $counters:ident {
            $($(#[doc = $doc:literal])* $name:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $values { $($(#[doc = $doc])* pub $name: u64,)* }

        impl $values {
            /// Each number with its name and what it says, in the order of their declaration.
            pub fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name),)*]
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct $counters { $(pub(crate) $name: Counter,)* }

        impl $counters {
            /// The values now; each is of a moment of its own.
            pub(crate) fn values(&self) -> $values {
                $values { $($name: self.$name.get(),)* }
            }
        }
    };
}

numbers! {
    /// Numbers about all groups of a node together. Those that end in `_total` only rise.
    NodeMetrics from NodeCounters {
        /// Groups that are silent, since nothing happens in them.
        groups_quiet,
        /// Groups that this node leads.
        groups_led,
        /// Nodes that share a group with this one and do not beat.
        nodes_down,
        /// Rounds of the consensus thread.
        rounds_total,
        /// Beats sent to other nodes.
        beats_sent_total,
        /// Beats of other nodes that were taken in.
        beats_received_total,
        /// Frames of Raft messages sent: at most one for each round and node, unless it is long.
        frames_sent_total,
        /// Raft messages sent.
        messages_sent_total,
        /// Frames of Raft messages taken in.
        frames_received_total,
        /// Raft messages taken in.
        messages_received_total,
        /// Frames dropped since too many waited.
        frames_dropped_full_total,
        /// Frames and beats that do not decode.
        frames_malformed_total,
        /// Raft messages that break a rule which every correct sender keeps.
        messages_malformed_total,
        /// Raft messages of groups that are not on this node.
        messages_unknown_group_total,
        /// Raft messages of groups that were destroyed on this node.
        messages_destroyed_group_total,
        /// Answers of nodes that are no members of the group.
        messages_not_member_total,
        /// Appends to the log: each is one write and shares a sync with those that wait with it.
        log_appends_total,
        /// Records in the appends to the log.
        log_records_total,
        /// Bytes on their way to the log.
        unsynced_bytes,
        /// Bytes of applied entries that the groups keep for slow followers.
        retained_bytes,
        /// Compactions made before a group's own time, since the node keeps too much.
        compactions_forced_total,
        /// Proposals that wait for the consensus thread.
        proposals_waiting,
        /// Bytes of proposals that wait for the consensus thread.
        proposals_waiting_bytes,
        /// Reads that wait for the consensus thread.
        reads_waiting,
        /// Frames that wait for the consensus thread.
        frames_waiting,
        /// Bytes of frames that wait for the consensus thread.
        frames_waiting_bytes,
    }
}

numbers! {
    /// Numbers about one group on one node. Those that end in `_total` only rise.
    GroupMetrics from GroupCounters {
        /// Commands that this replica, as the leader, took into its log.
        proposals_accepted_total,
        /// Commands that this replica did not take: too much work, or another node leads.
        proposals_refused_total,
        /// Commands refused because they are larger than an entry may be.
        proposals_too_large_total,
        /// Commands whose outcome this replica could not tell who proposed them.
        proposals_unknown_total,
        /// Linearizable reads that this replica, as the leader, was asked for.
        reads_total,
        /// The last index known to be committed.
        commit_index,
        /// The last index that is applied.
        applied_index,
        /// Entries applied.
        entries_applied_total,
        /// Bytes of the entries applied.
        bytes_applied_total,
        /// Times that this replica stood for election.
        elections_total,
        /// Times that this replica won an election.
        elections_won_total,
        /// Times that another leader than before was seen.
        leader_changes_total,
        /// Changes of the members that were written to the log here.
        membership_changes_total,
        /// Bytes of applied entries that are kept for slow followers.
        retained_bytes,
        /// Applied entries that are kept for slow followers.
        retained_entries,
        /// Bytes of entries in the log that are not applied yet.
        unapplied_bytes,
        /// Bytes sent to the followers and not yet answered, of all of them together.
        in_flight_bytes,
        /// Compactions of the log.
        compactions_total,
        /// Snapshots delivered to other nodes.
        snapshots_sent_total,
        /// Snapshots that could not be delivered.
        snapshots_failed_total,
        /// Snapshots received and installed.
        snapshots_installed_total,
        /// Times that this replica's state was found to differ from the majority's.
        divergences_total,
        /// Times that another replica's state was found to differ from the majority's.
        divergences_seen_total,
        /// Times that the replicas' states differed and none had a majority.
        divergences_undecided_total,
    }
}

/// Everything that a host counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMetrics {
    /// All groups together.
    pub node: NodeMetrics,
    /// Transfers of snapshots.
    pub snapshots: SnapshotMetrics,
    /// Each group.
    pub groups: BTreeMap<GroupId, GroupMetrics>,
}
