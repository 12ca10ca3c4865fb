//! Reads the state after the workload has ended, from Postgres.

use std::collections::BTreeMap;

use anyhow::Context;
use tenantry::proto::v1::{
    AuditEvent, GetRoleRequest, GetRoleResponse, GetSessionRequest, GetSessionResponse,
    GetTenantRequest, GetTenantResponse, GetUserRequest, GetUserResponse,
    ListRoleAssignmentsRequest, ListRoleAssignmentsResponse, SessionState, TenantState, UserState,
};

use super::{
    call::{Call, Client},
    world::{GRANTED_PERMISSIONS, PERMISSIONS, Session, User},
};
use crate::history::{Condition, Fact, Freshness, Op};

/// Number of times that a call is tried.
const TRIES: usize = 5;

/// Reads the state of all tenants, users, roles, assignments and known sessions into the history.
/// Returns the audit events of each tenant.
///
/// # Errors
/// Returns an error when a call fails although no fault is injected any more.
pub async fn read_final_state(
    client: &mut Client,
) -> anyhow::Result<BTreeMap<usize, Vec<AuditEvent>>> {
    let world = client.world.clone();
    let mut trails = BTreeMap::new();
    for tenant in 0..world.tenants.len() {
        client.read_tenant(tenant).await?;
        // Nobody can read the data of a suspended tenant, so the tenant is reactivated.
        if tenant != world.probe_tenant() {
            client.change_tenant_state(tenant, true).await;
        }
        for user in world.users_of(tenant) {
            client.read_user(&user).await?;
            client.read_assignments(&user).await?;
        }
        for role in &world.tenants[tenant].roles {
            client.read_role(*role).await?;
        }
    }
    for session in world.sessions() {
        client.read_session(&session).await?;
    }
    for tenant in 0..world.tenants.len() {
        let events = client.all_sealed_events(tenant).await?;
        trails.insert(tenant, events);
    }
    Ok(trails)
}

impl Client {
    async fn read_tenant(&mut self, tenant: usize) -> anyhow::Result<()> {
        let world = self.world.clone();
        let mut op_and_response = None;
        for _ in 0..TRIES {
            let call = Call {
                path: "/tenantry.v1.TenantService/GetTenant",
                token: &world.platform_token,
                tenant: None,
                arguments: format!("tenant {tenant}"),
                replica: None,
            };
            let message = GetTenantRequest { tenant: world.tenants[tenant].id.clone() };
            let (op, response) = self.send::<_, GetTenantResponse>(call, message).await;
            let is_read = response.is_some();
            op_and_response = Some((op, response));
            if is_read {
                break;
            }
        }
        let (mut op, response) = op_and_response.context("no try")?;
        let response = response.with_context(|| op.to_string())?;
        let is_active = response.tenant.unwrap_or_default().state() == TenantState::Active;
        add_read_evidence(&mut op, Fact::TenantActive(tenant), is_active);
        self.record(op);
        Ok(())
    }

    async fn read_user(&mut self, user: &User) -> anyhow::Result<()> {
        let path = "/tenantry.v1.UserService/GetUser";
        let message = GetUserRequest { user_id: user.id.clone() };
        let arguments = format!("user {}", user.number);
        let (mut op, response) =
            self.read_as_admin::<_, GetUserResponse>(path, user.tenant, arguments, message).await?;
        let is_active = response.user.unwrap_or_default().state() == UserState::Active;
        add_read_evidence(&mut op, Fact::UserEnabled(user.number), is_active);
        self.record(op);
        Ok(())
    }

    async fn read_assignments(&mut self, user: &User) -> anyhow::Result<()> {
        let path = "/tenantry.v1.RoleService/ListRoleAssignments";
        let message = ListRoleAssignmentsRequest { user_id: user.id.clone(), ..Default::default() };
        let arguments = format!("user {}", user.number);
        let (mut op, response) = self
            .read_as_admin::<_, ListRoleAssignmentsResponse>(path, user.tenant, arguments, message)
            .await?;
        let world = self.world.clone();
        for role in &world.tenants[user.tenant].roles {
            let id = &world.roles[*role].id;
            let is_assigned = response.role_assignments.iter().any(|row| row.role_id == *id);
            add_read_evidence(
                &mut op,
                Fact::Assigned { user: user.number, role: *role },
                is_assigned,
            );
        }
        self.record(op);
        Ok(())
    }

    async fn read_role(&mut self, role: usize) -> anyhow::Result<()> {
        let path = "/tenantry.v1.RoleService/GetRole";
        let world = self.world.clone();
        let message = GetRoleRequest { role_id: world.roles[role].id.clone() };
        let (tenant, arguments) = (world.roles[role].tenant, format!("role {role}"));
        let (mut op, response) =
            self.read_as_admin::<_, GetRoleResponse>(path, tenant, arguments, message).await?;
        let permissions = response.role.unwrap_or_default().permissions;
        for (permission, name) in PERMISSIONS[..GRANTED_PERMISSIONS].iter().enumerate() {
            let is_granted = permissions.iter().any(|granted| granted == name);
            add_read_evidence(&mut op, Fact::Grants { role, permission }, is_granted);
        }
        self.record(op);
        Ok(())
    }

    async fn read_session(&mut self, session: &Session) -> anyhow::Result<()> {
        let path = "/tenantry.v1.SessionService/GetSession";
        let message = GetSessionRequest { session_id: session.id.clone() };
        let arguments = format!("session {}", session.number);
        let tenant = session.user.tenant;
        let (mut op, response) =
            self.read_as_admin::<_, GetSessionResponse>(path, tenant, arguments, message).await?;
        let is_live = response.session.unwrap_or_default().state() == SessionState::Live;
        add_read_evidence(&mut op, Fact::SessionLive(session.number), is_live);
        self.record(op);
        Ok(())
    }

    /// Waits until all audit events of a tenant have a position, and returns them.
    async fn all_sealed_events(&mut self, tenant: usize) -> anyhow::Result<Vec<AuditEvent>> {
        for _ in 0..50 {
            if let Some(events) = self.all_events(tenant).await
                && events.iter().all(|event| event.position > 0)
            {
                return Ok(events);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        anyhow::bail!("some events of tenant {tenant} have got no position")
    }

    /// Sends a read until it succeeds. If the object is not found, returns an empty response, from
    /// which the checks see that the object is lost.
    async fn read_as_admin<Req, Resp>(
        &mut self,
        path: &'static str,
        tenant: usize,
        arguments: String,
        message: Req,
    ) -> anyhow::Result<(Op, Resp)>
    where
        Req: prost::Message + Clone + Send + Sync + 'static,
        Resp: prost::Message + Default + Send + Sync + 'static,
    {
        let mut failure = None;
        for _ in 0..TRIES {
            let (op, response) = self
                .send_as_admin::<Req, Resp>(path, tenant, arguments.clone(), message.clone())
                .await;
            match response {
                Some(response) => return Ok((op, response)),
                None if op.is_refused_with("NOT_FOUND") => return Ok((op, Resp::default())),
                None => failure = Some(op),
            }
        }
        let op = failure.context("no try")?;
        anyhow::bail!("the final state can't be read: {op}")
    }
}

/// Adds the evidence that a fact has this value now.
fn add_read_evidence(op: &mut Op, fact: Fact, value: bool) {
    op.add_evidence(Condition::Is(fact, value), Freshness::Current);
}
