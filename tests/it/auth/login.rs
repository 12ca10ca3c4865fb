//! AuthService.Login

use tenantry::proto::v1::{
    DisableUserRequest, LoginRequest, LookupUserRequest, RegisterRequest, SuspendTenantRequest,
    WhoAmIRequest,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, assert_refused, unknown_id};

fn login_request(slug: &str, email: &str, password: &str) -> LoginRequest {
    LoginRequest {
        email: email.into(),
        password: password.into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    }
}

#[tokio::test]
async fn the_tenant_comes_from_metadata_the_body_or_the_email() {
    let app = TestApp::with_settings(|values| values.set("TENANTLESS_SIGN_IN", "any")).await;
    let acme = app.create_tenant("acme").await;
    let anonymous = app.anonymous();

    let by_slug = anonymous.auth().login(login_request("acme", &acme.email, PASSWORD)).await;
    let by_email = anonymous.auth().login(login_request("", &acme.email, PASSWORD)).await;
    let with_tenant_id = anonymous.with_metadata("x-tenant-id", &acme.tenant_id);
    let by_metadata = with_tenant_id.auth().login(login_request("", &acme.email, PASSWORD)).await;

    for reply in [by_slug, by_email, by_metadata] {
        let tokens = reply.expect("signs in").into_inner();
        let me = anonymous.with_token(&tokens.access_token).auth().who_am_i(WhoAmIRequest {}).await;
        let me = me.expect("an identity").into_inner();
        assert_eq!(me.tenant.expect("a tenant").id, acme.tenant_id);
        assert_eq!(me.session_id, tokens.session_id);
        assert_eq!(me.roles, ["org_admin"]);
    }
}

/// N20: a call with two different tenants is refused.
#[tokio::test]
async fn the_tenant_in_metadata_and_in_the_message_must_be_the_same() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let anonymous = app.anonymous();
    let unknown = unknown_id();
    for (header, tenant) in [
        ("x-organization-slug", "other"),
        ("x-tenant-id", other.tenant_id.as_str()),
        ("x-organization-slug", "nowhere"),
        ("x-tenant-id", &unknown),
    ] {
        let client = anonymous.with_metadata(header, tenant);
        let reply = client.auth().login(login_request("acme", &acme.email, PASSWORD)).await;
        assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
        let join = RegisterRequest {
            email: "grace@acme.test".into(),
            password: PASSWORD.into(),
            organization_slug: "acme".into(),
            ..RegisterRequest::default()
        };
        assert_refused(client.auth().register(join).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
    for (header, tenant) in
        [("x-organization-slug", "acme"), ("x-tenant-id", acme.tenant_id.as_str())]
    {
        let client = anonymous.with_metadata(header, tenant);
        let reply = client.auth().login(login_request("acme", &acme.email, PASSWORD)).await;
        reply.expect("signs in");
    }
}

/// N20: a malformed email is refused before any lookup.
#[tokio::test]
async fn a_malformed_email_is_an_invalid_field() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let reply = acme.auth().login(login_request(&acme.slug, "not-an-email", PASSWORD)).await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
    let lookup = LookupUserRequest { email: "not-an-email".into() };
    assert_refused(acme.users().lookup_user(lookup).await, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test]
async fn every_failed_sign_in_gets_the_same_status() {
    let app = TestApp::spawn().await;
    let acme: Client = app.create_tenant("acme").await;
    let user_id = acme.create_user("disabled@acme.test").await;
    acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    acme.create_user_without_password("invited@acme.test").await;
    let suspended = app.create_tenant("suspended").await;
    let platform_admin = app.platform_admin().await;
    let request = SuspendTenantRequest { tenant: "suspended".into() };
    platform_admin.tenants().suspend_tenant(request).await.expect("suspended");
    let anonymous = app.anonymous();

    let mut statuses = Vec::new();
    for (slug, email, password) in [
        ("acme", acme.email.as_str(), "not the password"),
        ("acme", "nobody@acme.test", PASSWORD),
        ("nowhere", acme.email.as_str(), PASSWORD),
        ("", "nobody@acme.test", PASSWORD),
        ("acme", "disabled@acme.test", PASSWORD),
        ("acme", "invited@acme.test", PASSWORD),
        ("suspended", suspended.email.as_str(), PASSWORD),
    ] {
        let status = assert_refused(
            anonymous.auth().login(login_request(slug, email, password)).await,
            Code::Unauthenticated,
            "INVALID_CREDENTIALS",
        );
        statuses.push((status.message().to_owned(), status.details().to_vec()));
    }
    statuses.dedup();
    assert_eq!(statuses.len(), 1);
}
