//! A suspension denies all sign-ins and calls of a tenant immediately. A reactivation restores the
//! earlier state.

use tenantry::{
    gate::{Access, Policies},
    proto::v1::{
        CheckRequest, DecisionReason, IntrospectTokenRequest, LoginRequest,
        ReactivateTenantRequest, RefreshRequest, RegisterRequest, SuspendTenantRequest,
        UpdateTenantRequest, WhoAmIRequest,
    },
};
use tonic::Code;

use crate::harness::{Client, Ids, PASSWORD, TestApp, assert_refused, methods};

async fn suspend(platform_admin: &Client, tenant: &str) {
    let request = SuspendTenantRequest { tenant: tenant.into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
}

fn login_request(client: &Client) -> LoginRequest {
    LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        ..LoginRequest::default()
    }
}

fn refresh_request(client: &Client) -> RefreshRequest {
    let refresh_token = client.tokens.refresh_token.clone();
    RefreshRequest { refresh_token, ..RefreshRequest::default() }
}

/// D14: another tenant is not affected.
#[tokio::test]
async fn a_suspension_denies_every_method_on_every_replica() {
    let app = TestApp::spawn().await;
    let other_replica = TestApp::on_database(&app.database, |_| {}).await;
    let platform_admin = app.platform_admin().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    // Puts the session into the cache of both replicas.
    a.auth().who_am_i(WhoAmIRequest {}).await.expect("a response");
    a.on_server(&other_replica.channel)
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await
        .expect("a response");
    suspend(&platform_admin, &a.tenant_id).await;
    let rows_before = app.rows_of(&a.tenant_id).await;

    let policies = Policies::load().expect("the policies load");
    let needs_token = |path: &str| policies.access_of(path) != Some(&Access::Public);
    for client in [&a, &a.on_server(&other_replica.channel), &a.with_metadata("x-tenant-id", "a")] {
        for method in methods().iter().filter(|method| needs_token(&method.path())) {
            let reply = method.call(client, &method.sample(&Ids::random())).await;
            assert!(reply.is_err(), "{} accepts the call", method.path());
            assert_refused(reply, Code::PermissionDenied, "TENANT_SUSPENDED");
        }
    }
    let mut anonymous = app.anonymous().auth();
    assert_refused(
        anonymous.refresh(refresh_request(&a)).await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
    assert_eq!(app.rows_of(&a.tenant_id).await, rows_before);
    assert_refused(
        anonymous.login(login_request(&a)).await,
        Code::Unauthenticated,
        "INVALID_CREDENTIALS",
    );

    b.auth().who_am_i(WhoAmIRequest {}).await.expect("the other tenant is not suspended");
    anonymous.login(login_request(&b)).await.expect("users of the other tenant sign in");
}

/// D14: the response is the same for a sign-in that names the tenant and for one that names no
/// tenant.
#[tokio::test]
async fn a_sign_in_to_a_suspended_tenant_looks_like_a_wrong_password() {
    let app = TestApp::shared();
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let mut anonymous = app.anonymous().auth();
    let wrong_request = LoginRequest { password: "wrong password".into(), ..login_request(&a) };
    let reply = anonymous.login(wrong_request).await;
    let wrong_status = assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    suspend(&platform_admin, &a.slug).await;
    let reply_by_slug = anonymous.login(login_request(&a)).await;
    let reply_by_email = anonymous
        .login(LoginRequest { organization_slug: String::new(), ..login_request(&a) })
        .await;
    for reply in [reply_by_slug, reply_by_email] {
        let status = assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        assert_eq!(status.message(), wrong_status.message());
        assert_eq!(status.details(), wrong_status.details());
    }
}

/// D14: a check of a suspended tenant's user is denied, and introspection reports the user's tokens
/// as inactive.
#[tokio::test]
async fn decisions_about_a_suspended_tenants_users_are_denials() {
    let app = TestApp::shared();
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let platform_admin_in_a = platform_admin.with_metadata("x-tenant-id", &a.tenant_id);
    let check_by_id = CheckRequest {
        user_id: a.user_id.clone(),
        permission: "user:read".into(),
        ..CheckRequest::default()
    };
    let check_by_token = CheckRequest {
        permission: "user:read".into(),
        access_token: a.tokens.access_token.clone(),
        ..CheckRequest::default()
    };
    for request in [&check_by_id, &check_by_token] {
        let decision =
            platform_admin_in_a.permissions().check(request.clone()).await.expect("an answer");
        assert!(decision.into_inner().allowed);
    }
    suspend(&platform_admin, &a.slug).await;
    for request in [check_by_id, check_by_token] {
        let decision =
            platform_admin_in_a.permissions().check(request).await.expect("an answer").into_inner();
        assert_eq!((decision.allowed, decision.reason()), (false, DecisionReason::NotGranted));
    }
    for token in [&a.tokens.access_token, &a.tokens.refresh_token] {
        let request = IntrospectTokenRequest { token: token.clone() };
        let introspection = platform_admin_in_a
            .auth()
            .introspect_token(request)
            .await
            .expect("an answer")
            .into_inner();
        assert!(!introspection.active);
    }
}

/// D14: a registration is refused although the tenant allows self-registration.
#[tokio::test]
async fn no_user_can_register_in_a_suspended_tenant() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let settings =
        prost_types::Struct { fields: [("self_registration".into(), true.into())].into() };
    let request =
        UpdateTenantRequest { settings: Some(settings), ..UpdateTenantRequest::default() };
    a.tenants().update_tenant(request).await.expect("self-registration is on");
    let register_request = |email: &str| RegisterRequest {
        email: email.into(),
        password: PASSWORD.into(),
        organization_slug: "a".into(),
        ..RegisterRequest::default()
    };
    let mut anonymous = app.anonymous().auth();
    anonymous.register(register_request("one@a.test")).await.expect("registered");
    suspend(&platform_admin, "a").await;
    let reply = anonymous.register(register_request("two@a.test")).await;
    assert_refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
}

/// D14: a repeated suspension has no effect and is not recorded.
#[tokio::test]
async fn a_reactivated_tenant_works_as_before() {
    let app = TestApp::shared();
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    // The second suspension has no effect.
    suspend(&platform_admin, &a.slug).await;
    suspend(&platform_admin, &a.slug).await;
    let request = ReactivateTenantRequest { tenant: a.slug.clone() };
    platform_admin.tenants().reactivate_tenant(request).await.expect("reactivated");

    a.auth().who_am_i(WhoAmIRequest {}).await.expect("the sessions are live");
    let mut anonymous = app.anonymous().auth();
    anonymous.refresh(refresh_request(&a)).await.expect("the refresh token was not used");
    anonymous.login(login_request(&a)).await.expect("users sign in");
    assert_eq!(app.audit_event_count(&a.tenant_id, "tenant_suspended").await, 1);
    assert_eq!(app.audit_event_count(&a.tenant_id, "tenant_reactivated").await, 1);
}
