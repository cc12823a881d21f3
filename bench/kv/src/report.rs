//! Rows as they come, and medians with ranges and ratios at the end.

use crate::statistics::{Outcome, Summary};

/// The outcomes of all contenders under one load.
pub(crate) struct Table {
    /// In the order of their first turns.
    contenders: Vec<(String, Vec<Outcome>)>,
}

impl Table {
    /// Prints what is measured and the head of the rows.
    pub(crate) fn new(title: impl AsRef<str>) -> Self {
        println!("\n{}", title.as_ref());
        println!(
            "{:<17}{:>10}{:>10}{:>10}{:>10}{:>14}{:>14}{:>8}",
            "server",
            "per s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "server µs/op",
            "client µs/op",
            "failed"
        );
        Self { contenders: Vec::new() }
    }

    /// Adds and prints the outcome of one turn.
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome) {
        println!(
            "{name:<17}{:>10.0}{:>10.2}{:>10.2}{:>10.2}{:>14.2}{:>14.2}{:>8}",
            outcome.per_second(),
            outcome.p50_ms,
            outcome.p99_ms,
            outcome.p999_ms,
            outcome.server_micros(),
            outcome.client_micros(),
            outcome.failed,
        );
        match self.contenders.iter_mut().find(|(known, _)| known == name) {
            Some((_, outcomes)) => outcomes.push(outcome),
            None => self.contenders.push((name.to_owned(), vec![outcome])),
        }
    }

    /// Prints medians and ranges, and the first contender's medians as multiples of the others'.
    pub(crate) fn print_summary(&self) {
        let of = |outcomes: &[Outcome], figure: fn(&Outcome) -> f64| {
            Summary::of(outcomes.iter().map(figure))
        };
        let mut first = None;
        for (name, outcomes) in &self.contenders {
            let rate = of(outcomes, Outcome::per_second);
            let p99 = of(outcomes, |outcome| outcome.p99_ms);
            let cpu = of(outcomes, Outcome::server_micros);
            println!("median {name}: {rate} per s; p99 {p99:.1} ms; server {cpu:.2} µs/op");
            match first {
                None => first = Some((rate.median, p99.median, cpu.median)),
                Some((own_rate, own_p99, own_cpu)) => println!(
                    "  {} beside it: {:.2}x the rate, {:.2}x the p99, {:.2}x the server CPU",
                    self.contenders[0].0,
                    own_rate / rate.median,
                    own_p99 / p99.median,
                    own_cpu / cpu.median
                ),
            }
        }
    }
}
