//! What the measuring programs share: servers as processes, what they cost, and the disk's limit.

pub mod disk;
pub mod etcd_client;
pub mod loopback;
pub mod members;
pub mod process;
pub mod status;

use std::net::TcpListener;

use anyhow::Result;

/// Members of every cluster that is measured.
pub const NODES: usize = 3;

/// Addresses on loopback that nobody uses now.
pub fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
