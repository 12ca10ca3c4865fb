//! What many tests do, in a word each.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::stream::{self, StreamExt};
use serde_json::Value;
use tenantry::{
    clock,
    proto::{
        json,
        v1::{
            AssignRoleRequest, CheckRequest, CheckResponse, CreateApiKeyRequest,
            CreateApiKeyResponse, CreateServiceAccountRequest, CreateUserRequest,
            ExchangeApiKeyRequest, ListRolesRequest, RevokeApiKeyRequest, RoleLevel,
            UnassignRoleRequest, exchange_api_key_request::Credential,
        },
    },
};
use uuid::Uuid;

use super::{Client, TestApp};

/// An id that nothing has.
pub fn unknown_id() -> String {
    Uuid::now_v7().to_string()
}

/// A scope, written as JSON.
#[expect(clippy::needless_pass_by_value, reason = "it is called with json!")]
pub fn struct_of(json: Value) -> Option<prost_types::Struct> {
    json.as_object().map(json::to_struct)
}

/// A field mask.
#[expect(clippy::unnecessary_wraps, reason = "requests take an option")]
pub fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).into()).collect() })
}

impl Client {
    /// The decision on one question.
    pub async fn decide(&self, question: CheckRequest) -> CheckResponse {
        self.permissions().check(question).await.expect("a decision").into_inner()
    }

    /// Whether a user may do this without a scope.
    pub async fn may(&self, user_id: &str, permission: &str) -> bool {
        let question = CheckRequest {
            user_id: user_id.into(),
            permission: permission.into(),
            ..CheckRequest::default()
        };
        self.decide(question).await.allowed
    }

    /// An administrator makes a user who can't sign in; its id.
    pub async fn create_user_without_password(&self, email: &str) -> String {
        let request = CreateUserRequest { email: email.into(), ..CreateUserRequest::default() };
        let reply = self.users().create_user(request).await.expect("a user is made");
        reply.into_inner().user.expect("the user").id
    }

    /// An administrator gives a user a role within a scope; the assignment's id.
    pub async fn assign_within(&self, user_id: &str, role_id: &str, scope: Value) -> String {
        let request = AssignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            scope: struct_of(scope),
            ..AssignRoleRequest::default()
        };
        let reply = self.roles().assign_role(request).await.expect("a role is given");
        reply.into_inner().role_assignment.expect("the assignment").id
    }

    /// An administrator gives a user a role for an hour.
    pub async fn assign_for_an_hour(&self, user_id: &str, role_id: &str) {
        let request = AssignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            expire_time: Some(clock::timestamp(clock::now() + time::Duration::hours(1))),
            ..AssignRoleRequest::default()
        };
        self.roles().assign_role(request).await.expect("a role is given");
    }

    /// An administrator makes a service account, with a role of just these permissions
    /// where there are any; its id.
    pub async fn create_service_account(&self, name: &str, permissions: &[&str]) -> String {
        let request = CreateServiceAccountRequest { name: name.into(), ..Default::default() };
        let reply = self.service_accounts().create_service_account(request).await;
        let account = reply.expect("made").into_inner().service_account.expect("the account").id;
        if !permissions.is_empty() {
            let role = self.create_role(name, RoleLevel::Member, permissions).await;
            self.assign(&account, &role).await;
        }
        account
    }

    /// An administrator gives a service account a key with a secret.
    pub async fn create_api_key(&self, account: &str) -> CreateApiKeyResponse {
        let request =
            CreateApiKeyRequest { service_account_id: account.into(), ..Default::default() };
        let reply = self.service_accounts().create_api_key(request).await;
        reply.expect("a key").into_inner()
    }

    /// An administrator ends an API key.
    pub async fn revoke_api_key(&self, api_key: &str) {
        let request = RevokeApiKeyRequest { api_key_id: api_key.into() };
        self.service_accounts().revoke_api_key(request).await.expect("it ends");
    }

    /// What an API key's secret is exchanged for.
    pub async fn exchange(&self, secret: &str) -> Self {
        let credential = Some(Credential::ApiKey(secret.into()));
        let request = ExchangeApiKeyRequest { credential, ..Default::default() };
        let reply = self.auth().exchange_api_key(request).await.expect("a token");
        self.with_token(&reply.into_inner().access_token)
    }

    /// The id of the tenant's role of a name.
    pub async fn role_named(&self, name: &str) -> String {
        let request =
            ListRolesRequest { filter: format!("name = \"{name}\""), ..Default::default() };
        let mut roles = self.roles().list_roles(request).await.expect("roles").into_inner().roles;
        roles.pop().expect("the role").id
    }

    /// An administrator takes a role from a user, whatever its scope.
    pub async fn unassign(&self, user_id: &str, role_id: &str) {
        let request = UnassignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            all_scopes: true,
            ..UnassignRoleRequest::default()
        };
        self.roles().unassign_role(request).await.expect("a role is taken");
    }
}

/// An event of the audit trail.
#[expect(clippy::struct_field_names, reason = "the columns are called so")]
#[derive(Debug, sqlx::FromRow)]
pub struct Recorded {
    pub tenant_id: Uuid,
    pub actor_tenant_id: Option<Uuid>,
    pub actor_id: Option<Uuid>,
    pub target_id: Option<Uuid>,
}

impl TestApp {
    /// The audit trail's events of a kind, oldest first.
    pub async fn recorded(&self, kind: &str) -> Vec<Recorded> {
        self.must_be_own();
        sqlx::query_as(
            "select tenant_id, actor_tenant_id, actor_id, target_id
             from audit_events where kind = $1 order by event_id",
        )
        .bind(kind)
        .fetch_all(&mut *self.kept_owner().await)
        .await
        .expect("events")
    }

    /// A number that SQL counts, with one id in it.
    pub async fn count(&self, sql: &'static str, id: &str) -> i64 {
        let id: Uuid = id.parse().expect("an id");
        sqlx::query_scalar(sql)
            .bind(id)
            .fetch_one(&mut *self.kept_owner().await)
            .await
            .expect("a count")
    }

    /// Lets everything that a user has for a time end now.
    pub async fn let_expire(&self, user_id: &str) {
        let user: Uuid = user_id.parse().expect("an id");
        sqlx::query(
            "update role_assignments set expires_at = now() - interval '1 second'
             where user_id = $1 and expires_at is not null",
        )
        .bind(user)
        .execute(&mut *self.kept_owner().await)
        .await
        .expect("shifted");
    }
}

/// Makes as many users in each tenant, the tenants taking turns: `u1@x.test` and so on.
pub async fn fill(tenants: &[&Client], each: u32) {
    let turns = (1..=each).flat_map(|n| tenants.iter().map(move |tenant| (n, tenant)));
    stream::iter(turns)
        // Few at once: on a busy machine more would wait too long for their connections.
        .for_each_concurrent(4, |(n, tenant)| async move {
            tenant.create_user_without_password(&format!("u{n}@x.test")).await;
        })
        .await;
}

impl TestApp {
    /// A token that a mail to a user would have.
    pub async fn reset_token(&self, tenant_id: &str, user_id: &str) -> String {
        let (tenant, user): (Uuid, Uuid) =
            (tenant_id.parse().expect("a UUID"), user_id.parse().expect("a UUID"));
        let secret = [7; 32];
        let keep = "insert into mail_links (tenant_id, user_id, purpose, token_hash, expires_at)
                    values ($1, $2, 'password_reset', sha256($3), now() + interval '10 min')";
        sqlx::query(keep)
            .bind(tenant)
            .bind(user)
            .bind(secret)
            .execute(&mut *self.kept_owner().await)
            .await
            .expect("kept");
        BASE64_URL_SAFE_NO_PAD.encode([tenant.as_bytes(), user.as_bytes(), &secret[..]].concat())
    }

    /// A user of `like`'s tenant, signed in without a password: a session like
    /// that one's, and a token for it.
    pub async fn sign_in_as(&self, user_id: &str, like: &Client) -> Client {
        let session = unknown_id();
        let copy = "insert into sessions select (jsonb_populate_record(s, jsonb_build_object(
                        'session_id', $1, 'user_id', $2))).*
                    from sessions s where session_id = $3::uuid";
        sqlx::query(copy)
            .bind(&session)
            .bind(user_id)
            .bind(&like.tokens.session_id)
            .execute(&mut *self.kept_owner().await)
            .await
            .expect("a session");
        let claims = serde_json::json!({ "sub": user_id, "sid": session });
        let token = self.forge().with_claims(&like.tokens.access_token, &claims);
        let mut client = like.with_token(&token);
        user_id.clone_into(&mut client.user_id);
        client
    }
}
