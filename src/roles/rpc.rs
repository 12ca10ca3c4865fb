//! RoleService over gRPC.

use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{
    assign::{self, Assignment},
    guard::{self, AdminGuard},
    store::{self, AssignmentFilter, AssignmentRow, NewRole, RoleRow},
};
use crate::{
    audit::{self, Event},
    clock::{self, timestamp},
    db::{Db, TenantTx},
    error::{Error, Result},
    gate::{self, Caller, Reach},
    idempotency::{self, Key},
    ids::{RoleId, TenantId, UserId},
    listing::{self, Filter},
    permissions::scope,
    proto::v1::{
        AssignRoleRequest, AssignRoleResponse, CreateRoleRequest, CreateRoleResponse,
        DeleteRoleRequest, DeleteRoleResponse, ErrorReason, GetRoleRequest, GetRoleResponse,
        ListRoleAssignmentsRequest, ListRoleAssignmentsResponse, ListRolesRequest,
        ListRolesResponse, Role, RoleAssignment, RoleLevel, UnassignRoleRequest,
        UnassignRoleResponse, UpdateRoleRequest, UpdateRoleResponse,
        role_service_server::RoleService,
    },
    updates::{Mask, check_etag, etag},
};

/// Manages roles over gRPC.
pub struct Roles {
    /// Postgres.
    pub db: Db,
}

#[tonic::async_trait]
impl RoleService for Roles {
    async fn create_role(
        &self,
        request: Request<CreateRoleRequest>,
    ) -> Result<Response<CreateRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&caller, message).await?))
    }

    async fn get_role(
        &self,
        request: Request<GetRoleRequest>,
    ) -> Result<Response<GetRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let role = RoleId::parse("role_id", &request.into_inner().role_id)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let row = store::get(&mut tx, caller.tenant(), role).await?;
        Ok(Response::new(GetRoleResponse { role: Some(row.into()) }))
    }

    async fn list_roles(
        &self,
        request: Request<ListRolesRequest>,
    ) -> Result<Response<ListRolesResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let filter = Filter::parse(&message.filter, &["name", "level"])?;
        let level = filter.choice("level", "ROLE_LEVEL_", RoleLevel::from_str_name)?;
        let bound = ("roles", caller.tenant(), &message.filter);
        let page = listing::page(message.page_size, &message.page_token, &bound)?;
        let name = filter.like("name");
        let mut tx = self.db.begin(caller.tenant()).await?;
        let level = level.map(|level| level as i16);
        let rows = store::list(&mut tx, caller.tenant(), level, name.as_deref(), &page).await?;
        let (rows, next_page_token) = page.cut(rows, |row| row.role_id);
        let roles = rows.into_iter().map(Role::from).collect();
        Ok(Response::new(ListRolesResponse { roles, next_page_token }))
    }

    async fn update_role(
        &self,
        request: Request<UpdateRoleRequest>,
    ) -> Result<Response<UpdateRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let row = self.update(&caller, request.into_inner()).await?;
        Ok(Response::new(UpdateRoleResponse { role: Some(row.into()) }))
    }

    async fn delete_role(
        &self,
        request: Request<DeleteRoleRequest>,
    ) -> Result<Response<DeleteRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let role = RoleId::parse("role_id", &message.role_id)?;
        let tenant = caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let row = store::lock(&mut tx, tenant, role).await?;
        guard::may_change(caller.standing()?, &row)?;
        check_etag(&message.etag, row.version)?;
        store::delete(&mut tx, tenant, role).await?;
        finish(tx, &caller, Event::new("role_deleted").target(role.0)).await?;
        Ok(Response::new(DeleteRoleResponse {}))
    }

    async fn assign_role(
        &self,
        request: Request<AssignRoleRequest>,
    ) -> Result<Response<AssignRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.assign(&caller, message).await?))
    }

    async fn unassign_role(
        &self,
        request: Request<UnassignRoleRequest>,
    ) -> Result<Response<UnassignRoleResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let user = UserId::parse("user_id", &message.user_id)?;
        let role = RoleId::parse("role_id", &message.role_id)?;
        let scope = scope::assigned(message.scope.as_ref())?;
        let (tenant, standing) = (caller.tenant(), caller.standing()?);
        let mut tx = self.db.begin(tenant).await?;
        assign::unassign(&mut tx, tenant, standing, user, role, scope.as_ref()).await?;
        let event = Event::new("role_unassigned").target(user.0);
        finish(tx, &caller, event.detail("role_id", role.to_string())).await?;
        Ok(Response::new(UnassignRoleResponse {}))
    }

    async fn list_role_assignments(
        &self,
        request: Request<ListRoleAssignmentsRequest>,
    ) -> Result<Response<ListRoleAssignmentsResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let named = UserId::parse_optional("user_id", &message.user_id)?;
        let (caller, user) = match reaching.within() {
            (caller, Reach::Tenant) => (caller, named),
            (_, Reach::Own(own)) => reaching
                .acting_for(named.or(Some(own)))
                .map(|(caller, user)| (caller, Some(user)))?,
        };
        let filter = Filter::parse(&message.filter, &["role_name"])?;
        let filter = AssignmentFilter {
            user,
            role: RoleId::parse_optional("role_id", &message.role_id)?,
            role_name_like: filter.like("role_name"),
        };
        let bound = ("assignments", caller.tenant(), user, filter.role, &message.filter);
        let page = listing::page(message.page_size, &message.page_token, &bound)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let rows = store::list_assignments(&mut tx, caller.tenant(), &filter, &page).await?;
        let (rows, next_page_token) = page.cut(rows, |row| row.assignment_id);
        let role_assignments = rows.into_iter().map(RoleAssignment::from).collect();
        Ok(Response::new(ListRoleAssignmentsResponse { role_assignments, next_page_token }))
    }
}

impl Roles {
    async fn create(
        &self,
        caller: &Caller,
        message: CreateRoleRequest,
    ) -> Result<CreateRoleResponse> {
        let (tenant, standing) = (caller.tenant(), caller.standing()?);
        let key = Key {
            tenant,
            actor: Some(caller.user()),
            method: "CreateRole",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let level = level(message.level())?;
        let permissions = sorted(message.permissions.clone());
        guard::may_grant(standing, level, &permissions)?;
        if message.system && !standing.is_platform_admin() {
            return Err(Error::refused(
                ErrorReason::SystemRole,
                "system roles are made by the platform's staff alone",
            ));
        }
        let mut tx = self.db.begin(tenant).await?;
        if let Some(first) = idempotency::recall(&mut tx, &key).await? {
            return Ok(first);
        }
        let new = NewRole {
            id: RoleId::new(),
            name: &message.name,
            level,
            permissions: &permissions,
            system: message.system,
        };
        refuse_platform_level(caller, level)?;
        let row = store::insert(&mut tx, tenant, &new).await?;
        let response = CreateRoleResponse { role: Some(row.into()) };
        idempotency::remember(&mut tx, &key, &response).await?;
        finish(tx, caller, Event::new("role_created").target(new.id.0)).await?;
        Ok(response)
    }

    async fn update(&self, caller: &Caller, message: UpdateRoleRequest) -> Result<RoleRow> {
        let (tenant, standing) = (caller.tenant(), caller.standing()?);
        let role = RoleId::parse("role_id", &message.role_id)?;
        let fields = ["name", "level", "permissions"];
        let mask = Mask::read(message.update_mask.as_ref(), &fields)?;
        let new_level = message.level.is_some().then(|| message.level());
        let new_level = mask.take("level", new_level)?.map(level).transpose()?;
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::watch(&mut tx, tenant).await?;
        let mut row = store::lock(&mut tx, tenant, role).await?;
        check_etag(&message.etag, row.version)?;
        guard::may_change(standing, &row)?;
        if let Some(name) = mask.take("name", message.name)? {
            row.name = name;
        }
        row.level = new_level.unwrap_or(row.level);
        if let Some(permissions) = mask.take_list("permissions", message.permissions) {
            row.permissions = sorted(permissions);
        }
        // The role as it will be must be one that the caller could have made,
        // or a change of its level would hand on what it already permits.
        guard::may_grant(standing, row.level, &row.permissions)?;
        refuse_platform_level(caller, row.level)?;
        let row = store::update(&mut tx, &row).await?;
        admins.check(&mut tx).await?;
        finish(tx, caller, Event::new("role_updated").target(role.0)).await?;
        Ok(row)
    }

    async fn assign(
        &self,
        caller: &Caller,
        message: AssignRoleRequest,
    ) -> Result<AssignRoleResponse> {
        let tenant = caller.tenant();
        let key = Key {
            tenant,
            actor: Some(caller.user()),
            method: "AssignRole",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let wanted = Assignment {
            user: UserId::parse("user_id", &message.user_id)?,
            role: RoleId::parse("role_id", &message.role_id)?,
            scope: scope::assigned(message.scope.as_ref())?,
            expires_at: message.expire_time.as_ref().map(in_the_future).transpose()?,
        };
        let (user, role) = (wanted.user, wanted.role);
        let mut tx = self.db.begin(tenant).await?;
        if let Some(first) = idempotency::recall(&mut tx, &key).await? {
            return Ok(first);
        }
        let row = assign::assign(&mut tx, tenant, caller.standing()?, wanted).await?;
        let response = AssignRoleResponse { role_assignment: Some(row.into()) };
        idempotency::remember(&mut tx, &key, &response).await?;
        let event = Event::new("role_assigned").target(user.0);
        finish(tx, caller, event.detail("role_id", role.to_string())).await?;
        Ok(response)
    }
}

async fn finish(mut tx: TenantTx, caller: &Caller, event: Event) -> Result<()> {
    let tenant: TenantId = caller.tenant();
    audit::record(&mut tx, tenant, &caller.actor(), event).await?;
    tx.commit().await
}

fn level(level: RoleLevel) -> Result<i16> {
    match level {
        RoleLevel::Unspecified => Err(Error::field("level", "must be set")),
        level => Ok(level as i16),
    }
}

/// The platform's level exists in the platform tenant alone, even for its own
/// staff at work elsewhere.
fn refuse_platform_level(caller: &Caller, level: i16) -> Result<()> {
    let in_platform = caller.is_platform() && caller.tenant() == caller.home();
    if level >= RoleLevel::PlatformAdmin as i16 && !in_platform {
        return Err(Error::field("level", "ROLE_LEVEL_PLATFORM_ADMIN is the platform tenant's"));
    }
    Ok(())
}

fn sorted(mut permissions: Vec<String>) -> Vec<String> {
    permissions.sort_unstable();
    permissions.dedup();
    permissions
}

fn in_the_future(at: &Timestamp) -> Result<OffsetDateTime> {
    clock::from_timestamp(at)
        .filter(|at| *at > clock::now())
        .ok_or_else(|| Error::field("expire_time", "must be a time in the future"))
}

impl From<RoleRow> for Role {
    fn from(row: RoleRow) -> Self {
        Self {
            id: row.role_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            name: row.name,
            level: row.level.into(),
            permissions: row.permissions,
            system: row.is_system,
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}

impl From<AssignmentRow> for RoleAssignment {
    fn from(row: AssignmentRow) -> Self {
        let scope = row.scope.as_ref().and_then(|scope| scope.as_object());
        Self {
            id: row.assignment_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            user_id: row.user_id.to_string(),
            role_id: row.role_id.to_string(),
            role_name: row.role_name,
            scope: scope.map(scope::to_struct),
            expire_time: row.expires_at.map(timestamp),
            create_time: Some(timestamp(row.created_at)),
        }
    }
}
