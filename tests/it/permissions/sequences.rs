//! Random changes. After each one, the whole service is compared with the model: immediately on
//! the replica that made the change, and with full consistency on the other one.

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
use crate::harness::{Client, TestApp, struct_of, until};

/// Number of tenants, of replicas, and of changes for each seed.
const TENANTS: usize = 2;
const REPLICAS: usize = 2;
const CHANGES: usize = 70;

/// Two replicas, two tenants, and the expected state of each tenant.
struct World {
    app: TestApp,
    twin: TestApp,
    root: Client,
    rng: Rng,
    admins: Vec<Client>,
    models: Vec<Model>,
    /// One signed-in user of each tenant.
    members: Vec<Option<Client>>,
    named: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let app = TestApp::spawn().await;
        let twin = TestApp::on(&app.database, |_| {}).await;
        let root = app.platform_admin().await;
        let rng = Rng(seed);
        let (admins, models, members) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { app, twin, root, rng, admins, models, members, named: 0 };
        for tenant in 0..TENANTS {
            let admin = world.app.tenant(&format!("tenant-{tenant}")).await;
            let mut model = Model::default();
            let role = admin.system_role("org_admin").await;
            model.users.insert(admin.user_id.clone(), false);
            model.roles.insert(role.clone(), ("org_admin".into(), vec!["*:*".into()]));
            let user = admin.user_id.clone();
            let scope = Scope::new();
            model.assignments.push(Assignment { user, role, scope, ends: false, over: false });
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

    /// Client for questions and changes in a tenant, on a replica: the tenant's administrator,
    /// or the platform's administrator while the tenant is suspended.
    fn asker(&self, tenant: usize, replica: usize) -> Client {
        let admin = &self.admins[tenant];
        let client = if self.models[tenant].suspended {
            self.root.with("x-tenant-id", &admin.tenant_id)
        } else {
            admin.clone()
        };
        client.on(if replica == 0 { &self.app.channel } else { &self.twin.channel })
    }

    /// A random user other than the administrator, which makes all calls.
    fn user(&mut self, tenant: usize) -> String {
        let admin = &self.admins[tenant].user_id;
        let users: Vec<_> =
            self.models[tenant].users.keys().filter(|user| *user != admin).cloned().collect();
        self.rng.pick(&users)
    }

    fn role(&mut self, tenant: usize) -> String {
        let all = &self.models[tenant].roles;
        let own = all.iter().filter(|(_, role)| role.0 != "org_admin");
        let roles: Vec<_> = own.map(|(id, _)| id.clone()).collect();
        self.rng.pick(&roles)
    }

    fn words(&mut self) -> Vec<String> {
        let mut words: Vec<_> = (0..=self.rng.below(3)).map(|_| self.rng.permission(4)).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    async fn create_user(&mut self, tenant: usize, replica: usize) {
        self.named += 1;
        let email = format!("u{}@x.test", self.named);
        let user = self.asker(tenant, replica).create_user_without_password(&email).await;
        self.models[tenant].users.insert(user, false);
    }

    async fn create_role(&mut self, tenant: usize, replica: usize) {
        self.named += 1;
        let (name, words) = (format!("r{}", self.named), self.words());
        let request = CreateRoleRequest {
            name: name.clone(),
            level: RoleLevel::Member.into(),
            permissions: words.clone(),
            ..CreateRoleRequest::default()
        };
        let reply = self.asker(tenant, replica).roles().create_role(request).await;
        let role = reply.expect("a role").into_inner().role.expect("the role").id;
        self.models[tenant].roles.insert(role, (name, words));
    }

    /// Makes one random change on a replica and in the model.
    async fn change(&mut self, tenant: usize, replica: usize) {
        let by = self.asker(tenant, replica);
        match self.rng.below(20) {
            0 => self.create_user(tenant, replica).await,
            1 => self.create_role(tenant, replica).await,
            2 | 3 => {
                let (role_id, permissions) = (self.role(tenant), self.words());
                let role = self.models[tenant].roles.get_mut(&role_id).expect("the role");
                role.1.clone_from(&permissions);
                let request =
                    UpdateRoleRequest { role_id, permissions, ..UpdateRoleRequest::default() };
                by.roles().update_role(request).await.expect("changed");
            }
            4 => self.delete_role(tenant, &by).await,
            5..=9 => self.assign(tenant, &by).await,
            10 | 11 => self.unassign(tenant, &by).await,
            12 | 13 => self.set_disabled(tenant, &by).await,
            14 => self.delete_user(tenant, &by).await,
            15 | 16 => self.end(tenant).await,
            17 => self.set_suspended(tenant, replica).await,
            _ => self.sign_in(tenant).await,
        }
    }

    async fn delete_role(&mut self, tenant: usize, by: &Client) {
        let role_id = self.role(tenant);
        let model = &mut self.models[tenant];
        let request = DeleteRoleRequest { role_id: role_id.clone(), ..Default::default() };
        let reply = by.roles().delete_role(request).await;
        if model.assignments.iter().any(|a| a.role == role_id && !a.over) {
            assert_eq!(reply.expect_err("in use").code(), Code::FailedPrecondition);
            return;
        }
        reply.expect("deleted");
        model.roles.remove(&role_id);
        model.assignments.retain(|a| a.role != role_id);
        // Replaces the role, so that there is always one to choose.
        self.create_role(tenant, 0).await;
    }

    async fn assign(&mut self, tenant: usize, by: &Client) {
        let (user, role, scope) = (self.user(tenant), self.role(tenant), self.rng.scope());
        let ends = self.rng.below(3) == 0;
        let hour = clock::now() + time::Duration::hours(1);
        let request = AssignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: struct_of(Value::Object(scope.clone())),
            expire_time: ends.then(|| clock::timestamp(hour)),
            ..AssignRoleRequest::default()
        };
        let reply = by.roles().assign_role(request).await;
        let scope = normal_form(scope);
        let model = &mut self.models[tenant];
        let same = |a: &Assignment| a.user == user && a.role == role && a.scope == scope;
        if model.assignments.iter().any(|a| same(a) && !a.over) {
            assert_eq!(reply.expect_err("it exists").code(), Code::AlreadyExists);
            return;
        }
        reply.expect("given");
        model.assignments.retain(|a| !same(a));
        model.assignments.push(Assignment { user, role, scope, ends, over: false });
    }

    async fn unassign(&mut self, tenant: usize, by: &Client) {
        let held = self.models[tenant].assignments.clone();
        let Assignment { user, role, .. } = self.rng.pick(&held);
        if user == self.admins[tenant].user_id {
            return;
        }
        let request = UnassignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            all_scopes: true,
            scope: None,
        };
        by.roles().unassign_role(request).await.expect("taken");
        self.models[tenant].assignments.retain(|a| a.user != user || a.role != role);
    }

    async fn set_disabled(&mut self, tenant: usize, by: &Client) {
        let user_id = self.user(tenant);
        let disabled = !self.models[tenant].users[&user_id];
        self.models[tenant].users.insert(user_id.clone(), disabled);
        if disabled {
            self.sign_out(tenant, &user_id);
            let request = DisableUserRequest { user_id };
            by.users().disable_user(request).await.expect("disabled");
        } else {
            by.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
        }
    }

    async fn delete_user(&mut self, tenant: usize, by: &Client) {
        if self.models[tenant].users.len() < 3 {
            return;
        }
        let user_id = self.user(tenant);
        self.models[tenant].users.remove(&user_id);
        self.models[tenant].assignments.retain(|a| a.user != user_id);
        self.sign_out(tenant, &user_id);
        let request = DeleteUserRequest { user_id, ..DeleteUserRequest::default() };
        by.users().delete_user(request).await.expect("deleted");
    }

    /// Expires a user's assignments in the database, because no call can do that. A change on
    /// each replica then ensures that both have read the feed up to here.
    async fn end(&mut self, tenant: usize) {
        let user = self.user(tenant);
        self.app.let_expire(&user).await;
        for a in &mut self.models[tenant].assignments {
            a.over |= a.ends && a.user == user;
        }
        for replica in 0..REPLICAS {
            self.create_role(tenant, replica).await;
        }
    }

    async fn set_suspended(&mut self, tenant: usize, replica: usize) {
        let channel = if replica == 0 { &self.app.channel } else { &self.twin.channel };
        let mut tenants = self.root.on(channel).tenants();
        let id = self.admins[tenant].tenant_id.clone();
        let suspended = &mut self.models[tenant].suspended;
        *suspended = !*suspended;
        if *suspended {
            let request = SuspendTenantRequest { tenant: id };
            tenants.suspend_tenant(request).await.expect("suspended");
        } else {
            let request = ReactivateTenantRequest { tenant: id };
            tenants.reactivate_tenant(request).await.expect("reactivated");
            // The other replica judges callers by what it has read of the feed, even for a
            // fully consistent question. So wait until it knows.
            let elsewhere = [&self.twin.channel, &self.app.channel][replica];
            let admin = self.admins[tenant].on(elsewhere);
            until(5, async || admin.auth().who_am_i(WhoAmIRequest {}).await.is_ok()).await;
        }
    }

    async fn sign_in(&mut self, tenant: usize) {
        let user = self.user(tenant);
        if self.models[tenant].acts(&user) {
            let member = self.app.sign_in_as(&user, &self.admins[tenant]).await;
            self.members[tenant] = Some(member);
        }
    }

    fn sign_out(&mut self, tenant: usize, user: &str) {
        self.members[tenant].take_if(|member| member.user_id == user);
    }

    /// Compares all answers about a tenant with the model, on a replica that has read the last
    /// change or with a fully consistent question.
    async fn compare(&mut self, tenant: usize, replica: usize, consistency: Consistency) {
        let client = self.asker(tenant, replica);
        let mut users: Vec<_> = self.models[tenant].users.keys().cloned().collect();
        // Add an id that does not exist and a user of another tenant.
        users.push(crate::harness::unknown_id());
        users.push(self.admins[(tenant + 1) % TENANTS].user_id.clone());

        let questions: Vec<_> = (0..12)
            .map(|_| (self.rng.pick(&users), self.rng.permission(3), request_scope(&mut self.rng)))
            .collect();
        let model = &self.models[tenant];
        let wanted: Vec<_> = questions.iter().map(|(u, p, s)| model.allows(u, p, s)).collect();
        assert_eq!(batch(&client, &questions, consistency).await, wanted, "{questions:?}");
        let (user, permission, scope) = questions[0].clone();
        for explain in [false, true] {
            let question = CheckRequest {
                user_id: user.clone(),
                permission: permission.clone(),
                scope: struct_of(Value::Object(scope.clone())),
                consistency: consistency.into(),
                explain,
                ..CheckRequest::default()
            };
            assert_eq!(client.decide(question).await.allowed, wanted[0], "{:?}", questions[0]);
        }
        let subjects = subjects(&client, &permission, &scope).await;
        assert_eq!(subjects, model.subjects(&permission, &scope), "{permission} {scope:?}");
        if consistency == Consistency::FullyConsistent {
            return;
        }
        assert_eq!(permissions(&client, &user).await, model.permissions(&user), "{user}");
        if let Some(member) = &self.members[tenant] {
            let channel = &client.channel;
            let who = who(&member.on(channel)).await;
            let wanted = model.acts(&member.user_id).then(|| model.who(&member.user_id));
            assert_eq!(who, wanted, "{}", member.user_id);
        }
    }
}

async fn batch(
    client: &Client,
    questions: &[(String, String, Scope)],
    consistency: Consistency,
) -> Vec<bool> {
    let items = questions.iter().map(|(user, permission, scope)| BatchCheckItem {
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
    let mut shown: Vec<_> = grants.map(|g| (g.permission, g.role_name, scope(g.scope))).collect();
    shown.sort_by_key(|row| format!("{row:?}"));
    shown
}

/// Roles and permissions of a signed-in user; `None` in a suspended tenant.
async fn who(client: &Client) -> Option<(Vec<String>, Vec<String>)> {
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

/// F01, F10
#[tokio::test]
async fn all_answers_match_the_model_after_each_change() {
    for seed in 1..=2 {
        println!("seed {seed}");
        let mut world = World::new(seed).await;
        for _ in 0..CHANGES {
            let tenant = world.rng.below(TENANTS);
            let replica = world.rng.below(REPLICAS);
            world.change(tenant, replica).await;
            world.compare(tenant, replica, Consistency::MinimizeLatency).await;
            let elsewhere = (replica + 1) % REPLICAS;
            world.compare(tenant, elsewhere, Consistency::FullyConsistent).await;
        }
    }
}
