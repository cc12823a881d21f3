//! Transactions: conditions first, then checks along the branches that will run, then the branches.

use onefold_table::{Order, TableError, View};

use super::error::StoreError;
use super::keys;
use super::state::State;
use super::usage::growth_of_put;
use super::versions;
use super::writer::Writer;
use crate::{
    Compare, CompareResult, CompareTarget, KeySpan, KeyValue, KvError, Operation,
    OperationResponse, PutRequest, TxnRequest, TxnResponse,
};

/// Which branch of a transaction runs, and which of each transaction within that branch.
///
/// All conditions are judged on the state before the transaction, those of inner ones too.
pub(crate) struct Plan {
    succeeded: bool,
    within: Vec<Plan>,
}

impl Plan {
    /// Judges the conditions.
    pub(crate) fn new(view: &dyn View, request: &TxnRequest) -> Result<Self, TableError> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = succeeded && holds(view, compare)?;
        }
        let mut within = Vec::new();
        for operation in branch(request, succeeded) {
            if let Operation::Txn(inner) = operation {
                within.push(Self::new(view, inner)?);
            }
        }
        Ok(Self { succeeded, within })
    }
}

/// Bytes that the puts of the branches that will run add, as [`growth_of_put`] counts them.
pub(crate) fn growth(request: &TxnRequest, plan: &Plan) -> u64 {
    let mut within = plan.within.iter();
    let of = |operation: &Operation| match operation {
        Operation::Put(request) => growth_of_put(&request.key, &request.value),
        Operation::Txn(inner) => growth(inner, next(&mut within)),
        Operation::Range(_) | Operation::DeleteRange(_) => 0,
    };
    branch(request, plan.succeeded).iter().map(of).sum()
}

/// Finds what cannot be done in the branches that will run, before anything is done.
pub(crate) fn check(
    view: &dyn View,
    state: &State,
    request: &TxnRequest,
    plan: &Plan,
) -> Result<(), StoreError> {
    let mut within = plan.within.iter();
    for operation in branch(request, plan.succeeded) {
        match operation {
            Operation::Range(request) => {
                state.readable(request.revision)?;
            }
            Operation::Put(request) => check_put(view, request)?,
            Operation::DeleteRange(_) => {}
            Operation::Txn(inner) => check(view, state, inner, next(&mut within))?,
        }
    }
    Ok(())
}

/// Finds what a put needs and the state does not have.
pub(crate) fn check_put(view: &dyn View, request: &PutRequest) -> Result<(), StoreError> {
    if request.lease.is_some() && view.get(&keys::lease(request.lease))?.is_none() {
        return Err(KvError::LeaseNotFound { id: request.lease }.into());
    }
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && versions::current(view, &request.key)?.is_none() {
        return Err(KvError::KeyNotFound.into());
    }
    Ok(())
}

/// Runs the planned branches.
pub(crate) fn run(
    writer: &mut Writer<'_, '_>,
    request: &TxnRequest,
    plan: &Plan,
) -> Result<TxnResponse, StoreError> {
    let mut within = plan.within.iter();
    let mut responses = Vec::new();
    for operation in branch(request, plan.succeeded) {
        responses.push(match operation {
            Operation::Range(request) => OperationResponse::Range(writer.range(request)?),
            Operation::Put(request) => OperationResponse::Put(writer.put(request)?),
            Operation::DeleteRange(request) => {
                OperationResponse::DeleteRange(writer.delete_range(request)?)
            }
            Operation::Txn(inner) => OperationResponse::Txn(run(writer, inner, next(&mut within))?),
        });
    }
    Ok(TxnResponse { header: writer.header(), succeeded: plan.succeeded, responses })
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[Operation] {
    if succeeded { &request.success } else { &request.failure }
}

fn next<'a>(plans: &mut std::slice::Iter<'a, Plan>) -> &'a Plan {
    plans.next().expect("a plan has one part for each transaction within its branch")
}

/// Whether a condition holds for each key of its span; for none at all, whether it holds for a key
/// that does not exist.
fn holds(view: &dyn View, compare: &Compare) -> Result<bool, TableError> {
    let span: KeySpan = compare.span();
    let mut any = false;
    for kv in versions::currents(view, &span, Order::Ascending) {
        any = true;
        if !matches(compare, &kv?) {
            return Ok(false);
        }
    }
    // The value of a key that does not exist is not comparable, not even as "not equal".
    let absent_counts = !matches!(compare.target, CompareTarget::Value(_));
    Ok(any || (absent_counts && matches(compare, &KeyValue::default())))
}

fn matches(compare: &Compare, kv: &KeyValue) -> bool {
    // An operand below zero is below every number of a record.
    let number = |record: u64, operand: i64| i128::from(record).cmp(&i128::from(operand));
    let order = match &compare.target {
        CompareTarget::Version(operand) => number(kv.version, *operand),
        CompareTarget::CreateRevision(operand) => number(kv.create_revision.get(), *operand),
        CompareTarget::ModRevision(operand) => number(kv.mod_revision.get(), *operand),
        CompareTarget::Value(operand) => kv.value.cmp(operand),
        CompareTarget::Lease(operand) => kv.lease.cmp(operand),
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}
