//! Writing files: from a caller's bytes to extents in chunks, and then to a file.
//!
//! ```text
//! FileWriter ─▶ pieces of 1 MiB ─┬─▶ MD5, on another thread
//!                                └─▶ chunk of its own, or a shared one for a small file
//! finish ─▶ all pieces acknowledged ─▶ one command makes the file visible
//! ```
//!
//! A piece whose append fails is written again in another chunk; the failed chunk gets no more
//! appends and is sealed. So a file may have bytes in several chunks and never a byte twice.

mod hasher;
mod held;
mod pool;
mod writer;

pub(crate) use held::HeldChunks;
pub(crate) use pool::ChunkPool;
pub(crate) use writer::{LocalWriter, Target};
