//! `onefold kv history`: every change, one JSON object on a line.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use onefold_kv::limits::WATCH_BATCH_BYTES;
use onefold_kv::{Kv, RangeRequest, WatchPoll, WatchRequest};
use onefold_types::Revision;
use serde::Serialize;

use super::text::Record;
use super::watch::name;

/// How long a poll may look for changes of the span. Where its last ones are long past, the end is
/// found after this time.
const POLL_WAIT: Duration = Duration::from_secs(2);

/// One change.
#[derive(Serialize)]
struct Change {
    revision: Revision,
    event: &'static str,
    #[serde(flatten)]
    record: Record,
}

/// Prints the changes of a span from a revision on, up to the present one, in order.
///
/// With no revision given, it begins where the readable history begins.
pub async fn run(
    kv: &Arc<dyn Kv>,
    watch: WatchRequest,
    to: Option<Revision>,
) -> anyhow::Result<()> {
    let is_from_start = watch.from_revision == Revision::ZERO;
    let nothing = RangeRequest { count_only: true, ..RangeRequest::key(&[0][..]) };
    let present = kv.range(nothing).await?.header.revision;
    let last = to.unwrap_or(present).min(present);
    let mut watch = WatchRequest { from_revision: watch.from_revision.max(Revision(1)), ..watch };
    let mut out = BufWriter::new(std::io::stdout().lock());
    while watch.from_revision <= last {
        let poll =
            WatchPoll { watch: watch.clone(), wait: POLL_WAIT, bytes_max: WATCH_BATCH_BYTES };
        let batch = kv.watch_poll(poll).await?;
        if let Some(compacted) = batch.compacted {
            anyhow::ensure!(
                is_from_start,
                "the history before revision {compacted} is compacted; begin there with --from-rev"
            );
            watch.from_revision = compacted;
            continue;
        }
        for event in batch.events {
            let revision = event.kv.mod_revision;
            if revision > last {
                break;
            }
            let (event, kv) = (name(event.kind), event.kv);
            let change = Change { revision, event, record: Record::from(kv) };
            serde_json::to_writer(&mut out, &change)?;
            writeln!(out)?;
        }
        watch.from_revision = batch.next_revision;
    }
    out.flush()?;
    Ok(())
}
