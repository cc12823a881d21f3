//! Who works: one node's slots, what they are doing, and the map output that they leave for others.
//!
//! ```text
//! heartbeat ◄──► coordinator          slots: attempts on threads that may block
//! serve     ◄── fetches of reducers   folder: map output, scratch, logs
//! ```
//!
//! What this room must never do: decide. A worker starts and stops what it is told to, says what it
//! has, and keeps what it made until it is told that nobody needs it.

mod attempts;
mod fetch;
mod files;
mod folder;
mod heartbeat;
mod orphans;
mod serve;

pub(crate) use heartbeat::{Worker, WorkerConfig};
pub(crate) use serve::{FetchRequest, FetchResponse};
