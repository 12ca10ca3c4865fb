//! Slow attacks: as few bytes as possible, for as long as possible.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream, time};

use super::{
    SLACK, answers,
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, Peer, SETTINGS, call, call_with,
        frame, request,
    },
};
use crate::harness::{Serving, within};

/// G11: clients that never read. The memory kept for them is limited by the number of open
/// streams per connection.
#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_zero_window_cost_little_memory() {
    let serving = Serving::start(&[]).await;
    answers(&serving).await;
    let before = serving.status("VmRSS");
    let mut peers = Vec::new();
    for _ in 0..50 {
        let mut peer = Peer::connect(serving.addr).await;
        // SETTINGS_INITIAL_WINDOW_SIZE = 0.
        peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
        for n in 0..1000 {
            let stream = 2 * n + 1;
            peer.send(&frame(HEADERS, END_HEADERS, stream, &call())).await;
            peer.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await;
        }
        peers.push(peer);
    }
    answers(&serving).await;
    assert!(serving.status("VmRSS") < before + SLACK);
    drop(peers);
    serving.stop().await;
}

/// G13: a connection whose preface does not complete in time is closed, even when bytes keep
/// arriving.
#[tokio::test(flavor = "multi_thread")]
async fn connections_with_an_incomplete_preface_are_closed() {
    let serving = Serving::start(&[]).await;
    let mut peers = Vec::new();
    for sent in [0, 1, 10, PREFACE.len() - 1].repeat(25) {
        let mut stream = TcpStream::connect(serving.addr).await.expect("connects");
        stream.write_all(&PREFACE[..sent]).await.expect("sent");
        peers.push(Peer { stream });
    }
    answers(&serving).await;
    let began = time::Instant::now();
    for peer in &mut peers {
        assert_eq!(within(20, peer.goodbye()).await, None, "it ends without a word");
    }
    assert!(began.elapsed() > Duration::from_secs(5), "closed before the timeout of the preface");
    answers(&serving).await;
}

/// G13: a connection that reaches its maximum age takes no new calls, and is closed after a
/// grace period.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_closed_at_their_maximum_age() {
    let other = [("MAX_CONNECTION_AGE", "1s"), ("REQUEST_TIMEOUT", "1s")];
    let serving = Serving::start(&other).await;
    let mut polite = Peer::connect(serving.addr).await;
    assert_eq!(within(10, polite.goodbye()).await, Some(0));
    // A connection with a call that never ends.
    let mut open = Peer::connect(serving.addr).await;
    open.send(&frame(HEADERS, END_HEADERS, 1, &call())).await;
    assert_eq!(within(10, open.goodbye()).await, Some(0));
    answers(&serving).await;
}

/// A call may be refused before its message arrives, and the client may still send it, because
/// both cross on the network. That must not end the connection, however often it happens.
#[tokio::test(flavor = "multi_thread")]
async fn early_refusals_do_not_end_the_connection() {
    let both = call_with(&[("x-tenant-id", "a"), ("x-organization-slug", "b")]);
    let refused = [
        ("off", both),
        ("off", request("POST", &[("content-type", "text/plain")])),
        ("http://a.example", request("POST", &[("content-type", "text/plain")])),
        ("http://a.example", request("PUT", &[("content-type", "application/grpc-web")])),
        ("http://a.example", request("OPTIONS", &[("origin", "http://a.example")])),
    ];
    for (origins, head) in refused {
        let serving = Serving::start(&[("GRPC_WEB_ORIGINS", origins)]).await;
        let mut peer = Peer::connect(serving.addr).await;
        within(60, answered_early(&mut peer, &head)).await;
        answers(&serving).await;
    }
}

async fn answered_early(peer: &mut Peer, head: &[u8]) {
    for stream in (1..2000).step_by(2) {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, stream, head)).await, "{stream}");
        loop {
            let (kind, flags, of, payload) = peer.frame().await.expect("an answer");
            assert_ne!(kind, GOAWAY, "{stream}: {payload:?}");
            if (kind, of) == (HEADERS, stream) && flags & END_STREAM > 0 {
                break;
            }
        }
        assert!(peer.send(&frame(DATA, END_STREAM, stream, &[0; 5])).await, "{stream}");
    }
}
