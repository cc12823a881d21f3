//! Groups that come to a running host, and groups that go.
//!
//! A group exists on a node once its root is durable in the table, and has ceased to exist once its
//! tombstone is; everything else follows from these two records, before a crash or after it. What
//! a destroyed group had in log and table is removed in its own time. The tombstone stays: whoever
//! voted in a group and forgot it must never vote in it again.

use std::sync::Arc;

use onefold_types::GroupId;
use tokio::sync::oneshot;

use crate::core::{Core, GroupCell, lock};
use crate::inbox::Event;
use crate::start::restore;
use crate::state::presence;
use crate::{GroupError, GroupSpec, HostError};

/// Creates a group, and returns when the host takes part in it. Waits for the disk.
///
/// # Errors
/// See [`GroupError`].
pub(crate) fn create(core: &Arc<Core>, spec: GroupSpec) -> Result<Arc<GroupCell>, GroupError> {
    let _one_at_a_time = lock(&core.lifecycle);
    let group = spec.id;
    check_running(core)?;
    if core.groups.is_destroyed(group) {
        return Err(GroupError::Destroyed { group });
    }
    if core.groups.get(group).is_some() {
        return Err(GroupError::Exists { group });
    }
    let groups_max = core.config.limits.groups_max;
    if core.groups.count() >= groups_max {
        return Err(GroupError::Full { group, groups_max });
    }
    // What was formed and is now told to others must not be formed differently after a crash.
    let restored = restore(&core.config, &core.table, spec, None)
        .and_then(|restored| Ok(core.table.sync().map(|()| restored)?));
    let restored = restored.map_err(|error| failed(core, error))?;
    let cell = restored.cell.clone();
    core.groups.host(cell.clone());
    let (taken, is_taken) = oneshot::channel();
    core.inbox.report(Event::GroupCreated { restored: Box::new(restored), taken });
    match is_taken.blocking_recv() {
        Ok(()) => Ok(cell),
        Err(_) => Err(stopped(core)),
    }
}

/// Destroys a group, and returns when that is durable and the host takes no more part in it. Says
/// whether the group was here. Waits for the disk.
///
/// # Errors
/// See [`GroupError`].
pub(crate) fn destroy(core: &Arc<Core>, group: GroupId) -> Result<bool, GroupError> {
    let _one_at_a_time = lock(&core.lifecycle);
    check_running(core)?;
    let Some(cell) = core.groups.get(group) else { return Ok(false) };
    presence::bury(&core.table, group).map_err(|error| failed(core, error))?;
    core.groups.destroy(group);
    cell.set_destroyed();
    core.transfers.forget(group);
    let (gone, is_gone) = oneshot::channel();
    core.inbox.report(Event::GroupDestroyed { group, gone });
    match is_gone.blocking_recv() {
        Ok(()) => Ok(true),
        Err(_) => Err(stopped(core)),
    }
}

fn check_running(core: &Core) -> Result<(), GroupError> {
    match core.inbox.closed() {
        Some(reason) => Err(GroupError::Stopped { reason }),
        None => Ok(()),
    }
}

fn stopped(core: &Core) -> GroupError {
    GroupError::Stopped { reason: core.inbox.closed().unwrap_or_default() }
}

/// A table that fails stops the host.
fn failed(core: &Core, error: HostError) -> GroupError {
    let reason = error.to_string();
    core.fail(error);
    GroupError::Stopped { reason }
}
