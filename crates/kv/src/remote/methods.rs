//! The calls that carry the store. Their numbers are the range 64 to 127 of the transport.

use std::time::Duration;

use onefold_replica::SessionTag;
use onefold_transport::methods;
use onefold_types::GroupId;
use serde::{Deserialize, Serialize};

use crate::{
    AuthAnswer, AuthChange, AuthQuery, AuthToken, Caller, CompactRequest, CompactResponse,
    DeleteRangeRequest, DeleteRangeResponse, HashResponse, HashScope, Header, ImportResponse,
    ImportStep, LeaseGrantRequest, LeaseGrantResponse, LeaseId, LeaseKeepAliveResponse,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse,
    PutRequest, PutResponse, RangePart, RangePartRequest, RangeRequest, RangeResponse,
    StatusResponse, TxnRequest, TxnResponse, WatchBatch, WatchPoll,
};

/// A request to one keyspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct At<T> {
    pub(crate) group: GroupId,
    pub(crate) caller: Caller,
    pub(crate) request: T,
}

/// A request to one keyspace that is executed once however often it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Once<T> {
    pub(crate) group: GroupId,
    pub(crate) caller: Caller,
    pub(crate) session: Option<SessionTag>,
    pub(crate) request: T,
}

/// As much of a range's answer as fits a frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RangePage {
    pub(crate) response: RangeResponse,
    /// Whether more records follow the last one.
    pub(crate) cut: bool,
}

methods! {
    /// Reads a range, page by page.
    64 pub(crate) Range "kv.range" At<RangeRequest> => RangePage;
    /// Writes one key.
    65 pub(crate) Put "kv.put" Once<PutRequest> => PutResponse;
    /// Deletes a span.
    66 pub(crate) DeleteRange "kv.delete_range" Once<DeleteRangeRequest> => DeleteRangeResponse;
    /// Runs a transaction.
    67 pub(crate) Txn "kv.txn" Once<TxnRequest> => TxnResponse;
    /// Gives up history.
    68 pub(crate) Compact "kv.compact" Once<CompactRequest> => CompactResponse;
    /// Creates a lease.
    69 pub(crate) LeaseGrant "kv.lease_grant" Once<LeaseGrantRequest> => LeaseGrantResponse;
    /// Ends a lease.
    70 pub(crate) LeaseRevoke "kv.lease_revoke" Once<LeaseId> => LeaseRevokeResponse;
    /// Renews a lease, wherever the leader is.
    71 pub(crate) LeaseKeepAlive "kv.lease_keep_alive" At<LeaseId> => LeaseKeepAliveResponse;
    /// Tells the time that a lease has left.
    72 pub(crate) LeaseTimeToLive "kv.lease_time_to_live" At<LeaseTimeToLiveRequest> => LeaseTimeToLiveResponse;
    /// Lists leases.
    73 pub(crate) Leases "kv.leases" At<()> => LeasesResponse;
    /// Waits for events.
    74 pub(crate) Poll "kv.watch_poll" At<WatchPoll> => WatchBatch;
    /// Renews a lease in the book of the node that is asked, which must lead.
    75 pub(crate) KeepAliveHere "kv.lease_keep_alive_here" At<LeaseId> => LeaseKeepAliveResponse;
    /// What the book of the node that is asked says about a lease; it must lead.
    76 pub(crate) LeftHere "kv.lease_left_here" At<LeaseId> => Option<Duration>;
    /// Tells how the store stands, as the replica of the node that is asked knows it.
    77 pub(crate) Status "kv.status" At<()> => StatusResponse;
    /// Changes users or roles.
    78 pub(crate) ChangeAuth "kv.auth_change" Once<AuthChange> => Header;
    /// Asks about users and roles.
    79 pub(crate) AskAuth "kv.auth_ask" At<AuthQuery> => AuthAnswer;
    /// Checks a user's password: name, then password.
    80 pub(crate) Authenticate "kv.authenticate" At<(String, String)> => AuthToken;
    /// Tells whose a token is.
    81 pub(crate) Identify "kv.identify" At<String> => Caller;
    /// Reads a part of a range.
    82 pub(crate) Part "kv.range_part" At<RangePartRequest> => RangePart;
    /// Hashes what the replica of the node that is asked has stored.
    83 pub(crate) Hash "kv.hash" At<HashScope> => HashResponse;
    /// Takes a step of an import.
    90 pub(crate) Import "kv.import" Once<ImportStep> => ImportResponse;
}
