//! `onefold-sim check`.

use std::{process::ExitCode, time::Instant};

use clap::Args;
use onefold_simulator::check::{self, Outcome, Scope};

use super::say;

/// States that a check keeps unless it is told otherwise: some 4 GB.
const STATES_MAX: usize = 58_000_000;

/// The exit code for a violated invariant.
const VIOLATED: u8 = 1;

/// The exit code for a check that could not look at everything.
const BUDGET_ENDED: u8 = 2;

#[derive(Args)]
pub(crate) struct CheckArgs {
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

/// Of the scopes that were looked at, the worst decides the exit code.
pub(crate) fn run(args: &CheckArgs) -> ExitCode {
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
