//! TenantService: suspending and reactivating

use tenantry::proto::v1::{
    CheckRequest, DecisionReason, LoginRequest, ReactivateTenantRequest, RefreshRequest,
    SuspendTenantRequest, Tenant, TenantState, WhoAmIRequest,
};
use tonic::{Code, Status};

use crate::harness::{Client, PASSWORD, TestApp, reason, refused};

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

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn in_a_suspended_tenant_nothing_works_and_other_tenants_are_unaffected() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let staff = app.platform_admin().await;
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("an answer; the session is now cached");

    assert_eq!(suspend(&staff, "acme").await.expect("suspended").state(), TenantState::Suspended);
    let me = acme.auth().who_am_i(WhoAmIRequest {}).await;
    refused(me, Code::PermissionDenied, "TENANT_SUSPENDED");
    let question = || CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let check = acme.permissions().check(question()).await;
    refused(check, Code::PermissionDenied, "TENANT_SUSPENDED");
    let request = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    let login = app.anonymous().auth().login(request).await;
    refused(login, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let refresh = app.anonymous().auth().refresh(request).await;
    assert_eq!(refresh.expect_err("refused").code(), Code::Unauthenticated);
    let of_admin = CheckRequest { user_id: acme.user_id.clone(), ..question() };
    let denied = staff.with("x-tenant-id", "acme").decide(of_admin).await;
    assert_eq!((denied.allowed, denied.reason()), (false, DecisionReason::NotGranted));
    assert!(other.may("", "doc:read").await);
}

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn after_reactivation_a_tenants_sessions_work_again() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await;

    suspend(&staff, &acme.tenant_id).await.expect("suspended");
    let tenant = reactivate(&staff, &acme.slug).await.expect("reactivated");
    assert_eq!(tenant.state(), TenantState::Active);
    assert!(acme.may("", "doc:read").await);
    let refresh_token = acme.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    app.anonymous().auth().refresh(request).await.expect("refreshed");
}

#[tokio::test]
async fn suspending_and_reactivating_again_change_nothing() {
    let app = TestApp::spawn().await;
    app.tenant("acme").await;
    let staff = app.platform_admin().await;

    let first = suspend(&staff, "acme").await.expect("suspended");
    assert_eq!(suspend(&staff, "acme").await.expect("suspended already"), first);
    let first = reactivate(&staff, "acme").await.expect("reactivated");
    assert_eq!(reactivate(&staff, "acme").await.expect("active already"), first);
    for kind in ["tenant_suspended", "tenant_reactivated"] {
        let events = app.recorded(kind).await;
        assert_eq!(events.len(), 1, "{kind}");
        assert_eq!(events[0].actor_id.map(|id| id.to_string()), Some(staff.user_id.clone()));
        assert_eq!(events[0].target_id, Some(events[0].tenant_id));
    }
}

#[tokio::test]
async fn the_platform_cannot_be_suspended_and_only_platform_staff_suspend() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await;

    for (by, tenant, code, wanted) in [
        (&staff, "platform", Code::FailedPrecondition, "PLATFORM_TENANT"),
        (&staff, staff.tenant_id.as_str(), Code::FailedPrecondition, "PLATFORM_TENANT"),
        (&staff, "nowhere", Code::NotFound, "NOT_FOUND"),
        (&staff, "", Code::InvalidArgument, "INVALID_FIELDS"),
        (&acme, "acme", Code::PermissionDenied, "PERMISSION_MISSING"),
        (&acme, "nowhere", Code::PermissionDenied, "PERMISSION_MISSING"),
    ] {
        for status in [suspend(by, tenant).await, reactivate(by, tenant).await] {
            let status = status.expect_err("refused");
            assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{tenant}");
        }
    }
}
