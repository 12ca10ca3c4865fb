//! The signed-in clients that the fuzzer calls with. The calls end sessions, delete users and take
//! roles, so clients that lost their rights are replaced. Otherwise most later calls would be
//! refused.

use proptest::{prelude::*, test_runner::TestRng};
use tenantry::proto::v1::CheckRequest;
use uuid::Uuid;

use super::{known_values::KnownValues, messages::PASSWORDS};
use crate::harness::{Client, TestApp};

/// The clients.
pub struct Callers {
    /// Administrator of the tenant whose objects are changed.
    admin: Client,
    /// A user of the same tenant with few permissions.
    member: Client,
    /// Administrator of another tenant.
    other_admin: Client,
    /// Administrator of the platform. No call contains the id of its user.
    platform_admin: Client,
}

impl Callers {
    pub async fn create(app: &TestApp, known_values: &mut KnownValues) -> Self {
        let platform_admin = app.platform_admin().await;
        known_values.exclude(&platform_admin.user_id);
        let anonymous = app.anonymous();
        let (admin, member) = sign_up(&anonymous, "fuzzed").await;
        let other_admin = anonymous.sign_up_tenant("other").await;
        let callers = Self { admin, member, other_admin, platform_admin };
        for client in [&callers.admin, &callers.member, &callers.other_admin] {
            store(client, known_values);
        }
        store(&callers.platform_admin, known_values);
        callers
    }

    pub const fn admin(&self) -> &Client {
        &self.admin
    }

    pub const fn platform_admin(&self) -> &Client {
        &self.platform_admin
    }

    /// A random client. Mostly the administrator of the tenant whose objects are changed; for RPCs
    /// of the platform, mostly the administrator of the platform.
    pub fn pick(&self, is_platform_rpc: bool, rng: &mut TestRng) -> Client {
        match (is_platform_rpc, rng.random_range(0..20)) {
            (true, 0..14) | (_, 14) => self.platform_admin.clone(),
            (_, 15) => self.platform_admin.with_metadata("x-tenant-id", &self.admin.slug),
            (_, 16) => self.other_admin.clone(),
            (_, 17) => self.member.clone(),
            (_, 18) => self.admin.with_token(""),
            _ => self.admin.clone(),
        }
    }

    /// Signs in again where a session has ended. Signs up new tenants where an administrator has
    /// lost its rights.
    pub async fn replace_powerless(&mut self, known_values: &std::sync::Mutex<KnownValues>) {
        let store_values_of = |client: &Client| {
            store(client, &mut known_values.lock().expect("no caller has panicked"));
        };
        let admin = signed_in_with_permission(&self.admin, "user:delete").await;
        let member = signed_in_with_permission(&self.member, "invoice:read").await;
        if let (Some(admin), Some(member)) = (admin, member) {
            (self.admin, self.member) = (admin, member);
        } else {
            let anonymous = self.admin.with_token("");
            (self.admin, self.member) = sign_up(&anonymous, &new_slug("fuzzed")).await;
            store_values_of(&self.admin);
            store_values_of(&self.member);
        }
        self.other_admin = match signed_in_with_permission(&self.other_admin, "user:delete").await {
            Some(client) => client,
            None => self.other_admin.with_token("").sign_up_tenant(&new_slug("other")).await,
        };
        store_values_of(&self.other_admin);
        // The platform has one administrator. It stays signed out after it has changed its own
        // email, or while its sign-ins are limited after wrong passwords.
        if let Some(client) = signed_in_with_permission(&self.platform_admin, "tenant:create").await
        {
            self.platform_admin = client;
        }
    }
}

/// Stores the ids, names and tokens of a client, so that later calls contain them.
fn store(client: &Client, known_values: &mut KnownValues) {
    known_values.store("User", &client.user_id);
    known_values.store("Session", &client.tokens.session_id);
    known_values.store("id", &client.tenant_id);
    known_values.store("slug", &client.slug);
    known_values.store("email", &client.email);
    known_values.store("token", &client.tokens.access_token);
    known_values.store("refresh_token", &client.tokens.refresh_token);
}

/// Signs up a tenant. Returns its administrator and a member with few permissions.
async fn sign_up(anonymous: &Client, slug: &str) -> (Client, Client) {
    let admin = anonymous.sign_up_tenant(slug).await;
    let member = admin.create_member("clerk", &["invoice:read", "user:update"]).await;
    (admin, member)
}

fn new_slug(prefix: &str) -> String {
    format!("{prefix}-{}", &Uuid::new_v4().simple().to_string()[..8])
}

/// The client, with an active session, if its user still has a permission.
async fn signed_in_with_permission(client: &Client, permission: &str) -> Option<Client> {
    if has_permission(client, permission).await {
        return Some(client.clone());
    }
    let anonymous = client.with_token("");
    for password in PASSWORDS {
        let sign_in = anonymous.try_login(&client.slug, &client.email, password).await;
        if let Ok(client) = sign_in {
            return has_permission(&client, permission).await.then_some(client);
        }
    }
    None
}

async fn has_permission(client: &Client, permission: &str) -> bool {
    let request = CheckRequest { permission: permission.into(), ..CheckRequest::default() };
    let decision = client.permissions().check(request).await;
    decision.is_ok_and(|decision| decision.into_inner().allowed)
}
