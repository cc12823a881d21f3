//! What idle groups cost: three hosts in one process, each on a folder of its own, with as many
//! groups as asked for. Waits until all are quiet, then measures processor time and memory.
//!
//! ```text
//! cargo run --release -p onefold-replica --example idle_groups -- 1000 30
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_log::{Log, LogOptions};
use onefold_replica::{Apply, Formation, GroupSpec, Host, HostConfig, StateMachine};
use onefold_table::{MemoryTable, SpaceView, TableError};
use onefold_transport::{Identity, IdentityCell, Limits, Peers, Router, Server};
use onefold_types::{ClusterId, GroupId, NodeId};
use tokio_util::sync::CancellationToken;

const NODES: u64 = 3;

struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: &mut Apply<'_, '_>, _: &Bytes) -> Result<Bytes, TableError> {
        Ok(Bytes::new())
    }

    fn restored(&mut self, _: &SpaceView) -> Result<(), TableError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let groups: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(20), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let shutdown = CancellationToken::new();
    let mut servers = Vec::new();
    for _ in 0..NODES {
        servers.push(Server::bind("127.0.0.1:0").await?);
    }
    let addresses: Vec<_> =
        servers.iter().map(|server| server.local_address().to_string()).collect();
    let mut hosts = Vec::new();
    for (place, server) in servers.into_iter().enumerate() {
        let node = NodeId(place as u64 + 1);
        let identity = Arc::new(IdentityCell::new(Identity::node(ClusterId(1), node)));
        let peers = Peers::new(identity.clone(), Limits::default());
        for (other, address) in addresses.iter().enumerate() {
            peers.set_address(NodeId(other as u64 + 1), address.clone());
        }
        let path = folder.path().join(node.to_string());
        let (log, recovered) = Log::open(&path, LogOptions::default())?;
        let founders: Formation = Formation::Founders((1..=NODES).map(NodeId).collect());
        let specs =
            (1..=groups).map(|id| GroupSpec::new(GroupId(id), founders.clone(), Box::new(Nothing)));
        let table = Arc::new(MemoryTable::new());
        let config = HostConfig::new(node);
        let host = Host::start(config, log, recovered, table, peers, specs.collect())?;
        let mut router = Router::default();
        host.register(&mut router);
        tokio::spawn(server.serve(identity, router, shutdown.clone()));
        hosts.push(host);
    }
    let began = Instant::now();
    while hosts.iter().any(|host| host.metrics().node.groups_quiet < groups) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{groups} groups on {NODES} nodes: quiet after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let rounds =
        |hosts: &[Host]| -> u64 { hosts.iter().map(|host| host.metrics().node.rounds_total).sum() };
    let (cpu_before, rounds_before) = (cpu_ms()?, rounds(&hosts));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu_ms = cpu_ms()? - cpu_before;
    println!(
        "processor: {:.2}% of one core, all nodes together ({cpu_ms} ms in {seconds} s, {} rounds)",
        cpu_ms as f64 / 10.0 / seconds as f64,
        rounds(&hosts) - rounds_before,
    );
    println!("memory: {} KiB resident, all nodes together", resident_kib()?);
    shutdown.cancel();
    for host in hosts {
        host.shutdown().await;
    }
    Ok(())
}

/// Processor time of this process so far; Linux counts it in hundredths of a second.
fn cpu_ms() -> Result<u64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let times: Result<Vec<u64>, _> = fields.skip(11).take(2).map(str::parse).collect();
    Ok(times?.iter().sum::<u64>() * 10)
}

fn resident_kib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
