//! Retries of calls.

use std::time::Duration;

use tenantry_client::{
    Client,
    v1::{GetJwksRequest, LoginRequest, auth_service_client::AuthServiceClient},
};
use tonic::Code;

use super::relay::Relay;
use crate::harness::{TestApp, wait_until};

#[tokio::test]
async fn a_read_is_retried_until_the_server_is_available() {
    let app = TestApp::spawn().await;
    let relay = Relay::start().await;
    let client = Client::builder(format!("http://{}", relay.addr)).connect().expect("a client");
    let mut auth = AuthServiceClient::new(client);
    let call = tokio::spawn(async move { auth.get_jwks(GetJwksRequest {}).await });
    // Three attempts have failed.
    wait_until(5, async || relay.ended_connections() >= 3).await;
    relay.relay_to(app.addr);
    let keys = call.await.expect("no panic").expect("an answer").into_inner().keys;
    assert!(!keys.is_empty());
}

#[tokio::test]
async fn a_write_is_not_retried() {
    let relay = Relay::start().await;
    let client = Client::builder(format!("http://{}", relay.addr)).connect().expect("a client");
    let request = LoginRequest {
        email: "ada@acme.test".into(),
        password: "correct horse battery".into(),
        ..LoginRequest::default()
    };
    let error =
        AuthServiceClient::new(client).login(request).await.expect_err("the server is unavailable");
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert_eq!(relay.ended_connections(), 1);
}

#[tokio::test]
async fn retries_end_at_the_deadline() {
    let relay = Relay::start().await;
    let client = Client::builder(format!("http://{}", relay.addr))
        .deadline(Duration::from_millis(300))
        .connect()
        .expect("a client");
    let result = AuthServiceClient::new(client).get_jwks(GetJwksRequest {}).await;
    assert_eq!(result.expect_err("the server is unavailable").code(), Code::DeadlineExceeded);
    assert!(relay.ended_connections() > 1, "the call was retried");
}
