//! Events read back from the table, for watchers that are behind.

use onefold_table::{TableError, View};
use onefold_types::Revision;

use super::error::StoreError;
use super::keys;
use super::state::State;
use super::stored::{Logged, damaged, decode_current, decode_logged, decode_old};
use crate::{Event, EventKind, KeySpan, KeyValue, KvError, WatchFilters};

/// What of the history is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) span: KeySpan,
    pub(crate) filters: WatchFilters,
    pub(crate) prev_kv: bool,
    /// The first revision wanted.
    pub(crate) from: Revision,
    /// Bytes of events after which no further revision is begun.
    pub(crate) bytes_max: usize,
    /// Events looked at, wanted or not, after which no further revision is begun.
    pub(crate) looks_max: usize,
}

/// Events of whole revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) events: Vec<Event>,
    /// The first revision that was not looked at.
    pub(crate) next: Revision,
}

/// Reads the wanted events from a revision on.
///
/// # Errors
/// [`KvError::Compacted`] when events are missing because their history was given up.
pub(crate) fn read(view: &dyn View, state: &State, query: &Query) -> Result<Events, StoreError> {
    if query.from < state.compacted {
        let (requested, compacted) = (query.from, state.compacted);
        return Err(KvError::Compacted { requested, compacted }.into());
    }
    let from = keys::EventId { revision: query.from, sub: 0 };
    let mut events = Vec::new();
    let (mut bytes, mut looks) = (0, 0);
    let mut revision = query.from;
    for pair in view.scan(keys::events(from, state.revision), Default::default()) {
        let (key, stored) = pair?;
        let id = keys::event_id(&key).ok_or_else(|| damaged("an event's key"))?;
        if id.revision != revision && (bytes >= query.bytes_max || looks >= query.looks_max) {
            return Ok(Events { events, next: id.revision });
        }
        revision = id.revision;
        looks += 1;
        let logged = decode_logged(stored)?;
        if query.span.contains(&logged.key)
            && query.filters.pass(logged.kind)
            && let Some(event) = restore(view, revision, &logged, query.prev_kv)?
        {
            bytes += size(&event);
            events.push(event);
        }
    }
    Ok(Events { events, next: query.from.max(state.revision.next()) })
}

/// How many keys of a span the revisions from one to another created, and how many they deleted. All
/// of them must be readable.
pub(crate) fn changes(
    view: &dyn View,
    span: &KeySpan,
    from: Revision,
    until: Revision,
) -> Result<(u64, u64), TableError> {
    let from = keys::EventId { revision: from, sub: 0 };
    let (mut created, mut deleted) = (0, 0);
    for pair in view.scan(keys::events(from, until), Default::default()) {
        let logged = decode_logged(pair?.1)?;
        if !span.contains(&logged.key) {
            continue;
        }
        match (logged.kind, logged.previous) {
            (EventKind::Put, None) => created += 1,
            (EventKind::Put, Some(_)) => {}
            (EventKind::Delete, _) => deleted += 1,
        }
    }
    Ok((created, deleted))
}

/// Bytes that an event holds.
pub(crate) fn size(event: &Event) -> usize {
    let of = |kv: &KeyValue| kv.key.len() + kv.value.len() + size_of::<KeyValue>();
    of(&event.kv) + event.prev_kv.as_ref().map_or(0, of)
}

/// The event as it was when it happened. Nothing when a compaction to its own revision has removed
/// what it wrote, because the same revision deleted it again.
pub(crate) fn restore(
    view: &dyn View,
    revision: Revision,
    logged: &Logged,
    prev_kv: bool,
) -> Result<Option<Event>, TableError> {
    let kv = match logged.kind {
        EventKind::Put => written_at(view, logged, revision)?,
        EventKind::Delete => Some(KeyValue {
            key: logged.key.clone(),
            mod_revision: revision,
            ..KeyValue::default()
        }),
    };
    let Some(kv) = kv else { return Ok(None) };
    let prev_kv = match logged.previous.filter(|_| prev_kv) {
        Some(previous) => superseded(view, logged, previous)?,
        None => None,
    };
    Ok(Some(Event { kind: logged.kind, kv, prev_kv }))
}

fn written_at(
    view: &dyn View,
    logged: &Logged,
    revision: Revision,
) -> Result<Option<KeyValue>, TableError> {
    if let Some(stored) = view.get(&keys::current(&logged.key))? {
        let kv = decode_current(logged.key.clone(), stored)?;
        if kv.mod_revision == revision {
            return Ok(Some(kv));
        }
    }
    superseded(view, logged, revision)
}

fn superseded(
    view: &dyn View,
    logged: &Logged,
    revision: Revision,
) -> Result<Option<KeyValue>, TableError> {
    let Some(stored) = view.get(&keys::old(&logged.key, revision))? else { return Ok(None) };
    Ok(Some(decode_old(logged.key.clone(), revision, stored)?.kv))
}
