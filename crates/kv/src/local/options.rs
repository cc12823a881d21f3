//! What can be chosen for a keyspace.

use std::time::Duration;

/// What can be chosen for a keyspace. The leader's choice counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvOptions {
    /// Most bytes of data and history; 0 for no bound. Etcd's `--quota-backend-bytes`.
    pub quota_bytes: u64,
    /// Which history is given up without anybody asking. Etcd's `--auto-compaction-mode` and
    /// `--auto-compaction-retention`.
    pub auto_compaction: AutoCompaction,
    /// How often the time that a lease has left is noted in the log, for the next leader. Leases that
    /// live no longer than this get all of their time again.
    pub lease_checkpoint_interval: Duration,
}

/// The interval of lease checkpoints when nobody says otherwise.
pub const LEASE_CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

/// The quota when nobody says otherwise.
pub const QUOTA_BYTES_DEFAULT: u64 = 8 << 30;

/// How long history is kept when nobody says otherwise.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(3600);

impl Default for KvOptions {
    fn default() -> Self {
        Self {
            quota_bytes: QUOTA_BYTES_DEFAULT,
            auto_compaction: AutoCompaction::Periodic { retention: RETENTION_DEFAULT },
            lease_checkpoint_interval: LEASE_CHECKPOINT_INTERVAL_DEFAULT,
        }
    }
}

/// Which history is given up without anybody asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// What is older than this, but for the newest
    /// [`REVISIONS_KEPT_MIN`](crate::REVISIONS_KEPT_MIN) revisions.
    Periodic {
        /// The age.
        retention: Duration,
    },
    /// All but so many of the newest revisions.
    Revision {
        /// How many.
        retention: u64,
    },
}
