//! Between the API's messages and the store's values.
//!
//! Keys and values are shared, never copied.

mod range;
mod record;
mod txn;
mod write;

pub(crate) use range::{range_request, range_response};
pub(crate) use record::{event, key_value};
pub(crate) use txn::{txn_request, txn_response};
pub(crate) use write::{
    compact_request, delete_request, delete_response, put_request, put_response,
};

use onefold_types::Revision;

/// A count or revision in the API's signed type.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A revision of the API; those that are not positive become 0.
pub(crate) fn revision(value: i64) -> Revision {
    Revision(u64::try_from(value).unwrap_or(0))
}
