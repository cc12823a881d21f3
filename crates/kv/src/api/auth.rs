//! Users, roles, and what they may do with which keys.
//!
//! Everything is as in etcd's authentication: a user has roles, a role has permissions on spans of
//! keys, and the role [`ROOT`] may do everything. While authentication is off, everybody may.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{AUTH_RECORD_BYTES_MAX, AUTH_RECORDS_MAX};
use crate::{Header, KeySpan, KvError};

/// The name of the user who must exist before authentication can be turned on, and of the role that
/// may do everything.
pub const ROOT: &str = "root";

/// For whom a store does what it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Caller {
    /// A part of the cluster itself, or whoever is trusted by another protocol: may do everything.
    #[default]
    Trusted,
    /// A client that does not say who it is: may do everything while authentication is off, and
    /// nothing while it is on.
    Anonymous,
    /// A client that has proved to be this user.
    User(Proof),
}

/// That somebody knew a user's password.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proof {
    /// The user.
    pub name: String,
    /// The auth revision at which the password was the user's. What changed the user's password, or
    /// turned authentication on, at a later one makes the proof void.
    pub revision: u64,
}

/// What may be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermissionKind {
    /// Reading and watching.
    Read,
    /// Writing and deleting.
    Write,
    /// Both.
    ReadWrite,
}

/// What a role may do with a span of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What may be done.
    pub kind: PermissionKind,
    /// The first key.
    pub key: Bytes,
    /// See [`KeySpan::parse`].
    pub range_end: Bytes,
}

impl Permission {
    /// The keys that are meant.
    pub fn span(&self) -> KeySpan {
        KeySpan::parse(&self.key, &self.range_end)
    }
}

/// A password on its way to the node that hashes it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Password {
    /// The user cannot log in with a password.
    None,
    /// As a person types it.
    Plain(String),
    /// As bcrypt hashed it, in bcrypt's own notation.
    Hashed(String),
}

impl fmt::Debug for Password {
    /// Says nothing that a log must not know.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Plain(_) => "Plain(..)",
            Self::Hashed(_) => "Hashed(..)",
        })
    }
}

/// A change to users and roles. While authentication is on, only [`ROOT`] may ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthChange {
    /// Turns authentication on; there must be the user [`ROOT`] with the role [`ROOT`].
    Enable,
    /// Turns authentication off. Tokens become void.
    Disable,
    /// Creates a user without roles.
    UserAdd {
        /// The user; must not be empty.
        name: String,
        /// What the user logs in with.
        password: Password,
    },
    /// Removes a user, whose tokens become void.
    UserDelete {
        /// The user.
        name: String,
    },
    /// Gives a user another password. Tokens of before become void.
    UserChangePassword {
        /// The user.
        name: String,
        /// What the user logs in with from now on. One who has no password gets none.
        password: Password,
    },
    /// Gives a user a role.
    UserGrantRole {
        /// The user.
        user: String,
        /// The role; it must exist unless it is [`ROOT`].
        role: String,
    },
    /// Takes a role from a user.
    UserRevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Creates a role without permissions.
    RoleAdd {
        /// The role; must not be empty.
        name: String,
    },
    /// Removes a role, also from the users who have it.
    RoleDelete {
        /// The role.
        name: String,
    },
    /// Lets a role do something with a span of keys, instead of what it may do with the same span.
    RoleGrantPermission {
        /// The role.
        role: String,
        /// What it may do.
        permission: Permission,
    },
    /// Takes what a role may do with exactly this span.
    RoleRevokePermission {
        /// The role.
        role: String,
        /// The first key.
        key: Bytes,
        /// See [`KeySpan::parse`].
        range_end: Bytes,
    },
}

/// A question about users and roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthQuery {
    /// Whether authentication is on. Everybody may ask.
    Status,
    /// The roles of a user. Users may ask about themselves.
    User(String),
    /// The names of all users.
    Users,
    /// The permissions of a role. Users may ask about roles that they have.
    Role(String),
    /// The names of all roles.
    Roles,
    /// Whether the caller may do what only users may.
    IsUser,
    /// Whether the caller may do what only [`ROOT`] may.
    IsRoot,
}

/// The answer to a question about users and roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthAnswer {
    /// Where the store stands.
    pub header: Header,
    /// Whether authentication is on.
    pub is_enabled: bool,
    /// How often users, roles or the switch were changed.
    pub revision: u64,
    /// Names of users or roles in order, as asked for.
    pub names: Vec<String>,
    /// The permissions of a role by key.
    pub permissions: Vec<Permission>,
}

/// What a client shows from now on instead of a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthToken {
    /// Where the store stands.
    pub header: Header,
    /// Printable ASCII. Whoever has it is the user.
    pub token: String,
}

/// The users and roles of one keyspace.
#[async_trait]
pub trait Auth: Send + Sync {
    /// Changes users or roles.
    async fn change(&self, change: AuthChange) -> Result<Header, KvError>;

    /// Asks about users and roles.
    async fn ask(&self, query: AuthQuery) -> Result<AuthAnswer, KvError>;

    /// Checks a password and gives a token for it.
    async fn authenticate(&self, name: String, password: String) -> Result<AuthToken, KvError>;

    /// Whom a token belongs to. While authentication is off, tokens are not looked at.
    async fn identify(&self, token: &str) -> Result<Caller, KvError>;
}

/// Why a request about users and roles is not done, or why one who asks may not.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AuthError {
    /// Authentication cannot be turned on.
    #[error("there is no user root; add it before turning authentication on")]
    RootUserNotFound,
    /// Authentication cannot be turned on.
    #[error("the user root does not have the role root; grant it first")]
    RootRoleNotGranted,
    /// The user exists.
    #[error("the user exists already; choose another name")]
    UserExists,
    /// No name where one is needed, or a client that does not say who it is.
    #[error("no user is named; log in, or give a name")]
    UserEmpty,
    /// No such user.
    #[error("there is no such user")]
    UserNotFound,
    /// The role exists.
    #[error("the role exists already; choose another name")]
    RoleExists,
    /// No such role.
    #[error("there is no such role")]
    RoleNotFound,
    /// A role needs a name.
    #[error("no role is named; give a name")]
    RoleEmpty,
    /// A permission is missing in the request.
    #[error("no permission is given")]
    PermissionNotGiven,
    /// Unknown user or wrong password; which of them is not told.
    #[error("the user or the password is wrong")]
    WrongPassword,
    /// A user without a password was to log in with one, or a hash is unreadable.
    #[error("the user has no password to log in with")]
    NoPassword,
    /// The caller may not do this.
    #[error("the user has no role that permits this")]
    PermissionDenied,
    /// The user does not have the role.
    #[error("the user does not have the role")]
    RoleNotGranted,
    /// The role does not have the permission.
    #[error("the role has no permission on exactly this span")]
    PermissionNotGranted,
    /// Authentication is off.
    #[error("authentication is off; there is nothing to log in to")]
    NotEnabled,
    /// A token that is not genuine, expired or became void.
    #[error("the token is not valid (any more); log in again")]
    InvalidToken,
    /// What would lock everybody out, or a permission on no keys.
    #[error("this would lock root out, or the span of keys is empty")]
    InvalidManagement,
    /// More users, or more roles, than the store keeps.
    #[error("there are {AUTH_RECORDS_MAX} of this kind already; delete some first")]
    TooManyRecords,
    /// A user or a role that is too large.
    #[error("a user's roles, or a role's permissions, have at most {AUTH_RECORD_BYTES_MAX} bytes")]
    RecordTooLarge,
    /// A password that bcrypt cannot hash whole.
    #[error("a password has at most 72 bytes; choose a shorter one")]
    PasswordTooLong,
}
