//! Calls whose message never arrives.

use tenantry::proto::v1::{GetJwksRequest, auth_service_client::AuthServiceClient};

use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, call, call_of, frame};
use crate::harness::{Serving, within};

/// N21: the number of calls without their message is limited by network, and complete calls are
/// still answered.
#[tokio::test(flavor = "multi_thread")]
async fn calls_without_their_message_do_not_block_complete_calls() {
    let serving = Serving::start(&[("MAX_REQUESTS", "80")]).await;
    let mut peer = Peer::connect_from_elsewhere(serving.addr).await;
    for n in 0..100 {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &call())).await);
    }
    // After one second only ten calls still wait for their message. Ten is an eighth of all
    // permits, the limit of one network.
    let mut refused = 0;
    while refused < 90 {
        let (kind, flags, ..) = within(10, peer.frame()).await.expect("an answer");
        refused += u32::from(kind == HEADERS && flags & END_STREAM > 0);
    }
    let mut client = AuthServiceClient::new(serving.channel.clone());
    for _ in 0..100 {
        client.get_jwks(GetJwksRequest::default()).await.expect("an answer");
    }
    serving.stop().await;
}

/// N21: the server answers a call whose message arrives late.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_message_is_answered() {
    let serving = Serving::start(&[("MAX_REQUESTS", "80")]).await;
    let mut peer = Peer::connect(serving.addr).await;
    for n in 0..10 {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &call())).await);
    }
    for stream in [1, 21, 23] {
        if stream > 1 {
            assert!(peer.send(&frame(HEADERS, END_HEADERS, stream, &call())).await);
        }
        assert!(peer.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await);
        loop {
            let (kind, flags, frame_stream, _) = within(10, peer.frame()).await.expect("a frame");
            assert!(kind != HEADERS || flags & END_STREAM == 0, "{frame_stream} was refused");
            if (kind, frame_stream) == (DATA, stream) {
                break;
            }
        }
        // The trailers of the answer.
        loop {
            let (kind, flags, frame_stream, _) = within(10, peer.frame()).await.expect("a frame");
            if (kind, frame_stream) == (HEADERS, stream) && flags & END_STREAM > 0 {
                break;
            }
        }
    }
    serving.stop().await;
}

/// N21: health and reflection need no token, so their messages have a small size limit.
#[tokio::test(flavor = "multi_thread")]
async fn large_messages_to_health_and_reflection_are_refused_early() {
    let serving = Serving::start(&[]).await;
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let mut peer = Peer::connect(serving.addr).await;
        let head = call_of(path);
        assert!(peer.send(&frame(HEADERS, END_HEADERS, 1, &head)).await);
        // The prefix of a message of 4 MB, without the message.
        let prefix = [&[0][..], &4_000_000_u32.to_be_bytes()].concat();
        assert!(peer.send(&frame(DATA, 0, 1, &prefix)).await);
        loop {
            let (kind, flags, ..) = within(10, peer.frame()).await.expect("an answer");
            if kind == HEADERS && flags & END_STREAM > 0 {
                break;
            }
        }
    }
    serving.stop().await;
}
