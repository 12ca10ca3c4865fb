//! Random changes. After each change, the test compares all responses with the model: immediately
//! on the replica that made the change, and with full consistency on the other replica.

use serde_json::Value;
use tenantry::{
    clock,
    proto::{
        json,
        v1::{
            AssignRoleRequest, BatchCheckItem, BatchCheckRequest, CheckRequest, Consistency,
            CreateRoleRequest, DeleteRoleRequest, DeleteUserRequest, DisableUserRequest,
            EnableUserRequest, ListPermissionsRequest, ListSubjectsRequest,
            ReactivateTenantRequest, RoleLevel, SuspendTenantRequest, UnassignRoleRequest,
            UpdateRoleRequest, WhoAmIRequest,
        },
    },
};
use tonic::Code;

use super::{
    model::{Assignment, Model, Scope, normal_form},
    random::{Rng, request_scope},
};
use crate::harness::{Client, TestApp, struct_of, wait_until};

/// Number of tenants.
const TENANTS: usize = 2;
/// Number of replicas.
const REPLICAS: usize = 2;
/// Number of changes for each seed.
const CHANGES: usize = 70;

/// Two replicas, two tenants, and the expected state of each tenant.
struct World {
    app: TestApp,
    second_replica: TestApp,
    platform_admin: Client,
    rng: Rng,
    admins: Vec<Client>,
    models: Vec<Model>,
    /// At most one signed-in user of each tenant.
    members: Vec<Option<Client>>,
    /// Number of generated names of users and roles. Makes each name unique.
    name_count: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let app = TestApp::spawn().await;
        let second_replica = TestApp::on_database(&app.database, |_| {}).await;
        let platform_admin = app.platform_admin().await;
        let rng = Rng(seed);
        let (admins, models, members) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self {
            app,
            second_replica,
            platform_admin,
            rng,
            admins,
            models,
            members,
            name_count: 0,
        };
        for tenant in 0..TENANTS {
            let admin = world.app.create_tenant(&format!("tenant-{tenant}")).await;
            let mut model = Model::default();
            let role = admin.system_role("org_admin").await;
            model.users.insert(admin.user_id.clone(), false);
            model.roles.insert(role.clone(), ("org_admin".into(), vec!["*:*".into()]));
            let user = admin.user_id.clone();
            let scope = Scope::new();
            model.assignments.push(Assignment {
                user,
                role,
                scope,
                has_expiry: false,
                is_expired: false,
            });
            world.admins.push(admin);
            world.models.push(model);
            world.members.push(None);
            for _ in 0..3 {
                world.create_user(tenant, 0).await;
                world.create_role(tenant, 0).await;
            }
        }
        world
    }

    /// A client of the tenant's administrator on a replica. While the tenant is suspended, a client
    /// of the platform's administrator.
    fn admin_client(&self, tenant: usize, replica: usize) -> Client {
        let admin = &self.admins[tenant];
        let client = if self.models[tenant].suspended {
            self.platform_admin.with_metadata("x-tenant-id", &admin.tenant_id)
        } else {
            admin.clone()
        };
        client.on_server(if replica == 0 {
            &self.app.channel
        } else {
            &self.second_replica.channel
        })
    }

    /// A random user of a tenant. Never the administrator, who makes all calls.
    fn random_user(&mut self, tenant: usize) -> String {
        let admin = &self.admins[tenant].user_id;
        let users: Vec<_> =
            self.models[tenant].users.keys().filter(|user| *user != admin).cloned().collect();
        self.rng.pick(&users)
    }

    /// A random role of a tenant, except `org_admin`.
    fn random_role(&mut self, tenant: usize) -> String {
        let all_roles = &self.models[tenant].roles;
        let other_roles = all_roles.iter().filter(|(_, (name, _))| name != "org_admin");
        let roles: Vec<_> = other_roles.map(|(id, _)| id.clone()).collect();
        self.rng.pick(&roles)
    }

    fn random_permissions(&mut self) -> Vec<String> {
        let mut random_permissions: Vec<_> =
            (0..=self.rng.below(3)).map(|_| self.rng.permission(4)).collect();
        random_permissions.sort_unstable();
        random_permissions.dedup();
        random_permissions
    }

    async fn create_user(&mut self, tenant: usize, replica: usize) {
        self.name_count += 1;
        let email = format!("u{}@x.test", self.name_count);
        let user = self.admin_client(tenant, replica).create_user_without_password(&email).await;
        self.models[tenant].users.insert(user, false);
    }

    async fn create_role(&mut self, tenant: usize, replica: usize) {
        self.name_count += 1;
        let (name, random_permissions) =
            (format!("r{}", self.name_count), self.random_permissions());
        let request = CreateRoleRequest {
            name: name.clone(),
            level: RoleLevel::Member.into(),
            permissions: random_permissions.clone(),
            ..CreateRoleRequest::default()
        };
        let reply = self.admin_client(tenant, replica).roles().create_role(request).await;
        let role = reply.expect("a role").into_inner().role.expect("the role").id;
        self.models[tenant].roles.insert(role, (name, random_permissions));
    }

    /// Makes one random change on a replica and in the model.
    async fn make_random_change(&mut self, tenant: usize, replica: usize) {
        let client = self.admin_client(tenant, replica);
        match self.rng.below(20) {
            0 => self.create_user(tenant, replica).await,
            1 => self.create_role(tenant, replica).await,
            2 | 3 => {
                let (role_id, permissions) = (self.random_role(tenant), self.random_permissions());
                let (_, role_permissions) =
                    self.models[tenant].roles.get_mut(&role_id).expect("the role");
                role_permissions.clone_from(&permissions);
                let request =
                    UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
                client.roles().update_role(request).await.expect("changed");
            }
            4 => self.delete_role(tenant, &client).await,
            5..=9 => self.assign(tenant, &client).await,
            10 | 11 => self.unassign(tenant, &client).await,
            12 | 13 => self.set_disabled(tenant, &client).await,
            14 => self.delete_user(tenant, &client).await,
            15 | 16 => self.expire_assignments(tenant).await,
            17 => self.set_suspended(tenant, replica).await,
            _ => self.sign_in(tenant).await,
        }
    }

    async fn delete_role(&mut self, tenant: usize, client: &Client) {
        let role_id = self.random_role(tenant);
        let model = &mut self.models[tenant];
        let request = DeleteRoleRequest { role_id: role_id.clone(), ..Default::default() };
        let reply = client.roles().delete_role(request).await;
        if model.assignments.iter().any(|a| a.role == role_id && !a.is_expired) {
            assert_eq!(reply.expect_err("the role is assigned").code(), Code::FailedPrecondition);
            return;
        }
        reply.expect("deleted");
        model.roles.remove(&role_id);
        model.assignments.retain(|a| a.role != role_id);
        // Create another role, so that `random_role` always finds a role.
        self.create_role(tenant, 0).await;
    }

    async fn assign(&mut self, tenant: usize, client: &Client) {
        let (user, role, scope) =
            (self.random_user(tenant), self.random_role(tenant), self.rng.scope());
        let has_expiry = self.rng.below(3) == 0;
        let in_one_hour = clock::now() + time::Duration::hours(1);
        let request = AssignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: struct_of(Value::Object(scope.clone())),
            expire_time: has_expiry.then(|| clock::timestamp(in_one_hour)),
            ..AssignRoleRequest::default()
        };
        let reply = client.roles().assign_role(request).await;
        let scope = normal_form(scope);
        let model = &mut self.models[tenant];
        let is_same = |a: &Assignment| a.user == user && a.role == role && a.scope == scope;
        if model.assignments.iter().any(|a| is_same(a) && !a.is_expired) {
            assert_eq!(reply.expect_err("the assignment exists").code(), Code::AlreadyExists);
            return;
        }
        reply.expect("assigned");
        model.assignments.retain(|a| !is_same(a));
        model.assignments.push(Assignment { user, role, scope, has_expiry, is_expired: false });
    }

    async fn unassign(&mut self, tenant: usize, client: &Client) {
        let assignments = self.models[tenant].assignments.clone();
        let Assignment { user, role, .. } = self.rng.pick(&assignments);
        if user == self.admins[tenant].user_id {
            return;
        }
        let request = UnassignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            all_scopes: true,
            scope: None,
        };
        client.roles().unassign_role(request).await.expect("unassigned");
        self.models[tenant].assignments.retain(|a| a.user != user || a.role != role);
    }

    async fn set_disabled(&mut self, tenant: usize, client: &Client) {
        let user_id = self.random_user(tenant);
        let disabled = !self.models[tenant].users[&user_id];
        self.models[tenant].users.insert(user_id.clone(), disabled);
        if disabled {
            self.forget_member(tenant, &user_id);
            let request = DisableUserRequest { user_id };
            client.users().disable_user(request).await.expect("disabled");
        } else {
            client.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
        }
    }

    async fn delete_user(&mut self, tenant: usize, client: &Client) {
        // Keep the administrator and one other user, so that `random_user` always finds a user.
        if self.models[tenant].users.len() < 3 {
            return;
        }
        let user_id = self.random_user(tenant);
        self.models[tenant].users.remove(&user_id);
        self.models[tenant].assignments.retain(|a| a.user != user_id);
        self.forget_member(tenant, &user_id);
        let request = DeleteUserRequest { user_id, ..DeleteUserRequest::default() };
        client.users().delete_user(request).await.expect("deleted");
    }

    /// Expires a user's assignments directly in the database, because no RPC can. Then makes a
    /// change on each replica, so that both replicas have read the feed up to the expiry.
    async fn expire_assignments(&mut self, tenant: usize) {
        let user = self.random_user(tenant);
        self.app.expire_assignments(&user).await;
        for a in &mut self.models[tenant].assignments {
            a.is_expired |= a.has_expiry && a.user == user;
        }
        for replica in 0..REPLICAS {
            self.create_role(tenant, replica).await;
        }
    }

    async fn set_suspended(&mut self, tenant: usize, replica: usize) {
        let channel = if replica == 0 { &self.app.channel } else { &self.second_replica.channel };
        let mut tenants = self.platform_admin.on_server(channel).tenants();
        let id = self.admins[tenant].tenant_id.clone();
        let suspended = &mut self.models[tenant].suspended;
        *suspended = !*suspended;
        if *suspended {
            let request = SuspendTenantRequest { tenant: id };
            tenants.suspend_tenant(request).await.expect("suspended");
        } else {
            let request = ReactivateTenantRequest { tenant: id };
            tenants.reactivate_tenant(request).await.expect("reactivated");
            // The other replica checks the caller with its own cache, even for a fully consistent
            // Check. So wait until that replica has read the reactivation from the feed.
            let other_replica = [&self.second_replica.channel, &self.app.channel][replica];
            let admin = self.admins[tenant].on_server(other_replica);
            wait_until(5, async || admin.auth().who_am_i(WhoAmIRequest {}).await.is_ok()).await;
        }
    }

    async fn sign_in(&mut self, tenant: usize) {
        let user = self.random_user(tenant);
        if self.models[tenant].is_active(&user) {
            let member = self.app.create_session(&user, &self.admins[tenant]).await;
            self.members[tenant] = Some(member);
        }
    }

    /// Forgets this user as the signed-in user of the tenant.
    fn forget_member(&mut self, tenant: usize, user: &str) {
        self.members[tenant].take_if(|member| member.user_id == user);
    }

    /// Compares all responses about a tenant with the model. Without full consistency, the replica
    /// must have read the last change.
    async fn assert_matches_model(
        &mut self,
        tenant: usize,
        replica: usize,
        consistency: Consistency,
    ) {
        let client = self.admin_client(tenant, replica);
        let mut users: Vec<_> = self.models[tenant].users.keys().cloned().collect();
        // Add an id that does not exist and a user of another tenant.
        users.push(crate::harness::unknown_id());
        users.push(self.admins[(tenant + 1) % TENANTS].user_id.clone());

        let checks: Vec<_> = (0..12)
            .map(|_| (self.rng.pick(&users), self.rng.permission(3), request_scope(&mut self.rng)))
            .collect();
        let model = &self.models[tenant];
        let expected: Vec<_> = checks.iter().map(|(u, p, s)| model.allows(u, p, s)).collect();
        assert_eq!(batch_check(&client, &checks, consistency).await, expected, "{checks:?}");
        let (user, permission, scope) = checks[0].clone();
        for explain in [false, true] {
            let request = CheckRequest {
                user_id: user.clone(),
                permission: permission.clone(),
                scope: struct_of(Value::Object(scope.clone())),
                consistency: consistency.into(),
                explain,
                ..CheckRequest::default()
            };
            assert_eq!(client.decide(request).await.allowed, expected[0], "{:?}", checks[0]);
        }
        let subjects = subjects(&client, &permission, &scope).await;
        assert_eq!(subjects, model.subjects(&permission, &scope), "{permission} {scope:?}");
        if consistency == Consistency::FullyConsistent {
            return;
        }
        assert_eq!(permissions(&client, &user).await, model.permissions(&user), "{user}");
        if let Some(member) = &self.members[tenant] {
            let channel = &client.channel;
            let actual = who_am_i(&member.on_server(channel)).await;
            let expected =
                model.is_active(&member.user_id).then(|| model.who_am_i(&member.user_id));
            assert_eq!(actual, expected, "{}", member.user_id);
        }
    }
}

async fn batch_check(
    client: &Client,
    checks: &[(String, String, Scope)],
    consistency: Consistency,
) -> Vec<bool> {
    let items = checks.iter().map(|(user, permission, scope)| BatchCheckItem {
        user_id: user.clone(),
        permission: permission.clone(),
        scope: struct_of(Value::Object(scope.clone())),
        ..BatchCheckItem::default()
    });
    let request = BatchCheckRequest {
        items: items.collect(),
        consistency: consistency.into(),
        ..Default::default()
    };
    let reply = client.permissions().batch_check(request).await.expect("decisions").into_inner();
    reply.results.iter().map(|result| result.allowed).collect()
}

async fn subjects(client: &Client, permission: &str, scope: &Scope) -> Vec<String> {
    let mut request = ListSubjectsRequest {
        permission: permission.into(),
        scope: struct_of(Value::Object(scope.clone())),
        page_size: 2,
        ..ListSubjectsRequest::default()
    };
    let mut subjects = Vec::new();
    loop {
        let reply = client.permissions().list_subjects(request.clone()).await.expect("a page");
        let reply = reply.into_inner();
        subjects.extend(reply.subjects.into_iter().map(|subject| subject.user_id));
        if reply.next_page_token.is_empty() {
            return subjects;
        }
        request.page_token = reply.next_page_token;
    }
}

async fn permissions(client: &Client, user: &str) -> Vec<(String, String, Scope)> {
    let request = ListPermissionsRequest { user_id: user.into(), ..Default::default() };
    let reply = client.permissions().list_permissions(request).await.expect("a list");
    let scope = |scope: Option<prost_types::Struct>| {
        json::object("scope", &scope.unwrap_or_default()).expect("JSON")
    };
    let grants = reply.into_inner().permissions.into_iter();
    let mut grants: Vec<_> = grants.map(|g| (g.permission, g.role_name, scope(g.scope))).collect();
    grants.sort_by_key(|row| format!("{row:?}"));
    grants
}

/// Roles and permissions of a signed-in user. `None` when the tenant is suspended.
async fn who_am_i(client: &Client) -> Option<(Vec<String>, Vec<String>)> {
    match client.auth().who_am_i(WhoAmIRequest {}).await {
        Ok(reply) => {
            let me = reply.into_inner();
            Some((me.roles, me.permissions))
        }
        Err(status) => {
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
            None
        }
    }
}

/// F01: every method that decides agrees with the model.
/// F10: the replica that made the change includes it in the next response.
#[tokio::test]
async fn all_responses_match_the_model_after_each_change() {
    for seed in 1..=2 {
        println!("seed {seed}");
        let mut world = World::new(seed).await;
        for _ in 0..CHANGES {
            let tenant = world.rng.below(TENANTS);
            let replica = world.rng.below(REPLICAS);
            world.make_random_change(tenant, replica).await;
            world.assert_matches_model(tenant, replica, Consistency::MinimizeLatency).await;
            let other_replica = (replica + 1) % REPLICAS;
            world.assert_matches_model(tenant, other_replica, Consistency::FullyConsistent).await;
        }
    }
}
