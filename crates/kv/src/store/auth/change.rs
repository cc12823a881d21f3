//! What a command does to users and roles. The rules and their order are etcd's.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use onefold_table::Overlay;
use serde::{Deserialize, Serialize};

use super::super::keys;
use super::{AuthState, Role, User};
use crate::limits::{AUTH_RECORD_BYTES_MAX, AUTH_RECORDS_MAX, KEY_BYTES_MAX};
use crate::{AuthError, KvError, Permission, ROOT};

/// A change as it is in the log: what needs time or chance to make is made already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AuthCommand {
    /// Turns authentication on.
    Enable {
        /// Signs tokens from now on.
        key: [u8; 32],
    },
    /// Turns authentication off.
    Disable,
    /// Creates a user.
    UserAdd { name: String, hash: Option<String> },
    /// Removes a user.
    UserDelete { name: String },
    /// Gives a user another password.
    UserChangePassword { name: String, hash: Option<String> },
    /// Gives a user a role.
    UserGrantRole { user: String, role: String },
    /// Takes a role from a user.
    UserRevokeRole { user: String, role: String },
    /// Creates a role.
    RoleAdd { name: String },
    /// Removes a role, also from its users.
    RoleDelete { name: String },
    /// Adds or replaces a permission.
    RoleGrantPermission { role: String, permission: Permission },
    /// Removes a permission.
    RoleRevokePermission { role: String, key: Bytes, range_end: Bytes },
}

impl AuthState {
    /// Carries a command out on the state and on the table, or changes neither.
    pub(crate) fn change(
        &mut self,
        table: &mut Overlay<'_>,
        command: AuthCommand,
    ) -> Result<(), KvError> {
        let mut change = Change { state: self, table };
        match command {
            AuthCommand::Enable { key } => change.enable(key),
            AuthCommand::Disable => change.disable(),
            AuthCommand::UserAdd { name, hash } => change.user_add(name, hash),
            AuthCommand::UserDelete { name } => change.user_delete(&name),
            AuthCommand::UserChangePassword { name, hash } => change.user_password(name, hash),
            AuthCommand::UserGrantRole { user, role } => change.user_grant_role(user, role),
            AuthCommand::UserRevokeRole { user, role } => change.user_revoke_role(user, &role),
            AuthCommand::RoleAdd { name } => change.role_add(name),
            AuthCommand::RoleDelete { name } => change.role_delete(&name),
            AuthCommand::RoleGrantPermission { role, permission } => {
                change.role_grant_permission(role, permission)
            }
            AuthCommand::RoleRevokePermission { role, key, range_end } => {
                change.role_revoke_permission(role, &key, &range_end)
            }
        }
    }
}

/// One change on its way.
struct Change<'c, 't> {
    state: &'c mut AuthState,
    table: &'c mut Overlay<'t>,
}

/// The switch.
impl Change<'_, '_> {
    /// It is on already, or the user `root` has the role `root`.
    fn enable(&mut self, key: [u8; 32]) -> Result<(), KvError> {
        if self.state.switch.is_enabled {
            return Ok(());
        }
        let root = self.state.users.get(ROOT).ok_or(AuthError::RootUserNotFound)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthError::RootRoleNotGranted.into());
        }
        let switch = &mut self.state.switch;
        (switch.is_enabled, switch.key, switch.since) = (true, key, switch.revision);
        self.save_switch();
        Ok(())
    }

    fn disable(&mut self) -> Result<(), KvError> {
        if self.state.switch.is_enabled {
            self.state.switch.is_enabled = false;
            self.count();
        }
        Ok(())
    }

    /// Refuses what would lock everybody out.
    fn keep_root(&self, would_lose_root: bool) -> Result<(), AuthError> {
        let is_lockout = self.state.switch.is_enabled && would_lose_root;
        if is_lockout { Err(AuthError::InvalidManagement) } else { Ok(()) }
    }

    /// The revision that this change will make.
    fn revision(&self) -> u64 {
        self.state.switch.revision + 1
    }

    /// Ends a change.
    fn count(&mut self) {
        self.state.switch.revision = self.revision();
        self.save_switch();
    }

    fn save_switch(&mut self) {
        self.table.put(keys::AUTH_SWITCH, self.state.switch.encode());
    }
}

/// Users.
impl Change<'_, '_> {
    fn user_add(&mut self, name: String, hash: Option<String>) -> Result<(), KvError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty.into());
        }
        if self.state.users.contains_key(&name) {
            return Err(AuthError::UserExists.into());
        }
        has_room(&self.state.users, &name)?;
        self.save_user(name, User { since: self.revision(), hash, ..User::default() })
    }

    fn user_delete(&mut self, name: &str) -> Result<(), KvError> {
        self.keep_root(name == ROOT)?;
        self.state.users.remove(name).ok_or(AuthError::UserNotFound)?;
        self.table.delete(keys::user(name));
        self.count();
        Ok(())
    }

    /// A user who cannot log in with a password still cannot afterwards.
    fn user_password(&mut self, name: String, hash: Option<String>) -> Result<(), KvError> {
        let mut user = self.user(&name)?;
        user.since = self.revision();
        if user.hash.is_some() {
            user.hash = Some(hash.ok_or(AuthError::NoPassword)?);
        }
        self.save_user(name, user)
    }

    fn user_grant_role(&mut self, name: String, role: String) -> Result<(), KvError> {
        let mut user = self.user(&name)?;
        if role != ROOT && !self.state.roles.contains_key(&role) {
            return Err(AuthError::RoleNotFound.into());
        }
        // Granted already: nothing changes.
        if !user.roles.insert(role) {
            return Ok(());
        }
        self.save_user(name, user)
    }

    fn user_revoke_role(&mut self, name: String, role: &str) -> Result<(), KvError> {
        self.keep_root(name == ROOT && role == ROOT)?;
        let mut user = self.user(&name)?;
        if !user.roles.remove(role) {
            return Err(AuthError::RoleNotGranted.into());
        }
        self.save_user(name, user)
    }

    fn user(&self, name: &str) -> Result<User, AuthError> {
        self.state.users.get(name).cloned().ok_or(AuthError::UserNotFound)
    }

    fn save_user(&mut self, name: String, user: User) -> Result<(), KvError> {
        self.table.put(keys::user(&name), small_enough(user.encode())?);
        self.state.users.insert(name, user);
        self.count();
        Ok(())
    }
}

/// Roles.
impl Change<'_, '_> {
    fn role_add(&mut self, name: String) -> Result<(), KvError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty.into());
        }
        if self.state.roles.contains_key(&name) {
            return Err(AuthError::RoleExists.into());
        }
        has_room(&self.state.roles, &name)?;
        self.save_role(name, Role::default())
    }

    fn role_delete(&mut self, name: &str) -> Result<(), KvError> {
        self.keep_root(name == ROOT)?;
        self.state.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        self.table.delete(keys::role(name));
        for (user_name, user) in &mut self.state.users {
            if user.roles.remove(name) {
                self.table.put(keys::user(user_name), user.encode());
            }
        }
        self.count();
        Ok(())
    }

    fn role_grant_permission(&mut self, name: String, new: Permission) -> Result<(), KvError> {
        if !is_span_of_keys(&new) {
            return Err(AuthError::InvalidManagement.into());
        }
        let mut role = self.role(&name)?;
        match role.place(&new.key, &new.range_end) {
            Ok(place) => role.permissions[place] = new,
            Err(place) => role.permissions.insert(place, new),
        }
        self.save_role(name, role)
    }

    fn role_revoke_permission(
        &mut self,
        name: String,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<(), KvError> {
        let mut role = self.role(&name)?;
        let place = role.place(key, range_end).map_err(|_| AuthError::PermissionNotGranted)?;
        role.permissions.remove(place);
        self.save_role(name, role)
    }

    fn role(&self, name: &str) -> Result<Role, AuthError> {
        let found = self.state.roles.get(name).ok_or(AuthError::RoleNotFound)?;
        Ok(found.role.clone())
    }

    fn save_role(&mut self, name: String, role: Role) -> Result<(), KvError> {
        self.table.put(keys::role(&name), small_enough(role.encode())?);
        self.state.roles.insert(name, role.into());
        self.count();
        Ok(())
    }
}

impl Role {
    /// Where the permission on a span is, or would be.
    fn place(&self, key: &Bytes, range_end: &Bytes) -> Result<usize, usize> {
        self.permissions.binary_search_by(|permission| -> Ordering {
            (&permission.key, &permission.range_end).cmp(&(key, range_end))
        })
    }
}

/// A permission on no keys would be a mistake that nobody notices.
fn is_span_of_keys(permission: &Permission) -> bool {
    let (key, end) = (&permission.key, &permission.range_end);
    !key.is_empty() && (end.is_empty() || end.as_ref() == [0] || key < end)
}

fn has_room<T>(records: &BTreeMap<String, T>, name: &str) -> Result<(), KvError> {
    if name.len() > KEY_BYTES_MAX {
        return Err(KvError::KeyTooLong { bytes: name.len() });
    }
    if records.len() >= AUTH_RECORDS_MAX {
        return Err(AuthError::TooManyRecords.into());
    }
    Ok(())
}

fn small_enough(record: Bytes) -> Result<Bytes, AuthError> {
    if record.len() > AUTH_RECORD_BYTES_MAX { Err(AuthError::RecordTooLarge) } else { Ok(record) }
}
