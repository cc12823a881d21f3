//! The S3 API on a real listener over a file system in memory, driven with raw, signed requests.
#![allow(clippy::unwrap_used, missing_docs)]

mod buckets;
mod checksums;
mod client;
mod commands;
mod cors;
mod describe;
mod hostile;
mod lifecycle;
mod limits;
mod listing;
mod lock;
mod multipart;
mod objects;
mod server;
mod signatures;
mod tagging;
mod versions;
