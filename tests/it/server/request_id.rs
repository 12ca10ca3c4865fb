//! The request id of a call in the header `x-request-id`. A reply has this header whenever the log
//! has a line about the call.

use tenantry::proto::v1::{CheckRequest, WhoAmIRequest};
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::harness::{Client, TestApp};

const HEADER: &str = "x-request-id";

fn request_ids(metadata: &MetadataMap) -> Vec<&str> {
    metadata.get_all(HEADER).iter().map(|value| value.to_str().expect("text")).collect()
}

/// Makes a valid and a malformed Check. Returns the metadata of both responses.
async fn metadata_of_checks(client: &Client) -> (MetadataMap, MetadataMap) {
    let request = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
    let reply = client.permissions().check(request).await.expect("a decision");
    let malformed_request = CheckRequest { permission: "doc".into(), ..CheckRequest::default() };
    let refusal = client
        .permissions()
        .check(malformed_request)
        .await
        .expect_err("the malformed request is refused");
    (reply.metadata().clone(), refusal.metadata().clone())
}

#[tokio::test]
async fn the_clients_request_id_is_returned() {
    let app = TestApp::spawn().await;
    let client = app.create_tenant("acme").await.with_metadata(HEADER, "order-17_a.b");
    let (decision, refusal) = metadata_of_checks(&client).await;
    assert_eq!(request_ids(&decision), ["order-17_a.b"]);
    assert_eq!(request_ids(&refusal), ["order-17_a.b"]);
}

#[tokio::test]
async fn without_a_valid_request_id_every_logged_call_gets_a_new_one() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    // An invalid request id is treated as if it were missing.
    for client in [
        acme.clone(),
        acme.with_metadata(HEADER, "a b"),
        acme.with_metadata(HEADER, &"a".repeat(65)),
    ] {
        let (decision, refusal) = metadata_of_checks(&client).await;
        assert_eq!(
            request_ids(&decision),
            [""; 0],
            "a decision has a decision id instead of a request id"
        );
        let reply = client.auth().who_am_i(WhoAmIRequest {}).await.expect("an answer");
        for metadata in [&refusal, reply.metadata()] {
            let [id] = request_ids(metadata)[..] else { panic!("not exactly one request id") };
            assert!(Uuid::parse_str(id).is_ok(), "{id}");
        }
    }
}
