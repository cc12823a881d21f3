//! Every bound of MapReduce that users or operators meet. Sizes carry their unit in their name.

use std::time::Duration;

/// Most bytes that a split may aim at. Where a chunk ends near its end, it has up to half as many
/// more; and the rest of its last line.
pub const SPLIT_BYTES_MAX: u64 = 64 << 20;

/// Most files that one map task reads: small files are put together until a split is full.
pub const SPLIT_FILES_MAX: usize = 1000;

/// Most bytes of one line, one key or one value.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// Most map tasks of one job. With whole splits that is 6.4 TB of input.
pub const MAP_TASKS_MAX: usize = 100_000;

/// Most reduce tasks of one job.
pub const REDUCE_TASKS_MAX: u32 = 10_000;

/// Most paths that one job reads.
pub const INPUT_PATHS_MAX: usize = 1000;

/// Most bytes of all paths, commands, variables and patterns of one job.
pub const SPEC_BYTES_MAX: usize = 256 << 10;

/// Most bytes of all files that are sent along with one job.
pub const SHIPPED_BYTES_MAX: usize = 512 << 10;

/// Failed attempts of one task after which the job fails (Hadoop's default).
pub const ATTEMPTS_FAILED_MAX: u32 = 4;

/// Times that the output of one map task may turn out to be unreadable before the job fails.
pub const FETCH_FAILURES_MAX: u32 = 16;

/// Jobs that are remembered after they ended.
pub const JOBS_KEPT_MAX: usize = 1000;

/// Jobs that may be under way at once.
pub const JOBS_ACTIVE_MAX: usize = 100;

/// Failed attempts that a job's status describes: the first ones and the latest.
pub const FAILURES_KEPT_MAX: usize = 20;

/// Bytes of standard error that are kept of one attempt: its beginning and its end.
pub const LOG_BYTES_MAX: usize = 64 << 10;

/// Bytes of standard error that a failure's description quotes.
pub const LOG_TAIL_BYTES_MAX: usize = 2 << 10;

/// Bytes of attempts' logs that a node keeps in all; the oldest jobs' logs go first.
pub const LOGS_BYTES_MAX: u64 = 128 << 20;

/// Bytes of logs that one answer carries.
pub const LOGS_ANSWER_BYTES_MAX: usize = 4 << 20;

/// Counters of one job; further names are dropped.
pub const COUNTERS_MAX: usize = 1000;

/// Bytes of the reason that is given for a failed attempt.
pub const REASON_BYTES_MAX: usize = 4 << 10;

/// Counters that user code may create in one attempt, and the bytes of one counter's name.
pub const USER_COUNTERS_MAX: usize = 120;
/// See [`USER_COUNTERS_MAX`].
pub const COUNTER_NAME_BYTES_MAX: usize = 128;

/// Bytes of map output that a task sorts in memory before it writes a run.
pub const SORT_BYTES_DEFAULT: usize = 64 << 20;

/// Bytes of distinct keys that the built-in jobs count in memory before they sort them.
pub const COUNT_BYTES_DEFAULT: usize = 32 << 20;

/// Bytes of fetched map output that a reduce task keeps in memory; the rest waits on disk.
pub const FETCH_BYTES_DEFAULT: usize = 32 << 20;

/// Runs that are merged at once; more are merged in several passes.
pub const MERGE_WAYS_MAX: usize = 128;

/// Bytes of one piece of map output on its way to a reduce task.
pub const FETCH_PIECE_BYTES_MAX: usize = 1 << 20;

/// Map outputs that a reduce task fetches at once.
pub const FETCHES_MAX: usize = 4;

/// Time without progress after which an attempt of user code is given up, unless the job says
/// otherwise (Hadoop's default).
pub const TASK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// Time for which a task waits for files that cannot be had at the moment.
pub const FILES_PATIENCE: Duration = Duration::from_secs(60);

/// Time between two reports of a worker.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Silence after which a worker counts as dead.
pub const WORKER_TIMEOUT: Duration = Duration::from_secs(3);
