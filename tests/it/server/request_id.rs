//! The request id: a reply carries the request id whenever the log has a line about the call.

use tenantry::proto::v1::{CheckRequest, WhoAmIRequest};
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::harness::{Client, TestApp};

const KEY: &str = "x-request-id";

fn request_ids(metadata: &MetadataMap) -> Vec<&str> {
    metadata.get_all(KEY).iter().map(|value| value.to_str().expect("text")).collect()
}

/// The response metadata of an answered Check and of a refused Check.
async fn reply_metadata(client: &Client) -> (MetadataMap, MetadataMap) {
    let question = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let answer = client.permissions().check(question).await.expect("a decision");
    let malformed = CheckRequest { permission: "doc".into(), ..CheckRequest::default() };
    let refusal = client.permissions().check(malformed).await.expect_err("malformed");
    (answer.metadata().clone(), refusal.metadata().clone())
}

#[tokio::test]
async fn the_clients_request_id_is_returned() {
    let app = TestApp::spawn().await;
    let client = app.tenant("acme").await.with(KEY, "order-17_a.b");
    let (answer, refusal) = reply_metadata(&client).await;
    assert_eq!(request_ids(&answer), ["order-17_a.b"]);
    assert_eq!(request_ids(&refusal), ["order-17_a.b"]);
}

#[tokio::test]
async fn without_a_valid_request_id_every_logged_call_gets_a_new_one() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    // An invalid request id is treated like none.
    for client in [acme.clone(), acme.with(KEY, "a b"), acme.with(KEY, &"a".repeat(65))] {
        let (decision, refusal) = reply_metadata(&client).await;
        assert_eq!(
            request_ids(&decision),
            [""; 0],
            "a decision has a decision id instead of a request id"
        );
        let answer = client.auth().who_am_i(WhoAmIRequest {}).await.expect("an answer");
        for metadata in [&refusal, answer.metadata()] {
            let [id] = request_ids(metadata)[..] else { panic!("not exactly one request id") };
            assert!(Uuid::parse_str(id).is_ok(), "{id}");
        }
    }
}
