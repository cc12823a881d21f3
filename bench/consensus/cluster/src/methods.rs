//! What the coordinating process asks of its nodes, over the product's own transport.

use onefold_transport::{Method, MethodId};
use serde::{Deserialize, Serialize};

/// Proposes the body as a command to a group.
pub(crate) struct Propose;

impl Method for Propose {
    const ID: MethodId = MethodId(60_001);
    const NAME: &'static str = "bench.propose";
    /// The group.
    type Request = u64;
    type Response = ();
}

/// Numbers about a node.
pub(crate) struct Report;

impl Method for Report {
    const ID: MethodId = MethodId(60_002);
    const NAME: &'static str = "bench.report";
    type Request = ();
    type Response = NodeReport;
}

/// Has the node itself run a closed loop of proposers for a while.
pub(crate) struct Drive;

impl Method for Drive {
    const ID: MethodId = MethodId(60_003);
    const NAME: &'static str = "bench.drive";
    type Request = DriveRequest;
    type Response = crate::load::Outcome;
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DriveRequest {
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    pub(crate) bytes: usize,
}

/// What a node says about itself.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    /// Groups that it hosts.
    pub(crate) groups: u64,
    /// Of these, how many it leads.
    pub(crate) led: u64,
    /// Of these, how many have a leader that it knows.
    pub(crate) settled: u64,
    /// Who leads the first group, 0 if that is not known.
    pub(crate) first_leader: u64,
    /// The last applied index of the first group.
    pub(crate) applied: u64,
    /// The first group's last index.
    pub(crate) last: u64,
    /// Of these, how many are silent.
    pub(crate) quiet: u64,
    /// Bytes of applied entries kept for slow followers.
    pub(crate) retained_bytes: u64,
    /// Syncs of the log.
    pub(crate) fsyncs: u64,
    /// Appends that became durable.
    pub(crate) appends: u64,
    /// Bytes written to the log.
    pub(crate) written_bytes: u64,
    /// Bytes of the log's segments on disk.
    pub(crate) log_bytes: u64,
}
