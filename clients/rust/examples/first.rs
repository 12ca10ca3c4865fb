//! Creates a tenant, a user and a role, and checks what the user may do.

#![expect(clippy::print_stdout, reason = "the example prints its results")]

use std::{env, process};

use prost_types::{ListValue, Struct, Value, value::Kind};
use tenantry_client::{
    Client,
    v1::{
        AssignRoleRequest, CheckRequest, CreateRoleRequest, CreateUserRequest, DecisionReason,
        LoginRequest, LogoutRequest, RegisterRequest, RoleLevel,
        auth_service_client::AuthServiceClient, permission_service_client::PermissionServiceClient,
        role_service_client::RoleServiceClient, user_service_client::UserServiceClient,
    },
};
use tonic_types::StatusExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = env::var("TENANTRY_ADDR").unwrap_or_else(|_| "127.0.0.1:50051".into());
    // For a server on another machine use https.
    let url = format!("http://{address}");
    let tenant = format!("acme-{}", process::id());
    let mut auth = AuthServiceClient::new(Client::builder(&url).connect()?);
    let (email, password) = ("ada@acme.test", "correct horse battery");
    auth.register(RegisterRequest {
        email: email.into(),
        password: password.into(),
        organization_name: "Acme".into(),
        organization_slug: tenant.clone(),
        ..RegisterRequest::default()
    })
    .await?;
    let login = auth
        .login(LoginRequest {
            email: email.into(),
            password: password.into(),
            organization_slug: tenant,
            ..LoginRequest::default()
        })
        .await?
        .into_inner();

    // This client calls as the user who has signed in. A service uses `api_key` instead of
    // `session`.
    let client = Client::builder(&url).session(login.refresh_token).connect()?;
    let user = create_user_with_role(&client).await?;
    for region in ["eu", "asia"] {
        let request = CheckRequest {
            user_id: user.clone(),
            permission: "invoice:read".into(),
            scope: Some(scope(text(region))),
            ..CheckRequest::default()
        };
        let mut permissions = PermissionServiceClient::new(client.clone());
        let response = permissions.check(request).await?.into_inner();
        let decision = if response.allowed { "allowed" } else { "denied" };
        let reason = DecisionReason::try_from(response.reason)?.as_str_name();
        println!("invoice:read in {region}: {decision} ({reason})");
    }

    let request = CreateUserRequest { email: "grace".into(), ..CreateUserRequest::default() };
    if let Err(status) = UserServiceClient::new(client.clone()).create_user(request).await {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.as_str()).unwrap_or_default();
        for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
            println!("refused ({reason}): {}: {}", violation.field, violation.description);
        }
    }
    AuthServiceClient::new(client).logout(LogoutRequest::default()).await?;
    Ok(())
}

/// Creates a user who has all invoice permissions in the regions `eu` and `us`.
async fn create_user_with_role(client: &Client) -> anyhow::Result<String> {
    let request =
        CreateUserRequest { email: "grace@acme.test".into(), ..CreateUserRequest::default() };
    let user = UserServiceClient::new(client.clone()).create_user(request).await?.into_inner();
    let mut roles = RoleServiceClient::new(client.clone());
    let request = CreateRoleRequest {
        name: "billing".into(),
        level: RoleLevel::Member.into(),
        permissions: vec!["invoice:*".into()],
        ..CreateRoleRequest::default()
    };
    let role = roles.create_role(request).await?.into_inner();
    let regions = ListValue { values: vec![text("eu"), text("us")] };
    let user_id = user.user.unwrap_or_default().id;
    let request = AssignRoleRequest {
        user_id: user_id.clone(),
        role_id: role.role.unwrap_or_default().id,
        scope: Some(scope(Value { kind: Some(Kind::ListValue(regions)) })),
        ..AssignRoleRequest::default()
    };
    roles.assign_role(request).await?;
    Ok(user_id)
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

fn scope(region: Value) -> Struct {
    Struct { fields: [("region".to_owned(), region)].into() }
}
