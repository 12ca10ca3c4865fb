//! Slow attacks: connections that stay open with few bytes.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream, time};

use super::{
    ALLOWED_GROWTH_KIB, assert_responds,
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, Peer, SETTINGS, call_headers,
        call_headers_with, frame, request_headers,
    },
};
use crate::harness::{ServerProcess, within_seconds};

/// G11: a client with a window of zero never receives a response body, so the server keeps the
/// responses. The limit of open streams per connection limits their memory.
#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_zero_window_cost_little_memory() {
    let server = ServerProcess::start(&[]).await;
    assert_responds(&server).await;
    let memory_before = server.proc_status_number("VmRSS");
    let mut peers = Vec::new();
    for _ in 0..50 {
        let mut peer = Peer::connect(server.addr).await;
        // SETTINGS_INITIAL_WINDOW_SIZE = 0.
        peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
        for n in 0..1000 {
            let stream = 2 * n + 1;
            peer.send(&frame(HEADERS, END_HEADERS, stream, &call_headers())).await;
            peer.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await;
        }
        peers.push(peer);
    }
    assert_responds(&server).await;
    let growth = server.proc_status_number("VmRSS").saturating_sub(memory_before);
    assert!(growth < ALLOWED_GROWTH_KIB, "{growth} KiB");
    drop(peers);
    server.stop().await;
}

/// G13: a connection whose preface does not complete in time is closed, even when bytes keep
/// arriving.
#[tokio::test(flavor = "multi_thread")]
async fn connections_with_an_incomplete_preface_are_closed() {
    let server = ServerProcess::start(&[]).await;
    let mut peers = Vec::new();
    for sent_bytes in [0, 1, 10, PREFACE.len() - 1].repeat(25) {
        let mut stream = TcpStream::connect(server.addr).await.expect("connected");
        stream.write_all(&PREFACE[..sent_bytes]).await.expect("sent");
        peers.push(Peer { stream });
    }
    assert_responds(&server).await;
    let start = time::Instant::now();
    for peer in &mut peers {
        assert_eq!(
            within_seconds(20, peer.read_goaway()).await,
            None,
            "the connection ends without a GOAWAY"
        );
    }
    assert!(start.elapsed() > Duration::from_secs(5), "closed before the timeout of the preface");
    assert_responds(&server).await;
}

/// G13: a connection that reaches its maximum age accepts no new calls, and is closed after a
/// grace period.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_closed_at_their_maximum_age() {
    let settings = [("MAX_CONNECTION_AGE", "1s"), ("REQUEST_TIMEOUT", "1s")];
    let server = ServerProcess::start(&settings).await;
    // Both connections get a GOAWAY with the code NO_ERROR (0).
    let mut closing_peer = Peer::connect(server.addr).await;
    assert_eq!(within_seconds(10, closing_peer.read_goaway()).await, Some(0));
    // A connection with a call that never ends.
    let mut peer_with_open_call = Peer::connect(server.addr).await;
    peer_with_open_call.send(&frame(HEADERS, END_HEADERS, 1, &call_headers())).await;
    assert_eq!(within_seconds(10, peer_with_open_call.read_goaway()).await, Some(0));
    assert_responds(&server).await;
}

/// The server may refuse a call before the call's message arrives, while the client still sends
/// the message. Any number of such calls must not end the connection.
#[tokio::test(flavor = "multi_thread")]
async fn early_refusals_do_not_end_the_connection() {
    let two_tenants = call_headers_with(&[("x-tenant-id", "a"), ("x-organization-slug", "b")]);
    // The value of GRPC_WEB_ORIGINS, and the headers of a call that the server refuses.
    let refused_calls = [
        ("off", two_tenants),
        ("off", request_headers("POST", &[("content-type", "text/plain")])),
        ("http://a.example", request_headers("POST", &[("content-type", "text/plain")])),
        ("http://a.example", request_headers("PUT", &[("content-type", "application/grpc-web")])),
        ("http://a.example", request_headers("OPTIONS", &[("origin", "http://a.example")])),
    ];
    for (origins, headers) in refused_calls {
        let server = ServerProcess::start(&[("GRPC_WEB_ORIGINS", origins)]).await;
        let mut peer = Peer::connect(server.addr).await;
        within_seconds(60, assert_refused_early(&mut peer, &headers)).await;
        assert_responds(&server).await;
    }
}

/// Makes 1000 calls. Sends the message of each call after the server has refused the call.
async fn assert_refused_early(peer: &mut Peer, headers: &[u8]) {
    for stream in (1..2000).step_by(2) {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, stream, headers)).await, "{stream}");
        loop {
            let (kind, flags, frame_stream, payload) = peer.next_frame().await.expect("a response");
            assert_ne!(kind, GOAWAY, "{stream}: {payload:?}");
            // The refusal is a single HEADERS frame that ends the stream.
            if (kind, frame_stream) == (HEADERS, stream) && flags & END_STREAM > 0 {
                break;
            }
        }
        assert!(peer.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await, "{stream}");
    }
}
