//! Rows as they come, medians with ranges for each load, and a table of all at the end.

use crate::statistics::{Outcome, Summary};

/// The outcomes of all contenders under one load.
pub(crate) struct Table {
    title: String,
    /// In the order of their first turns.
    contenders: Vec<(String, Vec<Outcome>)>,
}

impl Table {
    /// Prints what is measured and the head of the rows.
    pub(crate) fn new(title: String) -> Self {
        println!("\n{}", title);
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
        Self { title, contenders: Vec::new() }
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
}

/// The medians of one contender under one load.
struct Medians {
    per_second: Summary,
    p99_ms: Summary,
    server_micros: Summary,
}

impl Medians {
    fn of(outcomes: &[Outcome]) -> Self {
        let figure = |figure: fn(&Outcome) -> f64| Summary::of(outcomes.iter().map(figure));
        Self {
            per_second: figure(Outcome::per_second),
            p99_ms: figure(|outcome| outcome.p99_ms),
            server_micros: figure(Outcome::server_micros),
        }
    }
}

/// All loads of a program.
#[derive(Default)]
pub(crate) struct Page {
    rows: Vec<(String, Vec<(String, Medians)>)>,
}

impl Page {
    /// Takes the table of one load and prints its medians with ranges.
    pub(crate) fn add(&mut self, table: Table) {
        let mut row = Vec::new();
        for (name, outcomes) in table.contenders {
            let Medians { per_second, p99_ms, server_micros } = Medians::of(&outcomes);
            println!(
                "median {name}: {per_second} per s; p99 {p99_ms:.1} ms; server {server_micros:.2} µs/op"
            );
            row.push((name, Medians { per_second, p99_ms, server_micros }));
        }
        self.rows.push((table.title, row));
    }

    /// Prints all medians as one table in Markdown, each other contender's with what Onefold's are as
    /// multiples of them: of the rate, of the 99th percentile, of the servers' CPU time.
    pub(crate) fn print(&self) {
        let Some((_, first)) = self.rows.first() else { return };
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        println!("\n| per s; p99; server CPU an operation | {} |", names.join(" | "));
        println!("|{}", " --- |".repeat(names.len() + 1));
        for (title, row) in &self.rows {
            let mut cells = Vec::new();
            for (at, (_, medians)) in row.iter().enumerate() {
                let mut cell = format!(
                    "{:.0}; {:.1} ms; {:.1} µs",
                    medians.per_second.median, medians.p99_ms.median, medians.server_micros.median
                );
                if at > 0 {
                    let own = &row[0].1;
                    cell.push_str(&format!(
                        " ({:.2}x, {:.2}x, {:.2}x)",
                        own.per_second.median / medians.per_second.median,
                        own.p99_ms.median / medians.p99_ms.median,
                        own.server_micros.median / medians.server_micros.median
                    ));
                }
                cells.push(cell);
            }
            println!("| {title} | {} |", cells.join(" | "));
        }
    }
}
