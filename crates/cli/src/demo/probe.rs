//! A client that writes all the time, to see how long the loss of a node keeps it waiting and
//! whether anything that it was promised is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use onefold_kv::{Kv, PutRequest, RangeRequest};
use tokio_util::sync::CancellationToken;

const PAUSE: Duration = Duration::from_millis(5);
const PREFIX: &str = "demo/probe/";

/// What the client saw.
pub struct Report {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that could not be read at the end.
    pub lost: u64,
    /// The longest time between two acknowledgements.
    pub longest_gap: Duration,
}

/// The running client.
pub struct Probe {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<Report>>,
}

impl Probe {
    /// Starts writing.
    pub fn start(kv: Arc<dyn Kv>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(write(kv, stop.clone()));
        Self { stop, task }
    }

    /// Stops writing, and reads everything back.
    pub async fn stop(self) -> anyhow::Result<Report> {
        self.stop.cancel();
        self.task.await.context("the probing client failed")?
    }
}

async fn write(kv: Arc<dyn Kv>, stop: CancellationToken) -> anyhow::Result<Report> {
    let mut acknowledged = 0u64;
    let mut longest_gap = Duration::ZERO;
    let mut last: Option<Instant> = None;
    while !stop.is_cancelled() {
        // A write without an answer is tried again under the same key.
        let key = format!("{PREFIX}{acknowledged:08}");
        match kv.put(PutRequest::new(key, acknowledged.to_string())).await {
            Ok(_) => {
                acknowledged += 1;
                let now = Instant::now();
                if let Some(last) = last {
                    longest_gap = longest_gap.max(now - last);
                }
                last = Some(now);
            }
            Err(error) => tracing::debug!("the probe's write: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    let lost = missing(&*kv, acknowledged).await?;
    Ok(Report { acknowledged, lost, longest_gap })
}

async fn missing(kv: &dyn Kv, acknowledged: u64) -> anyhow::Result<u64> {
    let mut missing = 0;
    for number in 0..acknowledged {
        let found = kv.range(RangeRequest::key(format!("{PREFIX}{number:08}"))).await?;
        let expected = number.to_string();
        if found.kvs.first().is_none_or(|kv| kv.value != expected.as_bytes()) {
            missing += 1;
        }
    }
    Ok(missing)
}
