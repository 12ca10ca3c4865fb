//! The server uses only keys of its own keyring, and ignores keys in the header of a token.

use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use serde_json::{Value, json};
use tenantry::tokens::pem as key_files;

use super::{assert_token_accepted, assert_token_refused};
use crate::harness::{Forge, TestApp};

/// A08: keys in a token's header are ignored.
#[tokio::test]
async fn a_key_in_the_token_is_neither_used_nor_fetched() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let (header, claims) = Forge::read(&acme.tokens.access_token);
    let header = serde_json::to_value(header).expect("JSON");

    let dir = tempfile::tempdir().expect("a folder");
    key_files::ensure(dir.path(), key_files::KeyAlgorithm::Rs256).expect("keys");
    let paths = key_files::paths(dir.path());
    let private_pem = std::fs::read(paths.access_private).expect("a key");
    let attacker_key = EncodingKey::from_rsa_pem(&private_pem).expect("a key");
    let jwk = Jwk::from_encoding_key(&attacker_key, Algorithm::RS256).expect("a JWK");
    let jwk = serde_json::to_value(jwk).expect("JSON");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("non-blocking");
    let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
    let certificate = json!(["MIIBszCCAVmgAwIBAgIUQ"]);

    for (what, header_fields) in [
        ("jwk", json!({ "jwk": jwk })),
        (
            "jwk with the kid of the server",
            json!({ "jwk": with_field(&jwk, "kid", &header["kid"]) }),
        ),
        ("jku", json!({ "jku": url })),
        ("x5u", json!({ "x5u": url })),
        ("x5c", json!({ "x5c": certificate })),
        ("jku as kid", json!({ "kid": url })),
        ("all fields", json!({ "jwk": jwk, "jku": url, "x5u": url, "x5c": certificate })),
    ] {
        let mut header = header.clone();
        for (name, value) in header_fields.as_object().expect("an object") {
            header[name] = value.clone();
        }
        let (header, claims) = (header.to_string(), claims.to_string());
        let attacker_token = Forge::sign_with(&attacker_key, Algorithm::RS256, &header, &claims);
        assert_token_refused(&acme, &format!("{what}, signed by the attacker"), &attacker_token)
            .await;
        let server_token = app.forge().sign_raw(&header, &claims);
        assert_token_refused(&acme, &format!("{what}, signed by the server"), &server_token).await;
    }
    let error = listener.accept().expect_err("no connection was made");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// A09: a missing `kid` and a `kid` of another type are refused too.
#[tokio::test]
async fn a_kid_must_equal_the_servers_kid_exactly() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (header, claims) = Forge::read(&acme.tokens.access_token);
    let header = serde_json::to_value(header).expect("JSON");
    let server_kid = header["kid"].as_str().expect("a kid").to_owned();
    let sign = |kid: &Value| {
        app.forge().sign_raw(&with_field(&header, "kid", kid).to_string(), &claims.to_string())
    };
    assert_token_accepted(&acme, "the kid of the server", &sign(&json!(server_kid))).await;

    let long_kid = "k".repeat(4096);
    for kid in [
        "../../dev/null",
        "/dev/null",
        "' OR 1=1--",
        "\u{0}",
        "",
        &server_kid.to_uppercase(),
        &format!("{server_kid} "),
        &format!("{server_kid}\u{0}"),
        &server_kid[1..],
        &long_kid,
    ] {
        assert_token_refused(&acme, &format!("kid {kid:.40}"), &sign(&json!(kid))).await;
    }
    for kid in [json!(null), json!(1), json!([server_kid]), json!({ "kid": server_kid })] {
        assert_token_refused(&acme, &format!("kid {kid}"), &sign(&kid)).await;
    }
    let mut header_without_kid = header.clone();
    header_without_kid.as_object_mut().expect("an object").remove("kid");
    let token = app.forge().sign_raw(&header_without_kid.to_string(), &claims.to_string());
    assert_token_refused(&acme, "no kid", &token).await;
}

/// A09: the server refuses a token with an unknown `kid` without Postgres.
#[tokio::test]
async fn unknown_kids_cause_no_query() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let (header, claims) = Forge::read(&acme.tokens.access_token);
    let header = serde_json::to_value(header).expect("JSON");
    // From here on, every query for a tenant, user or session waits until the deadline.
    let mut owner_connection = app.owner_connection().await;
    let lock = "begin; lock table tenants, users, sessions in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut owner_connection).await.expect("locked");
    for number in 0..200 {
        let header = with_field(&header, "kid", &json!(format!("unknown-{number}")));
        let token = app.forge().sign_raw(&header.to_string(), &claims.to_string());
        assert_token_refused(&acme, "an unknown kid", &token).await;
    }
    sqlx::raw_sql("rollback").execute(&mut owner_connection).await.expect("unlocked");
    assert_token_accepted(&acme, "a valid token", &acme.tokens.access_token).await;
}

#[tokio::test]
async fn an_unknown_critical_extension_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let (header, claims) = Forge::read(&acme.tokens.access_token);
    let header = serde_json::to_value(header).expect("JSON");
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), json!(["unknown"])] {
        let header = with_field(&with_field(&header, "crit", &crit), "b64", &json!(true));
        let token = app.forge().sign_raw(&header.to_string(), &claims.to_string());
        assert_token_refused(&acme, &format!("crit {crit}"), &token).await;
    }
}

fn with_field(object: &Value, name: &str, value: &Value) -> Value {
    let mut object = object.clone();
    object[name] = value.clone();
    object
}
