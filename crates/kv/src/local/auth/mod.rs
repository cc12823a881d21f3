//! Users and roles on a node: who asks, and what takes time or chance.
//!
//! ```text
//! known      the users and roles that the store told last ◄── Feed
//! password   hashing and checking, where it stops nobody
//! token      what clients show instead of a password
//! ```
//!
//! What a caller may do is decided by the core, on the state that answers.

mod known;
mod password;
mod token;

use std::sync::Arc;

use async_trait::async_trait;
use onefold_replica::SessionTag;
use onefold_table::View;

use super::LocalKv;
use crate::store::auth::change::AuthCommand;
use crate::store::auth::{AuthState, Rights, RoleKeys, User};
use crate::store::command::{Answer, Command};
use crate::store::error::StoreError;
use crate::store::state::State;
use crate::{
    Auth, AuthAnswer, AuthChange, AuthError, AuthQuery, AuthToken, Caller, Header, KeySpan,
    KvError, Password, Permission, PermissionKind, Proof, ROOT,
};
pub(super) use known::Known;
pub(super) use password::Hasher;
pub(super) use token::Uses;

#[async_trait]
impl Auth for LocalKv {
    async fn change(&self, change: AuthChange) -> Result<Header, KvError> {
        self.auth_change_in(change, None).await
    }

    async fn ask(&self, query: AuthQuery) -> Result<AuthAnswer, KvError> {
        // A diagnosis must not need a leader.
        let is_local = matches!(query, AuthQuery::IsUser | AuthQuery::IsRoot);
        let view = self.view(is_local).await?;
        let state = State::read(&view)?;
        let auth = self.auth_at(&view, &state)?;
        let mut answer = AuthAnswer {
            header: self.header_at(&state),
            is_enabled: auth.switch.is_enabled,
            revision: auth.switch.revision,
            names: Vec::new(),
            permissions: Vec::new(),
        };
        match query {
            AuthQuery::Status => {}
            AuthQuery::User(name) => {
                self.root_or(&auth, |user, _| user == name)?;
                let user = auth.users.get(&name).ok_or(AuthError::UserNotFound)?;
                answer.names = user.roles.iter().cloned().collect();
            }
            AuthQuery::Role(name) => {
                self.root_or(&auth, |_, user| user.roles.contains(&name))?;
                let role = auth.roles.get(&name).ok_or(AuthError::RoleNotFound)?;
                answer.permissions = permissions(&name, role);
            }
            AuthQuery::Users => {
                auth.rights(&self.caller)?.root()?;
                answer.names = auth.users.keys().cloned().collect();
            }
            AuthQuery::Roles => {
                auth.rights(&self.caller)?.root()?;
                answer.names = auth.roles.keys().cloned().collect();
            }
            AuthQuery::IsUser => drop(auth.rights(&self.caller)?),
            AuthQuery::IsRoot => auth.rights(&self.caller)?.root()?,
        }
        Ok(answer)
    }

    async fn authenticate(&self, name: String, password: String) -> Result<AuthToken, KvError> {
        let view = self.view(false).await?;
        let state = State::read(&view)?;
        let auth = self.auth_at(&view, &state)?;
        if !auth.switch.is_enabled {
            return Err(AuthError::NotEnabled.into());
        }
        let hasher = &self.inner.hasher;
        let Some(user) = auth.users.get(&name) else {
            // It takes as long as for a user who exists.
            hasher.check(None, password).await?;
            return Err(AuthError::WrongPassword.into());
        };
        let hash = user.hash.clone().ok_or(AuthError::NoPassword)?;
        if !hasher.check(Some(hash), password).await? {
            return Err(AuthError::WrongPassword.into());
        }
        let proof = Proof { name, revision: auth.switch.revision };
        let token = token::sign(&auth.switch.key, &proof, token::now());
        Ok(AuthToken { header: self.header_at(&state), token })
    }

    async fn identify(&self, token: &str) -> Result<Caller, KvError> {
        let known = self.inner.shared.auth.state();
        if known.switch.is_enabled
            && let Ok(caller) = self.owner(&known, token)
        {
            return Ok(caller);
        }
        // Another node may know of the token what this one does not yet.
        let view = self.view(false).await?;
        let state = State::read(&view)?;
        let auth = self.auth_at(&view, &state)?;
        if !auth.switch.is_enabled {
            return Ok(Caller::Anonymous);
        }
        Ok(self.owner(&auth, token)?)
    }
}

impl LocalKv {
    pub(crate) async fn auth_change_in(
        &self,
        change: AuthChange,
        session: Option<SessionTag>,
    ) -> Result<Header, KvError> {
        let command = self.auth_command(change).await?;
        match self.propose(Command::Auth(command), session).await? {
            Answer::Auth(header) => Ok(Header { raft_term: self.term(), ..header }),
            other => Err(super::kv::misfit(&other)),
        }
    }

    async fn auth_command(&self, change: AuthChange) -> Result<AuthCommand, KvError> {
        Ok(match change {
            AuthChange::Enable => AuthCommand::Enable { key: rand::random() },
            AuthChange::Disable => AuthCommand::Disable,
            AuthChange::UserAdd { name, password } => {
                AuthCommand::UserAdd { name, hash: self.hash(password).await? }
            }
            AuthChange::UserDelete { name } => AuthCommand::UserDelete { name },
            AuthChange::UserChangePassword { name, password } => {
                AuthCommand::UserChangePassword { name, hash: self.hash(password).await? }
            }
            AuthChange::UserGrantRole { user, role } => AuthCommand::UserGrantRole { user, role },
            AuthChange::UserRevokeRole { user, role } => AuthCommand::UserRevokeRole { user, role },
            AuthChange::RoleAdd { name } => AuthCommand::RoleAdd { name },
            AuthChange::RoleDelete { name } => AuthCommand::RoleDelete { name },
            AuthChange::RoleGrantPermission { role, permission } => {
                AuthCommand::RoleGrantPermission { role, permission }
            }
            AuthChange::RoleRevokePermission { role, key, range_end } => {
                AuthCommand::RoleRevokePermission { role, key, range_end }
            }
        })
    }

    async fn hash(&self, password: Password) -> Result<Option<String>, KvError> {
        Ok(match password {
            Password::None => None,
            Password::Plain(plain) => {
                // The log decides; but nobody else is to make this node hash passwords.
                let view = self.view(false).await?;
                let state = State::read(&view)?;
                self.permit(&view, &state, |rights| Ok(rights.root()?))?;
                Some(self.inner.hasher.hash(plain).await?)
            }
            Password::Hashed(hash) => Some(password::readable(hash)?),
        })
    }

    /// Refuses what the caller may not do in the state of this view. Costs nothing while
    /// authentication is off.
    pub(super) fn permit(
        &self,
        view: &dyn View,
        state: &State,
        check: impl FnOnce(&Rights<'_>) -> Result<(), StoreError>,
    ) -> Result<(), KvError> {
        if state.enforced.is_none() || self.caller == Caller::Trusted {
            return Ok(());
        }
        let auth = self.auth_at(view, state)?;
        check(&auth.rights(&self.caller)?)?;
        Ok(())
    }

    /// The users and roles of a view.
    pub(super) fn auth_at(
        &self,
        view: &dyn View,
        state: &State,
    ) -> Result<Arc<AuthState>, KvError> {
        let known = self.inner.shared.auth.state();
        if state.enforced.is_some() && known.enforced() == state.enforced {
            return Ok(known);
        }
        Ok(Arc::new(AuthState::read(view)?))
    }

    /// What permits a watch on a span, as long as it does.
    pub(super) fn watch_permit(&self, span: KeySpan) -> WatchPermit {
        WatchPermit {
            shared: self.inner.shared.clone(),
            caller: self.caller.clone(),
            span,
            seen: None,
        }
    }

    /// Whom a token belongs to, if it is as good as a password now.
    fn owner(&self, auth: &AuthState, token: &str) -> Result<Caller, AuthError> {
        let now = token::now();
        let token = token::verify(&auth.switch.key, token).ok_or(AuthError::InvalidToken)?;
        auth.user(&token.proof)?;
        if !self.inner.token_uses.is_alive(&token, now) {
            return Err(AuthError::InvalidToken);
        }
        Ok(Caller::User(token.proof))
    }

    /// Refuses whoever is neither root nor a user of whom `or` holds.
    fn root_or(
        &self,
        auth: &AuthState,
        or: impl FnOnce(&str, &User) -> bool,
    ) -> Result<(), AuthError> {
        let rights = auth.rights(&self.caller)?;
        if let Caller::User(proof) = &self.caller
            && let Ok(user) = auth.user(proof)
            && or(&proof.name, user)
        {
            return Ok(());
        }
        rights.root()
    }
}

/// The permissions of a role; those of [`ROOT`] go without saying.
fn permissions(name: &str, role: &RoleKeys) -> Vec<Permission> {
    if name != ROOT {
        return role.role.permissions.clone();
    }
    let everything = Permission {
        kind: PermissionKind::ReadWrite,
        key: Default::default(),
        range_end: [0].to_vec().into(),
    };
    vec![everything]
}

/// Whether a watch may still hear of its keys.
pub(super) struct WatchPermit {
    shared: Arc<super::Shared>,
    caller: Caller,
    span: KeySpan,
    /// The count of changes at which it might.
    seen: Option<u64>,
}

impl WatchPermit {
    /// Refuses a watch that is not permitted (any more).
    pub(super) fn check(&mut self) -> Result<(), KvError> {
        if self.caller == Caller::Trusted {
            return Ok(());
        }
        let changes = self.shared.auth.changes();
        if self.seen != Some(changes) {
            self.shared.auth.state().rights(&self.caller)?.read(&self.span)?;
            self.seen = Some(changes);
        }
        Ok(())
    }
}
