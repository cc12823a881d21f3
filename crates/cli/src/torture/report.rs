//! What a run did, saw and found.

use std::collections::BTreeMap;

use onefold_checker::history::{Action, History, Nanos};
use onefold_checker::{Looked, Violation};
use serde::Serialize;

use super::plan::{Fault, Step};
use crate::output::{Format, print_json};

/// The faults planned for one round.
#[derive(Serialize)]
pub struct PlannedRound {
    pub round: u64,
    pub steps: Vec<Step>,
}

/// A run, as it is printed in the end.
#[derive(Serialize)]
pub struct Report {
    pub seed: u64,
    pub nodes: usize,
    /// Seconds under faults, without the rests after each round.
    pub seconds: u64,
    pub plan: Vec<PlannedRound>,
    /// How often each fault was done.
    pub faults: BTreeMap<Fault, u64>,
    /// Requests by what they asked for.
    pub operations: BTreeMap<&'static str, usize>,
    /// What was judged.
    pub looked: Looked,
    /// Longest time in which no client had any linearizable answer.
    pub unavailable_ms_max: u64,
    pub violations: Vec<Violation>,
    /// Nodes that ended without being asked to, with their last words.
    pub ended: Vec<(u64, String)>,
    /// Where the history of the round with the violation is kept.
    pub history: Option<String>,
}

impl Report {
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            seconds: 0,
            plan: Vec::new(),
            faults: BTreeMap::new(),
            operations: BTreeMap::new(),
            looked: Looked::default(),
            unavailable_ms_max: 0,
            violations: Vec::new(),
            ended: Vec::new(),
            history: None,
        }
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.ended.is_empty()
    }

    /// Counts what the clients of a round did; `began` and `ended` bound the time under faults.
    pub fn count(&mut self, history: &History, began: Nanos, ended: Nanos) {
        let in_round = history.operations.iter().filter(|operation| operation.called >= began);
        for operation in in_round {
            *self.operations.entry(kind(&operation.action)).or_default() += 1;
        }
        let longest = longest_silence(history, began, ended) / 1_000_000;
        self.unavailable_ms_max = self.unavailable_ms_max.max(longest);
    }

    /// Prints it.
    pub fn print(&self, format: Format) -> anyhow::Result<()> {
        if format == Format::Json {
            return print_json(self);
        }
        let list = |counts: &mut dyn Iterator<Item = (String, u64)>| {
            counts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let looked = &self.looked;
        println!("seed {}: {} nodes, {} s under faults", self.seed, self.nodes, self.seconds);
        let faults = &mut self.faults.iter().map(|(fault, count)| (fault.to_string(), *count));
        println!("faults: {}", list(faults));
        let operations =
            &mut self.operations.iter().map(|(name, count)| ((*name).to_owned(), *count as u64));
        println!("operations: {}", list(operations));
        println!(
            "outcomes: {} answered, {} refused, {} unknown, {} of which happened",
            looked.answered, looked.refused, looked.unknown, looked.unknown_executed
        );
        println!(
            "replayed: {} revisions; {} ends of leases; {} copies and {} hashes of nodes compared",
            looked.revisions, looked.lease_ends, looked.copies, looked.hashes
        );
        println!(
            "searched: {} operations on {} registers for linearizability",
            looked.register_operations, looked.registers
        );
        println!(
            "watched: {} events, {} bookmarks and {} fragments on {} streams of {} watches, {} of \
             them compacted",
            looked.watch_events,
            looked.watch_bookmarks,
            looked.watch_fragments,
            looked.watch_streams,
            looked.watches,
            looked.watch_compacted
        );
        println!("longest without a linearizable answer: {} ms", self.unavailable_ms_max);
        for (node, reason) in &self.ended {
            println!("VIOLATION: node {node} ended by itself: {reason}");
        }
        for violation in &self.violations {
            println!("VIOLATION: {violation}");
        }
        if let Some(history) = &self.history {
            println!("the history is kept in {history}");
        }
        println!("violations: {}", self.violations.len() + self.ended.len());
        Ok(())
    }
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Range { at: Some(_), .. } => "ranges of the past",
        Action::Range { serializable: true, .. } => "serializable ranges",
        Action::Range { .. } => "linearizable ranges",
        Action::Put { .. } => "puts",
        Action::Delete { .. } => "deletions",
        Action::Txn { .. } => "transactions",
        Action::Compact { .. } => "compactions",
        Action::Grant { .. } => "grants",
        Action::Revoke { .. } => "revocations",
        Action::KeepAlive { .. } => "keep-alives",
    }
}

/// The longest time without an answer that needs a majority.
fn longest_silence(history: &History, began: Nanos, ended: Nanos) -> Nanos {
    let is_linearizable = |action: &Action| {
        !matches!(
            action,
            Action::Range { serializable: true, .. }
                | Action::Grant { .. }
                | Action::KeepAlive { .. }
        )
    };
    let answered = history
        .operations
        .iter()
        .filter(|operation| operation.answered().is_some() && is_linearizable(&operation.action));
    let mut times: Vec<Nanos> = answered.map(|operation| operation.returned).collect();
    times.extend([began, ended]);
    times.retain(|time| (began..=ended).contains(time));
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
