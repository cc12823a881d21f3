//! Following the source's events, one of its revisions after the other.

use onefold_etcd::proto::etcdserverpb::WatchResponse;
use onefold_etcd::proto::mvccpb::event::EventType;

use super::source::{Source, SourceError};
use super::target::{Changes, Target};

/// Writes the events after `revision` until the source fails, or has compacted what comes next; then
/// it answers to which revision.
pub async fn run(source: &Source, target: &mut Target, revision: i64) -> anyhow::Result<i64> {
    let mut responses = source.watch(revision + 1).await?;
    loop {
        let response = responses.message().await.map_err(SourceError::from)?;
        let Some(response) = response else { return Err(SourceError::ended().into()) };
        if response.compact_revision > 0 {
            return Ok(response.compact_revision);
        }
        if response.canceled {
            return Err(SourceError::canceled(&response.cancel_reason).into());
        }
        write(target, response).await?;
    }
}

/// Writes the events of a response: each revision whole, and several together as long as they fit
/// one transaction.
async fn write(target: &mut Target, response: WatchResponse) -> anyhow::Result<()> {
    let mut together = Changes::default();
    let mut at = None;
    let mut events = response.events.into_iter().peekable();
    while let Some(revision) = events.peek().map(mod_revision) {
        let mut changes = Changes::default();
        while let Some(event) = events.next_if(|event| mod_revision(event) == revision) {
            let is_put = event.r#type() == EventType::Put;
            let Some(kv) = event.kv else { continue };
            changes.add(target.rename(&kv.key)?, is_put.then_some(kv.value));
        }
        if let Some(at) = at.filter(|_| !together.fits(&changes)) {
            target.follow_to(std::mem::take(&mut together), at).await?;
        }
        together.append(changes);
        at = Some(revision);
    }
    // Without events it is a sign that there were none up to the header's revision.
    let header = response.header.filter(|_| at.is_none() && !response.created);
    match at.or(header.map(|header| header.revision)) {
        Some(at) if Some(at) > target.followed_to() => target.follow_to(together, at).await,
        _ => Ok(()),
    }
}

fn mod_revision(event: &onefold_etcd::proto::mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
