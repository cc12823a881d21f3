//! Groups whose clients use the whole of the key-value store.
//!
//! | part | what it may do |
//! | --- | --- |
//! | [`client`] | put, delete, transactions within transactions, read the past and the present, compact, grant, renew and revoke leases; with a session or without |
//! | [`watch`] | watch from now or from the past, over any replica, and go on over another |
//! | [`desk`] | what a leader does by itself: announce, end and note leases, sweep, keep within bounds |
//! | [`words`] | requests and answers in the words of the checkers |
//! | [`record`] | what clients and watchers saw, and what the log made of it, for `onefold-checker` |
//!
//! The store and the parts of its driver that do not wait are the real ones (`onefold_kv::core`); who
//! waits for what is modelled.

pub(super) mod client;
pub(super) mod desk;
pub(super) mod plan;
pub(super) mod record;
pub(super) mod watch;
pub(super) mod words;
