//! A tenant that registers itself and stores nearly as much data as the server allows. The
//! benchmark measures the effect of this tenant on another tenant.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use prost_types::{ListValue, Struct, Value, value::Kind};
use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateUserRequest, LoginRequest, RegisterRequest,
    RoleLevel, auth_service_client::AuthServiceClient, create_user_request::Credential,
    role_service_client::RoleServiceClient, user_service_client::UserServiceClient,
};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use super::{databases::PASSWORD, server::Server, tokens::Bearer};

/// Number of users with imported password hashes.
const IMPORTED_USERS: usize = 200;

/// Highest bcrypt cost that the server accepts.
const BCRYPT_COST: u32 = 12;

/// Number of password bytes that bcrypt reads. The server never replaces the bcrypt hash of a
/// longer password, so every sign-in compares with bcrypt.
const BCRYPT_INPUT: usize = 72;

/// Maximum number of roles. Each role has 1,000 permissions, and the server allows 50,000 in all
/// roles of a tenant.
const MAX_ROLES: usize = 40;
/// Maximum number of assignments. The server's limit on the total bytes of a subject's scopes
/// is reached first.
const MAX_ASSIGNMENTS: usize = 100;
/// Size of the first scope that is tried, in bytes. It is too large: the size is halved each time
/// that the server refuses a scope.
const FIRST_SCOPE_BYTES: usize = 512 * 1024;

/// Number of keys in a scope.
const SCOPE_KEYS: usize = 50;

/// A permission of the largest roles.
pub const PERMISSION: &str = "resource-000:action";

/// The tenant after it was filled.
pub struct NoisyTenant {
    /// Slug of the tenant. Each run uses a new slug, because a run may reuse a database.
    pub slug: String,
    /// Access token of the tenant's administrator.
    pub token: Bearer,
    /// Emails of the users with imported hashes.
    pub imported_emails: Vec<String>,
    /// Password of the users with imported hashes.
    pub imported_password: String,
    /// Id of the user with as many of the largest assignments as the server allows.
    pub subject: String,
    /// Scope of a request about `subject`. It differs from the scope of each assignment of the subject
    /// only in the last key, so no assignment applies.
    pub almost_matching_scope: Struct,
    /// Id of a role of the largest size.
    pub role: String,
    /// Permissions of that role.
    pub permissions: Vec<String>,
}

/// Registers the tenant and fills it.
///
/// # Errors
/// Returns an error when the server cannot be reached, refuses the tenant or a user, or accepts no
/// role or no scope.
pub async fn create(server: &Server) -> anyhow::Result<NoisyTenant> {
    let channel = Endpoint::from_shared(format!("http://{}", server.addr))?.connect().await?;
    let slug = format!("noisy-{}", Uuid::new_v4().simple());
    let token = register(AuthServiceClient::new(channel.clone()), &slug).await?;
    let with_token = |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", token.clone());
        Ok(request)
    };
    let mut users = UserServiceClient::with_interceptor(channel.clone(), with_token);
    let mut roles = RoleServiceClient::with_interceptor(channel, with_token);

    let imported_password = "long ".repeat(20);
    let hash = bcrypt::hash(&imported_password.as_bytes()[..BCRYPT_INPUT], BCRYPT_COST);
    let hash = hash.map_err(|error| anyhow!("bcrypt: {error}"))?;
    let mut imported_emails = Vec::new();
    for number in 0..IMPORTED_USERS {
        let email = format!("imported-{number}@noisy.test");
        let credential = Some(Credential::PasswordHash(hash.clone()));
        let request = CreateUserRequest { email: email.clone(), credential, ..Default::default() };
        users.create_user(request).await?;
        imported_emails.push(email);
    }

    let permissions: Vec<_> = (0..1000).map(|n| format!("resource-{n:03}:action")).collect();
    let mut first_role = None;
    for number in 0..MAX_ROLES {
        let request = CreateRoleRequest {
            name: format!("role {number}"),
            level: RoleLevel::Member.into(),
            permissions: permissions.clone(),
            ..Default::default()
        };
        let Ok(response) = roles.create_role(request).await else { break };
        first_role = first_role.or(response.into_inner().role.map(|role| role.id));
    }
    let role = first_role.context("the server accepts no role of this size")?;

    let email = "subject@noisy.test".to_owned();
    let response = users.create_user(CreateUserRequest { email, ..Default::default() }).await?;
    let subject = response.into_inner().user.context("the response has no user")?.id;
    let mut scope_bytes = FIRST_SCOPE_BYTES;
    let mut number = 0;
    while number < MAX_ASSIGNMENTS && scope_bytes > SCOPE_KEYS {
        let request = AssignRoleRequest {
            user_id: subject.clone(),
            role_id: role.clone(),
            scope: Some(scope(number, scope_bytes)),
            ..Default::default()
        };
        match roles.assign_role(request).await {
            Ok(_) => number += 1,
            // The scope is too large, or the limit leaves no space for another scope of this size.
            Err(_) => scope_bytes /= 2,
        }
    }
    anyhow::ensure!(number > 0, "the server accepts no scope");
    Ok(NoisyTenant {
        slug,
        token,
        imported_emails,
        imported_password,
        subject,
        almost_matching_scope: almost_matching_scope(),
        role,
        permissions,
    })
}

async fn register(mut auth: AuthServiceClient<Channel>, slug: &str) -> anyhow::Result<Bearer> {
    let email = "admin@noisy.test".to_owned();
    let request = RegisterRequest {
        email: email.clone(),
        password: PASSWORD.to_owned(),
        organization_name: "Noisy".to_owned(),
        organization_slug: slug.to_owned(),
        ..Default::default()
    };
    auth.register(request).await?;
    let request = LoginRequest {
        email,
        password: PASSWORD.to_owned(),
        organization_slug: slug.to_owned(),
        ..Default::default()
    };
    let tokens = auth.login(request).await?.into_inner();
    Ok(format!("Bearer {}", tokens.access_token).parse()?)
}

/// A scope of about `bytes` bytes, whose values are lists. [`almost_matching_scope`] matches the
/// last value of each list, except for the list of the last key.
fn scope(number: usize, bytes: usize) -> Struct {
    // A value takes 12 bytes: 9 digits, two quotes and a comma.
    let values_per_key = (bytes / SCOPE_KEYS / 12).clamp(1, 999);
    let list = |key: usize| {
        let values = (0..values_per_key).map(|n| format!("{number:02}{n:07}"));
        let last_value = if key + 1 == SCOPE_KEYS { "no match" } else { "match" };
        let values = values.chain([last_value.to_owned()]).map(string_value).collect();
        Value { kind: Some(Kind::ListValue(ListValue { values })) }
    };
    Struct { fields: (0..SCOPE_KEYS).map(|key| (key_name(key), list(key))).collect() }
}

fn almost_matching_scope() -> Struct {
    let fields: BTreeMap<_, _> =
        (0..SCOPE_KEYS).map(|key| (key_name(key), string_value("match".to_owned()))).collect();
    Struct { fields }
}

fn key_name(key: usize) -> String {
    format!("k{key:02}")
}

fn string_value(text: String) -> Value {
    Value { kind: Some(Kind::StringValue(text)) }
}
