//! What is written to the group's log, and what the store answers.

use bytes::Bytes;
use onefold_replica::AnswerSize;
use onefold_types::{Revision, Term};
use serde::{Deserialize, Serialize};

use super::auth::change::AuthCommand;
use crate::{
    Caller, CompactResponse, DeleteRangeRequest, DeleteRangeResponse, Header, ImportResponse,
    ImportStep, KvError, LeaseGrantRequest, LeaseGrantResponse, LeaseId, LeaseRevokeResponse,
    PutRequest, PutResponse, TxnRequest, TxnResponse,
};

/// The format of commands and answers; the first byte of a command.
const FORMAT: u8 = 1;

/// The format of commands of clients: the caller, then the command.
const FORMAT_OF_CALLER: u8 = 2;

/// One command of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Writes one key.
    Put(PutRequest),
    /// Deletes a span.
    DeleteRange(DeleteRangeRequest),
    /// Runs a transaction.
    Txn(TxnRequest),
    /// Makes the history below a revision unreadable.
    Compact(Revision),
    /// Removes some of what is unreadable: a bounded step, repeated by the leader.
    Sweep {
        /// Most events to look at.
        events_max: u32,
    },
    /// Creates a lease.
    LeaseGrant(LeaseGrantRequest),
    /// Ends a lease because a client says so.
    LeaseRevoke(LeaseId),
    /// Ends a lease because its time is over, as the leader of this term found.
    LeaseExpire {
        /// The lease.
        id: LeaseId,
        /// The term.
        term: Term,
    },
    /// The leader of this term counts the time of leases from now on, and no earlier one does.
    Lead(Term),
    /// Takes a step of an import.
    Import(ImportStep),
    /// Bounds the room that the store takes, in bytes; 0 takes the bound away.
    SetQuota {
        /// The bound.
        quota_bytes: u64,
    },
    /// Gives up the history that nobody wants to keep, by the time that the log has.
    Retain(Retention),
    /// Notes the time that leases have left, as the leader of this term found.
    LeaseCheckpoint {
        /// The term.
        term: Term,
        /// Leases and seconds; 0 for all of a lease's time.
        left: Vec<(LeaseId, i64)>,
    },
    /// Changes users, roles or the switch.
    Auth(AuthCommand),
}

/// Which history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Retention {
    /// What was current at some moment of the last so many milliseconds, and the newest revisions.
    Age {
        /// Milliseconds.
        millis: u64,
        /// How many of the newest revisions.
        revisions_min: u64,
    },
    /// So many of the newest revisions.
    Revisions(u64),
}

/// The answer to a command, variant by variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactResponse),
    /// Whether another step is needed.
    Sweep {
        due: bool,
    },
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    /// Whether the lease was ended.
    LeaseExpire {
        ended: bool,
    },
    Lead,
    Import(ImportResponse),
    SetQuota,
    Retain,
    LeaseCheckpoint,
    /// Where the store stands.
    Auth(Header),
}

impl Answer {
    /// The revision that the one who asked knows of from now on.
    pub(crate) fn revision(&self) -> Option<Revision> {
        let header = match self {
            Self::Put(response) => &response.header,
            Self::DeleteRange(response) => &response.header,
            Self::Txn(response) => &response.header,
            Self::Compact(response) => &response.header,
            Self::LeaseRevoke(response) => &response.header,
            Self::Import(response) => &response.header,
            Self::LeaseGrant(_)
            | Self::Auth(_)
            | Self::Sweep { .. }
            | Self::LeaseExpire { .. }
            | Self::Lead
            | Self::SetQuota
            | Self::Retain
            | Self::LeaseCheckpoint => return None,
        };
        Some(header.revision)
    }
}

/// What the proposer gets.
pub(crate) type Outcome = Result<Answer, KvError>;

impl Command {
    /// How large the answer may be: it is small unless it may hold records of the store.
    pub(crate) fn answer_size(&self) -> AnswerSize {
        match self {
            Self::Put(request) if !request.prev_kv => AnswerSize::Small,
            Self::DeleteRange(request) if !request.prev_kv => AnswerSize::Small,
            Self::Compact(_)
            | Self::Sweep { .. }
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire { .. }
            | Self::Lead(_)
            | Self::Auth(_) => AnswerSize::Small,
            _ => AnswerSize::Any,
        }
    }

    /// The bytes for the log.
    pub(crate) fn encode(&self) -> Bytes {
        self.encode_for(&Caller::Trusted)
    }

    /// The bytes for the log, of a command that only counts if the caller may have it then.
    pub(crate) fn encode_for(&self, caller: &Caller) -> Bytes {
        let encoded = match caller {
            Caller::Trusted => postcard::to_extend(self, vec![FORMAT]),
            caller => postcard::to_extend(&(caller, self), vec![FORMAT_OF_CALLER]),
        };
        encoded.expect("plain data always serializes").into()
    }

    /// Reads what [`encode_for`](Self::encode_for) wrote; says what is wrong otherwise.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Caller, Self), String> {
        let decoded = match bytes.split_first() {
            Some((&FORMAT, rest)) => {
                postcard::from_bytes(rest).map(|command| (Caller::Trusted, command))
            }
            Some((&FORMAT_OF_CALLER, rest)) => postcard::from_bytes(rest),
            Some((format, _)) => {
                return Err(format!("the command has the unknown format {format}"));
            }
            None => return Err("the command is empty".to_owned()),
        };
        decoded.map_err(|error| format!("the command does not decode: {error}"))
    }
}

/// The bytes for the proposer.
pub(crate) fn encode_outcome(outcome: &Outcome) -> Bytes {
    postcard::to_stdvec(outcome).expect("plain data always serializes").into()
}

/// Reads what [`encode_outcome`] wrote.
pub(crate) fn decode_outcome(bytes: &[u8]) -> Outcome {
    postcard::from_bytes(bytes).unwrap_or_else(|error| {
        Err(KvError::Internal { reason: format!("the store's answer does not decode: {error}") })
    })
}
