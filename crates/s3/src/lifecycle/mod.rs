//! What expires when ("Managing the lifecycle of objects", S3 user guide).
//!
//! [`rules`] judges one version and is pure; [`sweep`] walks the buckets and carries the judgements out.

pub(crate) mod rules;
pub(crate) mod sweep;
