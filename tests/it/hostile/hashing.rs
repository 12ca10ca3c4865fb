//! Sign-ins, more than there are threads to hash for.

use futures::future::join_all;
use tenantry::proto::v1::LoginRequest;
use tonic::Code;

use super::SLACK;
use crate::harness::{Client, PASSWORD, Serving, reason};

/// What the server is told to take for one hash, in KiB.
const ARGON2: u64 = 19_456;

/// G06: memory is bounded by the threads that hash, what waits for one by the queue, and
/// others are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_is_refused_and_costs_no_memory() {
    let serving = Serving::start(&[("HASHING_THREADS", "2"), ("HASHING_QUEUE", "16")]).await;
    let acme = Client::anonymous(serving.channel.clone()).sign_up_tenant("acme").await;
    let before = serving.status("VmRSS");
    let sign_in = |n: usize| {
        let request = LoginRequest {
            // Accounts differ: what is counted by account is no matter here.
            email: format!("user-{n}@acme.test"),
            password: PASSWORD.into(),
            organization_slug: "acme".into(),
            ..LoginRequest::default()
        };
        let mut auth = acme.auth();
        async move { auth.login(request).await.expect_err("nobody is there") }
    };
    let flood = join_all((0..1000).map(sign_in));
    let (refusals, allowed) = tokio::join!(flood, async {
        let mut allowed = 0;
        for _ in 0..100 {
            allowed += usize::from(acme.may("", "doc:read").await);
        }
        allowed
    });
    assert_eq!(allowed, 100);
    let full = refusals.iter().filter(|status| status.code() == Code::ResourceExhausted).count();
    assert!(full > 500, "{full}");
    for status in refusals {
        let reason = reason(&status);
        assert!(
            ["HASHING_QUEUE_FULL", "INVALID_CREDENTIALS"].contains(&reason.as_str()),
            "{reason}"
        );
    }
    assert!(serving.status("VmHWM") < before + 4 * ARGON2 + SLACK);
}
