//! The duration of a failed sign-in reveals nothing about its cause.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tenantry::proto::v1::{
    CreateUserRequest, DisableUserRequest, LoginRequest, UpdateUserRequest,
    create_user_request::Credential,
};
use tonic::Code;

use crate::harness::{Client, PASSWORD, TestApp, refused, unknown_id};

/// Samples per cause: fewer than the failures that make all networks of an account wait.
const SAMPLES: usize = 90;

/// Samples per cause where each one takes [`FAILURE_TIME`].
const FEW: usize = 16;

/// Well above the time of the most expensive hash that may be imported, even on a busy machine.
const FAILURE_TIME: &str = "3s";

/// The largest distance between the distributions of two equal causes that chance explains.
/// Equal causes exceed it with a probability of 1e-6 (two-sample Kolmogorov-Smirnov,
/// `sqrt(-ln(1e-6 / 2) / samples)`).
fn by_chance(samples: usize) -> f64 {
    (-(1e-6_f64 / 2.0).ln() / number(samples)).sqrt()
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a few"))
}

/// Largest distance between the distributions of two sorted samples, from 0 to 1.
fn distance(one: &[Duration], other: &[Duration]) -> f64 {
    let share = |sample: &[Duration], at: Duration| {
        number(sample.partition_point(|time| *time <= at)) / number(sample.len())
    };
    let points = one.iter().chain(other);
    points.map(|&at| (share(one, at) - share(other, at)).abs()).fold(0.0, f64::max)
}

/// Asserts that the times of no two causes differ by more than chance explains.
fn assert_alike(causes: &[(&str, Vec<Duration>)]) {
    let mut causes = causes.to_vec();
    for (_, times) in &mut causes {
        times.sort_unstable();
    }
    for (at, (first, one)) in causes.iter().enumerate() {
        for (second, other) in &causes[at + 1..] {
            let apart = distance(one, other);
            let medians = (one[one.len() / 2], other[other.len() / 2]);
            let chance = by_chance(one.len());
            assert!(apart < chance, "{first:?} and {second:?}: {apart}, {medians:?}");
        }
    }
}

/// Duration of a sign-in with a wrong password, from a network of its own in each round.
async fn fail(app: &TestApp, round: usize, slug: &str, email: &str) -> Duration {
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
    let took = began.elapsed();
    refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    took
}

/// B07, R9
#[tokio::test]
async fn causes_of_failure_cannot_be_distinguished_by_time() {
    let app = TestApp::with_full_hashes(|values| values.set("TRUSTED_PROXIES", "127.0.0.1")).await;
    let acme = app.tenant("acme").await;
    let disabled = acme.create_user("disabled@acme.test").await;
    let request = DisableUserRequest { user_id: disabled };
    acme.users().disable_user(request).await.expect("disabled");
    acme.create_user_without_password("invited@acme.test").await;
    // Failures with an unknown tenant are counted by email, for all unknown tenants together.
    let elsewhere = format!("{}@nowhere.test", unknown_id());
    let mut causes = [
        ("wrong password", "acme", "admin@acme.test"),
        ("no such user", "acme", "nobody@acme.test"),
        ("no such tenant", "nowhere", elsewhere.as_str()),
        ("disabled", "acme", "disabled@acme.test"),
        ("without a password", "acme", "invited@acme.test"),
    ]
    .map(|(cause, slug, email)| ((cause, Vec::new()), slug, email));
    for round in 0..SAMPLES {
        // Measured in turn, so that a slow phase of the machine affects all causes.
        for ((_, times), slug, email) in &mut causes {
            times.push(fail(&app, round, slug, email).await);
        }
    }
    assert_alike(&causes.map(|(times, ..)| times));
}

/// Creates a user with an imported bcrypt hash of this cost.
async fn import(admin: &Client, email: &str, cost: u32) -> String {
    let hash = bcrypt::hash_with_salt(PASSWORD, cost, [7; 16]).expect("bcrypt").to_string();
    let request = CreateUserRequest {
        email: email.into(),
        credential: Some(Credential::PasswordHash(hash)),
        ..CreateUserRequest::default()
    };
    let reply = admin.users().create_user(request).await.expect("imported");
    reply.into_inner().user.expect("the user").id
}

/// N13: an imported hash takes another time than the server's own, so all failures are answered
/// at a fixed time.
#[tokio::test]
async fn imported_users_cannot_be_distinguished_by_time() {
    let app = TestApp::with_full_hashes(|values| {
        values.set("TRUSTED_PROXIES", "127.0.0.1");
        values.set("SIGN_IN_FAILURE_TIME", FAILURE_TIME);
    })
    .await;
    let acme = app.tenant("acme").await;
    for cost in [4, 10, 12] {
        import(&acme, &format!("cost-{cost}@acme.test"), cost).await;
    }
    let user_id = import(&acme, "disabled@acme.test", 12).await;
    acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    let unreadable = import(&acme, "unreadable@acme.test", 4).await;
    sqlx::query("update credentials set password_hash = 'none' where user_id = $1::uuid")
        .bind(&unreadable)
        .execute(&mut app.owner().await)
        .await
        .expect("made unreadable");
    let mut causes = [
        ("argon2id", "admin@acme.test"),
        ("no such user", "nobody@acme.test"),
        ("bcrypt of cost 4", "cost-4@acme.test"),
        ("bcrypt of cost 10", "cost-10@acme.test"),
        ("bcrypt of cost 12", "cost-12@acme.test"),
        ("bcrypt, disabled", "disabled@acme.test"),
        ("unreadable", "unreadable@acme.test"),
    ]
    .map(|(cause, email)| ((cause, Vec::new()), email));
    for round in 0..FEW {
        // The causes run at once, because each call mostly waits. Each cause is first in turn.
        causes.rotate_left(1);
        let failures = causes.iter().map(|(_, email)| fail(&app, round, "acme", email));
        let took = join_all(failures).await;
        for (((_, times), _), took) in causes.iter_mut().zip(took) {
            times.push(took);
        }
    }
    assert_alike(&causes.map(|(times, _)| times));
}

/// N13: only a failure waits for the fixed time, and not beyond the deadline of its call.
#[tokio::test]
async fn a_right_password_is_answered_at_once_and_a_wrong_one_within_its_deadline() {
    let app = TestApp::with_full_hashes(|values| values.set("SIGN_IN_FAILURE_TIME", "10s")).await;
    let acme = app.tenant("acme").await;
    let with = |password: &str| {
        let request = LoginRequest {
            email: acme.email.clone(),
            password: password.into(),
            organization_slug: "acme".into(),
            ..LoginRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(5));
        request
    };
    app.anonymous().auth().login(with(PASSWORD)).await.expect("before its deadline");
    let status = app.anonymous().auth().login(with("wrong")).await.expect_err("it waits");
    // The client's own timer may fire first.
    let code = status.code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
}

/// N13: a change of one's own email checks the current password, and a failure takes as long as
/// a failed sign-in.
#[tokio::test]
async fn a_wrong_current_password_in_a_change_of_email_waits_like_a_sign_in() {
    let app = TestApp::with_full_hashes(|values| values.set("SIGN_IN_FAILURE_TIME", "10s")).await;
    let acme = app.tenant("acme").await;
    let change = async |password: &str| {
        let request = UpdateUserRequest {
            user_id: acme.user_id.clone(),
            email: Some("new@acme.test".into()),
            current_password: Some(password.into()),
            ..UpdateUserRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(5));
        acme.users().update_user(request).await
    };
    let status = change("wrong").await.expect_err("it waits");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    change(PASSWORD).await.expect("before its deadline");
}
