//! What a request needs.

use onefold_table::View;

use super::super::command::Command;
use super::super::error::StoreError;
use super::super::lease;
use super::Rights;
use crate::{AuthError, DeleteRangeRequest, KeySpan, LeaseId, Operation, PutRequest, TxnRequest};

/// Refuses a command of a client that may not have it.
pub(crate) fn command(
    rights: &Rights<'_>,
    view: &dyn View,
    command: &Command,
) -> Result<(), StoreError> {
    if rights.is_root() {
        return Ok(());
    }
    match command {
        Command::Put(request) => put(rights, view, request)?,
        Command::DeleteRange(request) => delete_range(rights, request)?,
        Command::Txn(request) => txn(rights, view, request)?,
        // Every user may have one.
        Command::LeaseGrant(_) => {}
        Command::LeaseRevoke(id) => lease_writes(rights, view, *id)?,
        _ => rights.root()?,
    }
    Ok(())
}

/// Refuses a transaction unless all that it compares, reads and writes in any branch is permitted.
pub(crate) fn txn(
    rights: &Rights<'_>,
    view: &dyn View,
    request: &TxnRequest,
) -> Result<(), StoreError> {
    for compare in &request.compare {
        rights.read(&compare.span())?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match operation {
            Operation::Range(request) => rights.read(&request.span())?,
            Operation::Put(request) => put(rights, view, request)?,
            Operation::DeleteRange(request) => delete_range(rights, request)?,
            Operation::Txn(request) => txn(rights, view, request)?,
        }
    }
    Ok(())
}

/// Refuses whoever may not write all keys that a lease has: its end deletes them.
pub(crate) fn lease_writes(
    rights: &Rights<'_>,
    view: &dyn View,
    id: LeaseId,
) -> Result<(), StoreError> {
    on_lease(rights, view, id, |key| rights.write(key))
}

/// Refuses whoever may not read all keys that a lease has.
pub(crate) fn lease_reads(
    rights: &Rights<'_>,
    view: &dyn View,
    id: LeaseId,
) -> Result<(), StoreError> {
    on_lease(rights, view, id, |key| rights.read(key))
}

fn on_lease(
    rights: &Rights<'_>,
    view: &dyn View,
    id: LeaseId,
    permit: impl Fn(&KeySpan) -> Result<(), AuthError>,
) -> Result<(), StoreError> {
    if rights.is_root() {
        return Ok(());
    }
    for key in lease::attached_keys(view, id) {
        permit(&KeySpan::One(key?))?;
    }
    Ok(())
}

/// A key that is attached to a lease goes with it, so that whoever attaches one to a lease must be
/// able to end it.
fn put(rights: &Rights<'_>, view: &dyn View, request: &PutRequest) -> Result<(), StoreError> {
    let span = KeySpan::One(request.key.clone());
    rights.write(&span)?;
    if request.lease.is_some() {
        lease_writes(rights, view, request.lease)?;
    }
    if request.prev_kv {
        rights.read(&span)?;
    }
    Ok(())
}

fn delete_range(rights: &Rights<'_>, request: &DeleteRangeRequest) -> Result<(), StoreError> {
    let span = request.span();
    rights.write(&span)?;
    if request.prev_kv {
        rights.read(&span)?;
    }
    Ok(())
}
