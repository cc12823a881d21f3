//! What remains without any consensus: commands are made, kept in three logs, handed out and dropped.
//! The limit that no core in this program can pass.

use std::collections::VecDeque;

use anyhow::Result;
use bytes::Bytes;

use crate::{
    measure::{Applied, Run, Shape, Stopwatch, command},
    retention,
};

const REPLICAS: usize = 3;

#[derive(Default)]
struct Replica {
    log: VecDeque<Bytes>,
    applied: Applied,
}

pub(crate) fn run(shape: Shape) -> Result<Run> {
    let mut replicas: [Replica; REPLICAS] = Default::default();
    drive(&mut replicas, shape, shape.entries / 10);
    let stopwatch = Stopwatch::start();
    drive(&mut replicas, shape, shape.entries);
    Ok(stopwatch.finish(shape.entries))
}

fn drive(replicas: &mut [Replica], shape: Shape, entries: u64) {
    let mut proposed = 0;
    while proposed < entries {
        let last = (proposed + shape.batch as u64).min(entries);
        let batch: Vec<Bytes> =
            (proposed..last).map(|number| Bytes::from(command(shape, number))).collect();
        proposed = last;
        for Replica { log, applied } in replicas.iter_mut() {
            log.extend(batch.iter().cloned());
            for command in &batch {
                applied.apply(command);
            }
            let kept = log.len() as u64;
            if let Some(through) = retention::compact_through(kept, kept) {
                log.drain(..through as usize);
            }
        }
    }
}
