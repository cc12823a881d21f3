//! The etcd API over its listener, with the store on a real node behind it.

mod auth;
mod cluster;
mod concurrency;
mod control;
mod errors;
mod etcdctl;
mod faults;
mod fixture;
mod http;
mod keys;
mod lease;
mod overload;
mod range_stream;
mod snapshot;
mod txn;
mod watch;
mod watching;
