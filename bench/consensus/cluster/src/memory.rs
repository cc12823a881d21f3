//! Memory of a leader whose follower is dead, far behind, or slow, under steady writes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, Shape};
use crate::load::Commands;
use onefold_bench_common::NODES;
use onefold_bench_common::process::{mib, resident_bytes};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Bytes of a command.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// Commands a second, in all.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Seconds of each of the five phases.
    #[arg(long, default_value_t = 40)]
    phase: u64,
    /// Writes every second's figures to this file.
    #[arg(long, default_value = "memory.csv")]
    csv: PathBuf,
    /// Folder for the nodes' data.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
}

/// Keys that the commands write: few, so that the table's own memory soon stops to grow.
const KEYS: u64 = 10_000;
/// Proposers that share the rate.
const WRITERS: u64 = 64;
/// Columns of the plot.
const PLOT_COLUMNS: usize = 60;
/// A slow follower runs for one part of this many.
const SLOW_PARTS: u32 = 10;

/// What happens to the follower in each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All three run.
    Whole,
    /// Its process is killed.
    Dead,
    /// It is started again and catches up.
    Behind,
    /// It runs a tenth of the time.
    Slow,
    /// It runs again.
    Healed,
}

const PHASES: [Phase; 5] = [Phase::Whole, Phase::Dead, Phase::Behind, Phase::Slow, Phase::Healed];

struct Point {
    second: u64,
    phase: Phase,
    resident: Vec<u64>,
    /// Applied entries that the leader keeps for followers.
    retained: u64,
    written: u64,
    lag: u64,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut cluster = Cluster::start(&arguments.data_dir, Shape::of_groups(1)).await?;
    let leader = cluster.leader().await?;
    let follower = (leader + 1) % NODES;
    println!(
        "{} commands/s of {} bytes, {} s a phase; node {} leads, node {} suffers",
        arguments.rate,
        arguments.bytes,
        arguments.phase,
        leader + 1,
        follower + 1
    );
    let mut points = Vec::new();
    let start = Instant::now();
    for phase in PHASES {
        match phase {
            Phase::Whole | Phase::Healed => {}
            Phase::Dead => cluster.kill_node(follower)?,
            Phase::Behind => cluster.start_node(follower)?,
            Phase::Slow => cluster.freeze_node(follower, true)?,
        }
        let end = start.elapsed() + Duration::from_secs(arguments.phase);
        let watching = watch(&cluster, leader, follower, phase, start, end);
        let (seen, written) =
            tokio::join!(watching, write(&cluster, leader, &arguments, start, end));
        points.extend(seen?);
        println!("{phase:?}: {written} commands");
        if phase == Phase::Slow {
            cluster.freeze_node(follower, false)?;
        }
    }
    std::fs::write(&arguments.csv, csv(&points))?;
    print!("{}", plot(&points, leader));
    println!("every second: {}", arguments.csv.display());
    Ok(())
}

/// Writes at the rate until the end; gives the number of commands that succeeded.
async fn write(
    cluster: &Cluster,
    leader: usize,
    arguments: &Arguments,
    start: Instant,
    end: Duration,
) -> u64 {
    let pause = Duration::from_secs_f64(WRITERS as f64 / arguments.rate as f64);
    let writer = async |number| {
        let mut commands = Commands::new(number, arguments.bytes, KEYS);
        let mut done = 0;
        let mut next = start.elapsed();
        while start.elapsed() < end {
            done += u64::from(cluster.propose(leader, commands.next()).await.is_ok());
            next = (next + pause).max(start.elapsed());
            sleep(next.saturating_sub(start.elapsed())).await;
        }
        done
    };
    futures::future::join_all((0..WRITERS).map(writer)).await.iter().sum()
}

/// Looks once a second, and slows the follower down in between if that is the phase.
async fn watch(
    cluster: &Cluster,
    leader: usize,
    follower: usize,
    phase: Phase,
    start: Instant,
    end: Duration,
) -> Result<Vec<Point>> {
    let second = Duration::from_secs(1);
    let mut points = Vec::new();
    while start.elapsed() < end {
        let mut applied = 0;
        if phase == Phase::Slow {
            cluster.freeze_node(follower, false)?;
            let awake = second / SLOW_PARTS;
            let asked = async { timeout(awake, cluster.report(follower)).await };
            let (answer, ()) = tokio::join!(asked, sleep(awake));
            if let Ok(Ok(report)) = answer {
                applied = report.applied;
            }
            cluster.freeze_node(follower, true)?;
            sleep(second - awake).await;
        } else {
            sleep(second).await;
        }
        let at_leader = cluster.report(leader).await?;
        let pids = (0..NODES).map(|at| cluster.pid(at));
        let resident = pids.map(|pid| pid.map_or(Ok(0), resident_bytes)).collect::<Result<_>>()?;
        if matches!(phase, Phase::Whole | Phase::Behind | Phase::Healed) {
            // While it starts it does not answer; then it counts as having nothing.
            applied = cluster.report(follower).await.map_or(0, |report| report.applied);
        }
        points.push(Point {
            second: start.elapsed().as_secs(),
            phase,
            resident,
            retained: at_leader.retained_bytes,
            written: at_leader.last,
            lag: if applied == 0 { 0 } else { at_leader.applied.saturating_sub(applied) },
        });
    }
    Ok(points)
}

fn csv(points: &[Point]) -> String {
    let mut text =
        "second,phase,rss_mib_1,rss_mib_2,rss_mib_3,leader_retained_mib,leader_last_index,follower_lag\n".to_owned();
    for point in points {
        let resident: Vec<String> =
            point.resident.iter().map(|&bytes| format!("{:.1}", mib(bytes))).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{},{:?},{},{:.1},{},{}",
            point.second,
            point.phase,
            resident.join(","),
            mib(point.retained),
            point.written,
            point.lag
        );
    }
    text
}

/// The leader's memory, one line for each few seconds.
fn plot(points: &[Point], leader: usize) -> String {
    let most = points.iter().map(|point| point.resident[leader]).max().unwrap_or(1).max(1);
    let mut text =
        "leader's resident memory (#), and of it what it keeps of the log for followers (=)\n"
            .to_owned();
    for point in points.iter().step_by((points.len() / 40).max(1)) {
        let bytes = point.resident[leader];
        let columns = |bytes: u64| (bytes as f64 / most as f64 * PLOT_COLUMNS as f64) as usize;
        let (all, kept) = (columns(bytes), columns(point.retained));
        let phase = format!("{:?}", point.phase);
        let _ = writeln!(
            text,
            "{:>5} s {phase:<7} {:>5.0} MiB {:>5.1} MiB {}{}",
            point.second,
            mib(bytes),
            mib(point.retained),
            "=".repeat(kept),
            "#".repeat(all.saturating_sub(kept))
        );
    }
    text
}
