//! All that one revision writes.

use bytes::Bytes;
use onefold_table::{Order, Overlay, TableError, View};
use onefold_types::Revision;

use super::error::StoreError;
use super::keys::{self, EventId};
use super::range::{self, Page};
use super::state::State;
use super::stored::{self, Logged};
use super::versions;
use crate::limits::ANSWER_BYTES_MAX;
use crate::{
    DeleteRangeRequest, DeleteRangeResponse, Event, EventKind, Header, KeyValue, KvError, LeaseId,
    PutRequest, PutResponse, RangeRequest, RangeResponse,
};

/// Writes the operations of one revision, and reads what they have written so far.
///
/// It makes a revision only if it changes something. Requests are checked before: an error here is
/// the disk's, or an answer that grew too large; then the caller drops the table's changes.
pub(crate) struct Writer<'t, 'v> {
    table: &'t mut Overlay<'v>,
    state: &'t State,
    events: Vec<Event>,
    /// Bytes of keys and values in the answers so far.
    answer_bytes: usize,
}

impl<'t, 'v> Writer<'t, 'v> {
    pub(crate) fn new(table: &'t mut Overlay<'v>, state: &'t State) -> Self {
        Self { table, state, events: Vec::new(), answer_bytes: 0 }
    }

    /// What was changed, in order. Empty when there is no new revision.
    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Where the store stands after the operations so far.
    pub(crate) fn header(&self) -> Header {
        let revision = if self.events.is_empty() { self.state.revision } else { self.revision() };
        Header { revision, ..Header::default() }
    }

    /// Reads a range. A revision of zero means: with the changes so far.
    pub(crate) fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let room = ANSWER_BYTES_MAX - self.answer_bytes;
        let page = if self.events.is_empty() {
            range::range(&*self.table, self.state, request, room)?
        } else {
            self.range_with_changes(request, room)?
        };
        if page.cut {
            return Err(KvError::AnswerTooLarge.into());
        }
        for kv in &page.response.kvs {
            self.answer(kv)?;
        }
        Ok(page.response)
    }

    /// Reads a range where the counts of keys do not know of the changes so far.
    fn range_with_changes(&self, request: &RangeRequest, room: usize) -> Result<Page, StoreError> {
        let span = request.span();
        let versions = if request.revision == Revision::ZERO {
            versions::currents(&*self.table, &span, Order::Ascending)
        } else {
            versions::at(&*self.table, &span, self.state.readable(request.revision)?)
        };
        range::collect(versions, request, self.header(), room)
    }

    /// Writes one key.
    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, StoreError> {
        let previous = versions::current(&*self.table, &request.key)?;
        let kept = |keep: bool| if keep { previous.as_ref() } else { None };
        let value = kept(request.ignore_value).map_or(&request.value, |kv| &kv.value).clone();
        let lease = kept(request.ignore_lease).map_or(request.lease, |kv| kv.lease);
        let revision = self.revision();
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(0, |kv| kv.version) + 1,
            value,
            lease,
        };
        if let Some(previous) = &previous {
            self.supersede(previous);
        }
        self.attach(&kv.key, previous.as_ref().map_or(LeaseId::NONE, |kv| kv.lease), lease);
        self.table.put(keys::current(&kv.key), stored::encode_current(&kv));
        self.log(Event { kind: EventKind::Put, kv, prev_kv: previous.clone() });
        let prev_kv = previous.filter(|_| request.prev_kv);
        if let Some(prev_kv) = &prev_kv {
            self.answer(prev_kv)?;
        }
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    /// Deletes a span, in key order.
    pub(crate) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, StoreError> {
        let mut victims = Vec::new();
        for kv in versions::currents(&*self.table, &request.span(), Order::Ascending) {
            victims.push(kv?);
        }
        let deleted = victims.len() as u64;
        let mut prev_kvs = Vec::new();
        for kv in victims {
            if request.prev_kv {
                self.answer(&kv)?;
                prev_kvs.push(kv.clone());
            }
            self.delete(kv);
        }
        Ok(DeleteRangeResponse { header: self.header(), deleted, prev_kvs })
    }

    /// Deletes the keys that are attached to a lease, and the lease.
    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<(), TableError> {
        let mut attached = Vec::new();
        for pair in self.table.scan(keys::lease_keys(id), Default::default()) {
            attached.push(keys::attached_key(&pair?.0));
        }
        for key in attached {
            let kv = versions::current(&*self.table, &key)?
                .ok_or_else(|| stored::damaged("a key attached to a lease"))?;
            self.delete(kv);
        }
        self.table.delete(keys::lease(id));
        Ok(())
    }

    /// The revision that this makes, if it makes one.
    fn revision(&self) -> Revision {
        self.state.revision.next()
    }

    fn delete(&mut self, kv: KeyValue) {
        self.supersede(&kv);
        self.attach(&kv.key, kv.lease, LeaseId::NONE);
        self.table.delete(keys::current(&kv.key));
        let gone =
            KeyValue { key: kv.key.clone(), mod_revision: self.revision(), ..KeyValue::default() };
        self.log(Event { kind: EventKind::Delete, kv: gone, prev_kv: Some(kv) });
    }

    /// Moves a current version to the history.
    fn supersede(&mut self, kv: &KeyValue) {
        let old = stored::encode_old(kv, self.revision());
        self.table.put(keys::old(&kv.key, kv.mod_revision), old);
    }

    fn attach(&mut self, key: &Bytes, before: LeaseId, after: LeaseId) {
        if before == after {
            return;
        }
        if before.is_some() {
            self.table.delete(keys::lease_key(before, key));
        }
        if after.is_some() {
            self.table.put(keys::lease_key(after, key), Bytes::new());
        }
    }

    fn log(&mut self, event: Event) {
        let sub = u32::try_from(self.events.len()).expect("a revision of 2^32 keys fits no memory");
        let id = EventId { revision: self.revision(), sub };
        let previous = event.prev_kv.as_ref();
        let logged = Logged {
            kind: event.kind,
            previous: previous.map(|kv| kv.mod_revision),
            previous_bytes: previous.map_or(0, stored::old_bytes_of_event),
            key: event.kv.key.clone(),
        };
        self.table.put(keys::event(id), stored::encode_logged(&logged));
        self.events.push(event);
    }

    /// Counts a record of the answer.
    fn answer(&mut self, kv: &KeyValue) -> Result<(), KvError> {
        self.answer_bytes += kv.key.len() + kv.value.len();
        if self.answer_bytes > ANSWER_BYTES_MAX { Err(KvError::AnswerTooLarge) } else { Ok(()) }
    }
}
