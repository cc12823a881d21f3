//! Transactions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    DeleteRangeRequest, DeleteRangeResponse, Header, KeySpan, LeaseId, PutRequest, PutResponse,
    RangeRequest, RangeResponse,
};

/// How a record is compared with an operand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareResult {
    /// Record equal to the operand.
    #[default]
    Equal,
    /// Record greater than the operand.
    Greater,
    /// Record less than the operand.
    Less,
    /// Record not equal to the operand.
    NotEqual,
}

/// What of a record is compared, and the operand. A key that does not exist counts as a record of
/// zeros, except that its value compares with nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// How often the key was written.
    Version(i64),
    /// When the key came into being.
    CreateRevision(i64),
    /// When the key was written last.
    ModRevision(i64),
    /// The value's bytes.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// One condition. Over a span of keys it must hold for each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// How to compare.
    pub result: CompareResult,
    /// What to compare, and with what.
    pub target: CompareTarget,
    /// The first key; must not be empty.
    pub key: Bytes,
    /// See [`KeySpan::parse`].
    pub range_end: Bytes,
}

impl Compare {
    /// A condition on one key.
    pub fn new(key: impl Into<Bytes>, result: CompareResult, target: CompareTarget) -> Self {
        Self { result, target, key: key.into(), range_end: Bytes::new() }
    }

    /// Holds when there is no such key.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::new(key, CompareResult::Equal, CompareTarget::CreateRevision(0))
    }

    /// The keys that are meant.
    pub fn span(&self) -> KeySpan {
        KeySpan::parse(&self.key, &self.range_end)
    }
}

/// One operation of a transaction's branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads.
    Range(RangeRequest),
    /// Writes.
    Put(PutRequest),
    /// Deletes.
    DeleteRange(DeleteRangeRequest),
    /// A transaction within.
    Txn(TxnRequest),
}

/// Runs `success` if every condition holds, else `failure`; all at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnRequest {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What to do if they all hold.
    pub success: Vec<Operation>,
    /// What to do if one does not.
    pub failure: Vec<Operation>,
}

impl TxnRequest {
    /// How many operations it needs to be allowed: the longest of its lists, and what the one of the
    /// transactions within needs that needs most.
    pub fn operations(&self) -> usize {
        let lists = [self.compare.len(), self.success.len(), self.failure.len()];
        let inner = self.success.iter().chain(&self.failure).map(|operation| match operation {
            Operation::Txn(inner) => inner.operations(),
            _ => 0,
        });
        lists.into_iter().max().unwrap_or(0) + inner.max().unwrap_or(0)
    }

    /// Whether no branch can write, so that the transaction needs no revision.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|operation| match operation {
            Operation::Range(_) => true,
            Operation::Put(_) | Operation::DeleteRange(_) => false,
            Operation::Txn(inner) => inner.is_read_only(),
        })
    }

    /// Whether every range in it asks for no more than a serializable read.
    pub fn is_serializable(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|operation| match operation {
            Operation::Range(range) => range.serializable,
            Operation::Put(_) | Operation::DeleteRange(_) => false,
            Operation::Txn(inner) => inner.is_serializable(),
        })
    }
}

/// What one operation answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResponse {
    /// Of a read.
    Range(RangeResponse),
    /// Of a write.
    Put(PutResponse),
    /// Of a deletion.
    DeleteRange(DeleteRangeResponse),
    /// Of a transaction within.
    Txn(TxnResponse),
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// Where the store stands: at the transaction's revision if it changed anything.
    pub header: Header,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// One answer for each operation of the branch that ran.
    pub responses: Vec<OperationResponse>,
}
