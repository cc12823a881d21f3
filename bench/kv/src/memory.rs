//! Many keys: the memory and disk that they take, and how soon servers answer after a restart.
//!
//! The clusters are filled and measured one after the other, each alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use onefold_bench_common::NODES;
use onefold_bench_common::process::{anonymous_bytes, mib, resident_bytes};

use crate::contenders::{Contender, Servers, count, positive};
use crate::fleet::Fleet;
use crate::grpc::Connection;
use crate::load::{self, Load};
use crate::statistics::Summary;
use crate::wire::{Event, Operation, Wire};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// Keys of eight bytes.
    #[arg(long, default_value = "1000000", value_parser = count)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Seconds of rest between the last put and the look at the memory.
    #[arg(long, default_value_t = 15.0, value_parser = positive)]
    rest: f64,
    /// How often all members, and then one member, are killed and started again.
    #[arg(long, default_value_t = 5)]
    restarts: usize,
}

const FILLING_CLIENTS: usize = 512;
/// Longest wait for one answer of a server that starts, so that a request which it swallowed does
/// not hide when it was ready.
const ATTEMPT_MAX: Duration = Duration::from_millis(250);
/// Between two attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(5);
/// Longest wait for a server to be ready.
const READY_MAX: Duration = Duration::from_secs(300);

/// Measures each server.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    println!(
        "{} keys, values of {} bytes; memory and disk {} s after the last put; {} restarts after \
         SIGKILL, to the first linearizable range that is answered",
        arguments.keys, arguments.bytes, arguments.rest, arguments.restarts
    );
    for server in arguments.servers.list() {
        let mut contender = arguments.servers.start_one(server).await?;
        println!("\n{}", contender.name);
        fill(&contender, &arguments).await?;
        tokio::time::sleep(Duration::from_secs_f64(arguments.rest)).await;
        print_room(&contender)?;
        print_restarts(&mut contender, &arguments).await?;
    }
    Ok(())
}

async fn fill(contender: &Contender, arguments: &Arguments) -> Result<()> {
    let load = Load {
        clients: FILLING_CLIENTS,
        keys: arguments.keys as u32,
        value_bytes: arguments.bytes,
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
    };
    let start = Instant::now();
    load::fill(&mut contender.connect::<Connection>(FILLING_CLIENTS).await?, load)?;
    let per_second = arguments.keys as f64 / start.elapsed().as_secs_f64();
    println!("  filled at {per_second:.0} per s");
    Ok(())
}

fn print_room(contender: &Contender) -> Result<()> {
    let total = |figure: fn(u32) -> Result<u64>| -> Result<(f64, Summary)> {
        let members: Vec<f64> = contender
            .members
            .processes()
            .map(|process| Ok(mib(figure(process)?)))
            .collect::<Result<_>>()?;
        Ok((members.iter().sum(), Summary::of(members)))
    };
    let (resident, each) = total(resident_bytes)?;
    println!("  VmRSS: {resident:.0} MiB together; a member {each}");
    let (anonymous, each) = total(anonymous_bytes)?;
    println!("  RssAnon: {anonymous:.0} MiB together; a member {each}");
    let disk = mib(bytes_below(contender.members.folder())?);
    println!("  on disk: {disk:.0} MiB together");
    Ok(())
}

/// Bytes that the files below a folder take on disk.
fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A file that a running server has just removed takes nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes +=
            if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

async fn print_restarts(contender: &mut Contender, arguments: &Arguments) -> Result<()> {
    let (mut of_all, mut of_one) = (Vec::new(), Vec::new());
    for _ in 0..arguments.restarts {
        for at in 0..NODES {
            contender.members.kill_member(at)?;
        }
        let start = Instant::now();
        for at in 0..NODES {
            contender.members.start_member(at)?;
        }
        let addresses = contender.members.clients().to_vec();
        of_all.push(time_to_answer(start, &addresses, arguments)?);
        let follower = (contender.members.wait_for_leader().await? + 1) % NODES;
        contender.members.kill_member(follower)?;
        let start = Instant::now();
        contender.members.start_member(follower)?;
        of_one.push(time_to_answer(start, &addresses[follower..=follower], arguments)?);
        contender.members.wait_for_leader().await?;
    }
    if arguments.restarts > 0 {
        println!("  all members started: first answer of any after {:.2} s", Summary::of(of_all));
        println!("  one follower started: its first answer after {:.2} s", Summary::of(of_one));
    }
    Ok(())
}

/// Asks one address after the other until one answers; gives the seconds since the start.
fn time_to_answer(start: Instant, addresses: &[String], arguments: &Arguments) -> Result<f64> {
    for address in addresses.iter().cycle() {
        if answers(address, arguments) {
            break;
        }
        ensure!(start.elapsed() < READY_MAX, "no answer within {READY_MAX:?} after a restart");
        std::thread::sleep(ATTEMPT_INTERVAL);
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Whether a member answers a linearizable range of a key that is there.
fn answers(address: &str, arguments: &Arguments) -> bool {
    let attempt = || -> Result<bool> {
        let mut fleet = Fleet::<Connection>::connect(std::iter::once(address))?;
        let key = load::key(arguments.keys as u32 / 2);
        fleet.wire(0).request(0, Operation::Get { key: &key, serializable: false })?;
        let (start, mut is_over, mut is_whole) = (Instant::now(), false, false);
        while !is_over && start.elapsed() < ATTEMPT_MAX {
            let rest = ATTEMPT_MAX.saturating_sub(start.elapsed());
            fleet.turn(rest, &mut |_, _, event| match event {
                Event::Message(message) => is_whole = message.len() >= arguments.bytes,
                Event::End { .. } => is_over = true,
            })?;
        }
        Ok(is_over && is_whole)
    };
    // A server that starts refuses and closes connections.
    attempt().unwrap_or(false)
}
