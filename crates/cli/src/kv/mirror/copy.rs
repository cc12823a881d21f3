//! Making the target the same as the source at one revision, by walking both in order.

use std::cmp::Ordering;

use bytes::Bytes;
use onefold_kv::{Kv, RangeRequest};

use super::source::{PageError, Source, after};
use super::target::{Changes, Target};
use crate::output::{Progress, Unit};

/// Keys of the target that are read at once.
const PAGE_KEYS: u64 = 256;

/// What a copy did.
pub struct Copied {
    pub revision: i64,
    pub keys: u64,
    pub written: u64,
    pub deleted: u64,
}

/// Copies what differs, and notes the revision.
pub async fn run(source: &Source, target: &mut Target) -> anyhow::Result<Copied> {
    let mut revision = source.revision();
    target.lose_track().await?;
    loop {
        match copy(source, target, revision).await? {
            Some(copied) => {
                target.follow_to(Changes::default(), revision).await?;
                return Ok(copied);
            }
            // The revision was compacted on the way. What was copied is not copied again.
            None => revision = source.present().await?,
        }
    }
}

/// Copies at a revision; nothing when it is compacted.
async fn copy(
    source: &Source,
    target: &mut Target,
    revision: i64,
) -> anyhow::Result<Option<Copied>> {
    let mut copied = Copied { revision, keys: 0, written: 0, deleted: 0 };
    let mut progress = Progress::new("copying", Unit::Items, 0);
    let mut pages = source.pages(revision);
    let mut there = There::new(target);
    let mut changes = Changes::default();
    let mut wanted = None;
    let mut is_over = false;
    loop {
        if wanted.is_none() && !is_over {
            wanted = match pages.next().await {
                Ok(kv) => {
                    kv.map(|kv| anyhow::Ok((target.rename(&kv.key)?, kv.value))).transpose()?
                }
                Err(PageError::Compacted) => return Ok(None),
                Err(PageError::Source(error)) => return Err(error.into()),
            };
            is_over = wanted.is_none();
        }
        let found = there.peek(target).await?;
        let order = match (&wanted, found) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((wanted, _)), Some((found, _))) => wanted.cmp(found),
        };
        if order.is_gt() {
            if let Some((key, _)) = there.take() {
                changes.add(key, None);
                copied.deleted += 1;
            }
        } else if let Some((key, value)) = wanted.take() {
            copied.keys += 1;
            let is_same = order.is_eq() && there.take().is_some_and(|(_, found)| found == value);
            if !is_same {
                changes.add(key, Some(value));
                copied.written += 1;
            }
            progress.set(copied.keys, copied.keys);
        }
        if changes.is_full() {
            target.copy(std::mem::take(&mut changes)).await?;
        }
    }
    if !changes.is_empty() {
        target.copy(changes).await?;
    }
    progress.finish();
    Ok(Some(copied))
}

/// The target's keys in order, page by page.
struct There {
    next: Option<RangeRequest>,
    page: std::iter::Peekable<std::vec::IntoIter<(Bytes, Bytes)>>,
}

impl There {
    fn new(target: &Target) -> Self {
        let (_, span) = target.kv();
        let next = Some(RangeRequest { limit: PAGE_KEYS, ..span });
        Self { next, page: Vec::new().into_iter().peekable() }
    }

    async fn peek(&mut self, target: &Target) -> anyhow::Result<Option<&(Bytes, Bytes)>> {
        while self.page.peek().is_none() {
            let Some(request) = self.next.take() else { return Ok(None) };
            let (kv, _): (&dyn Kv, _) = target.kv();
            let answer = kv.range(request.clone()).await?;
            if answer.more {
                let last = answer.kvs.last().map(|last| after(&last.key));
                self.next = last.map(|key| RangeRequest { key, ..request });
            }
            let kvs = answer.kvs.into_iter().filter(|kv| !target.is_cursor(&kv.key));
            let page: Vec<_> = kvs.map(|kv| (kv.key, kv.value)).collect();
            self.page = page.into_iter().peekable();
        }
        Ok(self.page.peek())
    }

    fn take(&mut self) -> Option<(Bytes, Bytes)> {
        self.page.next()
    }
}
