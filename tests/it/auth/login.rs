//! AuthService.Login

use tenantry::proto::v1::{LoginRequest, WhoAmIRequest};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, refused};

fn attempt(slug: &str, email: &str, password: &str) -> LoginRequest {
    LoginRequest {
        email: email.into(),
        password: password.into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    }
}

#[tokio::test]
async fn the_tenant_comes_from_metadata_the_body_or_an_email_that_one_tenant_has() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let nobody = app.anonymous();

    let by_slug = nobody.auth().login(attempt("acme", &acme.email, PASSWORD)).await;
    let by_email = nobody.auth().login(attempt("", &acme.email, PASSWORD)).await;
    let in_metadata = nobody.with("x-tenant-id", &acme.tenant_id);
    let by_metadata = in_metadata.auth().login(attempt("", &acme.email, PASSWORD)).await;

    for reply in [by_slug, by_email, by_metadata] {
        let tokens = reply.expect("signs in").into_inner();
        let me = nobody.with_token(&tokens.access_token).auth().who_am_i(WhoAmIRequest {}).await;
        let me = me.expect("knows itself").into_inner();
        assert_eq!(me.tenant.expect("a tenant").id, acme.tenant_id);
        assert_eq!(me.session_id, tokens.session_id);
        assert_eq!(me.roles, ["org_admin"]);
    }
}

#[tokio::test]
async fn an_email_that_two_tenants_have_needs_a_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    a.create_user("ada@both.test").await;
    b.create_user("ada@both.test").await;
    let nobody = app.anonymous();

    let ambiguous = nobody.auth().login(attempt("", "ada@both.test", PASSWORD)).await;
    refused(ambiguous, Code::Unauthenticated, "INVALID_CREDENTIALS");
    nobody.login("b", "ada@both.test", PASSWORD).await;
}

#[tokio::test]
async fn every_failure_looks_the_same() {
    let app = TestApp::spawn().await;
    let acme: Client = app.tenant("acme").await;
    acme.create_user("gone@acme.test").await;
    let nobody = app.anonymous();

    let mut seen = Vec::new();
    for (slug, email, password) in [
        ("acme", acme.email.as_str(), "not the password"),
        ("acme", "nobody@acme.test", PASSWORD),
        ("nowhere", acme.email.as_str(), PASSWORD),
        ("", "nobody@acme.test", PASSWORD),
    ] {
        let status = refused(
            nobody.auth().login(attempt(slug, email, password)).await,
            Code::Unauthenticated,
            "INVALID_CREDENTIALS",
        );
        seen.push((status.message().to_owned(), status.details().to_vec()));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}
