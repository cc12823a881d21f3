//! Filling an empty store with the content of another one.
//!
//! Records come in the order in which they were written, so that each finds the version before it
//! as the current one. What the other store had compacted is not made up: of the history below its
//! compacted revision only what stood at that revision exists.

use bytes::Bytes;
use onefold_table::{KeyRange, Overlay, TableError, View};
use onefold_types::Revision;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::keys::{self, EventId};
use super::state::State;
use super::stored::{Logged, StoredLease};
use super::usage::{Usage, growth_of_put};
use super::{check, lease, stored, versions};
use crate::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
use crate::{
    Event, EventKind, ImportBegin, ImportId, ImportProgress, ImportRecord, KvError, LeaseId,
    PutRequest,
};

/// The largest revision that an import may end at: room for as many to come.
const REVISION_MAX: Revision = Revision(i64::MAX.cast_unsigned() / 2);

/// An import that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Import {
    begin: ImportBegin,
    pub(crate) progress: ImportProgress,
    /// The place of the last record.
    last: (Revision, u32),
    /// Whether an abort has begun to remove it.
    is_aborted: bool,
}

impl Import {
    /// Begins an import into a store, which must be empty.
    pub(crate) fn begin(
        view: &dyn View,
        state: &State,
        begin: ImportBegin,
    ) -> Result<Self, StoreError> {
        let has_lease = view.scan(keys::leases(), Default::default()).next().transpose()?.is_some();
        let nothing = State { lessor_term: state.lessor_term, ..State::default() };
        if has_lease || state.revision != nothing.revision || state.compacted != nothing.compacted {
            return Err(refused("the keyspace is not empty; import into a new one"));
        }
        let is_sound = nothing.revision <= begin.revision
            && begin.compacted <= begin.revision
            && begin.revision <= REVISION_MAX;
        if !is_sound {
            return Err(refused("its revisions are no revisions of a store; use another copy"));
        }
        let (progress, last) = (ImportProgress::default(), (Revision::ZERO, 0));
        Ok(Self { begin, progress, last, is_aborted: false })
    }

    /// The same import once more: it goes on where it stands.
    pub(crate) fn resume(&self, begin: &ImportBegin) -> Result<(), StoreError> {
        if self.is_aborted {
            return Err(refused("it is being aborted; finish that with --abort, then begin anew"));
        }
        if self.begin != *begin {
            return Err(refused("another file's import has begun; finish or --abort that one"));
        }
        Ok(())
    }

    /// Grants leases.
    pub(crate) fn leases(
        &mut self,
        table: &mut Overlay<'_>,
        usage: &mut Usage,
        id: &ImportId,
        after: u64,
        leases: &[(LeaseId, i64)],
    ) -> Result<(), StoreError> {
        self.expect(id, after, self.progress.leases)?;
        if self.progress.records > 0 {
            return Err(refused("leases come before records; import with one program only"));
        }
        for (lease, ttl_seconds) in leases {
            if !lease.is_some() || *ttl_seconds > LEASE_TTL_SECONDS_MAX {
                return Err(refused("it has a lease that cannot exist; use another copy"));
            }
            let ttl_seconds = (*ttl_seconds).max(LEASE_TTL_SECONDS_MIN);
            let stored = stored::encode_lease(StoredLease { ttl_seconds, left_seconds: 0 });
            if lease::ttl_seconds(table, *lease)?.is_none() {
                usage.live_bytes += stored::lease_bytes();
            }
            table.put(keys::lease(*lease), stored);
        }
        self.progress.leases += leases.len() as u64;
        Ok(())
    }

    /// Writes records. Answers the keys that they create and delete.
    pub(crate) fn records(
        &mut self,
        table: &mut Overlay<'_>,
        usage: &mut Usage,
        id: &ImportId,
        after: u64,
        records: &[ImportRecord],
    ) -> Result<Vec<Event>, StoreError> {
        self.expect(id, after, self.progress.records)?;
        let mut events = Vec::new();
        for record in records {
            events.extend(self.record(table, usage, record)?);
        }
        self.progress.records += records.len() as u64;
        Ok(events)
    }

    /// Ends the import: the state that the store has from now on.
    pub(crate) fn end(
        &self,
        state: &State,
        id: &ImportId,
        expected: &ImportProgress,
    ) -> Result<State, StoreError> {
        self.expect(id, expected.records, self.progress.records)?;
        self.expect(id, expected.leases, self.progress.leases)?;
        let ImportBegin { revision, compacted, .. } = self.begin;
        let (swept, sweep_from) = (compacted, (compacted, 0));
        Ok(State { revision, compacted, swept, sweep_from, ..state.clone() })
    }

    /// Removes at most so many entries of the table. True once nothing is left.
    pub(crate) fn abort(
        &mut self,
        table: &mut Overlay<'_>,
        entries_max: u32,
    ) -> Result<bool, TableError> {
        self.is_aborted = true;
        let mut left = entries_max as usize;
        for kind in keys::KINDS_IMPORTED {
            let scan = table.scan(KeyRange::prefix(&[kind]), Default::default()).take(left);
            let found = scan.map(|pair| Ok(pair?.0)).collect::<Result<Vec<Bytes>, TableError>>()?;
            left -= found.len();
            found.into_iter().for_each(|key| table.delete(key));
        }
        Ok(left > 0)
    }

    fn expect(&self, id: &ImportId, said: u64, is: u64) -> Result<(), StoreError> {
        if self.is_aborted || self.begin.id != *id {
            return Err(refused("another import, or an abort, has begun meanwhile"));
        }
        if said != is {
            return Err(refused("another program imports the same file at the same time"));
        }
        Ok(())
    }

    /// Writes a record. Answers what it did to its key, if anything.
    fn record(
        &mut self,
        table: &mut Overlay<'_>,
        usage: &mut Usage,
        record: &ImportRecord,
    ) -> Result<Option<Event>, StoreError> {
        let (kv, at) = (&record.kv, (record.kv.mod_revision, record.sub));
        check::put(&PutRequest::new(kv.key.clone(), Bytes::new()))?;
        if at.0 == Revision::ZERO || (at <= self.last && self.progress_has_last()) {
            return Err(refused("its records are out of order; use another copy"));
        }
        if at.0 > self.begin.revision {
            return Err(refused("it has a record beyond its own revision; use another copy"));
        }
        let previous = versions::current(table, &kv.key)?;
        let is_past = at.0 <= self.begin.compacted;
        if !is_past && !follows(record, previous.as_ref()) {
            return Err(refused("a version does not follow from the one before; use another copy"));
        }
        if let Some(previous) = &previous {
            if !is_past {
                let old = stored::encode_old(previous, at.0);
                table.put(keys::old(&kv.key, previous.mod_revision), old);
            }
            table.delete(keys::lease_key(previous.lease, &kv.key));
            table.delete(keys::current(&kv.key));
        }
        if !record.is_deletion {
            table.put(keys::current(&kv.key), stored::encode_current(kv));
            if kv.lease.is_some() && lease::ttl_seconds(table, kv.lease)?.is_some() {
                table.put(keys::lease_key(kv.lease, &kv.key), Bytes::new());
            }
        }
        let kind = if record.is_deletion { EventKind::Delete } else { EventKind::Put };
        if at.0 >= self.begin.compacted {
            let previous = previous.as_ref().filter(|_| !is_past);
            let logged = Logged {
                kind,
                previous: previous.map(|kv| kv.mod_revision),
                previous_bytes: previous.map_or(0, stored::old_bytes_of_event),
                key: kv.key.clone(),
            };
            table.put(
                keys::event(EventId { revision: at.0, sub: at.1 }),
                stored::encode_logged(&logged),
            );
            usage.history_bytes += stored::logged_bytes(&kv.key);
        }
        self.last = at;
        if record.is_deletion && previous.is_none() {
            return Ok(None);
        }
        let event = Event { kind, kv: kv.clone(), prev_kv: previous };
        usage.count_live(&event);
        if let Some(previous) = event.prev_kv.as_ref().filter(|_| !is_past) {
            usage.history_bytes += stored::old_bytes(previous);
        }
        Ok(Some(event))
    }

    /// Whether there was a record already; the first one may have any place.
    fn progress_has_last(&self) -> bool {
        self.last.0 != Revision::ZERO
    }
}

/// Whether a record is what a store would have written after this version of its key.
fn follows(record: &ImportRecord, previous: Option<&crate::KeyValue>) -> bool {
    let kv = &record.kv;
    match previous {
        Some(_) if record.is_deletion => true,
        None if record.is_deletion => false,
        Some(previous) => {
            kv.create_revision == previous.create_revision && kv.version == previous.version + 1
        }
        None => kv.create_revision == kv.mod_revision && kv.version == 1,
    }
}

/// Bytes that a record adds at most, give or take those of a key.
pub(crate) fn growth(record: &ImportRecord) -> u64 {
    growth_of_put(&record.kv.key, &record.kv.value)
}

/// An import's own fault.
pub(crate) fn refused(reason: &str) -> StoreError {
    KvError::ImportRefused { reason: reason.to_owned() }.into()
}
