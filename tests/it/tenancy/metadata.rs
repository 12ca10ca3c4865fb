//! The tenant in the metadata: the metadata must name the tenant once and without ambiguity.

use tenantry::proto::v1::{
    GetJwksRequest, LoginRequest, RefreshRequest, RegisterRequest, WhoAmIRequest,
};
use tonic::{
    Code,
    metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataValue},
};

use crate::harness::{Client, Ids, PASSWORD, TestApp, assert_refused, methods};

/// Asserts that every method refuses the metadata, with and without a token.
async fn assert_all_methods_refuse(client: &Client, what: &str) {
    for method in methods() {
        for caller in [client.clone(), client.with_token("")] {
            let reply = method.call(&caller, &method.sample(&Ids::random())).await;
            assert!(reply.is_err(), "{what}: {} accepts the metadata", method.path());
            assert_refused(reply, Code::InvalidArgument, "INVALID_METADATA");
        }
    }
}

/// D03: both headers together are refused, even when they agree.
/// D04: a value that is neither an id nor a slug is refused.
/// D05: a repeated header and a list of names are refused.
#[tokio::test]
async fn every_method_refuses_metadata_that_does_not_name_exactly_one_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let counts_before = app.row_counts().await;
    let (a_id, b_id) = (a.tenant_id.as_str(), b.tenant_id.as_str());
    // A slug has at most 63 characters.
    let long_slug = "a".repeat(64);
    let longer_slug = "a".repeat(10 * 1024);
    let two_ids = format!("{a_id},{b_id}");
    for entries in [
        // D03: both headers, even when they agree.
        vec![("x-tenant-id", a_id), ("x-organization-slug", "b")],
        vec![("x-tenant-id", a_id), ("x-organization-slug", "a")],
        // D05: one header twice, even with the same value.
        vec![("x-tenant-id", a_id), ("x-tenant-id", b_id)],
        vec![("x-tenant-id", b_id), ("x-tenant-id", a_id)],
        vec![("x-tenant-id", a_id), ("x-tenant-id", a_id)],
        vec![("x-organization-slug", "a"), ("x-organization-slug", "a")],
        vec![("x-tenant-id", &two_ids)],
        vec![("x-tenant-id", "a, b")],
        // D04: values that are neither an id nor a slug.
        vec![("x-tenant-id", "")],
        vec![("x-organization-slug", "")],
        vec![("x-tenant-id", "a b")],
        vec![("x-tenant-id", "a/../b")],
        vec![("x-tenant-id", "' or 1=1--")],
        vec![("x-tenant-id", "a%00")],
        vec![("x-tenant-id", &long_slug)],
        vec![("x-tenant-id", &longer_slug)],
    ] {
        let client =
            entries.iter().fold(a.clone(), |client, (key, value)| client.with_metadata(key, value));
        assert_all_methods_refuse(&client, &format!("{entries:.60?}")).await;
    }
    assert_eq!(app.row_counts().await, counts_before);
}

/// D04: the tenant in the metadata must be well-formed.
#[tokio::test]
async fn every_method_refuses_metadata_that_is_not_ascii_text() {
    let app = TestApp::spawn().await;
    let a = app.create_tenant("a").await;
    for key in ["x-tenant-id", "x-organization-slug"] {
        let mut unicode_client = a.clone();
        let value = MetadataValue::try_from("ä".as_bytes()).expect("a header value");
        unicode_client.metadata.0.insert(key, value);
        assert_all_methods_refuse(&unicode_client, "unicode").await;

        let mut binary_client = a.clone();
        let key = BinaryMetadataKey::from_bytes(format!("{key}-bin").as_bytes()).expect("a key");
        binary_client.metadata.0.insert_bin(key, BinaryMetadataValue::from_bytes(b"a"));
        assert_all_methods_refuse(&binary_client, "binary").await;
    }
}

#[tokio::test]
async fn metadata_may_name_the_tenant_of_the_token_by_id_or_slug_in_any_case() {
    let app = TestApp::spawn().await;
    let a = app.create_tenant("acme-1").await;
    let uppercase_id = a.tenant_id.to_uppercase();
    for key in ["x-tenant-id", "x-organization-slug"] {
        for value in [a.tenant_id.as_str(), uppercase_id.as_str(), "acme-1", "ACME-1"] {
            let me = a.with_metadata(key, value).auth().who_am_i(WhoAmIRequest {}).await;
            let me = me.expect("a response").into_inner();
            assert_eq!(me.tenant.expect("a tenant").id, a.tenant_id, "{key} {value}");
        }
    }
}

/// Every public method refuses an unknown tenant.
#[tokio::test]
async fn an_unknown_tenant_is_never_ignored() {
    let app = TestApp::spawn().await;
    let a = app.create_tenant("lost").await;
    let counts_before = app.row_counts().await;
    let unknown_tenant_id = uuid::Uuid::now_v7().to_string();
    for (key, value) in
        [("x-tenant-id", unknown_tenant_id.as_str()), ("x-organization-slug", "nowhere")]
    {
        let client = app.anonymous().with_metadata(key, value);
        let register_request = RegisterRequest {
            email: "new@a.test".into(),
            password: PASSWORD.into(),
            ..RegisterRequest::default()
        };
        let new_tenant_request =
            RegisterRequest { organization_name: "New".into(), ..register_request.clone() };
        let join_request =
            RegisterRequest { organization_slug: "lost".into(), ..register_request.clone() };
        let auth = &mut client.auth();
        assert_refused(auth.register(register_request).await, Code::NotFound, "NOT_FOUND");
        assert_refused(auth.register(join_request).await, Code::InvalidArgument, "INVALID_FIELDS");
        assert_refused(
            auth.register(new_tenant_request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let login_request = |slug: &str| LoginRequest {
            email: a.email.clone(),
            password: PASSWORD.into(),
            organization_slug: slug.into(),
            ..LoginRequest::default()
        };
        let reply = auth.login(login_request("")).await;
        assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        // N20: the message and the metadata name different tenants.
        let reply = auth.login(login_request("lost")).await;
        assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
        let refresh_request = RefreshRequest {
            refresh_token: a.tokens.refresh_token.clone(),
            ..RefreshRequest::default()
        };
        assert_refused(auth.refresh(refresh_request).await, Code::Unauthenticated, "TOKEN_INVALID");
        assert_refused(auth.get_jwks(GetJwksRequest {}).await, Code::NotFound, "NOT_FOUND");
        for method in methods() {
            let reply = method.call(&client, &method.sample(&Ids::random())).await;
            assert!(reply.is_err(), "{} ignores an unknown tenant", method.path());
        }
    }
    // The failed sign-ins are recorded with the nil tenant id.
    let failures = app.audit_events("sign_in_failed").await;
    assert!(!failures.is_empty());
    assert!(failures.iter().all(|event| event.tenant_id.is_nil()));
    let mut counts_after = app.row_counts().await;
    *counts_after.get_mut("audit_events").expect("the trail") -=
        i64::try_from(failures.len()).expect("a small number");
    assert_eq!(counts_after, counts_before);
    // Each of the two rounds has one sign-in above and one sample. The sample is refused
    // earlier if its email has had so many failures that a sign-in must wait.
    assert!((2..=4).contains(&failures.len()), "{}", failures.len());
}

/// C17: a refresh token that is sent with the name of another tenant does not end the
/// session of the token.
#[tokio::test]
async fn a_refresh_token_that_is_sent_for_another_tenant_is_not_used_up() {
    let app = TestApp::spawn().await;
    let (a, _) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let request = RefreshRequest {
        refresh_token: a.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let reply =
        app.anonymous().with_metadata("x-tenant-id", "b").auth().refresh(request.clone()).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let client = app.anonymous().with_metadata("x-tenant-id", "a");
    client.auth().refresh(request).await.expect("the token was not used");
}
