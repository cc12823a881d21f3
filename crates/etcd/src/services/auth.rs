//! Users, roles and the switch of authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onefold_kv::{
    AuthAnswer, AuthChange, AuthError, AuthQuery, Password, Permission, PermissionKind,
};
use prost::Message;
use tonic::{Request, Response, Status, async_trait};

use crate::choice::Choice;
use crate::errors::status;
use crate::gateway::Gateway;
use crate::proto::authpb;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse, ResponseHeader,
};

#[async_trait]
impl Auth for Gateway {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        let header = self.change(request, |_| Ok(AuthChange::Enable)).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let header = self.change(request, |_| Ok(AuthChange::Disable)).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let (answer, header) = self.ask(request, |_| AuthQuery::Status).await?;
        Ok(Response::new(AuthStatusResponse {
            header,
            enabled: answer.is_enabled,
            auth_revision: answer.revision,
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let choice = request.extensions().get::<Choice>().cloned();
        let call = self.admit_stranger(request).await?;
        let AuthenticateRequest { name, password } = call.request;
        let (answer, keyspace) = match choice {
            Some(choice) => choice.authenticate(self, name, password).await?,
            None => (self.authenticate(name, password).await.map_err(status)?, self.clone()),
        };
        let header = keyspace.header(answer.header);
        Ok(Response::new(AuthenticateResponse { header, token: answer.token }))
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let header = self.change(request, user_add).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        let (answer, header) = self.ask(request, |request| AuthQuery::User(request.name)).await?;
        Ok(Response::new(AuthUserGetResponse { header, roles: answer.names }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let (answer, header) = self.ask(request, |_| AuthQuery::Users).await?;
        Ok(Response::new(AuthUserListResponse { header, users: answer.names }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let change =
            |request: AuthUserDeleteRequest| Ok(AuthChange::UserDelete { name: request.name });
        let header = self.change(request, change).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let header = self.change(request, user_change_password).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let change = |request: AuthUserGrantRoleRequest| {
            Ok(AuthChange::UserGrantRole { user: request.user, role: request.role })
        };
        let header = self.change(request, change).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let change = |request: AuthUserRevokeRoleRequest| {
            Ok(AuthChange::UserRevokeRole { user: request.name, role: request.role })
        };
        let header = self.change(request, change).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        let change = |request: AuthRoleAddRequest| Ok(AuthChange::RoleAdd { name: request.name });
        let header = self.change(request, change).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        let (answer, header) = self.ask(request, |request| AuthQuery::Role(request.role)).await?;
        let perm = answer.permissions.into_iter().map(told).collect();
        Ok(Response::new(AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let (answer, header) = self.ask(request, |_| AuthQuery::Roles).await?;
        Ok(Response::new(AuthRoleListResponse { header, roles: answer.names }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let change =
            |request: AuthRoleDeleteRequest| Ok(AuthChange::RoleDelete { name: request.role });
        let header = self.change(request, change).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let header = self.change(request, role_grant_permission).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let change = |request: AuthRoleRevokePermissionRequest| {
            let AuthRoleRevokePermissionRequest { role, key, range_end } = request;
            Ok(AuthChange::RoleRevokePermission { role, key, range_end })
        };
        let header = self.change(request, change).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}

impl Gateway {
    async fn change<T: Message>(
        &self,
        request: Request<T>,
        change: impl FnOnce(T) -> Result<AuthChange, AuthError> + Send,
    ) -> Result<Option<ResponseHeader>, Status> {
        let call = self.admit(request).await?;
        let change = change(call.request).map_err(|error| status(error.into()))?;
        let header = call.kv.auth().change(change).await.map_err(status)?;
        Ok(self.header(header))
    }

    async fn ask<T: Message>(
        &self,
        request: Request<T>,
        query: impl FnOnce(T) -> AuthQuery + Send,
    ) -> Result<(AuthAnswer, Option<ResponseHeader>), Status> {
        let call = self.admit(request).await?;
        let answer = call.kv.auth().ask(query(call.request)).await.map_err(status)?;
        let header = self.header(answer.header);
        Ok((answer, header))
    }
}

fn user_add(request: AuthUserAddRequest) -> Result<AuthChange, AuthError> {
    let has_none = request.options.is_some_and(|options| options.no_password);
    let password = match has_none {
        true => Password::None,
        false if request.hashed_password.is_empty() => Password::Plain(request.password),
        false => hashed(&request.hashed_password)?,
    };
    Ok(AuthChange::UserAdd { name: request.name, password })
}

fn user_change_password(request: AuthUserChangePasswordRequest) -> Result<AuthChange, AuthError> {
    let password = match (request.password.is_empty(), request.hashed_password.is_empty()) {
        (false, _) => Password::Plain(request.password),
        (true, false) => hashed(&request.hashed_password)?,
        (true, true) => Password::None,
    };
    Ok(AuthChange::UserChangePassword { name: request.name, password })
}

/// A hash travels in base64, as in etcd's own log.
fn hashed(encoded: &str) -> Result<Password, AuthError> {
    let hash = STANDARD.decode(encoded).map_err(|_| AuthError::NoPassword)?;
    Ok(Password::Hashed(String::from_utf8(hash).map_err(|_| AuthError::NoPassword)?))
}

fn role_grant_permission(request: AuthRoleGrantPermissionRequest) -> Result<AuthChange, AuthError> {
    let permission = request.perm.ok_or(AuthError::PermissionNotGiven)?;
    let kind = match authpb::permission::Type::try_from(permission.perm_type) {
        Ok(authpb::permission::Type::Read) => PermissionKind::Read,
        Ok(authpb::permission::Type::Write) => PermissionKind::Write,
        Ok(authpb::permission::Type::Readwrite) => PermissionKind::ReadWrite,
        Err(_) => return Err(AuthError::InvalidManagement),
    };
    let authpb::Permission { key, range_end, .. } = permission;
    let permission = Permission { kind, key, range_end };
    Ok(AuthChange::RoleGrantPermission { role: request.name, permission })
}

/// A permission as the API has it.
fn told(permission: Permission) -> authpb::Permission {
    let kind = match permission.kind {
        PermissionKind::Read => authpb::permission::Type::Read,
        PermissionKind::Write => authpb::permission::Type::Write,
        PermissionKind::ReadWrite => authpb::permission::Type::Readwrite,
    };
    let Permission { key, range_end, .. } = permission;
    authpb::Permission { perm_type: kind.into(), key, range_end }
}
