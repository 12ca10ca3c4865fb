//! Creates the tenants, users and roles of a run.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::{Context, ensure};
use fastrand::Rng;
use tenantry::proto::v1::{
    CreateRoleRequest, CreateRoleResponse, LoginRequest, LoginResponse, RegisterRequest,
    RegisterResponse, RoleLevel, Tenant as TenantMessage, UpdateTenantRequest,
    UpdateTenantResponse, WhoAmIRequest, WhoAmIResponse,
};

use super::{
    call::{Call, Client, Kind},
    world::{GRANTED_PERMISSIONS, PASSWORD, PERMISSIONS, Role, Tenant, World},
};
use crate::history::{Effect, Fact, Op, OpId};

/// Users of each tenant at the start.
const USERS: usize = 5;

/// Id of the first call of the setup. It is so high that the ids of other calls never reach it.
const FIRST_SETUP_ID: OpId = 1 << 40;

/// Roles of each tenant.
const ROLES: usize = 3;

/// The credentials of the platform's administrator.
pub struct PlatformAdmin {
    pub email: String,
    pub password: String,
}

/// Creates `tenants` tenants, and one more that no operation suspends.
///
/// # Errors
/// Returns an error when a call fails. No fault has been injected yet.
pub async fn create(
    mut world: World,
    platform: &PlatformAdmin,
    tenants: usize,
    rng: &mut Rng,
) -> anyhow::Result<Arc<World>> {
    // A client needs a shared world, which cannot be changed. So the client of the setup uses a
    // separate world without tenants, while the tenants and roles are added to `world`. The users
    // are created at the end, by a client of the complete world.
    let setup_world = Arc::new(World::new(world.replicas.clone(), FIRST_SETUP_ID));
    let mut client = Client::new(setup_world, rng.fork(), Kind::Writer)?;
    world.platform_token =
        sign_in(&mut client, "platform", &platform.email, &platform.password).await?;
    for number in 0..=tenants {
        world.tenants.push(create_tenant(&mut client, number).await?);
    }
    for tenant in 0..=tenants {
        for number in 0..ROLES {
            let name = format!("role-{tenant}-{number}");
            let id = create_role(&mut client, &world.tenants[tenant], &name).await?;
            let role_number = world.roles.len();
            world.roles.push(Role { tenant, id, name });
            world.tenants[tenant].roles.push(role_number);
        }
    }
    let world = Arc::new(world);
    for op in initial_state_ops(&world, &mut client).await? {
        world.history.push(op);
    }
    let mut client = Client::new(world.clone(), rng.fork(), Kind::Writer)?;
    for tenant in 0..=tenants {
        for _ in 0..USERS {
            ensure!(client.create_user(tenant, false).await, "no user was created");
        }
    }
    Ok(world)
}

async fn create_tenant(client: &mut Client, number: usize) -> anyhow::Result<Tenant> {
    let (slug, email) = (format!("tenant-{number}"), format!("admin@tenant-{number}.test"));
    let message = RegisterRequest {
        email: email.clone(),
        password: PASSWORD.to_owned(),
        organization_name: format!("Tenant {number}"),
        organization_slug: slug.clone(),
        ..Default::default()
    };
    let registered: RegisterResponse =
        call_or_fail(client, "/tenantry.v1.AuthService/Register", "", message).await?;
    let admin_token = sign_in(client, &slug, &email, PASSWORD).await?;
    let tenant = registered.tenant.context("no tenant")?;
    allow_registration(client, &admin_token).await?;
    Ok(Tenant {
        id: tenant.id,
        slug,
        admin_token,
        roles: Vec::new(),
        is_suspended: AtomicBool::new(false),
    })
}

/// Lets users register themselves in the tenant.
async fn allow_registration(client: &mut Client, token: &str) -> anyhow::Result<TenantMessage> {
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) };
    let fields = [("self_registration".to_owned(), value)].into();
    let message = UpdateTenantRequest {
        settings: Some(prost_types::Struct { fields }),
        ..Default::default()
    };
    let path = "/tenantry.v1.TenantService/UpdateTenant";
    let updated: UpdateTenantResponse = call_or_fail(client, path, token, message).await?;
    updated.tenant.context("no tenant")
}

async fn create_role(client: &mut Client, tenant: &Tenant, name: &str) -> anyhow::Result<String> {
    let message = CreateRoleRequest {
        name: name.to_owned(),
        level: RoleLevel::Member.into(),
        permissions: PERMISSIONS[..GRANTED_PERMISSIONS].iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    let path = "/tenantry.v1.RoleService/CreateRole";
    let created: CreateRoleResponse =
        call_or_fail(client, path, &tenant.admin_token, message).await?;
    Ok(created.role.context("no role")?.id)
}

/// Signs in, and returns the access token.
async fn sign_in(
    client: &mut Client,
    slug: &str,
    email: &str,
    password: &str,
) -> anyhow::Result<String> {
    let message = LoginRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        organization_slug: slug.to_owned(),
        ..Default::default()
    };
    let tokens: LoginResponse =
        call_or_fail(client, "/tenantry.v1.AuthService/Login", "", message).await?;
    Ok(tokens.access_token)
}

/// For each tenant, an operation whose effects are the facts that the setup established.
async fn initial_state_ops(world: &World, client: &mut Client) -> anyhow::Result<Vec<Op>> {
    let mut ops = Vec::new();
    for (number, tenant) in world.tenants.iter().enumerate() {
        let path = "/tenantry.v1.AuthService/WhoAmI";
        let arguments = format!("setup of tenant {number}");
        let token = &tenant.admin_token;
        let call = Call { path, token, tenant: Some(number), arguments, replica: None };
        let message = WhoAmIRequest {};
        let (mut op, _) = client.send::<_, WhoAmIResponse>(call, message).await;
        ensure!(op.is_ok(), "{op}");
        // The call had an id of the setup, so the operation gets an id and the time of this world.
        op.id = world.history.next_id();
        (op.start, op.end) = (world.history.now(), world.history.now());
        op.effects.push(Effect::Set(Fact::TenantActive(number), true));
        for role in &tenant.roles {
            for permission in 0..GRANTED_PERMISSIONS {
                op.effects.push(Effect::Set(Fact::Grants { role: *role, permission }, true));
            }
        }
        ops.push(op);
    }
    Ok(ops)
}

/// Sends a call, and returns an error if it does not succeed.
async fn call_or_fail<Req, Resp>(
    client: &mut Client,
    path: &'static str,
    token: &str,
    message: Req,
) -> anyhow::Result<Resp>
where
    Req: prost::Message + Send + Sync + 'static,
    Resp: prost::Message + Default + Send + Sync + 'static,
{
    let arguments = String::new();
    let call = Call { path, token, tenant: None, arguments, replica: None };
    let (op, response) = client.send::<Req, Resp>(call, message).await;
    response.with_context(|| op.to_string())
}
