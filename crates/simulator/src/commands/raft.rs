//! `onefold-sim raft`.

use std::{process::ExitCode, time::Instant};

use clap::Args;
use onefold_simulator::{
    Trace,
    raft::{self, Branch, Coverage},
};

use super::{PROGRESS_INTERVAL, say, seed_from_clock};

#[derive(Args)]
pub(crate) struct RaftArgs {
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

pub(crate) fn run(args: &RaftArgs) -> ExitCode {
    match args.seed {
        Some(seed) => run_one(seed, args.trace),
        None => run_many(args.start.unwrap_or_else(seed_from_clock), args.seeds),
    }
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
