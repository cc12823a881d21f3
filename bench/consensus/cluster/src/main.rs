//! Measures Onefold's consensus layer as separate processes: real log, table and sockets.
//!
//! `proposals`, `idle` and `memory` start three processes of this same program (`node`), which are
//! the product's replica host with a small state machine; `leader-kill` starts the product itself, and
//! etcd beside it.

mod cluster;
mod idle;
mod leader_kill;
mod load;
mod machine;
mod memory;
mod methods;
mod node;
mod proposals;

use anyhow::Result;
use clap::Parser;

/// Measures Onefold's consensus layer as separate processes.
#[derive(Parser)]
enum Program {
    /// One node; the other programs start it.
    #[command(hide = true)]
    Node(node::Arguments),
    /// Throughput, latency, CPU and fsyncs of proposals.
    Proposals(proposals::Arguments),
    /// CPU and memory of idle groups.
    Idle(idle::Arguments),
    /// The pause after the leader's process is killed, beside etcd's.
    LeaderKill(leader_kill::Arguments),
    /// Memory of a leader with a dead, far-behind and slow follower.
    Memory(memory::Arguments),
}

fn main() -> Result<()> {
    let run = async {
        match Program::parse() {
            Program::Node(arguments) => node::run(arguments).await,
            Program::Proposals(arguments) => proposals::run(arguments).await,
            Program::Idle(arguments) => idle::run(arguments).await,
            Program::LeaderKill(arguments) => leader_kill::run(arguments).await,
            Program::Memory(arguments) => memory::run(arguments).await,
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run)
}
