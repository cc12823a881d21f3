//! Walking the buckets that have rules, and removing what has expired.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onefold_files::limits::PAGE_ENTRIES_MAX;
use onefold_files::{
    FilesError, RemoveCondition, RemoveTarget, Setting, VersionEntry, VersionedFiles,
    VersionsRequest,
};
use tokio_util::sync::CancellationToken;

use super::rules::{Candidate, Noncurrent, Rules};
use crate::tags::{self, Tags};

/// From the end of one sweep to the beginning of the next.
const SWEEP_PERIOD: Duration = Duration::from_secs(60 * 60);
/// Pause after a page, so that a sweep leaves most of the cluster to its users.
const PAGE_PAUSE: Duration = Duration::from_millis(100);

/// Removes what the rules of the buckets say has expired, every hour on the node that finds that it is
/// its turn, until `shutdown` is cancelled. One node is enough, and two at once do no harm.
pub async fn expire(
    files: Arc<dyn VersionedFiles>,
    is_my_turn: impl Fn() -> bool + Send,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
        if !is_my_turn() {
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        tokio::select! {
            swept = sweep(&*files, now_ms, PAGE_PAUSE) => match swept {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "what had expired was removed"),
                Err(error) => tracing::warn!(%error, "what has expired could not be removed"),
            },
            () = shutdown.cancelled() => return,
        }
    }
}

/// One walk over all buckets with rules, as of a moment. Says how many versions and uploads went.
///
/// # Errors
/// The first that a page meets; the next sweep begins anew.
pub async fn sweep(
    files: &dyn VersionedFiles,
    now_ms: u64,
    pause: Duration,
) -> Result<u64, FilesError> {
    let mut removed = 0;
    for bucket in files.list_buckets().await? {
        let kept = match files.setting(&bucket.name, Setting::Lifecycle).await {
            Ok(kept) => kept,
            // It was deleted meanwhile.
            Err(FilesError::NoSuchBucket { .. }) => continue,
            Err(error) => return Err(error),
        };
        let Some(bytes) = kept else { continue };
        match serde_json::from_slice::<Rules>(&bytes) {
            Ok(rules) => {
                let bucket = Bucket { files, name: &bucket.name, rules, now_ms, pause };
                removed += bucket.sweep_versions().await? + bucket.sweep_uploads().await?;
            }
            Err(error) => {
                tracing::warn!(bucket = bucket.name, %error, "the lifecycle rules are damaged");
            }
        }
    }
    Ok(removed)
}

struct Bucket<'a> {
    files: &'a dyn VersionedFiles,
    name: &'a str,
    rules: Rules,
    now_ms: u64,
    pause: Duration,
}

/// What was seen of the key that the walk is at.
#[derive(Default)]
struct Seen {
    key: String,
    /// When the version before, which is newer, was made.
    newer_ms: u64,
    /// Noncurrent versions so far.
    noncurrent: usize,
}

impl Bucket<'_> {
    async fn sweep_versions(&self) -> Result<u64, FilesError> {
        let mut removed = 0;
        let mut after = None;
        let mut seen = Seen::default();
        // A version is judged when it is known what follows it.
        let mut waiting: Option<VersionEntry> = None;
        loop {
            let request = VersionsRequest {
                bucket: self.name.to_owned(),
                after: after.take(),
                limit: PAGE_ENTRIES_MAX,
                ..VersionsRequest::default()
            };
            let page = self.files.list_versions(request).await?;
            let mut targets = Vec::new();
            for entry in page.entries {
                if let Some(before) = &waiting {
                    targets.extend(self.judge(before, before.key == entry.key, &mut seen));
                }
                waiting = Some(entry);
            }
            removed += self.remove(targets).await?;
            let Some(next) = page.next else {
                let last = waiting.and_then(|last| self.judge(&last, false, &mut seen));
                return Ok(removed + self.remove(last.into_iter().collect()).await?);
            };
            after = Some(next);
            tokio::time::sleep(self.pause).await;
        }
    }

    fn judge(
        &self,
        entry: &VersionEntry,
        is_followed: bool,
        seen: &mut Seen,
    ) -> Option<RemoveTarget> {
        if entry.is_latest || entry.key != seen.key {
            *seen = Seen { key: entry.key.clone(), ..Seen::default() };
        }
        let noncurrent = (!entry.is_latest)
            .then_some(Noncurrent { since_ms: seen.newer_ms, newer: seen.noncurrent });
        seen.newer_ms = entry.modified.0;
        seen.noncurrent += usize::from(!entry.is_latest);
        let tags = entry.file.as_ref().and_then(|file| {
            let header = file.attributes.headers.get(tags::HEADER)?;
            Tags::from_header(header).ok()
        });
        let candidate = Candidate {
            key: &entry.key,
            tags: &tags.unwrap_or_default().0,
            size: entry.file.as_ref().map(|file| file.size),
            modified_ms: entry.modified.0,
            noncurrent,
            is_alone: entry.is_latest && !is_followed,
        };
        if !self.rules.has_expired(&candidate, self.now_ms) {
            return None;
        }
        let is_for_good = !entry.is_latest || entry.file.is_none();
        // If it was replaced meanwhile, its successor has not expired.
        let condition = match &entry.file {
            Some(file) if !is_for_good => RemoveCondition {
                etag: Some(file.etag.clone()),
                size: Some(file.size),
                modified_s: Some(entry.modified.0 / 1000),
            },
            _ => RemoveCondition::default(),
        };
        Some(RemoveTarget {
            key: entry.key.clone(),
            version: is_for_good.then_some(entry.version),
            condition,
            bypass_governance: false,
        })
    }

    /// Removes what may go; what is locked or was replaced meanwhile stays.
    async fn remove(&self, targets: Vec<RemoveTarget>) -> Result<u64, FilesError> {
        if targets.is_empty() {
            return Ok(0);
        }
        let removed = self.files.remove_versions(self.name, &targets).await?;
        Ok(removed.iter().flatten().filter(|removed| removed.existed).count() as u64)
    }

    async fn sweep_uploads(&self) -> Result<u64, FilesError> {
        let mut aborted = 0;
        let mut after = None;
        loop {
            let page =
                self.files.list_uploads(self.name, "", after.take(), PAGE_ENTRIES_MAX).await?;
            for upload in page.uploads {
                if !self.rules.has_ended(&upload.key, upload.created.0, self.now_ms) {
                    continue;
                }
                match self.files.abort_upload(self.name, &upload.key, &upload.upload).await {
                    Ok(()) => aborted += 1,
                    // It was completed or aborted meanwhile.
                    Err(FilesError::NoSuchUpload { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let Some((key, upload)) = page.next else { return Ok(aborted) };
            after = Some((key, Some(upload)));
            tokio::time::sleep(self.pause).await;
        }
    }
}
