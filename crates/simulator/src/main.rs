//! `onefold-sim`: runs seeds of the simulated world from the command line.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use clap::{Args, Parser, Subcommand};
use onefold_simulator::{
    Trace,
    raft::{self, Branch, Coverage},
};

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

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
}

#[derive(Args)]
struct RaftArgs {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// The first seed; drawn from the clock if it is not given
    #[arg(long, conflicts_with = "seed")]
    start: Option<u64>,
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let World::Raft(args) = Cli::parse().world;
    match args.seed {
        Some(seed) => run_one(seed, args.trace),
        None => run_many(args.start.unwrap_or_else(seed_from_clock), args.seeds),
    }
}

/// Prints a line; whoever reads it may have stopped reading.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn seed_from_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

fn run_one(seed: u64, is_traced: bool) -> ExitCode {
    let trace = if is_traced { Trace::printed() } else { Trace::hashed() };
    match raft::run(seed, None, trace) {
        Ok(report) => {
            say(format_args!(
                "seed {seed} holds: {} events, {} entries committed, trace {:016x}",
                report.events, report.committed, report.trace_hash
            ));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(format_args!("VIOLATED  {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run_many(start: u64, seeds: u64) -> ExitCode {
    say(format_args!("raft: seeds {start} to {}", start.saturating_add(seeds.saturating_sub(1))));
    let began = Instant::now();
    let mut shown = began;
    let (mut coverage, mut failures, mut events) = (Coverage::default(), 0u64, 0u64);
    for (done, seed) in (start..start.saturating_add(seeds)).enumerate() {
        match raft::run(seed, None, Trace::hashed()) {
            Ok(report) => {
                coverage.merge(&report.coverage);
                events += report.events;
            }
            Err(failure) => {
                failures += 1;
                say(format_args!("VIOLATED  {failure}"));
            }
        }
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            say(format_args!("{} of {seeds} seeds, {failures} violated", done + 1));
        }
    }
    say(format_args!("\ntimes taken   branch\n{coverage}"));
    for branch in coverage.missed() {
        say(format_args!("never taken: {}", Branch::name(branch)));
    }
    say(format_args!(
        "\n{seeds} seeds, {events} events, {failures} violated, {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
