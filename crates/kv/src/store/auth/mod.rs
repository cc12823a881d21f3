//! Users, roles and the switch: who may do what.
//!
//! ```text
//! records     what is kept of them in the table
//! change      what a command does to them
//! spans       sets of keys, and whether some of them together cover a span
//! permit      what a request needs
//! ```
//!
//! A change is part of the log like every other, and whether one who asks may is decided on the
//! same state as the answer: in the order of the log for commands, on the view that is read for
//! reads. So nothing is done with a permission that was taken before.

pub(crate) mod change;
pub(crate) mod permit;
mod records;
mod spans;

use std::collections::BTreeMap;

use onefold_table::{TableError, View};

use super::keys;
use crate::{AuthError, Caller, KeySpan, Permission, PermissionKind, Proof, ROOT};
pub(crate) use records::{Role, Switch, User};
use spans::Spans;

/// The users and roles of a store, as in its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthState {
    pub(crate) switch: Switch,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) roles: BTreeMap<String, RoleKeys>,
}

/// A role, and the keys that its permissions come down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoleKeys {
    pub(crate) role: Role,
    readable: Spans,
    writable: Spans,
}

impl From<Role> for RoleKeys {
    fn from(role: Role) -> Self {
        let keys_except = |kind| {
            let permissions = role.permissions.iter();
            let permissions = permissions.filter(move |permission| permission.kind != kind);
            permissions.map(Permission::span).collect()
        };
        let readable = keys_except(PermissionKind::Write);
        let writable = keys_except(PermissionKind::Read);
        Self { role, readable, writable }
    }
}

impl AuthState {
    /// The state in a view; that of a store without users if there is none yet.
    pub(crate) fn read(view: &dyn View) -> Result<Self, TableError> {
        let switch = view.get(keys::AUTH_SWITCH)?.map(|stored| Switch::decode(&stored));
        let Some(switch) = switch.transpose()? else { return Ok(Self::default()) };
        let mut state = Self { switch, ..Self::default() };
        for pair in view.scan(keys::users(), Default::default()) {
            let (key, stored) = pair?;
            state.users.insert(keys::user_name(&key)?, User::decode(&stored)?);
        }
        for pair in view.scan(keys::roles(), Default::default()) {
            let (key, stored) = pair?;
            state.roles.insert(keys::role_name(&key)?, Role::decode(&stored)?.into());
        }
        Ok(state)
    }

    /// The auth revision, while authentication is on.
    pub(crate) fn enforced(&self) -> Option<u64> {
        self.switch.is_enabled.then_some(self.switch.revision)
    }

    /// What a caller may do.
    pub(crate) fn rights(&self, caller: &Caller) -> Result<Rights<'_>, AuthError> {
        if !self.switch.is_enabled {
            return Ok(Rights::all());
        }
        match caller {
            Caller::Trusted => Ok(Rights::all()),
            Caller::Anonymous => Err(AuthError::UserEmpty),
            Caller::User(proof) => Ok(self.rights_of(self.user(proof)?)),
        }
    }

    /// The user, if the proof still counts.
    pub(crate) fn user(&self, proof: &Proof) -> Result<&User, AuthError> {
        let user = self.users.get(&proof.name).ok_or(AuthError::InvalidToken)?;
        if proof.revision < user.since.max(self.switch.since) {
            return Err(AuthError::InvalidToken);
        }
        Ok(user)
    }

    fn rights_of(&self, user: &User) -> Rights<'_> {
        if user.roles.contains(ROOT) {
            return Rights::all();
        }
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        Rights { is_root: false, roles: roles.collect() }
    }
}

/// What a caller may do.
#[derive(Debug)]
pub(crate) struct Rights<'s> {
    is_root: bool,
    roles: Vec<&'s RoleKeys>,
}

impl Rights<'_> {
    fn all() -> Self {
        Self { is_root: true, roles: Vec::new() }
    }

    /// Whether the caller may do everything.
    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }

    /// Refuses whoever may not do everything.
    pub(crate) fn root(&self) -> Result<(), AuthError> {
        permitted(self.is_root)
    }

    /// Refuses whoever may not read all of these keys.
    pub(crate) fn read(&self, span: &KeySpan) -> Result<(), AuthError> {
        permitted(self.is_root || spans::cover(self.roles.iter().map(|role| &role.readable), span))
    }

    /// Refuses whoever may not write all of these keys.
    pub(crate) fn write(&self, span: &KeySpan) -> Result<(), AuthError> {
        permitted(self.is_root || spans::cover(self.roles.iter().map(|role| &role.writable), span))
    }
}

fn permitted(is_permitted: bool) -> Result<(), AuthError> {
    if is_permitted { Ok(()) } else { Err(AuthError::PermissionDenied) }
}
