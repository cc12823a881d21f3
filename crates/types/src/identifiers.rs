//! Newtypes for every number that names or orders something.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before the first one that is ever assigned.
            pub const ZERO: Self = Self(0);

            /// The bare number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The value after this one.
            ///
            /// # Panics
            /// When the 64-bit range is used up, which no run can reach by counting.
            #[must_use]
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(next) => Self(next),
                    None => panic!("a 64-bit counter ran out"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// One node of a cluster; never used again for another node once it was removed.
    NodeId
);
number!(
    /// One Raft group.
    GroupId
);
number!(
    /// A Raft term: the logical time of elections (Raft paper, section 5.1).
    Term
);
number!(
    /// The place of an entry in a Raft log; the first entry has index 1.
    LogIndex
);
number!(
    /// One chunk of file data.
    ChunkId
);
number!(
    /// The version of a chunk: raised before each lease (GFS section 4.5).
    ChunkVersion
);
number!(
    /// A revision of a key-value store: one for each transaction that wrote.
    Revision
);
number!(
    /// A client's session, within which its sequence numbers are unique.
    SessionId
);
number!(
    /// Milliseconds since the Unix epoch, as they came through a log.
    Timestamp
);

impl GroupId {
    /// The group that holds the cluster's own records: nodes, credentials, jobs.
    pub const SYSTEM: Self = Self(1);
    /// The default keyspace of the key-value store.
    pub const KV: Self = Self(2);
    /// The namespace of the file system.
    pub const NAMESPACE: Self = Self(3);
    /// The first keyspace that somebody created. Lower numbers are those of the cluster's own groups.
    pub const FIRST_KEYSPACE: Self = Self(16);

    /// Whether the group holds a keyspace that somebody created.
    pub const fn is_keyspace(self) -> bool {
        self.0 >= Self::FIRST_KEYSPACE.0
    }
}

/// The identity of a cluster, drawn at random when it is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
