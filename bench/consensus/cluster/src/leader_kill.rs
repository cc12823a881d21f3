//! The longest time without a successful write after the leader's process is killed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::sleep;

use onefold_bench_common::NODES;
use onefold_bench_common::etcd_client::EtcdClient;
use onefold_bench_common::members::{Kind, Members};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The product's program.
    #[arg(long)]
    onefold: PathBuf,
    /// The program of etcd; without it only Onefold is measured.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Kills of each.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Kills of one before the other takes its turn.
    #[arg(long, default_value_t = 2)]
    turn: usize,
    /// Writers, each with one put under way.
    #[arg(long, default_value_t = 16)]
    writers: usize,
    /// Milliseconds after which a client gives an attempt up and asks the next member.
    #[arg(long, default_value_t = 250)]
    timeout_ms: u64,
    /// Folder for the members' data.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
}

const VALUE_BYTES: usize = 256;
/// Load before a kill, and after it before the killed member is started again.
const BEFORE_KILL: Duration = Duration::from_secs(2);
const AFTER_KILL: Duration = Duration::from_secs(4);
/// Pause of a writer whose attempt was refused at once.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

struct Contender {
    kind: Kind,
    members: Members,
    gaps: Vec<Duration>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.turn > 0, "a turn has at least one kill");
    println!(
        "{} writers of {VALUE_BYTES} bytes over the etcd API, client timeout {} ms, {} kills each",
        arguments.writers, arguments.timeout_ms, arguments.kills
    );
    let mut contenders = Vec::new();
    let programs =
        [(Kind::Onefold, Some(&arguments.onefold)), (Kind::Etcd, arguments.etcd.as_ref())];
    for (kind, program) in programs {
        if let Some(program) = program {
            let members = Members::start(kind, program, &arguments.data_dir).await?;
            contenders.push(Contender { kind, members, gaps: Vec::new() });
        }
    }
    while contenders.iter().any(|contender| contender.gaps.len() < arguments.kills) {
        for contender in &mut contenders {
            for _ in 0..arguments.turn.min(arguments.kills - contender.gaps.len()) {
                kill_once(contender, &arguments).await?;
            }
        }
    }
    for contender in &mut contenders {
        contender.gaps.sort_unstable();
        let gaps = &contender.gaps;
        let middle = (gaps[(gaps.len() - 1) / 2] + gaps[gaps.len() / 2]) / 2;
        println!(
            "{:?}: longest gap without a success: median {} ms, worst {} ms, best {} ms",
            contender.kind,
            middle.as_millis(),
            gaps[gaps.len() - 1].as_millis(),
            gaps[0].as_millis()
        );
    }
    Ok(())
}

/// Puts load on the cluster, kills its leader, measures, and makes it whole again.
async fn kill_once(contender: &mut Contender, arguments: &Arguments) -> Result<()> {
    let members = &mut contender.members;
    members.wait_for_leader().await?;
    let load = Load::start(members.clients(), arguments)?;
    sleep(BEFORE_KILL).await;
    // Only now: leaders move when a restarted member takes its share back.
    let leader = members.wait_for_leader().await?;
    let killed = Instant::now();
    members.kill_member(leader)?;
    sleep(AFTER_KILL).await;
    members.start_member(leader)?;
    let caught_up = members.wait_for_catch_up(leader).await?;
    let (successes, failures) = load.stop().await;
    let end = killed + AFTER_KILL;
    let gap = longest_gap(&successes, killed, end);
    println!(
        "{:?} kill {}: member {} of {NODES} led; gap {} ms; {} puts, {} attempts failed; back and \
         caught up under load in {:.1} s",
        contender.kind,
        contender.gaps.len() + 1,
        leader + 1,
        gap.as_millis(),
        successes.len(),
        failures,
        caught_up.as_secs_f64(),
    );
    contender.gaps.push(gap);
    Ok(())
}

/// The longest time between two successes around the kill; an open end counts.
fn longest_gap(successes: &[Instant], killed: Instant, end: Instant) -> Duration {
    let last_before = successes.iter().copied().filter(|&at| at <= killed).max();
    let mut moments: Vec<Instant> =
        successes.iter().copied().filter(|&at| at > killed && at < end).collect();
    moments.extend(last_before);
    moments.push(end);
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(end - killed)
}

/// Writers that run until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    successes: Arc<Mutex<Vec<Instant>>>,
    writers: JoinSet<u64>,
}

impl Load {
    fn start(addresses: &[String], arguments: &Arguments) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let successes = Arc::<Mutex<Vec<Instant>>>::default();
        let mut writers = JoinSet::new();
        for number in 0..arguments.writers {
            let timeout = Duration::from_millis(arguments.timeout_ms);
            let clients = addresses
                .iter()
                .map(|address| EtcdClient::new(address, timeout))
                .collect::<Result<Vec<_>>>()?;
            let (stop, successes) = (Arc::clone(&stop), Arc::clone(&successes));
            writers.spawn(write(number, clients, stop, successes));
        }
        Ok(Self { stop, successes, writers })
    }

    /// When each put succeeded, and how many attempts failed.
    async fn stop(self) -> (Vec<Instant>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.writers.join_all().await.iter().sum();
        let successes =
            std::mem::take(&mut *self.successes.lock().unwrap_or_else(PoisonError::into_inner));
        (successes, failures)
    }
}

/// Puts one value after the other; after a failed attempt the same one at the next member.
async fn write(
    number: usize,
    clients: Vec<EtcdClient>,
    stop: Arc<AtomicBool>,
    successes: Arc<Mutex<Vec<Instant>>>,
) -> u64 {
    let (mut member, mut round, mut failures) = (number, 0_u64, 0);
    while !stop.load(Ordering::Relaxed) {
        let key = format!("kill/{number}/{}", round % 1000).into_bytes();
        let begin = Instant::now();
        let outcome = clients[member % clients.len()].put(key, vec![0x5a; VALUE_BYTES]).await;
        if outcome.is_ok() {
            successes.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            round += 1;
        } else {
            failures += 1;
            member += 1;
            sleep(RETRY_PAUSE.saturating_sub(begin.elapsed())).await;
        }
    }
    failures
}
