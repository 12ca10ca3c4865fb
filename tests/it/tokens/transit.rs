//! Signing keys in a key service: signatures, rotation, and unavailability of the service.

use jsonwebtoken::decode_header;
use tenantry::{
    app::App,
    config::Config,
    proto::v1::{GetJwksRequest, LoginRequest, RefreshRequest, WhoAmIRequest},
};
use time::OffsetDateTime;
use tonic::Code;

use crate::harness::{Client, Cluster, KeyService, PASSWORD, TestApp, assert_refused, wait_until};

async fn kids(app: &TestApp) -> Vec<String> {
    let keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    keys.into_inner().keys.into_iter().map(|key| key.kid).collect()
}

fn kid(client: &Client) -> String {
    let header = decode_header(&client.tokens.access_token).expect("a header");
    header.kid.expect("a kid")
}

fn refresh_request(client: &Client) -> RefreshRequest {
    RefreshRequest {
        refresh_token: client.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    }
}

fn login_request(client: &Client) -> LoginRequest {
    LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        ..LoginRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_service_signs_tokens_of_every_algorithm() {
    for (kind, alg) in [("rsa-2048", "RS256"), ("ecdsa-p256", "ES256"), ("ed25519", "EdDSA")] {
        let service = KeyService::start(kind).await;
        let app = TestApp::with_settings(|values| service.apply_settings(values)).await;
        let second_replica =
            TestApp::on_database(&app.database, |values| service.apply_settings(values)).await;
        let count_before = service.sign_request_count("tenantry-access");
        let acme = app.create_tenant("acme").await;
        assert_eq!(service.sign_request_count("tenantry-access"), count_before + 1);
        let keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        assert_eq!(keys.into_inner().keys[0].alg, alg);
        assert_eq!(kids(&app).await, [kid(&acme)]);
        let replica_client = acme.on_server(&second_replica.channel);
        replica_client.auth().who_am_i(WhoAmIRequest {}).await.expect("both replicas have the key");
        replica_client.auth().refresh(refresh_request(&acme)).await.expect("refreshed");
    }
}

/// J03: tokens of a retired key version are refused, and other tokens stay valid.
/// J04: the new version is published first, and signs later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_version_is_published_before_it_signs() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::with_settings(|values| service.apply_settings(values)).await;
    let acme = app.create_tenant("acme").await;
    let first_kid = kid(&acme);

    service.rotate("tenantry-access", OffsetDateTime::now_utc());
    wait_until(10, || async { kids(&app).await.len() == 2 }).await;
    let second_client = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    assert_eq!(kid(&second_client), first_kid, "the new key is published before it signs");

    // A version that was created fifteen minutes ago signs.
    service.rotate(
        "tenantry-access",
        OffsetDateTime::now_utc() - time::Duration::minutes(15) - time::Duration::SECOND,
    );
    wait_until(10, || async { kids(&app).await.len() == 3 }).await;
    let third_client = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    assert_ne!(kid(&third_client), first_kid);
    for client in [&acme, &second_client, &third_client] {
        client.auth().who_am_i(WhoAmIRequest {}).await.expect("valid");
    }

    // Retire version 1, which signed the tokens of `acme`.
    service.retire_before("tenantry-access", 2);
    wait_until(10, || async { kids(&app).await.len() == 2 }).await;
    let reply = acme.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    third_client.auth().who_am_i(WhoAmIRequest {}).await.expect("valid");
}

/// J04: while the key service is unavailable, no new tokens are issued, and a failed refresh does
/// not use up its token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_stay_valid_while_the_key_service_is_unavailable() {
    let mut service = KeyService::start("ed25519").await;
    let app = TestApp::with_settings(|values| service.apply_settings(values)).await;
    let acme = app.create_tenant("acme").await;
    service.stop();
    let failed_metric = "tenantry_key_reloads_total{outcome=\"failed\"}";
    wait_until(10, || async { app.metric(failed_metric).await > Some(0.0) }).await;

    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("the public keys are cached");
    let reply = app.anonymous().auth().login(login_request(&acme)).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    let reply = app.anonymous().auth().refresh(refresh_request(&acme)).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");

    service.restart().await;
    let is_signing = || async { app.anonymous().auth().login(login_request(&acme)).await.is_ok() };
    wait_until(10, is_signing).await;
    app.anonymous().auth().refresh(refresh_request(&acme)).await.expect("the token was not used");
}

/// The service token is the token with which the server calls the key service. The server reads it
/// from a file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_service_token_replaces_a_revoked_one() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::with_settings(|values| service.apply_settings(values)).await;
    let acme = app.create_tenant("acme").await;
    let valid_token = std::fs::read_to_string(service.token_path()).expect("a token");
    std::fs::write(service.token_path(), "hvs.revoked").expect("written");
    let failed_metric = "tenantry_key_reloads_total{outcome=\"failed\"}";
    wait_until(10, || async { app.metric(failed_metric).await > Some(0.0) }).await;
    std::fs::write(service.token_path(), valid_token).expect("written");
    wait_until(10, || async { acme.auth().login(login_request(&acme)).await.is_ok() }).await;
}

/// J06: a misconfigured server does not start, and the error contains the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_does_not_start_with_an_unusable_key_service() {
    let service = KeyService::start("ed25519").await;
    let database = Cluster::get().new_database().await;
    for (setting, value, expected) in [
        ("JWT_ACCESS_TRANSIT_KEY", "nothing", "responded with 404"),
        ("JWT_ACCESS_TRANSIT_KEY", "tenantry-refresh", "must differ from JWT_ACCESS_TRANSIT_KEY"),
        ("TRANSIT_MOUNT", "elsewhere", "responded with 404"),
        ("TRANSIT_TOKEN_PATH", "/nowhere/token", "can't read /nowhere/token"),
        ("TRANSIT_URL", "http://127.0.0.1:1", "does not respond"),
        ("TRANSIT_CA_PATH", "/nowhere/ca.pem", "can't read /nowhere/ca.pem"),
    ] {
        let mut values = TestApp::values(&database);
        service.apply_settings(&mut values);
        values.set(setting, value);
        let error = match Config::check(&values) {
            Ok(config) => App::build(config).map(drop).expect_err("the start should fail"),
            Err(error) => error,
        };
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{setting}: {error}");
        assert!(!error.contains("hvs."), "{error}");
    }
    for url in ["http://vault.internal:8200", "vault:8200", "ftp://127.0.0.1"] {
        let mut values = TestApp::values(&database);
        service.apply_settings(&mut values);
        values.set("TRANSIT_URL", url);
        let error = Config::check(&values).err().map(|error| error.to_string());
        assert!(error.unwrap_or_default().contains("TRANSIT_URL must be"), "{url}");
    }
}
