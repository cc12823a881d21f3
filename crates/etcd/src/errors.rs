//! Errors as etcd's clients know them.
//!
//! Clients compare texts (the Go client maps them to its error values), so that codes and texts are
//! those of etcd's `api/v3rpc/rpctypes` to the letter. What etcd has no error for says in its own
//! words what is wrong.

use onefold_kv::{AuthError, KvError};
use tonic::{Code, Status};
use tracing::{debug, error};

use crate::ControlError;

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
        KvError::Auth(error) => return auth_status(error),
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

/// The answer for an error about users and roles.
fn auth_status(error: &AuthError) -> Status {
    use Code::{FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated, Unknown};

    let (code, text) = match error {
        AuthError::RootUserNotFound => (FailedPrecondition, "etcdserver: root user does not exist"),
        AuthError::RootRoleNotGranted => {
            (FailedPrecondition, "etcdserver: root user does not have root role")
        }
        AuthError::UserExists => (FailedPrecondition, "etcdserver: user name already exists"),
        AuthError::UserEmpty => (InvalidArgument, "etcdserver: user name is empty"),
        AuthError::UserNotFound => (FailedPrecondition, "etcdserver: user name not found"),
        AuthError::RoleExists => (FailedPrecondition, "etcdserver: role name already exists"),
        AuthError::RoleNotFound => (FailedPrecondition, "etcdserver: role name not found"),
        AuthError::RoleEmpty => (InvalidArgument, "etcdserver: role name is empty"),
        AuthError::PermissionNotGiven => (InvalidArgument, "etcdserver: permission not given"),
        AuthError::WrongPassword => {
            (InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
        }
        AuthError::NoPassword => {
            (Unknown, "auth: authentication failed, password was given for no password user")
        }
        AuthError::PermissionDenied => (PermissionDenied, "etcdserver: permission denied"),
        AuthError::RoleNotGranted => {
            (FailedPrecondition, "etcdserver: role is not granted to the user")
        }
        AuthError::PermissionNotGranted => {
            (FailedPrecondition, "etcdserver: permission is not granted to the role")
        }
        AuthError::NotEnabled => (FailedPrecondition, "etcdserver: authentication is not enabled"),
        AuthError::InvalidToken => (Unauthenticated, "etcdserver: invalid auth token"),
        AuthError::InvalidManagement => (InvalidArgument, "etcdserver: invalid auth management"),
        AuthError::PasswordTooLong => return Status::invalid_argument(error.to_string()),
        AuthError::TooManyRecords | AuthError::RecordTooLarge => {
            return Status::resource_exhausted(error.to_string());
        }
    };
    Status::new(code, text)
}

/// A lock's key went with its lease while it waited for its turn.
pub(crate) fn session_expired() -> Status {
    Status::unknown("mutex: session is expired")
}

/// An election's key is not the leader's (any more).
pub(crate) fn not_elected() -> Status {
    Status::unknown("election: not leader")
}

/// An election without candidates.
pub(crate) fn nobody_elected() -> Status {
    Status::unknown("election: no leader")
}

/// A request about an election without what its campaign answered.
pub(crate) fn missing_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

/// Why a change of the cluster is not made.
pub(crate) fn control(error: ControlError) -> Status {
    let (code, text) = match &error {
        ControlError::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
        ControlError::AddressTaken => {
            (Code::FailedPrecondition, "etcdserver: Peer URLs already exists")
        }
        ControlError::BadAddress => {
            (Code::InvalidArgument, "etcdserver: given member URLs are invalid")
        }
        ControlError::TooFewStarted => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        ControlError::NotLearner => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        ControlError::LearnerNotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        ControlError::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        ControlError::BadTransferee => {
            (Code::FailedPrecondition, "etcdserver: bad leader transferee")
        }
        ControlError::Unavailable(_) => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        ControlError::TimedOut(_) => (Code::Unavailable, "etcdserver: request timed out"),
        ControlError::Refused(reason) => return Status::failed_precondition(reason),
    };
    if code == Code::Unavailable {
        debug!(%error, "a change of the cluster was not made");
    }
    Status::new(code, text)
}

/// A downgrade's target that is no version.
pub(crate) fn wrong_downgrade_format() -> Status {
    Status::invalid_argument("etcdserver: wrong downgrade target version format")
}

/// A downgrade's target that is not the minor version before.
pub(crate) fn invalid_downgrade_target() -> Status {
    Status::invalid_argument("etcdserver: invalid downgrade target version")
}

/// A downgrade is noted already.
pub(crate) fn downgrade_in_process() -> Status {
    Status::failed_precondition("etcdserver: cluster has a downgrade job in progress")
}

/// No downgrade is noted that could be cancelled.
pub(crate) fn no_inflight_downgrade() -> Status {
    Status::failed_precondition("etcdserver: no inflight downgrade job")
}
