//! Short forms of calls that many tests make.

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
            UnassignRoleRequest, WhoAmIRequest, WhoAmIResponse,
            exchange_api_key_request::Credential,
        },
    },
};
use uuid::Uuid;

use super::{Client, TestApp};

/// An id that matches no object.
pub fn unknown_id() -> String {
    Uuid::now_v7().to_string()
}

/// A text that no other call of this function returns, 36 characters long.
pub fn unique_text() -> String {
    Uuid::now_v7().to_string()
}

/// A protobuf Struct, such as a scope, from JSON. `None` when the JSON is not an object.
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
    /// The identity of the client's token.
    pub async fn identity(&self) -> WhoAmIResponse {
        self.auth().who_am_i(WhoAmIRequest {}).await.expect("an identity").into_inner()
    }

    /// Calls Check and returns the decision.
    pub async fn decide(&self, request: CheckRequest) -> CheckResponse {
        self.permissions().check(request).await.expect("a decision").into_inner()
    }

    /// Whether the client's own subject has a permission without a scope.
    pub async fn may(&self, permission: &str) -> bool {
        self.user_may("", permission).await
    }

    /// Whether a user has a permission without a scope. An empty `user_id` means the client's own
    /// subject.
    pub async fn user_may(&self, user_id: &str, permission: &str) -> bool {
        let request = CheckRequest {
            user_id: user_id.into(),
            permission: permission.into(),
            ..CheckRequest::default()
        };
        self.decide(request).await.allowed
    }

    /// Makes a decision about a user, so that the server puts the user's standing into the standing
    /// cache. The decision itself is ignored.
    pub async fn cache_standing_of(&self, user_id: &str) {
        self.user_may(user_id, "doc:read").await;
    }

    /// As an administrator: creates a user who cannot sign in, and returns the user's id.
    pub async fn create_user_without_password(&self, email: &str) -> String {
        let request = CreateUserRequest { email: email.into(), ..CreateUserRequest::default() };
        let reply = self.users().create_user(request).await.expect("the user is created");
        reply.into_inner().user.expect("the user").id
    }

    /// As an administrator: assigns a role with a scope, and returns the assignment's id.
    pub async fn assign_with_scope(&self, user_id: &str, role_id: &str, scope: Value) -> String {
        let request = AssignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            scope: struct_of(scope),
            ..AssignRoleRequest::default()
        };
        let reply = self.roles().assign_role(request).await.expect("the role is assigned");
        reply.into_inner().role_assignment.expect("the assignment").id
    }

    /// As an administrator: assigns a role that expires in one hour.
    pub async fn assign_for_an_hour(&self, user_id: &str, role_id: &str) {
        let request = AssignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            expire_time: Some(clock::timestamp(clock::now() + time::Duration::hours(1))),
            ..AssignRoleRequest::default()
        };
        self.roles().assign_role(request).await.expect("the role is assigned");
    }

    /// As an administrator: creates a service account and returns the account's id. With
    /// permissions, the account gets a role of exactly these permissions.
    pub async fn create_service_account(&self, name: &str, permissions: &[&str]) -> String {
        let request = CreateServiceAccountRequest { name: name.into(), ..Default::default() };
        let reply = self.service_accounts().create_service_account(request).await;
        let account = reply.expect("created").into_inner().service_account.expect("the account").id;
        if !permissions.is_empty() {
            let role = self.create_role(name, RoleLevel::Member, permissions).await;
            self.assign(&account, &role).await;
        }
        account
    }

    /// As an administrator: creates an API key with a secret for a service account.
    pub async fn create_api_key(&self, account: &str) -> CreateApiKeyResponse {
        let request =
            CreateApiKeyRequest { service_account_id: account.into(), ..Default::default() };
        let reply = self.service_accounts().create_api_key(request).await;
        reply.expect("a key").into_inner()
    }

    /// As an administrator: revokes an API key.
    pub async fn revoke_api_key(&self, api_key: &str) {
        let request = RevokeApiKeyRequest { api_key_id: api_key.into() };
        self.service_accounts().revoke_api_key(request).await.expect("the key is revoked");
    }

    /// Exchanges an API key's secret for an access token. Returns a client with the token.
    pub async fn exchange(&self, secret: &str) -> Self {
        let credential = Some(Credential::ApiKey(secret.into()));
        let request = ExchangeApiKeyRequest { credential, ..Default::default() };
        let reply = self.auth().exchange_api_key(request).await.expect("a token");
        self.with_token(&reply.into_inner().access_token)
    }

    /// Id of the tenant's role with this name.
    pub async fn role_id(&self, name: &str) -> String {
        let request =
            ListRolesRequest { filter: format!("name = \"{name}\""), ..Default::default() };
        let mut roles = self.roles().list_roles(request).await.expect("roles").into_inner().roles;
        roles.pop().expect("the role").id
    }

    /// As an administrator: unassigns a role in all scopes.
    pub async fn unassign(&self, user_id: &str, role_id: &str) {
        let request = UnassignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            all_scopes: true,
            ..UnassignRoleRequest::default()
        };
        self.roles().unassign_role(request).await.expect("the role is unassigned");
    }
}

/// A row of the audit trail.
#[expect(clippy::struct_field_names, reason = "these are the names of the columns")]
#[derive(Debug, sqlx::FromRow)]
pub struct AuditRow {
    pub tenant_id: Uuid,
    pub actor_tenant_id: Option<Uuid>,
    pub actor_id: Option<Uuid>,
    pub target_id: Option<Uuid>,
}

impl TestApp {
    /// The audit trail's events of a kind, oldest first.
    pub async fn audit_events(&self, kind: &str) -> Vec<AuditRow> {
        self.assert_not_shared();
        sqlx::query_as(
            "select tenant_id, actor_tenant_id, actor_id, target_id
             from audit_events where kind = $1 order by event_id",
        )
        .bind(kind)
        .fetch_all(&mut *self.reused_owner_connection().await)
        .await
        .expect("events")
    }

    /// Result of a counting SQL query. `$1` is the id.
    pub async fn count(&self, sql: &'static str, id: &str) -> i64 {
        let id: Uuid = id.parse().expect("an id");
        sqlx::query_scalar(sql)
            .bind(id)
            .fetch_one(&mut *self.reused_owner_connection().await)
            .await
            .expect("a count")
    }

    /// Moves the expiry of a user's temporary role assignments into the past.
    pub async fn expire_assignments(&self, user_id: &str) {
        let user: Uuid = user_id.parse().expect("an id");
        sqlx::query(
            "update role_assignments set expires_at = now() - interval '1 second'
             where user_id = $1 and expires_at is not null",
        )
        .bind(user)
        .execute(&mut *self.reused_owner_connection().await)
        .await
        .expect("the expiry is moved");
    }
}

/// Creates `count` users in every tenant: `u1@x.test`, `u2@x.test` and so on. The users of the
/// tenants are created alternately.
pub async fn create_users(tenants: &[&Client], count: u32) {
    let users = (1..=count).flat_map(|n| tenants.iter().map(move |tenant| (n, tenant)));
    stream::iter(users)
        // At most 4 calls at the same time. On a busy machine, more calls would time out while they
        // wait for a database connection.
        .for_each_concurrent(4, |(n, tenant)| async move {
            tenant.create_user_without_password(&format!("u{n}@x.test")).await;
        })
        .await;
}

impl TestApp {
    /// Stores a password reset token and returns the token, as if it had been mailed to the user.
    pub async fn create_reset_token(&self, tenant_id: &str, user_id: &str) -> String {
        self.create_mailed_token(tenant_id, user_id, "password_reset").await
    }

    /// Stores the link of a mail directly in the database, and returns the token of the link.
    pub async fn create_mailed_token(
        &self,
        tenant_id: &str,
        user_id: &str,
        purpose: &str,
    ) -> String {
        let (tenant, user): (Uuid, Uuid) =
            (tenant_id.parse().expect("a UUID"), user_id.parse().expect("a UUID"));
        let secret = [7; 32];
        let insert = "insert into mail_links (tenant_id, user_id, purpose, token_hash, expires_at)
                    values ($1, $2, $4, sha256($3), now() + interval '10 min')";
        sqlx::query(insert)
            .bind(tenant)
            .bind(user)
            .bind(secret)
            .bind(purpose)
            .execute(&mut *self.reused_owner_connection().await)
            .await
            .expect("the token is stored");
        // The last bytes name the purpose of the token.
        let suffix: &[u8] = if purpose == "email_verification" { &[1] } else { &[] };
        let bytes = [tenant.as_bytes(), user.as_bytes(), &secret[..], suffix].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Creates a session for a user directly in the database. The session and the token are copies
    /// of the session and the token of `template`, which must be a user of the same tenant.
    pub async fn create_session(&self, user_id: &str, template: &Client) -> Client {
        let session = unknown_id();
        let copy_session =
            "insert into sessions select (jsonb_populate_record(s, jsonb_build_object(
                        'session_id', $1, 'user_id', $2))).*
                    from sessions s where session_id = $3::uuid";
        sqlx::query(copy_session)
            .bind(&session)
            .bind(user_id)
            .bind(&template.tokens.session_id)
            .execute(&mut *self.reused_owner_connection().await)
            .await
            .expect("a session");
        let claims = serde_json::json!({ "sub": user_id, "sid": session });
        let token = self.forge().with_claims(&template.tokens.access_token, &claims);
        let mut client = template.with_token(&token);
        user_id.clone_into(&mut client.user_id);
        client
    }
}
