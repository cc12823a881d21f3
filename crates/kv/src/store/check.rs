//! What is wrong with a request whatever the state of the store is.
//!
//! The rules and their order are those of etcd's request checks, so that a request with several
//! faults gets the same error.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::limits::{KEY_BYTES_MAX, TXN_LEVELS_MAX, TXN_OPERATIONS_LIMIT};
use crate::{
    DeleteRangeRequest, KeySpan, KvError, Operation, PutRequest, RangePartRequest, RangeRequest,
    TxnRequest, WatchRequest,
};

/// Checks a range.
pub(crate) fn range(request: &RangeRequest) -> Result<(), KvError> {
    key(&request.key)
}

/// Checks a part of a range.
pub(crate) fn range_part(request: &RangePartRequest) -> Result<(), KvError> {
    key(&request.key)
}

/// Checks a put.
pub(crate) fn put(request: &PutRequest) -> Result<(), KvError> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(KvError::ValueProvided);
    }
    if request.ignore_lease && request.lease.is_some() {
        return Err(KvError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
pub(crate) fn delete_range(request: &DeleteRangeRequest) -> Result<(), KvError> {
    key(&request.key)
}

/// Checks a watch.
pub(crate) fn watch(request: &WatchRequest) -> Result<(), KvError> {
    key(&request.key)
}

/// Checks a transaction and all within it.
pub(crate) fn txn(request: &TxnRequest) -> Result<(), KvError> {
    txn_within(request, TXN_OPERATIONS_LIMIT, TXN_LEVELS_MAX)?;
    let mut writes = Writes::default();
    writes.branch(&request.success)?;
    let mut writes = Writes::default();
    writes.branch(&request.failure)
}

fn key(key: &Bytes) -> Result<(), KvError> {
    if key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(KvError::KeyTooLong { bytes: key.len() });
    }
    Ok(())
}

/// A level of nesting may use what its outer levels left of the bound.
fn txn_within(
    request: &TxnRequest,
    operations_max: usize,
    levels_max: usize,
) -> Result<(), KvError> {
    let lists = [request.compare.len(), request.success.len(), request.failure.len()];
    let longest = lists.into_iter().max().unwrap_or(0);
    let left = (operations_max.checked_sub(longest), levels_max.checked_sub(1));
    let (Some(operations_left), Some(levels_left)) = left else {
        return Err(KvError::TooManyOperations);
    };
    for compare in &request.compare {
        key(&compare.key)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match operation {
            Operation::Range(request) => range(request)?,
            Operation::Put(request) => put(request)?,
            Operation::DeleteRange(request) => delete_range(request)?,
            Operation::Txn(request) => txn_within(request, operations_left, levels_left)?,
        }
    }
    Ok(())
}

/// What one branch may write, to find keys that it would write twice.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeySpan>,
}

impl Writes {
    fn branch(&mut self, operations: &[Operation]) -> Result<(), KvError> {
        for operation in operations {
            if let Operation::DeleteRange(request) = operation {
                self.deletes.push(request.span());
            }
        }
        for operation in operations {
            if let Operation::Txn(inner) = operation {
                self.nested(inner)?;
            }
        }
        for operation in operations {
            if let Operation::Put(request) = operation {
                self.put(&request.key)?;
            }
        }
        Ok(())
    }

    /// Only one of the two branches within will run, so both may put the same key.
    fn nested(&mut self, inner: &TxnRequest) -> Result<(), KvError> {
        let mut success = Self::default();
        success.branch(&inner.success)?;
        let mut failure = Self::default();
        failure.branch(&inner.failure)?;
        for key in &success.puts {
            self.put(key)?;
        }
        for key in &failure.puts {
            if !success.puts.contains(key) {
                self.put(key)?;
            }
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &Bytes) -> Result<(), KvError> {
        let deleted = self.deletes.iter().any(|span| span.contains(key));
        if deleted || !self.puts.insert(key.clone()) {
            return Err(KvError::DuplicateKey);
        }
        Ok(())
    }
}
