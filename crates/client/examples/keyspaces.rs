//! Writes into several keyspaces at once, and tells each one's rate and latency.
//!
//! ```sh
//! keyspaces HOST:PORT,… SECONDS NAME=CLIENTS…
//! ```
//!
//! Each client puts one 256-byte value after the other under keys of its own. To see how a noisy
//! keyspace disturbs a quiet one, give one of them many clients and the other a single one.

use std::time::{Duration, Instant};

use onefold_client::Client;
use onefold_kv::PutRequest;

const VALUE_BYTES: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: keyspaces HOST:PORT,… SECONDS NAME=CLIENTS…";
    let addresses = arguments.next().ok_or(usage)?;
    let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
    let time = Duration::from_secs(arguments.next().ok_or(usage)?.parse()?);
    let mut running = Vec::new();
    for load in arguments {
        let (name, clients) = load.split_once('=').ok_or(usage)?;
        let (name, clients): (_, u64) = (name.to_owned(), clients.parse()?);
        let mut writers = Vec::new();
        for client in 0..clients {
            // A connection of its own, as a process of its own has.
            let kv = Client::new(addresses.clone())?.keyspace(&name).await?;
            writers.push(tokio::spawn(async move {
                let until = Instant::now() + time;
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let key = format!("load/{client}/{}", latencies.len());
                    let began = Instant::now();
                    kv.put(PutRequest::new(key, vec![b'x'; VALUE_BYTES])).await?;
                    latencies.push(began.elapsed());
                }
                Ok::<_, onefold_kv::KvError>(latencies)
            }));
        }
        running.push((name, clients, writers));
    }
    println!("keyspace clients puts/s p50_ms p99_ms max_ms");
    for (name, clients, writers) in running {
        let mut latencies = Vec::new();
        for writer in writers {
            latencies.extend(writer.await??);
        }
        latencies.sort_unstable();
        let rate = latencies.len() as f64 / time.as_secs_f64();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| {
            let place = (latencies.len() as f64 * part) as usize;
            let at = latencies.get(place.min(latencies.len().saturating_sub(1)));
            at.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        });
        println!("{name} {clients} {rate:.0} {p50:.1} {p99:.1} {max:.1}");
    }
    Ok(())
}
