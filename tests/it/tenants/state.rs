//! TenantService: suspension and reactivation

use tenantry::proto::v1::{
    CheckRequest, DecisionReason, LoginRequest, ReactivateTenantRequest, RefreshRequest,
    SuspendTenantRequest, Tenant, TenantState, WhoAmIRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, reason};

async fn suspend(client: &Client, tenant: &str) -> Result<Tenant, Status> {
    let request = SuspendTenantRequest { tenant: tenant.into() };
    let reply = client.tenants().suspend_tenant(request).await?;
    Ok(reply.into_inner().tenant.expect("the tenant"))
}

async fn reactivate(client: &Client, tenant: &str) -> Result<Tenant, Status> {
    let request = ReactivateTenantRequest { tenant: tenant.into() };
    let reply = client.tenants().reactivate_tenant(request).await?;
    Ok(reply.into_inner().tenant.expect("the tenant"))
}

/// D14: the denied calls include sign-ins and refreshes. Checks about users of the tenant are
/// denials.
#[tokio::test]
async fn a_suspension_denies_all_calls_of_one_tenant() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let platform_admin = app.platform_admin().await;
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("a response; the session is now cached");

    assert_eq!(
        suspend(&platform_admin, "acme").await.expect("suspended").state(),
        TenantState::Suspended
    );
    let result = acme.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::PermissionDenied, "TENANT_SUSPENDED");
    let check_request =
        || CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let result = acme.permissions().check(check_request()).await;
    assert_refused(result, Code::PermissionDenied, "TENANT_SUSPENDED");
    let request = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    let result = app.anonymous().auth().login(request).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let result = app.anonymous().auth().refresh(request).await;
    assert_eq!(result.expect_err("refused").code(), Code::Unauthenticated);
    let request = CheckRequest { user_id: acme.user_id.clone(), ..check_request() };
    let decision = platform_admin.with_metadata("x-tenant-id", "acme").decide(request).await;
    assert_eq!((decision.allowed, decision.reason()), (false, DecisionReason::NotGranted));
    assert!(other.may("doc:read").await);
}

/// D14: a suspension does not end the sessions of the tenant.
#[tokio::test]
async fn after_reactivation_a_tenants_sessions_work_again() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    suspend(&platform_admin, &acme.tenant_id).await.expect("suspended");
    let tenant = reactivate(&platform_admin, &acme.slug).await.expect("reactivated");
    assert_eq!(tenant.state(), TenantState::Active);
    assert!(acme.may("doc:read").await);
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    app.anonymous().auth().refresh(request).await.expect("refreshed");
}

#[tokio::test]
async fn a_repeated_suspension_or_reactivation_changes_nothing() {
    let app = TestApp::spawn().await;
    app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    let tenant = suspend(&platform_admin, "acme").await.expect("suspended");
    assert_eq!(suspend(&platform_admin, "acme").await.expect("still suspended"), tenant);
    let tenant = reactivate(&platform_admin, "acme").await.expect("reactivated");
    assert_eq!(reactivate(&platform_admin, "acme").await.expect("still active"), tenant);
    for kind in ["tenant_suspended", "tenant_reactivated"] {
        let events = app.audit_events(kind).await;
        assert_eq!(events.len(), 1, "{kind}");
        assert_eq!(
            events[0].actor_id.map(|id| id.to_string()),
            Some(platform_admin.user_id.clone())
        );
        assert_eq!(events[0].target_id, Some(events[0].tenant_id));
    }
}

#[tokio::test]
async fn a_suspension_of_the_platform_or_without_the_permission_is_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    for (client, tenant, code, expected_reason) in [
        (&platform_admin, "platform", Code::FailedPrecondition, "PLATFORM_TENANT"),
        (
            &platform_admin,
            platform_admin.tenant_id.as_str(),
            Code::FailedPrecondition,
            "PLATFORM_TENANT",
        ),
        (&platform_admin, "nowhere", Code::NotFound, "NOT_FOUND"),
        (&platform_admin, "", Code::InvalidArgument, "INVALID_FIELDS"),
        (&acme, "acme", Code::PermissionDenied, "PERMISSION_MISSING"),
        (&acme, "nowhere", Code::PermissionDenied, "PERMISSION_MISSING"),
    ] {
        for status in [suspend(client, tenant).await, reactivate(client, tenant).await] {
            let status = status.expect_err("refused");
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (code, expected_reason),
                "{tenant}"
            );
        }
    }
}
