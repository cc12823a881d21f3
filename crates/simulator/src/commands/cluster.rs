//! `onefold-sim cluster` and `onefold-sim bugs`.

use std::{panic, process::ExitCode, time::Instant};

use clap::Args;
use onefold_simulator::{
    Trace,
    cluster::{self, Failure, Report, Sabotage, Totals},
};

use super::{PROGRESS_INTERVAL, say, seed_from_clock};

/// With less simulated time than this, a rare branch may be missed by chance.
const SECONDS_FOR_COVERAGE: u64 = 1_000_000;

#[derive(Args)]
pub(crate) struct ClusterArgs {
    /// How many seeds to run
    #[arg(long, conflicts_with_all = ["seed", "simulated_seconds"])]
    seeds: Option<u64>,
    /// Run seeds until so much virtual time has passed
    #[arg(long, conflicts_with = "seed")]
    simulated_seconds: Option<u64>,
    /// The first seed; drawn from the clock if it is not given
    #[arg(long, conflicts_with = "seed")]
    start: Option<u64>,
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run each seed twice, and compare
    #[arg(long)]
    twice: bool,
}

pub(crate) fn run(args: &ClusterArgs) -> ExitCode {
    // A failed assertion is printed with the command that replays it.
    panic::set_hook(Box::new(|_| {}));
    match args.seed {
        Some(seed) => run_one(seed, args),
        None => run_many(args),
    }
}

fn run_seed(seed: u64, args: &ClusterArgs) -> Result<Report, Box<Failure>> {
    if args.twice {
        return cluster::run_twice(seed);
    }
    cluster::run(seed, None, if args.trace { Trace::printed() } else { Trace::hashed() })
}

fn run_one(seed: u64, args: &ClusterArgs) -> ExitCode {
    match run_seed(seed, args) {
        Ok(report) => {
            say(format_args!("{}", report.totals));
            say(format_args!("seed {seed} holds, trace {:016x}", report.trace_hash));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(format_args!("VIOLATED  {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run_many(args: &ClusterArgs) -> ExitCode {
    let start = args.start.unwrap_or_else(seed_from_clock);
    let seeds = args.seeds.unwrap_or(if args.simulated_seconds.is_some() { u64::MAX } else { 100 });
    let seconds = args.simulated_seconds.unwrap_or(u64::MAX);
    say(format_args!("cluster: seeds from {start}"));
    let began = Instant::now();
    let mut shown = began;
    let (mut totals, mut run, mut failures) = (Totals::default(), 0_u64, 0_u64);
    while run < seeds && totals.simulated_seconds < seconds {
        let seed = start.wrapping_add(run);
        run += 1;
        match run_seed(seed, args) {
            Ok(report) => totals.merge(&report.totals),
            Err(failure) => {
                failures += 1;
                say(format_args!("VIOLATED  {failure}"));
            }
        }
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            say(format_args!(
                "{run} seeds, {} simulated seconds, {failures} violated, {:.0} s",
                totals.simulated_seconds,
                began.elapsed().as_secs_f64()
            ));
        }
    }
    say(format_args!("\n{totals}"));
    let missed = totals.coverage.missed();
    let missed_faults = totals.faults.missed();
    for name in missed.iter().map(|it| it.name()).chain(missed_faults.iter().map(|it| it.name())) {
        say(format_args!("never: {name}"));
    }
    let is_covered = missed.is_empty() && missed_faults.is_empty();
    let is_long = totals.simulated_seconds >= SECONDS_FOR_COVERAGE;
    let passed = began.elapsed().as_secs_f64();
    say(format_args!(
        "{run} seeds from {start}, {} simulated seconds, {failures} violated, {passed:.1} s, {:.0} \
         simulated seconds a second",
        totals.simulated_seconds,
        totals.simulated_seconds as f64 / passed
    ));
    if failures == 0 && (is_covered || !is_long) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Puts in one bug after the other and counts the seeds until it is found.
pub(crate) fn find_bugs(seeds: u64) -> ExitCode {
    panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    for bug in Sabotage::ALL {
        let found = (0..seeds).find_map(|seed| {
            let failure = cluster::run(seed, Some(bug), Trace::hashed()).err()?;
            // It must be the bug that was found.
            cluster::run(seed, None, Trace::hashed()).ok()?;
            Some((seed + 1, failure.violation.invariant))
        });
        let name = format!("{bug:?}");
        match found {
            Some((seeds, invariant)) => say(format_args!("{name:<28} {seeds:>5}  {invariant}")),
            None => {
                missed += 1;
                say(format_args!("{name:<28}     -  not found in {seeds} seeds"));
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
