//! Writes: users, roles, assignments and tenants.

use std::sync::atomic::Ordering;

use tenantry::proto::v1::{
    AssignRoleRequest, AssignRoleResponse, CreateUserRequest, CreateUserResponse,
    DisableUserRequest, DisableUserResponse, EnableUserRequest, EnableUserResponse,
    ReactivateTenantRequest, ReactivateTenantResponse, RegisterRequest, RegisterResponse,
    SuspendTenantRequest, SuspendTenantResponse, UnassignRoleRequest, UnassignRoleResponse,
    UpdateRoleRequest, UpdateRoleResponse, create_user_request::Credential,
};

use super::{
    call::{Call, Client},
    world::{GRANTED_PERMISSIONS, PASSWORD, PERMISSIONS, User, WriteToken},
};
use crate::history::{Condition, Effect, ExpectedEvent, Fact, Freshness, Op};

impl Client {
    /// Stores the consistency token of a write in the world, for later calls.
    fn keep_token(&self, op: &Op, tenant: usize, user: Option<usize>, token: Option<String>) {
        if let Some(token) = token {
            self.world.add_token(WriteToken { op: op.id, tenant, user, token });
        }
    }

    /// Assigns or unassigns a role.
    pub async fn change_assignment(&mut self, user: &User, role: usize, assign: bool) {
        let fact = Fact::Assigned { user: user.number, role };
        let arguments = format!("user {}, role {role}", user.number);
        let role_id = self.world.roles[role].id.clone();
        let user_id = user.id.clone();
        let (mut op, token) = if assign {
            let message = AssignRoleRequest { user_id, role_id, ..Default::default() };
            let path = "/tenantry.v1.RoleService/AssignRole";
            let (op, response) = self.send_as_admin(path, user.tenant, arguments, message).await;
            (op, response.map(|response: AssignRoleResponse| response.consistency_token))
        } else {
            let message = UnassignRoleRequest { user_id, role_id, ..Default::default() };
            let path = "/tenantry.v1.RoleService/UnassignRole";
            let (op, response) = self.send_as_admin(path, user.tenant, arguments, message).await;
            (op, response.map(|response: UnassignRoleResponse| response.consistency_token))
        };
        op.effects.push(Effect::Set(fact, assign));
        op.event =
            Some(ExpectedEvent::always(if assign { "role_assigned" } else { "role_unassigned" }));
        // With this refusal, the assignment had the wanted state already.
        let reason = if assign { "ROLE_ALREADY_ASSIGNED" } else { "NOT_FOUND" };
        if op.is_refused_with(reason) {
            op.add_evidence(Condition::Is(fact, assign), Freshness::Current);
        }
        self.keep_token(&op, user.tenant, Some(user.number), token);
        self.record(op);
    }

    /// Replaces the permissions of a role by a random set. `replica` is the number of the replica
    /// to call; `None` means any. Returns whether the call succeeded.
    pub async fn update_role(&mut self, role: usize, replica: Option<usize>) -> bool {
        let permission_bits = self.rng.u8(..1 << GRANTED_PERMISSIONS);
        let is_granted = |permission: usize| permission_bits >> permission & 1 == 1;
        let world = self.world.clone();
        let tenant = world.roles[role].tenant;
        let chosen = (0..GRANTED_PERMISSIONS).filter(|permission| is_granted(*permission));
        let permissions: Vec<_> = chosen.map(|index| PERMISSIONS[index].to_owned()).collect();
        let arguments = format!("role {role}, permissions {permissions:?}");
        let message = UpdateRoleRequest {
            role_id: world.roles[role].id.clone(),
            permissions,
            update_mask: Some(mask("permissions")),
            ..Default::default()
        };
        let path = "/tenantry.v1.RoleService/UpdateRole";
        let token = &world.tenants[tenant].admin_token;
        let call = Call { path, token, tenant: Some(tenant), arguments, replica };
        let (mut op, response) = self.send::<_, UpdateRoleResponse>(call, message).await;
        super::call::admitted(&mut op, &[Condition::Is(Fact::TenantActive(tenant), true)]);
        op.effects = (0..GRANTED_PERMISSIONS)
            .map(|permission| {
                Effect::Set(Fact::Grants { role, permission }, is_granted(permission))
            })
            .collect();
        op.event = Some(ExpectedEvent::always("role_updated"));
        let is_ok = op.is_ok();
        let token = response.map(|response| response.consistency_token);
        self.keep_token(&op, tenant, None, token);
        self.record(op);
        is_ok
    }

    /// Disables or enables a user.
    pub async fn change_user_state(&mut self, user: &User, enable: bool) {
        let fact = Fact::UserEnabled(user.number);
        let arguments = format!("user {}", user.number);
        let user_id = user.id.clone();
        let (mut op, token) = if enable {
            let path = "/tenantry.v1.UserService/EnableUser";
            let message = EnableUserRequest { user_id };
            let (op, response) = self.send_as_admin(path, user.tenant, arguments, message).await;
            (op, response.map(|response: EnableUserResponse| response.consistency_token))
        } else {
            let path = "/tenantry.v1.UserService/DisableUser";
            let message = DisableUserRequest { user_id };
            let (op, response) = self.send_as_admin(path, user.tenant, arguments, message).await;
            (op, response.map(|response: DisableUserResponse| response.consistency_token))
        };
        op.effects.push(Effect::Set(fact, enable));
        if !enable {
            op.effects.push(Effect::EndSessions { user: user.number });
        }
        let kind = if enable { "user_enabled" } else { "user_disabled" };
        op.event = Some(ExpectedEvent::if_changed(kind, fact, enable));
        self.keep_token(&op, user.tenant, Some(user.number), token);
        self.record(op);
    }

    /// Suspends or reactivates a tenant, as the platform's administrator.
    pub async fn change_tenant_state(&mut self, tenant: usize, activate: bool) {
        let world = self.world.clone();
        let fact = Fact::TenantActive(tenant);
        let arguments = format!("tenant {tenant}");
        let tenant_id = world.tenants[tenant].id.clone();
        let path = if activate {
            "/tenantry.v1.TenantService/ReactivateTenant"
        } else {
            "/tenantry.v1.TenantService/SuspendTenant"
        };
        let token = &world.platform_token;
        let call = Call { path, token, tenant: Some(tenant), arguments, replica: None };
        let (mut op, token) = if activate {
            let message = ReactivateTenantRequest { tenant: tenant_id };
            let (op, response) = self.send(call, message).await;
            (op, response.map(|response: ReactivateTenantResponse| response.consistency_token))
        } else {
            let message = SuspendTenantRequest { tenant: tenant_id };
            let (op, response) = self.send(call, message).await;
            (op, response.map(|response: SuspendTenantResponse| response.consistency_token))
        };
        op.effects.push(Effect::Set(fact, activate));
        let kind = if activate { "tenant_reactivated" } else { "tenant_suspended" };
        op.event = Some(ExpectedEvent::if_changed(kind, fact, activate));
        if op.is_ok() || op.is_unknown() {
            world.tenants[tenant].is_suspended.store(!activate, Ordering::Relaxed);
        }
        self.keep_token(&op, tenant, None, token);
        self.record(op);
    }

    /// Creates a user as an administrator, or lets the user register. Returns whether the call
    /// succeeded.
    pub async fn create_user(&mut self, tenant: usize, register: bool) -> bool {
        let world = self.world.clone();
        let slug = &world.tenants[tenant].slug;
        let email = world.new_email(slug);
        let arguments = format!("tenant {tenant}, {email}");
        let (mut op, created) = if register {
            let message = RegisterRequest {
                email: email.clone(),
                password: PASSWORD.to_owned(),
                organization_slug: slug.clone(),
                ..Default::default()
            };
            let path = "/tenantry.v1.AuthService/Register";
            let call = Call { path, token: "", tenant: Some(tenant), arguments, replica: None };
            let (op, response) = self.send::<_, RegisterResponse>(call, message).await;
            (op, response.map(|response| (response.user, response.consistency_token)))
        } else {
            let message = CreateUserRequest {
                email: email.clone(),
                credential: Some(Credential::Password(PASSWORD.to_owned())),
                ..Default::default()
            };
            let path = "/tenantry.v1.UserService/CreateUser";
            let (op, response) =
                self.send_as_admin::<_, CreateUserResponse>(path, tenant, arguments, message).await;
            (op, response.map(|response| (response.user, response.consistency_token)))
        };
        op.event =
            Some(ExpectedEvent::always(if register { "user_registered" } else { "user_created" }));
        let is_created = created.is_some();
        if let Some((user, token)) = created {
            let user = user.unwrap_or_default();
            let number = world.add_user(tenant, user.id, email);
            op.arguments = format!("{}, user {number}", op.arguments);
            op.effects.push(Effect::Set(Fact::UserEnabled(number), true));
            self.keep_token(&op, tenant, Some(number), Some(token));
        }
        self.record(op);
        is_created
    }
}

/// A field mask with one field.
pub fn mask(field: &str) -> prost_types::FieldMask {
    prost_types::FieldMask { paths: vec![field.to_owned()] }
}
