//! Messages that take long to decode are decoded on other threads and get the same answers.

use std::time::Duration;

use futures::future::join_all;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, CheckRequest, CheckResponse, UpdateTenantRequest,
};
use tonic::{Code, Request, Response, Status};

use crate::harness::{Client, TestApp, refused, within};

/// A scope with this many values of about four bytes each.
fn scope(values: usize) -> Struct {
    let yes = Value { kind: Some(Kind::BoolValue(true)) };
    let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![yes; values] })) };
    Struct { fields: [("flags".to_owned(), list)].into() }
}

fn check(values: usize) -> CheckRequest {
    let permission = "doc:read".to_owned();
    CheckRequest { permission, scope: Some(scope(values)), ..CheckRequest::default() }
}

async fn ask(client: &Client, request: CheckRequest) -> Result<Response<CheckResponse>, Status> {
    client.permissions().check(request).await
}

async fn is_allowed(client: &Client, values: usize) -> bool {
    ask(client, check(values)).await.expect("an answer").into_inner().allowed
}

/// N21: the size of a message does not change its answer.
#[tokio::test]
async fn a_large_message_is_answered_like_a_small_one() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let (ada, ben) = (acme.member("ada", &["doc:read"]).await, acme.member("ben", &[]).await);
    for values in [0, 10_000, 200_000] {
        assert!(is_allowed(&ada, values).await, "{values}");
        assert!(!is_allowed(&ben, values).await, "{values}");
    }
    let malformed = CheckRequest { permission: "no permission".into(), ..check(200_000) };
    refused(ask(&ada, malformed).await, Code::InvalidArgument, "INVALID_FIELDS");
    let caller_with_invalid_token = ada.with("authorization", "Bearer none");
    refused(
        ask(&caller_with_invalid_token, check(200_000)).await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
    let mut short_deadline_request = Request::new(check(200_000));
    short_deadline_request.set_timeout(Duration::from_millis(1));
    let reply = ada.permissions().check(short_deadline_request).await;
    let code = reply.err().map(|status| status.code());
    // Either the client or the server notices the timeout first.
    assert!(matches!(code, Some(Code::Cancelled | Code::DeadlineExceeded)), "{code:?}");
    let update = UpdateTenantRequest { settings: Some(scope(100_000)), ..Default::default() };
    refused(acme.tenants().update_tenant(update).await, Code::InvalidArgument, "INVALID_FIELDS");
}

/// N21: a tenant's large batches wait for one another, but all of them are answered.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_messages_of_several_tenants_are_all_answered() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let ask = |client: &Client| {
        let item = BatchCheckItem {
            correlation_id: "x".repeat(100),
            permission: "user:read".into(),
            ..BatchCheckItem::default()
        };
        let request = BatchCheckRequest { items: vec![item; 1000], ..Default::default() };
        let mut client = client.permissions();
        async move { client.batch_check(request).await.expect("an answer").into_inner() }
    };
    let calls = (0..40).map(|n| ask(if n % 4 == 0 { &other } else { &acme }));
    for reply in within(60, join_all(calls)).await {
        assert!(reply.results.len() == 1000 && reply.results.iter().all(|result| result.allowed));
    }
}
