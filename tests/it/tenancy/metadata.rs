//! The tenant in the metadata: the metadata must name the tenant once and without ambiguity.

use tenantry::proto::v1::{
    GetJwksRequest, LoginRequest, RefreshRequest, RegisterRequest, WhoAmIRequest,
};
use tonic::{
    Code,
    metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataValue},
};

use crate::harness::{Client, Ids, PASSWORD, TestApp, methods, refused};

/// Asserts that every method refuses the metadata, with and without a token.
async fn all_refuse(client: &Client, what: &str) {
    for method in methods() {
        for caller in [client.clone(), client.with_token("")] {
            let reply = method.call(&caller, &method.sample(&Ids::random())).await;
            assert!(reply.is_err(), "{what}: {} answers", method.path());
            refused(reply, Code::InvalidArgument, "INVALID_METADATA");
        }
    }
}

/// D03, D04, D05: the metadata must name exactly one tenant.
#[tokio::test]
async fn metadata_that_names_not_exactly_one_tenant_is_refused_by_every_method() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let before = app.row_counts().await;
    let (a_id, b_id) = (a.tenant_id.as_str(), b.tenant_id.as_str());
    let long = "a".repeat(64);
    let longer = "a".repeat(10 * 1024);
    let both = format!("{a_id},{b_id}");
    for entries in [
        // D03: both headers, even when they agree.
        vec![("x-tenant-id", a_id), ("x-organization-slug", "b")],
        vec![("x-tenant-id", a_id), ("x-organization-slug", "a")],
        // D05: one header twice, even with the same value.
        vec![("x-tenant-id", a_id), ("x-tenant-id", b_id)],
        vec![("x-tenant-id", b_id), ("x-tenant-id", a_id)],
        vec![("x-tenant-id", a_id), ("x-tenant-id", a_id)],
        vec![("x-organization-slug", "a"), ("x-organization-slug", "a")],
        vec![("x-tenant-id", &both)],
        vec![("x-tenant-id", "a, b")],
        // D04: values that are neither an id nor a slug.
        vec![("x-tenant-id", "")],
        vec![("x-organization-slug", "")],
        vec![("x-tenant-id", "a b")],
        vec![("x-tenant-id", "a/../b")],
        vec![("x-tenant-id", "' or 1=1--")],
        vec![("x-tenant-id", "a%00")],
        vec![("x-tenant-id", &long)],
        vec![("x-tenant-id", &longer)],
    ] {
        let client = entries.iter().fold(a.clone(), |client, (key, value)| client.with(key, value));
        all_refuse(&client, &format!("{entries:.60?}")).await;
    }
    assert_eq!(app.row_counts().await, before);
}

/// D04: the tenant in the metadata must be well-formed.
#[tokio::test]
async fn metadata_that_is_not_ascii_text_is_refused_by_every_method() {
    let app = TestApp::spawn().await;
    let a = app.tenant("a").await;
    for key in ["x-tenant-id", "x-organization-slug"] {
        let mut unicode = a.clone();
        let value = MetadataValue::try_from("ä".as_bytes()).expect("a header takes it");
        unicode.metadata.0.insert(key, value);
        all_refuse(&unicode, "unicode").await;

        let mut binary = a.clone();
        let key = BinaryMetadataKey::from_bytes(format!("{key}-bin").as_bytes()).expect("a key");
        binary.metadata.0.insert_bin(key, BinaryMetadataValue::from_bytes(b"a"));
        all_refuse(&binary, "binary").await;
    }
}

#[tokio::test]
async fn the_tokens_own_tenant_may_be_named_by_id_or_slug_in_any_case() {
    let app = TestApp::spawn().await;
    let a = app.tenant("acme-1").await;
    let upper = a.tenant_id.to_uppercase();
    for key in ["x-tenant-id", "x-organization-slug"] {
        for value in [a.tenant_id.as_str(), upper.as_str(), "acme-1", "ACME-1"] {
            let me = a.with(key, value).auth().who_am_i(WhoAmIRequest {}).await;
            let me = me.expect("knows itself").into_inner();
            assert_eq!(me.tenant.expect("a tenant").id, a.tenant_id, "{key} {value}");
        }
    }
}

/// Every public method answers an unknown tenant with an error.
#[tokio::test]
async fn an_unknown_tenant_is_never_ignored() {
    let app = TestApp::spawn().await;
    let a = app.tenant("lost").await;
    let before = app.row_counts().await;
    let unknown = uuid::Uuid::now_v7().to_string();
    for (key, value) in [("x-tenant-id", unknown.as_str()), ("x-organization-slug", "nowhere")] {
        let lost = app.anonymous().with(key, value);
        let register = RegisterRequest {
            email: "new@a.test".into(),
            password: PASSWORD.into(),
            ..RegisterRequest::default()
        };
        let found = RegisterRequest { organization_name: "New".into(), ..register.clone() };
        let join = RegisterRequest { organization_slug: "lost".into(), ..register.clone() };
        let auth = &mut lost.auth();
        refused(auth.register(register).await, Code::NotFound, "NOT_FOUND");
        refused(auth.register(join).await, Code::InvalidArgument, "INVALID_FIELDS");
        refused(auth.register(found).await, Code::InvalidArgument, "INVALID_FIELDS");
        let login = |slug: &str| LoginRequest {
            email: a.email.clone(),
            password: PASSWORD.into(),
            organization_slug: slug.into(),
            ..LoginRequest::default()
        };
        let reply = auth.login(login("")).await;
        refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        // N20
        let reply = auth.login(login("lost")).await;
        refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
        let refresh = RefreshRequest {
            refresh_token: a.tokens.refresh_token.clone(),
            ..RefreshRequest::default()
        };
        refused(auth.refresh(refresh).await, Code::Unauthenticated, "TOKEN_INVALID");
        refused(auth.get_jwks(GetJwksRequest {}).await, Code::NotFound, "NOT_FOUND");
        for method in methods() {
            let reply = method.call(&lost, &method.sample(&Ids::random())).await;
            assert!(reply.is_err(), "{} ignores an unknown tenant", method.path());
        }
    }
    // The failed sign-ins are recorded with the nil tenant id.
    let failures = app.recorded("sign_in_failed").await;
    assert!(!failures.is_empty());
    assert!(failures.iter().all(|event| event.tenant_id.is_nil()));
    let mut after = app.row_counts().await;
    *after.get_mut("audit_events").expect("the trail") -=
        i64::try_from(failures.len()).expect("few");
    assert_eq!(after, before);
    // The sample's email may have had so many failures that a sign-in must wait.
    assert!((2..=4).contains(&failures.len()), "{}", failures.len());
}

/// C17: a refresh token sent with another tenant's name does not end its session.
#[tokio::test]
async fn a_refresh_token_sent_for_another_tenant_is_refused_and_stays_unspent() {
    let app = TestApp::spawn().await;
    let (a, _) = (app.tenant("a").await, app.tenant("b").await);
    let refresh = RefreshRequest {
        refresh_token: a.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let reply = app.anonymous().with("x-tenant-id", "b").auth().refresh(refresh.clone()).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let named = app.anonymous().with("x-tenant-id", "a");
    named.auth().refresh(refresh).await.expect("unspent, and accepted with its own tenant's name");
}
