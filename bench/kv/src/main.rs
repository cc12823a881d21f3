//! Measures the key-value service beside etcd and ZooKeeper, with the same cheap load.

mod contenders;
mod etcd;
mod fleet;
mod grpc;
mod hpack;
mod keyspaces;
mod lease;
mod limits;
mod load;
mod memory;
mod points;
mod report;
mod statistics;
mod watch;
mod wire;
mod zookeeper;

use anyhow::Result;
use clap::Parser;

/// Measures the key-value service beside its peers.
#[derive(Parser)]
enum Program {
    /// Puts: throughput, latency and CPU time.
    Puts(points::Arguments),
    /// Ranges of one key, linearizable and serializable.
    Ranges(points::Arguments),
    /// Linearizable ranges and puts at once.
    Mixed(points::Arguments),
    /// Latency at offered rates of puts and of linearizable ranges.
    Offered(points::OfferedArguments),
    /// Events to many watchers of one key.
    Watch(watch::Arguments),
    /// Puts into many keyspaces at once, and how much a flooded one disturbs another.
    Keyspaces(keyspaces::Arguments),
    /// Keep-alives of many leases.
    Lease(lease::Arguments),
    /// Memory and disk of many keys, and how soon servers answer after a restart.
    Memory(memory::Arguments),
}

fn main() -> Result<()> {
    let run = async {
        match Program::parse() {
            Program::Puts(arguments) => points::puts(arguments).await,
            Program::Ranges(arguments) => points::ranges(arguments).await,
            Program::Mixed(arguments) => points::mixed(arguments).await,
            Program::Offered(arguments) => points::offered(arguments).await,
            Program::Watch(arguments) => watch::run(arguments).await,
            Program::Keyspaces(arguments) => keyspaces::run(arguments).await,
            Program::Lease(arguments) => lease::run(arguments).await,
            Program::Memory(arguments) => memory::run(arguments).await,
        }
    };
    // One thread: the load is driven by it alone, and while it runs nothing else has to.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run)
}
