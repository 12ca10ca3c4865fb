//! The server decides a call by the state at the arrival of the message, not by the state at the
//! arrival of the metadata.

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use http::Request;
use prost::Message;
use tenantry::proto::v1::{CheckRequest, CheckResponse, RevokeAllSessionsRequest, RoleLevel};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::harness::{Client, TestApp};

/// A Check whose metadata was sent and whose message was not sent yet.
struct CheckWithoutMessage {
    message: SendStream<Bytes>,
    response: ResponseFuture,
}

/// Sends the metadata of a Check, and returns after the server has received the metadata.
async fn send_metadata(app: &TestApp, client: &Client) -> CheckWithoutMessage {
    let stream = TcpStream::connect(app.addr).await.expect("connected");
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async { connection.await.ok() });
    let request = |path: &str| {
        Request::post(format!("http://{}/{path}", app.addr))
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {}", client.tokens.access_token))
            .body(())
            .expect("a request")
    };
    let check = request("tenantry.v1.PermissionService/Check");
    let (response, message) = requests.send_request(check, false).expect("sent");
    // A reply to a later call on the same connection shows that the metadata of the first call
    // has arrived.
    let health_check = request("grpc.health.v1.Health/Check");
    let (health_response, mut health_message) =
        requests.send_request(health_check, false).expect("sent");
    // An empty gRPC message: only its prefix of five bytes.
    health_message.send_data(Bytes::from_static(&[0; 5]), true).expect("sent");
    health_response.await.expect("a response");
    CheckWithoutMessage { message, response }
}

impl CheckWithoutMessage {
    /// Sends the message and waits for the decision.
    async fn send_message(mut self, permission: &str) -> Result<CheckResponse, Status> {
        let message = CheckRequest { permission: permission.into(), ..CheckRequest::default() };
        let message = message.encode_to_vec();
        let length = u8::try_from(message.len()).expect("a message below 256 bytes");
        // The prefix of a gRPC message: not compressed, and the length.
        let framed_message = [&[0, 0, 0, 0, length], message.as_slice()].concat();
        self.message.send_data(framed_message.into(), true).expect("sent");
        let response = self.response.await.expect("a response");
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(status);
        }
        let mut body = response.into_body();
        let data = body.data().await.expect("a body").expect("readable data");
        Ok(CheckResponse::decode(&data[5..]).expect("a decision"))
    }
}

#[tokio::test]
async fn a_role_unassigned_before_the_message_arrives_does_not_count() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let reader = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign(&ada.user_id, &reader).await;
    assert!(ada.may("doc:read").await, "allowed, and now cached");

    let (check_before, check_after) =
        (send_metadata(&app, &ada).await, send_metadata(&app, &ada).await);
    assert!(check_before.send_message("doc:read").await.expect("a decision").allowed);
    acme.unassign(&ada.user_id, &reader).await;
    assert!(!check_after.send_message("doc:read").await.expect("a decision").allowed);
}

#[tokio::test]
async fn a_session_revoked_before_the_message_arrives_is_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    assert!(ada.may("doc:read").await, "allowed, and now cached");

    let check = send_metadata(&app, &ada).await;
    let request = RevokeAllSessionsRequest { user_id: ada.user_id.clone() };
    acme.sessions().revoke_all_sessions(request).await.expect("revoked");
    let status = check.send_message("doc:read").await.expect_err("the session is revoked");
    assert_eq!(status.code(), Code::Unauthenticated);
}
