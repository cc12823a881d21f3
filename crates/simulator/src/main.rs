//! `onefold-sim`: runs seeds of the simulated worlds from the command line.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{check::CheckArgs, cluster::ClusterArgs, raft::RaftArgs};

/// Runs Onefold's real cores in a simulated world of faults.
///
/// A seed decides everything that happens; the same seed gives the same run. A seed that violates
/// an invariant is printed together with the command that replays it, and the exit code is 1.
#[derive(Parser)]
#[command(name = "onefold-sim", version)]
struct Cli {
    #[command(subcommand)]
    world: World,
}

#[derive(Subcommand)]
enum World {
    /// One Raft group of one to five nodes.
    ///
    /// The ordinary tests run 1,000 seeds. Before a release, run the longer target:
    ///
    ///     cargo run --release --bin onefold-sim -- raft --seeds 100000
    #[command(verbatim_doc_comment)]
    Raft(RaftArgs),
    /// Every interleaving of three servers, to a stated depth.
    ///
    /// Prints how many states were looked at. The exit code is 0 if all of them hold, 1 if one
    /// violates an invariant, and 2 if there was no room to look at all of them, which is not a
    /// pass. The ordinary tests look less deep; the longer target takes some minutes:
    ///
    ///     cargo run --release --bin onefold-sim -- check --long
    #[command(verbatim_doc_comment)]
    Check(CheckArgs),
    /// A whole cluster: nodes with many groups, logs, tables, stores, clients and their histories.
    ///
    /// The ordinary tests run some hundred seeds. Before a release, run the long target:
    ///
    ///     cargo run --release --bin onefold-sim -- cluster --simulated-seconds 10000000
    #[command(verbatim_doc_comment)]
    Cluster(ClusterArgs),
    /// Puts each known bug into the cluster and prints how many seeds it took to find it.
    Bugs {
        /// How many seeds to try for each
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    match Cli::parse().world {
        World::Raft(args) => commands::raft::run(&args),
        World::Check(args) => commands::check::run(&args),
        World::Cluster(args) => commands::cluster::run(&args),
        World::Bugs { seeds } => commands::cluster::find_bugs(seeds),
    }
}
