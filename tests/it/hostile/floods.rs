//! Floods: many HTTP/2 frames at the highest rate.

use futures::future::join_all;
use tokio::io::AsyncWriteExt;

use super::{
    SLACK, answers,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, Peer,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame,
    },
};
use crate::harness::{Serving, within};

/// Sends `count` units of frames until the server closes the connection or all are sent.
/// Returns the error code of the server's GOAWAY.
async fn flood(serving: &Serving, next: impl Fn(u32) -> Vec<u8>, count: u32) -> Option<u32> {
    let (mut reader, mut writer) = Peer::connect(serving.addr).await.split();
    let sending = async move {
        for first in (0..count).step_by(1000) {
            let batch: Vec<u8> = (first..first + 1000).flat_map(&next).collect();
            if writer.write_all(&batch).await.is_err() {
                return;
            }
        }
        writer.shutdown().await.ok();
    };
    // The client also reads, because otherwise the server would stop reading.
    let (code, ()) = within(60, async { tokio::join!(reader.goodbye(), sending) }).await;
    code
}

/// G09: rapid resets end the connection (CVE-2023-44487, CVE-2023-26964).
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_immediately_end_their_connection() {
    let serving = Serving::start(&[]).await;
    answers(&serving).await;
    let before = serving.status("VmRSS");
    let block = call();
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        let mut frames = frame(HEADERS, END_HEADERS, stream, &block);
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    };
    let floods = (0..50).map(|_| flood(&serving, reset, 100_000));
    let (codes, ()) = tokio::join!(join_all(floods), async {
        for _ in 0..20 {
            answers(&serving).await;
        }
    });
    // When a connection with much unread data is closed, the kernel resets it, and its GOAWAY
    // is lost.
    let goaway_codes: Vec<_> = codes.into_iter().flatten().collect();
    assert!(
        !goaway_codes.is_empty() && goaway_codes.iter().all(|code| *code == ENHANCE_YOUR_CALM),
        "{goaway_codes:?}"
    );
    assert!(serving.status("VmRSS") < before + SLACK);
    answers(&serving).await;
}

/// G10: a header block without an end does not use unbounded memory (RUSTSEC-2024-0332).
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_header_block_ends_its_connection() {
    let serving = Serving::start(&[]).await;
    answers(&serving).await;
    let before = serving.status("VmRSS");
    for piece in [&[][..], &[0; 16], &[0x40; 1000]] {
        let next = |n: u32| match n {
            0 => frame(HEADERS, 0, 1, &call()),
            _ => frame(CONTINUATION, 0, 1, piece),
        };
        flood(&serving, next, 1_000_000).await;
        answers(&serving).await;
    }
    assert!(serving.status("VmRSS") < before + SLACK);
}

/// G11: floods of empty frames do not use unbounded memory (RUSTSEC-2026-0258,
/// RUSTSEC-2024-0003, CVE-2025-8671).
#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_cost_no_memory() {
    let serving = Serving::start(&[]).await;
    answers(&serving).await;
    let before = serving.status("VmRSS");
    let block = call();
    let floods: [&(dyn Fn(u32) -> Vec<u8> + Sync); 5] = [
        &|n| match n {
            0 => frame(HEADERS, END_HEADERS, 1, &block),
            _ => frame(DATA, 0, 1, &[]),
        },
        &|_| frame(SETTINGS, 0, 0, &[]),
        &|_| frame(PING, 0, 0, &[7; 8]),
        // A window update by zero, which makes the server reset the stream.
        &|n| {
            let stream = 2 * n + 1;
            let mut frames = frame(HEADERS, END_HEADERS, stream, &block);
            frames.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
            frames
        },
        // A DATA frame after the end of its stream.
        &|n| {
            let stream = 2 * n + 1;
            let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            frames.extend(frame(DATA, END_STREAM, stream, &[0; 5]));
            frames
        },
    ];
    for next in floods {
        let floods = (0..4).map(|_| flood(&serving, next, 200_000));
        let (_, ()) = tokio::join!(join_all(floods), answers(&serving));
        answers(&serving).await;
    }
    assert!(serving.status("VmRSS") < before + SLACK);
}
