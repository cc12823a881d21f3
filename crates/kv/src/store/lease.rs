//! Leases as the log knows them: which exist, and how long they live after each keep-alive. When one
//! is over is the leader's to find.

use bytes::Bytes;
use onefold_table::{Overlay, TableError, View};

use super::error::StoreError;
use super::keys;
use super::state::State;
use super::stored::{self, StoredLease};
use crate::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
use crate::{Header, KvError, LeaseGrantRequest, LeaseGrantResponse, LeaseId};

/// Creates a lease.
pub(crate) fn grant(
    table: &mut Overlay<'_>,
    state: &mut State,
    request: LeaseGrantRequest,
) -> Result<LeaseGrantResponse, StoreError> {
    if request.ttl_seconds > LEASE_TTL_SECONDS_MAX {
        return Err(KvError::LeaseTtlTooLarge { ttl_seconds: request.ttl_seconds }.into());
    }
    let id = if request.id.is_some() { request.id } else { name(table, state)? };
    if ttl_seconds(table, id)?.is_some() {
        return Err(KvError::LeaseExists { id }.into());
    }
    let ttl_seconds = request.ttl_seconds.max(LEASE_TTL_SECONDS_MIN);
    let lease = StoredLease { ttl_seconds, left_seconds: 0 };
    table.put(keys::lease(id), stored::encode_lease(lease));
    state.usage.live_bytes += stored::lease_bytes();
    let header = Header { revision: state.revision, ..Header::default() };
    Ok(LeaseGrantResponse { header, id, ttl_seconds })
}

/// The granted time of a lease in seconds, if there is such a lease.
pub(crate) fn ttl_seconds(view: &dyn View, id: LeaseId) -> Result<Option<i64>, TableError> {
    Ok(find(view, id)?.map(|lease| lease.ttl_seconds))
}

fn find(view: &dyn View, id: LeaseId) -> Result<Option<StoredLease>, TableError> {
    view.get(&keys::lease(id))?.map(|stored| stored::decode_lease(&stored)).transpose()
}

/// Notes the time that leases have left, so that the next leader does not give them all of it again. A
/// lease that is gone meanwhile stays gone.
pub(crate) fn checkpoint(
    table: &mut Overlay<'_>,
    left: &[(LeaseId, i64)],
) -> Result<(), TableError> {
    for &(id, left_seconds) in left {
        if let Some(lease) = find(table, id)? {
            let left_seconds = left_seconds.clamp(0, lease.ttl_seconds);
            table.put(keys::lease(id), stored::encode_lease(StoredLease { left_seconds, ..lease }));
        }
    }
    Ok(())
}

/// All leases, by id.
pub(crate) fn all(view: &dyn View) -> Result<Vec<(LeaseId, StoredLease)>, TableError> {
    scan(view).collect()
}

/// The same, one after the other.
pub(crate) fn scan(
    view: &dyn View,
) -> impl Iterator<Item = Result<(LeaseId, StoredLease), TableError>> + '_ {
    view.scan(keys::leases(), Default::default()).map(|pair| {
        let (key, stored) = pair?;
        let id = keys::lease_id(&key).ok_or_else(|| stored::damaged("a lease's id"))?;
        Ok((id, stored::decode_lease(&stored)?))
    })
}

/// The first keys, at most so many, that are attached to a lease, in order.
pub(crate) fn attached(
    view: &dyn View,
    id: LeaseId,
    count_max: usize,
) -> Result<Vec<Bytes>, TableError> {
    attached_keys(view, id).take(count_max).collect()
}

/// The keys that are attached to a lease, in order.
pub(crate) fn attached_keys(
    view: &dyn View,
    id: LeaseId,
) -> impl Iterator<Item = Result<Bytes, TableError>> {
    let scan = view.scan(keys::lease_keys(id), Default::default());
    scan.map(|pair| Ok(keys::attached_key(&pair?.0)))
}

/// Chooses an id that no lease has: positive, and scattered so that ids which clients choose
/// themselves rarely meet them.
fn name(view: &dyn View, state: &mut State) -> Result<LeaseId, TableError> {
    loop {
        state.leases_named = state.leases_named.wrapping_add(1);
        let id = LeaseId((scattered(state.leases_named) >> 1).cast_signed());
        if id.is_some() && ttl_seconds(view, id)?.is_none() {
            return Ok(id);
        }
    }
}

/// The output function of SplitMix64: a permutation of the 64-bit numbers.
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
