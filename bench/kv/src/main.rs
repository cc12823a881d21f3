//! Measures the key-value service beside etcd, with the same client for both.

mod contenders;
mod etcd;
mod fleet;
mod grpc;
mod hpack;
mod load;
mod points;
mod report;
mod statistics;
mod wire;

use anyhow::Result;
use clap::Parser;

/// Measures the key-value service beside its peers.
#[derive(Parser)]
enum Program {
    /// Puts: throughput, latency and CPU time.
    Puts(points::Arguments),
    /// Ranges of one key, linearizable and serializable.
    Ranges(points::Arguments),
}

fn main() -> Result<()> {
    let run = async {
        match Program::parse() {
            Program::Puts(arguments) => points::puts(arguments).await,
            Program::Ranges(arguments) => points::ranges(arguments).await,
        }
    };
    // One thread: the load is driven by it alone, and while it runs nothing else has to.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run)
}
