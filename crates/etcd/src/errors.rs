//! Errors as etcd's clients know them.
//!
//! Clients compare texts (the Go client maps them to its error values), so that codes and texts are
//! those of etcd's `api/v3rpc/rpctypes` to the letter. What etcd has no error for says in its own
//! words what is wrong.

use onefold_kv::KvError;
use tonic::{Code, Status};
use tracing::{debug, error};

/// The text of a compacted revision, which watches give as a reason, too.
pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Why a watch over no keys is refused.
pub(crate) const EMPTY_WATCH_RANGE: &str = "mvcc: watcher range is empty";

/// Why a watch with an id that the stream has already is refused.
pub(crate) const DUPLICATE_WATCH_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// The answer for an error of the store.
pub(crate) fn status(error: KvError) -> Status {
    let (code, text) = match &error {
        KvError::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        KvError::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        KvError::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        KvError::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        KvError::TooManyOperations => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        KvError::DuplicateKey => {
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
        }
        KvError::Compacted { .. } => (Code::OutOfRange, COMPACTED),
        KvError::FutureRevision { .. } => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        KvError::LeaseNotFound { .. } => (Code::NotFound, "etcdserver: requested lease not found"),
        KvError::LeaseExists { .. } => {
            (Code::FailedPrecondition, "etcdserver: lease already exists")
        }
        KvError::LeaseTtlTooLarge { .. } => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        KvError::NoSpace { .. } => {
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        KvError::RequestTooLarge { .. } => return request_too_large(),
        KvError::TimedOut { .. } => (Code::Unavailable, "etcdserver: request timed out"),
        KvError::Unavailable { .. } => return no_leader(),
        KvError::Overloaded { .. } => return too_many_requests(),
        KvError::KeyTooLong { .. } => return Status::invalid_argument(error.to_string()),
        KvError::AnswerTooLarge => return Status::resource_exhausted(error.to_string()),
        KvError::Importing => return Status::unavailable(error.to_string()),
        KvError::ImportRefused { .. } => return Status::failed_precondition(error.to_string()),
        KvError::Internal { .. } => {
            error!(%error, "a request of the etcd API failed");
            return Status::internal(error.to_string());
        }
    };
    if code == Code::Unavailable {
        debug!(%error, "a request of the etcd API was not answered");
    }
    Status::new(code, text)
}

/// A request beyond the bound of 1.5 MiB.
pub(crate) fn request_too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// More in work than this node takes on.
pub(crate) fn too_many_requests() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

/// No leader is known; the request had no effect.
pub(crate) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// The node shuts down.
pub(crate) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// A sort order or target that is not in the API.
pub(crate) fn invalid_sort_option() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

/// A comparison that is not in the API.
pub(crate) fn invalid_compare() -> Status {
    Status::invalid_argument(
        "the comparison's result or target is not one of the API's; upgrade the server or use one \
         of version, create, mod, value and lease",
    )
}

/// An operation of a transaction that says nothing.
pub(crate) fn empty_operation() -> Status {
    status(KvError::KeyNotFound)
}

/// Authentication was asked for where it is off.
pub(crate) fn auth_not_enabled() -> Status {
    Status::failed_precondition("etcdserver: authentication is not enabled")
}

/// Authentication cannot be turned on without the user `root`.
pub(crate) fn root_user_not_exist() -> Status {
    Status::failed_precondition("etcdserver: root user does not exist")
}

/// No such user.
pub(crate) fn user_not_found() -> Status {
    Status::failed_precondition("etcdserver: user name not found")
}

/// No such role.
pub(crate) fn role_not_found() -> Status {
    Status::failed_precondition("etcdserver: role name not found")
}

/// A call of the API that is not served.
pub(crate) fn unimplemented(call: &str, instead: &str) -> Status {
    Status::unimplemented(format!("onefold does not serve {call}: {instead}"))
}
