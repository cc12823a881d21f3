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
    check::{self, Outcome, Scope},
    raft::{self, Branch, Coverage},
};

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// States that a check keeps unless it is told otherwise: some 4 GB.
const STATES_MAX: usize = 58_000_000;

/// The exit code for a violated invariant.
const VIOLATED: u8 = 1;

/// The exit code for a check that could not look at everything.
const BUDGET_ENDED: u8 = 2;

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
}

#[derive(Args)]
struct CheckArgs {
    /// Look at this scope alone; without it, at all
    #[arg(long)]
    scope: Option<String>,
    /// Show the scopes and look at none
    #[arg(long)]
    list: bool,
    /// Look as deep as the long target does
    #[arg(long)]
    long: bool,
    /// Look at everything within so many steps
    #[arg(long, conflicts_with = "long")]
    depth: Option<u32>,
    /// Nobody stands for election in a later term
    #[arg(long)]
    terms: Option<u64>,
    /// Leaders take no commands beyond this index
    #[arg(long)]
    entries: Option<u64>,
    /// How many crashes there may be
    #[arg(long)]
    crashes: Option<u8>,
    /// Give up beyond so many states
    #[arg(long, default_value_t = STATES_MAX)]
    states_max: usize,
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
    match Cli::parse().world {
        World::Raft(args) => match args.seed {
            Some(seed) => run_one(seed, args.trace),
            None => run_many(args.start.unwrap_or_else(seed_from_clock), args.seeds),
        },
        World::Check(args) => check_scopes(&args),
    }
}

/// Of the scopes that were looked at, the worst decides the exit code.
fn check_scopes(args: &CheckArgs) -> ExitCode {
    let scopes = match &args.scope {
        None => Scope::all(),
        Some(name) => Scope::all().into_iter().filter(|scope| scope.name == name).collect(),
    };
    if scopes.is_empty() {
        say(format_args!("no scope has this name; see --list"));
        return ExitCode::from(BUDGET_ENDED);
    }
    let mut worst = 0;
    for mut scope in scopes {
        say(format_args!("{}: {}", scope.name, scope.about));
        if args.list {
            continue;
        }
        scope.term_max = args.terms.unwrap_or(scope.term_max);
        scope.index_max = args.entries.unwrap_or(scope.index_max);
        scope.crashes_max = args.crashes.unwrap_or(scope.crashes_max);
        let depth = args.depth.unwrap_or(if args.long { scope.depth_long } else { scope.depth });
        let code = check_scope(&scope, depth, args.states_max);
        // A violation outdoes a budget that ended, which outdoes a pass.
        worst = if worst == VIOLATED || code == VIOLATED { VIOLATED } else { worst.max(code) };
    }
    ExitCode::from(worst)
}

fn check_scope(scope: &Scope, depth: u32, states_max: usize) -> u8 {
    let began = Instant::now();
    say(format_args!(
        "  up to term {}, commands up to index {}, crashes {}",
        scope.term_max, scope.index_max, scope.crashes_max
    ));
    let report = check::run(scope, None, depth, states_max, |level| {
        say(format_args!(
            "  {:>3} steps: {:>11} states, {:>11} of them new, {:>12} transitions, {:>7.1} s",
            level.depth,
            level.states,
            level.frontier,
            level.transitions,
            began.elapsed().as_secs_f64()
        ));
    });
    let reached = report.reached;
    say(format_args!(
        "  {} distinct states of the group, made of {} of single servers, {} messages, {} logs; {} \
         transitions",
        reached.states, report.servers, report.messages, report.logs, reached.transitions
    ));
    match report.outcome {
        Outcome::Exhausted => {
            say(format_args!(
                "  holds: every state within the bounds, at most {} steps away",
                reached.depth
            ));
            0
        }
        Outcome::DepthReached => {
            say(format_args!(
                "  holds: every state within {} steps; {} of them lead further",
                reached.depth, reached.frontier
            ));
            0
        }
        Outcome::BudgetEnded => {
            say(format_args!(
                "  NOT A PASS: no room for more than {states_max} states; every state within {} steps holds",
                reached.depth
            ));
            BUDGET_ENDED
        }
        Outcome::Violated(found) => {
            say(format_args!("VIOLATED after {} steps\n{found}", found.steps.len()));
            VIOLATED
        }
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
