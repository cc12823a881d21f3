//! What the store should do, in the plainest form: a copy of all keys for each revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use onefold_types::Revision;

use crate::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Event,
    EventKind, Header, KeySpan, KeyValue, KvError, LeaseId, Operation, OperationResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, SortOrder, SortTarget, TxnRequest,
    TxnResponse,
};

type Keys = BTreeMap<Bytes, KeyValue>;

/// The model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// All keys at each revision, compacted ones too.
    pub(super) revisions: BTreeMap<u64, Keys>,
    /// What each revision did.
    pub(super) events: BTreeMap<u64, Vec<Event>>,
    pub(super) compacted: u64,
    pub(super) leases: BTreeSet<LeaseId>,
}

/// A revision in the making.
struct Draft {
    base: u64,
    keys: Keys,
    events: Vec<Event>,
}

impl Model {
    pub(super) fn new() -> Self {
        let revisions = BTreeMap::from([(1, Keys::new())]);
        Self { revisions, events: BTreeMap::new(), compacted: 0, leases: BTreeSet::new() }
    }

    pub(super) fn revision(&self) -> u64 {
        *self.revisions.last_key_value().unwrap().0
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, KvError> {
        match self.single(Operation::Put(request.clone()))? {
            OperationResponse::Put(response) => Ok(response),
            _ => unreachable!("a put answers a put"),
        }
    }

    pub(super) fn delete(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, KvError> {
        match self.single(Operation::DeleteRange(request.clone()))? {
            OperationResponse::DeleteRange(response) => Ok(response),
            _ => unreachable!("a deletion answers a deletion"),
        }
    }

    fn single(&mut self, operation: Operation) -> Result<OperationResponse, KvError> {
        let txn = TxnRequest { success: vec![operation], ..TxnRequest::default() };
        Ok(self.txn(&txn)?.responses.pop().unwrap())
    }

    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, KvError> {
        let before = self.revisions[&self.revision()].clone();
        self.check(&before, request)?;
        let mut draft = Draft { base: self.revision(), keys: before.clone(), events: Vec::new() };
        let response = self.run(&before, &mut draft, request);
        self.commit(draft);
        Ok(response)
    }

    pub(super) fn revoke(&mut self, id: LeaseId) -> Result<u64, KvError> {
        if !self.leases.remove(&id) {
            return Err(KvError::LeaseNotFound { id });
        }
        let keys = self.revisions[&self.revision()].clone();
        let mut draft = Draft { base: self.revision(), keys: keys.clone(), events: Vec::new() };
        for kv in keys.into_values().filter(|kv| kv.lease == id) {
            draft.delete(kv);
        }
        self.commit(draft);
        Ok(self.revision())
    }

    pub(super) fn compact(&mut self, revision: u64) -> Result<(), KvError> {
        let requested = Revision(revision);
        if revision <= self.compacted {
            return Err(KvError::Compacted { requested, compacted: Revision(self.compacted) });
        }
        if revision > self.revision() {
            let current = Revision(self.revision());
            return Err(KvError::FutureRevision { requested, current });
        }
        self.compacted = revision;
        Ok(())
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        let at = self.readable(request.revision)?;
        Ok(range_of(&self.revisions[&at], request, self.revision()))
    }

    /// The superseded versions that must still be in the table once compaction is done.
    pub(super) fn superseded(&self) -> usize {
        let ends = self.events.iter().flat_map(|(revision, events)| {
            events.iter().filter(|event| event.prev_kv.is_some()).map(|_| *revision)
        });
        ends.filter(|end| *end > self.compacted).count()
    }

    fn commit(&mut self, draft: Draft) {
        if !draft.events.is_empty() {
            self.revisions.insert(draft.base + 1, draft.keys);
            self.events.insert(draft.base + 1, draft.events);
        }
    }

    fn readable(&self, asked: Revision) -> Result<u64, KvError> {
        let current = self.revision();
        match asked.get() {
            0 => Ok(current),
            at if at > current => {
                Err(KvError::FutureRevision { requested: asked, current: Revision(current) })
            }
            at if at < self.compacted => {
                Err(KvError::Compacted { requested: asked, compacted: Revision(self.compacted) })
            }
            at => Ok(at),
        }
    }

    fn check(&self, before: &Keys, request: &TxnRequest) -> Result<(), KvError> {
        for operation in branch(before, request) {
            match operation {
                Operation::Range(request) => drop(self.readable(request.revision)?),
                Operation::Put(request) => {
                    if request.lease.is_some() && !self.leases.contains(&request.lease) {
                        return Err(KvError::LeaseNotFound { id: request.lease });
                    }
                    let keeps = request.ignore_value || request.ignore_lease;
                    if keeps && !before.contains_key(&request.key) {
                        return Err(KvError::KeyNotFound);
                    }
                }
                Operation::DeleteRange(_) => {}
                Operation::Txn(inner) => self.check(before, inner)?,
            }
        }
        Ok(())
    }

    fn run(&self, before: &Keys, draft: &mut Draft, request: &TxnRequest) -> TxnResponse {
        let mut responses = Vec::new();
        for operation in branch(before, request) {
            responses.push(match operation {
                Operation::Range(request) => {
                    let keys = match request.revision.get() {
                        0 => &draft.keys,
                        at => &self.revisions[&at],
                    };
                    let revision = draft.header().revision.get();
                    OperationResponse::Range(range_of(keys, request, revision))
                }
                Operation::Put(request) => OperationResponse::Put(draft.put(request)),
                Operation::DeleteRange(request) => {
                    let span = request.span();
                    let victims: Vec<KeyValue> =
                        draft.keys.values().filter(|kv| span.contains(&kv.key)).cloned().collect();
                    for victim in &victims {
                        draft.delete(victim.clone());
                    }
                    OperationResponse::DeleteRange(DeleteRangeResponse {
                        header: draft.header(),
                        deleted: victims.len() as u64,
                        prev_kvs: if request.prev_kv { victims } else { Vec::new() },
                    })
                }
                Operation::Txn(inner) => OperationResponse::Txn(self.run(before, draft, inner)),
            });
        }
        let succeeded = request.compare.iter().all(|compare| holds(before, compare));
        TxnResponse { header: draft.header(), succeeded, responses }
    }
}

impl Draft {
    fn header(&self) -> Header {
        let revision = self.base + u64::from(!self.events.is_empty());
        Header { revision: Revision(revision), ..Header::default() }
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let revision = Revision(self.base + 1);
        let before = self.keys.get(&request.key).cloned();
        let old = before
            .clone()
            .unwrap_or_else(|| KeyValue { create_revision: revision, ..KeyValue::default() });
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: old.create_revision,
            mod_revision: revision,
            version: old.version + 1,
            value: if request.ignore_value { old.value } else { request.value.clone() },
            lease: if request.ignore_lease { old.lease } else { request.lease },
        };
        self.keys.insert(request.key.clone(), kv.clone());
        self.events.push(Event { kind: EventKind::Put, kv, prev_kv: before.clone() });
        let prev_kv = if request.prev_kv { before } else { None };
        PutResponse { header: self.header(), prev_kv }
    }

    fn delete(&mut self, kv: KeyValue) {
        self.keys.remove(&kv.key);
        let revision = Revision(self.base + 1);
        let gone = KeyValue { key: kv.key.clone(), mod_revision: revision, ..KeyValue::default() };
        self.events.push(Event { kind: EventKind::Delete, kv: gone, prev_kv: Some(kv) });
    }
}

fn branch<'a>(before: &Keys, request: &'a TxnRequest) -> &'a [Operation] {
    if request.compare.iter().all(|compare| holds(before, compare)) {
        &request.success
    } else {
        &request.failure
    }
}

fn holds(before: &Keys, compare: &Compare) -> bool {
    let span = compare.span();
    let keys: Vec<&KeyValue> = before.values().filter(|kv| span.contains(&kv.key)).collect();
    if keys.is_empty() {
        return match compare.target {
            CompareTarget::Value(_) => false,
            _ => holds_for(&KeyValue::default(), compare),
        };
    }
    keys.into_iter().all(|kv| holds_for(kv, compare))
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(operand) => kv.version.cast_signed().cmp(operand),
        CompareTarget::CreateRevision(operand) => {
            kv.create_revision.get().cast_signed().cmp(operand)
        }
        CompareTarget::ModRevision(operand) => kv.mod_revision.get().cast_signed().cmp(operand),
        CompareTarget::Value(operand) => kv.value.cmp(operand),
        CompareTarget::Lease(operand) => kv.lease.0.cmp(&operand.0),
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// The steps of etcd's server, one after the other on a full copy.
fn range_of(keys: &Keys, request: &RangeRequest, revision: u64) -> RangeResponse {
    let span: KeySpan = request.span();
    let mut kvs: Vec<KeyValue> =
        keys.values().filter(|kv| span.contains(&kv.key)).cloned().collect();
    let count = kvs.len() as u64;
    let header = Header { revision: Revision(revision), ..Header::default() };
    if request.count_only {
        return RangeResponse { header, kvs: Vec::new(), more: false, count };
    }
    let limit = usize::try_from(request.limit).unwrap();
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let fetches_all =
        request.sort_order != SortOrder::None || bounds.iter().any(Option::is_some) || limit == 0;
    if !fetches_all {
        kvs.truncate(limit + 1);
    }
    kvs.retain(|kv| {
        bounds[0].is_none_or(|min| kv.mod_revision >= min)
            && bounds[1].is_none_or(|max| kv.mod_revision <= max)
            && bounds[2].is_none_or(|min| kv.create_revision >= min)
            && bounds[3].is_none_or(|max| kv.create_revision <= max)
    });
    kvs.sort_by(|a, b| {
        let order = match request.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if request.sort_order == SortOrder::Descend { order.reverse() } else { order }
    });
    let more = limit > 0 && kvs.len() > limit;
    if limit > 0 {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { header, kvs, more, count }
}
