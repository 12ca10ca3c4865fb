//! Messages that take long to decode are decoded on other threads. The responses are the same as
//! for small messages.

use std::time::Duration;

use futures::future::join_all;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, CheckRequest, CheckResponse, UpdateTenantRequest,
};
use tonic::{Code, Request, Response, Status};

use crate::harness::{Client, TestApp, assert_refused, within_seconds};

/// A Struct with this many values of about four bytes each.
fn struct_with_values(values: usize) -> Struct {
    let true_value = Value { kind: Some(Kind::BoolValue(true)) };
    let list =
        Value { kind: Some(Kind::ListValue(ListValue { values: vec![true_value; values] })) };
    Struct { fields: [("flags".to_owned(), list)].into() }
}

fn check_request(values: usize) -> CheckRequest {
    let permission = "doc:read".to_owned();
    CheckRequest { permission, scope: Some(struct_with_values(values)), ..CheckRequest::default() }
}

async fn check(client: &Client, request: CheckRequest) -> Result<Response<CheckResponse>, Status> {
    client.permissions().check(request).await
}

async fn is_allowed(client: &Client, values: usize) -> bool {
    check(client, check_request(values)).await.expect("an answer").into_inner().allowed
}

/// N21: the size of a message does not change the response.
#[tokio::test]
async fn a_large_message_is_answered_like_a_small_one() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let (ada, ben) =
        (acme.create_member("ada", &["doc:read"]).await, acme.create_member("ben", &[]).await);
    // 200_000 values have 800 KB, which is less than the limit of 1 MiB for a message.
    for values in [0, 10_000, 200_000] {
        assert!(is_allowed(&ada, values).await, "{values}");
        assert!(!is_allowed(&ben, values).await, "{values}");
    }
    let malformed_request =
        CheckRequest { permission: "no permission".into(), ..check_request(200_000) };
    assert_refused(check(&ada, malformed_request).await, Code::InvalidArgument, "INVALID_FIELDS");
    let caller_with_invalid_token = ada.with_metadata("authorization", "Bearer none");
    assert_refused(
        check(&caller_with_invalid_token, check_request(200_000)).await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
    let mut short_deadline_request = Request::new(check_request(200_000));
    short_deadline_request.set_timeout(Duration::from_millis(1));
    let reply = ada.permissions().check(short_deadline_request).await;
    let code = reply.err().map(|status| status.code());
    // Either the client or the server notices the timeout first.
    assert!(matches!(code, Some(Code::Cancelled | Code::DeadlineExceeded)), "{code:?}");
    // As JSON, settings have at most 64 KiB.
    let settings = Some(struct_with_values(100_000));
    let update = UpdateTenantRequest { settings, ..Default::default() };
    assert_refused(
        acme.tenants().update_tenant(update).await,
        Code::InvalidArgument,
        "INVALID_FIELDS",
    );
}

/// N21: a tenant's large batches wait for one another, but all of them are answered.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_messages_of_several_tenants_are_all_answered() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let batch_check = |client: &Client| {
        let item = BatchCheckItem {
            correlation_id: "x".repeat(100),
            permission: "user:read".into(),
            ..BatchCheckItem::default()
        };
        let request = BatchCheckRequest { items: vec![item; 1000], ..Default::default() };
        let mut client = client.permissions();
        async move { client.batch_check(request).await.expect("an answer").into_inner() }
    };
    let calls = (0..40).map(|n| batch_check(if n % 4 == 0 { &other } else { &acme }));
    for reply in within_seconds(60, join_all(calls)).await {
        assert!(reply.results.len() == 1000 && reply.results.iter().all(|result| result.allowed));
    }
}
