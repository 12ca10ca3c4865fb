//! A call must have exactly one credential, with the right scheme and a bounded size.

use serde_json::json;
use tenantry::proto::v1::{CheckRequest, IntrospectTokenRequest, RefreshRequest, WhoAmIRequest};
use tonic::{
    Code, Status,
    metadata::{BinaryMetadataKey, BinaryMetadataValue},
};

use super::assert_token_refused;
use crate::harness::{Client, TestApp, assert_refused, reason};

/// The client with exactly these `authorization` entries.
fn with_all(client: &Client, values: &[String]) -> Client {
    values
        .iter()
        .fold(client.with_token(""), |client, value| client.with_metadata("authorization", value))
}

async fn who_am_i(client: &Client) -> Result<(), Status> {
    client.auth().who_am_i(WhoAmIRequest {}).await.map(drop)
}

/// A16: several credentials are refused in every order.
#[tokio::test]
async fn several_or_malformed_credentials_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let other = app.create_tenant("other").await;
    let credential = format!("Bearer {}", acme.tokens.access_token);
    let invalid_credential = "Bearer a.b.c".to_owned();
    let other_credential = format!("Bearer {}", other.tokens.access_token);
    let basic_credential = "Basic YTpi".to_owned();

    for values in [
        vec![credential.clone(), invalid_credential.clone()],
        vec![invalid_credential.clone(), credential.clone()],
        vec![credential.clone(), credential.clone()],
        vec![credential.clone(), other_credential.clone()],
        vec![credential.clone(), basic_credential.clone()],
        vec![basic_credential.clone(), credential.clone()],
        vec![credential.clone(), String::new()],
        vec![format!("{credential},{other_credential}")],
        vec![format!("{credential}, {invalid_credential}")],
        vec![format!("{invalid_credential},{credential}")],
        vec![format!("{credential} {other_credential}")],
        vec![basic_credential],
        vec![acme.tokens.access_token.clone()],
        vec![credential.replace("Bearer ", "Bearer")],
        vec![credential.replace("Bearer ", "Bearer  ")],
        vec![credential.replace("Bearer ", "Bearer\t")],
        vec![credential.replace("Bearer ", "DPoP ")],
        vec!["Bearer".to_owned()],
        vec![String::new()],
    ] {
        let status = who_am_i(&with_all(&acme, &values)).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{values:?}");
        assert_eq!(reason(&status), "TOKEN_INVALID", "{values:?}");
    }
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    for scheme in ["bearer", "BEARER", "Bearer"] {
        let value = credential.replace("Bearer", scheme);
        who_am_i(&with_all(&acme, &[value])).await.expect("accepted");
    }
}

/// A16: a credential in binary metadata is treated as missing.
#[tokio::test]
async fn a_binary_credential_is_ignored() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let mut binary_client = acme.with_token("");
    binary_client.metadata.0.insert_bin(
        BinaryMetadataKey::from_static("authorization-bin"),
        BinaryMetadataValue::from_bytes(format!("Bearer {}", acme.tokens.access_token).as_bytes()),
    );
    let reply = binary_client.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_MISSING");
}

/// A19: the size of a credential is bounded.
#[tokio::test]
async fn a_token_of_more_than_8_kib_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let token = &acme.tokens.access_token;
    let padded_token = |length: usize| {
        let pad = json!({ "pad": "x".repeat(length) });
        forge.with_claims(token, &pad)
    };
    // Base64 encodes 3 bytes of padding as 4. The lengths of these tokens are just below and just
    // above 8 KiB, and the tokens are otherwise valid.
    let max_padding = (8192 - padded_token(0).len()) * 3 / 4;
    let tokens: Vec<_> = (max_padding - 4..max_padding + 8).map(padded_token).collect();
    let largest_token =
        tokens.iter().rfind(|token| token.len() <= 8192).expect("a token that is not too large");
    let too_large_token =
        tokens.iter().find(|token| token.len() > 8192).expect("a token that is too large");
    assert!(too_large_token.len() < 8200);

    super::assert_token_accepted(&acme, "8 KiB", largest_token).await;
    assert_token_refused(&acme, "more than 8 KiB", too_large_token).await;
    assert_token_refused(&acme, "8193 characters that are not a token", &"x".repeat(8193)).await;

    // In a message, the field rules refuse the token.
    let request = IntrospectTokenRequest { token: too_large_token.clone() };
    assert_refused(
        acme.auth().introspect_token(request).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
    let request = RefreshRequest { refresh_token: too_large_token.clone(), ..Default::default() };
    assert_refused(acme.auth().refresh(request).await, Code::InvalidArgument, "INVALID_FIELDS");
    let request = CheckRequest {
        permission: "user:read".into(),
        access_token: too_large_token.clone(),
        ..CheckRequest::default()
    };
    assert_refused(
        acme.permissions().check(request).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
}
