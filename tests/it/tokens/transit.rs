//! Keys in a key service: tokens that it signs, rotation of its keys, and its unavailability.

use jsonwebtoken::decode_header;
use tenantry::{
    app::App,
    config::Config,
    proto::v1::{GetJwksRequest, LoginRequest, RefreshRequest, WhoAmIRequest},
};
use time::OffsetDateTime;
use tonic::Code;

use crate::harness::{Client, Cluster, KeyService, PASSWORD, TestApp, refused, until};

async fn kids(app: &TestApp) -> Vec<String> {
    let keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    keys.into_inner().keys.into_iter().map(|key| key.kid).collect()
}

fn kid(client: &Client) -> String {
    let header = decode_header(&client.tokens.access_token).expect("a header");
    header.kid.expect("a kid")
}

fn again(client: &Client) -> RefreshRequest {
    RefreshRequest {
        refresh_token: client.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    }
}

fn sign_in(client: &Client) -> LoginRequest {
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
        let app = TestApp::with(|values| service.set(values)).await;
        let second_replica = TestApp::on(&app.database, |values| service.set(values)).await;
        let before = service.signed("tenantry-access");
        let acme = app.tenant("acme").await;
        assert_eq!(service.signed("tenantry-access"), before + 1);
        let keys = app.anonymous().auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        assert_eq!(keys.into_inner().keys[0].alg, alg);
        assert_eq!(kids(&app).await, [kid(&acme)]);
        let replica_client = acme.on(&second_replica.channel);
        replica_client.auth().who_am_i(WhoAmIRequest {}).await.expect("both have the key");
        replica_client.auth().refresh(again(&acme)).await.expect("refreshed");
    }
}

/// J03: a key rotation does not interrupt service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_version_is_published_first_signs_later_and_no_token_fails() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::with(|values| service.set(values)).await;
    let acme = app.tenant("acme").await;
    let first = kid(&acme);

    service.rotate("tenantry-access", OffsetDateTime::now_utc());
    until(10, || async { kids(&app).await.len() == 2 }).await;
    let second = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    assert_eq!(kid(&second), first, "the new key is published before it signs");

    // A version that was created fifteen minutes ago signs.
    service.rotate(
        "tenantry-access",
        OffsetDateTime::now_utc() - time::Duration::minutes(15) - time::Duration::SECOND,
    );
    until(10, || async { kids(&app).await.len() == 3 }).await;
    let third = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    assert_ne!(kid(&third), first);
    for client in [&acme, &second, &third] {
        client.auth().who_am_i(WhoAmIRequest {}).await.expect("valid");
    }

    service.retire_before("tenantry-access", 2);
    until(10, || async { kids(&app).await.len() == 2 }).await;
    let reply = acme.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    third.auth().who_am_i(WhoAmIRequest {}).await.expect("valid");
}

/// J04, R31: tokens stay valid while the key service is unavailable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_service_tokens_stay_valid_and_none_is_spent() {
    let mut service = KeyService::start("ed25519").await;
    let app = TestApp::with(|values| service.set(values)).await;
    let acme = app.tenant("acme").await;
    service.stop();
    let failed = "tenantry_key_reloads_total{outcome=\"failed\"}";
    until(10, || async { app.metric(failed).await > Some(0.0) }).await;

    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("the public keys are cached");
    let reply = app.anonymous().auth().login(sign_in(&acme)).await;
    refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    let reply = app.anonymous().auth().refresh(again(&acme)).await;
    refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");

    service.restart().await;
    let back = || async { app.anonymous().auth().login(sign_in(&acme)).await.is_ok() };
    until(10, back).await;
    app.anonymous().auth().refresh(again(&acme)).await.expect("the token was not spent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_service_token_is_counted_and_a_new_one_is_used() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::with(|values| service.set(values)).await;
    let acme = app.tenant("acme").await;
    let good = std::fs::read_to_string(service.token()).expect("a token");
    std::fs::write(service.token(), "hvs.revoked").expect("written");
    let failed = "tenantry_key_reloads_total{outcome=\"failed\"}";
    until(10, || async { app.metric(failed).await > Some(0.0) }).await;
    std::fs::write(service.token(), good).expect("written");
    until(10, || async { acme.auth().login(sign_in(&acme)).await.is_ok() }).await;
}

/// J06: a misconfigured server does not start and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_key_service_stops_the_start() {
    let service = KeyService::start("ed25519").await;
    let database = Cluster::get().new_database().await;
    for (setting, value, wanted) in [
        ("JWT_ACCESS_TRANSIT_KEY", "nothing", "answers 404"),
        ("JWT_ACCESS_TRANSIT_KEY", "tenantry-refresh", "keys of their own"),
        ("TRANSIT_MOUNT", "elsewhere", "answers 404"),
        ("TRANSIT_TOKEN_PATH", "/nowhere/token", "can't read /nowhere/token"),
        ("TRANSIT_URL", "http://127.0.0.1:1", "does not answer"),
        ("TRANSIT_CA_PATH", "/nowhere/ca.pem", "can't read /nowhere/ca.pem"),
    ] {
        let mut values = TestApp::values(&database);
        service.set(&mut values);
        values.set(setting, value);
        let config = Config::check(&values).expect("settings");
        let error = App::build(config).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(wanted), "{setting}: {error}");
        assert!(!error.contains("hvs."), "{error}");
    }
    for url in ["http://vault.internal:8200", "vault:8200", "ftp://127.0.0.1"] {
        let mut values = TestApp::values(&database);
        service.set(&mut values);
        values.set("TRANSIT_URL", url);
        let error = Config::check(&values).err().map(|error| error.to_string());
        assert!(error.unwrap_or_default().contains("TRANSIT_URL must be"), "{url}");
    }
}
