//! A suspended tenant: sign-ins and all calls are denied at once. Reactivation restores the earlier
//! state.

use tenantry::{
    gate::{Access, Policies},
    proto::v1::{
        CheckRequest, DecisionReason, IntrospectTokenRequest, LoginRequest,
        ReactivateTenantRequest, RefreshRequest, RegisterRequest, SuspendTenantRequest,
        UpdateTenantRequest, WhoAmIRequest,
    },
};
use tonic::Code;

use crate::harness::{Client, Ids, PASSWORD, TestApp, methods, refused};

async fn suspend(root: &Client, tenant: &str) {
    let request = SuspendTenantRequest { tenant: tenant.into() };
    root.tenants().suspend_tenant(request).await.expect("it is suspended");
}

fn login(client: &Client) -> LoginRequest {
    LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        ..LoginRequest::default()
    }
}

fn refresh(client: &Client) -> RefreshRequest {
    let refresh_token = client.tokens.refresh_token.clone();
    RefreshRequest { refresh_token, ..RefreshRequest::default() }
}

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn a_suspended_tenant_is_denied_every_method_on_every_replica() {
    let app = TestApp::spawn().await;
    let other_replica = TestApp::on(&app.database, |_| {}).await;
    let root = app.platform_admin().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    // Puts the session into the cache of both replicas.
    a.auth().who_am_i(WhoAmIRequest {}).await.expect("works");
    a.on(&other_replica.channel).auth().who_am_i(WhoAmIRequest {}).await.expect("works");
    suspend(&root, &a.tenant_id).await;
    let before = app.rows_of(&a.tenant_id).await;

    let policies = Policies::load().expect("the table");
    let guarded = |path: &str| policies.of(path) != Some(&Access::Public);
    for client in [&a, &a.on(&other_replica.channel), &a.with("x-tenant-id", "a")] {
        for method in methods().iter().filter(|method| guarded(&method.path())) {
            let reply = method.call(client, &method.sample(&Ids::random())).await;
            assert!(reply.is_err(), "{} answers", method.path());
            refused(reply, Code::PermissionDenied, "TENANT_SUSPENDED");
        }
    }
    let mut anonymous = app.anonymous().auth();
    refused(anonymous.refresh(refresh(&a)).await, Code::Unauthenticated, "TOKEN_INVALID");
    assert_eq!(app.rows_of(&a.tenant_id).await, before);
    refused(anonymous.login(login(&a)).await, Code::Unauthenticated, "INVALID_CREDENTIALS");

    b.auth().who_am_i(WhoAmIRequest {}).await.expect("the other tenant works");
    anonymous.login(login(&b)).await.expect("the other tenant signs in");
}

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn a_sign_in_to_a_suspended_tenant_looks_like_a_wrong_password() {
    let app = TestApp::shared();
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let mut anonymous = app.anonymous().auth();
    let wrong = LoginRequest { password: "wrong password".into(), ..login(&a) };
    let reply = anonymous.login(wrong).await;
    let wrong = refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    suspend(&root, &a.slug).await;
    let by_slug = anonymous.login(login(&a)).await;
    let by_email =
        anonymous.login(LoginRequest { organization_slug: String::new(), ..login(&a) }).await;
    for reply in [by_slug, by_email] {
        let suspended = refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        assert_eq!(suspended.message(), wrong.message());
        assert_eq!(suspended.details(), wrong.details());
    }
}

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn decisions_about_a_suspended_tenants_users_are_denials() {
    let app = TestApp::shared();
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let staff = root.with("x-tenant-id", &a.tenant_id);
    let by_id = CheckRequest {
        user_id: a.user_id.clone(),
        permission: "user:read".into(),
        ..CheckRequest::default()
    };
    let by_token = CheckRequest {
        permission: "user:read".into(),
        access_token: a.tokens.access_token.clone(),
        ..CheckRequest::default()
    };
    for question in [&by_id, &by_token] {
        let answer = staff.permissions().check(question.clone()).await.expect("an answer");
        assert!(answer.into_inner().allowed);
    }
    suspend(&root, &a.slug).await;
    for question in [by_id, by_token] {
        let answer = staff.permissions().check(question).await.expect("an answer").into_inner();
        assert_eq!((answer.allowed, answer.reason()), (false, DecisionReason::NotGranted));
    }
    for token in [&a.tokens.access_token, &a.tokens.refresh_token] {
        let ask = IntrospectTokenRequest { token: token.clone() };
        let answer = staff.auth().introspect_token(ask).await.expect("an answer").into_inner();
        assert!(!answer.active);
    }
}

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn nobody_joins_a_suspended_tenant() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let open = prost_types::Struct { fields: [("self_registration".into(), true.into())].into() };
    let open = UpdateTenantRequest { settings: Some(open), ..UpdateTenantRequest::default() };
    a.tenants().update_tenant(open).await.expect("opened");
    let join = |email: &str| RegisterRequest {
        email: email.into(),
        password: PASSWORD.into(),
        organization_slug: "a".into(),
        ..RegisterRequest::default()
    };
    let mut anonymous = app.anonymous().auth();
    anonymous.register(join("one@a.test")).await.expect("joins");
    suspend(&root, "a").await;
    let reply = anonymous.register(join("two@a.test")).await;
    refused(reply, Code::PermissionDenied, "REGISTRATION_CLOSED");
}

/// D14: the suspension of a tenant applies to every call, and reactivation reverts it.
#[tokio::test]
async fn a_reactivated_tenant_continues_as_before() {
    let app = TestApp::shared();
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    suspend(&root, &a.slug).await;
    suspend(&root, &a.slug).await;
    let again = ReactivateTenantRequest { tenant: a.slug.clone() };
    root.tenants().reactivate_tenant(again).await.expect("it is active");

    a.auth().who_am_i(WhoAmIRequest {}).await.expect("its sessions live");
    let mut anonymous = app.anonymous().auth();
    anonymous.refresh(refresh(&a)).await.expect("its refresh tokens are unspent");
    anonymous.login(login(&a)).await.expect("its users sign in");
    assert_eq!(app.audited(&a.tenant_id, "tenant_suspended").await, 1);
    assert_eq!(app.audited(&a.tenant_id, "tenant_reactivated").await, 1);
}
