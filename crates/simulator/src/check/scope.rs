//! Which part of the world of a small group is looked at.

use std::collections::BTreeSet;

use onefold_raft::MembershipChange;
use onefold_types::NodeId;

/// More steps than it takes to every state of the scopes that are looked at to the end.
const TO_THE_END: u32 = 100;

/// The bounds of one search. Servers are 1 to `servers`.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// How many servers there are; at most [`Scope::SERVERS_MAX`].
    pub servers: u64,
    /// Those that are voters at first.
    pub voters: BTreeSet<NodeId>,
    /// The logs at first, by their terms, all durable and known to nobody else.
    pub logs: Vec<Vec<u64>>,
    /// The term that every server knows at first.
    pub term_first: u64,
    /// Whether server 1 was elected and everybody heard of it before the search begins. Messages
    /// from before do not come again.
    pub has_leader_first: bool,
    /// Nobody stands for election in a later term.
    pub term_max: u64,
    /// Servers whose election timeout may pass.
    pub candidates: BTreeSet<NodeId>,
    /// Leaders take no commands beyond this index; a new leader's own entry may lie beyond it.
    pub index_max: u64,
    /// How many crashes there may be in all.
    pub crashes_max: u8,
    /// Whether an append carries one entry at most.
    pub has_small_appends: bool,
    /// Whether writes take their time. If not, they are durable at once.
    pub has_slow_disks: bool,
    /// Whether time passes for leaders: heartbeats, and stepping down without a majority.
    pub has_heartbeats: bool,
    /// Whether voters stop to believe in a leader that they heard. If not, a leader is replaced
    /// only by servers that never heard it, or after a crash.
    pub has_lapses: bool,
    /// Whether leaders give up what is applied, so that followers may need a snapshot.
    pub has_compaction: bool,
    /// Whether idle leaders tell their followers to fall silent, and do so themselves.
    pub has_silence: bool,
    /// How many linearizable reads there may be in all.
    pub reads_max: u8,
    /// How often the operator may have leadership handed over.
    pub transfers_max: u8,
    /// What the operator asks of any leader, in this order, once each.
    pub changes: Vec<MembershipChange>,
    /// Steps to which the ordinary test looks.
    pub depth: u32,
    /// Steps to which the long target looks: a few million states.
    pub depth_long: u32,
}

impl Scope {
    /// Most servers of a scope.
    pub const SERVERS_MAX: usize = 3;

    fn of_three(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            servers: 3,
            voters: (1..=3).map(NodeId).collect(),
            logs: Vec::new(),
            term_first: 0,
            has_leader_first: false,
            term_max: 2,
            candidates: (1..=3).map(NodeId).collect(),
            index_max: 0,
            crashes_max: 1,
            has_small_appends: false,
            has_slow_disks: false,
            has_heartbeats: false,
            has_lapses: true,
            has_compaction: false,
            has_silence: false,
            reads_max: 0,
            transfers_max: 0,
            changes: Vec::new(),
            depth: 8,
            depth_long: 16,
        }
    }

    /// A change of the members that follows the election of server 1.
    fn of_change(name: &'static str, about: &'static str, change: MembershipChange) -> Self {
        Self {
            has_leader_first: true,
            changes: vec![change],
            depth: 11,
            depth_long: 21,
            ..Self::of_three(name, about)
        }
    }

    /// The named scopes.
    pub fn all() -> Vec<Self> {
        let three = [NodeId(3)];
        let remove = MembershipChange { remove: three.into(), ..MembershipChange::default() };
        vec![
            Self {
                term_max: 1,
                crashes_max: 2,
                has_lapses: false,
                has_slow_disks: true,
                depth: TO_THE_END,
                depth_long: TO_THE_END,
                ..Self::of_three("one-term", "one term, slow disks, two crashes, to the end")
            },
            Self {
                has_lapses: false,
                has_slow_disks: true,
                depth: 12,
                depth_long: 16,
                ..Self::of_three("elections", "two terms, slow disks, one crash at any moment")
            },
            Self {
                has_leader_first: true,
                index_max: 3,
                has_heartbeats: true,
                has_slow_disks: true,
                depth: 8,
                depth_long: 12,
                ..Self::of_three("replication", "two commands, slow disks, heartbeats, one crash")
            },
            Self {
                logs: vec![vec![1, 2], vec![1], vec![1, 3]],
                term_first: 3,
                term_max: 5,
                has_small_appends: true,
                depth: 12,
                depth_long: 17,
                ..Self::of_three("figure-8", "logs as in figure 8 (b), two more terms, one crash")
            },
            Self {
                has_leader_first: true,
                index_max: 3,
                has_compaction: true,
                depth: 10,
                depth_long: 12,
                ..Self::of_three(
                    "snapshot",
                    "logs are compacted, followers get snapshots, one crash",
                )
            },
            Self {
                has_leader_first: true,
                crashes_max: 0,
                index_max: 3,
                reads_max: 2,
                depth: 10,
                depth_long: 13,
                ..Self::of_three("reads", "two reads of any leaders, two terms, two commands")
            },
            Self {
                has_leader_first: true,
                term_max: 3,
                transfers_max: 1,
                depth: 11,
                depth_long: 16,
                ..Self::of_three("transfer", "leadership is handed over, three terms, one crash")
            },
            Self {
                has_leader_first: true,
                index_max: 2,
                has_heartbeats: true,
                has_silence: true,
                depth: 10,
                depth_long: 13,
                ..Self::of_three("silence", "an idle group falls silent and wakes, one crash")
            },
            Self {
                crashes_max: 0,
                depth: TO_THE_END,
                depth_long: TO_THE_END,
                ..Self::of_change(
                    "calm-remove",
                    "one of three voters is removed, two terms, no crash, to the end",
                    remove.clone(),
                )
            },
            Self {
                depth_long: 19,
                ..Self::of_change(
                    "remove",
                    "one of three voters is removed, two terms, one crash",
                    remove,
                )
            },
            Self {
                depth_long: 19,
                ..Self::of_change(
                    "shrink",
                    "two of three voters are removed at once, two terms, one crash",
                    MembershipChange {
                        remove: [2, 3].map(NodeId).into(),
                        ..MembershipChange::default()
                    },
                )
            },
            Self {
                voters: [NodeId(1)].into(),
                depth_long: 23,
                ..Self::of_change(
                    "grow",
                    "two servers join one voter at once, two terms, one crash",
                    MembershipChange {
                        join: [2, 3].map(NodeId).into(),
                        ..MembershipChange::default()
                    },
                )
            },
            Self {
                voters: [1, 2].map(NodeId).into(),
                ..Self::of_change(
                    "join",
                    "a third server joins two voters, two terms, one crash",
                    MembershipChange { join: three.into(), ..MembershipChange::default() },
                )
            },
            Self {
                voters: [1, 2].map(NodeId).into(),
                ..Self::of_change(
                    "replace",
                    "a new server takes the place of one of two voters, two terms, one crash",
                    MembershipChange {
                        join: three.into(),
                        remove: [NodeId(2)].into(),
                        ..MembershipChange::default()
                    },
                )
            },
        ]
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|scope| scope.name == name)
    }

    /// Whether it makes no difference who is who: then states that differ in that count as one. A
    /// change of the members names servers, and a leader that leaves prefers an heir by its id.
    pub(super) fn is_symmetric(&self) -> bool {
        self.changes.is_empty() && self.candidates.len() as u64 == self.servers
    }
}
