//! The bounds of requests, the same as etcd's where etcd has one.

use std::time::Duration;

use onefold_types::limits::COMMAND_BYTES_MAX;

/// Most bytes in a request of an etcd client, unless its node is told otherwise (etcd's
/// `--max-request-bytes`).
pub const REQUEST_BYTES_MAX: usize = 1536 * 1024;

/// Most bytes in a request at all: what a command in the log may have, less its envelope.
pub const REQUEST_BYTES_LIMIT: usize = COMMAND_BYTES_MAX - (64 << 10);

/// Most bytes in a key. The table's keys are shorter than a request, and a key of zero bytes takes
/// twice its room in the history's order. (etcd's only bound is the request's size.)
pub const KEY_BYTES_MAX: usize = 28 << 10;

/// Most operations in one list of a transaction, and in all its nesting levels together, unless the
/// client's node is told otherwise (etcd's `--max-txn-ops`).
pub const TXN_OPERATIONS_MAX: usize = 128;

/// The most that a node may be told. Every replica counts on it.
pub const TXN_OPERATIONS_LIMIT: usize = 8_192;

/// Most levels of transactions within each other.
pub const TXN_LEVELS_MAX: usize = 128;

/// The shortest time to live that a lease gets, in seconds: long enough to survive an election.
pub const LEASE_TTL_SECONDS_MIN: i64 = 2;

/// The longest time to live that a lease may ask for, in seconds.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// How long a request may take in all, elections included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// Most bytes of events that one poll asks for when the caller does not say.
pub const WATCH_BATCH_BYTES: usize = 1 << 20;

/// Longest time that one poll waits for an event.
pub const WATCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// Most bytes of keys and values in an answer that travels in one piece: that of a write, which comes
/// through the log, and that of a sorted range between two processes.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Most users of a keyspace, and most roles. They are held in memory.
pub const AUTH_RECORDS_MAX: usize = 10_000;

/// Most bytes of a user with the names of its roles, and of a role with its permissions.
pub const AUTH_RECORD_BYTES_MAX: usize = 1 << 20;
