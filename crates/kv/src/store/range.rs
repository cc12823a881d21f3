//! Reading a span: filters, sorting, limit, counting.
//!
//! Etcd answers how many keys a span has with every range, and with a limit of ten, too.

use std::cmp::Ordering;

use onefold_table::{Order, View};
use onefold_types::Revision;

use super::error::StoreError;
use super::state::State;
use super::stored::damaged;
use super::versions::{self, Versions};
use super::{counts, history};
use crate::{
    Header, KeySpan, KeyValue, RangePart, RangePartRequest, RangeRequest, RangeResponse, SortOrder,
    SortTarget,
};

/// Records beyond the limit that a sorted range holds before it sorts and cuts.
const SORT_SLACK: usize = 1024;

/// A range's answer, or the first part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) response: RangeResponse,
    /// Whether the bound on bytes cut records off that the request wants.
    pub(crate) cut: bool,
}

/// Reads a range from a view of the whole store, in which nothing waits for its commit.
///
/// It reads no more records than it answers, but to sort them, or for a filter to find them.
pub(crate) fn range(
    view: &dyn View,
    state: &State,
    request: &RangeRequest,
    bytes_max: usize,
) -> Result<Page, StoreError> {
    let at = state.readable(request.revision)?;
    let span = request.span();
    let header = Header { revision: state.revision, ..Header::default() };
    let mut collector = Collector::new(request, bytes_max);
    let is_present = at == state.revision;
    let versions = if request.count_only {
        versions::none()
    } else if is_present && is_by_key_descending(request) {
        collector.sorted = false;
        versions::currents(view, &span, Order::Descending)
    } else if is_present {
        versions::currents(view, &span, Order::Ascending)
    } else {
        versions::at(view, &span, at)
    };
    for kv in versions {
        collector.add(kv?);
        if collector.is_satisfied() {
            break;
        }
    }
    // A range that read everything has counted on the way.
    let count = if request.count_only || collector.is_satisfied() {
        count_at(view, state, &span, at)?
    } else {
        collector.count
    };
    Ok(collector.finish(header, count))
}

/// Reads a part of a range from a view of the whole store. Nothing behind the part is looked at.
pub(crate) fn part(
    view: &dyn View,
    state: &State,
    request: &RangePartRequest,
) -> Result<RangePart, StoreError> {
    let at = state.readable(request.revision)?;
    let span = request.span();
    let versions = if at == state.revision {
        versions::currents(view, &span, Order::Ascending)
    } else {
        versions::at(view, &span, at)
    };
    let limit = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let header = Header { revision: state.revision, ..Header::default() };
    let mut part = RangePart { header, ..RangePart::default() };
    let mut bytes = 0;
    for kv in versions {
        let mut kv = kv?;
        if request.keys_only {
            kv.value.clear();
        }
        bytes += size(&kv) as u64;
        let is_full = part.kvs.len() >= limit || bytes > request.bytes_max;
        if is_full && !part.kvs.is_empty() {
            part.next = Some(kv.key);
            break;
        }
        part.kvs.push(kv);
    }
    Ok(part)
}

/// Makes the answer out of all of the span's records in key order.
pub(crate) fn collect(
    versions: Versions<'_>,
    request: &RangeRequest,
    header: Header,
    bytes_max: usize,
) -> Result<Page, StoreError> {
    let mut collector = Collector::new(request, bytes_max);
    for kv in versions {
        collector.add(kv?);
    }
    let count = collector.count;
    Ok(collector.finish(header, count))
}

/// How many keys a span had at a readable revision: from how many it has, and what was created and
/// deleted since; or by reading it where that is less.
fn count_at(
    view: &dyn View,
    state: &State,
    span: &KeySpan,
    at: Revision,
) -> Result<u64, StoreError> {
    if matches!(span, KeySpan::One(_)) && at < state.revision {
        return read_count(view, span, at);
    }
    let now = counts::count(view, span)?;
    let since = state.revision.get() - at.get();
    if since > now {
        return read_count(view, span, at);
    }
    let (created, deleted) = history::changes(view, span, at.next(), state.revision)?;
    let count = (now + deleted).checked_sub(created);
    Ok(count.ok_or_else(|| damaged("a count of keys"))?)
}

fn read_count(view: &dyn View, span: &KeySpan, at: Revision) -> Result<u64, StoreError> {
    let mut count = 0;
    for kv in versions::at(view, span, at) {
        kv?;
        count += 1;
    }
    Ok(count)
}

struct Collector<'a> {
    request: &'a RangeRequest,
    /// Most records to answer.
    limit: usize,
    /// Records to hold: first ones in key order, or (when sorting) the best ones so far.
    keep: usize,
    sorted: bool,
    bytes_max: usize,
    kvs: Vec<KeyValue>,
    bytes: usize,
    count: u64,
    matched: u64,
    cut: bool,
}

impl<'a> Collector<'a> {
    fn new(request: &'a RangeRequest, bytes_max: usize) -> Self {
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let by_key = request.sort_target == SortTarget::Key;
        let sorted = match request.sort_order {
            SortOrder::None => !by_key,
            SortOrder::Ascend => !by_key,
            SortOrder::Descend => true,
        };
        // Etcd sorts what it fetched; without an order it has fetched one record more than the
        // limit, unless a filter made it fetch all.
        let keep = if sorted && request.sort_order == SortOrder::None && !has_filter(request) {
            limit.saturating_add(1)
        } else {
            limit
        };
        Self {
            request,
            limit,
            keep,
            sorted,
            bytes_max,
            kvs: Vec::new(),
            bytes: 0,
            count: 0,
            matched: 0,
            cut: false,
        }
    }

    fn add(&mut self, mut kv: KeyValue) {
        self.count += 1;
        if self.request.count_only || !passes(self.request, &kv) {
            return;
        }
        self.matched += 1;
        if self.request.keys_only && self.request.sort_target != SortTarget::Value {
            kv.value.clear();
        }
        let takes_first = !self.sorted || self.keep > self.limit;
        if self.cut || (takes_first && self.kvs.len() >= self.keep) {
            return;
        }
        self.bytes += size(&kv);
        self.kvs.push(kv);
        let slack = SORT_SLACK.max(self.keep);
        if !takes_first && self.kvs.len() >= self.keep.saturating_add(slack) {
            self.keep_best();
        }
        if self.bytes > self.bytes_max && !takes_first && self.kvs.len() > self.keep {
            self.keep_best();
        }
        // One record is always answered, so that the next page can go on after it.
        if self.bytes > self.bytes_max && self.kvs.len() > 1 {
            self.kvs.pop();
            self.cut = true;
        }
    }

    /// Whether no further record can change the answer but for its count.
    fn is_satisfied(&self) -> bool {
        // Without a filter the count says whether there are more.
        let is_cut = self.cut && (self.limit == usize::MAX || !has_filter(self.request));
        !self.sorted && (is_cut || self.matched > self.limit as u64)
    }

    fn keep_best(&mut self) {
        self.sort();
        self.kvs.truncate(self.keep);
        self.bytes = self.kvs.iter().map(size).sum();
    }

    fn sort(&mut self) {
        let target = self.request.sort_target;
        match self.request.sort_order {
            SortOrder::Descend => self.kvs.sort_by(|a, b| compare(target, b, a)),
            SortOrder::None | SortOrder::Ascend => self.kvs.sort_by(|a, b| compare(target, a, b)),
        }
    }

    fn finish(mut self, header: Header, count: u64) -> Page {
        if self.sorted {
            self.sort();
        }
        self.kvs.truncate(self.limit);
        if self.request.keys_only {
            self.kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        let matched = if has_filter(self.request) { self.matched } else { count };
        let more = !self.request.count_only && matched > self.limit as u64;
        let response = RangeResponse { header, kvs: self.kvs, more, count };
        Page { response, cut: self.cut }
    }
}

/// Whether the table's own order, backwards, is the one that is asked for.
fn is_by_key_descending(request: &RangeRequest) -> bool {
    request.sort_target == SortTarget::Key && request.sort_order == SortOrder::Descend
}

fn size(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

fn has_filter(request: &RangeRequest) -> bool {
    request.min_mod_revision.is_some()
        || request.max_mod_revision.is_some()
        || request.min_create_revision.is_some()
        || request.max_create_revision.is_some()
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |min: Option<Revision>, value: Revision, max: Option<Revision>| {
        min.is_none_or(|min| min <= value) && max.is_none_or(|max| value <= max)
    };
    within(request.min_mod_revision, kv.mod_revision, request.max_mod_revision)
        && within(request.min_create_revision, kv.create_revision, request.max_create_revision)
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}
