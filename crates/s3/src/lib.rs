//! The S3 API over the file system: what the AWS CLI and every S3 library talk to.
//!
//! ```text
//! serve          listener, connections, time limits                     server, stall
//!   front        admission, what is refused unread, error pages, CORS   front, admission, body, cors
//!     s3s        parsing, SigV4, XML                                    (a crate, behind us)
//!       access   who may do what, headers we must not ignore            access, credentials
//!         gateway  the operations over `onefold_files::VersionedFiles`  gateway, tags, settings
//! expire         removes what a bucket's rules say has expired          lifecycle
//! ```
//!
//! What this room must never do: keep state of its own (any node serves any request), hold more of
//! a body in memory than [`Config`] allows, make an object visible whose length, signature or
//! checksum was not verified, or silently ignore a header on which somebody's safety rests.
//!
//! `s3s` logs every refused request as an error; a process that serves S3 wants
//! [`TRACING_DIRECTIVE`] in its log filter.

mod access;
mod admission;
mod attributes;
mod body;
mod checksums;
mod conditions;
mod config;
mod cors;
mod credentials;
mod errors;
mod front;
mod gateway;
mod ingest;
mod lifecycle;
mod server;
mod settings;
mod stall;
mod tags;

pub use config::Config;
pub use credentials::{Credentials, CredentialsUnavailable, Secret};
pub use lifecycle::sweep::{expire, sweep};
pub use server::serve;

/// The region that buckets report. Requests may be signed for any.
pub const REGION: &str = "us-east-1";

/// The directive for `tracing_subscriber::EnvFilter` that silences the library beneath, which logs
/// what clients do wrong (a HEAD of an absent object) at level `error`.
pub const TRACING_DIRECTIVE: &str = "s3s=off";
