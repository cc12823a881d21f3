//! Reads back what the nodes hold: history by watching the past, and the present of each node.

use std::time::Duration;

use anyhow::{Context, bail};
use onefold_checker::history::{Copy, News, Reading, Span};
use onefold_etcd::proto::etcdserverpb::HashKvRequest;
use onefold_etcd::proto::etcdserverpb::kv_client::KvClient;
use onefold_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use onefold_types::Revision;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::convert::{range_request, record, revision, signed, unsigned};
use super::recorder::Recorder;
use super::session::Address;
use super::watcher::{WatchStream, Wish};

/// How long a node may be silent before reading from it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Reads all events of a stretch of history from one node.
pub async fn read_history(
    address: &Address,
    recorder: &Recorder,
    from: Revision,
    until: Revision,
) -> anyhow::Result<Reading> {
    let mut reading = Reading { node: address.node, from, until, events: Vec::new() };
    if from > until {
        return Ok(reading);
    }
    let channel = address.connect().await?;
    let wish =
        Wish { span: Span::everything(), start: Some(from), previous: false, fragment: true };
    let silent = || format!("node {} is silent about its history", address.node);
    let mut stream =
        timeout(SILENCE_MAX, WatchStream::open(channel, &wish)).await.with_context(silent)??;
    loop {
        let message = timeout(SILENCE_MAX, stream.next(recorder)).await.with_context(silent)??;
        let message = message.with_context(|| format!("node {} hung up", address.node))?;
        match message.news {
            News::Events { events, is_fragment } => {
                let last = events.iter().map(|event| event.revision).max().unwrap_or_default();
                let wanted = events.into_iter().filter(|event| event.revision <= until);
                reading.events.extend(wanted);
                // Each revision has events, so the last one that is wanted comes.
                if last > until || (last == until && !is_fragment) {
                    return Ok(reading);
                }
            }
            News::Compacted { oldest } => {
                bail!("history before {oldest} is gone and was wanted from {from} on")
            }
            News::Ended(reason) => bail!("node {} ended the watch: {reason}", address.node),
            News::Created | News::Progress => {}
        }
    }
}

/// The present revision, by all nodes' account.
pub async fn present(address: &Address) -> anyhow::Result<Revision> {
    let mut client = KvClient::new(address.connect().await?);
    let request = range_request(&Span::key("none"), None, false);
    let response = timeout(SILENCE_MAX, client.range(request)).await??.into_inner();
    Ok(revision(response.header.as_ref()))
}

/// How many keys lie in a span now.
pub async fn count(address: &Address, span: &Span) -> anyhow::Result<u64> {
    let mut client = KvClient::new(address.connect().await?);
    let mut request = range_request(span, None, false);
    request.count_only = true;
    let response = timeout(SILENCE_MAX, client.range(request)).await??.into_inner();
    Ok(unsigned(response.count))
}

/// What one node holds by its own account at a revision, and its hash of it. Waits for a node that is
/// not there yet.
pub async fn read_copy(
    address: &Address,
    at: Revision,
    patience: Duration,
) -> anyhow::Result<Copy> {
    let give_up = Instant::now() + patience;
    loop {
        match try_copy(address, at).await {
            Ok(copy) => return Ok(copy),
            Err(error) if Instant::now() > give_up => {
                return Err(error.context(format!("node {} cannot be read", address.node)));
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn try_copy(address: &Address, at: Revision) -> anyhow::Result<Copy> {
    let channel = address.connect().await?;
    let mut client = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let request = range_request(&Span::everything(), Some(at), true);
    let response = timeout(SILENCE_MAX, client.range(request)).await??.into_inner();
    let records = response.kvs.iter().map(record).collect();
    let request = HashKvRequest { revision: signed(at.get()) };
    let mut client = MaintenanceClient::new(channel);
    let hash = match timeout(SILENCE_MAX, client.hash_kv(request)).await? {
        Ok(response) => {
            let response = response.into_inner();
            Some((Revision(unsigned(response.compact_revision)), response.hash))
        }
        Err(status) if status.code() == Code::Unimplemented => None,
        Err(status) => return Err(status.into()),
    };
    Ok(Copy { node: address.node, revision: at, records, hash })
}
