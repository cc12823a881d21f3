//! `onefold demo`: the whole system in a minute, with a node killed on the way, checked against a
//! count that shares no code with it.

mod count;
mod input;
mod probe;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use onefold_client::Client;
use onefold_files::FilePath;
use onefold_mapreduce::limits::SPLIT_BYTES_MAX;
use onefold_mapreduce::{JobId, JobSpec, JobStatus, Phase, Program};
use onefold_types::{GroupId, NodeId};

use crate::etcd_options::EtcdArgs;
use crate::local::{ClusterOptions, LocalCluster, free_base_port};
use crate::output::{Progress, Unit, bytes};
use crate::transfer::{self, Pair};
use count::Counts;
use probe::Probe;

const NODES: usize = 3;
const TOP: usize = 10;
const BUCKET: &str = "demo";
/// Enough map tasks that the job is in the middle for a while.
const MAP_TASKS_AIM: u64 = 60;
const SPLIT_BYTES_MIN: u64 = 16 << 10;
/// The share of the job, in thousandths, after which the node is killed.
const KILL_AT_PERMILLE: u32 = 100;
/// A job over less input would be over before anybody could look at its progress: there the node is
/// killed as soon as the job is accepted.
const SMALL_INPUT_BYTES: u64 = 64 << 20;
/// How long to look at a job's status before looking again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a cluster that lost a node may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Show in a minute that it works: a three-node cluster in a temporary folder stores real files and
/// counts their words; the leader's node is killed on the way; the result is compared with a plain
/// count over the local files.
#[derive(Args)]
pub struct DemoArgs {
    /// The folder whose files are stored and counted [default: the source code of the crates in
    /// cargo's home, else this project's own files].
    #[arg(long, env = "ONEFOLD_INPUT", value_name = "DIR")]
    input: Option<PathBuf>,
}

/// Runs the verb: exit code 0 when both counts are equal.
pub async fn run(arguments: DemoArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let folder = input::choose(arguments.input)?;
    let target: FilePath = format!("/{BUCKET}/input/").parse()?;
    let pairs = transfer::pairs_below(&folder, &target)?;
    ensure!(!pairs.is_empty(), "{} holds no files; choose another --input", folder.display());
    let total = pairs.iter().map(|pair| pair.bytes).sum();
    step(
        started,
        &format!("input: {} files, {} in {}", pairs.len(), bytes(total), folder.display()),
    );

    let data = tempfile::Builder::new()
        .prefix("onefold-demo-")
        .tempdir()
        .context("cannot create a temporary folder")?;
    let base_port = Some(free_base_port(NODES)?);
    let options = ClusterOptions {
        nodes: Some(NODES),
        folder: data.path().to_owned(),
        base_port,
        etcd: EtcdArgs::default(),
        routes: BTreeMap::new(),
    };
    let mut cluster = tokio::select! {
        cluster = LocalCluster::start(options) => cluster?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    step(started, &format!("cluster: {NODES} nodes run in {}", data.path().display()));
    let equal = tokio::select! {
        equal = demonstrate(&mut cluster, pairs, total, started) => equal,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    cluster.stop().await?;
    Ok(if equal? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn demonstrate(
    cluster: &mut LocalCluster,
    pairs: Vec<Pair>,
    total: u64,
    started: Instant,
) -> anyhow::Result<bool> {
    let client = cluster.client()?;
    let files = client.files();
    files.create_bucket(BUCKET).await?;
    let began = Instant::now();
    transfer::upload_all(&files, pairs.clone()).await?;
    let rate = bytes((total as f64 / began.elapsed().as_secs_f64()) as u64);
    step(started, &format!("stored: {} as S3 objects, three copies each, {rate}/s", bytes(total)));

    let probe = Probe::start(client.kv());
    let output = format!("/{BUCKET}/counts");
    let mut spec = JobSpec::new(Program::WordCount, vec![target_of(&pairs)?], &output);
    spec.split_bytes = (total / MAP_TASKS_AIM).clamp(SPLIT_BYTES_MIN, SPLIT_BYTES_MAX);
    let began = Instant::now();
    let job = client.mapreduce().submit(spec).await?;
    let kill_at = if total < SMALL_INPUT_BYTES { 0 } else { KILL_AT_PERMILLE };
    let (killed, status) = run_job(cluster, &client, job, kill_at, started).await?;
    let took = began.elapsed();
    let probed = probe.stop().await?;
    ensure!(
        status.summary.phase == Phase::Succeeded,
        "the job {}: {}",
        status.summary.phase,
        status.error.unwrap_or_default()
    );
    step(
        started,
        &format!(
            "counted: {} of {} map tasks, {} reduce tasks in {:.1} s",
            status.summary.maps.done,
            status.summary.maps.total,
            status.summary.reduces.done,
            took.as_secs_f64()
        ),
    );

    let counted = count::from_cluster(&files, &output.parse()?).await?;
    let local = count::from_files(pairs).await?;
    step(started, "checked: counted the local files again in plain code");
    report(&counted, &local, total, took, &killed, &probed);
    Ok(counted == local && probed.lost == 0)
}

fn target_of(pairs: &[Pair]) -> anyhow::Result<String> {
    let first = pairs.first().context("there is at least one file")?;
    Ok(format!("/{}/input/", first.remote.bucket()))
}

/// What was killed.
struct Killed {
    node: NodeId,
    led: String,
    permille: u32,
}

/// Watches the job to its end, and kills a leader's node in the middle of it.
async fn run_job(
    cluster: &mut LocalCluster,
    client: &Client,
    job: JobId,
    kill_at_permille: u32,
    started: Instant,
) -> anyhow::Result<(Killed, JobStatus)> {
    let mapreduce = client.mapreduce();
    let mut progress = Progress::new("counting", Unit::Items, 100);
    let mut killed = None;
    let mut answered = Instant::now();
    loop {
        match mapreduce.status(job).await {
            Ok(status) => {
                answered = Instant::now();
                let permille = status.permille();
                progress.set(u64::from(permille / 10), 100);
                let ended = status.summary.phase.is_ended();
                if ended {
                    progress.finish();
                    let killed = killed.context(
                        "the job ended before a node could be killed; give a larger --input",
                    )?;
                    return Ok((killed, status));
                }
                if killed.is_none() && permille >= kill_at_permille {
                    let victim = kill_leader(cluster, client, permille).await?;
                    step(
                        started,
                        &format!(
                            "killed: node {} (leader of {}) with SIGKILL, the job at {} %",
                            victim.node,
                            victim.led,
                            permille / 10
                        ),
                    );
                    killed = Some(victim);
                }
            }
            Err(error) if answered.elapsed() > ANSWER_PATIENCE => return Err(error.into()),
            Err(error) => tracing::debug!("asking for the job: {error}"),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Kills the node that leads the file system's namespace, and whatever else it leads.
async fn kill_leader(
    cluster: &mut LocalCluster,
    client: &Client,
    permille: u32,
) -> anyhow::Result<Killed> {
    let status = client.status().await?;
    let node = status
        .leader(GroupId::NAMESPACE)
        .context("the file system has no leader although nothing was killed yet")?;
    let led = status.groups().into_iter().filter(|group| status.leader(*group) == Some(node));
    let led = led.map(onefold_admin::group_name).collect::<Vec<_>>().join(", ");
    cluster.kill_node(node.get()).await?;
    Ok(Killed { node, led, permille })
}

fn report(
    counted: &Counts,
    local: &Counts,
    total: u64,
    took: Duration,
    killed: &Killed,
    probed: &probe::Report,
) {
    println!("\n{:>12}  word", "count");
    for (word, count) in count::top(counted, TOP) {
        println!("{count:>12}  {word}");
    }
    let words: u64 = counted.values().sum();
    println!("\nread       {} ({words} words, {} different)", bytes(total), counted.len());
    println!(
        "took       {:.1} s ({}/s)",
        took.as_secs_f64(),
        bytes((total as f64 / took.as_secs_f64()) as u64)
    );
    println!(
        "killed     node {}, leader of {}, with the job at {} %",
        killed.node,
        killed.led,
        killed.permille / 10
    );
    println!(
        "clients    waited at most {} ms between two acknowledged writes ({} writes, {} lost)",
        probed.longest_gap.as_millis(),
        probed.acknowledged,
        probed.lost
    );
    if counted == local {
        println!("result     equal to a plain count over the local files");
    } else {
        println!("result     NOT EQUAL to a plain count over the local files");
        for (word, here, there) in count::differences(counted, local, TOP) {
            println!("           {word}: {here} in the cluster, {there} in the local files");
        }
    }
}

fn step(started: Instant, text: &str) {
    println!("[{:6.1} s] {text}", started.elapsed().as_secs_f64());
}

/// The files of the cluster, as every part of the demo sees them.
type Files = Arc<dyn onefold_files::FileSystem>;
