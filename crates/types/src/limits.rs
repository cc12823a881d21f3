//! Sizes that more than one layer must agree on. Every bound has its unit in its name.

/// Most bytes in one chunk's data (GFS section 2.5 chose the same size).
pub const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// Bytes that one checksum of a chunk covers (GFS section 5.2).
pub const CHUNK_BLOCK_BYTES: u64 = 64 << 10;

/// Replicas that a chunk should have when enough nodes are alive.
pub const CHUNK_REPLICAS: usize = 3;

/// Most bytes of one command in a replicated log, its envelope included.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

/// Most bytes of one frame between two processes, header and checksum included.
pub const FRAME_BYTES_MAX: usize = 20 << 20;
