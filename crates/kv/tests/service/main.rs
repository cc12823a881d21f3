//! The store as it runs: real hosts, logs, sockets, and clients from outside.

mod auth;
mod cluster;
mod leases;
mod remote;
mod requests;
mod room;
mod watching;
