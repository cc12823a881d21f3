//! Leaderships that a person has moved: for a while nobody moves them back for balance.
//!
//! Each node remembers those that were moved through it, and tells the controller, wherever that is.
//! A node that starts again has forgotten them; then the leadership may be evened out sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use onefold_types::GroupId;

/// How long a leadership stays where a person moved it, unless its node goes.
const HOLD: Duration = Duration::from_secs(600);

/// What was moved through this node. Cheap to clone; clones share what they know. A group stands
/// once, so that there are no more than groups on the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moves {
    moved: Arc<Mutex<BTreeMap<GroupId, Instant>>>,
}

impl Moves {
    /// Somebody moves the leadership of a group now.
    pub(crate) fn note(&self, group: GroupId) {
        self.note_at(group, Instant::now());
    }

    /// The groups whose leaders are to be left alone.
    pub(crate) fn held(&self) -> BTreeSet<GroupId> {
        self.held_at(Instant::now())
    }

    fn note_at(&self, group: GroupId, now: Instant) {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(group, now);
    }

    fn held_at(&self, now: Instant) -> BTreeSet<GroupId> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.retain(|_, at| now.saturating_duration_since(*at) < HOLD);
        moved.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_leadership_is_held_for_a_while() {
        let (moves, now) = (Moves::default(), Instant::now());
        moves.note_at(GroupId(16), now);
        moves.note_at(GroupId(17), now + HOLD / 2);
        assert_eq!(moves.held_at(now + HOLD / 2), [16, 17].map(GroupId).into());
        assert_eq!(moves.held_at(now + HOLD), [GroupId(17)].into());
        assert_eq!(moves.held_at(now + HOLD * 2), BTreeSet::new());
    }
}
