//! A call must have exactly one credential, with the right scheme and a bounded size.

use serde_json::json;
use tenantry::proto::v1::{CheckRequest, IntrospectTokenRequest, RefreshRequest, WhoAmIRequest};
use tonic::{
    Code, Status,
    metadata::{BinaryMetadataKey, BinaryMetadataValue},
};

use super::token_refused;
use crate::harness::{Client, TestApp, reason, refused};

/// The client with exactly these `authorization` entries.
fn with_all(client: &Client, values: &[String]) -> Client {
    values.iter().fold(client.with_token(""), |client, value| client.with("authorization", value))
}

async fn who_am_i(client: &Client) -> Result<(), Status> {
    client.auth().who_am_i(WhoAmIRequest {}).await.map(drop)
}

/// A16: the credential of a call must be unambiguous.
#[tokio::test]
async fn a_call_with_several_credentials_is_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let other = app.tenant("other").await;
    let good = format!("Bearer {}", acme.tokens.access_token);
    let bad = "Bearer a.b.c".to_owned();
    let other_credential = format!("Bearer {}", other.tokens.access_token);
    let basic = "Basic YTpi".to_owned();

    for values in [
        vec![good.clone(), bad.clone()],
        vec![bad.clone(), good.clone()],
        vec![good.clone(), good.clone()],
        vec![good.clone(), other_credential.clone()],
        vec![good.clone(), basic.clone()],
        vec![basic.clone(), good.clone()],
        vec![good.clone(), String::new()],
        vec![format!("{good},{other_credential}")],
        vec![format!("{good}, {bad}")],
        vec![format!("{bad},{good}")],
        vec![format!("{good} {other_credential}")],
        vec![basic],
        vec![acme.tokens.access_token.clone()],
        vec![good.replace("Bearer ", "Bearer")],
        vec![good.replace("Bearer ", "Bearer  ")],
        vec![good.replace("Bearer ", "Bearer\t")],
        vec![good.replace("Bearer ", "DPoP ")],
        vec!["Bearer".to_owned()],
        vec![String::new()],
    ] {
        let status = who_am_i(&with_all(&acme, &values)).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{values:?}");
        assert_eq!(reason(&status), "TOKEN_INVALID", "{values:?}");
    }
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    for scheme in ["bearer", "BEARER", "Bearer"] {
        let value = good.replace("Bearer", scheme);
        who_am_i(&with_all(&acme, &[value])).await.expect("accepted");
    }
}

/// A16: the credential of a call must be unambiguous.
#[tokio::test]
async fn a_binary_credential_is_ignored() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let mut binary = acme.with_token("");
    binary.metadata.0.insert_bin(
        BinaryMetadataKey::from_static("authorization-bin"),
        BinaryMetadataValue::from_bytes(format!("Bearer {}", acme.tokens.access_token).as_bytes()),
    );
    let reply = binary.auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_MISSING");
}

/// A19: the size of a credential is bounded.
#[tokio::test]
async fn a_token_of_more_than_8_kib_is_refused() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let forge = app.forge();
    let token = &acme.tokens.access_token;
    let padded = |length: usize| {
        let pad = json!({ "pad": "x".repeat(length) });
        forge.with_claims(token, &pad)
    };
    // Only the length of this token is invalid. Base64 encodes 3 bytes as 4.
    let room = (8192 - padded(0).len()) * 3 / 4;
    let near: Vec<_> = (room - 4..room + 8).map(padded).collect();
    let fits = near.iter().rfind(|token| token.len() <= 8192).expect("one that fits");
    let exceeds = near.iter().find(|token| token.len() > 8192).expect("one that does not");
    assert!(exceeds.len() < 8200);

    super::token_accepted(&acme, "8 KiB", fits).await;
    token_refused(&acme, "more than 8 KiB", exceeds).await;
    token_refused(&acme, "8 KiB + 1 of nothing", &"x".repeat(8193)).await;

    // In a message, the field rules refuse the token.
    let ask = IntrospectTokenRequest { token: exceeds.clone() };
    refused(acme.auth().introspect_token(ask).await, Code::InvalidArgument, "INVALID_FIELDS");
    let ask = RefreshRequest { refresh_token: exceeds.clone(), ..Default::default() };
    refused(acme.auth().refresh(ask).await, Code::InvalidArgument, "INVALID_FIELDS");
    let ask = CheckRequest {
        permission: "user:read".into(),
        access_token: exceeds.clone(),
        ..CheckRequest::default()
    };
    refused(acme.permissions().check(ask).await, Code::InvalidArgument, "INVALID_FIELDS");
}
