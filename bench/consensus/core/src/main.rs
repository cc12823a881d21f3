//! Consensus cores in memory, side by side: three replicas in one thread, no disk, no network.
//!
//! What is counted is an entry that was committed *and* handed out on all three replicas. Every
//! contender gets each command as bytes of its own, passes messages by moving them, keeps one
//! in-memory log a replica and compacts it by the same rule. The contenders take turns, so that a
//! change of the machine's speed meets all of them.

mod floor;
mod measure;
mod onefold;
mod open_raft;
mod raft_rs;
mod retention;

use anyhow::Result;
use clap::Parser;

use measure::{Run, Shape, Spread};

/// Entries of a run are chosen so that it moves about this many bytes, within the bounds below.
const RUN_BYTES: u64 = 512 << 20;
const RUN_ENTRIES_MAX: u64 = 1_000_000;
/// Batches of one cost a round each.
const RUN_BATCHES_MAX: u64 = 200_000;

/// Measures consensus cores in memory, side by side.
#[derive(Parser)]
struct Arguments {
    /// Rounds; in each round every contender runs once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Shapes, as BATCHxBYTES
    #[arg(long, value_delimiter = ',', default_value = "64x256,1x256,512x256,64x16,64x4096")]
    shapes: Vec<String>,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Multiplies the entries of each run
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

type Contender = (&'static str, fn(Shape) -> Result<Run>);

const CONTENDERS: [Contender; 4] = [
    ("onefold", onefold::run),
    ("raft-rs", raft_rs::run),
    ("openraft", open_raft::run),
    ("no raft", floor::run),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let contenders: Vec<Contender> = CONTENDERS
        .into_iter()
        .filter(|(name, _)| {
            arguments.only.is_empty() || arguments.only.iter().any(|only| only == name)
        })
        .collect();
    for shape in &arguments.shapes {
        compare(parse(shape, arguments.scale)?, arguments.rounds, &contenders)?;
    }
    Ok(())
}

fn parse(shape: &str, scale: f64) -> Result<Shape> {
    let (batch, entry_bytes) =
        shape.split_once('x').ok_or_else(|| anyhow::anyhow!("not BATCHxBYTES: {shape}"))?;
    let (batch, entry_bytes): (usize, usize) = (batch.parse()?, entry_bytes.parse()?);
    anyhow::ensure!(batch > 0 && entry_bytes > 0, "batch and bytes start at 1: {shape}");
    let most = RUN_ENTRIES_MAX.min(RUN_BYTES / entry_bytes as u64);
    let most = (most as f64 * scale) as u64;
    let batches = (most / batch as u64).clamp(10, RUN_BATCHES_MAX);
    Ok(Shape { batch, entry_bytes, entries: batches * batch as u64 })
}

fn compare(shape: Shape, rounds: usize, contenders: &[Contender]) -> Result<()> {
    println!(
        "\nbatch {}, {} bytes an entry, {} entries a run, {rounds} rounds",
        shape.batch, shape.entry_bytes, shape.entries
    );
    let mut runs = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for ((_, run), runs) in contenders.iter().zip(&mut runs) {
            runs.push(run(shape)?);
        }
    }
    println!(
        "{:<12} {:>34}   {:>30}   {:>12}",
        "", "entries/s: median (range)", "CPU ns/entry: median (range)", "CPU, ratio"
    );
    let mut base = None;
    for ((name, _), runs) in contenders.iter().zip(&runs) {
        let rate = Spread::of(runs.iter().map(|run| run.per_second));
        let cpu = Spread::of(runs.iter().map(|run| run.cpu_nanos));
        let base = *base.get_or_insert(cpu.median);
        println!(
            "{name:<12} {:>11.0} ({:>9.0}–{:>9.0})   {:>10.0} ({:>7.0}–{:>7.0})   {:>12.2}",
            rate.median,
            rate.min,
            rate.max,
            cpu.median,
            cpu.min,
            cpu.max,
            cpu.median / base
        );
    }
    Ok(())
}
