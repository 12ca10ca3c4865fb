//! Calls whose message never arrives.

use tenantry::proto::v1::{GetJwksRequest, auth_service_client::AuthServiceClient};

use super::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Peer, call_headers, call_headers_to, frame,
};
use crate::harness::{ServerProcess, within_seconds};

/// N21: the number of calls without their message is limited by network, and complete calls
/// still succeed.
#[tokio::test(flavor = "multi_thread")]
async fn calls_without_their_message_do_not_block_complete_calls() {
    let server = ServerProcess::start(&[("MAX_REQUESTS", "80")]).await;
    let mut peer = Peer::connect_from_other_network(server.addr).await;
    for n in 0..100 {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &call_headers())).await);
    }
    // After one second, the server refuses all but ten of these calls: the late messages of one
    // network may hold an eighth of MAX_REQUESTS (80 / 8).
    let mut refused = 0;
    while refused < 90 {
        let (kind, flags, ..) = within_seconds(10, peer.next_frame()).await.expect("a response");
        // The server refuses a call with a single HEADERS frame that ends the stream.
        refused += u32::from(kind == HEADERS && flags & END_STREAM > 0);
    }
    let mut client = AuthServiceClient::new(server.channel.clone());
    for _ in 0..100 {
        client.get_jwks(GetJwksRequest::default()).await.expect("a response");
    }
    server.stop().await;
}

/// N21: a call succeeds when its message arrives late.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_late_message_succeeds() {
    let server = ServerProcess::start(&[("MAX_REQUESTS", "80")]).await;
    let mut peer = Peer::connect(server.addr).await;
    for n in 0..10 {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &call_headers())).await);
    }
    // Stream 1 is one of the ten calls that wait for their message. Streams 21 and 23 are new.
    for stream in [1, 21, 23] {
        if stream > 1 {
            assert!(peer.send(&frame(HEADERS, END_HEADERS, stream, &call_headers())).await);
        }
        // An empty gRPC message: only its prefix of five bytes.
        assert!(peer.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await);
        loop {
            let (kind, flags, frame_stream, _) =
                within_seconds(10, peer.next_frame()).await.expect("a frame");
            assert!(kind != HEADERS || flags & END_STREAM == 0, "{frame_stream} was refused");
            if (kind, frame_stream) == (DATA, stream) {
                break;
            }
        }
        // The trailers of the response.
        loop {
            let (kind, flags, frame_stream, _) =
                within_seconds(10, peer.next_frame()).await.expect("a frame");
            if (kind, frame_stream) == (HEADERS, stream) && flags & END_STREAM > 0 {
                break;
            }
        }
    }
    server.stop().await;
}

/// N21: health and reflection need no token, so their messages have a small size limit.
#[tokio::test(flavor = "multi_thread")]
async fn large_messages_to_health_and_reflection_are_refused_early() {
    let server = ServerProcess::start(&[]).await;
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let mut peer = Peer::connect(server.addr).await;
        let headers = call_headers_to(path);
        assert!(peer.send(&frame(HEADERS, END_HEADERS, 1, &headers)).await);
        // The prefix of a message of 4 MB, without the message.
        let prefix = [&[0][..], &4_000_000_u32.to_be_bytes()].concat();
        assert!(peer.send(&frame(DATA, 0, 1, &prefix)).await);
        loop {
            let (kind, flags, ..) =
                within_seconds(10, peer.next_frame()).await.expect("a response");
            if kind == HEADERS && flags & END_STREAM > 0 {
                break;
            }
        }
    }
    server.stop().await;
}
