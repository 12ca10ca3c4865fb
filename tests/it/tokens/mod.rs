//! Valid and invalid access tokens.

mod algorithms;
mod claims;
mod credentials;
mod headers;
mod kinds;
mod rotation;
mod times;
mod transit;

use tenantry::proto::v1::WhoAmIRequest;
use tonic::Code;

use crate::harness::{Client, assert_refused};

/// Asserts that a token is refused with the same response as every invalid token.
async fn assert_token_refused(client: &Client, what: &str, token: &str) {
    let reply = client.with_token(token).auth().who_am_i(WhoAmIRequest {}).await;
    assert!(reply.is_err(), "{what} is accepted");
    let status = assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    assert_eq!(status.message(), "the access token is not in force", "{what}");
}

async fn assert_token_accepted(client: &Client, what: &str, token: &str) {
    let reply = client.with_token(token).auth().who_am_i(WhoAmIRequest {}).await;
    assert!(reply.is_ok(), "{what}: {reply:?}");
}
