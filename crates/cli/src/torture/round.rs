//! Rounds: a while of faults under load, then rest, read back, judge. Rounds bound what has to be
//! remembered, and tell of a violation when it has happened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use onefold_checker::history::{History, Operation, Record};
use onefold_checker::judge;
use onefold_types::Revision;

use super::faults::Target;
use super::plan::{self, Fault};
use super::report::{PlannedRound, Report};
use super::workload::readback::{count, present, read_copy, read_history};
use super::workload::recorder::Recorder;
use super::workload::session::Address;
use super::workload::{Keys, Workload};

/// Longest round.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// How long a cluster without faults may take to be whole again, and watches to be told everything.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A run's rounds.
pub struct Rounds {
    pub target: Arc<Target>,
    pub addresses: Arc<[Address]>,
    pub faults: Vec<Fault>,
    pub seed: u64,
    pub total: Duration,
    pub folder: PathBuf,
    pub epoch: Instant,
}

/// What one round hands to the next.
struct Carried {
    begin: Revision,
    base: Vec<Record>,
    open: Vec<Operation>,
}

impl Rounds {
    /// Runs until the time is over or something is found.
    ///
    /// # Errors
    /// When the cluster does not recover, or something could not be checked.
    pub async fn run(self) -> anyhow::Result<Report> {
        let mut report = Report::new(self.seed, self.addresses.len());
        let mut carried = self.first().await?;
        let mut left = self.total;
        for number in 0.. {
            if left.is_zero() || !report.is_clean() {
                break;
            }
            let time = left.min(ROUND_MAX);
            carried = self.round(number, time, carried, &mut report).await?;
            report.seconds += time.as_secs();
            left -= time;
            eprintln!(
                "after {} s: {} answers, {} revisions, {} events watched, {} violations",
                report.seconds,
                report.looked.answered,
                report.looked.revisions,
                report.looked.watch_events,
                report.violations.len() + report.ended.len()
            );
        }
        Ok(report)
    }

    async fn first(&self) -> anyhow::Result<Carried> {
        let at = self.present().await?;
        let copy = read_copy(&self.addresses[0], at, PATIENCE).await?;
        Ok(Carried { begin: at, base: copy.records, open: Vec::new() })
    }

    async fn round(
        &self,
        number: u64,
        time: Duration,
        carried: Carried,
        report: &mut Report,
    ) -> anyhow::Result<Carried> {
        let seed = self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let nodes = self.addresses.len() as u64;
        let plan = plan::draw(seed, &self.faults, nodes, time);
        eprintln!("round {number}:");
        plan.iter().for_each(|step| eprintln!("  {step}"));
        let keys = Keys::of_round(number);
        let recorder = Arc::new(Recorder::new(self.epoch, carried.begin));
        let began = recorder.now();
        let workload =
            Workload::start(&keys, seed, recorder.clone(), self.addresses.clone(), carried.begin);
        let start = tokio::time::Instant::now();
        self.target.endure(&plan, start, start + time).await;
        report.plan.push(PlannedRound { round: number, steps: plan });
        let ended = recorder.now();
        let carried_over = carried.open.len();
        let history = self.settle(&keys, workload, carried).await?;
        report.count(&history, began, ended);
        report.faults = self.target.done.lock().await.clone();
        report.ended = self.target.ended.lock().await.clone();
        self.judge(number, history, carried_over, report).await
    }

    /// Lets the cluster come to rest, and reads back what it holds.
    async fn settle(
        &self,
        keys: &Keys,
        mut workload: Workload,
        carried: Carried,
    ) -> anyhow::Result<History> {
        self.target.heal().await;
        workload.stop().await;
        self.wait_for_leases(keys).await?;
        let end = self.present().await?;
        let recorder = workload.recorder.clone();
        workload.finish(end, PATIENCE).await;
        let from = recorder.compacted().next();
        let readings = self.addresses.iter().map(|address| {
            let recorder = &recorder;
            async move { read_history(address, recorder, from, end).await }
        });
        let readings = try_join_all(readings).await.context("history cannot be read back")?;
        let copies = self.addresses.iter().map(|address| read_copy(address, end, PATIENCE));
        let copies = try_join_all(copies).await?;
        let (mut operations, watches, mut all) = recorder.take();
        operations.extend(carried.open);
        all.extend(readings);
        Ok(History {
            begin: carried.begin,
            base: carried.base,
            compacted: carried.begin,
            end,
            operations,
            watches,
            readings: all,
            copies,
            accounts: Some(keys.accounts()),
            registers: Some(keys.registers()),
            clock_drift_ppm: 0,
        })
    }

    /// The present revision, once a majority answers every node.
    async fn present(&self) -> anyhow::Result<Revision> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let asked = self.addresses.iter().map(present);
            match try_join_all(asked).await {
                Ok(revisions) => return Ok(revisions.into_iter().max().unwrap_or_default()),
                Err(error) if Instant::now() > give_up => {
                    let waited = PATIENCE.as_secs();
                    return Err(error.context(format!(
                        "the cluster does not answer at every node {waited} s after all faults ended"
                    )));
                }
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Waits until all leases have ended, which nobody keeps alive any more. If they do not, the
    /// judge says so.
    async fn wait_for_leases(&self, keys: &Keys) -> anyhow::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        self.present().await?;
        while Instant::now() < give_up {
            if count(&self.addresses[0], &keys.leased()).await.is_ok_and(|count| count == 0) {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    async fn judge(
        &self,
        number: u64,
        history: History,
        carried_over: usize,
        report: &mut Report,
    ) -> anyhow::Result<Carried> {
        let judging = tokio::task::spawn_blocking(move || (judge(&history), history));
        let (verdict, history) = judging.await.context("the checker failed")?;
        let path = self.folder.join(format!("history-{number}.json"));
        let keep = || -> anyhow::Result<String> {
            let file = std::fs::File::create(&path)?;
            serde_json::to_writer(std::io::BufWriter::new(file), &history)?;
            Ok(path.display().to_string())
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => return Err(anyhow::Error::new(error).context(keep()?)),
        };
        report.looked.add(&verdict.looked);
        // Those of the round before were counted then.
        report.looked.unknown -= carried_over;
        if !verdict.violations.is_empty() {
            report.history = Some(keep().context("the history cannot be kept")?);
            report.violations.extend(verdict.violations);
        }
        Ok(Carried { begin: history.end, base: verdict.state, open: verdict.open })
    }
}
