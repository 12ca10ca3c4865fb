//! How long a failed sign-in takes tells nothing of why it failed.

use std::time::{Duration, Instant};

use tenantry::proto::v1::{DisableUserRequest, LoginRequest};
use tonic::Code;

use crate::harness::{TestApp, refused, unknown_id};

/// Samples of each cause: fewer than an account may fail before all must wait.
const SAMPLES: usize = 90;

/// The largest distance between two causes' distributions that chance explains: beyond it
/// equal causes lie once in a million times (two-sample Kolmogorov-Smirnov,
/// `sqrt(-ln(1e-6 / 2) / SAMPLES)`).
fn by_chance() -> f64 {
    let samples = f64::from(u32::try_from(SAMPLES).expect("a few"));
    (-(1e-6_f64 / 2.0).ln() / samples).sqrt()
}

/// How far two samples' distributions are apart at most, 0 to 1; both are sorted.
fn distance(one: &[Duration], other: &[Duration]) -> f64 {
    let share = |sample: &[Duration], at: Duration| {
        let below = u32::try_from(sample.partition_point(|time| *time <= at)).expect("a few");
        f64::from(below) / f64::from(u32::try_from(SAMPLES).expect("a few"))
    };
    let points = one.iter().chain(other);
    points.map(|&at| (share(one, at) - share(other, at)).abs()).fold(0.0, f64::max)
}

/// B07, R9
#[tokio::test]
async fn causes_of_failure_can_not_be_told_apart_by_time() {
    let app = TestApp::with(|values| values.set("TRUSTED_PROXIES", "127.0.0.1")).await;
    let acme = app.tenant("acme").await;
    let disabled = acme.create_user("disabled@acme.test").await;
    let request = DisableUserRequest { user_id: disabled };
    acme.users().disable_user(request).await.expect("disabled");
    acme.create_user_without_password("invited@acme.test").await;
    // Failures are counted by email, for all that name no tenant together.
    let elsewhere = format!("{}@nowhere.test", unknown_id());
    let causes = [
        ("wrong password", "acme", "admin@acme.test"),
        ("no such user", "acme", "nobody@acme.test"),
        ("no such tenant", "nowhere", elsewhere.as_str()),
        ("disabled", "acme", "disabled@acme.test"),
        ("without a password", "acme", "invited@acme.test"),
    ];

    let mut times = [const { Vec::new() }; 5];
    for round in 0..SAMPLES {
        // In turn, so that what slows one down slows all down.
        for (times, (_, slug, email)) in times.iter_mut().zip(causes) {
            let somebody = app.anonymous().with("x-forwarded-for", &format!("198.18.7.{round}"));
            let request = LoginRequest {
                email: email.into(),
                password: "not this one".into(),
                organization_slug: slug.into(),
                ..LoginRequest::default()
            };
            let mut auth = somebody.auth();
            let began = Instant::now();
            let reply = auth.login(request).await;
            times.push(began.elapsed());
            refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    for (at, (one, first)) in times.iter().zip(causes).enumerate() {
        for (other, second) in times.iter().zip(causes).skip(at + 1) {
            let apart = distance(one, other);
            let medians = (one[SAMPLES / 2], other[SAMPLES / 2]);
            assert!(apart < by_chance(), "{first:?} and {second:?}: {apart}, {medians:?}");
        }
    }
}
