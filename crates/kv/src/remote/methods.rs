//! The calls that carry the store. Their numbers are the range 64 to 127 of the transport.

use std::time::Duration;

use onefold_replica::SessionTag;
use onefold_transport::{Method, MethodId};
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

macro_rules! methods {
    ($($(#[$doc:meta])* $number:literal $type:ident $name:literal $request:ty => $response:ty;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $type;

            impl Method for $type {
                const ID: MethodId = MethodId($number);
                const NAME: &'static str = $name;
                type Request = $request;
                type Response = $response;
            }
        )*
    };
}

methods! {
    /// Reads a range, page by page.
    64 Range "kv.range" At<RangeRequest> => RangePage;
    /// Writes one key.
    65 Put "kv.put" Once<PutRequest> => PutResponse;
    /// Deletes a span.
    66 DeleteRange "kv.delete_range" Once<DeleteRangeRequest> => DeleteRangeResponse;
    /// Runs a transaction.
    67 Txn "kv.txn" Once<TxnRequest> => TxnResponse;
    /// Gives up history.
    68 Compact "kv.compact" Once<CompactRequest> => CompactResponse;
    /// Creates a lease.
    69 LeaseGrant "kv.lease_grant" Once<LeaseGrantRequest> => LeaseGrantResponse;
    /// Ends a lease.
    70 LeaseRevoke "kv.lease_revoke" Once<LeaseId> => LeaseRevokeResponse;
    /// Renews a lease, wherever the leader is.
    71 LeaseKeepAlive "kv.lease_keep_alive" At<LeaseId> => LeaseKeepAliveResponse;
    /// Tells the time that a lease has left.
    72 LeaseTimeToLive "kv.lease_time_to_live" At<LeaseTimeToLiveRequest> => LeaseTimeToLiveResponse;
    /// Lists leases.
    73 Leases "kv.leases" At<()> => LeasesResponse;
    /// Waits for events.
    74 Poll "kv.watch_poll" At<WatchPoll> => WatchBatch;
    /// Renews a lease in the book of the node that is asked, which must lead.
    75 KeepAliveHere "kv.lease_keep_alive_here" At<LeaseId> => LeaseKeepAliveResponse;
    /// What the book of the node that is asked says about a lease; it must lead.
    76 LeftHere "kv.lease_left_here" At<LeaseId> => Option<Duration>;
    /// Tells how the store stands, as the replica of the node that is asked knows it.
    77 Status "kv.status" At<()> => StatusResponse;
    /// Changes users or roles.
    78 ChangeAuth "kv.auth_change" Once<AuthChange> => Header;
    /// Asks about users and roles.
    79 AskAuth "kv.auth_ask" At<AuthQuery> => AuthAnswer;
    /// Checks a user's password: name, then password.
    80 Authenticate "kv.authenticate" At<(String, String)> => AuthToken;
    /// Tells whose a token is.
    81 Identify "kv.identify" At<String> => Caller;
    /// Reads a part of a range.
    82 Part "kv.range_part" At<RangePartRequest> => RangePart;
    /// Hashes what the replica of the node that is asked has stored.
    83 Hash "kv.hash" At<HashScope> => HashResponse;
    /// Takes a step of an import.
    90 Import "kv.import" Once<ImportStep> => ImportResponse;
}
