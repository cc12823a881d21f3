//! The leader keeps its store within what was chosen for it: it tells the store its quota, and has
//! history given up that is kept long enough.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use onefold_replica::Group;
use tokio::sync::watch;
use tokio::time::timeout;

use super::options::{AutoCompaction, KvOptions};
use super::{Shared, propose};
use crate::store::Position;
use crate::store::command::{Command, Retention};

/// How many of the newest revisions are kept however old they are, so that who watches a quiet store
/// can come back after a long time.
pub const REVISIONS_KEPT_MIN: u64 = 1000;

/// How often the leader looks whether there is something to do.
const TICK: Duration = Duration::from_secs(1);

/// The parts of the kept time after which history is given up, and the store notes the time.
const ROUNDS_PER_RETENTION: u32 = 10;

/// Revisions beyond the wished ones that are worth a compaction, as a divisor of these.
const SLACK_DIVISOR: u64 = 8;

/// Runs until it is aborted.
pub(super) async fn run(
    group: Group,
    shared: Arc<Shared>,
    mut options: watch::Receiver<Option<KvOptions>>,
) {
    let mut leadership = group.leadership();
    loop {
        if leadership.borrow_and_update().is_self {
            tokio::select! {
                never = lead(&group, &shared, &mut options) => match never {},
                changed = leadership.changed() => if changed.is_err() { return },
            }
        } else if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Does what is to be done. Dropped when leadership changes.
async fn lead(
    group: &Group,
    shared: &Shared,
    options: &mut watch::Receiver<Option<KvOptions>>,
) -> Infallible {
    let mut ticks = 0;
    loop {
        let chosen = *options.borrow_and_update();
        if let Some(command) = chosen.and_then(|it| due(&it, &shared.position(), ticks))
            && let Err(error) = propose(group, command).await
        {
            tracing::debug!(group = %group.id(), %error, "the upkeep was not done");
        }
        ticks += 1;
        // A store that becomes full does not wait, nor does another choice.
        let sooner = async {
            tokio::select! {
                () = shared.full.notified() => {}
                Ok(()) = options.changed() => {}
            }
        };
        let _ = timeout(TICK, sooner).await;
    }
}

/// What is to be done at the tick of this number.
pub(super) fn due(options: &KvOptions, position: &Position, tick: u64) -> Option<Command> {
    if position.quota_bytes != options.quota_bytes {
        return Some(Command::SetQuota { quota_bytes: options.quota_bytes });
    }
    let history = position.revision.get() - position.compacted.get();
    let retention = match options.auto_compaction {
        AutoCompaction::Off => return None,
        // Being able to write is worth more than the past.
        _ if position.is_full && history > 0 => Retention::Revisions(0),
        AutoCompaction::Periodic { retention } => {
            let ticks_per_round = (retention / ROUNDS_PER_RETENTION).as_secs().max(1);
            if history <= REVISIONS_KEPT_MIN || !tick.is_multiple_of(ticks_per_round) {
                return None;
            }
            let millis = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
            Retention::Age { millis, revisions_min: REVISIONS_KEPT_MIN }
        }
        AutoCompaction::Revision { retention } => {
            if history <= retention.saturating_add(retention / SLACK_DIVISOR) {
                return None;
            }
            Retention::Revisions(retention)
        }
    };
    Some(Command::Retain(retention))
}

#[cfg(test)]
mod tests {
    use onefold_types::Revision;

    use super::*;

    const HOURLY: KvOptions = KvOptions {
        quota_bytes: 10,
        auto_compaction: AutoCompaction::Periodic { retention: Duration::from_secs(3600) },
        lease_checkpoint_interval: Duration::from_secs(60),
    };

    fn position(revision: u64, compacted: u64) -> Position {
        Position {
            revision: Revision(revision),
            compacted: Revision(compacted),
            quota_bytes: 10,
            ..Position::default()
        }
    }

    #[test]
    fn the_leaders_quota_counts() {
        let other = KvOptions { quota_bytes: 11, ..HOURLY };
        assert_eq!(due(&other, &position(2, 1), 5), Some(Command::SetQuota { quota_bytes: 11 }));
        assert_eq!(due(&HOURLY, &position(2, 1), 5), None);
    }

    #[test]
    fn a_store_with_little_history_is_left_alone() {
        assert_eq!(due(&HOURLY, &position(REVISIONS_KEPT_MIN + 1, 1), 0), None);
        let age = Retention::Age { millis: 3_600_000, revisions_min: REVISIONS_KEPT_MIN };
        let much = position(REVISIONS_KEPT_MIN + 2, 1);
        assert_eq!(due(&HOURLY, &much, 0), Some(Command::Retain(age)));
        assert_eq!(due(&HOURLY, &much, 1), None);
        assert_eq!(due(&HOURLY, &much, 360), Some(Command::Retain(age)));
    }

    #[test]
    fn a_full_store_gives_up_all_history_unless_nobody_may() {
        let full = Position { is_full: true, ..position(9, 1) };
        let all = Some(Command::Retain(Retention::Revisions(0)));
        assert_eq!(due(&HOURLY, &full, 1), all);
        let off = KvOptions { auto_compaction: AutoCompaction::Off, ..HOURLY };
        assert_eq!(due(&off, &full, 1), None);
        let nothing_left = Position { compacted: Revision(9), ..full };
        assert_eq!(due(&HOURLY, &nothing_left, 1), None);
    }

    #[test]
    fn a_number_of_revisions_is_kept_with_some_slack() {
        let options =
            KvOptions { auto_compaction: AutoCompaction::Revision { retention: 80 }, ..HOURLY };
        assert_eq!(due(&options, &position(91, 1), 0), None);
        let newest = Some(Command::Retain(Retention::Revisions(80)));
        assert_eq!(due(&options, &position(92, 1), 0), newest);
    }
}
