//! Leases.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Header, LeaseId};

/// Creates a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrantRequest {
    /// The wish for an id; none to have one chosen.
    pub id: LeaseId,
    /// Seconds to live from each keep-alive on; raised to
    /// [`LEASE_TTL_SECONDS_MIN`](crate::limits::LEASE_TTL_SECONDS_MIN).
    pub ttl_seconds: i64,
}

/// A lease was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrantResponse {
    /// Where the store stands.
    pub header: Header,
    /// The lease.
    pub id: LeaseId,
    /// Its time to live in seconds, as granted.
    pub ttl_seconds: i64,
}

/// A lease and its keys are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRevokeResponse {
    /// Where the store stands.
    pub header: Header,
}

/// A lease has its full time again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseKeepAliveResponse {
    /// Where the store stands.
    pub header: Header,
    /// The lease.
    pub id: LeaseId,
    /// The time that it has from now on, in seconds; 0 when there is no such lease.
    pub ttl_seconds: i64,
}

/// Asks about one lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTimeToLiveRequest {
    /// The lease.
    pub id: LeaseId,
    /// Answer the keys too.
    pub keys: bool,
}

/// How a lease stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTimeToLiveResponse {
    /// Where the store stands.
    pub header: Header,
    /// The lease.
    pub id: LeaseId,
    /// Seconds left; -1 when there is no such lease.
    pub ttl_seconds: i64,
    /// Seconds that each keep-alive gives.
    pub granted_ttl_seconds: i64,
    /// The attached keys in order, if asked for.
    pub keys: Vec<Bytes>,
}

/// All leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasesResponse {
    /// Where the store stands.
    pub header: Header,
    /// The leases by id.
    pub leases: Vec<LeaseId>,
}
