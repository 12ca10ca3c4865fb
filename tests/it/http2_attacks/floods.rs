//! Floods: many HTTP/2 frames at the highest rate.

use futures::future::join_all;
use tokio::io::AsyncWriteExt;

use super::{
    ALLOWED_GROWTH_KIB, assert_responds,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, Peer,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, call_headers, frame,
    },
};
use crate::harness::{ServerProcess, within_seconds};

/// Sends `frames_of(0)`, `frames_of(1)` and so on, `count` times or until the server closes the
/// connection. Returns the error code of the server's GOAWAY.
async fn flood(
    server: &ServerProcess,
    frames_of: impl Fn(u32) -> Vec<u8>,
    count: u32,
) -> Option<u32> {
    let (mut reader, mut writer) = Peer::connect(server.addr).await.split();
    let sending = async move {
        for first in (0..count).step_by(1000) {
            let batch: Vec<u8> = (first..first + 1000).flat_map(&frames_of).collect();
            if writer.write_all(&batch).await.is_err() {
                return;
            }
        }
        writer.shutdown().await.ok();
    };
    // The client also reads, because otherwise the server would stop reading.
    let (code, ()) =
        within_seconds(60, async { tokio::join!(reader.read_goaway(), sending) }).await;
    code
}

/// G09: rapid resets end the connection (CVE-2023-44487, CVE-2023-26964).
#[tokio::test(flavor = "multi_thread")]
async fn rapid_stream_resets_end_the_connection() {
    let server = ServerProcess::start(&[]).await;
    assert_responds(&server).await;
    let memory_before = server.proc_status_number("VmRSS");
    let headers = call_headers();
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        let mut frames = frame(HEADERS, END_HEADERS, stream, &headers);
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    };
    let floods = (0..50).map(|_| flood(&server, reset, 100_000));
    let (codes, ()) = tokio::join!(join_all(floods), async {
        for _ in 0..20 {
            assert_responds(&server).await;
        }
    });
    // When a connection with much unread data is closed, the kernel resets the connection,
    // and the GOAWAY is lost.
    let goaway_codes: Vec<_> = codes.into_iter().flatten().collect();
    assert!(
        !goaway_codes.is_empty() && goaway_codes.iter().all(|code| *code == ENHANCE_YOUR_CALM),
        "{goaway_codes:?}"
    );
    assert!(server.proc_status_number("VmRSS") < memory_before + ALLOWED_GROWTH_KIB);
    assert_responds(&server).await;
}

/// G10: a header block without an end does not use unbounded memory (RUSTSEC-2024-0332).
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_header_block_uses_bounded_memory() {
    let server = ServerProcess::start(&[]).await;
    assert_responds(&server).await;
    let memory_before = server.proc_status_number("VmRSS");
    for payload in [&[][..], &[0; 16], &[0x40; 1000]] {
        let frames_of = |n: u32| match n {
            0 => frame(HEADERS, 0, 1, &call_headers()),
            _ => frame(CONTINUATION, 0, 1, payload),
        };
        flood(&server, frames_of, 1_000_000).await;
        assert_responds(&server).await;
    }
    assert!(server.proc_status_number("VmRSS") < memory_before + ALLOWED_GROWTH_KIB);
}

/// G11: floods of empty frames do not use unbounded memory (RUSTSEC-2026-0258,
/// RUSTSEC-2024-0003, CVE-2025-8671).
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_empty_frames_use_bounded_memory() {
    let server = ServerProcess::start(&[]).await;
    assert_responds(&server).await;
    let memory_before = server.proc_status_number("VmRSS");
    let headers = call_headers();
    let floods: [&(dyn Fn(u32) -> Vec<u8> + Sync); 5] = [
        &|n| match n {
            0 => frame(HEADERS, END_HEADERS, 1, &headers),
            _ => frame(DATA, 0, 1, &[]),
        },
        &|_| frame(SETTINGS, 0, 0, &[]),
        &|_| frame(PING, 0, 0, &[7; 8]),
        // A window update by zero, which makes the server reset the stream.
        &|n| {
            let stream = 2 * n + 1;
            let mut frames = frame(HEADERS, END_HEADERS, stream, &headers);
            frames.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
            frames
        },
        // A DATA frame after the end of its stream.
        &|n| {
            let stream = 2 * n + 1;
            let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers);
            frames.extend(frame(DATA, END_STREAM, stream, &[0; 5]));
            frames
        },
    ];
    for frames_of in floods {
        let floods = (0..4).map(|_| flood(&server, frames_of, 200_000));
        let (_, ()) = tokio::join!(join_all(floods), assert_responds(&server));
        assert_responds(&server).await;
    }
    assert!(server.proc_status_number("VmRSS") < memory_before + ALLOWED_GROWTH_KIB);
}
