//! Giving up history: at once for readers, in bounded steps for the table.
//!
//! The event log is also the list of what to remove. An event that superseded a version names it, so
//! that a step deletes without searching. Events before the compacted revision go too; those of
//! that revision stay, for watchers that begin with it.

use onefold_table::{Overlay, TableError, View};
use onefold_types::Revision;

use super::keys::{self, EventId};
use super::state::State;
use super::stored::{self, Logged, damaged, decode_logged};
use crate::KvError;

/// Makes the history below `revision` unreadable.
pub(crate) fn compact(state: &mut State, revision: Revision) -> Result<(), KvError> {
    if revision <= state.compacted {
        return Err(KvError::Compacted { requested: revision, compacted: state.compacted });
    }
    if revision > state.revision {
        return Err(KvError::FutureRevision { requested: revision, current: state.revision });
    }
    if state.sweep_from.0 == state.compacted {
        // The sweep spared this revision's own events, and is not to spare them any longer.
        state.sweep_from.1 = 0;
    }
    state.compacted = revision;
    Ok(())
}

/// Removes what at most `events_max` events made unreadable. The state's sweep moves on.
pub(crate) fn sweep(
    table: &mut Overlay<'_>,
    state: &mut State,
    events_max: u32,
) -> Result<(), TableError> {
    if !state.sweep_is_due() {
        return Ok(());
    }
    let target = state.compacted;
    let range = keys::events(state.sweep_from(), target);
    let mut events = Vec::new();
    for pair in table.scan(range, Default::default()).take(events_max as usize) {
        let (key, stored) = pair?;
        let id = keys::event_id(&key).ok_or_else(|| damaged("an event's key"))?;
        events.push((id, decode_logged(stored)?));
    }
    let is_done = events.len() < events_max as usize;
    for (id, logged) in &events {
        if let Some(previous) = logged.previous {
            table.delete(keys::old(&logged.key, previous));
            state.usage.history_bytes -= u64::from(logged.previous_bytes);
        }
        if id.revision < target {
            table.delete(keys::event(*id));
            state.usage.history_bytes -= stored::logged_bytes(&logged.key);
        } else if logged.previous_bytes > 0 {
            // The next sweep comes by again, and is not to count the version again.
            let swept = Logged { previous_bytes: 0, ..logged.clone() };
            table.put(keys::event(*id), stored::encode_logged(&swept));
        }
    }
    state.usage.settle();
    if is_done {
        // The target's own events go with the next compaction.
        state.swept = target;
        state.sweep_from = (target, 0);
    } else if let Some((EventId { revision, sub }, _)) = events.last() {
        state.sweep_from = (*revision, sub + 1);
    }
    Ok(())
}
